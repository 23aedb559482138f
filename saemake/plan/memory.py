"""Memory that a job takes at its largest: of a GPU, or of the process that computes on a CPU.

What stays (the LM, the SAEs with Adam's moments, the buffer) and what lives for a moment (a step's
tensors, a refilled buffer, a batch's logits), of which the largest moment counts.

Shapes: B activations in a batch, D the model's width, F latents, L positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from saemake import architectures
from saemake import evaluation as evaluations
from saemake.config.config import Config
from saemake.config.depth import layers_of
from saemake.evaluation.description import Cost
from saemake.llm.at_once import LOGITS_TOGETHER, POSITIONS_TOGETHER
from saemake.llm.shape import Shape
from saemake.llm.spreading import places
from saemake.recipes.features import RANKED_AT_ONCE, positions_at_once
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import stream_key

MIB = 2**20
FLOAT32_BYTES = 4
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# A process that has imported all that a job does (340 MiB), and what its heap keeps of freed blocks
# that are too small to be given back (measured: docs/benchmarks.md).
PROCESS_BYTES = 470 * MIB
# An SAE's gradients, and what a step holds of its parameters besides: of its parameters. Measured
# on a CPU with 65,536 latents (docs/benchmarks.md).
LIVE_GRADIENTS = 1.25
# Of a codec's latents [N, F] in float32 as it judges.
LIVE_JUDGED = 4.0
# Of the logits or cosines that are ranked together, in float32: themselves, and a stable sort's
# values, places (8 bytes each) and workspace.
LIVE_RANKED = 7
# Of the logits of an end-to-end loss, in float32: themselves, their log-probabilities and
# gradients, and the LM's own.
LIVE_LOGITS = 7
# What a CPU's heap keeps besides of freed blocks, whose sizes differ from step to step: measured on
# the demo, 691 MiB of a pass of two SAEs that needs 508 without.
END_TO_END_HEAP_BYTES = 190 * MIB


@dataclass(frozen=True)
class Memory:
    """Bytes of a job at its largest: `lm`, `saes` (with Adam's moments, in training) and `buffer`
    stay, `live` are those of the largest moment, on a GPU ("cuda") and on a CPU; `loaded` is the LM
    as it is loaded, whole. `lm` is its part on each GPU over which it is spread, `passing` what one
    but the first needs at most besides, while its part is at work."""

    lm: Sequence[int]
    saes: int
    buffer: int
    live: Mapping[str, int]
    loaded: int
    passing: int

    @property
    def on_gpu(self) -> int:
        """Of the device; where the LM is spread, of the first, which has all but the LM's other
        parts."""
        return self._held - sum(self.lm[1:]) + self.live["cuda"]

    @property
    def on_other_gpus(self) -> list[int]:
        """Of each other GPU over which the LM is spread."""
        return [part + self.passing for part in self.lm[1:]]

    @property
    def on_cpu(self) -> int:
        """Of the process."""
        return PROCESS_BYTES + max(self.loaded, self._held + self.live["cpu"])

    @property
    def _held(self) -> int:
        return sum(self.lm) + self.saes + self.buffer


def of_training(recipes: Sequence[SaeRecipe], shape: Shape) -> Memory:
    """A pass over these SAEs."""
    if recipes[0].training.loss != "mse":
        return _end_to_end(recipes, shape)
    model, first = recipes[0].tokens.model, recipes[0]
    streams = {stream_key(recipe): recipe for recipe in recipes}.values()
    # A transcoder's buffer has two sites.
    buffers = [
        recipe.buffer_tokens
        * shape.d_model
        * ELEMENT_BYTES[recipe.training.autocast]
        * (2 if recipe.hookpoint.is_transcoder else 1)
        for recipe in streams
    ]
    contexts, length = first.llm_batch_contexts, first.tokens.context_tokens
    # While they are refilled: what was unread, what is new, and of one at a time both together.
    refilled = sum(buffers) + max(buffers)
    live = max(_step(recipe, shape) for recipe in recipes)
    kept = sum(_kept(recipe, shape) for recipe in recipes)
    blocks = _blocks(model.dtype, shape, contexts, length)
    deepest = max(recipe.layer for recipe in recipes)
    return Memory(
        lm=lm_parts(model.dtype, shape, deepest + 1, first.lm_devices),
        saes=3 * sum(_bytes(recipe, shape) for recipe in recipes),
        buffer=sum(buffers),
        live={
            device: refilled + block + live + kept
            if device == "cuda"
            else max(refilled + block, live)
            for device, block in blocks.items()
        },
        loaded=lm_bytes(model.dtype, shape, model.layers),
        passing=blocks["cuda"],
    )


def _end_to_end(recipes: Sequence[SaeRecipe], shape: Shape) -> Memory:
    """A pass over SAEs that are trained end to end: no buffer, but the LM whole, what its later
    blocks keep for the gradient, and the logits of a few positions."""
    model, first = recipes[0].tokens.model, recipes[0]
    length = first.tokens.context_tokens
    contexts = first.training.batch_tokens // length
    live = max(_step(recipe, shape) for recipe in recipes)
    kept = sum(_kept(recipe, shape) for recipe in recipes)
    blocks = _blocks(model.dtype, shape, contexts, length)
    # Kept of a block: what its norms, its attention and its activation function read.
    features = 2 * shape.d_model + 4 * shape.attention_width + 2 * shape.mlp_width
    positions = {
        "cuda": contexts * length,
        "cpu": min(contexts * length, max(POSITIONS_TOGETHER, length)),
    }
    later = model.layers - min(recipe.layer for recipe in recipes)
    graph = {
        device: count * later * features * ELEMENT_BYTES[model.dtype]
        for device, count in positions.items()
    }
    logits = {
        device: LIVE_LOGITS * min(positions[device], at_once) * shape.vocabulary * FLOAT32_BYTES
        for device, at_once in LOGITS_TOGETHER.items()
    }
    return Memory(
        lm=lm_parts(model.dtype, shape, model.layers, first.lm_devices),
        saes=3 * sum(_bytes(recipe, shape) for recipe in recipes),
        buffer=0,
        live={
            device: max(block, graph[device] + logits[device])
            + live
            + (kept if device == "cuda" else END_TO_END_HEAP_BYTES)
            for device, block in blocks.items()
        },
        loaded=lm_bytes(model.dtype, shape, model.layers),
        passing=blocks["cuda"] + graph["cuda"],
    )


def spread(
    recipes: Sequence[SaeRecipe], shape: Shape, rooms: Sequence[int], devices: int
) -> list[int] | None:
    """On which of the first `devices` of several GPUs, with so many free bytes each, each SAE of a
    pass trains: the first also has the LM and the buffers, unless the LM is spread. The largest SAE
    first, where most room is left. None where they do not fit."""
    of_pass = of_training(recipes, shape)
    steps = [_step(recipe, shape) for recipe in recipes]
    own = [3 * _bytes(recipe, shape) + _kept(recipe, shape) for recipe in recipes]
    # What does not go with an SAE.
    without_saes = [of_pass.on_gpu - sum(own) - max(steps), *of_pass.on_other_gpus]
    left = [room - of_lm for room, of_lm in zip_longest(rooms, without_saes, fillvalue=0)]
    if min(left) < 0:
        return None
    on = range(min(devices, len(rooms)))
    largest = [0] * len(on)
    found = [0] * len(recipes)
    for index in sorted(range(len(recipes)), key=lambda each: -own[each]):
        # A step of one SAE at a time is at work on a device.
        after = [left[place] - own[index] - max(largest[place], steps[index]) for place in on]
        place = after.index(max(after))
        if after[place] < 0:
            return None
        found[index] = place
        left[place] -= own[index]
        largest[place] = max(largest[place], steps[index])
    return found


def _bytes(recipe: SaeRecipe, shape: Shape) -> int:
    """An SAE's ae.pt, or a transcoder's."""
    return sae_bytes(shape.d_model, recipe.width, skip=architectures.get(recipe.architecture).skip)


def _latents(recipe: SaeRecipe) -> int:
    """A batch's latents in float32."""
    return recipe.training.batch_tokens * recipe.width * FLOAT32_BYTES


def _step(recipe: SaeRecipe, shape: Shape) -> int:
    """A step of an SAE at work, besides what stays."""
    live_latents = architectures.get(recipe.architecture).live_latents
    sae = _bytes(recipe, shape)
    return round(live_latents * _latents(recipe) + LIVE_GRADIENTS * sae)


def _kept(recipe: SaeRecipe, shape: Shape) -> int:
    """What is kept of an SAE's step on a GPU: its matrices in bfloat16 too, and its latents (in
    float32 with their mask). It is not given back while the buffer is refilled."""
    if recipe.training.autocast == "bfloat16":
        return (_bytes(recipe, shape) + _latents(recipe)) // 2
    return 5 * _latents(recipe) // 4


def of_judging(
    config: Config, name: str, shape: Shape, evaluation: str, cost: Cost, latents: Sequence[int]
) -> Memory:
    """An evaluation of codecs of so many latents, which costs so much."""
    model, described = config.models[name], evaluations.on_text(evaluation)
    settings, text = config.evaluation_of(name, evaluation), config.needs_of(name, evaluation)
    contexts = described.batch_contexts(settings, model.llm_batch_contexts)
    length = text.context_tokens or model.context_tokens
    positions, widest = contexts * length, max(latents)
    # More where a model's logits are not simply its last layer's.
    logits = {
        device: shape.vocabulary
        * (
            min(positions, at_once) * ELEMENT_BYTES[model.dtype]
            + cost.float32_logits * min(length, at_once) * FLOAT32_BYTES
        )
        for device, at_once in LOGITS_TOGETHER.items()
    }
    # oneDNN's copy of a weight that the embedding has as it was (onednn.Packed).
    packed = (
        shape.tied and model.dtype == "float32" and not described.needs_owners_rounding(settings)
    )
    copied = shape.head_weights * FLOAT32_BYTES if packed else 0
    rows = positions if cost.rows is None else min(positions, cost.rows)
    blocks = _blocks(model.dtype, shape, contexts, length)
    coded = round(LIVE_JUDGED * rows * widest * FLOAT32_BYTES)
    # The untouched LM's logits, in float32, are there while codecs code.
    reference = positions * shape.vocabulary * FLOAT32_BYTES if cost.keeps_logits else 0
    return Memory(
        lm=lm_parts(model.dtype, shape, layers_of(config, name), model.lm_devices),
        saes=sum(sae_bytes(shape.d_model, count) for count in latents),
        buffer=0,
        live={
            "cuda": logits["cuda"] + reference + max(blocks["cuda"], coded),
            "cpu": logits["cpu"] + copied + reference + max(blocks["cpu"], coded),
        },
        loaded=lm_bytes(model.dtype, shape, layers_of(config, name)),
        passing=max(blocks["cuda"], 0 if shape.tied else logits["cuda"]),
    )


def of_fitting(config: Config, name: str, shape: Shape, layer: int) -> Memory:
    """Baselines: sums in float64."""
    model = config.models[name]
    positions = model.llm_batch_contexts * model.context_tokens
    activations = 3 * positions * shape.d_model * 8
    blocks = _blocks(model.dtype, shape, model.llm_batch_contexts, model.context_tokens)
    return Memory(
        lm=lm_parts(model.dtype, shape, layer + 1, model.lm_devices),
        saes=3 * 8 * shape.d_model**2,
        buffer=0,
        live={device: block + activations for device, block in blocks.items()},
        loaded=lm_bytes(model.dtype, shape, layers_of(config, name)),
        passing=blocks["cuda"],
    )


def of_looking(
    config: Config, name: str, shape: Shape, layer: int, tokens: int, latents: Sequence[int]
) -> Memory:
    """Pages of SAEs of so many latents each: the text's activations stay in the process."""
    model, widest = config.models[name], max(latents)
    rows = max(positions_at_once(widest), model.context_tokens)
    coded = round(LIVE_JUDGED * rows * widest * FLOAT32_BYTES)
    activations = tokens * shape.d_model * ELEMENT_BYTES[model.dtype]
    shown = tokens * config.features.sample * FLOAT32_BYTES
    # In float32: the unembedding for logits or a decoder for cosines, and what is ranked.
    matrix = max(shape.head_weights, widest * shape.d_model)
    ranked = FLOAT32_BYTES * (matrix + LIVE_RANKED * RANKED_AT_ONCE)
    blocks = _blocks(model.dtype, shape, model.llm_batch_contexts, model.context_tokens)
    return Memory(
        lm=lm_parts(model.dtype, shape, layer + 1, model.lm_devices),
        saes=sum(sae_bytes(shape.d_model, count) for count in latents),
        buffer=0,
        live={
            "cuda": max(blocks["cuda"], coded, ranked),
            "cpu": activations + max(blocks["cpu"], shown + max(coded, ranked)),
        },
        loaded=lm_bytes(model.dtype, shape, layers_of(config, name)),
        passing=max(blocks["cuda"], 0 if shape.tied else ranked),
    )


def sae_bytes(d_model: int, latents: int, *, skip: bool = False) -> int:
    """An ae.pt: encoder and decoder, the biases, and a skip connection where there is one."""
    skipped = d_model**2 if skip else 0
    return FLOAT32_BYTES * (2 * d_model * latents + latents + d_model + skipped)


def lm_bytes(dtype: str, shape: Shape, blocks: int) -> int:
    """Bytes of an LM with so many blocks."""
    return shape.weights(blocks) * ELEMENT_BYTES[dtype]


def lm_parts(dtype: str, shape: Shape, blocks: int, devices: int) -> list[int]:
    """The same on each of so many devices over which the LM is spread: the embedding is on the
    first, and the unembedding on the last, unless they are one."""
    parts = [0] * devices
    for place in places(blocks, devices):
        parts[place] += shape.block_weights
    parts[0] += shape.head_weights
    parts[-1] += 0 if shape.tied else shape.head_weights
    return [part * ELEMENT_BYTES[dtype] for part in parts]


def _blocks(dtype: str, shape: Shape, contexts: int, length: int) -> dict[str, int]:
    """A block at work on so many contexts: the residual stream three times, what the heads have of
    it, and the MLP's inside, twice. On a CPU at work on some at a time; what it gave of each, and
    of all together, is there besides. Of each device."""
    features = 3 * shape.d_model + 4 * shape.attention_width + 2 * shape.mlp_width
    positions = contexts * length
    some = min(positions, max(POSITIONS_TOGETHER, length))
    entries = {
        "cuda": positions * features,
        "cpu": some * features + 2 * positions * shape.d_model,
    }
    return {device: count * ELEMENT_BYTES[dtype] for device, count in entries.items()}
