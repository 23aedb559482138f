"""Shows a run, and looks at snakemake's command line before snakemake does (see
saemake.commands.command_line).

Snakemake imports every module of this name (snakemake_logger_plugin_*) while it makes its parser:
the one documented place where a workflow's code runs before the parser fails.
"""

import contextlib
import itertools
import logging
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from saemake.base.source import ROOT

# What Snakemake says of this project's profile. It says more where the user names another one.
PROFILE_LINE = re.compile(r"Using workflow specific profile (\S*/)?profiles/default for setting ")
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """The flags of the plugin: `off` is --logger-saemake-off."""

    off: bool = field(
        default=False,
        metadata={"help": "Show Snakemake's own lines and a bar for each job, and no table."},
    )


class LogHandler(LogHandlerBase):
    """Shows a run (see saemake.jobs.display), or where Snakemake's own lines are asked for, these.

    Nothing that it raises reaches Snakemake: a run goes on without a screen.
    """

    writes_to_stream = True
    # What is shown of a record is decided in `emit`.
    has_filter = has_formatter = True
    writes_to_file = needs_rulegraph = False

    def __post_init__(self) -> None:
        from saemake.base import progress
        from saemake.jobs.runs import Run

        self.run = None if self.common_settings.dryrun else Run()
        self.shown: logging.Handler | None = None
        os.environ.pop(progress.SHOWN, None)
        if self.run is not None and not self._snakemake_is_asked_for():
            with contextlib.suppress(Exception):
                from saemake.jobs import display

                self.shown = display.choose(self.run, self.common_settings.nocolor)
                # Jobs inherit these, and draw no bars.
                os.environ[progress.SHOWN] = "1"
                for library in ("HF_HUB", "HF_DATASETS"):
                    os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")
        if self.shown is None:
            self.shown = self._snakemake()

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            if self.run is not None:
                self.run.see(record)
        with contextlib.suppress(Exception):
            if self.shown is not None:
                self.shown.handle(record)

    def close(self) -> None:
        for closed in (self.shown, self.run):
            with contextlib.suppress(Exception):
                if closed is not None:
                    closed.close()
        self.shown = self.run = None
        super().close()

    def _snakemake_is_asked_for(self) -> bool:
        """Whether an option asks for lines that only Snakemake has, or for none."""
        from snakemake.settings.enums import Quietness

        asked, settings = self.common_settings, self.settings
        quiet = set(asked.quiet or ())
        silent = {Quietness.ALL, Quietness.PROGRESS, Quietness.RULES} & quiet
        # `--quiet host` asks for the reasons of jobs, which the profile leaves out.
        reasons = Quietness.HOST in quiet and Quietness.REASON not in quiet
        off = isinstance(settings, LogHandlerSettings) and settings.off
        more = asked.verbose or asked.debug_dag or asked.printshellcmds or asked.show_failed_logs
        return bool(silent or reasons or off or more)

    def _snakemake(self) -> logging.Handler:
        """What Snakemake would show without a plugin."""
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        from saemake.jobs.screen import ShortFailures

        asked = self.common_settings
        stream = sys.stdout if asked.stdout else sys.stderr
        handler = ColorizingTextHandler(nocolor=asked.nocolor, stream=stream)
        options = (asked.debug_dag, asked.verbose, asked.dryrun, asked.printshellcmds)
        handler.addFilter(DefaultFilter(asked.quiet, *options))
        handler.setFormatter(DefaultFormatter(asked.quiet, asked.show_failed_logs))
        if not (asked.verbose or asked.show_failed_logs):
            handler.addFilter(ShortFailures(handler))
        return handler


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


class WithoutProfileLine:
    """Stands for stderr until the first words are written to it, and leaves them out if they are
    Snakemake's line on this project's profile. Snakemake prints it right after it has made its
    parser, and has no option to leave it out."""

    def __init__(self, stderr: TextIO) -> None:
        self.stderr = stderr
        self.left_out = False

    def write(self, words: str) -> int:
        if sys.stderr is self:
            sys.stderr = self.stderr
            self.left_out = PROFILE_LINE.match(words) is not None
            if self.left_out:
                return len(words)
        if self.left_out:  # `print` writes the line's end by itself
            self.left_out = False
            words = words.removeprefix("\n")
        return self.stderr.write(words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stderr, name)


check(sys.argv)
if runs_saemake(sys.argv) and sys.stderr is not None:
    sys.stderr = cast(TextIO, WithoutProfileLine(sys.stderr))
