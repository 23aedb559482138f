"""The two stages of a job: the setup, and the judging of each SAE by itself."""

import contextlib
import dataclasses
import importlib
import json
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm
import torch
from calling import UnjudgeableError
from job import Job, read, seed_everything
from saes import load

MODULES = {
    "absorption": "absorption",
    "autointerp": "autointerp",
    "ravel": "ravel",
    "scr": "scr_and_tpp",
    "tpp": "scr_and_tpp",
    "sparse_probing": "sparse_probing",
    "sae_probes": "probes",
    "unlearning": "unlearning",
}
# What else is in SAE Bench's files says when and where a call was made.
PARTS = {
    "metrics": "eval_result_metrics",
    "details": "eval_result_details",
    "unstructured": "eval_result_unstructured",
    "by_k": "sae_metrics_by_k",
}


def run(path: Path, stage: str) -> None:
    """Run a stage, `setup` or `judge`, of the job in a file. Where it fails, the last line of
    stderr says why, and the exit status is 1."""
    job = read(path)
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    module = importlib.import_module(MODULES[job.evaluation])
    lm.load_once()
    try:
        _check(job)
        if stage == "setup":
            set_up(module, job)
        else:
            judge_all(module, job)
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"saemake: SAE Bench's {job.evaluation}: {_in_one_line(error)}")


def _check(job: Job) -> None:
    """Raises ValueError where the environment has other versions than the job's."""
    for name, wanted in job.software.items():
        found = version(name).partition("+")[0]  # without the part that names a build
        if found != wanted:
            raise ValueError(f"its environment has {name} {found}, not the {wanted} of its pins")


def set_up(module: Any, job: Job) -> None:
    """Set up in a folder beside the setup's, which then takes its place."""
    job.setup.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{job.setup.name}-", dir=job.setup.parent))
    try:
        with _folder_of_its_own(job) as own:
            seed_everything(job.seed)
            module.setup(dataclasses.replace(own, setup=new))
        new.chmod(0o755)
        new.rename(job.setup)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def judge_all(module: Any, job: Job) -> None:
    """Judge each SAE. Raises FileNotFoundError where nothing was set up."""
    if not job.setup.is_dir():
        raise FileNotFoundError(f"{job.setup}: nothing is set up; run the stage setup before")
    for path in job.work.glob("[0-9]*.json"):
        path.unlink()
    for index, folder in enumerate(job.saes):
        with _folder_of_its_own(job) as own:
            content = _judged(module, own, folder)
        new = job.work / f".{index}.json"
        new.write_text(dumped(content))
        new.replace(job.work / f"{index}.json")
        print(f"judged {index}", flush=True)


@contextlib.contextmanager
def _folder_of_its_own(job: Job) -> Iterator[Job]:
    """The job with an empty folder to work in. SAE Bench also writes into the current folder."""
    with tempfile.TemporaryDirectory(dir=job.work) as folder, contextlib.chdir(folder):
        yield dataclasses.replace(job, work=Path(folder))


@contextlib.contextmanager
def _unchanged(folder: Path) -> Iterator[None]:
    """Raises RuntimeError if the block made or changed a file. SAE Bench makes what it lacks, with
    random numbers that the SAE should have had."""
    before = _listed(folder)
    yield
    if changed := sorted(_listed(folder).items() - before.items()):
        for name, _ in changed:
            (folder / name).unlink()
        raise RuntimeError(f"the setup in {folder} lacks {changed[0][0]}; set up again")


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def _judged(module: Any, job: Job, folder: Path) -> dict[str, Any]:
    try:
        sae = load(job, folder)
        seed_everything(job.seed)
        with _unchanged(job.setup):
            content = json.loads(module.judge(job, sae).read_text())
        if not _figures(content[PARTS["metrics"]]):
            raise UnjudgeableError("none of its figures is defined")
    except UnjudgeableError as error:
        return {"undefined": _said(error)}
    except Exception as error:  # another SAE may be judged none the less
        traceback.print_exc()
        return {"error": f"{folder}: {_in_one_line(error)}"}
    return {part: content[key] for part, key in PARTS.items() if content.get(key) is not None}


def _figures(metrics: Any) -> list[float]:
    """The defined figures of the SAE: those of the LM itself are beside them, under `llm`."""
    if isinstance(metrics, dict):
        parts = (part for name, part in metrics.items() if name != "llm")
        return [figure for part in parts for figure in _figures(part)]
    return [metrics] if isinstance(metrics, float) and math.isfinite(metrics) else []


def _in_one_line(error: Exception) -> str:
    """What went wrong. A bare assertion says nothing: then the line of code that made it."""
    said = _said(error)
    code = traceback.extract_tb(error.__traceback__)[-1].line
    return f"{type(error).__name__}: {said or code}"


def _said(error: Exception) -> str:
    lines = str(error).splitlines()
    return "; ".join(line.strip() for line in lines[:3] if line.strip())


def dumped(content: Any) -> str:
    """JSON, with null for what is not finite."""
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """NaN and infinities as null: SAE Bench writes bare NaN, which is no JSON."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
