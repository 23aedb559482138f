"""Pack built targets and all that they were made from into an RO-Crate, which other tools read.

TARGET is one of `saemake build`. PLACE is a new folder, or a new file whose name ends in .zip. The
crate has the files, their recipes in full, and ro-crate-metadata.json: which job made what from
what, when, by which rule and with which software, with checksums and licences. Weights of the
language model, texts and tokens are named with their checksums, and not packed. Only targets that
`saemake why` calls current are packed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from saemake.base.errors import SaemakeError
from saemake.commands import dry_run, targets, why
from saemake.commands.dry_run import Job
from saemake.config.config import Config
from saemake.paths.names import TOPS
from saemake.publishing import crate_writing
from saemake.publishing.crate import JobDone, crate_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="+", metavar="TARGET", help="a target of `saemake build`")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="PLACE", help="a new folder, or a new .zip file"
    )


def run(config: Config, options: argparse.Namespace) -> int:
    here = Path.cwd()
    place = _place(options.here / options.to, here)
    files: dict[str, None] = {}
    for word in options.target:
        path = targets.path_of(config, word, options.here, here)
        named = targets.files_of(config, path)
        _check_built(word, named)
        _check_current(config, options.configfile, word, named)
        files |= dict.fromkeys(named)
    jobs = dry_run.behind(dry_run.jobs(options.configfile, list(files)), list(files))
    crate = crate_of(config, list(files), list(map(_done, jobs)))
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


def _check_built(word: str, files: Sequence[str]) -> None:
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SaemakeError(
            f"{missing[0]}{more} is not built; build it first: saemake build {word} (with the"
            " options of your run)"
        )


def _check_current(
    config: Config, config_files: Sequence[Path], word: str, files: Sequence[str]
) -> None:
    reasons = [
        reason
        for of_file in why.reasons_of(config, config_files, files).values()
        for reason in of_file
    ]
    if reasons:
        raise SaemakeError(f"{word} cannot be packed, since it is not current: {reasons[0]}")


def _done(job: Job) -> JobDone:
    assert job.script is not None, f"rule {job.rule} has no script"
    return JobDone(
        rule=job.rule,
        script=job.script,
        inputs=job.inputs,
        outputs=job.outputs,
        needed=job.needed,
        started=job.started,
        ended=job.ended,
    )
