"""The batches of activations that a pass trains on. One run of the LM over the text feeds several
streams: an SAE's hookpoint and its training's settings, such as the seed, decide which is its own.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saemake.activations.buffer import ActivationBuffer, fill, norm_factors
from saemake.activations.dropping import Dropping
from saemake.activations.norms import Norms, warned
from saemake.activations.shared import Reader, SharedCaptures
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import stream_key
from saemake.text.prefetch import prefetched
from saemake.text.shards import Tokens
from saemake.training.contexts import ContextStream, contexts_of
from saemake.training.members import Member


@dataclass
class Stream:
    """Batches [batch_tokens, D], the norm factor by which training divides them (`scale`), and the
    SAEs that train on them. A transcoder's have targets with a factor of their own
    (`target_scale`); of SAEs it is the same one. `norms` and `target_norms` are for
    provenance.json."""

    recipe: SaeRecipe
    buffer: ActivationBuffer
    captured: Reader
    members: list[Member] = field(default_factory=list)
    scale: float = math.nan
    target_scale: float = math.nan
    norms: dict[str, Any] = field(default_factory=dict)
    target_norms: dict[str, Any] = field(default_factory=dict)
    # Only a ContextStream has it.
    end_to_end: None = None

    def pair(self) -> tuple[Tensor, Tensor]:
        """The next batch and its targets, divided by their norm factors: for SAEs one tensor."""
        batch_BD, target_BD = self.buffer.pair()
        scaled_BD = batch_BD / self.scale
        return scaled_BD, scaled_BD if target_BD is batch_BD else target_BD / self.target_scale

    @property
    def devices(self) -> set[torch.device]:
        """Those that its SAEs train on."""
        return {member.device for member in self.members}

    @property
    def dropped_by_norm(self) -> float:
        """The fraction of the counted tokens that are left out by their norms."""
        return self.buffer.dropped_by_norm

    def warned(self) -> list[str]:
        """What to know of its activations before training."""
        return [
            *warned(self.norms),
            *(f"of what is written, {line}" for line in warned(self.target_norms)),
            *self.buffer.warned(self.recipe.training.drop.reserve),
        ]

    def drop(self, member: Member) -> None:
        """Take out an SAE. Without any the text's activations are no longer kept for the stream."""
        self.members.remove(member)
        if not self.members:
            self.captured.close()

    def state(self) -> dict[str, Any]:
        """All that the next batches depend on, except for the text."""
        targets = {"target_scale": self.target_scale, "target_norms": self.target_norms}
        return {
            "scale": self.scale,
            "norms": self.norms,
            **(targets if self.recipe.hookpoint.is_transcoder else {}),
            "buffer": self.buffer.state(),
        }


AnyStream = Stream | ContextStream


def streams(
    recipes: Iterable[SaeRecipe],
    lm: LanguageModel,
    tokens: Tokens,
    states: dict[str, dict[str, Any]] | None,
) -> dict[str, AnyStream]:
    """The streams of the SAEs of a pass by `stream_key`, from the start of the text or from the
    states in a snapshot. From the start, norm factors are still to be found (`scale_all`)."""
    by_key = {stream_key(recipe): recipe for recipe in recipes}
    if by_loss(by_key.values()):
        ((key, recipe),) = by_key.items()
        return {key: _of_contexts(recipe, lm, tokens, states[key] if states else None)}
    read = {key: states[key]["buffer"]["batches_read"] if states else 0 for key in by_key}
    first, batch_contexts = min(read.values()), next(iter(by_key.values())).llm_batch_contexts
    texts = prefetched(tokens.alike(batch_contexts, skip=first), lm.device)
    captures = SharedCaptures(texts, lm.captures)
    made: dict[str, Stream] = {
        key: _stream(recipe, captures.reader(*_sites(recipe)), lm, tokens)
        for key, recipe in by_key.items()
    }
    for key, stream in made.items():
        # What a stream has read already, others may not have.
        for _ in itertools.islice(stream.captured, read[key] - first):
            pass
        if states:
            state = states[key]
            stream.scale, stream.norms = state["scale"], state["norms"]
            stream.target_scale = state.get("target_scale", stream.scale)
            stream.target_norms = state.get("target_norms", {})
            stream.buffer.load_state(states[key]["buffer"])
    return {**made}


def by_loss(recipes: Iterable[SaeRecipe]) -> bool:
    """Whether SAEs of one pass are trained by what they change in the LM's output."""
    return any(recipe.training.loss != "mse" for recipe in recipes)


def _of_contexts(
    recipe: SaeRecipe, lm: LanguageModel, tokens: Tokens, state: dict[str, Any] | None
) -> ContextStream:
    texts = tokens.contexts(contexts_of(recipe), skip=state["read"] if state else 0)
    dropping = Dropping.of(recipe.training.drop, tokens)
    stream = ContextStream(recipe, lm, prefetched(texts, lm.device), dropping)
    if state:
        stream.load_state(state)
    return stream


def _sites(recipe: SaeRecipe) -> list[Hookpoint]:
    """What is read, and where that is another site, what is written."""
    return list(dict.fromkeys([recipe.hookpoint.source, recipe.hookpoint.target]))


def _stream(recipe: SaeRecipe, captured: Reader, lm: LanguageModel, tokens: Tokens) -> Stream:
    training = recipe.training
    buffer = ActivationBuffer(
        captured,
        d_model=lm.d_model,
        capacity_tokens=recipe.buffer_tokens,
        batch_tokens=training.batch_tokens,
        seed=training.seed,
        # The shuffled activations are in autocast's dtype.
        dtype=getattr(torch, training.autocast),
        device=lm.device,
        dropping=Dropping.of(training.drop, tokens),
    )
    return Stream(recipe, buffer, captured)


def fill_all(of_pass: Sequence[AnyStream]) -> None:
    """Fill the buffers that are due, together."""
    fill([stream.buffer for stream in of_pass if isinstance(stream, Stream)])


def scale_all(of_pass: Sequence[AnyStream]) -> None:
    """Find the streams' norm factors, from batches that are not trained on; together, so that no
    stream reads far ahead of another."""
    measured = [
        Norms(batches)
        for stream in of_pass
        for batches in _in_step(_raw_pairs(stream, of_pass), len(_sites(stream.recipe)))
    ]
    factors = norm_factors(measured, of_pass[0].recipe.training.norm_batches)
    found = zip(measured, factors, strict=True)
    for stream in of_pass:
        norms, factor = next(found)
        stream.scale, stream.norms, stream.target_scale = factor, norms.measured(), factor
        if stream.recipe.hookpoint.is_transcoder:
            norms, factor = next(found)
            stream.target_scale, stream.target_norms = factor, norms.measured()


def _raw_pairs(stream: AnyStream, of_pass: Sequence[AnyStream]) -> Iterator[tuple[Tensor, Tensor]]:
    """A stream's batches and their targets as the LM has them; before each, all buffers that are
    due are filled."""
    while True:
        fill_all(of_pass)
        yield stream.buffer.pair() if isinstance(stream, Stream) else stream.raw_pair()


def _in_step(pairs: Iterator[tuple[Tensor, Tensor]], count: int) -> list[Iterator[Tensor]]:
    """The batches, and with `count` 2 their targets too, which are read in turn."""
    if count == 1:
        return [(batch for batch, _ in pairs)]
    batches, targets = itertools.tee(pairs)
    return [(batch for batch, _ in batches), (target for _, target in targets)]
