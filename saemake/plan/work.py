"""The jobs behind targets, and how much of each the store lacks: from names and the config alone,
as the rules have them, without Snakemake."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.evaluation.components import components_count
from saemake.llm.cost import Latents
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue, judged_by, shown
from saemake.paths.artifacts import (
    BaselinesFile,
    CheckpointsFile,
    DatasetFile,
    FetchedFile,
    FigureFile,
    HubFile,
    HubFolder,
    ModelFile,
    OwnFigureFile,
    ReportFile,
    SaeFile,
    SetupFile,
    StabilityTable,
    SweepTable,
    TokensFile,
)
from saemake.paths.command_words import artifact_of, check_target, plain
from saemake.paths.files import (
    FEATURES,
    FEATURES_PAGE,
    FEATURES_TEXT,
    LAID_OUT_BY,
    evaluation_in,
    fetched_files,
    report_figure_names,
)
from saemake.paths.grammar import saes_in_hub, trained_file
from saemake.paths.names import (
    CHECKPOINTS,
    HUB,
    METRICS,
    PCA,
    PUBLISHED,
    RESULTS,
    TOPS,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    SetupName,
    Subjects,
    Sweep,
    Trained,
    baselines_of,
    dataset_file,
)
from saemake.paths.shown import Shown
from saemake.paths.starts import start_of
from saemake.paths.sweeps import members, of_other_seeds, trained_with
from saemake.plan.stored import Stored
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.judging import judged_baselines, setup_recipe, setups
from saemake.recipes.training import baselines_recipe


@dataclass(frozen=True)
class Fetch:
    """Of a model's files."""

    model: str


@dataclass(frozen=True)
class Tokenise:
    """Of a text for a use."""

    model: str
    use: str


@dataclass(frozen=True)
class Train:
    """A pass."""

    trained: Trained


@dataclass(frozen=True)
class Fit:
    """Of the baselines of a site."""

    model: str
    hookpoint: Hookpoint


@dataclass(frozen=True)
class Evaluate:
    """One evaluation of all that one job judges."""

    evaluation: str
    subjects: Subjects

    @property
    def model(self) -> str:
        return self.subjects.model

    @property
    def hookpoint(self) -> Hookpoint:
        return self.subjects.hookpoint


@dataclass(frozen=True)
class Look:
    """At the latents of all SAEs of a pass, for their pages."""

    trained: Trained

    @property
    def model(self) -> str:
        return self.trained.model


@dataclass(frozen=True)
class SetUp:
    """What an evaluation of SAE Bench sets up."""

    setup: SetupName

    @property
    def model(self) -> str:
        return self.setup.model


@dataclass(frozen=True)
class FetchData:
    """Of a dataset that SAE Bench reads."""

    dataset: str


Job = Fetch | Tokenise | Train | Fit | Evaluate | Look | SetUp | FetchData


def behind(config: Config, paths: Iterable[str]) -> list[Job]:
    """The jobs whose outputs targets are, each once.

    Raises SaemakeError where a target is no artifact of this config.
    """
    jobs = [job for path in paths for job in _of_target(config, path)]
    return list(dict.fromkeys(jobs))


def _of_target(config: Config, target: str) -> list[Job]:
    if plain(target).partition("/")[0] not in TOPS:
        check_target(config, target)
        raise _not_planned(target)
    match artifact_of(config, target):
        case HubFile() | HubFolder() as laid_out:
            return _of_hub(config, laid_out)
        case ModelFile(model):
            return [Fetch(model)]
        case TokensFile(model, use):
            return [Tokenise(model, use)]
        case SetupFile(setup):
            return [SetUp(setup)]
        case DatasetFile(dataset):
            return [FetchData(dataset)]
        case FetchedFile(model, published=False):
            fetched = fetched_files(config, model)
            return behind(config, [p for p in fetched if not p.startswith(f"{PUBLISHED}/")])
        case FigureFile(top, model, hookpoint, figure) if top == RESULTS:
            return _of_shown(config, shown.of_hookpoint(config, figure, model, hookpoint))
        case ReportFile(model, hookpoint):
            names = report_figure_names(config, model)
            what = [shown.of_hookpoint(config, name, model, hookpoint) for name in names]
            return [job for each in what for job in _of_shown(config, each)]
        case OwnFigureFile(figure):
            return _of_shown(config, shown.of_own(config, figure))
        case BaselinesFile(baselines, file):
            if file == PCA:
                return [Fit(baselines.model, baselines.hookpoint)]
            return _evaluations(config, baselines, file)
        case SweepTable(sweep) | StabilityTable(sweep):
            return _of_sweep(config, sweep)
        case SaeFile(top, sae, file) if top == RESULTS:
            return _of_sae(config, sae, file)
        case CheckpointsFile(checkpoints, file):
            if trained_file(file):
                return [Train(trained_with(config, checkpoints.sae))]
            return _evaluations(config, checkpoints, file)
        case _:
            raise _not_planned(target)


