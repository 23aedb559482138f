"""What a job will do and how much of it, in words: shown by a dry run and at a job's start."""

from saemake.config import Config
from saemake.names import Sweep, members
from saemake.recipes import tokens_recipe


def of_tokens(config: Config, model: str, split: str) -> str:
    recipe = tokens_recipe(config, model, split)
    text = config.models[model].text
    return (
        f"{recipe.amount:,} {recipe.unit} of {text} ({recipe.split}) for {model},"
        f" contexts of {recipe.context_tokens}"
    )


def of_training(config: Config, sweep: Sweep) -> str:
    training, steps = config.training_of(sweep.model), config.steps_of(sweep.model)
    saes = members(config, sweep)
    return (
        f"{len(saes)} SAEs {sweep} ({', '.join(sae.sparsity_name for sae in saes)}):"
        f" {steps * training.batch_tokens:,} tokens in {steps:,} steps of {training.batch_tokens:,}"
    )


def of_evaluation(config: Config, sweep: Sweep) -> str:
    documents = config.models[sweep.model].evaluation_documents
    return f"{len(members(config, sweep))} SAEs {sweep} on {documents:,} held-out documents"
