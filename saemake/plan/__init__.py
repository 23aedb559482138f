"""What a job will do and how much of it, in words: shown by a dry run and at a job's start."""

from saemake.config import Config
from saemake.names import Sweep, members
from saemake.recipes import tokens_recipe
from saemake.training.settings import Drop


def of_tokens(config: Config, model: str, use: str) -> str:
    recipe = tokens_recipe(config, model, use)
    text = config.text_of(model, use)
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
        f"{without(training.drop)}"
    )


def without(drop: Drop) -> str:
    """What is left out, to be said after what is done; empty for nothing."""
    return f", without {drop.said}" if drop.on else ""


def of_evaluation(config: Config, what: str, model: str, evaluation: str) -> str:
    recipe = tokens_recipe(config, model, evaluation)
    unit = "documents" if recipe.layout == "documents" else f"contexts of {recipe.context_tokens}"
    drop = getattr(config.evaluations_of(model), evaluation).drop
    return f"{what} by {evaluation} on {recipe.amount:,} {unit}{without(drop)}"
