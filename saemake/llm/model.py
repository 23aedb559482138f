"""A language model as SAEs see it: activations after a layer, and losses with others put there.

Captures and interventions go through nnsight. B contexts, L positions, D the model's width.
"""

import functools
from typing import Any

import torch
from nnsight import NNsight
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from saemake.errors import SaemakeError, first_line
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts


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
        with self._traced.trace(**self._inputs(contexts)) as tracer:
            output = self._blocks[self.layer].output.save()
            tracer.stop()
        return _hidden(output)

    @torch.no_grad()
    def run(self, contexts: Contexts) -> tuple[Tensor, Tensor]:
        """The residual stream after the layer [B, L, D] and the logits [B, L, V] of the untouched
        LM."""
        with self._traced.trace(**self._inputs(contexts)):
            output = self._blocks[self.layer].output.save()
            logits = self._traced.output.logits.save()
        return _hidden(output), logits

    @torch.no_grad()
    def run_with(self, contexts: Contexts, hidden_BLD: Tensor) -> Tensor:
        """The logits [B, L, V] with the residual stream after the layer replaced.

        Where blocks give the hidden states alone, those up to the layer are skipped: nothing that
        they give is used. Where they give a tuple, the model runs whole, since what else is in it
        may be used.
        """
        hidden_BLD = hidden_BLD.to(self.dtype)
        gives_tuples = self._gives_tuples  # traces once itself, so not within the trace below
        with self._traced.trace(**self._inputs(contexts)):
            if gives_tuples:
                self._blocks[self.layer].output[0][:] = hidden_BLD
            else:
                for index in range(self.layer + 1):
                    self._blocks[index].skip(hidden_BLD)
            replaced = self._traced.output.logits.save()
        return replaced  # noqa: RET504 - nnsight fills it when the trace ends

    @functools.cached_property
    def _gives_tuples(self) -> bool:
        one = torch.ones(1, 1, dtype=torch.long)
        with self._traced.trace(**self._inputs(Contexts(one, one))) as tracer:
            output = self._blocks[self.layer].output.save()
            tracer.stop()
        return isinstance(output, tuple)


def token_losses(logits_BLV: Tensor, contexts: Contexts) -> Tensor:
    """Cross-entropy in nats of each token that is not padding and has one before it in its
    context; float32 [predictions], contexts end to end."""
    return torch.cat(
        [
            # A context at a time: a float32 copy of all logits would fill the memory.
            nn.functional.cross_entropy(
                logits_BLV[row, : length - 1].float(),
                ids_L[1:length].to(logits_BLV.device),
                reduction="none",
            )
            for row, (ids_L, length) in enumerate(
                zip(contexts.ids, contexts.mask.sum(dim=1).tolist(), strict=True)
            )
        ]
    )


def checked(activations: Tensor, label: str, lm: LanguageModel) -> Tensor:
    """The activations themselves; SaemakeError where one is no finite number."""
    if not activations.isfinite().all():
        raise SaemakeError(f"{label}: the LM's activations are not finite (dtype {lm.dtype})")
    return activations


def _hidden(output: Any) -> Tensor:
    """A block's output is its hidden states, or in some families a tuple that starts with them."""
    return output[0] if isinstance(output, tuple) else output
