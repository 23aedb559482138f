"""What a figure shows: whose tables it reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from saemake import figures
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.figures import Figure, Panel
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import judged_by
from saemake.paths.artifacts import SaeFile, SweepTable
from saemake.paths.files import (
    STABILITY,
    checkpointed_sweeps,
    evaluation_files,
    seeded_sweeps,
    suite_sweeps,
)
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
from saemake.paths.sweeps import members, of_other_seeds, with_seeds

ALL = "*"


@dataclass(frozen=True)
class Shown:
    """What a figure shows: sweeps and single SAEs; the SAEs of other seeds in the sweeps' tables;
    the SAEs whose checkpoints it shows; the evaluations that it shows and a suite lacks, with what
    they judge; the name of a file that it reads of each SAE, if any; and which table of a sweep it
    reads."""

    trained: list[Trained]
    checkpoints: list[SaeName]
    apart: list[tuple[str, Subjects]]
    beside: str = ""
    seeded: tuple[SaeName, ...] = ()
    table: str = METRICS

    @property
    def baselines(self) -> list[Baselines]:
        """The baselines of the sweeps, whose rows are in the sweeps' tables."""
        sweeps = [each for each in self.trained if isinstance(each, Sweep)]
        return list(dict.fromkeys(map(baselines_of, sweeps)))

    @property
    def subjects(self) -> list[Subjects]:
        """All whose evaluations by their suite it shows."""
        courses = map(Checkpoints, self.checkpoints)
        return [*self.baselines, *self.trained, *self.seeded, *courses]

    def files(self, config: Config) -> list[str]:
        """The files that the figure reads."""
        paths = [f"{each.folder}/{self.table}" for each in self.trained]
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
    find = {"training": checkpointed_sweeps, "seeds": seeded_sweeps}
    sweeps = find.get(figure.shows, suite_sweeps)(config, model, hookpoint)
    in_course = figure.shows == "training"
    saes = [sae for sweep in sweeps for sae in with_seeds(config, sweep)] if in_course else []
    apart: list[tuple[str, Subjects]] = []
    for sweep in judged_by.judged_apart(config, figure.evaluation, sweeps):
        judged: list[Subjects] = [sweep, *of_other_seeds(config, sweep)]
        if in_course:
            judged += map(Checkpoints, with_seeds(config, sweep))
        apart += [(figure.evaluation, each) for each in judged]
    table = STABILITY if figure.shows == "seeds" else METRICS
    return Shown(list(sweeps), saes, apart, figure.beside, _seeded(config, sweeps), table)


def _seeded(config: Config, trained: Iterable[Trained]) -> tuple[SaeName, ...]:
    """The SAEs of other seeds in the tables of sweeps."""
    sweeps = (each for each in trained if isinstance(each, Sweep))
    return tuple(sae for sweep in sweeps for sae in of_other_seeds(config, sweep))


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
            each
            for each in (*trained, *_seeded(config, trained))
            if evaluation not in config.suite_evaluations(each.model)
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
    return Shown(trained, [], apart, seeded=_seeded(config, trained))


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
