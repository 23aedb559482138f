"""The latents that the config asks the page of an SAE to show."""

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.config.faults import ConfigError
from saemake.paths.grammar import sae_named
from saemake.paths.names import RESULTS, SaeName

KEY = "features.latents"


def asked_latents(config: Config, sae: SaeName) -> list[int]:
    """The latents of an SAE that its page always shows, in order, each once."""
    return sorted(set(config.features.latents.get(str(sae), [])))


def check_asked_latents(config: Config) -> None:
    """Raise ConfigError where `features.latents` names no SAE of the config, or a latent that the
    SAE has not."""
    for name, latents in config.features.latents.items():
        key = f"{KEY}.{name}"
        try:
            sae = sae_named(config, name)
        except SaemakeError as error:
            why = str(error).removeprefix(f"{RESULTS}/{name}/ae.pt: ")
            raise ConfigError(key, f"no SAE of that name: {why}") from None
        width = config.latents(sae.sweep.width)
        for latent in latents:
            if latent >= width:
                raise ConfigError(
                    key,
                    f"{name} has no latent {latent}: its width {sae.sweep.width} has latents 0 to"
                    f" {width - 1}",
                )
