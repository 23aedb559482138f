"""How long each kernel takes beside torch's operations, and with which settings it is fastest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from on_gpu.run import Run
from on_gpu.table_rows import TILES

B = 2048
BETAS = (0.9, 0.999)
TILED_AT = 16_384


def kernel_times(run: Run) -> dict[str, Any]:
    """A row for each kernel, shape and setting: microseconds, and the rate at which it moves the
    bytes that it must move."""
    if run.device.type != "cuda":
        return {"rows": []}
    rows: list[dict[str, Any]] = []
    for shape in ((16384, 2304), (16384, 512)):
        rows += adam_rows(run, *shape)
    for width in (16384, 65536):
        rows += choosing_rows(run, width)
    return {"rows": rows}


def timed(run: Run, about: dict[str, Any], work: Callable[[], Any], moved: int) -> dict[str, Any]:
    def case() -> dict[str, Any]:
        run.seconds(work, 3)
        seconds = min(run.seconds(work, 20) for _ in range(3))
        return {"us": round(seconds * 1e6, 1), "gb_per_s": round(moved / seconds / 1e9)}

    return run.row(about, case)


def adam_rows(run: Run, rows: int, columns: int) -> list[dict[str, Any]]:
    from saemake.kernels import adam

    def fresh() -> Tensor:
        return torch.rand(rows, columns, device=run.device)

    weight, gradient, moments = fresh(), fresh(), (fresh(), fresh())
    copy = weight.bfloat16()
    now = torch.tensor([1e-4, 0.1, 0.001], device=run.device)
    clip = torch.tensor(0.5, device=run.device)
    squares = torch.empty(rows, device=run.device)
    rule = adam.Rule(along_epsilon=1e-6, clipped_first=False, norm_epsilon=1e-7)
    along = adam.measure(weight, gradient, rule, squares)
    about, size = {"shape": [rows, columns]}, rows * columns
    return [
        timed(
            run,
            {"kernel": "measure", **about},
            lambda: adam.measure(weight, gradient, rule, squares),
            8 * size,
        ),
        timed(
            run,
            {"kernel": "update", **about},
            lambda: adam.update_(
                weight, gradient, moments, rule, along, clip, now, BETAS, 1e-8, copy
            ),
            30 * size,
        ),
    ]


def choosing_rows(run: Run, width: int) -> list[dict[str, Any]]:
    from saemake.kernels import masks, top_k

    drawn = torch.randn(B, width, device=run.device).bfloat16()
    work, size = drawn.clone(), drawn.numel()

    def rows_case() -> None:
        work.copy_(drawn)
        top_k.keep_top_of_rows_(work, 80)

    def all_case() -> None:
        work.copy_(drawn)
        top_k.keep_top_of_all_(work, 80 * B)

    about: dict[str, Any] = {"shape": [B, width]}
    found = [
        timed(run, {"kernel": "top of rows, and a copy", **about}, rows_case, 8 * size),
        timed(run, {"kernel": "top of all, and a copy", **about}, all_case, 16 * size),
    ]
    usual = masks.ROWS, masks.COLUMNS, masks.WARPS
    for tile in TILES if width == TILED_AT else ():
        masks.ROWS, masks.COLUMNS, masks.WARPS = tile
        named = {**about, "tile and warps": tile}
        found.append(
            timed(
                run,
                {"kernel": "keep positive", **named},
                lambda: masks.keep_positive_(work),
                4 * size,
            )
        )
        found.append(
            timed(
                run,
                {"kernel": "where positive", **named},
                lambda: masks.where_positive(drawn, work),
                6 * size,
            )
        )
    masks.ROWS, masks.COLUMNS, masks.WARPS = usual
    found.append(
        timed(run, {"kernel": "torch.topk", **about}, lambda: drawn.topk(80, dim=1), 2 * size)
    )
    x = torch.randn(B, 2304, device=run.device).bfloat16()
    w = torch.randn(width, 2304, device=run.device).bfloat16()
    flops = 2 * B * 2304 * width
    for name, product in {
        "encode": lambda: torch.nn.functional.linear(x, w),
        "decode": lambda: drawn @ w,
        "weight gradient, bfloat16": lambda: drawn.T @ x,
        "weight gradient, float32": lambda: torch.mm(drawn.T, x, out_dtype=torch.float32),
    }.items():
        row = timed(run, {"kernel": name, **about}, product, 0)
        row["tflops"] = round(flops / row["us"] / 1e6) if "us" in row else None
        print(row, flush=True)
        found.append(row)
    return found
