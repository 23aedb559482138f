"""What SAE Bench's unlearning needs, laid out by hand: a small LM with a chat's special tokens,
SAEs of it, questions to which the LM gives the right answer, a text to forget and one to retain.
The words of the one begin with other letters than those of the other."""

import json
import random
from pathlib import Path
from typing import Any

import bench_ground
import peers
import torch
from bench_ground import LAYER, LETTERS, MODEL, WIDTH, WORDS, Ground
from tokenizers import Tokenizer
from transformers import GPTNeoXForCausalLM

FORGET, RETAIN = LETTERS[:8], LETTERS[8:]
SPECIAL = ("<bos>", "<pad>", "<start_of_turn>", "<end_of_turn>")
CORPUS = "bio-forget-corpus"
QUESTIONS = 12
ABOUT = {"wmdp-bio": "biology", "human_aging": "human aging"}


def make(root: Path, saes_of: str, architectures: tuple[str, ...]) -> Ground:
    """Everything; the SAEs say that they are of that LM."""
    lm = bench_ground.lay_out_lm(root, f"EleutherAI/{MODEL}", SPECIAL)
    generator = torch.Generator().manual_seed(1)
    contexts = torch.randint(2, lm.config.vocab_size, (64, 32), generator=generator)
    activations = peers.residuals(lm, contexts, LAYER)
    if architectures:
        peers.make_saes(root / "saes", activations, lm_name=saes_of, layer=LAYER, width=WIDTH)
    tokenizer = Tokenizer.from_file(str(root / "lm/tokenizer.json"))
    draw = random.Random(0)
    data = root / "data"
    for name, letters in (("wmdp-bio", FORGET), ("human_aging", RETAIN)):
        rows = [_question(draw, letters, ABOUT[name], lm, tokenizer) for _ in range(QUESTIONS)]
        _lay_out(data / "cais" / ("wmdp" if name == "wmdp-bio" else "mmlu"), name, rows)
    retained = [{"text": _text(draw, RETAIN, 24)} for _ in range(60)]
    _lay_out(data / "wikitext", "wikitext-2-raw-v1", retained)
    (data / CORPUS).mkdir()
    forgotten = [json.dumps({"text": _text(draw, FORGET, 24)}) for _ in range(60)]
    (data / CORPUS / f"{CORPUS}.jsonl").write_text("\n".join(forgotten))
    names = ("cais/wmdp", "cais/mmlu", "wikitext", CORPUS)
    saes = [root / "saes" / name for name in architectures]
    return Ground(root, MODEL, saes, {name: data / name for name in names})


def _text(draw: random.Random, letters: str, words: int) -> str:
    return "".join(f" {draw.choice(WORDS[draw.choice(letters)])}" for _ in range(words))


@torch.no_grad()
def _question(
    draw: random.Random, letters: str, about: str, lm: GPTNeoXForCausalLM, tokenizer: Tokenizer
) -> dict[str, Any]:
    """A question whose right answer is the LM's."""
    question, choices = _text(draw, letters, 6), [_text(draw, letters, 2) for _ in range(4)]
    answers = "".join(f"\n{name}. {text}" for name, text in zip("ABCD", choices, strict=True))
    prompt = (
        "<bos><start_of_turn>user\nThe following are multiple choice questions (with answers)"
        f" about {about}.\n{question}{answers}<end_of_turn>\n<start_of_turn>model\nAnswer: ("
    )
    logits = lm(torch.tensor([tokenizer.encode(prompt).ids])).logits[0, -1]
    ids = [[tokenizer.token_to_id(form) for form in (name, f"Ġ{name}")] for name in "ABCD"]
    said = max(range(4), key=lambda index: max(float(logits[each]) for each in ids[index]))
    return {"question": question, "choices": choices, "answer": said}


def _lay_out(folder: Path, config: str, rows: list[dict[str, Any]]) -> None:
    bench_ground.parquet(folder / config / "test-00000-of-00001.parquet", rows)
    files = f"[{{split: test, path: {config}/test-*}}]"
    described = ["---", "configs:", f"- config_name: {config}", f"  data_files: {files}", "---", ""]
    (folder / "README.md").write_text("\n".join(described))
