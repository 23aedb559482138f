"""The language models of benchmarks: the demo's, SmolLM2-135M, one of pythia-70m's shape."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from texts import tokenised
from transformers import AutoTokenizer

from saemake.config.checks import read
from saemake.llm.weights import Weights
from saemake.text.shards import Tokens

BUFFER_TOKENS = 65_536
# Of the published TopK sweeps.
KS = (20, 40, 80, 160, 320, 640)


@dataclasses.dataclass(frozen=True)
class Lm:
    """A model, the layer it is looked at, and how a text goes through it; `lay_out` puts its files
    into a folder."""

    layers: int
    layer: int
    dtype: str
    context_tokens: int
    llm_batch: int
    lay_out: Callable[[Path], None]

    def weights(self, folder: Path) -> Weights:
        return Weights("lm", folder, None, self.dtype)

    def configured(self, folder: Path, **more: Any) -> dict[str, Any]:
        """The entry of `models` for the model in a folder, with the demo's text."""
        return {
            "folder": str(folder),
            "layers": self.layers,
            "dtype": self.dtype,
            "text": "state-of-the-union",
            "context_tokens": self.context_tokens,
            "llm_batch_contexts": self.llm_batch,
            "buffer_tokens": BUFFER_TOKENS,
            **more,
        }

    def text(self, folder: Path, root: Path, count: int) -> Tokens:
        """So many tokens of the demo's text, tokenised into `root`."""
        training = {"batch_tokens": 512, "norm_batches": 1, "warmup_steps": 1}
        suite = {"layers": [self.layer], "architectures": ["standard"], "widths": ["1k"]}
        settings = {"standard": {"sparsity_warmup_steps": 1}}
        model = self.configured(
            folder,
            train_tokens=count,
            training=training,
            suite=suite,
            architectures=settings,
        )
        config = read(raw_config({"models": {"lm": model}}), PROJECT, [CONFIG_FILE])
        return tokenised(config, self.weights(folder), "train", root)


def link_demo(folder: Path) -> None:
    folder.symlink_to(DEMO_LM)


def make_pythia(folder: Path) -> None:
    """Random weights, and the demo's tokenizer."""
    contexts = peers.packed(
        peers.demo_documents("train", 400), AutoTokenizer.from_pretrained(DEMO_LM), 32, 128
    )
    peers.random_pythia("pythia-70m-deduped", contexts).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((DEMO_LM / file).read_bytes())


LMS = {
    "demo": Lm(6, 3, "float32", 256, 32, link_demo),
    "smollm2": Lm(30, 8, "bfloat16", 256, 16, peers.save_smollm2),
    "pythia-70m": Lm(6, 3, "float32", 1024, 32, make_pythia),
}
