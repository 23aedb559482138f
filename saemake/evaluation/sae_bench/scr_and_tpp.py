"""Spurious correlation removal (SCR) and targeted probe perturbation (TPP)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from saemake.base.sections import Count, Flag, Number
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)
from saemake.evaluation.sae_bench.probing import CLASSES, dataset_of

# How many latents SAE Bench has columns for.
Ablated = Literal[2, 5, 10, 20, 50, 100, 500]
ABLATED = (2, 5, 10, 20, 50, 100, 500)
# Pairs of classes of a dataset, and sets of texts that each pair has activations of.
PAIRS, SETS_OF_A_PAIR = 4, 6
CAUTION = (
    "published work (arXiv:2605.18229) finds that it fails at its canonical settings: do not rank"
    " SAEs by it"
)


class ScrAndTppSettings(SaeBenchSettings):
    """`sae_bench.evals.scr_and_tpp.eval_config`."""

    dataset_names: list[
        Literal["LabHC/bias_in_bios_class_set1", "canrager/amazon_reviews_mcauley_1and5"]
    ]
    early_stopping_patience: Count
    train_set_size: Count
    test_set_size: Count
    context_length: Count
    probe_train_batch_size: Count
    probe_test_batch_size: Count
    probe_epochs: Count
    probe_lr: Number
    probe_l1_penalty: Number
    sae_batch_size: Count
    llm_batch_size: Count
    lower_vram_usage: Flag
    n_values: Annotated[list[Ablated], Field(min_length=1)]


class _ScrOrTpp(SaeBenchEvaluation):
    version = 1
    caution = CAUTION
    Settings = ScrAndTppSettings
    of_saes_only = frozenset({"sae_batch_size", "n_values"})

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return list(dict.fromkeys(map(dataset_of, settings.dataset_names)))

    @classmethod
    def latents_needed(cls, settings: Any) -> int:
        return max(settings.n_values)

    @classmethod
    def sizes(cls, settings: Any) -> list[int] | None:
        return list(settings.n_values)

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return round(cls.amount(settings) * d_model * element_bytes)

    @classmethod
    def held_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        rows = SETS_OF_A_PAIR * _rows(settings) * settings.context_length
        return round(rows * d_model * element_bytes)


def _rows(settings: Any) -> float:
    return (settings.train_set_size + settings.test_set_size) / 2


@register
class Scr(_ScrOrTpp):
    """Whether ablating a few latents takes a spurious correlation out of a probe."""

    name = "sae_bench_scr"
    Figures = columns(
        "SaeBenchScrFigures",
        f"SAE Bench's spurious correlation removal. A caution: {CAUTION}.",
        {
            figure: text
            for n in ABLATED
            for figure, text in {
                f"scr_metric_threshold_{n}": f"gap closed by ablating {n} latents, in the direction"
                " that the probe starts worse in",
                f"scr_dir1_threshold_{n}": "the same, where the first concept is spurious",
                f"scr_dir2_threshold_{n}": "the same, where the second concept is spurious",
            }.items()
        },
    )
    label = "SCR"
    worker = "scr"
    paper = PaperCost(setup_minutes=22, sae_minutes=6, amount=8 * 6 * 2_500 * 128)
    card: ClassVar = {"SCR": "scr_metric_threshold_20"}

    @classmethod
    def amount(cls, settings: Any) -> float:
        sets = len(settings.dataset_names) * PAIRS * SETS_OF_A_PAIR
        return sets * _rows(settings) * settings.context_length


@register
class Tpp(_ScrOrTpp):
    """Whether ablating a class's latents harms that class's probe, and no other's."""

    name = "sae_bench_tpp"
    Figures = columns(
        "SaeBenchTppFigures",
        f"SAE Bench's targeted probe perturbation. A caution: {CAUTION}.",
        {
            figure: text
            for n in ABLATED
            for figure, text in {
                f"tpp_threshold_{n}_total_metric": f"intended less unintended, {n} latents ablated",
                f"tpp_threshold_{n}_intended_diff_only": "accuracy that the class's probe loses",
                f"tpp_threshold_{n}_unintended_diff_only": "accuracy that other probes lose",
            }.items()
        },
    )
    label = "TPP"
    worker = "tpp"
    paper = PaperCost(setup_minutes=5, sae_minutes=2, amount=10 * 2_500 * 128)
    card: ClassVar = {"TPP": "tpp_threshold_20_total_metric"}

    @classmethod
    def amount(cls, settings: Any) -> float:
        classes = sum(CLASSES[name] for name in settings.dataset_names)
        return classes * _rows(settings) * settings.context_length
