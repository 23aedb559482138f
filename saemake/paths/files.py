"""Which files there are: of an SAE, a sweep, a suite, a push, and of what a plain run builds."""

from collections.abc import Iterator

from saemake import architectures, figures
from saemake.config.config import Config
from saemake.config.sections import FIGURES
from saemake.config.start_from import filled, models_before
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue, judged_by
from saemake.paths.names import (
    CHECKPOINTS,
    METRICS,
    PCA,
    PUBLISHED,
    RESULTS,
    SAE_FILES,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Subjects,
    Sweep,
    checkpoint_file,
    dataset_file,
)
from saemake.paths.sweeps import check_in_model, members, of_other_seeds, with_seeds

# Of a hookpoint: the suite on one page, and the figures in it besides those of a plain run.
REPORT = "report.html"
# Of a sweep: how its latents recur in other seeds.
STABILITY = "stability.json"
# They are against L0, which these evaluations tell.
HAVE_L0 = ("dictionary_learning", "sae_bench_core")
# By evaluation, the column of what it saw of each latent that says how often the latent fires. The
# first that a suite has is taken.
FIRINGS = {"sae_bench_core": "feature_density", "dictionary_learning": "density"}
IN_REPORT = (
    "overview",
    "dead_latents_vs_l0",
    "latent_densities",
    "decoder_similarities",
    "training_curves",
)
FIGURE_FORMATS = ("pdf", "svg")
LATENTS_SUFFIX, DETAILS_SUFFIX = "_latents.parquet", "_details.json"
# Of an SAE laid out as published, and of a published SAE itself.
HUB_FILES = ("ae.pt", "config.json", "eval_results.json")
PUBLISHED_WEIGHTS = ("ae.pt", "config.json", "source.json")
# The evaluation of an SAE that is laid out as published.
LAID_OUT_BY = "dictionary_learning"
COMPARISON, AGAINST_CATALOGUE = "comparison.json", "against_catalogue.json"
COMPARISONS = (COMPARISON, AGAINST_CATALOGUE)
REPOSITORIES = "repositories"
# Of what is fetched for a model.
OK = ".ok"
# Raised when other bytes are written for the same SAE.
SAELENS_VERSION = 1
# The same of circuit-tracer's.
TRACER_VERSION = 1
SAELENS_FILES = ("sae_weights.safetensors", "cfg.json")
# The page of an SAE and its data; the text that they are of is that of this evaluation.
FEATURES, FEATURES_PAGE = "features.parquet", "features.html"
FEATURES_TEXT = LAID_OUT_BY
# Of a push. Sent beside the suite: the model card, and the config that rebuilds the suite, by which
# a repository is known as saemake's.
PLAN, CARD, REBUILDING, RECEIPT = "plan.txt", "README.md", "saemake.yaml", "receipt.json"
PUSH_FILES = (PLAN, CARD, REBUILDING, RECEIPT)


def uses(config: Config) -> list[str]:
    """What text is tokenised for."""
    return ["train", *config.text_evaluations]


def tables(config: Config) -> list[str]:
    """The tables of what is judged: one an evaluation, and all of them together."""
    return [*(f"{name}.json" for name in config.evaluation_names), METRICS]


def latents_file(evaluation: str) -> str:
    """What an evaluation saw of each latent of an SAE."""
    return f"{evaluation}{LATENTS_SUFFIX}"


def details_file(evaluation: str) -> str:
    """What SAE Bench says of an SAE beside its figures."""
    return f"{evaluation}{DETAILS_SUFFIX}"


def _beside_tables(config: Config) -> list[str]:
    return [
        *map(latents_file, config.text_evaluations),
        *map(details_file, config.sae_bench_evaluations),
    ]


def sae_files(config: Config) -> list[str]:
    """The files of an SAE, but its checkpoints."""
    of_page = [FEATURES, FEATURES_PAGE]
    return [*SAE_FILES, *tables(config), *_beside_tables(config), *of_page]


def baseline_files(config: Config) -> list[str]:
    """The files of the baselines of a site."""
    return [PCA, *tables(config)]


def published_files(config: Config) -> list[str]:
    """The files of a published SAE."""
    return [*PUBLISHED_WEIGHTS, *tables(config), *_beside_tables(config), *COMPARISONS]


def evaluation_in(config: Config, file: str) -> str | None:
    """The evaluation whose figures, latents or details a file holds."""
    name = file.removesuffix(LATENTS_SUFFIX).removesuffix(DETAILS_SUFFIX).removesuffix(".json")
    return name if name in config.evaluation_names else None


