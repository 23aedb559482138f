"""What a job will do and how much of it, in words: shown by a dry run and at a job's start."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from saemake import at_hand
from saemake.catalogue.entries import PUBLISHED, Entry
from saemake.config import Config
from saemake.names import RESULTS, SaeName, Sweep, members
from saemake.plan.stored import Stored, stored_now
from saemake.recipes import (
    EvaluationRecipe,
    baseline_evaluation_recipe,
    baseline_names,
    baselines_recipe,
    checkpoint_evaluation_recipe,
    checkpoint_key,
    evaluation_key,
    published_evaluation_recipe,
    sae_evaluation_recipe,
    sae_recipe,
    tokens_recipe,
)
from saemake.training.settings import Drop

STORE = Path(RESULTS, ".store")


class Said:
    """Words that are found when they are shown, since Snakemake asks for those of every job, and
    shows those of the jobs that run. Pickled, as for a script, they are left out."""

    def __init__(self, say: Callable[[], str]) -> None:
        self.say = say

    def __str__(self) -> str:
        return self.say()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, ("",)


def of_replaced(config: Config, outputs: Sequence[str], inputs: Sequence[str] = ()) -> Said:
    """A line on outputs at hand that another config made (see at_hand.replaced)."""
    return Said(lambda: at_hand.replaced(config, outputs, inputs))


def of_tokens(config: Config, model: str, use: str) -> str:
    recipe = tokens_recipe(config, model, use)
    text = config.text_of(model, use)
    return (
        f"{recipe.amount:,} {recipe.unit} of {text} ({recipe.split}) for {model},"
        f" contexts of {recipe.context_tokens}"
    )


def of_training(config: Config, sweep: Sweep, outputs: Sequence[str] = ()) -> Said:
    """Of a sweep's pass: which SAEs it trains, and which it takes from the store."""
    return Said(lambda: _training(config, sweep) + at_hand.replaced(config, outputs))


def _training(config: Config, sweep: Sweep) -> str:
    saes = members(config, sweep)
    stored = stored_now(STORE)
    missing = stored.lacks(config, sweep)
    linked = [sae for sae in saes if sae not in missing]
    if not missing:
        return f"link {_saes(linked, sweep)} from the store"
    training, steps = config.training_of(sweep.model), config.steps_of(sweep.model)
    amount = f"{steps * training.batch_tokens:,} tokens in {steps:,} steps of"
    each = f"{training.batch_tokens:,}{without(training.drop)}"
    also = f", link {_named(linked)} from the store" if linked else ""
    step = stored.snapshot_step(sae_recipe(config, sae).hash for sae in missing)
    resumed = "" if step is None else f"; there is a snapshot to go on from at step {step:,}"
    return f"train {_saes(missing, sweep)}{also}: {amount} {each}{resumed}"


def without(drop: Drop) -> str:
    """What is left out, to be said after what is done; empty for nothing."""
    return f", without {drop.said}" if drop.on else ""


def _saes(saes: Sequence[SaeName], sweep: Sweep) -> str:
    return f"{_count(saes)} {sweep} ({', '.join(sae.sparsity_name for sae in saes)})"


def _named(saes: Sequence[SaeName]) -> str:
    return f"{len(saes)} ({', '.join(sae.sparsity_name for sae in saes)})"


def _count(saes: Sequence[SaeName]) -> str:
    return f"{len(saes)} SAE" + "s" * (len(saes) != 1)


# What is judged: its recipe, and the kind, the key and the file of the store that it is in.
Judged = Iterator[tuple[EvaluationRecipe, str, str, str]]


def of_evaluation(
    config: Config,
    evaluation: str,
    judged: Sweep | SaeName | tuple[str, int],
    outputs: Sequence[str] = (),
) -> Said:
    """Of an evaluation of a sweep, of an SAE's checkpoints, or of a layer's baselines (a model and
    a layer)."""
    match judged:
        case Sweep() as sweep:
            what, model, there = str(sweep), sweep.model, lambda: _sweep(config, sweep, evaluation)
        case SaeName() as sae:
            what, model = f"checkpoints of {sae}", sae.sweep.model
            there = lambda: _checkpoints(config, sae, evaluation)  # noqa: E731
        case (model, layer):
            what = f"baselines of {model}/L{layer}"
            there = lambda: _baselines(config, model, layer, evaluation)  # noqa: E731

    def say() -> str:
        stored = stored_now(STORE)
        found = [stored.has_evaluation(*one) for one in there()]
        said = _evaluation(config, what, model, evaluation, found)
        return said + at_hand.replaced(config, outputs)

    return Said(say)


def of_published(
    config: Config, evaluation: str, sweep: Sweep, entries: dict[SaeName, Entry]
) -> Said:
    """Of an evaluation of the published SAEs of a sweep."""

    def say() -> str:
        stored = stored_now(STORE)
        found = [
            _published_judged(config, name, entry, evaluation, stored)
            for name, entry in entries.items()
        ]
        return _evaluation(config, f"published {sweep}", sweep.model, evaluation, found)

    return Said(say)


def _evaluation(
    config: Config, what: str, model: str, evaluation: str, found: Sequence[bool]
) -> str:
    """`found`: of each thing judged, whether its evaluation is in the store."""
    recipe = tokens_recipe(config, model, evaluation)
    if all(found):
        return f"link {evaluation} of {what} from the store ({len(found)} of {len(found)})"
    unit = "documents" if recipe.layout == "documents" else f"contexts of {recipe.context_tokens}"
    also = f", {sum(found)} of {len(found)} from the store" if any(found) else ""
    drop = without(getattr(config.evaluations_of(model), evaluation).drop)
    return f"evaluate {what} by {evaluation} on {recipe.amount:,} {unit}{drop}{also}"


def _sweep(config: Config, sweep: Sweep, evaluation: str) -> Judged:
    for sae in members(config, sweep):
        recipe = sae_evaluation_recipe(config, sae, evaluation)
        yield recipe, "saes", recipe.subject, "ae.pt"


def _checkpoints(config: Config, sae: SaeName, evaluation: str) -> Judged:
    for step in config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture):
        recipe = checkpoint_evaluation_recipe(config, sae, step, evaluation)
        yield recipe, "checkpoints", checkpoint_key(sae_recipe(config, sae), step), "ae.pt"


def _baselines(config: Config, model: str, layer: int, evaluation: str) -> Judged:
    key = baselines_recipe(config, model, layer).hash
    for name in baseline_names(config, model):
        recipe = baseline_evaluation_recipe(config, model, layer, name, evaluation)
        yield recipe, "baselines", key, "pca.safetensors"


def _published_judged(
    config: Config, name: SaeName, entry: Entry, evaluation: str, stored: Stored
) -> bool:
    recipe = published_evaluation_recipe(config, name, entry.hub_folder, evaluation)
    try:
        source = json.loads(Path(PUBLISHED, str(name), "source.json").read_text())
        judged = source["sha256"]["ae.pt"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return stored.has("evaluations", evaluation_key(recipe.hash, judged))
