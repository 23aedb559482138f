"""What SAE Bench's own evaluations cost: hours from the table in SAE Bench's README, for other LMs,
SAEs and settings in proportion; disk, memory, questions and dollars from the settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from saemake import evaluation as evaluations
from saemake.config.config import Config
from saemake.config.sections import Device, DType
from saemake.llm.shape import Shape
from saemake.paths.names import SetupName, Subjects
from saemake.plan.memory import ELEMENT_BYTES, Memory, lm_bytes, sae_bytes

# What the README's table is of: gemma-2-2b's weights, an SAE's, and the card's bfloat16 products.
PAPER_LM_WEIGHTS, PAPER_SAE_WEIGHTS = 2.6e9, 2_304 * 16_384
PAPER_TFLOPS = 71


@dataclass(frozen=True)
class PaperHours:
    """Hours on an RTX 3090 in bfloat16, of runs of the LM and of the rest."""

    lm: float = 0.0
    saes: float = 0.0

    def on(self, device: Device, lm_dtype: DType) -> float:
        """On another device, in proportion to its rates."""
        rate = device.float32_tflops if lm_dtype == "float32" else device.bfloat16_tflops
        return self.lm * PAPER_TFLOPS / rate + self.saes * PAPER_TFLOPS / device.bfloat16_tflops


@dataclass(frozen=True)
class JudgeCost:
    """Questions to a judge, and what it asks for them."""

    questions: int
    dollars: float


NO_HOURS, NO_JUDGE = PaperHours(), JudgeCost(0, 0.0)


def setup_hours(config: Config, setup: SetupName, shape: Shape, layers: int) -> PaperHours:
    """Of a setup."""
    described = evaluations.by_sae_bench(setup.evaluation)
    share = _share(config, setup.model, setup.evaluation)
    minutes = described.paper.setup_minutes * share
    return PaperHours(lm=minutes / 60 * shape.weights(layers) / PAPER_LM_WEIGHTS)


def judging_hours(
    config: Config, subjects: Subjects, name: str, shape: Shape, layers: int, latents: Sequence[int]
) -> PaperHours:
    """Of judging SAEs of so many latents, from one seed."""
    described = evaluations.by_sae_bench(name)
    hours = described.paper.sae_minutes * _share(config, subjects.model, name) / 60
    if described.paper.sae_runs_lm:
        return PaperHours(lm=hours * len(latents) * shape.weights(layers) / PAPER_LM_WEIGHTS)
    weights = sum(shape.d_model * count for count in latents)
    return PaperHours(saes=hours * weights / PAPER_SAE_WEIGHTS)


def _share(config: Config, model: str, name: str) -> float:
    """How much of what the paper's settings read is read."""
    described = evaluations.by_sae_bench(name)
    return described.amount(config.sae_bench_of(model, name)) / described.paper.amount


def lm_dtype(config: Config, model: str, name: str) -> DType:
    """What the LM runs in."""
    if not evaluations.by_sae_bench(name).has_dtype:
        return "float32"
    return config.models[config.sae_bench_lm(model, name)].dtype


def memory(
    config: Config, model: str, name: str, shape: Shape, layers: int, latents: Sequence[int]
) -> Memory:
    """Of a job: the LM, the largest SAE, and what is in memory of the data at once."""
    described, settings = evaluations.by_sae_bench(name), config.sae_bench_of(model, name)
    dtype = lm_dtype(config, model, name)
    lm = lm_bytes(dtype, shape, layers)
    held = described.held_bytes(settings, shape.d_model, ELEMENT_BYTES[dtype])
    return Memory(
        lm=[lm],  # SAE Bench's own code knows one GPU
        saes=sae_bytes(shape.d_model, max(latents, default=0)),
        buffer=0,
        live={"cuda": held, "cpu": held},
        loaded=lm,
        passing=0,
    )


def judge_cost(config: Config, model: str, name: str, saes: int) -> JudgeCost:
    """Of judging so many SAEs, from each of the config's seeds."""
    described, settings = evaluations.by_sae_bench(name), config.sae_bench_of(model, name)
    calls = saes * len(settings.seeds)
    return JudgeCost(calls * described.questions(settings), calls * described.dollars(settings))