def evaluation_files(config: Config, subjects: Subjects, evaluation: str) -> list[str]:
    """The tables of one evaluation of all that one job judges."""
    match subjects:
        case Sweep() | SaeName():
            folders = [sae.folder for sae in members(config, subjects)]
        case Checkpoints(sae):
            folders = [f"{sae.folder}/{CHECKPOINTS}"]
        case Baselines():
            folders = [subjects.folder]
        case PublishedSweep(sweep):
            folders = [f"{PUBLISHED}/{sae}" for sae in catalogue.load(config).of_sweep(sweep)]
    return [f"{folder}/{evaluation}.json" for folder in folders]


def checkpoint_files(config: Config, model: str, architecture: str) -> list[str]:
    """The checkpoints that the config asks of each SAE."""
    return [checkpoint_file(step) for step in config.checkpoint_steps(model, architecture)]


def suite_sweeps(config: Config, model: str, hookpoint: Hookpoint) -> list[Sweep]:
    """The sweeps of a model's suite, at one hookpoint (of the suite or not): without those of
    transcoders alone where the hookpoint is an SAE's, and the other way round."""
    suite, transcoder = config.models[model].suite, hookpoint.is_transcoder
    return [
        Sweep(model, hookpoint, architecture, width)
        for architecture in suite.architectures
        if architectures.get(architecture).stands_at(transcoder=transcoder)
        for width in suite.widths
    ]


def checkpointed_sweeps(config: Config, model: str, hookpoint: Hookpoint) -> list[Sweep]:
    """Those of them whose checkpoints the config asks for."""
    return [
        sweep
        for sweep in suite_sweeps(config, model, hookpoint)
        if config.checkpoint_steps(model, sweep.architecture)
    ]


def seeded_sweeps(config: Config, model: str, hookpoint: Hookpoint) -> list[Sweep]:
    """Those of them with SAEs of several seeds."""
    sweeps = suite_sweeps(config, model, hookpoint)
    return [sweep for sweep in sweeps if of_other_seeds(config, sweep)]


