"""Functions of the rules: names and recipes of this config. No rule is here."""

import functools
import re
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from snakemake.cli import get_argument_parser

from saemake import figures, recipes
from saemake.base import interrupts
from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.config.config import identifier
from saemake.jobs import screen, turns
from saemake.paths import catalogue
from saemake.paths.command_words import check_target
from saemake.paths.files import (
    SAELENS_VERSION,
    build_files,
    checkpoint_files,
    checkpointed_sweeps,
    hub_folder_files,
    latents_file,
    suite_files,
    suite_sweeps,
    uses,
)
from saemake.paths.names import (
    METRICS,
    SAE_FILES,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Sweep,
    sparsity_name,
)
from saemake.paths.sweeps import latents_for, members
from saemake.paths.spelling import sae_of
from saemake.plan import messages
from saemake.published.hub_layout import EVALUATION as LAID_OUT_BY

# Options of snakemake whose value may be a path under results/ and is no target.
TAKES_A_PATH = {"--report", "--archive", "--directory", "-d", "--configfile", "--profile"}


# Options other than -n with which snakemake looks and changes no file.
LOOKS_ONLY = """
    lint list_rules list_target_rules print_compilation containerize generate_unit_tests dag
    rulegraph filegraph d3dag unlock list_conda_envs list_changes list_input_changes
    list_params_changes list_untracked summary detailed_summary archive
""".split()


def wait_for_turn(checked):
    """Wait until no other run works on the models of the targets (see saemake/jobs/turns.py). Here, since
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
                check_target(checked, argument)
        return checked, catalogue.load(checked)
    except SaemakeError as error:
        sys.exit(f"saemake: {error}")


if workflow.is_main_process:
    interrupts.say_in_one_line()
if not (workflow.output_settings.verbose or workflow.output_settings.show_failed_logs):
    screen.shorten_failures()
CONFIG, CATALOGUE = checked_config()
# Open files, as long as this process lives.
TURN = wait_for_turn(CONFIG)
EVALUATED = [f"{name}.json" for name in CONFIG.evaluation_names]
# Snakemake cannot see into what else a comparison depends on.
COMPARED_BY = repr(CONFIG.published.tolerances)
# A width that says its number, and an SAE's parts of a path below its width.
NUMBERED = "[1-9][0-9]*k?"
ONE_SAE = "[^/]+(?:/seed_[0-9]+)?"


def sweep_of(wildcards):
    """The sweep that a job's wildcards name."""
    return Sweep(wildcards.model, int(wildcards.layer), wildcards.architecture, wildcards.width)


def sae_named(wildcards):
    """The SAE that a job's wildcards name."""
    return sae_of(CONFIG, sweep_of(wildcards), *wildcards.sae.split("/"))


def baselines_of(wildcards):
    """The baselines that a job's wildcards name."""
    return Baselines(wildcards.model, int(wildcards.layer))


# What is made of evaluations has their recipes in a param too. A failed evaluation leaves its outputs
# missing, and Snakemake makes nothing missing for files that look up to date: without the param a
# plain rerun would say that there is nothing to do, and leave the old table.
@functools.cache
def evaluated(subjects):
    """Short hash of the recipes of all evaluations of what one job judges."""
    return short(
        recipes.evaluation_hashes(CONFIG, subjects, name) for name in CONFIG.evaluation_names
    )


def evaluated_by_wildcards(subjects, wildcards):
    """The same, where `subjects` gives what a job's wildcards name."""
    return evaluated(subjects(wildcards))


def short(parts):
    """A short hash of hashes."""
    return digest(list(parts))[:16]


def training_recipes(trained, wildcards):
    """The recipes of what a job trains; `trained` gives it from the job's wildcards."""
    return " ".join(recipes.training_hashes(CONFIG, trained(wildcards)))


def evaluation_recipes(subjects, wildcards):
    """The recipes of the evaluation of what a job judges."""
    hashes = recipes.evaluation_hashes(CONFIG, subjects(wildcards), wildcards.evaluation)
    return " ".join(hashes)


def without_comparing(function, wildcards, output):
    """What a function gives of a job's wildcards, for its script. Snakemake does not compare the
    parameters whose functions take `output`."""
    return function(wildcards)


def training_plan(trained, wildcards, output):
    """A job's message."""
    return messages.of_training(CONFIG, trained(wildcards), output)


def evaluation_plan(subjects, wildcards, output):
    """A job's message."""
    return messages.of_evaluation(CONFIG, wildcards.evaluation, subjects(wildcards), output)


