"""Reading ahead: a thread makes the next batches while the LM runs on the current one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from saemake.text.shards import Contexts

AHEAD = 2


def prefetched(contexts: Iterator[Contexts], device: torch.device) -> Iterator[Contexts]:
    """The same batches in the same order. A thread makes up to AHEAD of them early, for a GPU in
    pinned memory. An exception in the thread is raised here when its batch is due."""
    if device.type == "cuda":
        contexts = map(Contexts.pinned, contexts)
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, contexts, end) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, contexts, end))
            yield batch
