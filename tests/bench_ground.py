"""What SAE Bench's evaluations need, laid out by hand: a small LM that TransformerLens finds under
a name that it knows, SAEs of it, and the datasets. All texts are made of words of one token each; a
class is told by the letters that its words begin with."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import peers
import torch
from bench_names import MODEL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENDINGS = ("ab", "ack", "el", "ime", "oon", "ust", "ark", "int", "ole", "ung")
WORDS = {letter: [letter + ending for ending in ENDINGS] for letter in LETTERS}
END = "<|endoftext|>"
D_MODEL, LAYER, WIDTH = 64, 1, 128
BIOS, AMAZON = "LabHC/bias_in_bios", "canrager/amazon_reviews_mcauley_1and5"
CODE, NEWS = "codeparrot/github-code", "fancyzhx/ag_news"
EUROPARL = "Helsinki-NLP/europarl"
PILE = "monology/pile-uncopyrighted"
PROMPTS = "adamkarvonen/ravel_prompts"
# RAVEL's kinds of entities, their attributes, and a template for each, of words that the LM knows.
ATTRIBUTES = {
    "city": {"Country": " the%s has the", "Continent": " has%s the first", "Language": "%s has"},
    "nobel_prize_winner": {
        "Country of Birth": " first%s the",
        "Field": " letter%s has the",
        "Gender": "%s the first letter",
    },
}

# A loading script, as that of github-code is one.
SCRIPT = """
import json

import datasets


class CodeConfig(datasets.BuilderConfig):
    def __init__(self, *arguments, languages=("all",), **options):
        super().__init__(*arguments, name="+".join(languages), **options)
        self.languages = languages


class GithubCode(datasets.GeneratorBasedBuilder):
    BUILDER_CONFIG_CLASS = CodeConfig

    def _info(self):
        text = datasets.Value("string")
        return datasets.DatasetInfo(features=datasets.Features({"code": text, "language": text}))

    def _split_generators(self, manager):
        path = manager.download("rows.jsonl")
        return [datasets.SplitGenerator(name="train", gen_kwargs={"path": path})]

    def _generate_examples(self, path):
        with open(path) as lines:
            for key, line in enumerate(lines):
                row = json.loads(line)
                if row["language"] in self.config.languages:
                    yield key, row
"""


@dataclass
class Ground:
    """Everything under one folder. `model` is TransformerLens's name of the LM."""

    root: Path
    model: str
    saes: list[Path]
    data: dict[str, Path]

    @property
    def environment(self) -> dict[str, str]:
        return {"HF_HOME": str(self.root / "hf"), "HF_HUB_OFFLINE": "1"}


def make(root: Path, architectures: Sequence[str]) -> Ground:
    """The LM, an SAE of each of those architectures, and all datasets."""
    lm = lay_out_lm(root, f"EleutherAI/{MODEL}")
    generator = torch.Generator().manual_seed(1)
    contexts = torch.randint(2, lm.config.vocab_size, (64, 32), generator=generator)
    activations = peers.residuals(lm, contexts, LAYER)
    made = root / "saes"
    if architectures:
        peers.make_saes(made, activations, lm_name=f"EleutherAI/{MODEL}", layer=LAYER, width=WIDTH)
    saes = [made / name for name in architectures]
    data = _lay_out_data(root / "data")
    _lay_out_ravel(
        root / "data" / PROMPTS, lm, Tokenizer.from_file(str(root / "lm/tokenizer.json"))
    )
    return Ground(root, MODEL, saes, {**data, PROMPTS: root / "data" / PROMPTS})


