"""Counts the LM's operations with torch's FlopCounterMode, which itself knows neither oneDNN's
products nor attention on a CPU."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from saemake.llm.model import LanguageModel


def _linear(x: Any, weight: Any, *others: Any, **named: Any) -> int:
    return 2 * math.prod(x) * weight[0]


def _attention(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    return sdpa_flop_count(query, key, value)


ON_CPU = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


@contextlib.contextmanager
def lm_operations() -> Iterator[list[int]]:
    """The FLOPs of each run of the LM up to a layer within the block, in order."""
    counts: list[int] = []
    inner = LanguageModel.captures

    def counted(self: LanguageModel, *given: Any) -> Any:
        with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
            hidden = inner(self, *given)
        counts.append(counter.get_total_flops())
        return hidden

    LanguageModel.captures = counted  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        LanguageModel.captures = inner  # type: ignore[method-assign]
