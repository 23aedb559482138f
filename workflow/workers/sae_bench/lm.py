"""The LM. SAE Bench loads it anew for each call; this loads it once a process."""

from typing import Any

import torch
from job import Job
from transformer_lens import HookedTransformer


def language_model(job: Job) -> HookedTransformer:
    """The LM of a job."""
    return HookedTransformer.from_pretrained_no_processing(
        job.model, device=job.device, dtype=job.dtype
    )


def load_once() -> None:
    """Let TransformerLens give the LM that it loaded before, for the same name and dtype."""
    load, loaded = HookedTransformer.from_pretrained_no_processing, {}

    def kept(name: str, device: Any = None, dtype: Any = torch.float32, **more: Any) -> Any:
        key = (name, str(device), str(dtype).removeprefix("torch."))
        if key not in loaded:
            loaded[key] = load(name, device=device, dtype=dtype, **more)
        return loaded[key]

    HookedTransformer.from_pretrained_no_processing = kept
