"""dictionary_learning training a sweep of TopK SAEs as its demo does: a text, nnsight's model, its
ActivationBuffer, its trainSAE. Argument: a JSON file with

lm, layer        the language model, a folder that transformers 4.49 reads; after which block
dtype            of the model
text             a .jsonl.zst of documents, begun anew at its end
context_tokens   documents are cut at these
llm_batch        documents at once
buffer_tokens, batch_tokens, steps, learning_rate, warmup_steps,
                 threshold_start_step
width, ks        one SAE for each k
autocast         float32 or bfloat16
threads
out              the folder that the SAEs are saved in
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from dictionary_learning.buffer import ActivationBuffer
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
from dictionary_learning.training import trainSAE
from dictionary_learning.utils import zst_to_generator
from nnsight import LanguageModel


class InBfloat16(TopKTrainer):
    """On a GPU trainSAE steps under autocast; on a CPU it leaves that out."""

    def update(self, step: int, x: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            super().update(step, x)


def documents(path: str) -> Iterator[str]:
    while True:
        yield from zst_to_generator(path)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    model = LanguageModel(job["lm"], dispatch=True, device_map="cpu")
    model = model.to(dtype=getattr(torch, job["dtype"]))
    blocks = model.gpt_neox.layers if hasattr(model, "gpt_neox") else model.model.layers
    buffer = ActivationBuffer(
        documents(job["text"]),
        model,
        blocks[job["layer"]],
        d_submodule=model.config.hidden_size,
        n_ctxs=job["buffer_tokens"] // job["context_tokens"],
        ctx_len=job["context_tokens"],
        refresh_batch_size=job["llm_batch"],
        out_batch_size=job["batch_tokens"],
    )
    trainers = [
        {
            "trainer": InBfloat16 if job["autocast"] == "bfloat16" else TopKTrainer,
            "dict_class": AutoEncoderTopK,
            "activation_dim": model.config.hidden_size,
            "dict_size": job["width"],
            "k": k,
            "lr": job["learning_rate"],
            "warmup_steps": job["warmup_steps"],
            "decay_start": None,
            "threshold_start_step": job["threshold_start_step"],
            "steps": job["steps"],
            "layer": job["layer"],
            "lm_name": "none",
            "device": "cpu",
            "seed": 0,
        }
        for k in job["ks"]
    ]
    trainSAE(
        data=buffer,
        trainer_configs=trainers,
        steps=job["steps"],
        save_dir=job["out"],
        device="cpu",
        autocast_dtype=getattr(torch, job["autocast"]),
    )


if __name__ == "__main__":
    main()
