"""Print what targets would cost: SAEs to train, operations, memory, disk, downloads. Runs nothing.

With --device, also hours on that device. Without a target: the cost of a plain `snakemake`. Results
in the store cost nothing, except for starting the jobs that link them. Uses no network.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saemake.base.errors import SaemakeError, nearest
from saemake.commands import dry_run, targets
from saemake.config.config import Config
from saemake.config.sections import Device
from saemake.llm.cost import NOTHING, Operations
from saemake.paths.artifacts import CheckpointsFile, HubFile, HubFolder, SaeFile
from saemake.paths.files import hub_folder_files
from saemake.paths.folders import ALL
from saemake.paths.grammar import parse, saes_of
from saemake.paths.names import STORE
from saemake.plan.totals import Plan, plan

# The stages whose jobs import torch and load an LM. HEAVY_S and LIGHT_S are the seconds that a job
# of these and of other stages takes besides its work: starting Python, imports, loading, and
# Snakemake's own part. Measured on two cores of an AMD EPYC (docs/benchmarks.md).
HEAVY = (
    *("model", "tokens", "train", "baselines", "evaluate", "evaluate_baselines"),
    *("features", "evaluate_checkpoints", "published", "compare", "saelens", "set_up", "sae_bench"),
)
HEAVY_S, LIGHT_S = 4.0, 1.0
# Artifacts of SAEs by their names.
OF_SAES = (SaeFile, CheckpointsFile, HubFile, HubFolder)
MEMORY = ("on_gpu", "on_other_gpus", "on_cpu")
UNITS = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="*", help="of `saemake build`, under results/ or hub/")
    parser.add_argument("--device", metavar="NAME", help="hours on it; one of the config's devices")
    parser.add_argument("--json", action="store_true", help="the same as JSON, in bytes and FLOPs")


def run(config: Config, options: argparse.Namespace) -> int:
    device = None
    if options.device is not None:
        if options.device not in config.devices:
            known = nearest(options.device, config.devices)
            raise SaemakeError(f"no device '{options.device}' in the config; {known}")
        device = config.devices[options.device]
    asked = _asked(config, options.target, options.here)
    made = plan(config, asked, STORE)
    started = _processes(config, options.configfile, asked)
    if options.json:
        print(json.dumps(as_json(made, device, started), indent=1))
    else:
        lines = _lines(made, device, options.device, started)
        lines += [*_dropped(config, made), *_together(config, asked, made)]
        print("\n".join([*lines, *([] if device else _without_hours(config, made))]))
    return 0


def _asked(config: Config, words: Sequence[str], here: Path) -> list[str]:
    """The files that the words name; without words those of a plain run."""
    paths = [targets.path_of(config, word, here, Path.cwd()) for word in words] or [ALL]
    return list(dict.fromkeys(file for path in paths for file in targets.files_of(config, path)))


@dataclass(frozen=True)
class Processes:
    """The jobs that snakemake would run, also those that only link: with torch and an LM, and
    without."""

    heavy: int
    light: int

    @property
    def hours(self) -> float:
        return (HEAVY_S * self.heavy + LIGHT_S * self.light) / 3600


def _processes(config: Config, config_files: Sequence[Path], asked: Sequence[str]) -> Processes:
    files = [file for target in asked for file in _files(config, target)]
    try:
        jobs = dry_run.jobs(config_files, files)
    except OSError as error:  # snakemake writes notes under .snakemake
        print(f"saemake: start-up is not counted: {error}", file=sys.stderr)
        return Processes(0, 0)
    stages = [job.rule.partition("__")[0] for job in jobs if job.runs]
    heavy = sum(stage in HEAVY for stage in stages)
    return Processes(heavy, len(stages) - heavy)


def _files(config: Config, target: str) -> list[str]:
    """The target itself, or the files in it if it is a folder under hub/."""
    artifact = parse(config, target)
    if isinstance(artifact, HubFolder):
        return hub_folder_files(config, artifact.folder)
    return [str(artifact)]


def as_json(made: Plan, device: Device | None, started: Processes) -> dict[str, Any]:
    """The plan as plain values: FLOPs, bytes, hours."""
    largest = {
        place: {"job": job.name, "bytes": getattr(job.memory, place)}
        for place in ("on_gpu", "on_cpu")
        if (job := made.largest(on_gpu=place == "on_gpu"))
    }
    disk, download = made.disk, made.download
    hours = made.hours_by_stage(device) | {"start-up": started.hours} if device else {}
    return {
        "saes_to_train": [str(sae) for saes in made.work.train.values() for sae in saes],
        "passes": [list(map(str, each.saes)) for each in made.passes],
        "unshared_lm_flops": made.unshared_lm,
        "judged_together": [
            {"evaluation": each.first.evaluation, "of": [str(job.subjects) for job in each.jobs]}
            for each in made.together
            if each.shared
        ],
        "unshared_judging_lm_flops": made.unshared_judging,
        "saes_in_store": [str(sae) for sae in made.work.stored],
        "tokens_to_tokenise": made.tokens,
        "text_known": made.known,
        "flops": {stage: vars(flops) for stage, flops in made.by_stage().items()},
        "jobs": [
            {"stage": job.stage, "job": job.name, "flops": vars(job.operations)}
            | {"memory": {key: getattr(job.memory, key) for key in MEMORY}}
            | ({"hours": job.hours(device)} if device else {})
            for job in made.jobs
        ],
        "largest_job": largest,
        "processes": vars(started),
        "disk": {**vars(disk), "total": disk.total},
        "download": vars(download),
        "setups": [str(setup) for setup in made.work.set_up],
        "judge": vars(made.judge),
        "hours": hours and {**hours, "total": sum(hours.values())},
    }


def _lines(made: Plan, device: Device | None, name: str | None, started: Processes) -> list[str]:
    rows = [*_saes(made), *_tokens(made), *_sae_bench(made), *_operations(made)]
    rows += [*_memory(made, device), *_disk(made), *_download(made)]
    if device is not None and name is not None:
        rows += _hours(made, device, name, started)
    return [f"{label:<22}{text}" for label, text in rows]


def _saes(made: Plan) -> list[tuple[str, str]]:
    trained = sum(map(len, made.work.train.values()))
    passes = f" in {_count(len(made.passes), 'pass')}" if made.passes else ""
    shared = [each for each in made.passes if each.shared]
    return [
        ("SAEs to train", f"{trained}{passes}"),
        *(("", f"{_count(len(each.saes), 'SAE')} of {each}") for each in shared),
        *zip(("sharing saves", ""), _saved(made), strict=False),
        ("SAEs in the store", str(len(made.work.stored))),
    ]


def _saved(made: Plan) -> Iterator[str]:
    """What SAEs of several jobs save that train, or are judged, in one run of the LM."""
    if any(each.shared for each in made.passes):
        apart = _count(len(made.work.train), "pass")
        yield _less(made.unshared_lm, _lm(made, "training"), apart)
    if any(each.shared for each in made.together):
        apart = _count(sum(len(each.jobs) for each in made.together), "evaluation")
        yield _less(made.unshared_judging, _lm(made, "evaluation"), apart)


def _lm(made: Plan, stage: str) -> int:
    return sum(job.operations.lm for job in made.jobs if job.stage == stage)


def _less(before: int, after: int, apart: str) -> str:
    return f"LLM {_flop(before - after)} of {_flop(before)}, of {apart} apart"


def _dropped(config: Config, made: Plan) -> list[str]:
    """A line per model whose training leaves out positions."""
    models = dict.fromkeys(trained.model for trained in made.work.train)
    drops = {model: config.training_of(model).drop for model in models}
    return [f"{'not trained on':<22}{model}: {d.in_words}" for model, d in drops.items() if d.on]


def _together(config: Config, asked: Sequence[str], made: Plan) -> list[str]:
    """A line on SAEs that train although only others of their sweeps are asked for."""
    if not all(isinstance(parse(config, file), OF_SAES) for file in asked):
        return []
    named = {sae for file in asked for sae in saes_of(config, file)}
    others = sum(sae not in named for saes in made.work.train.values() for sae in saes)
    if not others:
        return []
    why = "a sweep trains together, since its SAEs share the LM's pass"
    return [f"{'trained beside':<22}{_count(others, 'SAE')} not asked for: {why}"]


def _without_hours(config: Config, made: Plan) -> list[str]:
    """A line that says how to get hours."""
    if not made.jobs or not config.devices:
        return []
    return [f"{'time':<22}add --device NAME for hours: {', '.join(config.devices)}"]


def _tokens(made: Plan) -> list[tuple[str, str]]:
    return [("tokens to make", f"{name}: about {tokens:,}") for name, tokens in made.tokens.items()]


def _sae_bench(made: Plan) -> list[tuple[str, str]]:
    """What SAE Bench's own code does, and what a judge costs."""
    judged = sum(job.stage == "SAE Bench" for job in made.jobs)
    if not judged and not made.work.set_up:
        return []
    setups = _count(len(made.work.set_up), "setup")
    rows = [("SAE Bench's own code", f"{setups}, {_count(judged, 'job')} that judge")]
    if made.judge.questions:
        cost = f"{made.judge.questions:,} questions, about ${made.judge.dollars:,.2f}"
        rows.append(("judges", cost))
    return rows


