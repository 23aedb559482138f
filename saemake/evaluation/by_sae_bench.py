"""What an evaluation is that SAE Bench itself computes, in an environment of its own: its settings,
the data that it reads, its figures, and what it costs. The workers are in
workflow/workers/sae_bench.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, create_model

from saemake.base.sections import Closed, Flag, Whole
from saemake.evaluation.description import Evaluation


class SaeBenchSettings(Closed):
    """Settings of an evaluation of SAE Bench: those of its own config, by their names there, and
    three of ours.

    `random_seed` is SAE Bench's too. `reseeds` is how many more seeds an SAE is judged with, the
    next ones. `keep_setup` says whether the setup is kept in the store, or made anew by each job
    and removed after it.
    """

    OUTSIDE_RECIPE: ClassVar[frozenset[str]] = frozenset({"reseeds", "keep_setup"})

    random_seed: Whole
    reseeds: Whole
    keep_setup: Flag

    def recorded(self) -> dict[str, Any]:
        """The settings that the figures depend on, as JSON."""
        return self.model_dump(mode="json", exclude=set(self.OUTSIDE_RECIPE))

    @property
    def seeds(self) -> list[int]:
        """The seeds that an SAE is judged with; its figures are those of the first."""
        return [self.random_seed + n for n in range(self.reseeds + 1)]


@dataclass(frozen=True)
class PaperCost:
    """What SAE Bench's README says of a job at the paper's settings, on an RTX 3090: gemma-2-2b,
    SAEs of 16,384 latents. `amount` is what these settings read, in the unit of `amount`."""

    setup_minutes: float
    sae_minutes: float
    amount: float
    # Whether the time of an SAE is that of runs of the LM.
    sae_runs_lm: bool = False


class SaeBenchEvaluation(Evaluation):
    """An evaluation that SAE Bench 0.6.0 computes. What does not depend on an SAE is set up once
    for a model, a layer and a seed."""

    Settings: ClassVar[type[SaeBenchSettings]]
    # What the worker calls it.
    worker: ClassVar[str]
    # Settings that the setup does not depend on.
    of_saes_only: ClassVar[frozenset[str]] = frozenset()
    # Whether the LM's dtype is a setting of it.
    has_dtype: ClassVar[bool] = True
    # Whether SAEs are judged on the data itself, and not on the setup alone.
    reads_data: ClassVar[bool] = False
    # Whether another LM answers questions.
    has_judge: ClassVar[bool] = False
    paper: ClassVar[PaperCost]
    # What published work warns of. Each row has it, and a figure that shows the evaluation.
    caution: ClassVar[str | None] = None

    @classmethod
    @abc.abstractmethod
    def datasets(cls, settings: Any) -> list[str]:
        """The datasets that it reads, as SAE Bench calls them: keys of the config's `datasets`."""

    @classmethod
    def lm(cls, settings: Any, model: str) -> str:
        """The LM that runs, a key of the config's `models`, for SAEs of `model`."""
        return model

    @classmethod
    def refusal(cls, settings: Any, lm_name: str) -> str | None:
        """Why it cannot judge SAEs with an LM; None where it can. `lm_name` is TransformerLens's
        short name of the LM."""
        return None

    @classmethod
    def latents_needed(cls, settings: Any) -> int:
        """The fewest latents that an SAE must have."""
        return 1

    @classmethod
    @abc.abstractmethod
    def amount(cls, settings: Any) -> float:
        """How much it reads: what its time grows with."""

    @classmethod
    @abc.abstractmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        """Bytes of a setup."""

    @classmethod
    def held_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        """Bytes of the data's activations that are in memory at once."""
        return 0

    @classmethod
    def questions(cls, settings: Any) -> int:
        """Questions to the judge, for each SAE."""
        return 0

    @classmethod
    def dollars(cls, settings: Any) -> float:
        """What the judge asks for an SAE, about."""
        return 0.0

    @classmethod
    def sizes(cls, settings: Any) -> list[int] | None:
        """The numbers of latents, which are parts of figures' names, that it is asked for; None
        where no figure has such a part."""
        return None

    @classmethod
    def figures(
        cls, metrics: Mapping[str, Mapping[str, Any]], settings: Any
    ) -> dict[str, float | None]:
        """The columns of metrics.json from SAE Bench's metrics, which are in groups: those that the
        settings ask for."""
        flat = {name: value for group in metrics.values() for name, value in group.items()}
        sizes = cls.sizes(settings)
        return {
            name: flat.get(name)
            for name in cls.Figures.model_fields
            if name in flat and (sizes is None or _size_in(name) in (None, *sizes))
        }


def _size_in(figure: str) -> int | None:
    """The number of latents in a figure's name."""
    return next((int(part) for part in figure.split("_") if part.isdigit()), None)


def columns(name: str, doc: str, described: Mapping[str, str]) -> type[Closed]:
    """The type of an evaluation's figures, from the description of each. A figure that SAE Bench
    does not give with the settings is absent."""
    fields: Any = {
        figure: (float | None, Field(default=None, description=text))
        for figure, text in described.items()
    }
    made: type[Closed] = create_model(name, __base__=Closed, __doc__=doc, **fields)
    return made
