"""Functions of the rules: names and recipes of this config. No rule is here."""

import functools
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

from snakemake.cli import get_argument_parser

from saemake import figures, interrupts, names, plan, recipes, screen, turns
from saemake.catalogue import entries, targets
from saemake.config import identifier, read
from saemake.errors import SaemakeError
from saemake.names import SAE_FILES, Sweep
from saemake.publishing import names as publishing
from saemake.publishing import rebuilding

# Options of snakemake whose value may be a path under results/ and is no target.
TAKES_A_PATH = {"--report", "--archive", "--directory", "-d", "--configfile", "--profile"}


# Options other than -n with which snakemake looks and changes no file.
LOOKS_ONLY = """
    lint list_rules list_target_rules print_compilation containerize generate_unit_tests dag
    rulegraph filegraph d3dag unlock list_conda_envs list_changes list_input_changes
    list_params_changes list_untracked summary detailed_summary archive
""".split()


def wait_for_turn(checked):
    """Wait until no other run works on the models of the targets (see saemake/turns.py). Here, since
    Snakemake decides right after the Snakefile what there is to do. A job's own process and a
    command that only looks do not wait."""
    command = Path(sys.argv[0])
    if not workflow.is_main_process or "snakemake" not in (command.name, command.parent.name):
        return []
    if workflow.output_settings.dryrun:  # known without the parser, which takes 0.1 s
        return []
    asked, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    report_only = asked.report is not None and not asked.report_after_run
    if report_only or any(getattr(asked, option) for option in LOOKS_ONLY):
        return []
    try:
        return turns.take(turns.touched(checked, targets_of(asked)))
    except KeyboardInterrupt:
        sys.exit("saemake: interrupted while it waited; nothing was started")
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


def targets_of(asked):
    """All that snakemake takes for a target: also what it is to force, to prioritise, and to go up
    to. Names of rules are none, since rules other than `all` have wildcards."""
    more = (*(asked.forcerun or ()), *(asked.prioritize or ()), *(asked.until or ()))
    return [*(asked.targets or ["all"]), *(name for name in more if name == "all" or "/" in name)]


def checked_config():
    """The typed config and its catalogue, after every target on the command line was found to be an
    artifact."""
    base = Path(workflow.basedir, "config", "config.yaml")
    others = [Path(path) for path in workflow.configfiles if Path(path) != base]
    try:
        checked = read(config, Path(workflow.basedir), [base, *others])
        for before, argument in pairwise(sys.argv):
            if before not in TAKES_A_PATH:
                targets.check_target(checked, argument)
                publishing.check_target(checked, argument)
        return checked, entries.load(checked)
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


if workflow.is_main_process:
    interrupts.say_in_one_line()
if not (workflow.output_settings.verbose or workflow.output_settings.show_failed_logs):
    screen.shorten_failures()
CONFIG, CATALOGUE = checked_config()
# Open files, as long as this process lives.
TURN = wait_for_turn(CONFIG)
EVALUATED = [f"{name}.json" for name in names.EVALUATIONS]
# Snakemake cannot see into what else a comparison depends on.
COMPARED_BY = repr(CONFIG.published.tolerances)
SWEPT = [(model, architecture) for model in CONFIG.models for architecture in CONFIG.architectures]


def rule_name(stage, model, architecture):
    """A name that Snakemake takes: `train__demo__top_k`."""
    return "__".join([stage, identifier(model), identifier(architecture)])


def sweep_folder(model, architecture):
    """The folder of a sweep, its layer and width open."""
    return f"results/{model}/L{{layer}}/{architecture}/{{width}}"


def sparsity_names(model, architecture):
    """`k_20`, `k_40`, ...: the folders of a sweep."""
    sweep = CONFIG.settings_of(model, architecture).sweep
    return [names.sparsity_name(architecture, value) for value in sweep]


def sae_files(model, architecture, files):
    """Those files of every SAE of a sweep, its layer and width open."""
    folder = sweep_folder(model, architecture)
    sparsities = sparsity_names(model, architecture)
    return [f"{folder}/{sparsity}/{file}" for sparsity in sparsities for file in files]


def sweep_of(wildcards, model=None, architecture=None):
    """The sweep that a job's wildcards name, with what the rule itself fixes."""
    return Sweep(
        model or wildcards.model,
        int(wildcards.layer),
        architecture or wildcards.architecture,
        wildcards.width,
    )


def sae_of(wildcards, model, architecture):
    """The SAE that a job's wildcards name, with what the rule itself fixes."""
    sweep = sweep_of(wildcards, model, architecture)
    return next(
        member
        for member in names.members(CONFIG, sweep)
        if member.sparsity_name == wildcards.sparsity
    )


# What is made of evaluations has their recipes in a param too. A failed evaluation leaves its outputs
# missing, and Snakemake makes nothing missing for files that look up to date: without the param a
# plain rerun would say that there is nothing to do, and leave the old table.
@functools.cache
def evaluated(sweep):
    """Short hash of the recipes of all evaluations of a sweep."""
    return short(
        recipes.evaluation_hashes(CONFIG, sweep, evaluation) for evaluation in names.EVALUATIONS
    )


@functools.cache
def evaluated_published(sweep):
    """The same of its published SAEs."""
    return short(published_hashes(sweep, evaluation) for evaluation in names.EVALUATIONS)


