"""Sweeps: which SAEs are in one, what one job trains, and what the config has."""

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.config.checks import check_fits
from saemake.config.config import Config
from saemake.config.depth import layers_of
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.paths.spelling import check_width, unknown


def members(config: Config, trained: Sweep | SaeName) -> list[SaeName]:
    """The SAEs that one job trains: of a sweep, in the config's order, or one that no sweep lists.

    Raises SaemakeError where the model, layer, architecture or width is none, or where its settings
    do not fit (see check_fits).
    """
    sweep = trained.sweep if isinstance(trained, SaeName) else trained
    check_model(config, sweep.model)
    check_in_model(config, sweep.model, sweep.hookpoint)
    if sweep.architecture not in config.architectures:
        if sweep.architecture in architectures.variants():
            raise SaemakeError(
                f"the config has no entry for {sweep.architecture}; add"
                f" `{sweep.architecture}: {{}}` to architectures"
            )
        raise unknown("architecture", sweep.architecture, config.architectures)
    check_transcodes(sweep)
    check_width(config, sweep.width)
    if isinstance(trained, SaeName):
        return [trained]
    check_fits(config, sweep.model, sweep.architecture, sweep.width)
    swept = config.settings_of(sweep.model, sweep.architecture).sweep
    return [SaeName(sweep, value) for value in swept]


def of_other_seeds(config: Config, sweep: Sweep) -> list[SaeName]:
    """The SAEs beside those of a sweep that differ from them in their seed alone: as the suite of
    its model asks, seed by seed. None where the sweep is not of the suite.

    The seed of `training.seed` is that of the sweep's own SAEs, whose names have none.
    """
    suite = config.models[sweep.model].suite
    if sweep.architecture not in suite.architectures or sweep.width not in suite.widths:
        return []
    own = config.training_of(sweep.model).seed
    swept = config.settings_of(sweep.model, sweep.architecture).sweep
    return [
        SaeName(sweep, value, seed) for seed in suite.seeds or [] if seed != own for value in swept
    ]


def with_seeds(config: Config, sweep: Sweep) -> list[SaeName]:
    """The SAEs in a sweep's table: its own, and those of the suite's other seeds. Raises
    SaemakeError as `members` does."""
    return [*members(config, sweep), *of_other_seeds(config, sweep)]


def seeds_of(config: Config, sweep: Sweep) -> list[int]:
    """The seeds of the SAEs in a sweep's table: first that of the sweep itself."""
    others = (sae.seed for sae in of_other_seeds(config, sweep) if sae.seed is not None)
    return list(dict.fromkeys([config.training_of(sweep.model).seed, *others]))


def check_transcodes(sweep: Sweep) -> None:
    """Raise SaemakeError where an architecture is of transcoders alone, or of SAEs alone, and the
    hookpoint is not."""
    kind, hookpoint = architectures.get(sweep.architecture), sweep.hookpoint
    if kind.skip and not hookpoint.is_transcoder:
        raise SaemakeError(
            f"{kind.name} is for transcoders: an SAE writes the site that it reads, so its skip"
            f" connection could copy that; name {architectures.base_name(kind.name)}, or two sites:"
            f" L{hookpoint.layer}.mlp_in-mlp_out"
        )
    if hookpoint.is_transcoder and not kind.transcodes:
        known = map(architectures.get, architectures.names())
        able = ", ".join(each.name for each in known if each.transcodes)
        raise SaemakeError(f"{kind.name} cannot be a transcoder: choose one of {able}")


def trained_with(config: Config, sae: SaeName) -> Sweep | SaeName:
    """What the job of an SAE trains: its sweep, or it alone where the sweep does not list it."""
    swept = config.settings_of(sae.model, sae.sweep.architecture).sweep
    fewest = latents_for(config, sae.model, sae.sweep.architecture)
    narrow = config.latents(sae.sweep.width) < fewest
    alone = sae.seed is not None or sae.sparsity not in swept or narrow
    return sae if alone else sae.sweep


def latents_for(config: Config, model: str, architecture: str) -> int:
    """The fewest latents that the SAEs of a sweep fit into, all of them."""
    return max(config.settings_of(model, architecture).latents_needed().values(), default=1)


def check_in_model(config: Config, model: str, hookpoint: Hookpoint) -> None:
    """Raise SaemakeError where the model has no such layer, or where its layers are not known (see
    layers_of)."""
    last = layers_of(config, model) - 1
    if not 0 <= hookpoint.layer <= last:
        raise SaemakeError(f"{model} has layers L0 to L{last}, not L{hookpoint.layer}")


def check_model(config: Config, model: str) -> None:
    """Raise SaemakeError where the config has no such model."""
    if model not in config.models:
        raise SaemakeError(
            f"{unknown('model', model, config.models)} (if a config file of your own has it, add"
            " --configfile FILE)"
        )
