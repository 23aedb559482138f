"""The recipe of what an SAE's page shows."""

from saemake.activations.drop_settings import Drop, RecordedDrop
from saemake.config.config import Config
from saemake.paths.asked_latents import asked_latents
from saemake.paths.files import FEATURES_TEXT
from saemake.paths.names import SaeName, Trained
from saemake.paths.sweeps import members
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.kinds import LmRecipe, TokensRecipe
from saemake.recipes.training import sae_recipe

# Raised by hand when a page's data change.
FEATURES_VERSION = 1
# Limits on positions whose latents are in memory together, on these latents, and on the logits or
# cosines that are ranked together. Rounding may depend on them.
POSITIONS_AT_ONCE, LATENTS_AT_ONCE, RANKED_AT_ONCE = 4096, 2**26, 2**24


class FeaturesRecipe(LmRecipe):
    """What is seen of the latents of one SAE: `subject` is the hash of its recipe. `drop` is the
    evaluation's. What training leaves out is in the SAE's own recipe. `latents` are always
    shown. `held_out`: nothing of the text was trained on."""

    version: int
    subject: str
    text: TokensRecipe
    held_out: bool
    drop: RecordedDrop = Drop()
    batch_contexts: int
    cpu_threads: int
    tokens: int
    sample: int
    contexts: int
    window: int
    latents: list[int]


def positions_at_once(width: int) -> int:
    """Positions that an SAE of so many latents encodes together; at least a context is."""
    return min(POSITIONS_AT_ONCE, max(LATENTS_AT_ONCE // width, 1))


def features_recipe(config: Config, sae: SaeName) -> FeaturesRecipe:
    """Of an SAE's page."""
    model, settings = config.models[sae.model], config.features
    judged = config.evaluation_of(sae.model, FEATURES_TEXT)
    return FeaturesRecipe(
        version=FEATURES_VERSION,
        subject=sae_recipe(config, sae).hash,
        text=tokens_recipe(config, sae.model, FEATURES_TEXT),
        held_out=judged.held_out,
        drop=judged.drop,
        lm_devices=model.lm_devices,
        batch_contexts=model.llm_batch_contexts,
        cpu_threads=config.training_of(sae.model).cpu_threads,
        tokens=settings.tokens,
        sample=settings.sample,
        contexts=settings.contexts,
        window=settings.window,
        latents=asked_latents(config, sae),
    )


def features_recipes(config: Config, trained: Trained) -> dict[SaeName, FeaturesRecipe]:
    """Of the pages that one job makes, in its order."""
    return {sae: features_recipe(config, sae) for sae in members(config, trained)}


def features_hashes(config: Config, trained: Trained) -> list[str]:
    """Short hashes of these recipes: what Snakemake compares for staleness."""
    return [recipe.hash[:16] for recipe in features_recipes(config, trained).values()]
