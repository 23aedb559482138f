"""circuit-tracer's format in paths: the transcoders of all layers of a model in one folder."""

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.config.depth import layers_of
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep

CONFIG = "config.yaml"
# What circuit-tracer calls the sites of a block; it replaces MLPs, and nothing else.
READ = {"resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "mlp_in": "mlp.hook_in"}
WRITTEN = {"mlp_out": "hook_mlp_out"}


def check_site(hookpoint: Hookpoint) -> None:
    """Raise SaemakeError where circuit-tracer cannot have transcoders of these sites."""
    if hookpoint.read not in READ or hookpoint.write not in WRITTEN:
        raise SaemakeError(
            f"circuit-tracer replaces MLPs: its transcoders read {', '.join(READ)} and write"
            f" {', '.join(WRITTEN)}, for example mlp_in-mlp_out, not {hookpoint.site}"
        )


def layer_file(layer: int) -> str:
    """The file of a layer's transcoder."""
    return f"layer_{layer}.safetensors"


def layer_files(config: Config, model: str) -> list[str]:
    """The files of the transcoders in a folder: circuit-tracer wants those of every layer."""
    return [layer_file(layer) for layer in range(layers_of(config, model))]


def tracer_files(config: Config, model: str) -> list[str]:
    """All files of a folder."""
    return [CONFIG, *layer_files(config, model)]


def at_layer(sae: SaeName, layer: int) -> SaeName:
    """The same transcoder of another layer."""
    sweep, hookpoint = sae.sweep, sae.hookpoint
    moved = Hookpoint(layer, hookpoint.read, hookpoint.write)
    return SaeName(
        Sweep(sweep.model, moved, sweep.architecture, sweep.width), sae.sparsity, sae.seed
    )


def at_layers(config: Config, sae: SaeName) -> list[SaeName]:
    """The same transcoder of every layer."""
    return [at_layer(sae, layer) for layer in range(layers_of(config, sae.model))]


def layer_in(file: str) -> int | None:
    """The layer whose file it is; None of config.yaml."""
    return None if file == CONFIG else int(file.removeprefix("layer_").partition(".")[0])
