"""An RO-Crate of built files: they, all that they were made from up to the model and the text, and
ro-crate-metadata.json, which says how. The same bytes for the same files, records and saemake.

It follows the profile Provenance Run Crate 0.5: each job is a CreateAction of its rule's script.
No OrganizeAction says which run of Snakemake a job was part of, since nothing records that.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from saemake.base import source
from saemake.base.errors import SaemakeError, build_again
from saemake.base.store import sha256
from saemake.base.version import __version__
from saemake.config.config import Config
from saemake.paths.names import PUBLISHED, RESULTS, SAE_FILES
from saemake.publishing import crate_graph, crate_sources
from saemake.publishing.crate_graph import Graph, Ref, fragment, leaves, local, named
from saemake.records import made
from saemake.records.made import By, Made
from saemake.training import files

LICENCE, SNAKEFILE = "LICENSE", "Snakefile"
SCRIPTS, RULES = "workflow/scripts", "workflow/rules"
SNAKEMAKE = "https://snakemake.github.io"
RECIPES = "recipes"
# Endings of files with weights.
WEIGHTS = {".pt", ".safetensors"}
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
COMPLETED = "http://schema.org/CompletedActionStatus"
README = "README.md"
ABOUT = """# {name}

{description}

An RO-Crate (https://w3id.org/ro/crate/1.1), made by saemake {version}. {metadata} says which job
made which file from which others, with what software, and when. Paths are those in the folder that
the files were built in. `recipes/` has all settings of each file that was computed.
"""


@dataclasses.dataclass(frozen=True)
class JobDone:
    """A job that has made files of a crate. `needed` are the outputs that the crate needs, `script`
    is the name of its rule's script. The times are seconds since 1970; None if not recorded."""

    rule: str
    script: str
    outputs: list[str]
    needed: list[str]
    started: float | None
    ended: float | None

    @property
    def packed(self) -> list[str]:
        """The outputs that a crate has: those that it needs, and all files of an SAE of which it
        needs one."""
        saes = {
            str(PurePosixPath(file).parent)
            for file in self.needed
            if file.startswith(f"{RESULTS}/") and PurePosixPath(file).name in SAE_FILES
        }
        of_saes = {f"{folder}/{name}" for folder in saes for name in SAE_FILES}
        return [file for file in self.outputs if file in of_saes or file in self.needed]

    @property
    def id_(self) -> str:
        return fragment("job", self.outputs[0])


@dataclasses.dataclass(frozen=True)
class Item:
    """A file of a crate: where its bytes are, and their sha256 and number."""

    content: Path | bytes
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class Crate:
    """The files of a crate by their paths in it, ro-crate-metadata.json included."""

    items: dict[str, Item]


def crate_of(
    config: Config, targets: Sequence[str], jobs: Sequence[JobDone], *, weights: bool = True
) -> Crate:
    """The crate of files. `jobs` are the jobs that made them and all that they were made from, in
    order. Without `weights`, weights that are not targets are named with their checksums, as those
    of published SAEs always are. Raises SaemakeError if a file has no record, or is not as its
    record says."""
    return _Making(config, targets, jobs, weights).made()


class _Making:
    def __init__(
        self, config: Config, targets: Sequence[str], jobs: Sequence[JobDone], weights: bool
    ) -> None:
        self.weights = weights
        self.config, self.targets = config, sorted(set(targets))
        self.graph = Graph()
        self.items: dict[str, Item] = {}
        self.records = {
            path: _record(path) for job in jobs for path in job.packed if Path(path).is_file()
        }
        # The others made files that are gone.
        self.jobs = [job for job in jobs if self._at_hand(job.packed)]
        self.external: dict[str, Ref] = {}

    def made(self) -> Crate:
        self._describe_code()
        for path in self.records:
            if self._left_out(path):
                crate_sources.left_out(self.graph, path, self.records[path].sha256)
            else:
                self._describe_file(path)
        actions = [self._describe_job(job) for job in self.jobs]
        self._describe_workflow(actions)
        document = self.graph.document()
        item = Item(document, hashlib.sha256(document).hexdigest(), len(document))
        return Crate(dict(sorted({**self.items, crate_graph.METADATA: item}.items())))

    def _at_hand(self, paths: Sequence[str]) -> list[str]:
        return [path for path in paths if path in self.records]

    def _left_out(self, path: str) -> bool:
        """Whether a file at hand is only named."""
        published = path.startswith(f"{PUBLISHED}/")
        is_weights = PurePosixPath(path).suffix in WEIGHTS
        return is_weights and path not in self.targets and (published or not self.weights)

    def _ref(self, path: str) -> Ref:
        return {"@id": fragment("file", path) if self._left_out(path) else local(path)}

    def _put(self, path: str, content: Path | bytes, sum_: str, **properties: Any) -> Ref:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.items[path] = Item(content, sum_, size)
        return self.graph.file(path, sum_, size, **properties)

    # The workflow's own files, as they are now.

    def _describe_code(self) -> None:
        self._code(LICENCE)
        for rules in sorted((source.ROOT / RULES).glob("*.smk")):
            self._code(f"{RULES}/{rules.name}", license={"@id": LICENCE})
        self.commit = _commit(source.describe())
        for script in sorted({job.script for job in self.jobs}):
            self._code(
                f"{SCRIPTS}/{script}",
                type_=["File", "SoftwareSourceCode"],
                license={"@id": LICENCE},
                version=self.commit,
            )

    def _code(self, path: str, **properties: Any) -> Ref:
        file = source.ROOT / path
        return self._put(path, file, sha256(file), **properties)

    # What was built.

    def _describe_file(self, path: str) -> None:
        record = self.records[path]
        recipes = sorted({by.hash for by in record.recipes.values()})
        self._put(
            path,
            Path(path),
            record.sha256,
            license=self._licence_of_results(),
            isBasedOn=[{"@id": _recipe_file(hash_)} for hash_ in recipes],
        )

    def _licence_of_results(self) -> Ref:
        return self.graph.licence(self.config.publishing.license, "config key 'publishing.license'")

    def _describe_job(self, job: JobDone) -> Ref:
        packed = self._at_hand(job.packed)
        records = {path: self.records[path] for path in packed}
        objects = [
            *self._inputs(job, records),
            *itertools.chain.from_iterable(map(self._recipe, _recipes(records))),
        ]
        results = [self._ref(path) for path in packed]
        for path, record in records.items():
            before = crate_sources.made_from(self.graph, self.config, path, record)
            shards = path.endswith("/manifest.json")
            self.external |= {ref["@id"]: ref for ref in before}
            objects += before
            if shards:
                results += crate_sources.read_with(self.graph, self.config, path, record)
        software, circumstances = self._circumstances(packed)
        step = self._step(job)
        action = self.graph.add(
            job.id_,
            "CreateAction",
            name=f"{PurePosixPath(job.script).stem}: {named(packed)}",
            description=(
                "One job of Snakemake. "
                + (
                    "Its versions of software are those that its outputs state."
                    if software
                    else "Its versions of software are not recorded."
                )
            ),
            actionStatus=COMPLETED,
            startTime=_time(job.started),
            endTime=_time(job.ended),
            instrument=[{"@id": f"{SCRIPTS}/{job.script}"}, *software],
            object=[*objects, *circumstances],
            result=results,
        )
        self.graph.add(
            fragment("control", job.outputs[0]),
            "ControlAction",
            name=f"orchestrate {PurePosixPath(job.script).stem}: {named(packed)}",
            instrument=step,
            object=action,
        )
        return action

    def _step(self, job: JobDone) -> Ref:
        return self.graph.add(
            fragment("step", job.rule),
            "HowToStep",
            name=f"rule {job.rule}",
            workExample={"@id": f"{SCRIPTS}/{job.script}"},
        )

    def _inputs(self, job: JobDone, records: Mapping[str, Made]) -> Iterator[Ref]:
        """The inputs of a job, with what is read beside them and not packed."""
        sums: dict[str, str] = {}
        for record in records.values():
            sums |= record.inputs
        for path in sorted(sums):
            if path not in self.records:
                yield crate_sources.left_out(self.graph, path, sums[path])
                continue
            yield self._ref(path)
            record = self.records[path]
            yield from crate_sources.read_with(self.graph, self.config, path, record)

    def _recipe(self, named_recipe: tuple[str, By]) -> Iterator[Ref]:
        """A recipe as a file, its hash, and its settings."""
        name, by = named_recipe
        content = (json.dumps(by.recipe, indent=1, sort_keys=True) + "\n").encode()
        yield self._put(
            _recipe_file(by.hash),
            content,
            hashlib.sha256(content).hexdigest(),
            description=f"the recipe of {name}",
            identifier=by.hash,
            license=self._licence_of_results(),
        )
        yield self.graph.value("recipe hash", by.hash)
        for key, value in leaves(by.recipe):
            yield self.graph.value(key, value)

    def _circumstances(self, packed: Sequence[str]) -> tuple[list[Ref], list[Ref]]:
        """The software that files say they were made with, and other circumstances: the device, and
        saemake's commit."""
        software: list[Ref] = []
        others: list[Ref] = []
        for path in packed:
            for said in _said_of(path):
                versions = (said.get("software") or {}).items()
                software += [self.graph.software(*each) for each in versions if each[1]]
                if device := said.get("device"):
                    others.append(self.graph.value("device", device))
                for git in said.get("git") or []:
                    if commit := _commit(git):
                        others.append(self.graph.value("saemake's commit", commit))
        return software, others

    # The crate as a whole.

    def _describe_workflow(self, actions: list[Ref]) -> None:
        run = self._describe_run()
        scripts = sorted({job.script for job in self.jobs})
        steps = sorted({job.rule for job in self.jobs})
        snakefile = source.ROOT / SNAKEFILE
        self._put(
            SNAKEFILE,
            snakefile,
            sha256(snakefile),
            type_=["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            description="saemake's workflow, as it was when the crate was made",
            version=self.commit,
            license={"@id": LICENCE},
            programmingLanguage=self.graph.add(
                LANGUAGE,
                "ComputerLanguage",
                name="Snakemake",
                identifier={"@id": SNAKEMAKE},
                url={"@id": SNAKEMAKE},
            ),
            hasPart=[{"@id": f"{SCRIPTS}/{script}"} for script in scripts],
            step=[{"@id": fragment("step", rule)} for rule in steps],
        )
        self._describe_root([run, *actions])

    def _describe_run(self) -> Ref:
        """The action that stands for all jobs together."""
        starts = [job.started for job in self.jobs if job.started is not None]
        return self.graph.add(
            "#workflow-run",
            "CreateAction",
            name=f"make {named(self.targets)}",
            description=(
                "All jobs behind the targets, which may have been part of several runs of"
                " Snakemake."
            ),
            actionStatus=COMPLETED,
            startTime=_time(min(starts, default=None)),
            endTime=_time(self._ended()),
            instrument={"@id": SNAKEFILE},
            object=list(self.external.values()),
            result=[{"@id": local(path)} for path in self.targets],
        )

    def _ended(self) -> float | None:
        return max((job.ended for job in self.jobs if job.ended is not None), default=None)

    def _describe_root(self, actions: list[Ref]) -> None:
        graph = self.graph
        # Where Snakemake's notes are gone, the files' own times are what there is.
        built = self._ended() or max(Path(path).stat().st_mtime for path in self.targets)
        profiles = [
            graph.add(id_, "CreativeWork", name=name, version=version)
            for id_, (name, version) in crate_graph.PROFILES.items()
        ]
        graph.add(
            crate_graph.METADATA,
            "CreativeWork",
            about={"@id": crate_graph.ROOT},
            conformsTo=[{"@id": crate_graph.SPECIFICATION}, {"@id": crate_graph.WORKFLOW_CRATE}],
        )
        name = f"saemake: {named(self.targets)}"
        description = (
            f"{named(self.targets)}, built by saemake, with the files and recipes that it was made"
            " from. Weights of the language model, texts and tokens are named with their checksums,"
            " and not in the crate."
        )
        self._describe_readme(name, description)
        data = [
            {"@id": id_}
            for id_, entity in graph.entities.items()
            if "File" in entity["@type"] or entity["@type"] == "Dataset"
        ]
        graph.add(
            crate_graph.ROOT,
            "Dataset",
            name=name,
            description=description,
            datePublished=_time(built),
            license=self._licence_of_results(),
            conformsTo=profiles,
            mainEntity={"@id": SNAKEFILE},
            hasPart=data,
            mentions=actions,
        )

    def _describe_readme(self, name: str, description: str) -> None:
        content = ABOUT.format(
            name=name,
            description=description,
            version=__version__,
            metadata=crate_graph.METADATA,
        ).encode()
        self._put(
            README,
            content,
            hashlib.sha256(content).hexdigest(),
            about={"@id": crate_graph.ROOT},
            license={"@id": LICENCE},
        )


def _record(path: str) -> Made:
    record = made.read(path)
    if record is None:
        raise SaemakeError(
            f"{path} has no record of what it was made from: an older saemake made it, or its"
            f" record was deleted; {build_again(path)}"
        )
    return record


def _recipe_file(hash_: str) -> str:
    return f"{RECIPES}/{hash_}.json"


def _recipes(records: Mapping[str, Made]) -> list[tuple[str, By]]:
    """The recipes of files, each hash once, with the first name that has it."""
    every = sorted((name, by.hash, by) for r in records.values() for name, by in r.recipes.items())
    return list({hash_: (name, by) for name, hash_, by in reversed(every)}.values())[::-1]


def _said_of(path: str) -> Iterator[Mapping[str, Any]]:
    """What a file says of the software and the device that made it: provenance.json of an SAE, and
    the rows of an evaluation of SAE Bench."""
    name = PurePosixPath(path).name
    if name == "provenance.json":
        yield files.read_provenance(Path(path).parent)
    elif name.startswith("sae_bench_") and name.endswith(".json"):
        content = json.loads(Path(path).read_text())
        for row in content if isinstance(content, list) else []:
            yield from row.get("evaluations", {}).values()


def _commit(git: Mapping[str, str | bool] | None) -> str | None:
    """A commit in words; None if it is not known."""
    return None if git is None else f"{git['commit']}{'' if git['clean'] else ' and changes'}"


def _time(seconds: float | None) -> str | None:
    """A time in UTC by ISO 8601, to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()
