"""Is an artifact, or all in a folder, what the config asks for, and if not, why not?

Exit status 0 where `snakemake -n` would plan nothing for it and every file behind it is what its
job wrote. Otherwise 1, with a line for each cause: a file that is missing, younger than what was
made of it, damaged, or made from other files or by another recipe, whose differing fields are
listed with their old and new values.
"""

import argparse
import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from saemake.base.errors import SaemakeError, build_again
from saemake.base.store import Store, sha256
from saemake.commands import dry_run
from saemake.commands.dry_run import Job
from saemake.config.config import Config
from saemake.paths.files import evaluation_in
from saemake.paths.grammar import parse
from saemake.paths.names import SAE_FILES, STORE, TOPS
from saemake.records import at_hand, made
from saemake.records.asked import recipes_of
from saemake.training import files

# How many names a reason gives.
SHOWN = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="+", help=f"any file or folder under {', '.join(f'{t}/' for t in TOPS)}"
    )


def run(config: Config, options: argparse.Namespace) -> int:
    status = 0
    for path, reasons in reasons_of(config, options.configfile, options.path).items():
        print(f"{path}: {'current' if not reasons else 'not current'}")
        for reason in reasons:
            print(f"  {reason}")
        status |= bool(reasons)
    return status


def reasons_of(
    config: Config, config_files: Sequence[Path], paths: Sequence[str]
) -> dict[str, list[str]]:
    """Why each path is not what the config asks for; nothing where it is. Of a folder: why any of
    the files in it is not.

    Raises SaemakeError where a path names no artifact of the config.
    """
    asked = {path: _asked(config, _relative(path)) for path in paths}
    there = {file for named, _ in asked.values() for file in named if Path(file).exists()}
    jobs = dry_run.jobs(config_files, sorted(there)) if there else []
    return {
        path: [*_reasons_of_files(config, config_files, named, jobs), *unnamed]
        for path, (named, unnamed) in asked.items()
    }


def _relative(path: str) -> str:
    """From the working directory, where the path leads into it."""
    with contextlib.suppress(ValueError):
        return str(PurePosixPath(path).relative_to(Path.cwd()))
    return str(PurePosixPath(path))


def _asked(config: Config, path: str) -> tuple[list[str], list[str]]:
    """The files that a path names, and reasons for those in it that the config does not name."""
    if PurePosixPath(path).parts[:1] not in [(top,) for top in TOPS]:
        raise SaemakeError(f"{path}: artifacts are under {', '.join(f'{t}/' for t in TOPS)}")
    if Path(path).is_dir():
        return _below(config, path)
    if not Path(path).exists():
        # A folder of an SAE or of a sweep that is not built.
        with contextlib.suppress(SaemakeError):
            parse(config, f"{path}/metrics.json")
            return [f"{path}/metrics.json"], []
    parse(config, path)
    return [path], []


def _reasons_of_files(
    config: Config, config_files: Sequence[Path], files_: Sequence[str], jobs: Sequence[Job]
) -> list[str]:
    """Of files that are asked for together; `jobs` are those behind all that any path names."""
    behind = dry_run.behind(jobs, files_)
    # Asked for alone it may be otherwise: a file is missing, or made again for another's sake.
    alone = any(job.missing for job in behind) or (
        any(job.runs for job in behind) and not any(job.caused for job in behind)
    )
    if alone or not all(Path(file).exists() for file in files_):
        behind = dry_run.behind(dry_run.jobs(config_files, files_), files_)
    reasons = [*_differing(config, behind)]
    reasons += [reason for job in behind for reason in _reasons(config, job)]
    return list(dict.fromkeys(reasons or _unexplained(behind)))


def _unexplained(behind: Sequence[Job]) -> Iterator[str]:
    """What Snakemake knows of a job that runs, where neither recipes nor records say why."""
    for job in behind:
        if job.params_changed and job.known:
            yield f"{job.known[0]}: made with other settings, or by an older saemake"
            return
    for job in behind:
        if job.runs:
            yield f"snakemake would run {job.rule}"
            return


def _differing(config: Config, behind: Sequence[Job]) -> Iterator[str]:
    """The fields of recipes that differ, each once, with what they are of."""
    of: dict[str, dict[str, None]] = {}
    for job in behind:
        for file in job.known:
            for name, lines in at_hand.differing(config, file).items():
                for line in lines:
                    of.setdefault(line, {})[name] = None
    for line, names in of.items():
        first, *others = names
        yield f"{line} ({first}{f' and {len(others)} more' if others else ''})"


def _below(config: Config, folder: str) -> tuple[list[str], list[str]]:
    """The artifacts in a folder, and a reason for each of those that the config does not name."""
    named: list[str] = []
    unnamed: dict[str, list[str]] = {}
    for path in _artifacts(Path(folder)):
        try:
            parse(config, path)
            named.append(path)
        except SaemakeError as error:
            unnamed.setdefault(str(error).removeprefix(f"{path}: "), []).append(path)
    if not named and not unnamed:
        raise SaemakeError(f"{folder}: nothing in it is an artifact")
    return named, [
        f"not of this config: {first}{f' and {len(others)} more' if others else ''}: {why}"
        for why, (first, *others) in unnamed.items()
    ]


