"""Functions of the rules: names and recipes of this config. No rule is here."""

import functools
import re
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from snakemake.cli import get_argument_parser

from saemake import figures
from saemake.base import interrupts, remote
from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.inputs import cached
from saemake.jobs import before as before_work
from saemake.jobs import passes as job_passes
from saemake.jobs import resources as job_resources
from saemake.jobs import rules as job_rules
from saemake.jobs import runs, screen, turns
from saemake.config.config import NUMBERED_WIDTH
from saemake.jobs.rules import ONE_SAE, hookpoint_in, in_each, sae_in
from saemake.jobs.rules import setup_in, sweep_in, traced_in
from saemake.llm.hookpoint import PATTERN as HOOKPOINTS
from saemake.paths import catalogue, judged_by, shown, starts
from saemake.paths.asked_latents import check_asked_latents
from saemake.paths.command_words import check_target
from saemake.paths.files import (
    FEATURES,
    FEATURES_PAGE,
    FEATURES_TEXT,
    LAID_OUT_BY,
    SAELENS_VERSION,
    STABILITY,
    TRACER_VERSION,
    build_files,
    fetched_files,
    fetched_published_files,
    hub_folder_files,
    report_figure_names,
    report_figures,
    report_tables,
    seeds_files,
    suite_pages,
    suite_files,
    uses,
)

# Not by its own name: Snakemake has a class Checkpoints, in whose namespace this file is run.
from saemake.paths.names import METRICS, SAE_FILES, PublishedSweep, baselines_of, dataset_file
from saemake.paths.names import Checkpoints as SaeCheckpoints
from saemake.paths.spelling import sae_of
from saemake.paths.tracer import layer_files
from saemake.paths.sweeps import members, of_other_seeds, trained_with, with_seeds
from saemake.plan import messages
from saemake.plan.work import Evaluate
from saemake.report import captions
from saemake.recipes.features import features_hashes
from saemake.recipes.inputs import dataset_recipe, fetched_by, tokens_recipe
from saemake.recipes.judging import evaluation_hashes, sae_evaluation_recipe, setup_recipe
from saemake.recipes.stability import stability_recipe
from saemake.recipes.training import baselines_recipe, sae_recipe, training_hashes

# Options of snakemake whose value may be a path under results/ and is no target.
TAKES_A_PATH = {"--report", "--archive", "--directory", "-d", "--configfile", "--profile"}


# Options other than -n with which snakemake looks and changes no file.
LOOKS_ONLY = """
    lint list_rules list_target_rules print_compilation containerize generate_unit_tests dag
    rulegraph filegraph d3dag unlock list_conda_envs list_changes list_input_changes
    list_params_changes list_untracked summary detailed_summary archive
""".split()


@functools.cache
def options_asked():
    """What snakemake's command line says. Its parser takes 0.1 s."""
    asked, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    return asked


def wait_for_turn(checked, artifacts):
    """Say what is known of the targets before any work, and wait until no other run works on their
    models (see saemake/jobs/turns.py). Here, since Snakemake decides right after the Snakefile what
    there is to do. A job's own process and a command that only looks do not wait."""
    command = Path(sys.argv[0])
    if not workflow.is_main_process or "snakemake" not in (command.name, command.parent.name):
        return []
    if workflow.output_settings.dryrun:  # known without the parser, which takes 0.1 s
        return []
    asked = options_asked()
    report_only = asked.report is not None and not asked.report_after_run
    if report_only:
        check_built(targets_of(asked))
    if report_only or any(getattr(asked, option) for option in LOOKS_ONLY):
        return []
    try:
        for line in before_work.check(checked, artifacts):
            print(f"saemake: {line}", file=sys.stderr)
        targets = targets_of(asked)
        runs.set_targets(checked, targets)
        return turns.take(turns.touched(checked, targets))
    except KeyboardInterrupt:
        sys.exit("saemake: interrupted while it waited; nothing was started")
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


def shared_in_run(checked):
    """What this run does together and has cut beforehand, which is written down for its jobs."""
    if not workflow.is_main_process:
        return job_passes.Shared()
    targets = options_asked().targets or ["all"] if checked.passes.cut_beforehand else []
    try:
        shared = job_passes.of_run(checked, targets)
        if TURN and targets:
            job_passes.write_down(checked, shared, turns.touched(checked, targets))
        return shared
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


