"""An evaluation of SAE Bench over a sweep of six SAEs: by the workflow, and by six calls of SAE
Bench's own `run_eval` from scratch, as its scripts make them.

    PYTHONPATH=tests .venv/bin/python benchmarks/sae_bench.py [--evaluation sae_bench_sae_probes]

The six top_k SAEs of the demo, which are trained first if --folder has none. Both sides start with
the SAEs and the LM's files, and nothing that SAE Bench makes of them. Ours is one snakemake command
with all that it starts; the peer's are six processes, each with its own cache, one after the other.
One thread each.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peers
from conftest import CONFIG_FILE, PROJECT, raw_config
from measurements import Table, add_into, folder_of

from saemake.config.checks import read
from saemake.config.config import Config
from saemake.evaluation import by_sae_bench
from saemake.judging.worker import Worker, lay_out_sae
from saemake.llm.weights import Weights
from saemake.paths.judged_by import short_name, transformer_lens_name

MODEL, LAYER, WIDTH = "demo", 3, "1k"
SWEEP = f"results/{MODEL}/L{LAYER}/top_k/{WIDTH}"
BY_HAND = PROJECT / "tests" / "acceptance" / "call_sae_bench.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluation", default="sae_bench_sae_probes")
    parser.add_argument("--folder", type=Path, help="where the sweep is, or is trained")
    add_into(parser)
    chosen = parser.parse_args()
    config = read(raw_config(), PROJECT, [CONFIG_FILE])
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "project"
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"k_{k}" for k in config.settings_of(MODEL, "top_k").sweep]
        snakemake(folder, f"{SWEEP}/{names[0]}/ae.pt", f"{SWEEP}/{names[-1]}/ae.pt")
        forget(folder, chosen.evaluation)
        ours, jobs = timed_ours(folder, f"{SWEEP}/{names[0]}/{chosen.evaluation}.json")
        theirs = [
            by_hand(config, chosen.evaluation, folder / SWEEP / name, Path(temporary) / name)
            for name in names
        ]
    row = {
        "evaluation": chosen.evaluation,
        "lm": MODEL,
        "saes": len(names),
        "ours_s": round(ours, 1),
        **jobs,
        "peer_s": round(sum(theirs), 1),
        "peer_each_s": round(sum(theirs) / len(theirs), 1),
        "ratio": round(sum(theirs) / ours, 2),
    }
    print(json.dumps(row, indent=1))
    Table("sae_bench", folder_of(chosen)).append(row)


def snakemake(folder: Path, *targets: str) -> str:
    """Run it, and return what it said."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("snakemake")),
            *targets,
            "--cores=1",
            f"--snakefile={PROJECT / 'Snakefile'}",
            f"--workflow-profile={PROJECT / 'profiles' / 'default'}",
        ],
        cwd=folder,
        env={**os.environ, "SAEMAKE_SAE_BENCH_PYTHON": str(peers.SAE_BENCH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return done.stdout


def forget(folder: Path, evaluation: str) -> None:
    """Remove what an evaluation left."""
    for kind in ("setups", "evaluations"):
        shutil.rmtree(folder / "results/.store" / kind, ignore_errors=True)
    shutil.rmtree(folder / f"results/{MODEL}/L{LAYER}/setups", ignore_errors=True)
    for path in (folder / SWEEP).glob(f"*/{evaluation}*"):
        path.unlink()


def timed_ours(folder: Path, target: str) -> tuple[float, dict[str, float]]:
    """Seconds of the command, and of its two jobs."""
    started = time.monotonic()
    snakemake(folder, target)
    seconds = time.monotonic() - started
    logs = folder / "logs"
    evaluation = Path(target).stem
    (setup,) = (logs / "setups").rglob(f"{evaluation}_seed_*.log")
    (judged,) = (logs / "evaluate").rglob(f"*_{evaluation}.log")
    times = [stamp(line) for line in judged.read_text().splitlines() if "worker: judged" in line]
    made = [stamp(line) for line in setup.read_text().splitlines() if "worker:" in line]
    each = (times[-1] - times[0]) / (len(times) - 1)
    return seconds, {
        "ours_setup_s": round(made[-1] - made[0], 1) if made else 0.0,
        "ours_each_more_s": round(each, 1),
    }


def stamp(line: str) -> float:
    """Seconds of a log line's time of day."""
    clock = line.split()[1].replace(",", ".")
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def by_hand(config: Config, evaluation: str, sae: Path, work: Path) -> float:
    """Seconds of one call from scratch."""
    described, settings = by_sae_bench(evaluation), config.sae_bench_of(MODEL, evaluation)
    lm_name, lm = transformer_lens_name(config, MODEL), config.models[MODEL]
    work.mkdir()
    weights = Weights(MODEL, config.path_of(lm), None, lm.dtype)
    Worker(PROJECT, peers.SAE_BENCH, work).serve(lm_name, weights, None)
    lay_out_sae(sae, "ae.pt", work / "sae", lm_name)
    said: dict[str, Any] = settings.recorded()
    if described.has_dtype:
        said["llm_dtype"] = lm.dtype
    job = {
        "evaluation": described.worker,
        "settings": {key: value for key, value in said.items() if value is not None},
        "model": short_name(lm_name),
        "layer": LAYER,
        "d_model": 128,
        "device": "cpu",
        "threads": 1,
        "saes": [str(work / "sae")],
        "setup": str(work / "none"),
        "data": {},
        "work": str(work),
    }
    (work / "job.json").write_text(json.dumps(job))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    started = time.monotonic()
    subprocess.run(
        [str(peers.SAE_BENCH), str(BY_HAND), str(work / "job.json")],
        cwd=work,
        env={**os.environ, **threads, "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - started


if __name__ == "__main__":
    main()
