"""A text tokenised for a test or a benchmark, as the rule's script does it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config

from saemake.base.store import Store
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.inputs import tokens
from saemake.inputs.tokens import Reader
from saemake.llm.loading import load_tokenizer
from saemake.llm.weights import Weights
from saemake.paths.artifacts import TokensFile
from saemake.recipes.inputs import tokens_recipe
from saemake.text.shards import MANIFEST, Tokens


def tokenised(config: Config, weights: Weights, use: str, folder: Path) -> Tokens:
    """The text of the model `weights.name` for a use, in the store under a folder; made where that
    lacks it."""
    recipe, store = tokens_recipe(config, weights.name, use), Store(folder, "tokens")
    if not store.has(recipe.hash):
        tokens.make(config, weights.name, use, recipe, load_tokenizer(weights), store)
    return Tokens(store.folder / recipe.hash / MANIFEST)


# What CHATML writes before a chat without a system message.
SYSTEM_PROMPT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
CHATML = (
    "{%- if messages[0].role != 'system' %}{{ '" + SYSTEM_PROMPT.replace("\n", "\\n") + "' }}"
    "{%- endif %}{%- for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
)


def lay_out_chat_lm(folder: Path) -> Path:
    """The demo's LM with a chat template, which its tokenizer lacks. Returns the folder."""
    shutil.copytree(DEMO_LM, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def lay_out_texts(folder: Path, documents: Sequence[str]) -> None:
    """The documents in the folder `plain`, and as conversations of two to six messages in `chat`;
    both in jsonl, with a split train."""
    rows: dict[str, list[dict[str, Any]]] = {"plain": [{"text": text} for text in documents]}
    rows["chat"] = []
    rest = list(documents)
    while len(rest) >= 6:
        taken = 2 * (1 + len(rows["chat"]) % 3)
        roles = ["user", "assistant"] * 3
        messages = [
            {"role": role, "content": text[:200]}
            for role, text in zip(roles, rest[:taken], strict=False)
        ]
        rows["chat"].append({"messages": messages})
        rest = rest[taken:]
    for name, content in rows.items():
        (folder / name).mkdir(parents=True)
        lines = "".join(f"{json.dumps(row)}\n" for row in content)
        (folder / name / "train.jsonl").write_text(lines)


def reader(texts: dict[str, Any], text: str, lm: Path, folder: Path, **model: Any) -> Reader:
    """A reader of a text of the config, `texts` laid over it, for the training of the demo with the
    LM in a folder; its store is in `folder`."""
    over = {"texts": texts, "models": {"demo": {"folder": str(lm), "text": text, **model}}}
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    tokenizer = load_tokenizer(Weights("demo", lm, None, "float32"))
    recipe, store = tokens_recipe(config, "demo", "train"), Store(folder / "store", "tokens")
    return Reader(config, text, recipe, tokenizer, store, TokensFile("demo", "train"))
