"""A language model as SAEs see it: activations after a layer, and losses with others put there.

Captures and interventions go through nnsight. B contexts, L positions, D the model's width.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from nnsight import NNsight
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from saemake.base.errors import SaemakeError, first_line
from saemake.base.onednn import Packed, pack
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts

# The most positions that a CPU runs together, or one context: of more, what a layer gives is memory
# that is fresh each time, and fresh memory can take as long to fill as a product
# (docs/benchmarks.md). Logits are made of so many positions together, on a CPU for the same reason
# of few.
POSITIONS_TOGETHER = 1024
LOGITS_TOGETHER = {"cpu": 128, "cuda": 2048}


def load_tokenizer(weights: Weights) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; SaemakeError where the folder has none."""
    try:
        return AutoTokenizer.from_pretrained(
            weights.folder, **weights.arguments(), local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise SaemakeError(
            f"model '{weights.name}': no tokenizer in {weights.folder} ({first_line(error)})"
        ) from None


def _block_list(model: nn.Module, layers: int) -> str:
    """The dotted name of the list of the model's blocks, whatever its family calls it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return name
    raise SaemakeError(f"{type(model).__name__}: found no list of {layers} blocks in it")


class LanguageModel:
    """A frozen causal LM and the residual stream after its block `layer`.

    With `whole=False` it holds no block after `layer` and no head's work is done: for capturing
    only. With `whole=True` losses can be had as well.
    """

    def __init__(self, weights: Weights, layer: int, device: torch.device, *, whole: bool) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            **weights.arguments(),
            dtype=getattr(torch, weights.dtype),
            local_files_only=True,
        )
        layers = model.config.get_text_config().num_hidden_layers
        blocks = _block_list(model, layers)
        if not whole:
            parent, _, last = blocks.rpartition(".")
            kept = model.get_submodule(blocks)[: layer + 1]
            setattr(model.get_submodule(parent), last, kept)
        self.model = model.eval().requires_grad_(False).to(device)
        pack(self.model if whole else self.model.get_submodule(blocks))
        self.d_model: int = model.config.get_text_config().hidden_size
        self.dtype: torch.dtype = getattr(torch, weights.dtype)
        self.device = device
        self.layer = layer
        self._traced = NNsight(self.model)
        self._blocks = functools.reduce(getattr, blocks.split("."), self._traced)

    def _inputs(self, contexts: Contexts) -> dict[str, Any]:
        return {
            "input_ids": contexts.ids.to(self.device, non_blocking=True),
            "attention_mask": contexts.mask.to(self.device, non_blocking=True),
            "use_cache": False,
        }

    @torch.no_grad()
    def capture(self, contexts: Contexts) -> Tensor:
        """The residual stream after the layer, [B, L, D]; the LM stops there."""
        found = []
        for some in self._pieces(contexts):
            with self._traced.trace(**self._inputs(some)) as tracer:
                output = self._blocks[self.layer].output.save()
                tracer.stop()
            found.append(_hidden(output))
        return torch.cat(found)

    @torch.no_grad()
    def run(self, contexts: Contexts) -> tuple[Tensor, Iterator[Tensor]]:
        """The residual stream after the layer [B, L, D] and the logits of the untouched LM (see
        `_logits`)."""
        head = self._head  # traces once itself, so not within the trace below
        found, lasts = [], []
        for some in self._pieces(contexts):
            with self._traced.trace(**self._inputs(some)) as tracer:
                output = self._blocks[self.layer].output.save()
                if head is None:
                    last = self._traced.output.logits.save()
                else:
                    last = head.envoy.input.save()
                    tracer.stop()
            found.append(_hidden(output))
            lasts.append(last)
        return torch.cat(found), self._logits(lasts)

    @torch.no_grad()
    def run_with(self, contexts: Contexts, hidden_BLD: Tensor) -> Iterator[Tensor]:
        """The logits with the residual stream after the layer replaced (see `_logits`).

        Where blocks give the hidden states alone, those up to the layer are skipped: nothing that
        they give is used. Where they give a tuple, the model runs whole, since what else is in it
        may be used.
        """
        gives_tuples, head = self._gives_tuples, self._head
        pieces = self._pieces(contexts)
        hidden = hidden_BLD.to(self.dtype).split([len(some.ids) for some in pieces])
        lasts = []
        for some, hidden_CLD in zip(pieces, hidden, strict=True):
            with self._traced.trace(**self._inputs(some)) as tracer:
                if gives_tuples:
                    self._blocks[self.layer].output[0][:] = hidden_CLD
                else:
                    for index in range(self.layer + 1):
                        self._blocks[index].skip(hidden_CLD)
                if head is None:
                    last = self._traced.output.logits.save()
                else:
                    last = head.envoy.input.save()
                    tracer.stop()
            lasts.append(last)
        return self._logits(lasts)

    def _pieces(self, contexts: Contexts) -> list[Contexts]:
        """The contexts, on a CPU a few after others (see POSITIONS_TOGETHER)."""
        if self.device.type != "cpu":
            return [contexts]
        few = max(POSITIONS_TOGETHER // contexts.ids.shape[1], 1)
        sides = zip(contexts.ids.split(few), contexts.mask.split(few), strict=True)
        return [Contexts(*sides_CL) for sides_CL in sides]

    @torch.no_grad()
    def _logits(self, lasts: Iterable[Tensor]) -> Iterator[Tensor]:
        """The logits of one context after another's in parts [R, V], each of one context, of what
        the head is given or of all logits, [C, L, X]. Every context of L positions has the same
        parts."""
        at_once = LOGITS_TOGETHER[self.device.type]
        for last_CLX in lasts:
            if self._head is None:
                yield from last_CLX
                continue
            for some_CLD in last_CLX.split(max(at_once // last_CLX.shape[1], 1)):
                for part_CRD in some_CLD.split(at_once, dim=1):
                    yield from self._head.logits(part_CRD)

    @functools.cached_property
    def _head(self) -> "_Head | None":
        """How the model makes logits; None where it is not as for most. Tried on two contexts."""
        linear: Any = self.model.get_output_embeddings()
        name = next((name for name, one in self.model.named_modules() if one is linear), None)
        if name is None or type(linear) not in (nn.Linear, Packed):
            return None
        envoy = functools.reduce(getattr, name.split("."), self._traced)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        head = _Head(envoy, linear, cap)
        ids_BL = torch.arange(8).view(2, 4)
        with self._traced.trace(**self._inputs(Contexts(ids_BL, torch.ones_like(ids_BL)))):
            last = head.envoy.input.save()
            logits = self._traced.output.logits.save()
        found = head.logits(last)
        same = found.shape == logits.shape and bool((found == logits).all())
        return head if same and logits.any() else None

    @functools.cached_property
    def _gives_tuples(self) -> bool:
        one = torch.ones(1, 1, dtype=torch.long)
        with self._traced.trace(**self._inputs(Contexts(one, one))) as tracer:
            output = self._blocks[self.layer].output.save()
            tracer.stop()
        return isinstance(output, tuple)


@dataclasses.dataclass(frozen=True)
class _Head:
    """A linear layer, whose logits some families (Gemma 2) keep within a cap."""

    envoy: Any
    linear: nn.Module
    cap: float | None

    def logits(self, last: Tensor) -> Tensor:
        """[..., V] of what the layer is given."""
        logits = self.linear(last)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)


def token_losses(logits: Iterable[Tensor], contexts: Contexts) -> Tensor:
    """Cross-entropy in nats of each token that is not padding and has one before it in its
    context; float32 [predictions], contexts end to end. `logits` are the positions' in parts
    [R, V]."""
    following_P = contexts.ids.roll(-1, dims=1).flatten()
    losses, first = [], 0
    for logits_RV in logits:
        next_R = following_P[first : first + len(logits_RV)].to(logits_RV.device)
        losses.append(nn.functional.cross_entropy(logits_RV.float(), next_R, reduction="none"))
        first += len(logits_RV)
    predicted_BL = contexts.mask.bool().roll(-1, dims=1)
    predicted_BL[:, -1] = False
    return torch.cat(losses)[predicted_BL.flatten().to(losses[0].device)]


def checked(activations: Tensor, label: str, lm: LanguageModel) -> Tensor:
    """The activations themselves; SaemakeError where one is no finite number."""
    if not activations.isfinite().all():
        raise SaemakeError(f"{label}: the LM's activations are not finite (dtype {lm.dtype})")
    return activations


def _hidden(output: Any) -> Tensor:
    """A block's output is its hidden states, or in some families a tuple that starts with them."""
    return output[0] if isinstance(output, tuple) else output
