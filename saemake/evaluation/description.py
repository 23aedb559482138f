"""What an evaluation is called, its settings, the text it reads, its figures, and what it costs.

Names, recipes, rules and plans need these, so this is without torch. The maths is in the `judge.py`
beside each description.
"""

import abc
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from saemake.activations.drop_settings import Drop
from saemake.base.sections import Closed
from saemake.llm.cost import Latents, Lm, Operations, Reading

if TYPE_CHECKING:
    from saemake.evaluation.codecs import Codec, Judgement
    from saemake.llm.model import LanguageModel
    from saemake.text.shards import Tokens


class Settings(Closed):
    """Settings of an evaluation that reads a text. Each must have `held_out`, whether nothing in
    the text was trained on, and `drop`, the positions that are left out of its figures. All enter
    its recipe but those in OUTSIDE_RECIPE, which the recipe says otherwise."""

    OUTSIDE_RECIPE: ClassVar[set[str]] = set()

    if TYPE_CHECKING:
        held_out: bool
        drop: Drop


@dataclass(frozen=True)
class Text:
    """The text that an evaluation reads: so many documents, one a context, or contexts that are
    packed from documents.

    `name` is a key of the config's texts, None the text that the model was trained on.
    `context_tokens` None is the training's. `shuffle_seed` draws the order of the text's files.
    """

    layout: Literal["documents", "packed"]
    amount: int
    context_tokens: int | None = None
    name: str | None = None
    shuffle_seed: int | None = None


@dataclass(frozen=True)
class Roles:
    """What an evaluation calls the figures that warnings and comparisons look at."""

    recovered: str
    explained: str
    clean: str
    ablated: str
    l0: str = "l0"


@dataclass(frozen=True)
class Cost:
    """What judging costs. `predicted` are the positions at which a run of the LM makes logits.
    `rows` are the positions whose latents are in memory together, None a whole batch's.
    `float32_logits` are the copies of a context's logits that are looked at in float32, and
    `keeps_logits` says that the untouched LM's are kept for a whole batch."""

    operations: Operations
    predicted: int
    rows: int | None = None
    float32_logits: int = 0
    keeps_logits: bool = False


class Evaluation(abc.ABC):
    """An evaluation's description.

    `version` enters the recipe: whoever changes what an evaluation computes raises it.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Settings: ClassVar[type[Closed]]
    # The columns of metrics.json, each described. A figure that is not defined is null.
    Figures: ClassVar[type[Closed]]
    # On figures' axes and panels.
    label: ClassVar[str]
    roles: ClassVar[Roles | None] = None
    # Columns of a model card's table, to the figures in them.
    card: ClassVar[Mapping[str, str]] = {}


class TextEvaluation(Evaluation):
    """An evaluation that saemake itself computes, in one run of the LM over a text."""

    Settings: ClassVar[type[Settings]]
    # What the catalogue of published SAEs calls their L0 and their loss recovered by it.
    published: ClassVar[Mapping[str, str]] = {}
    # Whether it leaves BOS, EOS and padding out by itself.
    leaves_out_special: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def text(cls, settings: Any) -> Text:
        """The text that it reads."""

    @classmethod
    def batch_contexts(cls, settings: Any, llm_batch_contexts: int) -> int:
        """Contexts that the LM runs together; the training's number where it has no setting."""
        return llm_batch_contexts

    @classmethod
    @abc.abstractmethod
    def cost(
        cls, settings: Any, lm: Lm, reading: Reading, latents: Sequence[int], batch_contexts: int
    ) -> Cost:
        """What it costs to judge codecs of so many latents on that text."""

    @classmethod
    def needs_owners_rounding(cls, settings: Any) -> bool:
        """Whether the LM's products must be torch's own: where an owner's figures are wanted, since
        a latent close to its threshold is active or not by the last bit."""
        return False

    @classmethod
    def too_little_text(cls, settings: Any, key: str, contexts: int) -> str:
        """The end of the message for a text that gave only so many documents or contexts: which
        settings below `key` ask for more, and what to set them to."""
        return f"{key}; {OTHER_TEXT}"

    @classmethod
    def judge(
        cls,
        codecs: "Mapping[Any, Codec]",
        lm: "LanguageModel",
        tokens: "Tokens",
        settings: Any,
        batch_contexts: int,
        label: str,
    ) -> "dict[Any, Judgement]":
        """Judge every codec on the tokens in one run of the LM: `judge` of the module `judge`
        beside the description. Raises SaemakeError where activations are not finite."""
        module = importlib.import_module(f"{cls.__module__}.judge")
        found: dict[Any, Judgement] = module.judge(
            codecs, lm, tokens, settings, batch_contexts, label
        )
        return found


# A way out where a text is too short.
OTHER_TEXT = "judge on another text or split, or train on less of this one"


def coding_operations(lm: Lm, reading: Reading, latents: Sequence[int]) -> int:
    """Operations of encoding and decoding every token by each codec."""
    decoding = 2 * reading.tokens * lm.shape.d_model * sum(latents)
    return encoding_operations(lm, reading, latents) + decoding


def encoding_operations(lm: Lm, reading: Reading, latents: Sequence[int]) -> int:
    """Operations of encoding every token by each codec; a count that is no `Latents` stands for one
    product."""
    multiplied = sum(
        count * (count.encodings if isinstance(count, Latents) else 1) for count in latents
    )
    return round(2 * reading.tokens * lm.shape.d_model * multiplied)
