"""Floating-point operations of jobs: of matrix products and attention, two a multiplication and
addition, as torch counts them (causal attention like full attention). The rest is under a percent.

Shapes: D the model's width, F latents, N tokens.
"""

from collections.abc import Sequence

from saemake.architectures import Architecture, Settings
from saemake.architectures.training_settings import Training
from saemake.llm.cost import Lm, Operations, Reading
from saemake.llm.shape import Shape


def of_steps(
    shape: Shape,
    kind: type[Architecture],
    settings: Settings,
    training: Training,
    steps: int,
    latents: int,
) -> Operations:
    """All steps of an SAE, without the LM."""
    product = 2 * training.batch_tokens * shape.d_model * latents * steps
    dead = kind.dead_products(settings, training, steps)
    # A skip connection's product, and the gradient of its weight.
    skipped = 4 * training.batch_tokens * shape.d_model**2 * steps if kind.skip else 0
    return Operations(0, kind.step_products * product + skipped, round(dead * product))


def of_fitting(lm: Lm, reading: Reading) -> Operations:
    """Baselines: the products of the activations with themselves."""
    return Operations(lm.to_site(reading), 2 * reading.tokens * lm.shape.d_model**2)


def of_looking(lm: Lm, reading: Reading, latents: Sequence[int]) -> Operations:
    """Pages: SAEs of so many latents each encode the text twice."""
    encoded = 2 * reading.tokens * lm.shape.d_model * sum(latents)
    return Operations(lm.to_site(reading), 2 * encoded)
