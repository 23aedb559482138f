"""Is an artifact, or each file in a folder, what the config asks for, and if not, why not?

Exit status 0 if `snakemake -n` would plan nothing for it and every file that it needs is as its job
wrote it. Otherwise 1, with a line for each cause: a file is missing, younger than a file made from
it, damaged, made from other files, or made by another recipe. Differing fields of recipes are
listed with their old and new values.
"""

import argparse
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from saemake.base.errors import SaemakeError, build_again
from saemake.base.store import Store, sha256
from saemake.commands import dry_run, targets
from saemake.commands.dry_run import Job
from saemake.config.config import Config
from saemake.jobs.runs import short
from saemake.paths.files import evaluation_in
from saemake.paths.grammar import parse
from saemake.paths.names import SAE_FILES, STORE, TOPS
from saemake.records import at_hand, made
from saemake.records.asked import recipes_of
from saemake.training import files

# Number of names that a reason lists.
SHOWN = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="+", help="a target of `saemake build`, or a folder with built files"
    )


def run(config: Config, options: argparse.Namespace) -> int:
    status = 0
    here = Path.cwd()
    path_of = {word: targets.path_of(config, word, options.here, here) for word in options.path}
    reasons_by_path = reasons_of(config, options.configfile, list(path_of.values()))
    for word, path in path_of.items():
        reasons = reasons_by_path[path]
        print(f"{word}: {'current' if not reasons else 'not current'}")
        for reason in reasons:
            print(f"  {reason}")
        status |= bool(reasons)
    return status


def reasons_of(
    config: Config, config_files: Sequence[Path], paths: Sequence[str]
) -> dict[str, list[str]]:
    """The reasons why each path is not what the config asks for; none if it is. The reasons of a
    folder are those of its files.

    Raises SaemakeError if a path names no artifact of the config.
    """
    asked = {path: _asked(config, path) for path in paths}
    existing = {file for named, _ in asked.values() for file in named if Path(file).exists()}
    jobs = dry_run.jobs(config_files, sorted(existing)) if existing else []
    return {
        path: [*_reasons_of_files(config, config_files, named, jobs), *unnamed]
        for path, (named, unnamed) in asked.items()
    }


def _asked(config: Config, path: str) -> tuple[list[str], list[str]]:
    """The files that a path names, and reasons for the files in it that the config does not
    name. A folder with nothing built in it stands for what would be built."""
    if path.split("/")[0] in TOPS and Path(path).is_dir():
        named, unnamed = _below(config, path)
        if named or unnamed:
            return named, unnamed
    return targets.files_of(config, path), []


def _reasons_of_files(
    config: Config, config_files: Sequence[Path], files_: Sequence[str], jobs: Sequence[Job]
) -> list[str]:
    """The reasons of files that one path names. `jobs` are the jobs that all paths need."""
    behind = dry_run.behind(jobs, files_)
    # These files alone may need other jobs: if one is missing, or is made again only because of the
    # files of another path. Then Snakemake is asked about these files alone.
    alone = any(job.missing for job in behind) or (
        any(job.runs for job in behind) and not any(job.caused for job in behind)
    )
    if alone or not all(Path(file).exists() for file in files_):
        behind = dry_run.behind(dry_run.jobs(config_files, files_), files_)
    reasons = [*_differing(config, behind)]
    reasons += [reason for job in behind for reason in _reasons(config, job)]
    return list(dict.fromkeys(reasons or _unexplained(behind)))


def _unexplained(behind: Sequence[Job]) -> Iterator[str]:
    """What a run would do first, if neither recipes nor records say why."""
    for job in behind:
        if job.params_changed and job.known:
            yield f"{job.known[0]}: made with other settings, or by an older saemake"
            return
    for job in behind:
        if job.runs:
            yield f"a run would {short(job.message())}, whose files are missing or out of date"
            return


def _differing(config: Config, behind: Sequence[Job]) -> Iterator[str]:
    """The differing fields of recipes, each once, with the names of their recipes."""
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
    """The artifacts in a folder, and reasons for those that the config does not name."""
    named: list[str] = []
    unnamed: dict[str, list[str]] = {}
    for path in _artifacts(Path(folder)):
        try:
            parse(config, path)
            named.append(path)
        except SaemakeError as error:
            unnamed.setdefault(str(error).removeprefix(f"{path}: "), []).append(path)
    return named, [
        f"not of this config: {first}{f' and {len(others)} more' if others else ''}: {why}"
        for why, (first, *others) in unnamed.items()
    ]


