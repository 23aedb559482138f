"""Run in the environment of dictionary-learning: its own evaluation of SAEs, losses and all.
Argument: the folder ROOT, with job.json and what it names, relative to ROOT:

lm             the language model, a folder that transformers 4.49 reads
layer          SAEs are of the residual stream after this block
documents      a JSON list of texts, each one context
context_tokens how many tokens of a document count
threads        of torch
saes           a list of folders with ae.pt and config.json

and that takes

dictionary_learning.json         {folder: {name: value}}: the twelve figures of `evaluate`, over one
                                 batch of all the documents' tokens, padding aside, each once
dictionary_learning_tokens.json  the token ids of each document, as the LM saw them
seconds.json                     {folder: seconds of `evaluate`}
"""

import json
import sys
import time
from itertools import chain, repeat
from pathlib import Path

import torch
from dictionary_learning.buffer import ActivationBuffer
from dictionary_learning.evaluation import evaluate
from dictionary_learning.utils import load_dictionary
from nnsight import LanguageModel


def blocks(model: LanguageModel) -> torch.nn.ModuleList:
    """The model's blocks, of a GPT-NeoX or what is laid out as a Llama."""
    return model.gpt_neox.layers if hasattr(model, "gpt_neox") else model.model.layers


def one_batch(
    model: LanguageModel, layer: int, documents: list[str], context_tokens: int, tokens: int
) -> ActivationBuffer:
    """A buffer that holds the activations of all `tokens` of the documents after its first refresh
    and gives them in one batch; the documents come once more for the losses."""
    buffer = ActivationBuffer(
        chain.from_iterable(repeat(documents, 2)),
        model,
        blocks(model)[layer],
        d_submodule=model.config.hidden_size,
        ctx_len=context_tokens,
        refresh_batch_size=len(documents),
        out_batch_size=tokens,
    )
    # By itself a multiple of ctx_len, which documents seldom are.
    buffer.activation_buffer_size = tokens
    return buffer


def main() -> None:
    root = Path(sys.argv[1])
    job = json.loads((root / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    documents = json.loads((root / job["documents"]).read_text())
    context_tokens = job["context_tokens"]
    model = LanguageModel(
        str(root / job["lm"]), device_map="cpu", torch_dtype=torch.float32, dispatch=True
    )
    ids = model.tokenizer(documents, truncation=True, max_length=context_tokens)["input_ids"]
    judged, seconds = {}, {}
    for folder in job["saes"]:
        dictionary, _ = load_dictionary(str(root / folder), device="cpu")
        tokens = sum(map(len, ids))
        buffer = one_batch(model, job["layer"], documents, context_tokens, tokens)
        torch.manual_seed(0)
        started = time.monotonic()
        judged[folder] = evaluate(
            dictionary, buffer, max_len=context_tokens, batch_size=len(documents)
        )
        seconds[folder] = time.monotonic() - started
        assert next(buffer.data, None) is None
    (root / "dictionary_learning.json").write_text(json.dumps(judged))
    (root / "dictionary_learning_tokens.json").write_text(json.dumps(ids))
    (root / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