def _operations(made: Plan) -> list[tuple[str, str]]:
    about = "" if made.known else "about "
    stages = {stage: done for stage, done in made.by_stage().items() if done != NOTHING}
    rows = [(stage, f"{about}{_parts(operations)}") for stage, operations in stages.items()]
    total = sum(stages.values(), NOTHING)
    return [*rows, ("together", f"{about}{_parts(total)}")] if len(rows) > 1 else rows


def _parts(operations: Operations) -> str:
    parts = f"LLM {_flop(operations.lm)}, SAEs {_flop(operations.saes)}"
    if operations.dead:
        parts += f" (up to {_flop(operations.dead)} more while latents are dead)"
    return parts


def _memory(made: Plan, device: Device | None) -> list[tuple[str, str]]:
    rows = []
    for place, on_gpu in (("a GPU", True), ("a CPU", False)):
        job = made.largest(on_gpu=on_gpu)
        if job is not None:
            size = job.memory.on_gpu if on_gpu else job.memory.on_cpu
            over = f" over {job.gpus} of them" if on_gpu and job.gpus > 1 else ""
            others = job.memory.on_other_gpus if on_gpu else []
            if others:
                most = _bytes(max(others))
                over += f", and the LM takes at most {most} of {_others(len(others))}"
            rows.append((f"memory on {place}", f"about {_bytes(size)}{over}: {job.name}"))
    return rows


