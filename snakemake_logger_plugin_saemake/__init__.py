"""Looks at snakemake's command line before snakemake does (see saemake.command_line).

Snakemake imports every module of this name (snakemake_logger_plugin_*) while it makes its parser:
the one documented place where a workflow's code runs before the parser fails.
"""

import itertools
import sys
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase

from saemake.base.source import ROOT

SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


class LogHandler(LogHandlerBase):
    """A logger plugin has a handler. `--logger saemake` shows what Snakemake shows, uncoloured."""

    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        if text := self.format(record):
            stream = sys.stdout if self.common_settings.stdout else sys.stderr
            print(text, file=stream, flush=True)


def runs_saemake(arguments: list[str]) -> bool:
    """Whether the command is snakemake's, and its Snakefile the one beside this package."""
    program = Path(arguments[0])
    if (program.parent.name if program.name == "__main__.py" else program.stem) != "snakemake":
        return False
    named = [
        after.removeprefix(f"{option}=")
        for before, after in itertools.pairwise(arguments)
        for option in ("--snakefile", "-s")
        if before == option or after.startswith(f"{option}=")
    ]
    places = [Path(name) for name in (named or SNAKEFILES) if Path(name).is_file()]
    return bool(places) and places[0].resolve() == ROOT / "Snakefile"


def check(arguments: list[str]) -> None:
    """End the process with status 1 and one line where snakemake would show a traceback."""
    if runs_saemake(arguments):
        from saemake.base.errors import SaemakeError
        from saemake.commands import command_line

        try:
            command_line.check(arguments[1:])
        except SaemakeError as error:
            sys.exit(f"saemake: {error}")


check(sys.argv)