def _not_planned(target: str) -> SaemakeError:
    return SaemakeError(
        f"{target}: what is planned is what is built, files under {RESULTS}/ and files or folders"
        f" under {HUB}/"
    )


def _of_hub(config: Config, laid_out: HubFile | HubFolder) -> list[Job]:
    """Of an SAE laid out as published, or of a folder of them: with its evaluation, but for a
    checkpoint alone."""
    alone = isinstance(laid_out, HubFile) and laid_out.file.startswith(f"{CHECKPOINTS}/")
    file = "ae.pt" if alone else f"{LAID_OUT_BY}.json"
    return [job for sae in saes_in_hub(config, laid_out) for job in _of_sae(config, sae, file)]


def _of_shown(config: Config, what: Shown) -> list[Job]:
    """Of a figure."""
    jobs = [
        job
        for each in what.trained
        for job in (
            _of_sweep(config, each)
            if isinstance(each, Sweep)
            else _evaluations(config, trained_with(config, each), METRICS)
        )
    ]
    for sae in what.checkpoints:
        jobs += _evaluations(config, Checkpoints(sae), METRICS)
    for name, judged in what.apart:
        with_ = trained_with(config, judged) if isinstance(judged, SaeName) else judged
        jobs.append(Evaluate(name, with_))
    return jobs


def _of_sweep(config: Config, sweep: Sweep) -> list[Job]:
    """Of a sweep's table."""
    judged: list[Subjects] = [sweep, *of_other_seeds(config, sweep), baselines_of(sweep)]
    return [job for subjects in judged for job in _evaluations(config, subjects, METRICS)]


def _of_sae(config: Config, sae: SaeName, file: str) -> list[Job]:
    trained = trained_with(config, sae)
    if file in (FEATURES, FEATURES_PAGE):
        return [Look(trained)]
    return [Train(trained)] if trained_file(file) else _evaluations(config, trained, file)


def _evaluations(config: Config, subjects: Subjects, file: str) -> list[Job]:
    """What a table is made of: one evaluation, or all of the suite."""
    name = evaluation_in(config, file)
    names = [name] if name else judged_by.evaluations_of(config, subjects)
    return [Evaluate(each, subjects) for each in names]


@dataclass(frozen=True)
class Work:
    """What there is to do for some targets: each job with what of it the store lacks."""

    fetch: list[str]
    tokenise: list[Tokenise]
    train: dict[Trained, list[SaeName]]
    stored: list[SaeName]
    fit: list[Fit]
    # Latents of all that an evaluation judges, one a codec: a thing and a way of choosing latents.
    evaluate: dict[Evaluate, list[int]]
    # Latents of each SAE whose latents are looked at.
    look: dict[Look, list[int]]
    set_up: list[SetupName]
    data: list[str]


def work(config: Config, targets: Iterable[str], stored: Stored) -> Work:
    """What the store lacks of the targets. A job that has nothing to do needs nothing either.

    Raises SaemakeError where a target is no artifact of this config.
    """
    return work_of(config, behind(config, targets), stored)


def work_of(config: Config, jobs: list[Job], stored: Stored) -> Work:
    """The same of jobs."""
    return _Lack(config, stored).work(jobs)


