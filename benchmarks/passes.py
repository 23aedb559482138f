"""A pass on this device: six TopK SAEs on a random LM of a published model's shape. SAEs x tokens
a second, the steps' share of that time and of the measured matrix rate, and the hours that the
published sweep of 500M tokens would take.

    PYTHONPATH=tests .venv/bin/python benchmarks/passes.py [--lms pythia-160m gemma-2-2b]

What training computes, with its own buffer and steps, on documents of random tokens, of 1 to 1,024
tokens each: as many steps as half the buffer gives, after one filling and `--warm` steps. The
demo's LM is for trying it where there is no GPU.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import seconds_of
from conftest import CONFIG_FILE, PROJECT, raw_config
from lms import KS, LMS, Lm
from measurements import Table, add_into, folder_of
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, PretrainedConfig

from saemake import architectures
from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.architectures.trainer import Trainer
from saemake.base import devices
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.text.prefetch import prefetched
from saemake.text.shards import MANIFEST, Tokens, pack

PUBLISHED_TOKENS = 500_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """An LM, and what the published suite gives it."""

    lm: Lm
    vocabulary: int
    buffer_tokens: int


def random_lm(config: PretrainedConfig, dtype: str) -> Callable[[Path], None]:
    """Lays out a model of that shape, whose weights are drawn."""

    def lay_out(folder: Path) -> None:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        model.save_pretrained(folder)

    return lay_out


def neox(d_model: int, layers: int, heads: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=50_304,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * d_model,
        max_position_embeddings=2048,
    )


PYTHIA = Lm(9, 8, "float32", 1024, 32, random_lm(neox(768, 9, 12), "float32"))
# Its configuration's defaults are gemma-2-2b's.
GEMMA = Lm(13, 12, "bfloat16", 1024, 4, random_lm(Gemma2Config(num_hidden_layers=13), "bfloat16"))
CASES = {
    "demo": Case(LMS["demo"], 2000, 32_768),
    "pythia-160m": Case(PYTHIA, 50_304, 249_856),
    "gemma-2-2b": Case(GEMMA, 256_000, 249_856),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lms", nargs="+", choices=CASES, default=["pythia-160m", "gemma-2-2b"])
    parser.add_argument("--width", type=int, default=16_384)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--warm", type=int, default=5, help="steps before the clock runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def write_text(folder: Path, case: Case) -> Tokens:
    """A shard of random documents, enough for more than two fillings."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, case.lm.context_tokens + 1, size=case.buffer_tokens // 64)
    documents = [rng.integers(5, case.vocabulary, size=length) for length in lengths]
    content = pack(documents, case.vocabulary)
    (folder / "shard.safetensors").write_bytes(content)
    shard = {"file": "shard.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps({"shards": [shard]}))
    return Tokens(folder / MANIFEST)


def trainers(asked: argparse.Namespace, d_model: int, device: torch.device) -> list[Trainer]:
    config = read(raw_config(), PROJECT, [CONFIG_FILE])
    kind = architectures.get("top_k")
    return [
        kind.trainer()(
            d_model=d_model,
            width=asked.width,
            sparsity=k,
            settings=config.settings_of("gemma-2-2b", "top_k"),
            training=config.training_of("gemma-2-2b"),
            steps=244_140,
            device=device,
        )
        for k in KS
    ]


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations a second of a large bfloat16 product, the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: left @ right, device) for _ in range(10))


def measure(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    case, given = CASES[name], CASES[name].lm
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        given.lay_out(root / "lm")
        lm = LanguageModel(given.weights(root / "lm"), Hookpoint(given.layer), device, whole=False)
        text = write_text(root, case)
        buffer = ActivationBuffer(
            lm.captured(prefetched(text.alike(given.llm_batch), device)),
            d_model=lm.d_model,
            capacity_tokens=case.buffer_tokens,
            batch_tokens=asked.batch_tokens,
            seed=0,
            dtype=torch.bfloat16,
            device=device,
        )
        scale = norm_factor(iter(buffer.batch, None), 1)
        sweep = trainers(asked, lm.d_model, device)
        numbers = itertools.count()

        def step() -> None:
            x_BD, number = buffer.batch() / scale, next(numbers)
            for trainer in sweep:
                trainer.update(number, x_BD)

        def many(count: int) -> None:
            for _ in range(count):
                step()

        many(asked.warm)
        count = case.buffer_tokens // 2 // asked.batch_tokens
        seconds = seconds_of(lambda: many(count), device)
        x_BD = buffer.batch() / scale
        alone = [
            seconds_of(lambda t=trainer: [t.update(next(numbers), x_BD) for _ in range(5)], device)
            / 5
            for trainer in sweep
        ]
    rate, tokens = matrix_rate(device), count * asked.batch_tokens
    products = architectures.get("top_k").step_products
    operations = products * 2 * asked.batch_tokens * lm.d_model * asked.width
    return {
        "lm": name,
        "width": asked.width,
        "saes_tokens_a_second": len(KS) * tokens / seconds,
        "sae_share": sum(alone) * count / seconds,
        "step_ms": {k: 1000 * one for k, one in zip(KS, alone, strict=True)},
        "bfloat16_tflops": rate / 1e12,
        "of_rate": operations * len(KS) / sum(alone) / rate,
        "published_sweep_hours": PUBLISHED_TOKENS / tokens * seconds / 3600,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """A pass's row of docs/measurements/passes.csv."""
    return {
        "lm": row["lm"],
        "saes": len(KS),
        "architectures": "top_k",
        "width": row["width"],
        "lm_tokens_per_s": None,
        "tokens_per_s": row["saes_tokens_a_second"] / len(KS),
        "sae_tokens_per_s": row["saes_tokens_a_second"],
        "steps_share": row["sae_share"],
        "matrix_rate_tflops": row["bfloat16_tflops"],
        "share_of_matrix_rate": row["of_rate"],
        "hours_per_500m_tokens": row["published_sweep_hours"],
        "peak_gib": row["peak_gib"],
        "attention": None,
    }


def main() -> None:
    asked = options()
    device = devices.choose(asked.threads)
    table = Table("passes", folder_of(asked), device.type)
    rows = []
    for name in asked.lms:
        rows.append(measure(name, asked, device))
        table.append(table_row(rows[-1]))
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": devices.describe(device),
        "torch": torch.__version__,
    }
    print(
        "| LM, width | SAEs x tokens / s | steps' share | of the bf16 rate | 500M tokens, hours |"
    )
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['lm']}, {row['width']:,} | {row['saes_tokens_a_second']:,.0f}"
            f" | {row['sae_share']:.0%} | {row['of_rate']:.0%} of {row['bfloat16_tflops']:.1f}"
            f" TFLOP/s | {row['published_sweep_hours']:,.1f} |"
        )
    print(json.dumps({**about, "rows": rows}))
    if asked.out:
        asked.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
