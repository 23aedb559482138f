"""Read ahead: the next batches are made while the LM works on this one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from saemake.text.shards import Contexts

AHEAD = 2


def prefetched(contexts: Iterator[Contexts], device: torch.device) -> Iterator[Contexts]:
    """The batches, in order, made by a thread of their own and up to AHEAD early; for a GPU in
    pinned memory. What making one raises is raised here in its turn."""
    if device.type == "cuda":
        contexts = map(Contexts.pinned, contexts)
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, contexts, end) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, contexts, end))
            yield batch