@functools.cache
def evaluated_baselines(model, layer):
    """The same of a layer's baselines."""
    return short(
        recipes.baseline_evaluation_hashes(CONFIG, model, layer, evaluation)
        for evaluation in names.EVALUATIONS
    )


def evaluated_checkpoints(sae):
    """The same of an SAE's checkpoints."""
    return short(
        recipes.checkpoint_evaluation_hashes(CONFIG, sae, evaluation)
        for evaluation in names.EVALUATIONS
    )


def short(parts):
    return recipes.digest(list(parts))[:16]


def hub_folders_asked():
    """The folders under hub/ that are targets on the command line."""
    return [path for path in dict.fromkeys(sys.argv[1:]) if targets.is_hub_folder(CONFIG, path)]


def rebuilt_name(hub_folder):
    """The SAE that is laid out in a folder under hub/."""
    return CATALOGUE.wanted(CONFIG, CATALOGUE.at(hub_folder))


def rebuilt_files(hub_folder):
    """What an SAE's folder under hub/ is made of."""
    folder = rebuilt_name(hub_folder).folder
    of = {"weights": "ae.pt", "config": "config.json", "judged": "dictionary_learning.json"}
    return {key: f"{folder}/{file}" for key, file in of.items()}


def published_entry(wildcards):
    """The catalogue's entry of the SAE that a job's wildcards name."""
    return CATALOGUE.named(f"{sweep_of(wildcards)}/{wildcards.sparsity}")


def published_rule_name(sweep):
    """`published__demo__3__top_k__1k`."""
    parts = [sweep.model, sweep.layer, sweep.architecture, sweep.width]
    return "__".join(["published", *(identifier(str(part)) for part in parts)])


def published_files(sweep, files):
    """Those files of every published SAE of a sweep."""
    return [f"published/{name}/{file}" for name in CATALOGUE.of_sweep(sweep) for file in files]


def published_hashes(sweep, evaluation):
    """Short hashes of the recipes of one evaluation of the published SAEs of a sweep."""
    return [
        recipes.published_evaluation_recipe(CONFIG, name, entry.hub_folder, evaluation).hash[:16]
        for name, entry in CATALOGUE.of_sweep(sweep).items()
    ]


def published_figure_tables(wildcards):
    """What a figure of rebuilt and published SAEs shows: each comparison of a layer. The comparison
    with the catalogue needs no published weights."""
    file = figures.get(wildcards.published_figure).table
    return [
        path
        for sweep in CATALOGUE.sweeps()
        if (sweep.model, sweep.layer) == (wildcards.model, int(wildcards.layer))
        for path in published_files(sweep, [file])
    ]


def tokens_inputs(wildcards):
    """What tokenising needs: the model's tokenizer, and where the text goes on after what was
    trained on, how far that is."""
    needed = {"model": f"results/{wildcards.model}/model.json"}
    if recipes.tokens_recipe(CONFIG, wildcards.model, wildcards.use).after:
        needed["after"] = f"results/{wildcards.model}/tokens/train/manifest.json"
    return needed


def figure_recipes(wildcards):
    """Short hash of the recipes of all that a figure shows (see `evaluated`)."""
    layer, training = int(wildcards.layer), wildcards.figure in figures.TRAINING
    find = names.checkpointed_sweeps if training else names.suite_sweeps
    sweeps = find(CONFIG, wildcards.model, layer)
    parts = [evaluated_baselines(wildcards.model, layer), *map(evaluated, sweeps)]
    if training:
        parts += [
            evaluated_checkpoints(member)
            for sweep in sweeps
            for member in names.members(CONFIG, sweep)
        ]
    return short(parts)


def published_figure_recipes(wildcards):
    """The same of a figure of rebuilt and published SAEs."""
    layer = (wildcards.model, int(wildcards.layer))
    sweeps = [sweep for sweep in CATALOGUE.sweeps() if (sweep.model, sweep.layer) == layer]
    return short(f(sweep) for sweep in sweeps for f in (evaluated, evaluated_published))


def figure_tables(wildcards):
    """What a figure shows: metrics.json of every sweep of a model's suite, at one layer; of the
    training's figures, also those of the checkpoints."""
    layer = int(wildcards.layer)
    training = wildcards.figure in figures.TRAINING
    find = names.checkpointed_sweeps if training else names.suite_sweeps
    tables = []
    for sweep in find(CONFIG, wildcards.model, layer):
        tables.append(f"{sweep.folder}/metrics.json")
        if training:
            tables += [
                f"{member.folder}/checkpoints/metrics.json"
                for member in names.members(CONFIG, sweep)
            ]
    return tables


wildcard_constraints:
    model="|".join(map(re.escape, CONFIG.models)),
    architecture="|".join(CONFIG.architectures),
    layer="0|[1-9][0-9]*",
    width="|".join(map(re.escape, CONFIG.widths)),
    use="|".join(names.USES),
    evaluation="|".join(names.EVALUATIONS),
    figure="|".join(figures.names()),
    published_figure="|".join(figures.PUBLISHED),
    # Only as the catalogue has them: a wildcard of its own would take any path under hub/.
    folder="|".join(re.escape(f"{entry.repository}/{entry.path}") for entry in CATALOGUE.entries),
