"""Sparse probing, SAE Bench's own and that of sae-probes."""

from typing import Any, ClassVar, Literal

from saemake.base.sections import Count, Flag
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)

# How many latents SAE Bench has columns for.
Few = Literal[1, 2, 5, 10, 20, 50, 100]
FEW = (1, 2, 5, 10, 20, 50, 100)
# The classes of each dataset that it knows.
CLASSES = {
    "LabHC/bias_in_bios_class_set1": 5,
    "LabHC/bias_in_bios_class_set2": 5,
    "LabHC/bias_in_bios_class_set3": 5,
    "canrager/amazon_reviews_mcauley_1and5": 5,
    "canrager/amazon_reviews_mcauley_1and5_sentiment": 2,
    "codeparrot/github-code": 5,
    "fancyzhx/ag_news": 4,
    "Helsinki-NLP/europarl": 5,
}
BIOS_SET, SENTIMENT = "_class_set", "_sentiment"
# Datasets in the sae-probes package, and rows in all of them.
SAE_PROBES_DATASETS, SAE_PROBES_ROWS = 113, 334_092


def dataset_of(name: str) -> str:
    """The dataset on the Hub behind one of SAE Bench's sets of classes."""
    return name.split(BIOS_SET)[0].removesuffix(SENTIMENT)


class SparseProbingSettings(SaeBenchSettings):
    """`sae_bench.evals.sparse_probing.eval_config`."""

    dataset_names: list[
        Literal[
            "LabHC/bias_in_bios_class_set1",
            "LabHC/bias_in_bios_class_set2",
            "LabHC/bias_in_bios_class_set3",
            "canrager/amazon_reviews_mcauley_1and5",
            "canrager/amazon_reviews_mcauley_1and5_sentiment",
            "codeparrot/github-code",
            "fancyzhx/ag_news",
            "Helsinki-NLP/europarl",
        ]
    ]
    probe_train_set_size: Count
    probe_test_set_size: Count
    context_length: Count
    sae_batch_size: Count
    llm_batch_size: Count
    k_values: list[Few]
    lower_vram_usage: Flag


def _accuracies(whose: str, words: str) -> dict[str, str]:
    return {
        f"{whose}_test_accuracy": f"of a probe on all {words}",
        **{f"{whose}_top_{k}_test_accuracy": f"of a probe on {k} of the {words}" for k in FEW},
    }


@register
class SparseProbing(SaeBenchEvaluation):
    """Probes of a few latents for professions, products, sentiments, languages and news."""

    name = "sae_bench_sparse_probing"
    version = 1
    Settings = SparseProbingSettings
    Figures = columns(
        "SaeBenchSparseProbingFigures",
        "SAE Bench's sparse probing: accuracies on test sets, means over the datasets' classes.",
        {
            **_accuracies("sae", "latents"),
            **_accuracies("llm", "dimensions of the LM's activations"),
        },
    )
    label = "sparse probing"
    worker = "sparse_probing"
    of_saes_only = frozenset({"sae_batch_size"})
    paper = PaperCost(setup_minutes=15, sae_minutes=3, amount=36 * 2_500 * 128)
    card: ClassVar = {"sparse probing": "sae_top_1_test_accuracy"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return list(dict.fromkeys(map(dataset_of, settings.dataset_names)))

    @classmethod
    def latents_needed(cls, settings: Any) -> int:
        return max(settings.k_values)

    @classmethod
    def sizes(cls, settings: Any) -> list[int] | None:
        return list(settings.k_values)

    @classmethod
    def amount(cls, settings: Any) -> float:
        rows = (settings.probe_train_set_size + settings.probe_test_set_size) / 2
        classes = sum(CLASSES[name] for name in settings.dataset_names)
        return classes * rows * settings.context_length

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return round(cls.amount(settings) * d_model * element_bytes)

    @classmethod
    def held_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        classes = max(CLASSES[name] for name in settings.dataset_names)
        whole = sum(CLASSES[name] for name in settings.dataset_names)
        return round(cls.amount(settings) * classes / whole * d_model * element_bytes)


class SaeProbesSettings(SaeBenchSettings):
    """`sae_bench.evals.sparse_probing_sae_probes.eval_config`. `dataset_names` null are all."""

    dataset_names: list[str] | None
    reg_type: Literal["l1", "l2"]
    setting: Literal["normal"]
    ks: list[Few]
    include_llm_baseline: Flag
    baseline_method: Literal["logreg"]


def _measures(whose: str, words: str) -> dict[str, str]:
    measures = {"accuracy": "accuracy", "auc": "area under the ROC curve", "f1": "F1"}
    return {f"{whose}_test_{key}": f"{name} of {words}" for key, name in measures.items()}


@register
class SaeProbes(SaeBenchEvaluation):
    """sae-probes: probes of a few latents on 113 binary datasets that its package has. The LM runs
    in float32."""

    name = "sae_bench_sae_probes"
    version = 1
    Settings = SaeProbesSettings
    Figures = columns(
        "SaeBenchSaeProbesFigures",
        "sae-probes, as SAE Bench runs it: means over its datasets.",
        {
            **{
                figure: text
                for k in FEW
                for figure, text in _measures(f"sae_top_{k}", f"a probe on {k} latents").items()
            },
            **_measures("llm", "a probe on the LM's activations"),
        },
    )
    label = "sae-probes"
    worker = "sae_probes"
    has_dtype = False
    of_saes_only = frozenset({"ks"})
    paper = PaperCost(setup_minutes=25, sae_minutes=5, amount=SAE_PROBES_ROWS)
    card: ClassVar = {"sae-probes": "sae_top_1_test_accuracy"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return []

    @classmethod
    def latents_needed(cls, settings: Any) -> int:
        return max(settings.ks)

    @classmethod
    def sizes(cls, settings: Any) -> list[int] | None:
        return list(settings.ks)

    @classmethod
    def amount(cls, settings: Any) -> float:
        chosen = settings.dataset_names
        share = 1 if chosen is None else len(chosen) / SAE_PROBES_DATASETS
        return SAE_PROBES_ROWS * share

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return round(cls.amount(settings) * d_model * 4)
