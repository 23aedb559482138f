"""Unlearning."""

from typing import Any, ClassVar, Literal

from saemake.base.sections import Count, Number, Reference
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)

# The LMs whose prompts its code knows.
KNOWN = ("gemma-2-2b-it", "gemma-2-9b-it")
WMDP, WMDP_DATA, MMLU = "wmdp-bio", "cais/wmdp", "cais/mmlu"
RETAINED, CORPUS = "wikitext", "bio-forget-corpus"


class UnlearningSettings(SaeBenchSettings):
    """`sae_bench.evals.unlearning.eval_config`. `lm` is the instruction-tuned LM that answers, a
    key of the config's models; null is the SAEs' own."""

    OUTSIDE_RECIPE: ClassVar[frozenset[str]] = SaeBenchSettings.OUTSIDE_RECIPE | {"lm"}

    lm: Reference | None
    dataset_names: list[
        Literal[
            "wmdp-bio",
            "high_school_us_history",
            "college_computer_science",
            "high_school_geography",
            "human_aging",
        ]
    ]
    intervention_method: Literal["clamp_feature_activation"]
    retain_thresholds: list[Number]
    n_features_list: list[Count]
    multipliers: list[Count]
    dataset_size: Count
    seq_len: Count
    n_batch_loss_added: Count
    target_metric: Literal["correct"]
    llm_batch_size: Count


@register
class Unlearning(SaeBenchEvaluation):
    """Whether clamping latents makes an LM forget dangerous biology and keep other knowledge."""

    name = "sae_bench_unlearning"
    version = 1
    Settings = UnlearningSettings
    Figures = columns(
        "SaeBenchUnlearningFigures",
        "SAE Bench's unlearning of WMDP's biology.",
        {
            "unlearning_score": "1 - the lowest accuracy on WMDP's questions among the settings"
            " that keep 99 % of the accuracy on MMLU's"
        },
    )
    label = "unlearning"
    worker = "unlearning"
    of_saes_only = frozenset(
        {
            "intervention_method",
            "retain_thresholds",
            "n_features_list",
            "multipliers",
            "dataset_size",
            "seq_len",
            "n_batch_loss_added",
        }
    )
    reads_data = True
    paper = PaperCost(setup_minutes=33, sae_minutes=10, amount=16, sae_runs_lm=True)
    card: ClassVar = {"unlearning": "unlearning_score"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        asked = [WMDP_DATA] if WMDP in settings.dataset_names else []
        asked += [MMLU] if set(settings.dataset_names) - {WMDP} else []
        return [*asked, RETAINED, CORPUS]

    @classmethod
    def lm(cls, settings: Any, model: str) -> str:
        return settings.lm or model

    @classmethod
    def refusal(cls, settings: Any, lm_name: str) -> str | None:
        if lm_name in KNOWN:
            return None
        return (
            f"unlearning's code has the prompts of {' and '.join(KNOWN)} only: name one of them, a"
            " key of models, as evaluations.sae_bench_unlearning.lm"
        )

    @classmethod
    def amount(cls, settings: Any) -> float:
        runs = len(settings.retain_thresholds) * len(settings.n_features_list)
        return float(runs * len(settings.multipliers))

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return 10 * 2**20
