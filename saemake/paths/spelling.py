"""Widths, sparsities and seeds as parts of a path.

A width is a name of the config's `widths`, or a number of latents that these do not name: `2k` for
2 x 1,024, `3072`. A sparsity is the architecture's parameter with a value, `k_24`, whether a sweep
lists it or not. A value has one spelling.
"""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from saemake import architectures
from saemake.base.errors import SaemakeError, nearest
from saemake.config.checks import check_fits
from saemake.config.config import MOST_LATENTS, NUMBERED_WIDTH, Config, latents_in
from saemake.paths.names import SaeName, Sweep, seed_name, sparsity_name

SEED = re.compile(r"seed_([0-9]{1,19})")
MOST_SEED = 2**63 - 1


def check_width(config: Config, name: str) -> None:
    """Raise SaemakeError, with the right spelling, where no width has that name."""
    if name in config.widths:
        return
    if not NUMBERED_WIDTH.fullmatch(name):
        raise unknown("width", name, config.widths)
    latents = latents_in(name)
    if latents > MOST_LATENTS:
        raise SaemakeError(
            f"width '{name}' is {latents:,} latents, more than the most, {MOST_LATENTS:,}"
            f" ('{width_name(config, MOST_LATENTS)}')"
        )
    if latents in config.widths.values():
        raise SaemakeError(f"width '{name}' is spelt '{width_name(config, latents)}'")


def width_name(config: Config, latents: int) -> str:
    """The name of a width: the config's (of several the shortest), or its number."""
    names = [name for name, size in config.widths.items() if size == latents]
    if names:
        return min(names, key=lambda name: (len(name), name))
    thousands = f"{latents // 1024}k"
    exact = latents % 1024 == 0 and thousands not in config.widths
    return thousands if exact else str(latents)


def sae_of(config: Config, sweep: Sweep, sparsity: str, seed: str | None = None) -> SaeName:
    """The SAE of these parts of a path. The sweep must be one of the config (see members).

    Raises SaemakeError, with the right spelling or the nearest name, where a part cannot be.
    """
    value = _swept(config, sweep).get(sparsity)
    if value is None:
        value = _value(config, sweep, sparsity)
    _check_fits(config, sweep, value)
    return SaeName(sweep, value, None if seed is None else _seed(config, sweep, seed))


def _swept(config: Config, sweep: Sweep) -> dict[str, float]:
    values = config.settings_of(sweep.model, sweep.architecture).sweep
    return {sparsity_name(sweep.architecture, value): value for value in values}


def _value(config: Config, sweep: Sweep, name: str) -> float:
    """The value in a sparsity's name, which fits the architecture and the width."""
    architecture, swept = sweep.architecture, _swept(config, sweep)
    kind = architectures.get(architecture)
    word, _, text = name.rpartition("_")
    if word != kind.sparsity:
        right = f"{kind.sparsity}_{text}"
        if word and _is_value(architecture, text):
            raise SaemakeError(
                f"'{name}' is no sparsity of {architecture}, whose parameter is {kind.sparsity};"
                f" did you mean '{right}'?"
            )
        raise unknown("sparsity", name, swept)
    try:
        value = value_of(architecture, text)
    except ValidationError as error:
        if not _number(text):
            raise unknown("sparsity", name, swept) from None
        first = error.errors(include_url=False)[0]
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise SaemakeError(
            f"'{name}' cannot be a sparsity of {architecture} ({reason}); known: {', '.join(swept)}"
        ) from None
    if name != (right := sparsity_name(architecture, value)):
        raise SaemakeError(f"sparsity '{name}' is spelt '{right}'")
    return value


def _check_fits(config: Config, sweep: Sweep, value: float) -> None:
    """Raise SaemakeError where an SAE of that sparsity alone does not fit its width or training."""
    settings = config.settings_of(sweep.model, sweep.architecture)
    settings = settings.model_copy(update={"sweep": [value]})
    latents = config.latents(sweep.width)
    for key, needed in settings.latents_needed().items():
        if key == "sweep" and needed > latents:
            raise SaemakeError(
                f"'{sparsity_name(sweep.architecture, value)}' needs {needed} latents, more than"
                f" the {latents} of width {sweep.width}; choose a larger width or a smaller value"
            )
    check_fits(config, sweep.model, sweep.architecture, sweep.width, settings)


def value_of(architecture: str, text: str) -> Any:
    """A sparsity's value, as a sweep of the architecture has it: names tell an int from a float.
    Raises pydantic's ValidationError where it is none."""
    sweep: Any = architectures.get(architecture).Settings.model_fields["sweep"].annotation
    return TypeAdapter(sweep).validate_python([text])[0]


def _is_value(architecture: str, text: str) -> bool:
    try:
        value_of(architecture, text)
    except ValidationError:
        return False
    return True


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _seed(config: Config, sweep: Sweep, name: str) -> int:
    match = SEED.fullmatch(name)
    if not match:
        raise SaemakeError(f"'{name}' is no seed; seeds are named seed_1, seed_2, ...")
    seed, default = int(match[1]), config.training_of(sweep.model).seed
    if seed > MOST_SEED:
        raise SaemakeError(f"'{name}' cannot be: the largest seed is {MOST_SEED}")
    if name != (right := seed_name(seed)):
        raise SaemakeError(f"seed '{name}' is spelt '{right}'")
    if seed == default:
        raise SaemakeError(
            f"seed {seed} is the config's (training.seed), whose path has no '{name}'; leave it out"
        )
    return seed


def unknown(kind: str, name: str, known: Iterable[str]) -> SaemakeError:
    """The error of a name that the config has not."""
    return SaemakeError(f"no {kind} '{name}' in the config; {nearest(name, known)}")
