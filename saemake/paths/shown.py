"""What a figure shows: whose tables it reads."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from saemake import figures
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.figures import Figure, Panel
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import judged_by
from saemake.paths.artifacts import SaeFile, SweepTable
from saemake.paths.files import checkpointed_sweeps, evaluation_files, suite_sweeps
from saemake.paths.grammar import parse
from saemake.paths.names import (
    CHECKPOINTS,
    METRICS,
    RESULTS,
    Baselines,
    Checkpoints,
    SaeName,
    Subjects,
    Sweep,
    Trained,
    baselines_of,
)
from saemake.paths.sweeps import members

ALL = "*"


@dataclass(frozen=True)
class Shown:
    """What a figure shows: sweeps and single SAEs; the SAEs whose checkpoints it shows; the
    evaluations that it shows and a suite lacks, with what they judge; and the name of a file that
    it reads of each SAE, if any."""

    trained: list[Trained]
    checkpoints: list[SaeName]
    apart: list[tuple[str, Subjects]]
    beside: str = ""

    @property
    def baselines(self) -> list[Baselines]:
        """The baselines of the sweeps, whose rows are in the sweeps' tables."""
        sweeps = [each for each in self.trained if isinstance(each, Sweep)]
        return list(dict.fromkeys(map(baselines_of, sweeps)))

    @property
    def subjects(self) -> list[Subjects]:
        """All whose evaluations by their suite it shows."""
        return [*self.baselines, *self.trained, *map(Checkpoints, self.checkpoints)]

    def files(self, config: Config) -> list[str]:
        """The files that the figure reads."""
        paths = [f"{each.folder}/{METRICS}" for each in self.trained]
        paths += [f"{sae.folder}/{CHECKPOINTS}/{METRICS}" for sae in self.checkpoints]
        for evaluation, judged in self.apart:
            paths += evaluation_files(config, judged, evaluation)
        if self.beside:
            saes = (sae for each in self.trained for sae in members(config, each))
            paths += [f"{sae.folder}/{self.beside}" for sae in saes]
        return paths


def of_hookpoint(config: Config, name: str, model: str, hookpoint: Hookpoint) -> Shown:
    """What a figure of a model's suite shows at one hookpoint."""
    figure = figures.get(name)
    find = checkpointed_sweeps if figure.shows == "training" else suite_sweeps
    sweeps = find(config, model, hookpoint)
    in_course = figure.shows == "training"
    saes = [sae for sweep in sweeps for sae in members(config, sweep)] if in_course else []
    apart: list[tuple[str, Subjects]] = []
    for sweep in judged_by.judged_apart(config, figure.evaluation, sweeps):
        apart.append((figure.evaluation, sweep))
        if in_course:
            courses = map(Checkpoints, members(config, sweep))
            apart += [(figure.evaluation, checkpoints) for checkpoints in courses]
    return Shown(list(sweeps), saes, apart, figure.beside)


def of_own(config: Config, name: str) -> Shown:
    """What a figure of the config shows. Raises SaemakeError if one of its sweeps is none, or no
    evaluation of a column can judge any of them."""
    described, figure = config.figures[name], own(config, name)
    trained = [each for pattern in described.sweeps for each in _matching(config, name, pattern)]
    trained = list(dict.fromkeys(trained))
    evaluations = dict.fromkeys(
        column.partition(".")[0] for column in (figure.x, *described.columns) if "." in column
    )
    apart: list[tuple[str, Subjects]] = []
    for evaluation in evaluations:
        lacking = [
            each for each in trained if evaluation not in config.suite_evaluations(each.model)
        ]
        reasons = [judged_by.why_not(config, each, evaluation) for each in trained]
        if all(reasons):
            raise SaemakeError(
                f"figures.{name}: {evaluation} can judge none of its sweeps: {reasons[0]}"
            )
        apart += [
            (evaluation, each)
            for each in lacking
            if judged_by.why_not(config, each, evaluation) is None
        ]
    return Shown(trained, [], apart)


def own(config: Config, name: str) -> Figure:
    """A figure of the config, as it is drawn."""
    described = config.figures[name]
    return Figure(
        "own",
        "suite",
        METRICS,
        "",
        x=described.x,
        panels=tuple(Panel(column, figures.label_of(column)) for column in described.columns),
        by=described.panels or "",
        hue=described.hue,
        by_default=False,
    )


def _matching(config: Config, figure: str, pattern: str) -> list[Trained]:
    """The sweeps of suites that match a pattern with `*`, or the sweep or SAE of that name."""
    if ALL not in pattern:
        try:
            artifact = parse(config, f"{RESULTS}/{pattern}/{METRICS}")
        except SaemakeError as error:
            raise SaemakeError(f"figures.{figure}.sweeps: {error}") from None
        match artifact:
            case SweepTable(sweep):
                return [sweep]
            case SaeFile(_, sae):
                return [sae]
        raise SaemakeError(f"figures.{figure}.sweeps: '{pattern}' is not a sweep or an SAE")
    suites = [
        sweep
        for model in config.models
        for hookpoint in config.models[model].suite.hookpoints
        for sweep in suite_sweeps(config, model, hookpoint)
    ]
    found: list[Trained] = [sweep for sweep in suites if fnmatchcase(str(sweep), pattern)]
    if not found:
        raise SaemakeError(
            f"figures.{figure}.sweeps: no sweep of a suite matches '{pattern}';"
            f" {nearest(pattern, map(str, suites))}"
        )
    return found
