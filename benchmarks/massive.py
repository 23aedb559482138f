"""Which positions of an LM have massive activations: the norm of the first position over the
median, and the share of the squared norm that is in positions of over ten times the median, with a
BOS before each context and without one.

    PYTHONPATH=tests .venv/bin/python benchmarks/massive.py FOLDER [--gguf-file FILE] [--layers 0 9]

The text is the demo's. One run of the LM for each of the two ways.
"""

import argparse
from pathlib import Path

import torch
from conftest import PROJECT
from datasets import load_dataset
from torch import Tensor

from saemake.llm import loading
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts

OVER_MEDIAN = 10


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf-file")
    parser.add_argument("--layers", type=int, nargs="+", help="all by default")
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    return parser.parse_args()


def contexts(weights: Weights, count: int, length: int, *, bos: bool) -> Contexts:
    """The beginnings of so many documents, each of that many tokens."""
    tokenizer = loading.load_tokenizer(weights)
    first = tokenizer.bos_token_id
    first = tokenizer.eos_token_id if first is None else first
    rows: list[list[int]] = []
    for row in load_dataset(str(PROJECT / "resources/demo/text"), split="train"):
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        if len(ids) >= length:
            rows.append(([first] if bos else []) + ids[: length - bos])
        if len(rows) == count:
            break
    ids_BL = torch.tensor(rows)
    return Contexts(ids_BL, torch.ones_like(ids_BL))


def figures(x_BLD: Tensor) -> tuple[float, float, float]:
    """The median norm of the first positions over that of all, the share of positions with a
    massive norm, and the share of the squared norm that they hold."""
    norms_BL = x_BLD.float().norm(dim=-1)
    median = norms_BL.median()
    massive_BL = norms_BL > OVER_MEDIAN * median
    squared_BL = norms_BL.double() ** 2
    share = squared_BL[massive_BL].sum() / squared_BL.sum()
    return (
        (norms_BL[:, 0].median() / median).item(),
        massive_BL.double().mean().item(),
        share.item(),
    )


def main() -> None:
    asked = options()
    weights = Weights("lm", asked.folder, asked.gguf_file, "bfloat16")
    layers = asked.layers or range(loading.layers_in(loading.read_config(weights)))
    lm = LanguageModel(weights, Hookpoint(max(layers)), torch.device("cpu"), whole=False)
    print("| layer | first position | norm over median | positions over 10 x | of squared norm |")
    for bos in (True, False):
        given = contexts(weights, asked.contexts, asked.length, bos=bos)
        for hookpoint, x_BLD in lm.captures(given, list(map(Hookpoint, layers))).items():
            first, share, squared = figures(x_BLD)
            kind = "BOS" if bos else "text"
            where = f"| {hookpoint.layer} | {kind} "
            print(f"{where}| {first:.1f} | {share:.2%} | {squared:.1%} |", flush=True)


if __name__ == "__main__":
    main()
