"""A sweep of six TopK SAEs from text to files, here and by dictionary_learning 0.1.0 driven as its
demo does: activations that SAEs were trained on, a second.

    PYTHONPATH=tests .venv/bin/python benchmarks/end_to_end.py [--cases demo ...] [--ours-only]

Ours is the snakemake command, tokens and all. Each side runs twice, for a few steps and for as many
more as half a buffer is; the figure is the difference of the two, so that neither side's start
counts, and its LM runs over about as much text as is trained on. The same text, model, context,
batches, buffer and threads.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import peers
from conftest import PROJECT, Workflow
from lms import BUFFER_TOKENS, KS, LMS, Lm
from measurements import Table, add_into, folder_of

WORKER = PROJECT / "benchmarks" / "workers" / "sweep_with_dictionary_learning.py"
TEXT = PROJECT / "resources" / "demo" / "text" / "train.jsonl.zst"
LEARNING_RATE, WARMUP_STEPS = 3e-4, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A sweep on an LM."""

    lm: Lm
    width: int
    ks: tuple[int, ...]
    batch_tokens: int

    def steps(self) -> tuple[int, int]:
        """A few, and as many more as half a buffer is."""
        return 4, 4 + BUFFER_TOKENS // 2 // self.batch_tokens


DEMO_KS = (2, 4, 8, 16, 32, 64)
CASES = {
    "demo": Case(LMS["demo"], 1024, DEMO_KS, 512),
    "smollm2": Case(LMS["smollm2"], 16_384, KS, 2048),
    "pythia-70m": Case(LMS["pythia-70m"], 16_384, KS, 2048),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def ours(case: Case, root: Path, dtype: str, steps: int, threads: int) -> float:
    """Seconds of the snakemake command for so many steps."""
    training = {
        "batch_tokens": case.batch_tokens,
        "norm_batches": 1,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP_STEPS,
        "autocast": dtype,
        "cpu_threads": threads,
    }
    model = case.lm.configured(
        root / "lm",
        train_tokens=steps * case.batch_tokens,
        training=training,
        architectures={"top_k": {"sweep": list(case.ks), "threshold_start_step": WARMUP_STEPS}},
        suite={"layers": [case.lm.layer], "architectures": ["top_k"], "widths": ["asked"]},
    )
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder))
        workflow.write({"models": {"lm": model}, "widths": {"asked": case.width}})
        sweep = f"results/lm/L{case.lm.layer}/top_k/asked"
        targets = [f"{sweep}/k_{k}/ae.pt" for k in case.ks]
        start = time.perf_counter()
        workflow.succeed(*targets, "--cores", str(threads), OMP_NUM_THREADS=str(threads))
        return time.perf_counter() - start


def library(case: Case, root: Path, dtype: str, steps: int, threads: int) -> float:
    """Seconds of dictionary_learning's script for so many steps."""
    names = ("layer", "dtype", "context_tokens", "llm_batch")
    job: dict[str, Any] = {
        **{name: getattr(case.lm, name) for name in names},
        "buffer_tokens": BUFFER_TOKENS,
        "batch_tokens": case.batch_tokens,
        "width": case.width,
        "ks": case.ks,
        "lm": str(root / "lm4"),
        "text": str(TEXT),
        "steps": steps,
        "threshold_start_step": WARMUP_STEPS,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP_STEPS,
        "autocast": dtype,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps({**job, "out": folder}))
        start = time.perf_counter()
        done = subprocess.run(
            [str(peers.DICTIONARY_LEARNING), str(WORKER), str(file)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(done.stdout)
        return time.perf_counter() - start


def measure(name: str, dtype: str, asked: argparse.Namespace) -> dict[str, Any]:
    case = CASES[name]
    few, many = case.steps()
    trained = (many - few) * case.batch_tokens * len(case.ks)
    found: dict[str, Any] = {"case": name, "autocast": dtype, "width": case.width}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case.lm.lay_out(root / "lm")
        peers.lay_out_for_transformers_4(root / "lm", root / "lm4")
        sides = {"ours": ours} if asked.ours_only else {"ours": ours, "library": library}
        for side, seconds_of in sides.items():
            first, last = (
                seconds_of(case, root, dtype, steps, asked.threads) for steps in (few, many)
            )
            found[f"{side}_first_seconds"] = first
            found[f"{side}_seconds"] = last - first
            found[f"{side}_tokens_a_second"] = trained / (last - first)
    return found


def main() -> None:
    asked = options()
    table = Table("end_to_end", folder_of(asked))
    rows = []
    print("| LM, width, SAEs' dtype | ours, tokens x SAEs / s | library's | ratio |")
    print("| --- | --- | --- | --- |")
    for name in asked.cases:
        for dtype in asked.dtypes:
            row = measure(name, dtype, asked)
            rows.append(row)
            here, there = (row.get(f"{side}_tokens_a_second") for side in ("ours", "library"))
            print(
                f"| {name}, {row['width']:,}, {dtype} | {here:,.0f} |"
                + (f" {there:,.0f} | {here / there:.1f} |" if there else " | |"),
                flush=True,
            )
            case = CASES[name]
            table.append(
                {
                    "lm": name,
                    "layer": case.lm.layer,
                    "width": case.width,
                    "saes": len(case.ks),
                    "dtype": dtype,
                    "batch_tokens": case.batch_tokens,
                    "threads": asked.threads,
                    "ours_sae_tokens_per_s": here,
                    "library_sae_tokens_per_s": there,
                    "ratio": here / there if there else None,
                    "ours_s": row["ours_seconds"],
                    "library_s": row.get("library_seconds"),
                }
            )
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
