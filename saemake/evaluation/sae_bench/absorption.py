"""Feature absorption."""

from typing import Any, ClassVar

from saemake.base.sections import Count, Flag, Number
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)


class AbsorptionSettings(SaeBenchSettings):
    """`sae_bench.evals.absorption.eval_config`."""

    llm_batch_size: Count
    f1_jump_threshold: Number
    max_k_value: Count
    prompt_template: str
    prompt_token_pos: int
    k_sparse_probe_l1_decay: Number
    k_sparse_probe_batch_size: Count
    k_sparse_probe_num_epochs: Count
    min_GT_probe_f1: Number
    min_feats_for_eval: Count
    eval_k_sparse_probe_batch_size: Count
    precalc_k_sparse_probe_sae_acts: Flag


@register
class Absorption(SaeBenchEvaluation):
    """Words by their first letters: whether the latent of a letter is silent where a latent of one
    word takes its place. No dataset: the words are the tokenizer's."""

    name = "sae_bench_absorption"
    version = 1
    Settings = AbsorptionSettings
    Figures = columns(
        "SaeBenchAbsorptionFigures",
        "SAE Bench's feature absorption, means over first letters. Less is better.",
        {
            "mean_absorption_fraction_score": "share of a letter's direction that other latents"
            " take, by SAE Bench 0.6.0's definition; that of the published figures was another",
            "mean_full_absorption_score": "share of words whose letter another latent takes whole",
            "mean_num_split_features": "latents that a letter is split into",
            "std_dev_absorption_fraction_score": "its standard deviation over letters",
            "std_dev_full_absorption_score": "its standard deviation over letters",
            "std_dev_num_split_features": "its standard deviation over letters",
        },
    )
    label = "absorption"
    worker = "absorption"
    of_saes_only = frozenset(
        {
            "f1_jump_threshold",
            "max_k_value",
            "k_sparse_probe_l1_decay",
            "k_sparse_probe_batch_size",
            "k_sparse_probe_num_epochs",
            "min_GT_probe_f1",
            "min_feats_for_eval",
            "eval_k_sparse_probe_batch_size",
            "precalc_k_sparse_probe_sae_acts",
        }
    )
    paper = PaperCost(setup_minutes=33, sae_minutes=26, amount=1, sae_runs_lm=True)
    card: ClassVar = {"absorption": "mean_absorption_fraction_score"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return []

    @classmethod
    def latents_needed(cls, settings: Any) -> int:
        return int(settings.max_k_value)

    @classmethod
    def amount(cls, settings: Any) -> float:
        return 1

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        # Activations in float32 of about as many words as a vocabulary has.
        return 4 * d_model * 30_000
