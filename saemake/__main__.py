"""`saemake`, or `python -m saemake`: builds targets, and answers questions about what is there."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from saemake.base.errors import SaemakeError, first_line
from saemake.commands import build, command_line, project

# A module of saemake.commands each.
COMMANDS = ("find", "text", "plan", "status", "why", "verify", "store", "crate")
TRACEBACK = "--traceback"
# They look at what was built, in the folder where it was.
NEED_RESULTS = {"why", "verify", "store", "crate"}


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Of the command that is named, or of all: their modules take seconds to import."""
    parser = argparse.ArgumentParser(prog="saemake", description=__doc__)
    parser.add_argument(TRACEBACK, action="store_true", help="show where an error comes from")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    # Only for the list of commands: `main` hands its words to snakemake before they are parsed.
    subparsers.add_parser("build", help=_about(build))
    named = next((word for word in words if not word.startswith("-")), None)
    for name in [named] if named in COMMANDS else COMMANDS:
        module = importlib.import_module(f"saemake.commands.{name}")
        # Without abbreviations: snakemake's --config is another option than --configfile.
        command = subparsers.add_parser(
            name, help=_about(module), description=module.__doc__, allow_abbrev=False
        )
        command.add_argument(
            "--configfile",
            nargs="+",
            type=Path,
            default=[],
            metavar="FILE",
            help="laid over the project's config, as snakemake's",
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    return parser


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n\n")[0]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. One line on stderr where it cannot be done."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(words)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except Exception as error:
        if words[:1] == [TRACEBACK]:
            raise
        _tell(_said(error))
        return 2


def _run(words: list[str]) -> int:
    # Its options are snakemake's, which the parser does not know.
    rest = words[1:] if words[:1] == [TRACEBACK] else words
    if rest[:1] == ["build"]:
        build.run(rest[1:])
        return 0
    if not rest:
        _parser(words).print_help(sys.stderr)
        return 2
    _check_order(words)
    options = _parser(words).parse_args(words)
    options.configfile = [path.absolute() for path in options.configfile]
    options.here = Path.cwd()
    if options.command in NEED_RESULTS:
        project.enter()
    elif options.command in ("plan", "text"):
        project.enter_above()
    elif options.command == "status":
        os.chdir(project.folder(Path.cwd()))
    status: int = options.run(project.load_config(options.configfile), options)
    return status


def _tell(line: str) -> None:
    """Say a line last, after what was printed before it, where both streams go to one file too."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print(f"saemake: {line}", file=sys.stderr)


def _check_order(words: list[str]) -> None:
    """Raise SaemakeError where --configfile takes a path as one more config file."""
    after = next((at + 1 for at, word in enumerate(words) if not word.startswith("-")), 0)
    command_line.check_order(["saemake", *words[:after]], words[after:])


def _said(error: Exception) -> str:
    if isinstance(error, SaemakeError):
        return str(error)
    what = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, OSError) and error.filename:
        what = f"{error.filename}: {error.strerror}"
    return f"{what} (--traceback before the command shows where)"


if __name__ == "__main__":
    sys.exit(main())
