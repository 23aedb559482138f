"""What the pages of SAEs show."""

import functools
from pathlib import Path

import torch

from saemake.activations.dropping import Dropping
from saemake.base import files as whole
from saemake.config.config import Config
from saemake.evaluation.codecs import Codec
from saemake.features import gather
from saemake.features.gather import Wanted
from saemake.inputs import weights
from saemake.paths import stores
from saemake.paths.files import FEATURES, FEATURES_TEXT
from saemake.paths.names import SaeName, Trained
from saemake.recipes.features import features_recipes
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.training import sae_recipe
from saemake.text.shards import Tokens
from saemake.training import files


def features(config: Config, trained: Trained, model: Path, tokens: Path, train: Path) -> None:
    """Write features.parquet of each SAE of a pass. `model` is the model.json of the LM, `tokens`
    the manifest of the text, `train` that of the training's text.

    Raises SaemakeError where the tokens are of another recipe, or an SAE is damaged.
    """
    lm_weights, _ = weights.read(config, model)
    store, text, trained_on = stores.store(config, "features"), Tokens(tokens), Tokens(train)
    trained_on.check(tokens_recipe(config, trained.model, "train").hash)
    recipes = features_recipes(config, trained)
    wanted = {
        sae: Wanted(
            str(sae),
            recipe,
            files.checked_sum(Path(sae.folder), sae_recipe(config, sae).hash),
            functools.partial(_load, config, sae),
        )
        for sae, recipe in recipes.items()
    }
    judged = config.evaluation_of(trained.model, FEATURES_TEXT)
    drops = {
        config.training_of(trained.model).drop.in_words: trained_on,
        judged.drop.in_words: text,
    }
    gather.gather(
        list(wanted.values()),
        trained.hookpoint,
        lm_weights,
        text,
        dropping_of(config, trained.model, text, trained_on),
        store,
        "; ".join(filter(None, drops)),
    )
    for sae, each in wanted.items():
        # No link: it would be older than the job's inputs.
        whole.copy(str(store.folder / each.key / FEATURES), f"{sae.folder}/{FEATURES}")


def dropping_of(config: Config, model: str, text: Tokens, trained_on: Tokens) -> Dropping:
    """Leaves out what the training leaves out, which an SAE has never seen, and what the evaluation
    leaves out."""
    drops = (
        (config.training_of(model).drop, trained_on),
        (config.evaluation_of(model, FEATURES_TEXT).drop, text),
    )
    each = [Dropping.of(drop, tokens) for drop, tokens in drops]
    limits = [one.norm_over_median for one in each if one.norm_over_median is not None]
    ids = sorted({token for one in each for token in one.ids})
    return Dropping(ids, min(limits, default=None))


def _load(config: Config, sae: SaeName, device: torch.device) -> Codec:
    """The SAE as its loader has it."""
    width = config.latents(sae.sweep.width)
    return files.load(Path(sae.folder), sae.sweep.architecture, width, device)