class _Lack:
    def __init__(self, config: Config, stored: Stored) -> None:
        self.config, self.stored = config, stored

    def work(self, wanted: list[Job]) -> Work:
        evaluate = {
            job: codecs
            for job in wanted
            if isinstance(job, Evaluate) and (codecs := self._codecs(job))
        }
        look = {
            job: latents
            for job in wanted
            if isinstance(job, Look) and (latents := self._looked_at(job.trained))
        }
        first = sorted(wanted, key=lambda job: not isinstance(job, Train))
        wanted_training = [self._training(job) for job in first]
        passes = self._with_starts([trained for trained in wanted_training if trained is not None])
        missing = {trained: self.stored.lacks(self.config, trained) for trained in passes}
        done = [
            sae
            for trained in passes
            for sae in members(self.config, trained)
            if sae not in missing[trained]
        ]
        train = {trained: saes for trained, saes in missing.items() if saes}
        fit = self._unfitted(wanted)
        tokenise = self._untokenised(wanted, [*evaluate, *look], train, fit)
        set_up = self._not_set_up(wanted, evaluate)
        models = [job.model for job in tokenise] + [trained.model for trained in train]
        models += [job.model for job in fit] + [job.model for job in evaluate]
        models += [job.model for job in look]
        models += [job.model for job in wanted if isinstance(job, Fetch)]
        models += [self.config.sae_bench_lm(each.model, each.evaluation) for each in set_up]
        data = self._unfetched(wanted, set_up)
        models = list(dict.fromkeys(models))
        return Work(models, tokenise, train, done, fit, evaluate, look, set_up, data)

    def _with_starts(self, wanted: Iterable[Trained]) -> list[Trained]:
        """What is trained, each once, after what trains the SAEs that missing ones start from."""
        passes: dict[Trained, None] = {}
        for trained in dict.fromkeys(wanted):
            missing = self.stored.lacks(self.config, trained)
            starts = [start_of(self.config, sae) for sae in missing]
            sources = [start.sae for start in starts if start and start.top == RESULTS]
            before = [trained_with(self.config, sae) for sae in dict.fromkeys(sources)]
            passes |= dict.fromkeys(self._with_starts(before) if before else [])
            passes[trained] = None
        return list(passes)

    def _not_set_up(self, wanted: list[Job], evaluate: Iterable[Evaluate]) -> list[SetupName]:
        """Of the setups that are wanted or that what there is to do needs, those not in the store;
        and those that are not kept, as often as they are made."""
        needed = [job.setup for job in wanted if isinstance(job, SetUp)]
        passing: list[SetupName] = []
        for job in evaluate:
            if job.evaluation in self.config.sae_bench_evaluations:
                kept = self.config.sae_bench_of(job.model, job.evaluation).keep_setup
                made = setups(self.config, job.model, job.hookpoint.layer, job.evaluation)
                (needed if kept else passing).extend(made)
        return [
            setup
            for setup in dict.fromkeys(needed)
            if not self.stored.has("setups", setup_recipe(self.config, setup).hash)
        ] + passing

    def _unfetched(self, wanted: list[Job], set_up: list[SetupName]) -> list[str]:
        """The datasets that are wanted or read, without the file that says they are there."""
        names = [job.dataset for job in wanted if isinstance(job, FetchData)]
        for setup in set_up:
            names += self.config.sae_bench_datasets(setup.model, setup.evaluation)
        return [name for name in dict.fromkeys(names) if not Path(dataset_file(name)).exists()]

    def _training(self, job: Job) -> Trained | None:
        trained = _trained_behind(job)
        return trained_with(self.config, trained) if isinstance(trained, SaeName) else trained

    def _unfitted(self, wanted: list[Job]) -> list[Fit]:
        layers = [
            Fit(job.model, job.hookpoint)
            for job in wanted
            if isinstance(job, Fit)
            or (isinstance(job, Evaluate) and isinstance(job.subjects, Baselines))
        ]
        return [
            job
            for job in dict.fromkeys(layers)
            if not self.stored.has(
                "baselines", baselines_recipe(self.config, job.model, job.hookpoint).hash
            )
        ]

    def _untokenised(
        self,
        wanted: list[Job],
        judging: Iterable[Evaluate | Look],
        train: Iterable[Trained],
        fit: Iterable[Fit],
    ) -> list[Tokenise]:
        """Of the texts that are wanted or that what there is to do reads, those not in the store;
        and before one that goes on after another, that other."""
        uses = [(job.model, job.use) for job in wanted if isinstance(job, Tokenise)]
        on_text = self.config.text_evaluations
        for job in judging:
            if isinstance(job, Look):
                # It also leaves out what the training does, whose text says which tokens these are.
                uses += [(job.model, FEATURES_TEXT), (job.model, "train")]
            elif job.evaluation in on_text:
                uses.append((job.model, job.evaluation))
        uses += [(trained.model, "train") for trained in train] + [
            (job.model, "train") for job in fit
        ]
        missing: list[Tokenise] = []
        for model, use in dict.fromkeys(uses):
            recipe = tokens_recipe(self.config, model, use)
            if not self.stored.has("tokens", recipe.hash):
                if recipe.after and not self.stored.has("tokens", recipe.after):
                    missing.append(Tokenise(model, "train"))
                missing.append(Tokenise(model, use))
        return list(dict.fromkeys(missing))

    def _looked_at(self, trained: Trained) -> list[int]:
        """The latents of each SAE of a pass without data for its page."""
        stored = self.stored.paged(self.config, trained)
        saes = members(self.config, trained)
        return [self._latents(sae) for sae, done in zip(saes, stored, strict=True) if not done]

    def _codecs(self, job: Evaluate) -> list[int]:
        """The latents of each codec that a job has to judge, one for each way of choosing latents;
        of a baseline as many as it keeps, of all components more than any model is wide."""
        judged = self.stored.judged(self.config, job.subjects, job.evaluation)
        return [
            count
            for sizes, done in zip(self._sizes(job), judged, strict=True)
            if not done
            for count in sizes
        ]

    def _sizes(self, job: Evaluate) -> list[list[int]]:
        """Of each thing that is judged, the latents of its codecs."""
        match job.subjects:
            case Baselines(model):
                names = judged_baselines(self.config, model, job.evaluation)
                return [[components_count(name, ALL_COMPONENTS)] for name in names]
            case Checkpoints(sae):
                steps = self.config.checkpoint_steps(sae.model, sae.sweep.architecture)
                kind = architectures.get(sae.sweep.architecture)
                return [[self._latents(sae)] * (len(kind.inferences) or 1)] * len(steps)
            case PublishedSweep(sweep):
                return [self._size(job, sae) for sae in catalogue.load(self.config).of_sweep(sweep)]
            case SaeName() | Sweep() as subjects:
                return [self._size(job, sae) for sae in members(self.config, subjects)]

    def _size(self, job: Evaluate, sae: SaeName) -> list[int]:
        """SAE Bench judges one way of choosing latents, its loader's."""
        settings = self.config.settings_of(job.model, sae.sweep.architecture)
        kind = architectures.get(sae.sweep.architecture)
        ways = len(kind.judged_inferences(settings, sae.sparsity)) or 1
        if job.evaluation in self.config.sae_bench_evaluations:
            ways = 1
        return [self._latents(sae)] * ways

    def _latents(self, sae: SaeName) -> int:
        kind = architectures.get(sae.sweep.architecture)
        settings = self.config.settings_of(sae.model, sae.sweep.architecture)
        count = self.config.latents(sae.sweep.width)
        return Latents.encoded_by(count, kind.products_of_encoding(settings, sae.sparsity))


# Of a baseline with as many directions as the model is wide.
ALL_COMPONENTS = 2**63


def _trained_behind(job: Job) -> Trained | None:
    """What is trained before something is judged."""
    match job:
        case Train(trained) | Look(trained) | Evaluate(_, Sweep() | SaeName() as trained):
            return trained
        case Evaluate(_, Checkpoints(sae)):
            return sae
        case _:
            return None