def lay_out_lm(root: Path, name: str, chat: Sequence[str] = ()) -> GPTNeoXForCausalLM:
    """A random GPT-NeoX in the Hub's cache, with the special tokens of a chat, the beginning's and
    padding's first."""
    spaced = [f" {word}" for words in WORDS.values() for word in words]
    prompt = [" has", " the", " first", " letter", ":", "\n"]
    tokens = [END, "<unk>", *prompt, *(f" {letter.upper()}" for letter in LETTERS), *spaced]
    tokens += [*chat, *("ABCD" if chat else "")]
    vocabulary = {_as_bytes(token): index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens([END, *chat])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = GPTNeoXConfig(
        vocab_size=len(tokens),
        hidden_size=D_MODEL,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * D_MODEL,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    lm = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        # Far from small, so that what follows depends on more than the last token.
        for weight in (parameter for parameter in lm.parameters() if parameter.ndim == 2):
            weight.normal_(0.0, 0.6)
    saved = root / "lm"
    saved.mkdir(parents=True)
    tokenizer.save(str(saved / "tokenizer.json"))
    first, padding = chat[:2] or (END, END)
    special = {"bos_token": first, "eos_token": END, "pad_token": padding, "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (saved / "tokenizer_config.json").write_text(json.dumps(settings))
    peers.lay_out_hub(root, name, lm, saved)
    return lm


def _as_bytes(token: str) -> str:
    return token if token.startswith("<") else token.replace(" ", "Ġ").replace("\n", "Ċ")


def _lay_out_data(root: Path) -> dict[str, Path]:
    draw = random.Random(0)

    def text(letters: str, words: int = 24) -> str:
        """Half of its words begin with those letters, half with any."""
        chosen = [draw.choice(letters if index % 2 else LETTERS) for index in range(words)]
        return "".join(f" {draw.choice(WORDS[letter])}" for letter in chosen)

    def crossed(
        first: str, firsts: Sequence[int], second: str, seconds: Sequence[Any], column: str
    ) -> list[dict[str, Any]]:
        """12 rows of each pair of classes."""
        return [
            {
                column: text(LETTERS[one % 26] + LETTERS[25 - 3 * seconds.index(other)]),
                first: one,
                second: other,
            }
            for one in firsts
            for other in seconds
            for _ in range(12)
        ]

    bios = crossed("profession", range(28), "gender", [0, 1], "hard_text")
    amazon = crossed("category", range(34), "rating", [1.0, 5.0], "text")
    news = [{"text": text(LETTERS[n]), "label": n} for n in range(4) for _ in range(16)]
    for name, rows in ((BIOS, bios), (AMAZON, amazon), (NEWS, news)):
        for split in ("train", "test"):
            draw.shuffle(rows)
            parquet(root / name / "data" / f"{split}-00000-of-00001.parquet", rows)
    _lay_out_europarl(root / EUROPARL, text)
    languages = ("C", "Python", "HTML", "Java", "PHP")
    code = [
        {"code": text(letter, words=200), "language": language}
        for language, letter in zip(languages, LETTERS, strict=False)
        for _ in range(24)
    ]
    (root / CODE).mkdir(parents=True)
    (root / CODE / "github-code.py").write_text(SCRIPT)
    lines = "".join(f"{json.dumps(row)}\n" for row in code)
    (root / CODE / "rows.jsonl").write_text(lines)
    (root / PILE).mkdir(parents=True)
    documents = [json.dumps({"text": text(LETTERS, words=40)}) for _ in range(800)]
    (root / PILE / "train.jsonl").write_text("\n".join(documents))
    return {name: root / name for name in (BIOS, AMAZON, CODE, NEWS, EUROPARL, PILE)}


@torch.no_grad()
def _lay_out_ravel(folder: Path, lm: GPTNeoXForCausalLM, tokenizer: Tokenizer) -> None:
    """Prompts whose right answer is what the LM says."""
    entities = [f" {word}" for letter in LETTERS for word in WORDS[letter][:3]]
    folder.mkdir(parents=True)
    for kind, templates in ATTRIBUTES.items():
        said: dict[str, dict[str, str]] = {entity: {} for entity in entities}
        for attribute, template in templates.items():
            for entity in entities:
                ids = torch.tensor([tokenizer.encode(template % entity).ids])
                answer = int(lm(ids).logits[0, -1].argmax())
                said[entity][attribute] = tokenizer.decode([answer]).strip()
        split = ["train", "val"]
        for name, content in {
            "entity_attributes": said,
            "attribute_to_prompts": {key: [template] for key, template in templates.items()},
            "prompt_to_split": dict.fromkeys(templates.values(), "train"),
            "entity_to_split": {entity: split[n % 2] for n, entity in enumerate(entities)},
        }.items():
            (folder / f"ravel_{kind}_{name}.json").write_text(json.dumps(content))


def _lay_out_europarl(folder: Path, text: Any) -> None:
    pairs = {"en": "en-fr", "fr": "fr-it", "de": "de-en", "es": "es-fr", "nl": "nl-pt"}
    described = ["---", "configs:"]
    for language, pair in pairs.items():
        rows = [
            {"translation": {side: text(side[0]) for side in pair.split("-")}} for _ in range(24)
        ]
        assert language in pair.split("-")
        parquet(folder / pair / "train-00000-of-00001.parquet", rows)
        files = f"[{{split: train, path: {pair}/train-*}}]"
        described += [f"- config_name: {pair}", f"  data_files: {files}"]
    (folder / "README.md").write_text("\n".join([*described, "---", ""]))


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(list(rows)).to_parquet(path, index=False)
