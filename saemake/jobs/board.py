"""The table of running jobs, as lines for a terminal or a file of a given width."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saemake.base import progress
from saemake.jobs.runs import Job, Pass, Shown, duration

# Narrower than this there is no table.
LEAST_WIDTH = 20
# From here on there is room for the bars, for units, and for all figures. A terminal of 120 columns
# has 119, since the last stays free.
WIDE = 119
BAR_CELLS = 10
UNITS = (("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000))
# A row has room for a short name: these words of a label are replaced.
SHORTER = {
    r"^evaluate ": "eval ",
    r" by sae_bench_": " by ",
    r"^look at the latents of ": "read latents of ",
    r"^join the evaluations of ": "join ",
    r"^gather the sweep ": "gather ",
    r"^write the pages of ": "write pages of ",
    r"^(tokenise [\d,]+ \w+) of .*": r"\1",
}
# What a job does after its text.
WRITING = "writing"
# At least so many characters of an evaluation's name are shown.
LEAST_EVALUATION = 6


@dataclass(frozen=True)
class Look:
    """How lines are to look. Without `unicode` they are ASCII."""

    width: int
    colour: bool = False
    unicode: bool = True

    @property
    def dots(self) -> str:
        return "…" if self.unicode else "..."


def lines(
    runs: Sequence[Shown],
    passes: Mapping[str | None, Pass],
    look: Look,
    *,
    processes: bool = False,
) -> list[str]:
    """Each run and its jobs, and jobs of no known run. No line is longer than the width.
    `processes`: name the process of each run."""
    if look.width < LEAST_WIDTH:
        return []
    shown: list[str] = []
    known = {job.log for run in runs for job in run.jobs if job.log}
    for run in runs:
        rows = [(job, passes.get(job.log)) for job in run.jobs if job.log or job.label]
        of = f"Process {run.pid}: " if processes else ""
        shown += _cut(Text(_headline(of, run, look), style="bold"), look)
        shown += _table(rows, run.place, look)
    others = [(_alone(each), each) for log, each in passes.items() if log not in known]
    if others:
        shown += _cut(Text("Jobs of no known run", style="bold"), look)
        shown += _table(others, "", look)
    return shown


def _headline(of: str, run: Shown, look: Look) -> str:
    """What is built, shortened where the rest would have no room, and how far it is."""
    room = look.width - len(of) - len("Building : ") - len(run.state)
    return f"{of}Building {_cut_at_end(run.what, room, look)}: {run.state}"


def _cut_at_end(words: str, room: int, look: Look) -> str:
    return words if len(words) <= room else words[: max(0, room - len(look.dots))] + look.dots


def brief(label: str, place: str) -> str:
    """A job's label for a row. Leaves out the model, or the model and layer (`demo/L3`), that all
    jobs of the run have."""
    if place:
        model, _, layer = place.partition("/")
        label = re.sub(rf"(?<!\S){re.escape(place)}(?:/| (?=L\d))", "", label)
        spelt = "|".join(map(re.escape, (place, f"{model} {layer}".strip())))
        label = re.sub(rf" of (?:{spelt})(?!\S)", "", label)
    for words, shorter in SHORTER.items():
        label = re.sub(words, shorter, label)
    return label


def fitted(name: str, room: int, look: Look) -> str:
    """A name of one line. The first letters tell an evaluation, so its end is cut. Other names are
    cut in the middle."""
    if len(name) <= room:
        return name
    judged = name.rpartition(" by ")[0]
    if judged and room - len(f"{judged} by {look.dots}") >= LEAST_EVALUATION:
        return _cut_at_end(name, room, look)
    kept = max(0, room - len(look.dots))
    return name[: kept // 2] + look.dots + name[len(name) - (kept - kept // 2) :]


def _alone(told: Pass) -> Job:
    label = told.label or told.log or f"process {told.pid}"
    return Job(0, label, label, told.log, told.started)


Row = tuple[Job, Pass | None]


@dataclass(frozen=True)
class _Column:
    """The width is fixed, so that nothing moves while a run goes on. The column is shown where the
    terminal has at least `least` and fewer than `below` columns."""

    title: Callable[[Sequence[Row]], str]
    width: int
    cell: Callable[[Row, Look], str]
    least: int = 0
    below: float = math.inf


def _titled(title: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: title


def _percent(row: Row, look: Look) -> str:
    told = row[1]
    return "" if told is None or told.fraction is None else f"{int(100 * told.fraction)} %"


def _bar(row: Row, look: Look) -> str:
    told = row[1]
    if told is None or told.fraction is None:
        return ""
    full, empty = ("━", "─") if look.unicode else ("#", "-")
    filled = round(BAR_CELLS * told.fraction)
    return f"{full * filled}{empty * (BAR_CELLS - filled)} {_percent(row, look):>5}"


def _elapsed(row: Row, look: Look) -> str:
    return clock(row[0].seconds)


def _speed(row: Row, look: Look) -> str:
    told = row[1]
    if told is None or not told.rate:
        return ""
    unit = f" {told.unit}" if look.width >= WIDE else ""
    return f"{counted(told.rate)}{unit}/s"


def _left(row: Row, look: Look) -> str:
    told = row[1]
    if told is None or told.left_s is None:
        return ""
    return WRITING if told.fraction == 1 else clock(told.left_s)


def _figure(name: str, digits: Callable[[float], str]) -> Callable[[Row, Look], str]:
    def cell(row: Row, look: Look) -> str:
        values = row[1].figures.get(name) if row[1] else None
        return span(values, digits) if values else ""

    return cell


def _explained_or_recovered(row: Row, look: Look) -> str:
    return _explained(row, look) or _recovered(row, look)


def _title_of_either(rows: Sequence[Row]) -> str:
    """Rows of trainings tell the variance explained, those of evaluations the loss recovered."""
    told = {name for _, each in rows if each for name in each.figures}
    if progress.RECOVERED not in told:
        return "explained"
    return "expl/recov" if progress.EXPLAINED in told else "recovered"


def plain(value: float) -> str:
    """At most four characters."""
    if abs(value) >= 1000:
        return counted(value)
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}".removesuffix(".0")


def hundredths(value: float) -> str:
    """At most four characters: tenths below zero."""
    if value < -99:
        return "<-99"
    return f"{value:.0f}" if value <= -9.95 else f"{value:.1f}" if value < 0 else f"{value:.2f}"


def span(values: Sequence[float], digits: Callable[[float], str]) -> str:
    """Smallest and largest, once where they look alike."""
    low, high = digits(values[0]), digits(values[-1])
    return low if low == high else f"{low}..{high}"


def clock(seconds: float) -> str:
    """0:24, 1h05, 120h: at most five characters."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 100:
        return f"{hours}h"
    return f"{hours}h{minutes:02}" if hours else f"{minutes}:{whole % 60:02}"