class Pass:
    """A rule that trains: the sweep of a model and an architecture, or one SAE that the sweep does
    not list; its layer and width are open."""

    def __init__(self, model, architecture, alone):
        self.model, self.architecture, self.alone = model, architecture, alone
        self.checkpoints = checkpoint_files(CONFIG, model, architecture)
        sweep = CONFIG.settings_of(model, architecture).sweep
        self.swept = [sparsity_name(architecture, value) for value in sweep]
        folder = f"{model}/L{{layer}}/{architecture}/{{width}}"
        self.place = f"{folder}/{{sae}}" if alone else folder
        self.folders = [self.place] if alone else [f"{folder}/{name}" for name in self.swept]

    def rule_name(self, stage):
        """A name that Snakemake takes: `train__demo__top_k`."""
        parts = [stage, identifier(self.model), identifier(self.architecture)]
        return "__".join([*parts, *(["one"] if self.alone else [])])

    def files(self, names):
        """Files of these names, of every SAE."""
        return [f"results/{folder}/{name}" for folder in self.folders for name in names]

    @property
    def constraints(self):
        """A sweep fits into wide dictionaries only; what it does not list, or is too narrow for it,
        is one SAE."""
        widths = "|".join([*map(re.escape, CONFIG.widths), NUMBERED])
        fewest = latents_for(CONFIG, self.model, self.architecture)
        narrow = [str(n) for n in range(1, fewest) if str(n) not in CONFIG.widths]
        too_narrow = "|".join(narrow) or "(?!)"
        if not self.alone:
            return {"width": f"(?!(?:{too_narrow})/)(?:{widths})"}
        swept = "|".join(map(re.escape, self.swept))
        listed = f"(?!/(?:{swept})/(?!seed_))"
        return {"width": f"(?:{too_narrow})(?=/)|(?:{widths}){listed}", "sae": ONE_SAE}

    def trained(self, wildcards):
        """What a job trains."""
        sweep = Sweep(self.model, int(wildcards.layer), self.architecture, wildcards.width)
        return sae_of(CONFIG, sweep, *wildcards.sae.split("/")) if self.alone else sweep


class Judged:
    """A rule that judges what one run of the LM judges together, and one that joins its tables."""

    def __init__(self, subjects, folders, inputs, model, rules, logs, called, **more):
        self.subjects, self.folders, self.inputs, self.called = subjects, folders, inputs, called
        self.evaluate_rule, self.join_rule = rules
        self.evaluate_log, self.join_log = logs
        self.latents = more.get("latents", True)
        self.constraints = more.get("constraints", {})
        self.threads = more.get("threads") or CONFIG.training_of(model).cpu_threads
        self.model_json = f"results/{model}/model.json"
        self.tokens = f"results/{model}/tokens/{{evaluation}}/manifest.json"

    def tables(self, names):
        """Tables of these names, in each folder."""
        return [f"{folder}/{name}" for folder in self.folders for name in names]

    @property
    def outputs(self):
        """What an evaluation writes."""
        latents = [latents_file("{evaluation}")] if self.latents else []
        return self.tables(["{evaluation}.json", *latents])


def judged_pass(pass_):
    """The evaluation of what a pass trains."""
    label = "{wildcards.width}/{wildcards.sae}" if pass_.alone else "{wildcards.width}"
    return Judged(
        subjects=pass_.trained,
        folders=[f"results/{folder}" for folder in pass_.folders],
        inputs=pass_.files(["ae.pt", "config.json", "provenance.json"]),
        model=pass_.model,
        rules=(pass_.rule_name("evaluate"), pass_.rule_name("join")),
        logs=(f"evaluate/{pass_.place}", pass_.place),
        called=f"{pass_.model}/L{{wildcards.layer}}/{pass_.architecture}/{label}",
        constraints=pass_.constraints,
    )


def judged_checkpoints(model, architecture):
    """The evaluation of an SAE's checkpoints."""
    folder = f"results/{model}/L{{layer}}/{architecture}/{{width}}/{{sae}}"
    place = f"{model}/L{{layer}}/{architecture}/{{width}}/{{sae}}_checkpoints"
    pass_ = Pass(model, architecture, alone=True)
    return Judged(
        subjects=lambda wildcards: Checkpoints(pass_.trained(wildcards)),
        folders=[f"{folder}/checkpoints"],
        inputs=[f"{folder}/{file}" for file in (*pass_.checkpoints, "config.json")],
        model=model,
        rules=(pass_.rule_name("evaluate_checkpoints"), pass_.rule_name("join_checkpoints")),
        logs=(f"evaluate/{place}", place),
        called=f"the checkpoints of {model}/L{{wildcards.layer}}/{architecture}"
        "/{wildcards.width}/{wildcards.sae}",
        latents=False,
        constraints={"sae": ONE_SAE},
    )


