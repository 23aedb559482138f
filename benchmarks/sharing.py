"""What one run of the LM for many jobs saves: all eight architectures at two widths and two layers
of the demo's LM, trained by the snakemake command with and without `passes.share`, a job at a time.

    PYTHONPATH=tests .venv/bin/python benchmarks/sharing.py        (about eight minutes)

Whole train jobs from the model and the text on: starting Python, loading the LM, linking. Then the
same passes again in this process, in which torch's FlopCounterMode counts the LM's operations;
`lm_planned` are those that `saemake plan` counts. Ends with status 1 unless each ae.pt has the same
bytes both ways.
"""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from conftest import CONFIG_FILE, PROJECT, Workflow, raw_config
from counted import lm_operations
from measurements import Table, add_into, folder_of

from saemake import architectures
from saemake.base.store import sha256
from saemake.config.checks import read
from saemake.jobs.train import into
from saemake.plan.passes import cut
from saemake.plan.stored import Stored
from saemake.plan.work import work
from saemake.training.members import Stores

SHARED = ["sparsities", "widths", "architectures", "layers"]
LAYERS, WIDTHS = (3, 4), ("256", "512")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=51_200)
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def configured(tokens: int, share: list[str]) -> dict[str, Any]:
    names = architectures.names()
    demo = {
        "train_tokens": tokens,
        "buffer_tokens": 16_384,
        "training": {"norm_batches": 2, "warmup_steps": 5},
        "architectures": {name: dict(architectures.get(name).example) for name in names},
    }
    widths = {name: int(name) for name in WIDTHS}
    return {"models": {"demo": demo}, "widths": widths, "passes": {"share": share}}


def targets() -> list[str]:
    return [
        f"results/demo/L{layer}/{name}/{width}/{spelt}/ae.pt"
        for layer in LAYERS
        for name in architectures.names()
        for width in WIDTHS
        for spelt in [_first(name)]
    ]


def _first(name: str) -> str:
    kind = architectures.get(name)
    return f"{kind.sparsity}_{kind.example['sweep'][0]!r}"


def counted(workflow: Workflow, settings: dict[str, Any]) -> int:
    """The FLOPs of all runs of the LM of the passes that train the targets."""
    config = read(raw_config(settings), PROJECT, [CONFIG_FILE])
    stored = Stored(workflow.folder / "nothing")
    with contextlib.chdir(workflow.folder), lm_operations() as operations:
        for number, each in enumerate(cut(config, work(config, targets(), stored).train)):
            into(
                Stores.under(workflow.folder / f"counted_{number}"),
                config,
                each.saes,
                str(each),
                Path("results/demo/model.json"),
                Path("results/demo/tokens/train/manifest.json"),
                snapshot_seconds=math.inf,
            )
    return sum(operations)


def planned(workflow: Workflow) -> tuple[int, int]:
    """The passes, and the LM's operations."""
    command = [sys.executable, "-m", "saemake", "plan", *targets(), "--json"]
    done = subprocess.run(
        [*command, "--configfile", workflow.config_file],
        cwd=workflow.folder,
        env=workflow.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=True,
    )
    plan = json.loads(done.stdout)
    return len(plan["passes"]), plan["flops"]["training"]["lm"]


def measured(tokens: int, share: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Of one way, and the sha256 of each ae.pt."""
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder))
        workflow.write(configured(tokens, share))
        workflow.succeed("results/demo/tokens/train/manifest.json")
        passes, operations = planned(workflow)
        start = time.monotonic()
        workflow.succeed(*targets(), "--cores", "1", OMP_NUM_THREADS="1")
        seconds = time.monotonic() - start
        saes = sorted((workflow.folder / "results/demo").rglob("ae.pt"))
        sums = {str(path.relative_to(workflow.folder)): sha256(path) for path in saes}
        row = {"share": "+".join(share), "saes": len(sums), "jobs": len(targets())}
        row |= {"passes": passes, "tokens": tokens, "seconds": seconds, "lm_planned": operations}
        row["lm_counted"] = counted(workflow, configured(tokens, share))
    return row, sums


def main() -> int:
    asked = options()
    assert raw_config()["passes"]["share"] == ["sparsities"]
    table = Table("sharing", folder_of(asked))
    found = [measured(asked.tokens, share) for share in (["sparsities"], SHARED)]
    same = found[0][1] == found[1][1]
    for row, _ in found:
        table.append({**row, "same_bytes": same})
        print(row, flush=True)
    print(f"seconds, apart over shared: {found[0][0]['seconds'] / found[1][0]['seconds']:.2f}")
    print(f"the same bytes: {same}")
    if asked.out:
        asked.out.write_text(json.dumps([row for row, _ in found], indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