def stability_files(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """The tables of how latents recur in other seeds, at one hookpoint."""
    return [f"{sweep.folder}/{STABILITY}" for sweep in seeded_sweeps(config, model, hookpoint)]


def firings_of(config: Config, model: str) -> str | None:
    """The evaluation that says which latents of a suite's SAEs fire; None if it has none."""
    evaluated = config.suite_evaluations(model)
    return next((name for name in FIRINGS if name in evaluated), None)


def seeds_files(config: Config, sweep: Sweep) -> list[str]:
    """What the comparison of a sweep's seeds reads of each SAE."""
    evaluation = firings_of(config, sweep.model)
    seen = [] if evaluation is None else [latents_file(evaluation)]
    names = ["ae.pt", "config.json", *seen]
    return [f"{sae.folder}/{name}" for sae in with_seeds(config, sweep) for name in names]


def figures_of(config: Config, model: str) -> list[str]:
    """The figures that a plain run draws of a model's suite: those of its evaluations, those of the
    training where it has checkpoints, and those of its seeds where it has several."""
    evaluated = set(config.suite_evaluations(model))
    has_l0 = not evaluated.isdisjoint(HAVE_L0)
    described = {name: figures.FIGURES[name] for name in _drawable(config, model)}
    return [
        name
        for name, figure in described.items()
        if figure.by_default
        and (has_l0 if figure.shows == "seeds" else figure.evaluation in evaluated)
    ]


def figures_on_demand(config: Config, model: str) -> list[str]:
    """All figures that a model's suite gives: also SAE Bench's evaluations against L0 that are not
    of the suite, and the paper's figures of those that are."""
    named = [
        [figures.at_width(name, width) for width in config.models[model].suite.widths]
        if figures.FIGURES[name].at_width
        else [name]
        for name in _drawable(config, model)
    ]
    return [name for names in named for name in names]


def _drawable(config: Config, model: str) -> list[str]:
    checkpointed = checkpointed_sweeps(config, model, Hookpoint(0))
    seeded = seeded_sweeps(config, model, Hookpoint(0))
    evaluated = {*config.suite_evaluations(model), *config.sae_bench_evaluations}
    return [
        name
        for name in figures.names()
        if (checkpointed or name not in figures.TRAINING)
        and (seeded or figures.FIGURES[name].shows != "seeds")
        and figures.FIGURES[name].evaluation in ("", *evaluated)
    ]


def figure_files(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """The files of those figures, at one hookpoint."""
    return [
        f"{RESULTS}/{model}/{hookpoint}/{FIGURES}/{figure}.{suffix}"
        for figure in figures_of(config, model)
        for suffix in FIGURE_FORMATS
    ]


def report_figure_names(config: Config, model: str) -> list[str]:
    """The figures in the report of a model's suite: those of a plain run, and those that say more
    of the SAEs."""
    evaluated = {*config.suite_evaluations(model)}
    more = [
        name
        for name in ([] if evaluated.isdisjoint(HAVE_L0) else IN_REPORT)
        if figures.FIGURES[name].evaluation in ("", *evaluated)
    ]
    return list(dict.fromkeys([*more[:1], *figures_of(config, model), *more[1:]]))


def report_figures(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """The files of those figures, at one hookpoint."""
    return [
        f"{RESULTS}/{model}/{hookpoint}/{FIGURES}/{figure}.{suffix}"
        for figure in report_figure_names(config, model)
        for suffix in FIGURE_FORMATS
    ]


def report_tables(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """What the tables of a report are made of: the sweeps' tables, each SAE's provenance, and how
    latents recur in other seeds."""
    of_sweeps = [
        path
        for sweep in suite_sweeps(config, model, hookpoint)
        for path in (
            f"{sweep.folder}/{METRICS}",
            *(f"{sae.folder}/provenance.json" for sae in with_seeds(config, sweep)),
        )
    ]
    return [*of_sweeps, *stability_files(config, model, hookpoint)]


def own_figure_files(config: Config) -> list[str]:
    """The files of the figures that the config describes."""
    return [
        f"{RESULTS}/{FIGURES}/{name}.{suffix}"
        for name in config.figures
        for suffix in FIGURE_FORMATS
    ]


def hookpoint_files(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """What a plain run builds of a model's suite at one hookpoint: its figures, checkpoints,
    report, and the pages of its SAEs."""
    return [
        *figure_files(config, model, hookpoint),
        *_checkpoints(config, model, hookpoint),
        *suite_pages(config, model, hookpoint),
        f"{RESULTS}/{model}/{hookpoint}/{REPORT}",
    ]


def build_files(config: Config) -> list[str]:
    """What a plain `snakemake` builds: the suites of the models under `build`. Raises SaemakeError
    where a model's layers are not known (see layers_of)."""
    paths = []
    for model in config.build:
        for hookpoint in config.models[model].suite.hookpoints:
            check_in_model(config, model, hookpoint)
            paths += hookpoint_files(config, model, hookpoint)
    return paths


def suite_pages(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    """The pages of the SAEs, where the suite has them: of those whose names have no seed."""
    if not config.models[model].suite.pages:
        return []
    return [
        f"{sae.folder}/{FEATURES_PAGE}"
        for sweep in suite_sweeps(config, model, hookpoint)
        for sae in members(config, sweep)
    ]


def _checkpoints(config: Config, model: str, hookpoint: Hookpoint) -> list[str]:
    return [
        f"{member.folder}/{file}"
        for sweep in checkpointed_sweeps(config, model, hookpoint)
        for file in checkpoint_files(config, model, sweep.architecture)
        for member in with_seeds(config, sweep)
    ]


def suite_saes(config: Config, model: str) -> list[SaeName]:
    """The SAEs of a model's suite, of all its seeds."""
    return [
        sae
        for hookpoint in config.models[model].suite.hookpoints
        for sweep in suite_sweeps(config, model, hookpoint)
        for sae in with_seeds(config, sweep)
    ]


def suite_files(config: Config, model: str) -> list[str]:
    """The files under results/ of a model's suite that a push sends: of each SAE its own and its
    metrics, and its checkpoints with theirs; tables, baselines, figures, reports and pages; the
    model's."""
    paths = [f"{RESULTS}/{model}/model.json"]
    for hookpoint in config.models[model].suite.hookpoints:
        paths.append(f"{Baselines(model, hookpoint.target).folder}/{METRICS}")
        paths += hookpoint_files(config, model, hookpoint)
        paths += report_figures(config, model, hookpoint)
        paths += [f"{sweep.folder}/{METRICS}" for sweep in suite_sweeps(config, model, hookpoint)]
        paths += stability_files(config, model, hookpoint)
    for sae in suite_saes(config, model):
        checkpoints = checkpoint_files(config, model, sae.sweep.architecture)
        of_sae = [*SAE_FILES, METRICS, *checkpoints]
        of_sae += [f"{CHECKPOINTS}/{METRICS}"] if checkpoints else []
        paths += [f"{sae.folder}/{file}" for file in of_sae]
    return list(dict.fromkeys(paths))


def hub_files(config: Config, sae: SaeName) -> list[str]:
    """The files of a rebuilt SAE's folder under hub/."""
    return [*HUB_FILES, *checkpoint_files(config, sae.model, sae.sweep.architecture)]


def hub_entries(config: Config, folder: str) -> list[catalogue.Entry]:
    """The published SAEs that are laid out in a folder under hub/, or below it. Raises SaemakeError
    where there is none."""
    known, place = catalogue.load(config), folder.rstrip("/")
    return known.under(place) or [known.at(place)]


def hub_folder_files(config: Config, folder: str) -> list[str]:
    """The files that a rebuilt SAE, or all below a folder, have under hub/."""
    known = catalogue.load(config)
    return [
        f"{entry.hub_folder}/{file}"
        for entry in hub_entries(config, folder)
        for file in hub_files(config, known.name(entry))
    ]


def fetched_files(config: Config, model: str) -> list[str]:
    """All files whose jobs use the network and that a model's suite is made from: LMs, texts as
    tokens, and what SAE Bench's evaluations read."""
    by_bench = _by_sae_bench(config, model)
    lms = [model, *(config.sae_bench_lm(model, name) for name in by_bench)]
    read = [data for name in by_bench for data in config.sae_bench_datasets(model, name)]
    judged_on = [name for name in uses(config) if name in config.suite_evaluations(model)]
    paths = [
        *(f"{RESULTS}/{lm}/model.json" for lm in lms),
        *(
            f"{RESULTS}/{model}/tokens/{use}/manifest.json"
            for use in ("train", *judged_on, FEATURES_TEXT)
        ),
        *map(dataset_file, read),
        *_fetched_starts(config, model),
    ]
    return list(dict.fromkeys(paths))


def _fetched_starts(config: Config, model: str) -> Iterator[str]:
    """The same of the SAEs that those of a model's suite start from, and of those before these."""
    names = list(map(str, suite_saes(config, model)))
    for entry in [model, *models_before(config, model)]:
        template = config.training_of(entry).start_from
        if template is None:
            return
        paths = list(dict.fromkeys(filled(template, name) for name in names))
        top, source, *_ = paths[0].split("/")
        if top == PUBLISHED:
            yield from (f"{path}/{file}" for path in paths for file in PUBLISHED_WEIGHTS)
            return
        yield f"{RESULTS}/{source}/model.json"
        yield f"{RESULTS}/{source}/tokens/train/manifest.json"
        names = [path.removeprefix(f"{RESULTS}/") for path in paths]


def _by_sae_bench(config: Config, model: str) -> list[str]:
    """The evaluations of a model's suite that SAE Bench computes, and can compute for it."""
    suite = config.models[model].suite
    places = [Baselines(model, Hookpoint.at(suite.layers[0], site)) for site in suite.sites]
    return [
        name
        for name in config.suite_evaluations(model)
        if name in config.sae_bench_evaluations
        and any(judged_by.why_not(config, place, name) is None for place in places)
    ]


def runs_sae_bench(config: Config, model: str) -> bool:
    """Whether a model's suite has evaluations that SAE Bench's own code computes."""
    return bool(_by_sae_bench(config, model))


def asks_judges(config: Config, model: str) -> list[str]:
    """The evaluations of a model's suite that ask a judge over the network."""
    names = _by_sae_bench(config, model)
    return [name for name in names if judged_by.judge_key(config, model, name) is not None]


def fetched_published_files(config: Config, model: str) -> list[str]:
    """The files of a model's published SAEs, the commits that they are taken from, and where the
    suite has evaluations of SAE Bench, its published results."""
    known = catalogue.load(config)
    entries = [entry for entry in known.entries if entry.model == model]
    results = config.published.results
    paths = [
        *(f"{PUBLISHED}/{REPOSITORIES}/{entry.repository}.json" for entry in entries),
        *(f"{PUBLISHED}/{known.name(e)}/{file}" for e in entries for file in PUBLISHED_WEIGHTS),
        *([dataset_file(results)] if results is not None and _asks_results(config, model) else []),
    ]
    return list(dict.fromkeys(paths))


def _asks_results(config: Config, model: str) -> bool:
    """As a comparison does."""
    return not {*config.sae_bench_evaluations}.isdisjoint(config.suite_evaluations(model))
