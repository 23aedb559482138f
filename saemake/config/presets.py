"""Presets: values that suit a kind of model, laid under those of each model that names them."""

from collections.abc import Mapping
from typing import Any

from saemake.base.errors import nearest
from saemake.base.sections import laid_over
from saemake.config.faults import ConfigError, validated
from saemake.config.sections import Preset


def with_presets(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config as if each model had written the values of its preset itself, under its own.
    Recipes then have these values, and never the preset's name.

    Raises ConfigError where a model names a preset that is not there, or a preset has a key that is
    none. Whatever else is wrong in `raw` is left for its own check.
    """
    models, presets = raw.get("models"), raw.get("presets")
    if not isinstance(models, Mapping) or not isinstance(presets, Mapping):
        return raw
    laid = {name: _with_preset(name, model, presets) for name, model in models.items()}
    return {**raw, "models": laid}


def _with_preset(name: Any, model: Any, presets: Mapping[Any, Any]) -> Any:
    if not isinstance(model, Mapping) or not isinstance(model.get("preset"), str):
        return model
    own = {key: value for key, value in model.items() if key != "preset"}
    chosen = model["preset"]
    if chosen not in presets:
        right = nearest(chosen, [str(preset) for preset in presets])
        raise ConfigError(f"models.{name}.preset", f"no preset '{chosen}'; {right}")
    preset: Preset = validated(Preset, presets[chosen], lambda key: f"presets.{chosen}")
    return laid_over(preset.model_dump(exclude_none=True, exclude_unset=True), own)