def judged_published(sweep):
    """The evaluation of the published SAEs of a sweep. Their tables are joined one by one."""
    parts = [sweep.model, sweep.layer, sweep.architecture, sweep.width]
    return Judged(
        subjects=lambda wildcards: PublishedSweep(sweep),
        folders=[f"published/{name}" for name in CATALOGUE.of_sweep(sweep)],
        inputs=published_files(sweep, ["ae.pt", "config.json", "source.json"]),
        model=sweep.model,
        rules=("__".join(["published", *(identifier(str(part)) for part in parts)]), None),
        logs=(f"published/{sweep}/", None),
        called=None,
    )


def joined_published():
    """The tables of a published SAE."""
    sae = "{model}/L{layer}/{architecture}/{width}/{sae}"
    return Judged(
        subjects=lambda wildcards: PublishedSweep(sweep_of(wildcards)),
        folders=[f"published/{sae}"],
        inputs=[],
        model=next(iter(CONFIG.models)),
        rules=(None, "join_published"),
        logs=(None, f"published/{sae}"),
        called="published {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}"
        "/{wildcards.width}/{wildcards.sae}",
        constraints={"sae": "[^/]+"},
    )


def judged_baselines():
    """The evaluation of a layer's baselines."""
    folder = "results/{model}/L{layer}/baselines"
    return Judged(
        subjects=baselines_of,
        folders=[folder],
        inputs=[f"{folder}/pca.safetensors"],
        model="{model}",
        rules=("evaluate_baselines", "join_baselines"),
        logs=("evaluate/{model}/L{layer}/baselines", "{model}/L{layer}/baselines"),
        called="the baselines of {wildcards.model}/L{wildcards.layer}",
        latents=False,
        threads=lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads,
    )


def published_files(sweep, files):
    """Those files of every published SAE of a sweep."""
    return [f"published/{name}/{file}" for name in CATALOGUE.of_sweep(sweep) for file in files]


SWEPT = [(model, architecture) for model in CONFIG.models for architecture in CONFIG.architectures]
PASSES = [Pass(*pair, alone=alone) for pair in SWEPT for alone in (False, True)]
REBUILT = [
    *map(judged_pass, PASSES),
    *(judged_checkpoints(*pair) for pair in SWEPT if CONFIG.checkpoint_steps(*pair)),
    judged_baselines(),
]
JUDGED = [*REBUILT, *map(judged_published, CATALOGUE.sweeps())]
JOINED = [*REBUILT, joined_published()]


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


def published_entry(wildcards):
    """The catalogue's entry of the SAE that a job's wildcards name."""
    return CATALOGUE.named(f"{sweep_of(wildcards)}/{wildcards.sparsity}")


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


def figure_sweeps(wildcards):
    """The sweeps that a figure of a suite shows, at one layer."""
    training = wildcards.figure in figures.TRAINING
    find = checkpointed_sweeps if training else suite_sweeps
    return find(CONFIG, wildcards.model, int(wildcards.layer))


def figure_checkpoints(wildcards):
    """The SAEs whose checkpoints a figure of the training shows; none of another figure."""
    if wildcards.figure not in figures.TRAINING:
        return []
    return [sae for sweep in figure_sweeps(wildcards) for sae in members(CONFIG, sweep)]


def figure_recipes(wildcards):
    """Short hash of the recipes of all that a figure shows (see `evaluated`)."""
    parts = [baselines_of(wildcards), *figure_sweeps(wildcards)]
    return short(map(evaluated, [*parts, *map(Checkpoints, figure_checkpoints(wildcards))]))


def published_figure_recipes(wildcards):
    """The same of a figure of rebuilt and published SAEs."""
    layer = (wildcards.model, int(wildcards.layer))
    sweeps = [sweep for sweep in CATALOGUE.sweeps() if (sweep.model, sweep.layer) == layer]
    return short(evaluated(part) for sweep in sweeps for part in (sweep, PublishedSweep(sweep)))


def figure_tables(wildcards):
    """What a figure shows: the tables of every sweep; of the training's figures, also those of the
    checkpoints."""
    tables = [f"{sweep.folder}/{METRICS}" for sweep in figure_sweeps(wildcards)]
    checkpoints = figure_checkpoints(wildcards)
    return tables + [f"{sae.folder}/checkpoints/{METRICS}" for sae in checkpoints]


wildcard_constraints:
    model="|".join(map(re.escape, CONFIG.models)),
    architecture="|".join(CONFIG.architectures),
    layer="0|[1-9][0-9]*",
    width="|".join([*map(re.escape, CONFIG.widths), NUMBERED]),
    use="|".join(uses(CONFIG)),
    evaluation="|".join(CONFIG.evaluation_names),
    figure="|".join(figures.names()),
    published_figure="|".join(figures.PUBLISHED),
    # Only as the catalogue has them: a wildcard of its own would take any path under hub/.
    folder="|".join(re.escape(f"{entry.repository}/{entry.path}") for entry in CATALOGUE.entries),
