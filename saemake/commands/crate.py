"""Pack built targets and all that they were made from into an RO-Crate, which other tools read.

TARGET is one of `saemake build`. PLACE is a new folder, or a new file whose name ends in .zip. The
crate has the files, their recipes in full, and ro-crate-metadata.json: which job made what from
what, when, by which rule and with which software, with checksums and licences. Weights of the
language model, published weights, texts and tokens are named with their checksums, and not packed.
Only targets that `saemake why` calls current are packed.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from saemake.base.errors import SaemakeError
from saemake.commands import dry_run, targets, why
from saemake.commands.dry_run import Job
from saemake.config.config import Config
from saemake.paths.artifacts import HubFolder
from saemake.paths.files import hub_folder_files
from saemake.paths.grammar import parse
from saemake.paths.names import TOPS
from saemake.publishing import crate_writing
from saemake.publishing.crate import JobDone, crate_of
from saemake.publishing.crate_graph import named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="+", metavar="TARGET", help="a target of `saemake build`")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="PLACE", help="a new folder, or a new .zip file"
    )
    parser.add_argument(
        "--without-weights",
        action="store_true",
        help="name the weights of SAEs and baselines with their checksums; pack those of targets",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    here = Path.cwd()
    place = _place(options.here / options.to, here)
    files_of = {word: _files(config, word, options.here) for word in options.target}
    files = list(dict.fromkeys(file for of_word in files_of.values() for file in of_word))
    _check_current(config, options.configfile, files_of)
    jobs = dry_run.behind(dry_run.jobs(options.configfile, files), files)
    weights = not options.without_weights
    crate = crate_of(config, files, list(map(_done, jobs)), weights=weights)
    crate_writing.write(crate, place)
    size = sum(item.size for item in crate.items.values())
    print(f"{options.to}: {len(crate.items)} files of {len(jobs)} jobs, {size:,} bytes")
    return 0


def _place(place: Path, folder: Path) -> Path:
    """The place, if a crate can get it."""
    crate_writing.check_place(place)
    inside = place.resolve()
    if inside.is_relative_to(folder) and inside.relative_to(folder).parts[0] in TOPS:
        raise SaemakeError(
            f"{place} is in a folder of built files; name a place outside of {', '.join(TOPS)}"
        )
    return place


def _files(config: Config, word: str, here: Path) -> list[str]:
    """The files of a target. Raises SaemakeError if the target is none, or one is not built."""
    path = targets.path_of(config, word, here, Path.cwd())
    files = [file for each in targets.files_of(config, path) for file in _in_folder(config, each)]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise SaemakeError(
            f"{named(missing)} not built; build first: saemake build {word} (with the options of"
            " your run)"
        )
    return files


def _in_folder(config: Config, path: str) -> list[str]:
    """The file itself; of a folder under hub/ those in it."""
    if isinstance(parse(config, path), HubFolder):
        return hub_folder_files(config, path)
    return [path]


def _check_current(
    config: Config, config_files: Sequence[Path], files_of: Mapping[str, Sequence[str]]
) -> None:
    """Raise SaemakeError if a file is not what the config asks for, or was edited."""
    files = [file for of_word in files_of.values() for file in of_word]
    reasons_of = why.reasons_of(config, config_files, files)
    for word, of_word in files_of.items():
        for file in of_word:
            for reason in reasons_of[file]:
                raise SaemakeError(f"{word} is not packed, since it is not current: {reason}")


def _done(job: Job) -> JobDone:
    assert job.script is not None, f"rule {job.rule} has no script"
    return JobDone(
        rule=job.rule,
        script=job.script,
        outputs=job.outputs,
        needed=job.needed,
        started=job.started,
        ended=job.ended,
    )
