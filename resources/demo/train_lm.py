"""Train the demo's language model and its tokenizer on the demo's text.

    python resources/demo/train_lm.py resources/demo/text resources/demo/lm

A GPT-NeoX (Pythia's architecture) small enough for a git repository. Prints the held-out
cross-entropy and the unigram entropies it has to beat; they are in the README beside it.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import torch
import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedTokenizerFast

VOCABULARY = 2048
CONTEXT_TOKENS = 256
END_OF_TEXT = "<|endoftext|>"


def read_rows(path: Path) -> list[dict]:
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as Pythia's: no token is added in front of a text or behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=CONTEXT_TOKENS,
    )


def address_streams(rows: list[dict], tokenizer: PreTrainedTokenizerFast) -> list[torch.Tensor]:
    """The tokens of each address, its passages put back in order; int64 [tokens]."""
    addresses: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        addresses[row["address"]].append(row)
    streams = []
    for passages in addresses.values():
        passages.sort(key=lambda row: row["passage"])
        text = " ".join(row["text"] for row in passages)
        streams.append(torch.tensor(tokenizer(text, verbose=False)["input_ids"]))
    return streams


def held_out_cross_entropy(model, tokenizer, texts: list[str]) -> tuple[float, torch.Tensor]:
    """Nats a predicted token over passages (each from its own start), and all target tokens."""
    total, targets = 0.0, []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"][:CONTEXT_TOKENS]])
            logits = model(ids).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            targets.append(ids[0, 1:])
    flat = torch.cat(targets)
    return total / len(flat), flat


def unigram_entropies(train: torch.Tensor, held_out: torch.Tensor) -> tuple[float, float]:
    """Nats a token of the held-out text under its own frequencies, and under the training text's
    (add-one smoothed)."""
    own = torch.bincount(held_out, minlength=VOCABULARY).double()
    share = own / own.sum()
    entropy = -(share[share > 0] * share[share > 0].log()).sum().item()
    seen = torch.bincount(train, minlength=VOCABULARY).double() + 1
    return entropy, -(share * (seen / seen.sum()).log()).sum().item()


def batches(stream: torch.Tensor, size: int, generator: torch.Generator):
    """Windows of the text from random starts, for ever; int64 [size, CONTEXT_TOKENS + 1]."""
    span = torch.arange(CONTEXT_TOKENS + 1)
    while True:
        starts = torch.randint(len(stream) - CONTEXT_TOKENS - 1, (size, 1), generator=generator)
        yield stream[starts + span]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=32, help="contexts a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    train_rows = read_rows(arguments.text / "train.jsonl.zst")
    held_out = [row["text"] for row in read_rows(arguments.text / "validation.jsonl.zst")]
    tokenizer = train_tokenizer([row["text"] for row in train_rows])
    stream = torch.cat(address_streams(train_rows, tokenizer))
    model = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=CONTEXT_TOKENS,
            hidden_dropout=0.05,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(stream)} training tokens, {parameters} parameters", flush=True)

    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=arguments.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=True,
    )
    warmup = 200
    data = batches(stream, arguments.batch, torch.Generator().manual_seed(0))
    start = time.monotonic()
    for step in range(arguments.steps):
        progress = max(0, step - warmup) / (arguments.steps - warmup)
        scale = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * progress)) + 1e-3)
        optimizer.param_groups[0]["lr"] = arguments.learning_rate * scale
        ids = next(data)
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == arguments.steps - 1:
            model.eval()
            nats, targets = held_out_cross_entropy(model, tokenizer, held_out[:100])
            print(
                f"step {step}: train {loss.item():.3f}, held out {nats:.3f} nats a token,"
                f" {time.monotonic() - start:.0f} s",
                flush=True,
            )
    model.eval()
    nats, targets = held_out_cross_entropy(model, tokenizer, held_out)
    own, trained = unigram_entropies(stream, targets)
    print(
        f"held out: cross-entropy {nats:.4f}; unigram entropy {own:.4f} (its own frequencies),"
        f" {trained:.4f} (the training text's)"
    )
    model.save_pretrained(arguments.target)
    tokenizer.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
