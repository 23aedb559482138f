"""The plan as a whole: everything that targets cost, job by job, and summed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from saemake import architectures
from saemake import evaluation as evaluations
from saemake.config.config import Config
from saemake.config.depth import layers_of
from saemake.config.sections import Device, DType
from saemake.inputs import weights
from saemake.llm.cost import NOTHING, Lm, Operations, Reading
from saemake.llm.hookpoint import Hookpoint, deepest
from saemake.paths.files import FEATURES_TEXT
from saemake.paths.names import Baselines, SaeName, SetupName
from saemake.plan import memory, operations, sae_bench
from saemake.plan.hours import Traffic, hours
from saemake.plan.judged_together import Together, together
from saemake.plan.memory import Memory, sae_bytes
from saemake.plan.passes import Pass, cut
from saemake.plan.sae_bench import NO_HOURS, NO_JUDGE, JudgeCost, PaperHours
from saemake.plan.storage import Disk, Download, disk, download
from saemake.plan.stored import Stored
from saemake.plan.text import Texts
from saemake.plan.work import Evaluate, Fit, Look, Work, work
from saemake.recipes.training import sae_recipe


@dataclass(frozen=True)
class JobCost:
    """A job: its stage, its name, and what it takes."""

    stage: str
    name: str
    operations: Operations
    memory: Memory
    traffic: Traffic
    lm_dtype: DType
    sae_dtype: DType
    # Of SAE Bench's own code, whose operations are not counted.
    paper_hours: PaperHours = NO_HOURS
    judge: JudgeCost = NO_JUDGE
    # The GPUs that its SAEs may spread over.
    gpus: int = 1

    def fits(self, device: Device) -> bool:
        """Whether GPUs of that kind hold it."""
        others, room = self.memory.on_other_gpus, device.memory_gib * 2**30
        several = max(self.gpus, 1 + len(others))
        first = self.memory.on_gpu if self.gpus == 1 else 0  # SAEs go where there is room
        return max(first, *others, 0) <= room and self.memory.on_gpu + sum(others) <= several * room

    def hours(self, device: Device) -> float:
        counted = hours(device, self.operations, self.traffic, self.lm_dtype, self.sae_dtype)
        return counted + self.paper_hours.on(device, self.lm_dtype)


@dataclass(frozen=True)
class Plan:
    """What targets cost. `known` says whether all text was there to count."""

    work: Work
    passes: list[Pass]
    together: list[Together]
    # Operations of the LM, were each job to run it by itself: of those that train, of those that
    # judge.
    unshared_lm: int
    unshared_judging: int
    tokens: dict[str, int]
    jobs: list[JobCost]
    disk: Disk
    download: Download
    known: bool

    @property
    def judge(self) -> JudgeCost:
        """Questions to judges, and what they ask for them."""
        costs = [job.judge for job in self.jobs]
        return JudgeCost(sum(c.questions for c in costs), sum(c.dollars for c in costs))

    def by_stage(self) -> dict[str, Operations]:
        """Operations of each stage, in the jobs' order."""
        operations: dict[str, Operations] = {}
        for job in self.jobs:
            operations[job.stage] = operations.get(job.stage, NOTHING) + job.operations
        return operations

    def hours_by_stage(self, device: Device) -> dict[str, float]:
        hours: dict[str, float] = {}
        for job in self.jobs:
            hours[job.stage] = hours.get(job.stage, 0) + job.hours(device)
        return hours

    def largest(self, *, on_gpu: bool) -> JobCost | None:
        """The job that takes most memory; None where there is none."""
        by_memory = {True: lambda job: job.memory.on_gpu, False: lambda job: job.memory.on_cpu}
        return max(self.jobs, key=by_memory[on_gpu], default=None)


def plan(config: Config, targets: Iterable[str], store: Path) -> Plan:
    """What the store lacks of the targets, and what it costs. Nothing is run or fetched.

    Raises SaemakeError where a target is no artifact of this config, or a model's shape is known
    neither from the config nor on this machine.
    """
    stored = Stored(store)
    return _Costs(config, work(config, targets, stored), stored).plan()


def costs(
    config: Config,
    needed: Work,
    passes: Iterable[Pass],
    judged: Iterable[Together],
    stored: Stored,
) -> list[JobCost]:
    """What the jobs of some work cost, with these passes and what is judged together; texts are
    counted as far as `stored` has them. Raises SaemakeError where a model's shape is not known."""
    return _Costs(config, needed, stored).jobs(passes, judged)


