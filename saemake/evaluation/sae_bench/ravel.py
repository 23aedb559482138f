"""RAVEL."""

from typing import Any, ClassVar

from saemake.base.sections import Count, Flag, Number
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)

PROMPTS = "adamkarvonen/ravel_prompts"
# The LMs that its code knows.
KNOWN = ("gemma-2-2b", "pythia-160m-deduped")


class RavelSettings(SaeBenchSettings):
    """`sae_bench.evals.ravel.eval_config`."""

    entity_attribute_selection: dict[str, list[str]]
    top_n_entities: Count
    full_dataset_downsample: Count | None
    num_pairs_per_attribute: Count
    train_test_split: Number
    llm_batch_size: Count
    learning_rate: Number
    num_epochs: Count
    train_mdas: Flag
    n_generated_tokens: Count


@register
class Ravel(SaeBenchEvaluation):
    """Whether latents can change one attribute of a city or a laureate, and keep the others."""

    name = "sae_bench_ravel"
    version = 1
    Settings = RavelSettings
    Figures = columns(
        "SaeBenchRavelFigures",
        "SAE Bench's RAVEL: attributes of entities, means over pairs of attributes.",
        {
            "disentanglement_score": "mean of cause and isolation",
            "cause_score": "share of interventions that change the attribute that they are for",
            "isolation_score": "share of interventions that keep another attribute",
        },
    )
    label = "RAVEL"
    worker = "ravel"
    of_saes_only = frozenset({"learning_rate", "num_epochs", "train_mdas"})
    paper = PaperCost(setup_minutes=45, sae_minutes=45, amount=12 * 5_000, sae_runs_lm=True)
    card: ClassVar = {"RAVEL": "disentanglement_score"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return [PROMPTS]

    @classmethod
    def refusal(cls, settings: Any, lm_name: str) -> str | None:
        return None if lm_name in KNOWN else f"RAVEL's code knows {' and '.join(KNOWN)} only"

    @classmethod
    def amount(cls, settings: Any) -> float:
        pairs = sum(
            len(attributes) * (len(attributes) - 1)
            for attributes in settings.entity_attribute_selection.values()
        )
        return pairs * settings.num_pairs_per_attribute

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        # Prompts as JSON.
        return 100 * 2**20
