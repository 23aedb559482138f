"""A pass of random LMs of published shapes; the card's own rates; memory."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
import with_saemake
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig

from on_gpu.run import Run
from on_gpu.texts import random_text
from on_gpu.trainers import FIRST_STEP, case_of, copied, ours, sweep_of
from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.text.prefetch import prefetched

KS = (20, 40, 80, 160, 320, 640)


def rates(run: Run) -> dict[str, Any]:
    """Matrix rate in both dtypes, and bytes a second of a copy, read and written."""
    size = run.choose(8192, 1024)
    found: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float32):
        left, right = (torch.randn(size, size, device=run.device, dtype=dtype) for _ in range(2))
        run.seconds(lambda a=left, b=right: a @ b, 2)
        best = min(run.seconds(lambda a=left, b=right: a @ b, 3) for _ in range(3))
        found[f"{str(dtype).removeprefix('torch.')}_tflops"] = 2 * size**3 / best / 1e12
    source = torch.empty(run.choose(2**30, 2**24), dtype=torch.float32, device=run.device).normal_()
    target = torch.empty_like(source)
    run.seconds(lambda: target.copy_(source), 2)
    best = min(run.seconds(lambda: target.copy_(source), 3) for _ in range(3))
    found["copy_tb_per_second"] = 2 * source.nbytes / best / 1e12
    return found


def neox(d_model: int, layers: int, heads: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=50_304,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * d_model,
        max_position_embeddings=2048,
    )


@dataclasses.dataclass(frozen=True)
class Shape:
    """A random LM and how a pass goes over its text."""

    config: Any
    dtype: str
    layer: int
    vocabulary: int
    contexts: int
    sweeps: dict[str, tuple[float, ...]]
    width: int


def shapes(run: Run) -> dict[str, Shape]:
    if run.small:
        tiny = Shape(neox(64, 2, 2), "float32", 1, 50_000, 8, {"top_k": (4, 8)}, 256)
        return {"tiny": tiny}
    top_k = {"top_k": KS}
    gemma = Gemma2Config(num_hidden_layers=13)
    penalties = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    headline: dict[str, tuple[float, ...]] = {
        "standard_new": penalties,
        "top_k": KS,
        "batch_top_k": KS,
        "gated": penalties,
        "jump_relu": KS,
    }
    return {
        "gemma-2-2b, six top_k of 16k": Shape(gemma, "bfloat16", 12, 250_000, 4, top_k, 16_384),
        "pythia-70m, thirty of five architectures of 4k": Shape(
            neox(512, 4, 8), "float32", 3, 50_000, 32, headline, 4096
        ),
        "pythia-160m, six top_k of 16k": Shape(
            neox(768, 9, 12), "float32", 8, 50_000, 32, top_k, 16_384
        ),
    }


def passes(run: Run) -> dict[str, Any]:
    """SAEs x tokens a second: of the LM alone, of the steps, of both with the buffer."""
    rows = []
    for name, shape in shapes(run).items():
        if run.seconds_left < 60 and not run.small:
            break
        rows.append(run.row({"pass": name}, lambda one=shape: pass_case(one, run)))
    return {"rows": rows}


def random_lm(
    config: Any, dtype: str, layer: int, folder: Path, run: Run, *, whole: bool
) -> LanguageModel:
    """An LM of a transformers config, its weights drawn on the device and kept under `folder`."""
    with torch.device(run.device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder / "lm")
    del model
    run.forget()
    weights = Weights("random", folder / "lm", None, dtype)
    return LanguageModel(weights, Hookpoint(layer), run.device, whole=whole)


def pass_case(shape: Shape, run: Run) -> dict[str, Any]:
    capacity = run.choose(249_856, 8192)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lm = random_lm(shape.config, shape.dtype, shape.layer, folder, run, whole=False)
        text = random_text(folder / "text", shape.vocabulary, capacity * 2)
        contexts = list(prefetched(text.alike(shape.contexts), run.device))[:12]
        for each in contexts[:2]:
            lm.capture(each)
        lm_seconds = run.seconds(lambda: [lm.capture(each) for each in contexts[2:]], 1)
        lm_tokens = sum(each.tokens for each in contexts[2:])
        lm_kernels, lm_busy_ms = run.profiled(lambda: lm.capture(contexts[2]), "LM")
        buffer = ActivationBuffer(
            lm.captured(prefetched(text.alike(shape.contexts), run.device)),
            d_model=lm.d_model,
            capacity_tokens=capacity,
            batch_tokens=2048,
            seed=0,
            dtype=torch.bfloat16,
            device=run.device,
        )
        scale = norm_factor(iter(buffer.batch, None), 1)
        trainers = [
            trainer
            for name, sparsities in shape.sweeps.items()
            for trainer in sweep_of(name, sparsities, lm.d_model, shape.width, run.device)
        ]
        number = iter(range(0, 10**6))

        def step() -> None:
            x_BD, now = buffer.batch() / scale, next(number)
            for trainer in trainers:
                trainer.update(now, x_BD)

        run.seconds(step, run.choose(5, 1))
        count = run.choose(capacity // 2 // 2048, 3)
        whole = run.seconds(step, count)  # from one filling to the next
        x_BD = buffer.batch() / scale
        alone = run.seconds(
            lambda: [trainer.update(next(number), x_BD) for trainer in trainers], run.choose(5, 1)
        )
        attention = getattr(lm.model.config, "_attn_implementation", None)
    return {
        "saes": len(trainers),
        "lm_tokens_a_second": lm_tokens / lm_seconds,
        "lm_ms": 1000 * lm_seconds / len(contexts[2:]),
        "lm_busy_ms": lm_busy_ms,
        "lm_kernels": lm_kernels,
        "tokens_a_second": 2048 / whole,
        "saes_x_tokens_a_second": len(trainers) * 2048 / whole,
        "steps_share": alone / whole,
        "hours_of_500M_tokens": 500e6 / 2048 * whole / 3600,
        "minutes_of_50M_tokens": 50e6 / 2048 * whole / 60,
        "attention": attention,
        "peak_gib": run.peak_gib(),
    }


def memory(run: Run) -> dict[str, Any]:
    """What six SAEs of 65k take in training, and one of the peer's."""
    d_model, width = run.choose((2304, 65_536), (64, 512))
    x_BD = with_saemake.batch(d_model)
    found: dict[str, Any] = {"d_model": d_model, "width": width}
    for name in ("top_k", "gated"):
        run.forget()
        case = case_of(name, d_model, width, 80 if not run.small else 16)
        first = ours(case, x_BD, run.device)
        members = [first, *(copied(first, case) for _ in range(5))]
        x_bf16 = x_BD.to(run.device, torch.bfloat16)
        for step in range(FIRST_STEP, FIRST_STEP + 2):
            for member in members:
                member.update(step, x_bf16)
        found[f"six_{name}_gib"] = run.peak_gib()
        seconds = run.seconds(lambda m=first, x=x_bf16: m.update(FIRST_STEP + 2, x), 5)
        found[f"{name}_step_ms"] = 1000 * seconds
        del first, members
    return found
