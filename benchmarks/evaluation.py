"""SAE Bench's core evaluation of a sweep of six SAEs, here and by sae_bench itself, side by side.

    PYTHONPATH=tests .venv/bin/python benchmarks/evaluation.py [--layer 8] [--ours-only] ...

A language model of a Pythia's shape (random weights, whole vocabulary), six TopK SAEs of 4k latents
(k 20 to 640), the same contexts, two threads, float32. Prints a table, and appends what it measured
as JSON to --out. Ours is timed with one, six and seven SAEs, each in a process of its own, from
loading the LM on; sae_bench by its own multiple_evals of each SAE. Both in turn, medians of the
rounds; sae_bench judges a part of the six in each, and the LM that it loads for each of its SAEs
counts once. What an SAE adds is a sixth of what seven take more
than one. Peak memory is the process's largest resident set.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers
import torch
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from measurements import Table, add_into, folder_of
from texts import tokenised
from transformers import AutoTokenizer

from saemake import architectures
from saemake.base import devices
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.training import sae_recipe
from saemake.training import files

KS = (20, 40, 80, 160, 320, 640, 30)
WIDTH, BATCH, THREADS = 4096, 16, 2


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="pythia-160m-deduped", choices=peers.PYTHIA)
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument("--reconstruction", type=int, default=1)
    parser.add_argument("--variance", type=int, default=10)
    parser.add_argument(
        "--rounds",
        type=int,
        choices=range(1, 7),
        default=3,
        help="sae_bench's SAEs are split over them",
    )
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--out", type=Path)
    add_into(parser)
    parser.add_argument("--judge", type=int, help="(used by itself)")
    parser.add_argument("--root", type=Path, help="(used by itself)")
    return parser.parse_args()


def configured(asked: argparse.Namespace, root: Path, lm: Path) -> Config:
    core = {
        "text": None,
        "held_out": False,
        "batch_contexts": BATCH,
        "reconstruction_batches": asked.reconstruction,
        "variance_batches": asked.variance,
    }
    model = {
        "folder": str(lm),
        "layers": peers.PYTHIA[asked.shape][1],
        "dtype": "float32",
        "text": "judged",
        "context_tokens": 128,
        "llm_batch_contexts": BATCH,
        "buffer_tokens": 65_536,
        "train_tokens": 500_000_000,
        "evaluations": {"sae_bench_core": core},
        "training": {"cpu_threads": THREADS},
        "architectures": {"top_k": {"sweep": list(KS)}},
        "suite": {"layers": [asked.layer], "architectures": ["top_k"], "widths": ["4k"]},
    }
    over = {
        "models": {"judged": model},
        "texts": {"judged": {"folder": str(root / "text"), "evaluation_split": "train"}},
    }
    return read(raw_config(over), PROJECT, [CONFIG_FILE])


def prepare(asked: argparse.Namespace, root: Path) -> Path:
    """The LM, the text, its contexts and the SAEs under `root`; the LM's folder."""
    documents = peers.demo_documents("train", 15_000)
    peers.write_parquet(root / "text", documents)
    contexts = peers.packed(documents, AutoTokenizer.from_pretrained(DEMO_LM), 64, 128)
    model = peers.random_pythia(asked.shape, contexts)
    lm = peers.lay_out_hub(root, f"EleutherAI/{asked.shape}", model, DEMO_LM)
    config = configured(asked, root, lm)
    kind = architectures.get("top_k")
    for k in KS:
        recipe_of = sae_recipe(
            config, SaeName(Sweep("judged", Hookpoint(asked.layer), "top_k", "4k"), k)
        )
        trainer = kind.trainer()(
            d_model=model.config.hidden_size,
            width=WIDTH,
            sparsity=k,
            settings=config.settings_of("judged", "top_k"),
            training=config.training_of("judged"),
            steps=100,
            device=torch.device("cpu"),
        )
        folder = root / "downloaded" / f"k_{k}"
        folder.mkdir(parents=True)
        (folder / "ae.pt").write_bytes(files.sae_bytes(trainer.finished(1.0)))
        content = files.config_json(trainer, recipe_of, 1.0)
        (folder / "config.json").write_bytes(
            files.named(f"EleutherAI/{asked.shape}", content.encode())
        )
    return lm


def judge(asked: argparse.Namespace) -> None:
    """Judge the first SAEs and print seconds and peak MiB: run in a process of its own."""
    root = asked.root
    lm_folder = Path((root / "lm.txt").read_text())
    config = configured(asked, root, lm_folder)
    weights = Weights("judged", lm_folder, None, "float32")
    text = tokenised(config, weights, "sae_bench_core", root)
    started = time.monotonic()
    device = devices.choose(THREADS)
    saes = {
        k: files.load(root / "downloaded" / f"k_{k}", "top_k", WIDTH, device)
        for k in KS[: asked.judge]
    }
    name = SaeName(Sweep("judged", Hookpoint(asked.layer), "top_k", "4k"), KS[0])
    recipe = sae_evaluation_recipe(config, name, "sae_bench_core")
    lm = LanguageModel(weights, Hookpoint(asked.layer), device, whole=True)
    found = judge_by(recipe, saes, lm, text, f"{asked.judge} SAEs")
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"seconds": seconds, "peak_mib": peak, "kl": found[20].figures["kl_div_score"]})
    )


