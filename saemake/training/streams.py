"""The batches of activations that a pass trains on. One run of the LM over the text feeds several
streams: an SAE's layer and its training's settings, such as the seed, decide which is its own."""

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
    SAEs that train on them. `norms` are for provenance.json."""

    recipe: SaeRecipe
    buffer: ActivationBuffer
    captured: Reader
    members: list[Member] = field(default_factory=list)
    scale: float = math.nan
    norms: dict[str, Any] = field(default_factory=dict)
    # Only a ContextStream has it.
    end_to_end: None = None

    def batch(self) -> Tensor:
        """The next batch, divided by the norm factor."""
        return self.buffer.batch() / self.scale

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
        return [*warned(self.norms), *self.buffer.warned(self.recipe.training.drop.reserve)]

    def drop(self, member: Member) -> None:
        """Take out an SAE. Without any the text's activations are no longer kept for the stream."""
        self.members.remove(member)
        if not self.members:
            self.captured.close()

    def state(self) -> dict[str, Any]:
        """All that the next batches depend on, except for the text."""
        return {"scale": self.scale, "norms": self.norms, "buffer": self.buffer.state()}


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
        key: _stream(recipe, captures.reader(recipe.layer), lm, tokens)
        for key, recipe in by_key.items()
    }
    for key, stream in made.items():
        # What a stream has read already, others may not have.
        for _ in itertools.islice(stream.captured, read[key] - first):
            pass
        if states:
            stream.scale, stream.norms = states[key]["scale"], states[key]["norms"]
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
    measured = [Norms(_raw_batches(stream, of_pass)) for stream in of_pass]
    factors = norm_factors(measured, of_pass[0].recipe.training.norm_batches)
    for stream, norms, factor in zip(of_pass, measured, factors, strict=True):
        stream.scale, stream.norms = factor, norms.measured()


def _raw_batches(stream: AnyStream, of_pass: Sequence[AnyStream]) -> Iterator[Tensor]:
    """A stream's batches as the LM has them; before each, all buffers that are due are filled."""
    while True:
        fill_all(of_pass)
        yield stream.buffer.batch() if isinstance(stream, Stream) else stream.raw()
