"""Train the SAEs of a sweep that the store lacks, and link all of them under results/."""

from pathlib import Path

from saemake import jobs, names
from saemake.config import read
from saemake.llm import weights
from saemake.recipes import sae_recipe
from saemake.store import Store
from saemake.text.shards import Tokens
from saemake.training import files
from saemake.training.train import Inputs, train_pass

with jobs.job(snakemake.log[0]):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    sweep = snakemake.params.sweep
    recipes = {member: sae_recipe(config, member) for member in names.members(config, sweep)}
    store = Store(Path("results/.store"), "saes")
    lm_weights, description = weights.read(config, Path(snakemake.input.model))
    train_pass(
        {str(member): recipe for member, recipe in recipes.items()},
        Inputs(
            weights=lm_weights,
            lm_description=description,
            tokens=Tokens(Path(snakemake.input.tokens)),
        ),
        store,
        log_every_steps=config.logging.every_steps,
        label=f"train {sweep}",
    )
    lm_name = config.models[sweep.model].hub or sweep.model
    for member, recipe in recipes.items():
        linked = [file for file in names.SAE_FILES if file != "config.json"]
        store.link(recipe.hash, {file: Path(member.folder) / file for file in linked})
        content = files.named(lm_name, store.read(recipe.hash, "config.json"))
        jobs.write(f"{member.folder}/config.json", content)