def _artifacts(folder: Path) -> list[str]:
    """The files in a folder that are artifacts. Hidden files are none, nor are shards, which belong
    to their manifest."""
    files_ = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        str(path)
        for path in files_
        if not any(part.startswith(".") for part in path.parts)
        and not (path.name.startswith("shard_") and (path.parent / "manifest.json").exists())
    ]


def _reasons(config: Config, job: Job) -> Iterator[str]:
    """The reasons of one job by itself, not of the jobs before it. Recipes are left out."""
    yield from (f"{file} does not exist{_how(config, file)}" for file in job.missing)
    yield from (f"{file} was not finished: its job was interrupted" for file in job.incomplete)
    yield from _grouped(dict(_made_beside(config, job)) or dict(_inputs(job)))
    for file in job.known:
        yield from _damage(config, file, job)
    yield from (f"{file} is younger than a file that was made from it" for file in job.newer)


def _grouped(change_of: dict[str, str]) -> Iterator[str]:
    """One line per change, with the files that it is about."""
    files_of: dict[str, list[str]] = {}
    for file, change in change_of.items():
        files_of.setdefault(change, []).append(file)
    for change, files_ in files_of.items():
        more = f" and {len(files_) - 1} more" if len(files_) > 1 else ""
        yield f"{files_[0]}{more}: made {change}"


def _how(config: Config, file: str) -> str:
    """A clause on how a run makes a missing SAE."""
    if PurePosixPath(file).name not in SAE_FILES or not file.startswith("results/"):
        return ""
    for by in recipes_of(config, file).values():
        stored = Store(STORE, "saes").holds(by.hash)
        return "; the store has it: a run links it" if stored else "; a run trains it"
    return ""


def _made_beside(config: Config, job: Job) -> Iterator[tuple[str, str]]:
    """Each file whose job would now make other things beside it, and the change."""
    now = {name: by.hash for file in job.outputs for name, by in recipes_of(config, file).items()}
    for file in job.known:
        record = made.read(file)
        if record is not None and (changed := _changed(*_apart(record.job, now))):
            yield file, changed


def _apart(before: dict[str, str], now: dict[str, str]) -> tuple[set[str], set[str]]:
    """The names that only one side has. A name whose recipe the other side has under another name
    does not count."""
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
    """Reasons if a file is not as its job wrote it, or its inputs are not as its job read them."""
    record = made.read(file)
    written = record.sha256 if record else _carried_sum(Path(file))
    if written is not None and Path(file).is_file() and (actual := _sum(file)) != written:
        yield (
            f"{file} is damaged or edited: its sha256 is {actual[:16]}..., its job wrote"
            f" {written[:16]}...; {build_again(file)}"
        )
    if PurePosixPath(file).name == "manifest.json":
        yield from _damaged_shards(Path(file))
    for read, was in (record.inputs if record else _carried_inputs(config, Path(file))).items():
        if read not in job.newer and Path(read).is_file() and _sum(read) != was:
            gone = "" if Path(file).is_file() else ", and is gone"
            yield f"{file} was made from another {read}{gone}"


def _carried_sum(path: Path) -> str | None:
    """For an ae.pt without a record, its sha256 from provenance.json."""
    if path.name != "ae.pt" or not (path.parent / "provenance.json").exists():
        return None
    try:
        return files.read_provenance(path.parent)["ae_sha256"]
    except SaemakeError:
        return "nothing that can be read"


def _carried_inputs(config: Config, path: Path) -> dict[str, str]:
    """For an evaluation without a record, the ae.pt that its rows judge, and its sha256."""
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
    """Reasons for the shards that do not match their manifest."""
    try:
        shards = {s["file"]: s["sha256"] for s in json.loads(manifest.read_text())["shards"]}
    except (OSError, ValueError, LookupError, TypeError):
        return  # the manifest is damaged, which `_damage` reports
    for name, was in shards.items():
        shard = manifest.parent / name
        if not shard.is_file() or _sum(str(shard)) != was:
            yield f"{shard} is damaged or gone; delete {manifest} and run"


@functools.cache
def _sum(path: str) -> str:
    return sha256(Path(path))
