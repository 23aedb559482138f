"""Automated interpretability."""

from typing import Any, ClassVar

from pydantic import Field, field_validator

from saemake.base.sections import Closed, Count, Flag, Number, Rate
from saemake.evaluation import register
from saemake.evaluation.by_sae_bench import (
    PaperCost,
    SaeBenchEvaluation,
    SaeBenchSettings,
    columns,
)

# Tokens of a latent's two questions, and of its two answers: about, so that the 252 published SAEs
# cost the $54 that SAEBench-Reliability paid for them.
TOKENS_ASKED, TOKENS_ANSWERED = 1_230, 50
QUESTIONS_A_LATENT = 2


class Judge(Closed):
    """The LM that explains latents: an OpenAI-compatible endpoint. `key_variable` is the name of
    the environment variable that has the key. `dollars_*` are its price for a million tokens."""

    base_url: str = Field(pattern=r"^https?://[^/@\s]+(/\S*)?$")
    model: str = Field(min_length=1)
    key_variable: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    dollars_asked: Rate
    dollars_answered: Rate


class AutointerpSettings(SaeBenchSettings):
    """`sae_bench.evals.autointerp.eval_config`."""

    judge: Judge
    dataset_name: str
    total_tokens: Count
    llm_context_size: Count
    llm_batch_size: Count
    n_latents: Count
    dead_latent_threshold: Number
    buffer: Count
    no_overlap: Flag
    act_threshold_frac: Number
    scoring: Flag
    max_tokens_in_explanation: Count
    use_demos_in_explanation: Flag
    n_top_ex_for_generation: Count
    n_iw_sampled_ex_for_generation: Count
    n_top_ex_for_scoring: Count
    n_random_ex_for_scoring: Count
    n_iw_sampled_ex_for_scoring: Count

    def recorded(self) -> dict[str, Any]:
        """Without the judge's price and the name of its key."""
        judge = {"base_url": self.judge.base_url, "model": self.judge.model}
        return {**super().recorded(), "judge": judge}

    @field_validator("scoring")
    @classmethod
    def _scored(cls, value: bool) -> bool:
        if not value:
            raise ValueError("without scoring it has no figure; set it to true")
        return value


@register
class Autointerp(SaeBenchEvaluation):
    """Whether an LM can tell, from its own explanation of a latent, which texts it fires on."""

    name = "sae_bench_autointerp"
    version = 1
    Settings = AutointerpSettings
    Figures = columns(
        "SaeBenchAutointerpFigures",
        "SAE Bench's automated interpretability, by an LM that explains and predicts.",
        {
            "autointerp_score": "share of texts that were predicted rightly, mean over latents;"
            " 10/14 at the default settings if nothing is predicted to fire",
            "autointerp_std_dev": "its standard deviation over latents",
        },
    )
    label = "automated interpretability"
    worker = "autointerp"
    of_saes_only = frozenset(
        set(AutointerpSettings.model_fields)
        - {"random_seed", "dataset_name", "total_tokens", "llm_context_size"}
    )
    has_judge = True
    paper = PaperCost(setup_minutes=1, sae_minutes=9, amount=2_000_000, sae_runs_lm=True)
    card: ClassVar = {"autointerp": "autointerp_score"}

    @classmethod
    def datasets(cls, settings: Any) -> list[str]:
        return [settings.dataset_name]

    @classmethod
    def amount(cls, settings: Any) -> float:
        return float(settings.total_tokens)

    @classmethod
    def setup_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return 8 * int(settings.total_tokens)

    @classmethod
    def held_bytes(cls, settings: Any, d_model: int, element_bytes: int) -> int:
        return 2 * int(settings.total_tokens) * int(settings.n_latents)

    @classmethod
    def questions(cls, settings: Any) -> int:
        return QUESTIONS_A_LATENT * int(settings.n_latents)

    @classmethod
    def dollars(cls, settings: Any) -> float:
        judge = settings.judge
        asked = TOKENS_ASKED * judge.dollars_asked + TOKENS_ANSWERED * judge.dollars_answered
        return float(settings.n_latents * asked / 1e6)