def _others(count: int) -> str:
    return "another" if count == 1 else f"each of {count} others"


def _disk(made: Plan) -> list[tuple[str, str]]:
    parts = [f"{kind} {_bytes(size)}" for kind, size in vars(made.disk).items() if size]
    return [
        ("disk", f"about {_bytes(made.disk.total)}" + (f": {', '.join(parts)}" if parts else ""))
    ]


def _download(made: Plan) -> list[tuple[str, str]]:
    download = made.download
    rows = [
        ("download", f"{model}, at most {_bytes(size)}") for model, size in download.models.items()
    ]
    rows += [
        ("download", f"{text}, " + ("of unknown size" if size is None else f"about {_bytes(size)}"))
        for text, size in {**download.texts, **download.datasets}.items()
    ]
    return rows or [("download", "nothing")]


def _hours(made: Plan, device: Device, name: str, started: Processes) -> list[tuple[str, str]]:
    stages = made.hours_by_stage(device)
    if count := started.heavy + started.light:
        stages[f"start-up of {_count(count, 'job')}"] = started.hours
    parts = ", ".join(f"{stage} {_time(hours)}" for stage, hours in stages.items())
    total = sum(stages.values())
    rows = [(f"time on {name}", f"about {_time(total)}" + (f": {parts}" if parts else ""))]
    largest = made.largest(on_gpu=True)
    if largest and not largest.fits(device):
        rows.append(("", f"its {device.memory_gib:g} GiB do not hold {largest.name}"))
    rates = (
        f"{device.bfloat16_tflops:g} bfloat16 and {device.float32_tflops:g} float32 TFLOP/s,"
        f" {device.gigabytes_per_second:g} GB/s, {device.utilisation:.0%} of them reached"
    )
    notes = [f"({rates}; {device.source})"]
    if any(stage.startswith("SAE Bench") for stage in stages):
        notes.append("(SAE Bench: from its README's hours on an RTX 3090, in proportion)")
    return [*rows, *(("", note) for note in notes)]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


def _flop(amount: int) -> str:
    for size, unit in UNITS:
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{amount:,} FLOP"


def _bytes(amount: int) -> str:
    return f"{amount / 2**30:,.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:,.1f} MiB"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