class _Costs:
    def __init__(self, config: Config, needed: Work, stored: Stored) -> None:
        self.config, self.work = config, needed
        self.texts = Texts(config, stored)
        self.shapes = {name: weights.shape(config, name) for name in needed.fetch}

    def plan(self) -> Plan:
        config, needed, texts = self.config, self.work, self.texts
        tokens = {
            f"{job.model} {job.use}": texts.reading(job.model, job.use, 1).tokens
            for job in needed.tokenise
        }
        passes = cut(config, needed.train)
        judged = together(config, needed.evaluate)
        jobs = self.jobs(passes, judged)
        cached = {name for name in needed.fetch if weights.cached(config, name)}
        return Plan(
            needed,
            passes,
            judged,
            sum(self._lm_of_pass(job.model, saes) for job, saes in needed.train.items()),
            sum(job.operations.lm for job in self._judged_apart() if job.stage == "evaluation"),
            tokens,
            jobs,
            disk(config, needed, passes, self.shapes, texts),
            download(config, needed, self.shapes, texts, cached),
            not needed.tokenise,
        )

    def jobs(self, passes: Iterable[Pass], judged: Iterable[Together]) -> list[JobCost]:
        """What each job costs; of training, each pass, and of judging, what is judged together."""
        needed = self.work
        jobs = list(map(self._train, passes))
        jobs += [self._fit(job) for job in needed.fit]
        jobs += [self._set_up(setup) for setup in needed.set_up]
        jobs += map(self._evaluate, judged)
        jobs += [self._look(job, latents) for job, latents in needed.look.items()]
        return jobs

    def _judged_apart(self) -> Iterator[JobCost]:
        for job, latents in self.work.evaluate.items():
            yield self._evaluate(Together((job,), tuple(latents)))

    def _lm(self, model: str, hookpoint: Hookpoint) -> Lm:
        return Lm(self.shapes[model], layers_of(self.config, model), hookpoint)

    def _train(self, of_pass: Pass) -> JobCost:
        config, name, shape = self.config, of_pass.model, self.shapes[of_pass.model]
        model, training, steps = (
            config.models[name],
            config.training_of(name),
            config.steps_of(name),
        )
        lm_operations = self._lm_of_pass(name, of_pass.saes)
        done, traffic = Operations(lm_operations, 0), 0
        for sae in of_pass.saes:
            kind, latents = (
                architectures.get(sae.sweep.architecture),
                config.latents(sae.sweep.width),
            )
            settings = config.settings_of(name, sae.sweep.architecture)
            done += operations.of_steps(
                shape, kind, settings, training, steps, latents, sae.sparsity
            )
            parameters = sae_bytes(shape.d_model, latents) // 4
            traffic += Traffic.of_training(
                parameters, latents, training.batch_tokens, training.autocast, steps
            ).amount
        return JobCost(
            "training",
            str(of_pass),
            done,
            memory.of_training([sae_recipe(config, sae) for sae in of_pass.saes], shape),
            Traffic(traffic),
            model.dtype,
            training.autocast,
            gpus=config.passes.devices_per_pass,
        )

    def _lm_of_pass(self, model: str, saes: Sequence[SaeName]) -> int:
        """Operations of one run of an LM over its training text, up to the last hookpoint of these
        SAEs; where they are trained end to end, whole, and of each of their losses."""
        config, training = self.config, self.config.training_of(model)
        lm = self._lm(model, deepest(sae.hookpoint for sae in saes))
        if training.loss == "mse":
            batch = config.models[model].llm_batch_contexts
            return lm.to_site(self.texts.reading(model, "train", batch, alike=True))
        batch = training.batch_tokens // config.models[model].context_tokens
        reading = self.texts.reading(model, "train", batch)

        def of_batches(count: int) -> Reading:
            return reading.share(min(count * batch / reading.contexts, 1))

        trained_on = of_batches(config.steps_of(model))
        kinds = [sae.sweep.architecture for sae in saes]
        losses = sum(
            architectures.get(kind).errors_in_a_step(config.settings_of(model, kind))
            for kind in kinds
        )
        of_losses = lm.whole(trained_on) + losses * lm.end_to_end(trained_on)
        return lm.to_site(of_batches(training.norm_batches)) + of_losses

    def _fit(self, job: Fit) -> JobCost:
        model = self.config.models[job.model]
        tokens = self.config.baselines_of(job.model).pca_tokens
        reading = self.texts.reading(job.model, "train", model.llm_batch_contexts, tokens)
        return JobCost(
            "baselines",
            f"{job.model}/{job.hookpoint}/baselines",
            operations.of_fitting(self._lm(job.model, job.hookpoint), reading),
            memory.of_fitting(self.config, job.model, self.shapes[job.model], job.hookpoint.layer),
            Traffic(0),
            model.dtype,
            "float32",
        )

    def _look(self, job: Look, latents: list[int]) -> JobCost:
        """At latents of SAEs, for their pages: each SAE encodes the text twice."""
        config, trained = self.config, job.trained
        model, shape = config.models[job.model], self.shapes[job.model]
        reading = self.texts.reading(
            job.model, FEATURES_TEXT, model.llm_batch_contexts, config.features.tokens
        )
        lm = self._lm(job.model, trained.hookpoint)
        return JobCost(
            "pages",
            f"pages of {trained}",
            operations.of_looking(lm, reading, latents),
            memory.of_looking(
                config, job.model, shape, trained.hookpoint.layer, reading.tokens, latents
            ),
            Traffic.of_judging(2 * sum(latents), reading.tokens, shape.vocabulary, 0),
            model.dtype,
            "float32",
        )

    def _by_sae_bench(
        self, stage: str, label: str, model: str, name: str, latents: list[int], hours: PaperHours
    ) -> JobCost:
        config = self.config
        lm, layers = self._lm_of(model, name)
        dtype = sae_bench.lm_dtype(config, model, name)
        return JobCost(
            stage,
            label,
            NOTHING,
            sae_bench.memory(config, model, name, self.shapes[lm], layers, latents),
            Traffic(0),
            dtype,
            dtype,
            hours,
            sae_bench.judge_cost(config, model, name, len(latents)),
        )

    def _lm_of(self, model: str, name: str) -> tuple[str, int]:
        """The LM that an evaluation of SAE Bench runs, and its layers."""
        lm = self.config.sae_bench_lm(model, name)
        if lm not in self.shapes:
            self.shapes[lm] = weights.shape(self.config, lm)
        return lm, layers_of(self.config, lm)

    def _set_up(self, setup: SetupName) -> JobCost:
        lm, layers = self._lm_of(setup.model, setup.evaluation)
        cost = sae_bench.setup_hours(self.config, setup, self.shapes[lm], layers)
        return self._by_sae_bench(
            "SAE Bench, setup", str(setup), setup.model, setup.evaluation, [], cost
        )

    def _judge(self, job: Evaluate, latents: list[int]) -> JobCost:
        name, seeds = job.evaluation, len(self.config.sae_bench_of(job.model, job.evaluation).seeds)
        lm, layers = self._lm_of(job.model, name)
        cost = sae_bench.judging_hours(
            self.config, job.subjects, name, self.shapes[lm], layers, latents * seeds
        )
        label = f"{job.subjects} by {name}"
        return self._by_sae_bench("SAE Bench", label, job.model, name, latents, cost)

    def _evaluate(self, judged: Together) -> JobCost:
        job, codecs = judged.first, list(judged.codecs)
        of_baselines = isinstance(job.subjects, Baselines)
        shape = self.shapes[job.model]
        latents = [min(count, shape.d_model) for count in codecs] if of_baselines else codecs
        if job.evaluation in self.config.sae_bench_evaluations:
            return self._judge(job, latents)
        config, model = self.config, self.config.models[job.model]
        described = evaluations.on_text(job.evaluation)
        settings = config.evaluation_of(job.model, job.evaluation)
        batch = described.batch_contexts(settings, model.llm_batch_contexts)
        reading = self.texts.reading(job.model, job.evaluation, batch)
        lm = self._lm(job.model, job.hookpoint)
        cost = described.cost(settings, lm, reading, latents, batch)
        name = f"{job.model}/{job.hookpoint}/baselines" if of_baselines else str(judged)
        return JobCost(
            "baselines" if of_baselines else "evaluation",
            f"{name} by {job.evaluation}",
            cost.operations,
            memory.of_judging(config, job.model, shape, job.evaluation, cost, latents),
            Traffic.of_judging(
                sum(latents), reading.tokens, shape.vocabulary, cost.predicted * (2 + len(latents))
            ),
            model.dtype,
            "float32",
        )