def inputs_of_all(checked):
    """What a plain run builds. Where a model's layers are not known yet, a plain run ends with a
    line; a run on other targets, such as the model itself, goes on."""
    try:
        return build_files(checked)
    except SaemakeError as error:
        if workflow.is_main_process and "all" in (options_asked().targets or ["all"]):
            sys.exit(f"saemake: {error}")
        return []


def check_built(targets):
    """End where a report is asked for of what is not built: Snakemake names one of its files and
    not the way out."""
    wanted = [
        path for each in targets for path in (inputs_of_all(CONFIG) if each == "all" else [each])
    ]
    missing = [path for path in wanted if not Path(path).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        sys.exit(
            f"saemake: {missing[0]}{more} of the report: not built yet; run the same command without"
            " --report first"
        )


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
        check_asked_latents(checked)
        starts.check_suites(checked)
        asked = [
            check_target(checked, argument)
            for before, argument in pairwise(sys.argv)
            if before not in TAKES_A_PATH
        ]
        for name in checked.figures:
            shown.of_own(checked, name)
        return checked, catalogue.load(checked), [each for each in asked if each is not None]
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


if workflow.is_main_process:
    interrupts.say_in_one_line()
    remote.begin_run()
elif workflow.remote_exec:
    interrupts.tell_jobs_of_slurm()
if not (workflow.output_settings.verbose or workflow.output_settings.show_failed_logs):
    screen.shorten_failures()
CONFIG, CATALOGUE, ASKED = checked_config()
# Open files, as long as this process lives.
TURN = wait_for_turn(CONFIG, ASKED)
SHARED = shared_in_run(CONFIG)
for number in range(len(SHARED.passes)):
    workflow.register_resource(f"pass_{number}", 1)
for number in range(len(SHARED.judged)):
    workflow.register_resource(f"judged_{number}", 1)
# What the jobs that compute ask for, as resources. A job that runs has it, and need not know.
ASKS = job_resources.Asks(CONFIG, SHARED, planned=workflow.is_main_process)
# Snakemake cannot see into what else a comparison depends on.
COMPARED_BY = repr(CONFIG.published.tolerances)


# What is made of evaluations has their recipes in a param too. A failed evaluation leaves its outputs
# missing, and Snakemake makes nothing missing for files that look up to date: without the param a
# plain rerun would say that there is nothing to do, and leave the old table.
@functools.cache
def evaluated(subjects):
    """Short hash of the recipes of all evaluations of what one job judges."""
    return short(
        evaluation_hashes(CONFIG, subjects, name)
        for name in judged_by.evaluations_of(CONFIG, subjects)
    )


def evaluation_tables(joined, wildcards):
    """The tables that a rule joins, in each of its folders."""
    names = judged_by.evaluations_of(CONFIG, joined.subjects(wildcards))
    return joined.tables([f"{name}.json" for name in names])


def evaluated_by_wildcards(subjects, wildcards):
    """The same, where `subjects` gives what a job's wildcards name."""
    return evaluated(subjects(wildcards))


def short(parts):
    """A short hash of hashes."""
    return digest(list(parts))[:16]


def training_recipes(trained, wildcards):
    """The recipes of what a job trains; `trained` gives it from the job's wildcards."""
    return " ".join(training_hashes(CONFIG, trained(wildcards)))


def traced_layers(wildcards):
    """The files of a folder that circuit-tracer reads, but its config.yaml."""
    pattern = "circuit-tracer/{model}/{site}/{architecture}/{width}/{sae}/{{file}}"
    return expand(pattern.format(**wildcards), file=layer_files(CONFIG, wildcards.model))


def started_from(trained, wildcards):
    """The files of the SAEs that a job's SAEs start from, and those that other jobs train on the
    same run of the LM: the first of these jobs trains for all."""
    own = trained(wildcards)
    jobs = [own, *(job for each in SHARED.passes if own in each.jobs for job in each.jobs)]
    saes = [sae for job in dict.fromkeys(jobs) for sae in members(CONFIG, job)]
    return starts.source_files(CONFIG, saes)


def evaluation_recipes(subjects, wildcards):
    """The recipes of the evaluation of what a job judges."""
    hashes = evaluation_hashes(CONFIG, subjects(wildcards), wildcards.evaluation)
    return " ".join(hashes)


def without_comparing(function, wildcards, output):
    """What a function gives of a job's wildcards, for its script. Snakemake does not compare the
    parameters whose functions take `output`."""
    return function(wildcards)


def training_plan(trained, wildcards, output):
    """A job's message."""
    return messages.of_training(CONFIG, trained(wildcards), output, SHARED.passes)


def in_pass(number, trained, wildcards):
    """Whether a job needs one of the shared passes: those of a pass run one after the other, since
    the first trains for all."""
    return int(trained(wildcards) in SHARED.passes[number].jobs)


def passes_of(trained):
    """As resources, of which each is there once."""
    count = len(SHARED.passes)
    return {f"pass_{number}": partial(in_pass, number, trained) for number in range(count)}


def is_judged_in(number, subjects, wildcards):
    """The same of what is judged together."""
    job = Evaluate(wildcards.evaluation, subjects(wildcards))
    return int(job in SHARED.judged[number].jobs)


def judged_of(subjects):
    """As resources, too."""
    count = len(SHARED.judged)
    return {f"judged_{number}": partial(is_judged_in, number, subjects) for number in range(count)}


def evaluation_plan(subjects, wildcards, output):
    """A job's message."""
    judged = subjects(wildcards)
    return messages.of_evaluation(CONFIG, wildcards.evaluation, judged, output, SHARED.judged)


def page_recipes(trained, wildcards):
    """The recipes of the pages that a job makes."""
    return short(features_hashes(CONFIG, trained(wildcards)))


def page_plan(trained, wildcards, output):
    """A job's message."""
    return messages.of_features(CONFIG, trained(wildcards), output)


def setup_inputs(wildcards):
    """What SAE Bench sets up from."""
    return job_rules.setup_inputs(CONFIG, setup_in(wildcards))


def judging_inputs(subjects, wildcards):
    """What SAE Bench judges with, besides what it judges."""
    return job_rules.judging_inputs(CONFIG, subjects(wildcards), wildcards.evaluation)


def threads_of(model):
    """The threads of a job that computes; the model may be a wildcard."""
    if model == "{model}":
        return lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    return CONFIG.training_of(model).cpu_threads


def lm_devices(model):
    """The GPUs of a job that runs a model and trains nothing."""
    return CONFIG.models[model].lm_devices


def gpus_of(model, count):
    """The GPUs of a job, as `count` has them of its model, which may be a wildcard."""
    if model == "{model}":
        return lambda wildcards: count(wildcards.model)
    return count(model)


def files_of_published(sweep, files):
    """Those files of every published SAE of a sweep."""
    return in_each([f"published/{name}" for name in CATALOGUE.of_sweep(sweep)], files)


def hub_folders_asked():
    """The folders under hub/ that are targets on the command line."""
    return [path for path in dict.fromkeys(sys.argv[1:]) if CATALOGUE.has_folder(path)]


def rebuilt_name(hub_folder):
    """The SAE that is laid out in a folder under hub/."""
    return CATALOGUE.wanted(CONFIG, CATALOGUE.at(hub_folder))


def rebuilt_files(hub_folder):
    """What an SAE's folder under hub/ is made of."""
    folder = rebuilt_name(hub_folder).folder
    of = {"weights": "ae.pt", "config": "config.json", "judged": f"{LAID_OUT_BY}.json"}
    return {key: f"{folder}/{file}" for key, file in of.items()}


def rebuilt_beside(published):
    """What trains the rebuilt SAEs beside published ones, each once: mostly one sweep."""
    return list(dict.fromkeys(trained_with(CONFIG, sae) for sae in published))


def rebuilt_recipes(wildcards):
    """Short hashes of the recipes of the rebuilt SAEs that a sweep's comparisons compare."""
    published = CATALOGUE.of_sweep(sweep_in(wildcards))
    return [evaluated(trained) for trained in rebuilt_beside(published)]


def rebuilt_recipe(wildcards):
    """The same of one SAE's comparison."""
    sae = sae_of(CONFIG, sweep_in(wildcards), wildcards.sparsity)
    return evaluated(trained_with(CONFIG, sae))


def published_recipe(wildcards):
    """The same of the published SAEs."""
    return evaluated(PublishedSweep(sweep_in(wildcards)))


def result_files(wildcards):
    """The result files that SAE Bench's authors published, where the suite has evaluations of SAE
    Bench beside core."""
    evaluated = CONFIG.suite_evaluations(wildcards.model)
    if CONFIG.published.results is None or not set(CONFIG.sae_bench_evaluations) & set(evaluated):
        return []
    return [dataset_file(CONFIG.published.results)]


def published_entry(wildcards):
    """The catalogue's entry of the SAE that a job's wildcards name."""
    return CATALOGUE.named(f"{sweep_in(wildcards)}/{wildcards.sparsity}")


def published_figure_tables(wildcards):
    """What a figure of rebuilt and published SAEs shows: each comparison of a hookpoint. The comparison
    with the catalogue needs no published weights."""
    file = figures.get(wildcards.published_figure).table
    return [
        path
        for sweep in CATALOGUE.sweeps()
        if (sweep.model, sweep.hookpoint) == (wildcards.model, hookpoint_in(wildcards))
        for path in files_of_published(sweep, [file])
    ]


def tokens_inputs(wildcards):
    """What tokenising needs: the model's tokenizer, and where the text goes on after what was
    trained on, how far that is."""
    needed = {"model": f"results/{wildcards.model}/model.json"}
    if tokens_recipe(CONFIG, wildcards.model, wildcards.use).after:
        needed["after"] = f"results/{wildcards.model}/tokens/train/manifest.json"
    return needed


def shown_in(wildcards):
    """What a figure of a suite shows."""
    return shown.of_hookpoint(CONFIG, wildcards.figure, wildcards.model, hookpoint_in(wildcards))


def shown_recipes(what):
    """Short hash of the recipes of all that a figure shows (see `evaluated`)."""
    hashes = [*map(evaluated, what.subjects)]
    for name, judged in what.apart:
        hashes += evaluation_hashes(CONFIG, judged, name)
    if what.table == STABILITY:
        hashes += [stability_recipe(CONFIG, sweep).hash for sweep in what.trained]
    return short([*hashes, str(figures.VERSION)])


def figure_recipes(wildcards):
    """The same of a figure of a suite."""
    return shown_recipes(shown_in(wildcards))


def own_figure_recipes(wildcards):
    """The same of a figure of the config, and how it is drawn."""
    name = wildcards.own_figure
    drawn = digest(CONFIG.figures[name].model_dump(mode="json"))
    return short([shown_recipes(shown.of_own(CONFIG, name)), drawn])


def report_recipes(wildcards):
    """The same of a report. Names of the catalogue and tolerances are in it too."""
    hookpoint = hookpoint_in(wildcards)
    names = report_figure_names(CONFIG, wildcards.model)
    what = [shown.of_hookpoint(CONFIG, name, wildcards.model, hookpoint) for name in names]
    pages = CONFIG.models[wildcards.model].suite.pages
    entries = [
        repr(entry)
        for sweep in CATALOGUE.sweeps()
        if (sweep.model, sweep.hookpoint) == (wildcards.model, hookpoint)
        for entry in CATALOGUE.of_sweep(sweep).values()
    ]
    said = digest([COMPARED_BY, captions.VERSION, pages, entries])
    return short([*map(shown_recipes, what), said])


def published_figure_recipes(wildcards):
    """The same of a figure of rebuilt and published SAEs."""
    place = (wildcards.model, hookpoint_in(wildcards))
    sweeps = [sweep for sweep in CATALOGUE.sweeps() if (sweep.model, sweep.hookpoint) == place]
    hashes = [
        evaluated(subjects)
        for sweep in sweeps
        for subjects in (*rebuilt_beside(CATALOGUE.of_sweep(sweep)), PublishedSweep(sweep))
    ]
    return short([*hashes, str(figures.VERSION)])


def figure_tables(wildcards):
    """What a figure of a suite reads."""
    return shown_in(wildcards).files(CONFIG)


wildcard_constraints:
    model="|".join(map(re.escape, CONFIG.models)),
    architecture="|".join(CONFIG.architectures),
    layer="0|[1-9][0-9]*",
    hookpoint=HOOKPOINTS,
    width="|".join([*map(re.escape, CONFIG.widths), NUMBERED_WIDTH.pattern]),
    use="|".join(uses(CONFIG)),
    evaluation="|".join(CONFIG.text_evaluations),
    dataset="|".join(map(re.escape, CONFIG.datasets)),
    figure="|".join(figures.patterns()),
    own_figure="|".join(map(re.escape, CONFIG.figures)) or "(?!)",
    published_figure="|".join(figures.PUBLISHED),
    # Only as the catalogue has them: a wildcard of its own would take any path under hub/.
    folder="|".join(re.escape(f"{entry.repository}/{entry.path}") for entry in CATALOGUE.entries),
