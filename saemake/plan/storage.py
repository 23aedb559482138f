"""Disk that outputs take, and what is downloaded for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from saemake import evaluation as evaluations
from saemake.config.config import Config
from saemake.config.depth import layers_of
from saemake.llm.shape import Shape
from saemake.paths.names import Baselines
from saemake.plan import memory
from saemake.plan.memory import FLOAT32_BYTES, sae_bytes
from saemake.plan.passes import Pass
from saemake.plan.text import Texts
from saemake.plan.work import Evaluate, Tokenise, Work
from saemake.recipes.training import sae_recipe

# Of each latent and way of choosing latents, in an evaluation's parquet: the floats of SAE Bench's
# core, and the index.
LATENT_BYTES = 64
# Of each latent that a page shows, in the page and its parquet: 10 kB of the demo's.
SHOWN_BYTES = 10_000
# The widest that a model's file holds its weights in.
FILE_BYTES = 4


@dataclass(frozen=True)
class Disk:
    """Bytes under results/, each kind; snapshots are of the largest pass, twice while one replaces
    the one before, and gone at its end."""

    tokens: int
    saes: int
    checkpoints: int
    evaluations: int
    snapshots: int
    setups: int
    pages: int

    @property
    def total(self) -> int:
        of_saes = self.saes + self.checkpoints + self.evaluations + self.snapshots
        return self.tokens + of_saes + self.setups + self.pages


def disk(
    config: Config,
    work: Work,
    passes: Sequence[Pass],
    shapes: dict[str, Shape],
    texts: Texts,
) -> Disk:
    """What the work writes, in these passes."""
    saes = checkpoints = 0
    for missing in work.train.values():
        sweep = missing[0].sweep
        sae = sae_bytes(shapes[sweep.model].d_model, config.latents(sweep.width))
        steps = config.checkpoint_steps(sweep.model, sweep.architecture)
        saes += len(missing) * sae
        checkpoints += len(missing) * len(steps) * sae
    return Disk(
        tokens=sum(_token_bytes(config, job, shapes, texts) for job in work.tokenise),
        saes=saes,
        checkpoints=checkpoints,
        evaluations=sum(_latent_bytes(job, work, shapes) for job in work.evaluate),
        # The next one is written before the last is removed.
        snapshots=max((2 * _snapshot_bytes(config, each, shapes) for each in passes), default=0),
        setups=_setup_bytes(config, work, shapes),
        pages=SHOWN_BYTES * config.features.sample * sum(map(len, work.look.values())),
    )


def _snapshot_bytes(config: Config, of_pass: Pass, shapes: dict[str, Shape]) -> int:
    """The SAEs of a pass with Adam's two moments, and its buffers."""
    recipes = [sae_recipe(config, sae) for sae in of_pass.saes]
    of_training = memory.of_training(recipes, shapes[of_pass.model])
    return of_training.saes + of_training.buffer


def _setup_bytes(config: Config, work: Work, shapes: dict[str, Shape]) -> int:
    """What SAE Bench sets up: all that is kept, and the largest of what is not."""
    kept, passing = 0, 0
    for setup in work.set_up:
        settings = config.sae_bench_of(setup.model, setup.evaluation)
        lm = config.sae_bench_lm(setup.model, setup.evaluation)
        element = FLOAT32_BYTES if config.models[lm].dtype == "float32" else 2
        described = evaluations.by_sae_bench(setup.evaluation)
        size = described.setup_bytes(settings, shapes[lm].d_model, element)
        kept += size if settings.keep_setup else 0
        passing = max(passing, 0 if settings.keep_setup else size)
    return kept + passing


def _token_bytes(config: Config, job: Tokenise, shapes: dict[str, Shape], texts: Texts) -> int:
    reading = texts.reading(job.model, job.use, 1)
    token = 2 if shapes[job.model].vocabulary <= 2**16 else 4
    return reading.tokens * token + reading.contexts * 4


def _latent_bytes(job: Evaluate, work: Work, shapes: dict[str, Shape]) -> int:
    most = shapes[job.model].d_model if isinstance(job.subjects, Baselines) else math.inf
    return sum(LATENT_BYTES * int(min(latents, most)) for latents in work.evaluate[job])


@dataclass(frozen=True)
class Download:
    """Bytes from the Hub: a model's files at most (as float32), a text's about; None where nothing
    is known of it."""

    models: dict[str, int]
    texts: dict[str, int | None]
    datasets: dict[str, int | None]


def download(
    config: Config, work: Work, shapes: dict[str, Shape], texts: Texts, cached: set[str]
) -> Download:
    """What the work fetches; `cached` are the models that are on this machine."""
    models = {
        name: FILE_BYTES * shapes[name].weights(layers_of(config, name))
        for name in work.fetch
        if config.models[name].hub is not None and name not in cached
    }
    texts_bytes: dict[str, int | None] = {}
    for job in work.tokenise:
        for name, bytes_ in texts.bytes_read(job.model, job.use).items():
            if config.texts[name].hub is not None:
                texts_bytes[f"{name} ({job.use} of {job.model})"] = bytes_
    datasets = {
        name: config.datasets[name].bytes
        for name in work.data
        if config.datasets[name].hub is not None
    }
    return Download(models, texts_bytes, datasets)