def _artifacts(folder: Path) -> list[str]:
    """The files in a folder that are results: no hidden ones, nor shards, which go with their
    manifest."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        str(path)
        for path in found
        if not any(part.startswith(".") for part in path.parts)
        and not (path.name.startswith("shard_") and (path.parent / "manifest.json").exists())
    ]


def _reasons(config: Config, job: Job) -> Iterator[str]:
    """The causes that lie with one job, not with those before it, besides recipes."""
    yield from (f"{file} is not there{_how(config, file)}" for file in job.missing)
    yield from (f"{file} was not finished: its job was interrupted" for file in job.incomplete)
    yield from _grouped(dict(_company(config, job)) or dict(_inputs(job)))
    for file in job.known:
        yield from _damage(config, file, job)
    yield from (f"{file} is younger than what was made of it" for file in job.newer)


def _grouped(said: dict[str, str]) -> Iterator[str]:
    """What is said of files, each thing once."""
    of: dict[str, list[str]] = {}
    for file, what in said.items():
        of.setdefault(what, []).append(file)
    for what, files_ in of.items():
        more = f" and {len(files_) - 1} more" if len(files_) > 1 else ""
        yield f"{files_[0]}{more}: made {what}"


def _how(config: Config, file: str) -> str:
    """What a run does about an SAE that is missing."""
    if PurePosixPath(file).name not in SAE_FILES or not file.startswith("results/"):
        return ""
    for by in recipes_of(config, file).values():
        there = Store(STORE, "saes").holds(by.hash)
        return "; the store has it: a run links it" if there else "; a run trains it"
    return ""


def _company(config: Config, job: Job) -> Iterator[tuple[str, str]]:
    """Of each file, which other things its job made, or did not make, than it would now."""
    now = {name: by.hash for file in job.outputs for name, by in recipes_of(config, file).items()}
    for file in job.known:
        record = made.read(file)
        if record is not None and (changed := _changed(*_apart(record.job, now))):
            yield file, changed


def _apart(before: dict[str, str], now: dict[str, str]) -> tuple[set[str], set[str]]:
    """The names on either side alone, by name and by recipe: a new name alone is nothing new."""
    same, hashes = set(before) & set(now), set(before.values()) & set(now.values())
    return tuple(  # type: ignore[return-value]
        {name for name, hash_ in side.items() if name not in same and hash_ not in hashes}
        for side in (before, now)
    )


def _inputs(job: Job) -> Iterator[tuple[str, str]]:
    for file in job.known:
        record = made.read(file)
        before = set(record.inputs if record else job.inputs_before or job.inputs)
        if before != set(job.inputs):
            yield file, _changed(before, set(job.inputs))


def _changed(before: set[str], now: set[str]) -> str:
    without = f"without {_some(sorted(now - before))}" if now - before else ""
    also = f"with {_some(sorted(before - now))}, unlike now" if before - now else ""
    return " and ".join(filter(None, (without, also)))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _damage(config: Config, file: str, job: Job) -> Iterator[str]:
    """Whether a file is what its job wrote, and its inputs what its job read."""
    record = made.read(file)
    wrote = record.sha256 if record else _carried_sum(Path(file))
    if wrote is not None and Path(file).is_file() and (found := _sum(file)) != wrote:
        yield (
            f"{file} is damaged or edited: its sha256 is {found[:16]}..., its job wrote"
            f" {wrote[:16]}...; {build_again(file)}"
        )
    if PurePosixPath(file).name == "manifest.json":
        yield from _damaged_shards(Path(file))
    for read, was in (record.inputs if record else _carried_inputs(config, Path(file))).items():
        if read not in job.newer and Path(read).is_file() and _sum(read) != was:
            gone = "" if Path(file).is_file() else ", and is gone"
            yield f"{file} was made from another {read}{gone}"


def _carried_sum(path: Path) -> str | None:
    """Without a record: what an SAE's provenance says of its ae.pt."""
    if path.name != "ae.pt" or not (path.parent / "provenance.json").exists():
        return None
    try:
        return files.read_provenance(path.parent)["ae_sha256"]
    except SaemakeError:
        return "nothing that can be read"


def _carried_inputs(config: Config, path: Path) -> dict[str, str]:
    """Without a record: which ae.pt the rows of an evaluation judge."""
    judged = path.parent / "ae.pt"
    try:
        if (
            path.suffix == ".json"
            and (evaluation := evaluation_in(config, path.name))
            and judged.exists()
        ):
            row = json.loads(path.read_text())[0]
            return {str(judged): row["evaluations"][evaluation]["sha256"]}
    except (OSError, ValueError, LookupError, TypeError):
        return {str(judged): "nothing that can be read"}
    return {}


def _damaged_shards(manifest: Path) -> Iterator[str]:
    """Of tokens, which shards are not those of their manifest."""
    try:
        shards = {s["file"]: s["sha256"] for s in json.loads(manifest.read_text())["shards"]}
    except (OSError, ValueError, LookupError, TypeError):
        return  # it is not what its job wrote, which is said
    for name, was in shards.items():
        shard = manifest.parent / name
        if not shard.is_file() or _sum(str(shard)) != was:
            yield f"{shard} is damaged or gone; delete {manifest} and run"


@functools.cache
def _sum(path: str) -> str:
    return sha256(Path(path))