def ours(asked: argparse.Namespace, root: Path, saes: int, variance: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--judge", str(saes), "--root", str(root)]
    command += ["--shape", asked.shape, "--layer", str(asked.layer)]
    command += ["--reconstruction", str(asked.reconstruction), "--variance", str(variance)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def theirs(asked: argparse.Namespace, root: Path, ks: Sequence[int]) -> list[dict[str, float]]:
    """Seconds of sae_bench's evaluation of each of these, and of loading the LM within."""
    job = {
        "model_name": asked.shape,
        "layer": asked.layer,
        "dataset": str(root / "text"),
        "context_size": 128,
        "batch_prompts": BATCH,
        "reconstruction_batches": asked.reconstruction,
        "variance_batches": asked.variance,
        "threads": THREADS,
        "repository": "saemake/demo",
        "saes": [{"folder": f"k_{k}"} for k in ks],
    }
    peers.judge_with_sae_bench(root, job)
    return list(json.loads((root / "seconds.json").read_text()).values())


def table_row(
    asked: argparse.Namespace, side: str, saes: int, runs: list[dict[str, float]]
) -> dict[str, Any]:
    """One side's row of docs/measurements/evaluation.csv."""
    seconds = [run["seconds"] for run in runs]
    peaks = [run["peak_mib"] for run in runs if "peak_mib" in run]
    return {
        "lm": asked.shape,
        "layer": asked.layer,
        "width": WIDTH,
        "reconstruction_batches": asked.reconstruction,
        "variance_batches": asked.variance,
        "side": side,
        "saes": saes,
        "runs": len(runs),
        "seconds_median": statistics.median(seconds),
        "seconds_least": min(seconds),
        "seconds_most": max(seconds),
        "peak_mib": statistics.median(peaks) if peaks else None,
    }


def main() -> None:
    asked = options()
    if asked.judge:
        judge(asked)
        return
    table = Table("evaluation", folder_of(asked))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "lm.txt").write_text(str(prepare(asked, root)))
        rounds: list[dict[int, dict[str, float]]] = []
        sae_bench: list[dict[str, float]] = []
        for turn in range(asked.rounds):
            rounds.append({saes: ours(asked, root, saes, asked.variance) for saes in (1, 6, 7)})
            if not asked.ours_only:
                sae_bench += theirs(asked, root, KS[:6][turn :: asked.rounds])
        tenth = ours(asked, root, 6, max(asked.variance // 10, 1))
    for saes in (1, 6, 7):
        table.append(table_row(asked, "ours", saes, [turn[saes] for turn in rounds]))
    tenth_row = table_row(asked, "ours", 6, [tenth])
    table.append({**tenth_row, "variance_batches": max(asked.variance // 10, 1)})
    measured = {
        saes: {
            key: statistics.median(turn[saes][key] for turn in rounds)
            for key in ("seconds", "peak_mib")
        }
        for saes in (1, 6, 7)
    }
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": devices.describe(torch.device("cpu")),
        "torch": torch.__version__,
        **{key: getattr(asked, key) for key in ("shape", "layer", "reconstruction", "variance")},
        "ours": measured,
        "rounds": rounds,
        "ours_six_a_tenth_of_the_text": tenth,
        "sae_bench": sae_bench,
    }
    print("| SAEs | seconds | peak MiB |\n| --- | --- | --- |")
    for saes, found in measured.items():
        print(f"| {saes} | {found['seconds']:.1f} | {found['peak_mib']:.0f} |")
    print(f"six, of variance a tenth of the text: peak {tenth['peak_mib']:.0f} MiB")
    shares = [(turn[7]["seconds"] / turn[1]["seconds"] - 1) / 6 for turn in rounds]
    said = ", ".join(f"{share:.3f}" for share in sorted(shares))
    print(f"an SAE adds {statistics.median(shares):.3f} of the first ({said})")
    if sae_bench:
        loading = statistics.median(one["loading"] for one in sae_bench)
        six = loading + sum(one["judging"] - one["loading"] for one in sae_bench)
        ratio = six / measured[6]["seconds"]
        table.append(table_row(asked, "sae_bench", 6, [{"seconds": six}]))
        print(
            f"sae_bench, six: {six:.1f} s, {ratio:.2f} times ours (loading once: {loading:.1f} s)"
        )
    if asked.out:
        with asked.out.open("a") as opened:
            opened.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
