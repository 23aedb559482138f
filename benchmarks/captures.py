"""Tokens a second of the captured LM pass beside a bare transformers forward up to the layer.

    PYTHONPATH=tests .venv/bin/python benchmarks/captures.py [--lms demo ...]

On full contexts, where all a capture can do is not to be slower, and on the text's own lengths:
bare, documents come in their own order and are padded to the longest of a batch; ours is the pass
that training makes. With the buffer: batches as training gets them, kept, shuffled and drawn. In
turn, medians; padding is not counted.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from clock import seconds_of
from lms import BUFFER_TOKENS, LMS, Lm
from measurements import Table, add_into, folder_of

from saemake.activations.buffer import ActivationBuffer
from saemake.base import devices
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.text.prefetch import prefetched
from saemake.text.shards import WINDOW, Contexts, Tokens

FULL_TOKENS, BATCH_TOKENS = 8192, 2048


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lms", nargs="+", choices=LMS, default=list(LMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--windows", type=int, default=1, help=f"of {WINDOW} batches of documents, a round"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


class Passes:
    """The ways of an LM over a text; each gives how many tokens it went over."""

    def __init__(self, lm: LanguageModel, text: Tokens, case: Lm, batches: int) -> None:
        self.lm, self.text, self.batch, self.batches = lm, text, case.llm_batch, batches
        self.bare = lm.model.get_submodule(lm.model.base_model_prefix)
        ids = torch.randint(5, 1000, (FULL_TOKENS // case.context_tokens, case.context_tokens))
        self.full = [Contexts(ids, torch.ones_like(ids))] * 2

    def forward(self, contexts: Iterator[Contexts]) -> int:
        seen = 0
        with torch.no_grad():
            for each in contexts:
                self.bare(
                    input_ids=each.ids.to(self.lm.device),
                    attention_mask=each.mask.to(self.lm.device),
                    use_cache=False,
                )
                seen += each.tokens
        return seen

    def capture(self, contexts: Iterator[Contexts]) -> int:
        seen = 0
        for each in contexts:
            self.lm.capture(each)
            seen += each.tokens
        return seen

    def alike(self) -> Iterator[Contexts]:
        return itertools.islice(
            prefetched(self.text.alike(self.batch), self.lm.device), self.batches
        )

    def bare_full(self) -> int:
        return self.forward(iter(self.full))

    def captured_full(self) -> int:
        return self.capture(iter(self.full))

    def bare_own(self) -> int:
        return self.forward(itertools.islice(self.text.contexts(self.batch), self.batches))

    def captured_own(self) -> int:
        return self.capture(self.alike())

    def buffered_own(self) -> int:
        buffer = ActivationBuffer(
            self.lm.captured(self.alike()),
            d_model=self.lm.d_model,
            capacity_tokens=BUFFER_TOKENS,
            batch_tokens=BATCH_TOKENS,
            seed=0,
            dtype=torch.bfloat16,
            device=self.lm.device,
        )
        buffer.batch()
        seen = BATCH_TOKENS
        while not buffer.exhausted or buffer.unread >= BATCH_TOKENS:
            buffer.batch()
            seen += BATCH_TOKENS
        return seen


def rate(way: Callable[[], int], device: torch.device) -> float:
    seen: list[int] = []
    seconds = seconds_of(lambda: seen.append(way()), device)
    return seen[0] / seconds


def measure(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of each way."""
    case = LMS[name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case.lay_out(root / "lm")
        text = case.text(root / "lm", root, 300_000)
        device = devices.choose(asked.threads)
        lm = LanguageModel(case.weights(root / "lm"), Hookpoint(case.layer), device, whole=False)
        passes = Passes(lm, text, case, asked.windows * WINDOW)
        ways = ("bare_full", "captured_full", "bare_own", "captured_own", "buffered_own")
        found: dict[str, list[float]] = {way: [] for way in ways}
        for way in ("bare_full", "captured_own"):
            rate(getattr(passes, way), device)
        for _ in range(asked.rounds):
            for way in ways:
                found[way].append(rate(getattr(passes, way), device))
    return {way: statistics.median(rates) for way, rates in found.items()}


def main() -> None:
    asked = options()
    table = Table("captures", folder_of(asked), devices.choose(asked.threads).type)
    print("| LM | full: bare, captured | ratio | own lengths: bare, captured | ratio | buffered |")
    print("| --- | --- | --- | --- | --- | --- |")
    found = {}
    for name in asked.lms:
        row = found[name] = measure(name, asked)
        full, own = (row[f"captured_{kind}"] / row[f"bare_{kind}"] for kind in ("full", "own"))
        print(
            f"| {name} | {row['bare_full']:,.0f}, {row['captured_full']:,.0f} | {full:.2f}"
            f" | {row['bare_own']:,.0f}, {row['captured_own']:,.0f} | {own:.2f}"
            f" | {row['buffered_own']:,.0f} |",
            flush=True,
        )
        case = LMS[name]
        table.append(
            {
                "lm": name,
                "layer": case.layer,
                "context_tokens": case.context_tokens,
                "threads": asked.threads,
                "rounds": asked.rounds,
                **{f"{way}_tokens_per_s": rate for way, rate in row.items()},
                "full_ratio": full,
                "own_ratio": own,
            }
        )
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
