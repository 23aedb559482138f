"""The table of running jobs, as lines for a terminal or a file of a given width."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saemake.base import progress
from saemake.jobs.runs import Job, Pass, Shown, duration

# Narrower than this there is no table.
LEAST_WIDTH = 20
# From here on there is room for the bars and the time since a job's start. A terminal of 80 columns
# has 79, since the last stays free.
WIDE = 100
BAR_CELLS = 10
UNITS = (("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000))


@dataclass(frozen=True)
class Look:
    """How lines are to look. Without `unicode` they are ASCII."""

    width: int
    colour: bool = False
    unicode: bool = True


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
        shown += [*_cut(Text(_headline(of, run, look), style="bold"), look), *_table(rows, look)]
    others = [(_alone(each), each) for log, each in passes.items() if log not in known]
    if others:
        shown += [*_cut(Text("Jobs of no known run", style="bold"), look), *_table(others, look)]
    return shown


def _headline(of: str, run: Shown, look: Look) -> str:
    """What is built, shortened where the rest would have no room, and how far it is."""
    room = look.width - len(of) - len("Building : ") - len(run.state)
    dots = "…" if look.unicode else "..."
    what = run.what if len(run.what) <= room else run.what[: max(0, room - len(dots))] + dots
    return f"{of}Building {what}: {run.state}"


def _alone(told: Pass) -> Job:
    label = told.label or told.log or f"process {told.pid}"
    return Job(0, label, label, told.log, told.started)


Row = tuple[Job, Pass | None]


@dataclass(frozen=True)
class _Column:
    """`least` is the width of a terminal that has room for the column. A column that is empty in
    every row is left out, unless it is always shown."""

    title: str
    cell: Callable[[Row, Look], str]
    least: int = 0
    always: bool = False


def _progress(row: Row, look: Look) -> str:
    told = row[1]
    if told is None or told.fraction is None:
        return "" if look.width >= WIDE else f"for {clock(row[0].seconds)}"
    percent = f"{int(100 * told.fraction)} %"
    if look.width < WIDE:
        return percent
    full, empty = ("━", "─") if look.unicode else ("#", "-")
    filled = round(BAR_CELLS * told.fraction)
    return f"{full * filled}{empty * (BAR_CELLS - filled)} {percent:>5}"


def _elapsed(row: Row, look: Look) -> str:
    return clock(row[0].seconds)


def _speed(row: Row, look: Look) -> str:
    told = row[1]
    return f"{counted(told.rate)} {told.unit}/s" if told and told.rate else ""


def _left(row: Row, look: Look) -> str:
    told = row[1]
    return clock(told.left_s) if told and told.left_s is not None else ""


def _figure(name: str, digits: Callable[[float], str]) -> Callable[[Row, Look], str]:
    def cell(row: Row, look: Look) -> str:
        values = row[1].figures.get(name) if row[1] else None
        return span(values, digits) if values else ""

    return cell


def plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}".removesuffix(".0")


def hundredths(value: float) -> str:
    return f"{value:.2f}"


def span(values: Sequence[float], digits: Callable[[float], str]) -> str:
    """Smallest and largest, once where they look alike."""
    low, high = digits(values[0]), digits(values[-1])
    return low if low == high else f"{low}..{high}"


def clock(seconds: float) -> str:
    """0:24, 1:05:20."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def counted(value: float) -> str:
    """950, 1.2k, 118k."""
    letter, unit = next((each for each in reversed(UNITS) if value >= each[1]), UNITS[0])
    scaled = value / unit
    return f"{scaled:.1f}{letter}" if scaled < 10 and letter else f"{scaled:.3g}{letter}"


def words(told: Pass) -> str:
    """The same of one job, in one line of words."""
    look = Look(0)
    row = (_alone(told), told)
    parts = [
        _progress(row, look),
        _speed(row, look),
        f"{duration(told.left_s)} left" if told.left_s is not None else "",
        *(f"{name} {cell(row, look)}" if cell(row, look) else "" for name, cell in FIGURES.items()),
    ]
    return ", ".join(part for part in parts if part)


FIGURES = {
    "L0": _figure(progress.L0, plain),
    "variance explained": _figure(progress.EXPLAINED, hundredths),
    "loss recovered": _figure(progress.RECOVERED, hundredths),
}
COLUMNS = (
    _Column("done", _progress, always=True),
    _Column("time", _elapsed, WIDE, always=True),
    _Column("left", _left, 40, always=True),
    _Column("speed", _speed, 64),
    _Column("L0", FIGURES["L0"], 70),
    _Column("explained", FIGURES["variance explained"], 79),
    _Column("recovered", FIGURES["loss recovered"], 79),
)


def _table(rows: Sequence[Row], look: Look) -> list[str]:
    if not rows:
        return []
    gap = 2 if look.width >= WIDE else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("running", overflow="fold", ratio=1)
    columns = [
        column
        for column in COLUMNS
        if look.width >= column.least
        and (column.always or any(column.cell(row, look) for row in rows))
    ]
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for row in rows:
        cells = (column.cell(row, look) for column in columns)
        table.add_row(Text(row[0].label), *map(Text, cells))
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