def counted(value: float) -> str:
    """0.25, 950, 1.2k, 118k: at most four characters."""
    letter, unit = next((each for each in reversed(UNITS) if value >= each[1]), UNITS[0])
    scaled = value / unit
    digits = 0 if scaled >= 9.95 else 1 if letter or scaled >= 1 else 2
    return f"{scaled:.{digits}f}{letter}"


def words(told: Pass) -> str:
    """The same of one job, in one line of words."""
    look = Look(WIDE)
    row = (_alone(told), told)
    parts = [
        _percent(row, look),
        *_pace(row, look),
        *(f"{name} {cell(row, look)}" if cell(row, look) else "" for name, cell in FIGURES.items()),
    ]
    return ", ".join(part for part in parts if part)


def _pace(row: Row, look: Look) -> list[str]:
    told = row[1]
    if told is None or told.left_s is None:
        return []
    if told.fraction == 1:
        return [WRITING]
    return [_speed(row, look), f"{duration(told.left_s)} left"]


_l0 = _figure(progress.L0, plain)
_explained = _figure(progress.EXPLAINED, hundredths)
_recovered = _figure(progress.RECOVERED, hundredths)
FIGURES = {"L0": _l0, "variance explained": _explained, "loss recovered": _recovered}
COLUMNS = (
    _Column(_titled("time"), 5, _elapsed, 50),
    _Column(_titled("done"), 5, _percent, below=WIDE),
    _Column(_titled("done"), BAR_CELLS + 6, _bar, WIDE),
    _Column(_titled("left"), 7, _left, 40),
    _Column(_titled("speed"), 6, _speed, 64, WIDE),
    _Column(_titled("speed"), 10, _speed, WIDE),
    _Column(_titled("L0"), 9, _l0, 70),
    _Column(_title_of_either, 10, _explained_or_recovered, 79, WIDE),
    _Column(_titled("explained"), 10, _explained, WIDE),
    _Column(_titled("recovered"), 10, _recovered, WIDE),
)


def _table(rows: Sequence[Row], place: str, look: Look) -> list[str]:
    if not rows:
        return []
    gap = 2 if look.width >= WIDE else 1
    columns = [each for each in COLUMNS if each.least <= look.width < each.below]
    room = look.width - sum(each.width + gap for each in columns)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("running", width=room, no_wrap=True)
    for column in columns:
        table.add_column(column.title(rows), justify="right", width=column.width, no_wrap=True)
    for row in rows:
        name = fitted(brief(row[0].label, place), room, look)
        table.add_row(Text(name), *(Text(column.cell(row, look)) for column in columns))
    return _rendered(table, look)


def _cut(text: Text, look: Look) -> list[str]:
    text.truncate(look.width, overflow="ellipsis" if look.unicode else "crop")
    return _rendered(text, look)


def _rendered(what: Table | Text, look: Look) -> list[str]:
    console = Console(
        file=io.StringIO(),
        width=look.width,
        force_terminal=look.colour,
        color_system="standard" if look.colour else None,
        no_color=None if look.colour else True,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
        _environ={},
    )
    with console.capture() as captured:
        console.print(what)
    return [line.rstrip() for line in captured.get().splitlines()]
