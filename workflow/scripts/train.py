"""Train the SAEs of a sweep that the store lacks, and link all of them under results/."""

from functools import partial
from pathlib import Path

from saemake import jobs, names
from saemake.config import lm_name, read
from saemake.llm import weights
from saemake.recipes import checkpoint_key, sae_recipe
from saemake.text.shards import Tokens
from saemake.training import files
from saemake.training.members import CHECKPOINT, Stores, Wanted
from saemake.training.train import Conduct, Inputs, train_pass

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    sweep = snakemake.params.sweep
    recipes = {member: sae_recipe(config, member) for member in names.members(config, sweep)}
    steps = config.checkpoint_steps(sweep.model, sweep.architecture)
    stores = Stores.under(Path("results/.store"))
    lm_weights, description = weights.read(config, Path(snakemake.input.model))
    # Until all is linked, so that nobody prunes it in between.
    with stores.saes.lock(recipe.hash for recipe in recipes.values()):
        train_pass(
            [Wanted(str(member), recipe, steps) for member, recipe in recipes.items()],
            Inputs(
                weights=lm_weights,
                ask_shape=partial(weights.shape_if_known, config, sweep.model),
                lm_description=description,
                tokens=Tokens(Path(snakemake.input.tokens)),
            ),
            stores,
            Conduct(f"train {sweep}", config.logging, config.snapshots.every_seconds),
        )
        for member, recipe in recipes.items():
            linked = [file for file in names.SAE_FILES if file != "config.json"]
            folder = Path(member.folder)
            stores.saes.link(recipe.hash, {file: folder / file for file in linked})
            content = files.named(
                lm_name(config, sweep.model), stores.saes.read(recipe.hash, "config.json")
            )
            jobs.write(f"{member.folder}/config.json", content)
            for step in steps:
                file = folder / names.checkpoint_file(step)
                stores.checkpoints.link(checkpoint_key(recipe, step), {CHECKPOINT: file})
