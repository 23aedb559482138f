"""A language model as SAEs see it: activations after a layer, and logits with those replaced.

Captures and interventions go through nnsight. Shapes: B contexts, C contexts of a piece, L
positions, R positions of a part, D the model's width, V the vocabulary.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import dispatch_model
from nnsight import NNsight, save
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from saemake.base import devices
from saemake.base.errors import SaemakeError, first_line
from saemake.base.onednn import Packed, pack
from saemake.llm.at_once import LOGITS_TOGETHER, POSITIONS_TOGETHER
from saemake.llm.spreading import places
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts


def load_tokenizer(weights: Weights) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises SaemakeError if the folder has none."""
    try:
        return AutoTokenizer.from_pretrained(
            weights.folder, **weights.arguments(), local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise SaemakeError(
            f"model '{weights.name}': no tokenizer in {weights.folder} ({first_line(error)})"
        ) from None


def _attention(weights: Weights) -> dict[str, Any]:
    """How attention must be computed. Torch's own attention has no cap on its logits: some versions
    of transformers use it for Gemma 2 and silently leave the cap out."""
    config = AutoConfig.from_pretrained(
        weights.folder, **weights.arguments(), local_files_only=True
    ).get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if capped else {}


def _block_list(model: nn.Module, layers: int) -> str:
    """The dotted name of the model's list of blocks. Each family has its own name for it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return name
    raise SaemakeError(f"{type(model).__name__}: it contains no list of {layers} blocks")


class LanguageModel:
    """A frozen causal LM and the residual stream after its block `layer`.

    With `whole=False` the model has no block after `layer` and never runs its head, so that only
    `capture` works. With `whole=True` `run` and `run_with` work too.

    With `gradients=True` those of what `lasts_with` gives can be computed. The model's own weights
    have none.

    On a GPU the model may be spread over several (`weights.devices`): `device` is the first of
    them. It gives all inputs and gets all activations and logits. Raises SaemakeError if fewer are
    visible, or they are of several kinds.
    """

    def __init__(
        self,
        weights: Weights,
        layer: int,
        device: torch.device,
        *,
        whole: bool,
        gradients: bool = False,
    ) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            **weights.arguments(),
            **_attention(weights),
            dtype=getattr(torch, weights.dtype),
            local_files_only=True,
        )
        layers = model.config.get_text_config().num_hidden_layers
        blocks = _block_list(model, layers)
        if not whole:
            parent, _, last = blocks.rpartition(".")
            kept = model.get_submodule(blocks)[: layer + 1]
            setattr(model.get_submodule(parent), last, kept)
        self.model = model.eval().requires_grad_(False)
        self._blocks_name = blocks
        of_lm = devices.of_lm(device, weights.devices, weights.name)
        if len(of_lm) > 1:
            dispatch_model(self.model, self._device_map(of_lm), main_device=of_lm[0])
        else:
            self.model.to(device)
            if not gradients:
                pack(self.model if whole else self.model.get_submodule(blocks))
        self.d_model: int = model.config.get_text_config().hidden_size
        self.dtype: torch.dtype = getattr(torch, weights.dtype)
        self.device = device
        self.layer = layer
        self._traced = NNsight(self.model)
        self._blocks = functools.reduce(getattr, blocks.split("."), self._traced)

    def _device_map(self, of_lm: Sequence[torch.device]) -> dict[str, torch.device]:
        """The device of each part of the model: its blocks in order, what is before them on the
        first, the final norm and the head on the last. A head that is tied to the embedding stays
        with it: accelerate would have them be one tensor again."""
        path = self._blocks_name.split(".")
        found: dict[str, torch.device] = {}
        for depth, towards_blocks in enumerate(path):
            parent = self.model.get_submodule(".".join(path[:depth]))
            for name, _ in parent.named_children():
                if name != towards_blocks:
                    found[".".join([*path[:depth], name])] = of_lm[0]
        blocks = len(list(self.model.get_submodule(self._blocks_name).children()))
        for block, place in enumerate(places(blocks, len(of_lm))):
            found[f"{self._blocks_name}.{block}"] = of_lm[place]
        head, embedding = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        tied = head is None or head.weight is embedding.weight
        at_the_end = [self.final_norm, None if tied else head]
        for name, module in self.model.named_modules():
            if any(module is each for each in at_the_end):
                found[name] = of_lm[-1]
        return found

    def _inputs(self, contexts: Contexts) -> dict[str, Any]:
        return {
            "input_ids": contexts.ids.to(self.device, non_blocking=True),
            "attention_mask": contexts.mask.to(self.device, non_blocking=True),
            "use_cache": False,
        }

    def capture(self, contexts: Contexts) -> Tensor:
        """The residual stream after the layer, [B, L, D]. The LM stops there."""
        return self.captures(contexts, [self.layer])[self.layer]

    @torch.no_grad()
    def captures(self, contexts: Contexts, layers: Sequence[int]) -> dict[int, Tensor]:
        """The residual stream after each of these layers, [B, L, D], from one run of the LM, which
        stops at the last of them. `layers` are in order, up to `layer`."""
        pieces: list[list[Tensor]] = []
        for piece in self.pieces(contexts):
            with self._traced.trace(**self._inputs(piece)) as tracer:
                outputs: list[Any] = save([])
                for layer in layers:
                    outputs.append(self._blocks[layer].output)
                tracer.stop()
            pieces.append([_hidden(output).to(self.device) for output in outputs])
        joined = [torch.cat(of_layer) for of_layer in zip(*pieces, strict=True)]
        return dict(zip(layers, joined, strict=True))

    def captured(self, texts: Iterable[Contexts]) -> Iterator[tuple[Contexts, Tensor]]:
        """Batches of contexts, each with its `capture`."""
        return ((contexts, self.capture(contexts)) for contexts in texts)

    def run(self, contexts: Contexts) -> tuple[Tensor, Iterator[Tensor]]:
        """The residual stream after the layer [B, L, D] and the logits of the unmodified LM, in
        parts [R, V] (see `_logits`)."""
        intact = self.intact(contexts)
        return intact.written_BLD, self._logits(intact.lasts)

    @torch.no_grad()
    def intact(self, contexts: Contexts) -> "Intact":
        """A run of the unmodified LM."""
        head = self._head  # runs a trace when first used, so it must be outside the trace below
        hidden_pieces, lasts = [], []
        for piece in self.pieces(contexts):
            with self._traced.trace(**self._inputs(piece)) as tracer:
                output = self._blocks[self.layer].output.save()
                if head is None:
                    last = self._traced.output.logits.save()
                else:
                    last = head.envoy.input.save()
                    tracer.stop()
            hidden_pieces.append(_hidden(output).to(self.device))
            lasts.append(last)
        hidden_BLD = torch.cat(hidden_pieces)
        return Intact(hidden_BLD, hidden_BLD, None, lasts)

    @torch.no_grad()
    def run_with(self, contexts: Contexts, hidden_BLD: Tensor) -> Iterator[Tensor]:
        """The logits with `hidden_BLD` [B, L, D] in place of the residual stream after the layer,
        in parts [R, V] (see `_logits`)."""
        return self._logits(self.lasts_with(contexts, hidden_BLD))

    def lasts_with(
        self, contexts: Contexts, hidden_BLD: Tensor, before_BLD: Tensor | None = None
    ) -> list[Tensor]:
        """What the head reads with `hidden_BLD` [B, L, D] in place of the residual stream after the
        layer: a tensor [C, L, X] for each piece, or the logits if the model has no `_head`. They
        have a gradient where `hidden_BLD` has one.

        If blocks return only hidden states, the blocks up to the layer are skipped. If they return
        tuples, the whole model runs, since later blocks may use the rest of the tuple.
        """
        gives_tuples, head = self._gives_tuples, self._head
        pieces = self.pieces(contexts)
        hidden = hidden_BLD.to(self.dtype).split([len(piece.ids) for piece in pieces])
        lasts = []
        for piece, hidden_CLD in zip(pieces, hidden, strict=True):
            with self._traced.trace(**self._inputs(piece)) as tracer:
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
        return lasts

    def logits_of(self, last_RX: Tensor) -> Tensor:
        """Logits [R, V] of what the head reads."""
        return last_RX if self._head is None else self._head.logits(last_RX).to(self.device)

    def pieces(self, contexts: Contexts) -> list[Contexts]:
        """The contexts in pieces that run one after the other: one piece on a GPU, pieces of about
        POSITIONS_TOGETHER positions on a CPU."""
        if self.device.type != "cpu":
            return [contexts]
        few = max(POSITIONS_TOGETHER // contexts.ids.shape[1], 1)
        sides = zip(contexts.ids.split(few), contexts.mask.split(few), strict=True)
        return [Contexts(*sides_CL) for sides_CL in sides]

    @torch.no_grad()
    def _logits(self, lasts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Logits in parts [R, V]. Each part is of one context, contexts follow each other, and all
        contexts of L positions are cut into the same parts. `lasts` [C, L, X] are the head's
        inputs, or the logits themselves if the model has no `_head`."""
        at_once = LOGITS_TOGETHER[self.device.type]
        for last_CLX in lasts:
            if self._head is None:
                yield from last_CLX
                continue
            for group_CLD in last_CLX.split(max(at_once // last_CLX.shape[1], 1)):
                for part_CRD in group_CLD.split(at_once, dim=1):
                    yield from self._head.logits(part_CRD).to(self.device)

    @functools.cached_property
    def _head(self) -> "_Head | None":
        """How the model computes logits. None if it is not one linear layer and perhaps a cap,
        which a comparison on two contexts shows."""
        linear: Any = self.model.get_output_embeddings()
        modules = self.model.named_modules()
        name = next((name for name, module in modules if module is linear), None)
        if name is None or type(linear) not in (nn.Linear, Packed):
            return None
        envoy = functools.reduce(getattr, name.split("."), self._traced)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        head = _Head(envoy, linear, cap)
        ids_BL = torch.arange(8).view(2, 4)
        with self._traced.trace(**self._inputs(Contexts(ids_BL, torch.ones_like(ids_BL)))):
            last = head.envoy.input.save()
            logits = self._traced.output.logits.save()
        ours = head.logits(last).to(logits.device)
        same = ours.shape == logits.shape and bool((ours == logits).all())
        return head if same and logits.any() else None

    @functools.cached_property
    def final_norm(self) -> nn.Module | None:
        """The norm between the last block and the head: the last norm beside the list of blocks and
        after it; or before it, if its name says that it is the final one (OPT). None if there is
        none."""
        parent, _, last = self._blocks_name.rpartition(".")
        children = list(self.model.get_submodule(parent).named_children())
        after = children[[name for name, _ in children].index(last) + 1 :]
        final = [each for each in children if "final" in each[0]]
        norms = [
            module for _, module in (*final, *after) if "norm" in type(module).__name__.lower()
        ]
        return norms[-1] if norms else None

    @functools.cached_property
    def _gives_tuples(self) -> bool:
        token_BL = torch.ones(1, 1, dtype=torch.long)
        with self._traced.trace(**self._inputs(Contexts(token_BL, token_BL))) as tracer:
            output = self._blocks[self.layer].output.save()
            tracer.stop()
        return isinstance(output, tuple)


@dataclasses.dataclass(frozen=True)
class Intact:
    """What a run of the unmodified LM gives of contexts. The activations that an SAE reads and
    those that it reconstructs, [B, L, D]; what the LM begins with where only its later part runs
    again, if that is something else; and what the head reads, a tensor [C, L, X] for each piece
    (see `LanguageModel.lasts_with`)."""

    read_BLD: Tensor
    written_BLD: Tensor
    before_BLD: Tensor | None
    lasts: list[Tensor]


@dataclasses.dataclass(frozen=True)
class _Head:
    """A linear layer. Some families (Gemma 2) squash its logits below a cap."""

    envoy: Any
    linear: nn.Module
    cap: float | None

    def logits(self, last: Tensor) -> Tensor:
        """Logits [..., V] of the layer's inputs [..., D]."""
        logits: Tensor = self.linear(last)
        if self.cap is None:
            return logits
        if logits.requires_grad:
            return (logits / self.cap).tanh() * self.cap
        return logits.div_(self.cap).tanh_().mul_(self.cap)


def token_losses(logits: Iterable[Tensor], contexts: Contexts) -> Tensor:
    """Cross-entropy in nats of each token, except for padding and the first token of a context:
    float32 [predictions], contexts end to end. `logits` come in parts [R, V], as from
    `LanguageModel.run`."""
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
    """The activations themselves. Raises SaemakeError if one is not finite."""
    if not activations.isfinite().all():
        raise SaemakeError(f"{label}: the LM's activations are not finite (dtype {lm.dtype})")
    return activations


def _hidden(output: Any) -> Tensor:
    """The hidden states of a block's output. In some families it is a tuple that starts with
    them."""
    return output[0] if isinstance(output, tuple) else output
