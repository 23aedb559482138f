"""A language model as SAEs see it: activations at its sites, and logits with those replaced.

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

from saemake.base import devices
from saemake.base.errors import SaemakeError
from saemake.base.onednn import Packed, pack
from saemake.llm import loading, sites
from saemake.llm.at_once import LOGITS_TOGETHER, POSITIONS_TOGETHER
from saemake.llm.hookpoint import SITES, Hookpoint
from saemake.llm.spreading import places
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts


class LanguageModel:
    """A frozen causal LM, and what SAEs read and replace at a hookpoint of it.

    With `whole=False` the model has no block after the hookpoint's and never runs its head, so that
    only captures work. With `whole=True` `run` and `run_with` work too. A site that the model does
    not have is refused when it is first used, with a SaemakeError.

    With `gradients=True` those of what `lasts_with` gives can be computed. The model's own weights
    have none.

    On a GPU the model may be spread over several (`weights.devices`): `device` is the first of
    them. It gives all inputs and gets all activations and logits. Raises SaemakeError if fewer are
    visible, or they are of several kinds.
    """

    def __init__(
        self,
        weights: Weights,
        hookpoint: Hookpoint,
        device: torch.device,
        *,
        whole: bool,
        gradients: bool = False,
    ) -> None:
        layer = hookpoint.layer
        model = loading.load(weights, device)
        blocks = loading.block_list(model, loading.layers_in(model.config))
        if not whole:
            parent, _, last = blocks.rpartition(".")
            kept = model.get_submodule(blocks)[: layer + 1]
            setattr(model.get_submodule(parent), last, kept)
        self.model = model
        self._blocks_name = blocks
        of_lm = devices.of_lm(device, weights.devices, weights.name)
        if len(of_lm) > 1:
            dispatch_model(self.model, self._device_map(of_lm), main_device=of_lm[0])
        else:
            if weights.quantization is None:
                self.model.to(device)
            if not gradients:
                pack(self.model if whole else self.model.get_submodule(blocks))
        self.d_model = loading.width_in(model.config)
        self.dtype: torch.dtype = getattr(torch, weights.dtype)
        self.device = device
        self.name = weights.name
        self.hookpoint = hookpoint
        self._taps: dict[int, sites.Taps] = {}
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
        """What is read at the hookpoint, [B, L, D]. The LM stops there."""
        source = self.hookpoint.source
        return self.captures(contexts, [source])[source]

    @torch.no_grad()
    def captures(
        self, contexts: Contexts, hookpoints: Iterable[Hookpoint]
    ) -> dict[Hookpoint, Tensor]:
        """The activations [B, L, D] at each of these single sites, in blocks up to the LM's own
        hookpoint's, from one run of the LM, which stops at the last of them. Raises SaemakeError
        where the model has no such site."""
        wanted = self._in_order(hookpoints)
        pieces: list[list[Tensor]] = []
        for piece in self.pieces(contexts):
            with self._traced.trace(**self._inputs(piece)) as tracer:
                tensors: list[Any] = save([])
                for hookpoint in wanted:
                    tensors.append(self._tensor(hookpoint))
                tracer.stop()
            pieces.append([self._shaped(tensor, piece) for tensor in tensors])
        joined = [torch.cat(of_site) for of_site in zip(*pieces, strict=True)]
        return dict(zip(wanted, joined, strict=True))

    def captured(self, texts: Iterable[Contexts]) -> Iterator[tuple[Contexts, Tensor]]:
        """Batches of contexts, each with its `capture`."""
        return ((contexts, self.capture(contexts)) for contexts in texts)

    @torch.no_grad()
    def run(self, contexts: Contexts) -> "Run":
        """A run of the unmodified LM."""
        head = self._head  # runs a trace when first used, so it must be outside the trace below
        before = Hookpoint(self.hookpoint.layer, "resid_pre") if self._starts_at_block else None
        source, target = self.hookpoint.source, self.hookpoint.target
        wanted = self._in_order([source, target, *([before] if before else [])])
        pieces, lasts = [], []
        for piece in self.pieces(contexts):
            with self._traced.trace(**self._inputs(piece)) as tracer:
                tensors: list[Any] = save([])
                for hookpoint in wanted:
                    tensors.append(self._tensor(hookpoint))
                if head is None:
                    last = self._traced.output.logits.save()
                else:
                    last = head.envoy.input.save()
                    tracer.stop()
            pieces.append([self._shaped(tensor, piece) for tensor in tensors])
            lasts.append(last)
        at = dict(zip(wanted, map(torch.cat, zip(*pieces, strict=True)), strict=True))
        begin_BLD = None if before is None else at[before]
        return Run(at[source], at[target], begin_BLD, lasts, self._logits(lasts))

    @torch.no_grad()
    def run_with(
        self, contexts: Contexts, written_BLD: Tensor, before_BLD: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The logits with `written_BLD` [B, L, D] in place of what is at the hookpoint (of a
        transcoder, at the site that it writes), in parts [R, V] (see `_logits`)."""
        return self._logits(self.lasts_with(contexts, written_BLD, before_BLD))

    def lasts_with(
        self, contexts: Contexts, written_BLD: Tensor, before_BLD: Tensor | None = None
    ) -> list[Tensor]:
        """What the head reads, with `written_BLD` as in `run_with`: a tensor [C, L, X] for each
        piece, or the logits if the model has no `_head`. They have a gradient where `written_BLD`
        has one.

        If blocks return only hidden states, the blocks before the site are skipped: those up to the
        layer where the site is the residual stream after it. At other sites the LM begins with the
        layer's block, if `before_BLD`, of `run` on the same contexts, says what that reads; else it
        runs whole. If blocks return tuples, the whole model runs, since later blocks may use the
        rest of the tuple.
        """
        gives_tuples, head = self._gives_tuples, self._head
        tap, layer = self._tap(self.hookpoint.target), self.hookpoint.layer
        pieces = self.pieces(contexts)
        sizes = [len(piece.ids) for piece in pieces]
        written = written_BLD.to(self.dtype).split(sizes)
        skipped, begin = 0, written
        if not gives_tuples:
            if tap in (sites.RESID_PRE, sites.RESID_POST):
                skipped = layer + (tap == sites.RESID_POST)
            elif before_BLD is not None:
                skipped, begin = layer, before_BLD.split(sizes)
        lasts = []
        for piece, written_CLD, begin_CLD in zip(pieces, written, begin, strict=True):
            with self._traced.trace(**self._inputs(piece)) as tracer:
                for index in range(skipped):
                    self._blocks[index].skip(begin_CLD)
                if tap != sites.RESID_POST or gives_tuples:
                    self._replace(tap, written_CLD)
                if head is None:
                    last = self._traced.output.logits.save()
                else:
                    last = head.envoy.input.save()
                    tracer.stop()
            lasts.append(last)
        return lasts

    def _in_order(self, hookpoints: Iterable[Hookpoint]) -> list[Hookpoint]:
        """Single sites, each once, as a run of the LM reaches them."""
        return sorted(set(hookpoints), key=lambda each: (each.layer, self._tap(each).step))

    def _module(self, layer: int, tap: sites.Tap) -> Any:
        """The module of a tap, in nnsight."""
        envoy = self._blocks[layer]
        for part in tap.path.split(".") if tap.path else ():
            envoy = envoy[int(part)] if part.isdigit() else getattr(envoy, part)
        return envoy

    def _tensor(self, hookpoint: Hookpoint) -> Tensor:
        """Within a trace: the activations at a single site. A copy, of what is not a block's own:
        some families add to it in place."""
        tap = self._tap(hookpoint)
        module = self._module(hookpoint.layer, tap)
        tensor: Tensor = sites.first(module.input if tap.side == "input" else module.output)
        return tensor.clone() if tap.path else tensor

    def _replace(self, tap: sites.Tap, written_CLD: Tensor) -> None:
        """Within a trace: put other activations in the place of a tap's."""
        module = self._module(self.hookpoint.layer, tap)
        if tap.side == "output":
            there = sites.first(module.output)
            there[:] = written_CLD.view(there.shape)
        elif tap.used_again:
            there = module.input
            there[:] = written_CLD.view(there.shape)
        else:
            there = module.input
            module.input = written_CLD.view(there.shape).to(there)

    def _shaped(self, tensor: Tensor, contexts: Contexts) -> Tensor:
        """On the LM's device, as [B, L, D]: in some families MLPs see all positions in a row."""
        return tensor.to(self.device).view(*contexts.ids.shape, -1)

    def _tap(self, hookpoint: Hookpoint) -> sites.Tap:
        """Where a single site is. Raises SaemakeError where the model has no such site."""
        layer, site = hookpoint.layer, hookpoint.read
        if site in sites.BLOCK_TAPS:
            return sites.BLOCK_TAPS[site]
        if layer not in self._taps:
            block = self.model.get_submodule(f"{self._blocks_name}.{layer}")
            ids_BL = torch.arange(8).view(2, 4)
            inputs = self._inputs(Contexts(ids_BL, torch.ones_like(ids_BL)))
            self._taps[layer] = sites.find(block, lambda: self.model(**inputs))
        found = self._taps[layer]
        if site not in found.of:
            raise SaemakeError(
                f"model '{self.name}' has no {site} in its block {layer} ({found.why_not}); its"
                f" sites are {', '.join(each for each in SITES if each in found.of)}"
            )
        return found.of[site]

    @property
    def _starts_at_block(self) -> bool:
        """Whether an intervention can begin with the layer's block, given what that reads."""
        within = self.hookpoint.target.read not in sites.BLOCK_TAPS
        return within and self.hookpoint.layer > 0 and not self._gives_tuples

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
        found = loading.head(self.model)
        if found is None or type(found[1]) not in (nn.Linear, Packed):
            return None
        name, linear = found
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
        """The norm between the last block and the head; None if there is none."""
        return loading.final_norm(self.model, self._blocks_name)

    @functools.cached_property
    def _gives_tuples(self) -> bool:
        token_BL = torch.ones(1, 1, dtype=torch.long)
        with self._traced.trace(**self._inputs(Contexts(token_BL, token_BL))) as tracer:
            output = self._blocks[self.hookpoint.layer].output.save()
            tracer.stop()
        return isinstance(output, tuple)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run of the unmodified LM gives. At the hookpoint, the activations that are read and
    those that are reconstructed, [B, L, D]: the same tensor unless it is a transcoder's. Where
    `run_with` can begin with the layer's block, `before_BLD` is what that reads. Then what the head
    reads (see `LanguageModel.lasts_with`), and the logits in parts [R, V] (see
    `LanguageModel._logits`)."""

    read_BLD: Tensor
    written_BLD: Tensor
    before_BLD: Tensor | None
    lasts: list[Tensor]
    logits: Iterator[Tensor]

    @property
    def read_and_written(self) -> tuple[Tensor, Tensor]:
        return self.read_BLD, self.written_BLD

    @property
    def sites(self) -> list[Tensor]:
        """What is read, and where that is another site, what is written."""
        alone = self.written_BLD is self.read_BLD
        return [self.read_BLD] if alone else [self.read_BLD, self.written_BLD]


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
