"""What a job will do and how much of it, in words: shown by a dry run and at a job's start."""

from collections.abc import Callable, Iterable, Sequence

from saemake.architectures.training_settings import Training
from saemake.config.config import Config
from saemake.paths.names import STORE, PublishedSweep, SaeName, Subjects, Trained
from saemake.paths.sweeps import members
from saemake.plan.judged_together import Together
from saemake.plan.passes import Pass
from saemake.plan.stored import stored_now
from saemake.plan.work import Evaluate
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.training import sae_recipe
from saemake.records import at_hand

# How many of the jobs are named that share a run of the LM.
NAMED = 2


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
        f"{recipe.amount:,} {recipe.unit} of {text} ({recipe.splits}) for {model},"
        f" contexts of {recipe.context_tokens}"
    )


def of_training(
    config: Config,
    trained: Trained,
    outputs: Sequence[str] = (),
    passes: Sequence[Pass] = (),
) -> Said:
    """Of a job: which SAEs it trains, and which it takes from the store. `passes` are those that it
    may share with other jobs."""
    return Said(
        lambda: (
            _training(config, trained)
            + _shared(config, trained, passes)
            + at_hand.replaced(config, outputs)
        )
    )


def _shared(config: Config, trained: Trained, passes: Sequence[Pass]) -> str:
    """A clause on what else trains on the same run of the LM, for a job that trains."""
    own = [each for each in passes if trained in each.jobs]
    others = dict.fromkeys(job for each in own for job in each.jobs if job != trained)
    if not others or not stored_now(STORE).lacks(config, trained):
        return ""
    saes = sum(len(each.saes) for each in own)
    runs = "one run" if len(own) == 1 else f"{len(own)} runs"
    return f"; on {runs} of the LM with {_some(others)}: {saes} SAEs in all"


def _some(jobs: Iterable[object]) -> str:
    """The first two, and how many more."""
    names = list(map(str, jobs))
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _training(config: Config, trained: Trained) -> str:
    saes = members(config, trained)
    stored = stored_now(STORE)
    missing = stored.lacks(config, trained)
    linked = [sae for sae in saes if sae not in missing]
    if not missing:
        return f"link {_saes(linked, trained)} from the store"
    model = trained.model
    training, steps = config.training_of(model), config.steps_of(model)
    amount = f"{steps * training.batch_tokens:,} tokens in {steps:,} steps of"
    each = f"{training.batch_tokens:,}{training.drop.clause}{_begun_and_judged(training)}"
    also = f", link {_named(linked)} from the store" if linked else ""
    step = stored.snapshot_step(sae_recipe(config, sae).hash for sae in missing)
    resumed = "" if step is None else f"; there is a snapshot to go on from at step {step:,}"
    return f"train {_saes(missing, trained)}{also}: {amount} {each}{resumed}"


def _begun_and_judged(training: Training) -> str:
    """A clause on the SAEs that training starts from, and on a loss that is no squared error."""
    loss = "" if training.loss == "mse" else f", by the {training.loss} of the LM's output"
    return loss + (f", starting from {training.start_from}" if training.start_from else "")


def _saes(saes: Sequence[SaeName], trained: Trained) -> str:
    sweep = trained.sweep if isinstance(trained, SaeName) else trained
    return f"{_count(saes)} {sweep} ({', '.join(sae.own_part for sae in saes)})"


def _named(saes: Sequence[SaeName]) -> str:
    return f"{len(saes)} ({', '.join(sae.own_part for sae in saes)})"


def _count(saes: Sequence[SaeName]) -> str:
    return f"{len(saes)} SAE" + "s" * (len(saes) != 1)


def of_features(config: Config, trained: Trained, outputs: Sequence[str] = ()) -> Said:
    """Of the data of pages: of how many SAEs, on how much text."""

    def say() -> str:
        stored = stored_now(STORE).paged(config, trained)
        if all(stored):
            return f"copy what the pages of {trained} show from the store"
        also = f", {sum(stored)} of {len(stored)} from the store" if any(stored) else ""
        words = f"look at the latents of {trained} on up to {config.features.tokens:,} tokens{also}"
        return words + at_hand.replaced(config, outputs)

    return Said(say)


def of_evaluation(
    config: Config,
    evaluation: str,
    subjects: Subjects,
    outputs: Sequence[str] = (),
    judged: Sequence[Together] = (),
) -> Said:
    """Of an evaluation of all that one job judges. `judged` is what the run judges together with
    other jobs."""

    def say() -> str:
        stored = stored_now(STORE).judged(config, subjects, evaluation)
        words = _evaluation(config, subjects, evaluation, stored)
        if not all(stored):
            words += _judged_with(Evaluate(evaluation, subjects), judged)
        # No model entry of another name could keep both of a published SAE.
        of_published = isinstance(subjects, PublishedSweep)
        return words if of_published else words + at_hand.replaced(config, outputs)

    return Said(say)


def _judged_with(job: Evaluate, judged: Sequence[Together]) -> str:
    """A clause on what else is judged in the same run of the LM."""
    others = [other for each in judged if job in each.jobs for other in each.jobs if other != job]
    return f"; on one run of the LM with {_some(o.subjects for o in others)}" if others else ""


def _evaluation(config: Config, subjects: Subjects, evaluation: str, stored: Sequence[bool]) -> str:
    """`stored`: of each thing judged, whether its evaluation is in the store."""
    if all(stored):
        return f"link {evaluation} of {subjects} from the store ({len(stored)} of {len(stored)})"
    also = f", {sum(stored)} of {len(stored)} from the store" if any(stored) else ""
    if evaluation in config.sae_bench_evaluations:
        seeds = len(config.sae_bench_of(subjects.model, evaluation).seeds)
        each = f" from each of {seeds} seeds" if seeds > 1 else ""
        return f"evaluate {subjects} by {evaluation} (SAE Bench's own code){each}{also}"
    recipe = tokens_recipe(config, subjects.model, evaluation)
    unit = "documents" if recipe.layout == "documents" else f"contexts of {recipe.context_tokens}"
    clause = config.evaluation_of(subjects.model, evaluation).drop.clause
    return f"evaluate {subjects} by {evaluation} on {recipe.amount:,} {unit}{clause}{also}"
