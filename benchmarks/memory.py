"""Memory that a large SAE takes in training, in bytes a parameter.

    PYTHONPATH=benchmarks/workers .venv/bin/python benchmarks/memory.py [--width 65536] ...

Three steps on 2,048 activations, each architecture in a process of its own: its largest resident
set (on a GPU: what was allocated at most) over what there was before them, the activations counted.
Weights, gradients and Adam's two moments are 16. Where a penalty decides how many latents are
active, the encoder's bias is set so that as many are as asked.
"""

import argparse
import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

import torch
from measurements import Table, add_into, folder_of
from with_saemake import batch, leave_active, trainer_of

from saemake import architectures

STEPS = 3


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    chosen = ["top_k", "jump_relu", "standard_new"]
    parser.add_argument("--architectures", nargs="+", choices=architectures.names(), default=chosen)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--width", type=int, default=65_536)
    parser.add_argument("--active", type=int, default=80, help="k, or L0")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def taken(device: torch.device) -> int:
    """Bytes at most until now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """`asked` names one architecture and dtype; run in a process of its own."""
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    before = taken(device)
    x_BD = batch(asked.d_model).to(device, getattr(torch, asked.dtype))
    trainer = trainer_of(asked)
    if trainer.sparsity != "k":
        leave_active(trainer, x_BD.float(), asked.active)
    for step in range(STEPS):
        l0 = trainer.update(step, x_BD).l0.item()
    parameters = sum(parameter.numel() for parameter in trainer.dictionary.parameters())
    found = {"architecture": asked.architecture, "dtype": asked.dtype, "l0": l0}
    return {**found, "bytes_a_parameter": (taken(device) - before) / parameters}


def main() -> None:
    asked = options()
    table = Table("memory", folder_of(asked), asked.device)
    print("| architecture, dtype | L0 | bytes a parameter |\n| --- | --- | --- |")
    rows = []
    for architecture in asked.architectures:
        for dtype in asked.dtypes:
            one = {"architecture": architecture, "dtype": dtype}
            case = argparse.Namespace(**vars(asked), **one)
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                row = alone.apply(measure, (case,))
            rows.append(row)
            table.append(
                {
                    **{key: row[key] for key in ("architecture", "dtype", "l0")},
                    **{key: vars(asked)[key] for key in ("d_model", "width", "active")},
                    "saes": 1,
                    "bytes_per_parameter": row["bytes_a_parameter"],
                    "peak_gib": None,
                }
            )
            print(
                f"| {architecture}, {dtype} | {row['l0']:.0f} | {row['bytes_a_parameter']:.1f} |",
                flush=True,
            )
    if asked.out:
        case = {key: vars(asked)[key] for key in ("d_model", "width", "active", "device")}
        asked.out.write_text(json.dumps({**case, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
