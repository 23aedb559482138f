"""The grammar of paths: `parse` reads a path as an artifact, `str` of the artifact is its path.

    results/{model}/model.json
    results/{model}/tokens/{use}/manifest.json
    results/{model}/{hookpoint}/baselines/{file}
    results/{model}/{hookpoint}/setups/{evaluation}/seed_{n}.json
    results/{model}/{hookpoint}/figures/{figure}.{pdf, svg}
    results/{model}/{hookpoint}/report.html
    results/figures/{figure}.{pdf, svg}            a figure that the config describes
    results/{sweep}/metrics.json           {sweep}: {model}/{hookpoint}/{architecture}/{width}
    results/{sae}/{file}                           {sae}: {sweep}/{sparsity}, or {sae}/seed_{n}
    results/{sae}/checkpoints/{file}
    hub/{folder as published}/{file}               a rebuilt SAE, laid out as it was published
    hub/{folder}                                   all rebuilt SAEs below that folder
    published/repositories/{owner}/{repository}.json
    published/{sae}/{file}                         the published SAE itself
    published/{sweep}/comparison.json
    published/{model}/{hookpoint}/figures/{figure}.{pdf, svg}
    saelens/{sae}/{file}                           in SAELens's format
    circuit-tracer/{model}/{read}-{write}/{architecture}/{width}/{sparsity}/{file}
                                                   transcoders of all layers, in circuit-tracer's
    published-to/{owner}/{repository}/{model}/{file}
    datasets/{dataset}.json                        what SAE Bench's evaluations read
    fetched/{model}.ok                             all that the model's suite needs of the network
    fetched/{model}/published.ok                   the model's published SAEs

{hookpoint} is L{layer}, L{layer}.{site}, or of transcoders L{layer}.{read}-{write}.
Nothing else takes a path apart.
"""

from collections.abc import Callable, Sequence

from saemake import figures
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.config.sections import FIGURES
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue, files, judged_by, tracer
from saemake.paths.artifacts import (
    Artifact,
    BaselinesFile,
    CheckpointsFile,
    ComparisonTable,
    DatasetFile,
    FetchedFile,
    FigureFile,
    HubFile,
    HubFolder,
    ModelFile,
    OwnFigureFile,
    PushFile,
    ReportFile,
    RepositoryFile,
    SaeFile,
    SetupFile,
    SweepTable,
    TokensFile,
    TracerFile,
)
from saemake.paths.names import (
    BASELINES,
    CHECKPOINTS,
    CIRCUIT_TRACER,
    DATASETS,
    FETCHED,
    HUB,
    METRICS,
    PUBLISHED,
    PUBLISHED_TO,
    RESULTS,
    SAE_FILES,
    SAELENS,
    SETUPS,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    SetupName,
    Subjects,
    Sweep,
    misspelt_top,
    seed_name,
)
from saemake.paths.repository import check_repository
from saemake.paths.spelling import sae_of, unknown
from saemake.paths.sweeps import check_in_model, check_model, members


def parse(config: Config, path: str) -> Artifact:
    """The artifact of a path: one that the config names, whether or not it exists.

    Raises SaemakeError where the path is none, in one line that begins with the path and names the
    nearest that is.
    """
    top, *parts = path.rstrip("/").split("/")
    readers: dict[str, Callable[[Config, list[str]], Artifact]] = {
        RESULTS: _result,
        HUB: _laid_out,
        PUBLISHED: _published,
        SAELENS: _export,
        CIRCUIT_TRACER: _traced,
        PUBLISHED_TO: _push,
        DATASETS: _dataset,
        FETCHED: _fetched,
    }
    if (meant := misspelt_top(path)) is not None:
        raise SaemakeError(f"{path}: did you mean '{'/'.join([meant, *parts])}'?")
    if top not in readers:
        raise SaemakeError(f"{path}: artifacts are under {', '.join(f'{t}/' for t in readers)}")
    try:
        artifact = readers[top](config, parts)
    except SaemakeError as error:
        raise SaemakeError(f"{path}: {error}") from None
    if not isinstance(artifact, HubFolder) and str(artifact) != path:
        raise SaemakeError(f"{path}: did you mean '{artifact}'?")
    return artifact


def _result(config: Config, parts: list[str]) -> Artifact:
    if not parts or parts == [""]:
        raise SaemakeError("this is a folder; name a file in it, or a model's folder")
    model, *below = parts
    if model == FIGURES:
        return _own_figure(config, "/".join(below))
    check_model(config, model)
    match below:
        case ["model.json"]:
            return ModelFile(model)
        case ["tokens", use, "manifest.json"] if use in files.uses(config):
            return TokensFile(model, use)
        case ["tokens", *_]:
            named = (f"tokens/{use}/manifest.json" for use in files.uses(config))
            raise SaemakeError("tokens are named " + " and ".join(named))
        case [name, *inside]:
            return _in_hookpoint(config, model, Hookpoint.named(name), inside)
        case _:
            raise SaemakeError(
                f"this is a folder; name a file in it, for example {a_figure(config, model)}"
            )


def _own_figure(config: Config, file: str) -> OwnFigureFile:
    known = [path.rpartition("/")[2] for path in files.own_figure_files(config)]
    if file not in known:
        if not known:
            raise SaemakeError("the config describes no figure; give it one as figures.<name>")
        raise SaemakeError(f"the config describes no figure '{file}'; {nearest(file, known)}")
    figure, _, suffix = file.rpartition(".")
    return OwnFigureFile(figure, suffix)


def a_figure(config: Config, model: str) -> str:
    """A figure of a model's suite, as an example of a target."""
    hookpoint, figure = config.models[model].suite.hookpoints[0], next(iter(figures.FRONTIERS))
    return str(FigureFile(RESULTS, model, hookpoint, figure, "pdf"))


def _in_hookpoint(config: Config, model: str, hookpoint: Hookpoint, below: list[str]) -> Artifact:
    match below:
        case [files.REPORT]:
            check_in_model(config, model, hookpoint)
            return ReportFile(model, hookpoint)
        case ["figures", file]:
            figure, _, suffix = file.rpartition(".")
            if suffix not in files.FIGURE_FORMATS:
                raise SaemakeError(f"'{file}' is not a figure; figures end in .pdf or .svg")
            check_in_model(config, model, hookpoint)
            _check_figure(config, model, hookpoint, figure)
            return FigureFile(RESULTS, model, hookpoint, figure, suffix)
        case [name, file] if name == BASELINES:
            known = files.baseline_files(config)
            if file not in known:
                raise SaemakeError(f"{BASELINES}/ has no file '{file}'; {nearest(file, known)}")
            check_in_model(config, model, hookpoint)
            if hookpoint.is_transcoder:
                raise SaemakeError(
                    "a transcoder is compared with the baselines of the site that it writes:"
                    f" {Baselines(model, hookpoint.target).folder}/{file}"
                )
            _check_judged(config, Baselines(model, hookpoint), file)
            return BaselinesFile(Baselines(model, hookpoint), file)
        case [name, evaluation, file] if name == SETUPS:
            check_in_model(config, model, hookpoint)
            return _setup(config, model, hookpoint, evaluation, file)
        case [architecture, width, *inside]:
            return _in_sweep(config, Sweep(model, hookpoint, architecture, width), inside)
        case _:
            raise SaemakeError(
                f"this is a folder; name a file in it: {hookpoint}/<architecture>/<width>/"
                f"metrics.json or {hookpoint}/figures/<figure>.pdf"
            )


def _check_figure(config: Config, model: str, hookpoint: Hookpoint, figure: str) -> None:
    drawable = files.figures_on_demand(config, model)
    plain = figure.removesuffix(figures.BY_WIDTH)
    if figures.of_column(plain) is not None:
        _check_column(config, figure)
    elif figure not in drawable and not (figure != plain and plain in figures.FRONTIERS):
        if figures.split(figure)[0] in figures.TRAINING:
            raise _no_checkpoints(model, "the architectures of its suite")
        of_columns = _figures_of_columns(config) if "." in figure else []
        raise unknown("figure", figure, [*drawable, *of_columns])
    if figures.get(figure).shows == "training" and not files.checkpointed_sweeps(
        config, model, hookpoint
    ):
        raise _no_checkpoints(model, "the architectures of its suite")
    evaluation = figures.get(figure).evaluation
    if evaluation and (
        reason := judged_by.why_not(config, Baselines(model, hookpoint), evaluation)
    ):
        raise SaemakeError(reason)


def _figures_of_columns(config: Config) -> list[str]:
    return [
        f"{evaluation}.{column}_vs_{x}"
        for evaluation in config.evaluation_names
        for column in config.columns_of(evaluation)
        for x in figures.AGAINST
    ]


def _check_column(config: Config, figure: str) -> None:
    """Raise SaemakeError where a figure of a column is of none, or of a kind that there is not."""
    figures.get(figure)
    column = figures.get(figure.removesuffix(figures.BY_WIDTH)).y
    evaluation, _, name = column.partition(".")
    if evaluation not in config.evaluation_names:
        raise unknown("evaluation", evaluation, config.evaluation_names)
    known = config.columns_of(evaluation)
    if name not in known:
        raise SaemakeError(f"{evaluation} has no column '{name}'; {nearest(name, known)}")


def _setup(
    config: Config, model: str, hookpoint: Hookpoint, evaluation: str, file: str
) -> SetupFile:
    known = config.sae_bench_evaluations
    if evaluation not in known:
        raise SaemakeError(f"'{evaluation}' sets nothing up; {nearest(evaluation, known)}")
    seeds = {f"{seed_name(n)}.json": n for n in config.sae_bench_of(model, evaluation).seeds}
    if file not in seeds:
        raise SaemakeError(f"the config's seeds have no '{file}'; {nearest(file, seeds)}")
    _check_judged(config, Baselines(model, hookpoint), f"{evaluation}.json")
    return SetupFile(SetupName(model, hookpoint.layer, evaluation, seeds[file]))


def _check_judged(config: Config, subjects: Subjects, file: str) -> None:
    """Raise SaemakeError where a file is of an evaluation that cannot judge its subjects."""
    evaluation = files.evaluation_in(config, file)
    if evaluation and (reason := judged_by.why_not(config, subjects, evaluation)) is not None:
        raise SaemakeError(reason)


def _dataset(config: Config, parts: list[str]) -> DatasetFile:
    file = "/".join(parts)
    if file.removesuffix(".json") in config.datasets and file.endswith(".json"):
        return DatasetFile(file.removesuffix(".json"))
    known = [f"{name}.json" for name in config.datasets]
    raise SaemakeError(f"the config has no such dataset; {nearest(file, known)}")


def _fetched(config: Config, parts: list[str]) -> FetchedFile:
    path, known = "/".join(parts), catalogue.load(config)
    published = {sweep.model for sweep in known.sweeps()}
    named = {
        str(each).removeprefix(f"{FETCHED}/"): each
        for model in config.models
        for each in (FetchedFile(model), FetchedFile(model, published=True))
        if model in published or not each.published
    }
    if path in named:
        return named[path]
    if path.endswith(files.OK):
        model = parts[0].removesuffix(files.OK)
        check_model(config, model)
        if len(parts) > 1 and model not in published:
            raise SaemakeError(f"no SAE of {model} is published; {nearest(model, published)}")
    raise SaemakeError(f"nothing of this name is fetched; {nearest(path, named)}")


def _in_sweep(config: Config, sweep: Sweep, inside: list[str]) -> Artifact:
    match inside:
        case [file] if file == METRICS:
            members(config, sweep)
            return SweepTable(sweep)
        case [_, *below] if below and below != [""]:
            sae, rest = _sae(config, sweep, inside)
            return _of_sae(config, sae, rest)
    first = members(config, sweep)[0]
    if not inside:
        raise SaemakeError(
            f"this is a folder; name a file in it: {sweep.width}/{METRICS},"
            f" {sweep.width}/{first.sparsity_name}/ae.pt, ..."
        )
    try:
        sae_of(config, sweep, inside[0])
    except SaemakeError:
        raise SaemakeError(
            f"not a file of a sweep; files of a sweep are {sweep.width}/{METRICS},"
            f" {sweep.width}/{first.sparsity_name}/ae.pt, ..."
        ) from None
    raise _a_folder(inside[0])


def _a_folder(name: str) -> SaemakeError:
    return SaemakeError(f"this is a folder; name a file in it: {name}/{METRICS}, {name}/ae.pt, ...")


def _sae(config: Config, sweep: Sweep, inside: Sequence[str]) -> tuple[SaeName, list[str]]:
    """The SAE that parts of a path below a sweep begin with, and the parts after it."""
    members_of_any_sparsity(config, sweep)
    sparsity, *rest = inside
    if rest and rest[0].startswith("seed"):
        return sae_of(config, sweep, sparsity, rest[0]), rest[1:]
    return sae_of(config, sweep, sparsity), rest


def members_of_any_sparsity(config: Config, sweep: Sweep) -> None:
    """Raise SaemakeError where the config has no such model, layer, architecture or width."""
    members(config, SaeName(sweep, 0))


def _of_sae(config: Config, sae: SaeName, inside: list[str]) -> Artifact:
    known = files.sae_files(config)
    match inside:
        case [file] if file in known:
            _check_judged(config, sae, file)
            return SaeFile(RESULTS, sae, file)
        case [folder, file] if folder == CHECKPOINTS:
            return _checkpoint(config, sae, file)
        case [] | [""]:
            raise _a_folder(sae.own_part)
        case [file] if file == CHECKPOINTS:
            raise SaemakeError(f"this is a folder; name a file: {CHECKPOINTS}/{METRICS}, ...")
        case _:
            file = "/".join(inside)
            raise SaemakeError(f"an SAE has no file '{file}'; {nearest(file, known)}")


def _checkpoint(config: Config, sae: SaeName, file: str) -> CheckpointsFile:
    known = files.checkpoint_files(config, sae.model, sae.sweep.architecture)
    if not known:
        raise _no_checkpoints(sae.model, sae.sweep.architecture)
    if f"{CHECKPOINTS}/{file}" not in known and file not in files.tables(config):
        steps = [path.removeprefix(f"{CHECKPOINTS}/") for path in known]
        raise SaemakeError(f"no checkpoint '{file}'; the checkpoints are {', '.join(steps)}")
    _check_judged(config, Checkpoints(sae), file)
    return CheckpointsFile(Checkpoints(sae), file)


def _no_checkpoints(model: str, architecture: str) -> SaemakeError:
    return SaemakeError(
        f"the config asks for no checkpoints of {architecture} of {model}; set"
        " architectures.<name>.checkpoints to a list of fractions of the training"
    )


def _laid_out(config: Config, parts: list[str]) -> HubFile | HubFolder:
    _check_hub_parts(parts)
    known, folder = catalogue.load(config), f"{HUB}/{'/'.join(parts)}"
    if below := known.under(folder):
        for entry in below:
            known.wanted(config, entry)
        return HubFolder(folder)
    if not folder.endswith((".pt", ".json")):
        known.wanted(config, known.at(folder))
        return HubFolder(folder)
    inside = 2 if parts[-2:-1] == [CHECKPOINTS] else 1
    place, file = f"{HUB}/{'/'.join(parts[:-inside])}", "/".join(parts[-inside:])
    sae = known.wanted(config, known.at(place))
    laid_out = files.hub_files(config, sae)
    if file not in laid_out:
        raise SaemakeError(f"a rebuilt SAE has no file '{file}'; {nearest(file, laid_out)}")
    return HubFile(place, sae, file)


def _check_hub_parts(parts: list[str]) -> None:
    if not parts or parts == [""]:
        raise SaemakeError("name a file or folder in it; `saemake find` lists them")
    for part in parts:
        if not catalogue.PART.fullmatch(part):
            raise SaemakeError(f"'{part}' cannot be part of a path on the Hub")


def _published(config: Config, parts: list[str]) -> Artifact:
    _check_hub_parts(parts)
    known = catalogue.load(config)
    if parts[0] == files.REPOSITORIES:
        pinned = {f"{files.REPOSITORIES}/{entry.repository}.json" for entry in known.entries}
        if (file := "/".join(parts)) not in pinned:
            raise SaemakeError(f"no such repository has published SAEs; {nearest(file, pinned)}")
        return RepositoryFile("/".join(parts[1:]).removesuffix(".json"))
    model, name, *below = parts if len(parts) > 3 else [*parts, "", "", ""]
    places = {f"{sweep.model}/{sweep.hookpoint}" for sweep in known.sweeps()}
    if f"{model}/{name}" not in places:
        raise SaemakeError(
            f"no SAE of {model}/{name} is published; {nearest(f'{model}/{name}', places)}"
        )
    match below:
        case ["figures", file]:
            return _published_figure(config, model, Hookpoint.named(name), file)
        case [_, _, _, file]:
            return _published_sae(config, parts[:-1], file)
        case [architecture, width, file] if file == files.COMPARISON:
            sweep = Sweep(model, Hookpoint.named(name), architecture, width)
            if sweep not in known.sweeps():
                swept = {str(other) for other in known.sweeps()}
                raise SaemakeError(f"no SAE of {sweep} is published; {nearest(str(sweep), swept)}")
            _check_rebuilt(config, [sweep])
            return ComparisonTable(sweep)
        case _:
            raise SaemakeError(
                "this is a folder; name a file in it:"
                f" {PUBLISHED}/{model}/{name}/<architecture>/<width>/<sparsity>/comparison.json"
            )


def _published_figure(config: Config, model: str, hookpoint: Hookpoint, file: str) -> FigureFile:
    drawn = [f"{name}.{suffix}" for name in figures.PUBLISHED for suffix in files.FIGURE_FORMATS]
    if file not in drawn:
        raise SaemakeError(f"'{file}' is not a figure; {nearest(file, drawn)}")
    sweeps = catalogue.load(config).sweeps()
    _check_rebuilt(config, [s for s in sweeps if (s.model, s.hookpoint) == (model, hookpoint)])
    figure, _, suffix = file.rpartition(".")
    return FigureFile(PUBLISHED, model, hookpoint, figure, suffix)


def _check_rebuilt(config: Config, sweeps: Sequence[Sweep]) -> None:
    """Raise SaemakeError where the config cannot train a published SAE of the sweeps."""
    known = catalogue.load(config)
    for sweep in sweeps:
        for entry in known.of_sweep(sweep).values():
            known.wanted(config, entry)


def _published_sae(config: Config, place: Sequence[str], file: str) -> SaeFile:
    known, name = catalogue.load(config), "/".join(place)
    names = {str(known.name(entry)) for entry in known.entries}
    if name not in names:
        raise SaemakeError(f"no such SAE is published; {nearest(name, names)}")
    of_published = files.published_files(config)
    if file not in of_published:
        raise SaemakeError(f"a published SAE has no file '{file}'; {nearest(file, of_published)}")
    entry = known.named(name)
    if file not in files.PUBLISHED_WEIGHTS:
        known.wanted(config, entry)
    _check_judged(config, PublishedSweep(known.name(entry).sweep), file)
    return SaeFile(PUBLISHED, known.name(entry), file)


def _export(config: Config, parts: list[str]) -> SaeFile:
    match parts:
        case [model, name, architecture, width, _, *below] if below and below != [""]:
            check_model(config, model)
            sweep = Sweep(model, Hookpoint.named(name), architecture, width)
            known = files.SAELENS_FILES
            if below[-1] not in known:
                raise SaemakeError(
                    f"an exported SAE has no file '{below[-1]}'; {nearest(below[-1], known)}"
                )
            sae, rest = _sae(config, sweep, parts[4:])
            if len(rest) == 1:
                return SaeFile(SAELENS, sae, rest[0])
    raise SaemakeError(
        f"name a file of an SAE: {SAELENS}/<model>/L<layer>/<architecture>/<width>/"
        f"<sparsity>/{files.SAELENS_FILES[0]}"
    )


def _traced(config: Config, parts: list[str]) -> TracerFile:
    match parts:
        case [model, site, architecture, width, _, *below] if below and below != [""]:
            check_model(config, model)
            hookpoint = Hookpoint.at(0, site)
            tracer.check_site(hookpoint)
            known = tracer.tracer_files(config, model)
            if below[-1] not in known:
                raise SaemakeError(f"no such file here; {nearest(below[-1], known)}")
            sae, rest = _sae(config, Sweep(model, hookpoint, architecture, width), parts[4:])
            if len(rest) == 1:
                return TracerFile(sae, rest[0])
    raise SaemakeError(
        f"name a file of transcoders: {CIRCUIT_TRACER}/<model>/mlp_in-mlp_out/<architecture>/"
        f"<width>/<sparsity>/{tracer.CONFIG}"
    )


def _push(config: Config, parts: list[str]) -> PushFile:
    match parts:
        case [owner, name, model, file]:
            check_repository(f"{owner}/{name}")
            check_model(config, model)
            if file not in files.PUSH_FILES:
                known = nearest(file, files.PUSH_FILES)
                raise SaemakeError(f"a push has no file '{file}'; {known}")
            return PushFile(f"{owner}/{name}", model, file)
        case _:
            raise SaemakeError(
                f"name the repository and the model: {PUBLISHED_TO}/<owner>/<repo>/<model>/"
                f"{files.PLAN} shows what a push would do, {files.RECEIPT} pushes"
            )


def sae_named(config: Config, name: str) -> SaeName:
    """The SAE of a name, which is its path below results/. Raises SaemakeError if the config makes
    no such SAE."""
    artifact = parse(config, f"{RESULTS}/{name}/{SAE_FILES[0]}")
    assert isinstance(artifact, SaeFile)
    return artifact.sae


def model_in(config: Config, path: str) -> str | None:
    """The model that a path under results/, saelens/ or circuit-tracer/ names, whether it is an
    artifact or not."""
    top, *parts = path.split("/")
    model = parts[0] if top in (RESULTS, SAELENS, CIRCUIT_TRACER) and parts else None
    return model if model in config.models else None


def saes_of(config: Config, path: str) -> list[SaeName]:
    """The trained SAEs that an artifact is, or is made of: of a file of an SAE that one, of a table
    its sweep's, of a figure or a report the suite's.

    Raises SaemakeError where `path` is no such artifact of this config.
    """
    match parse(config, path):
        case FigureFile(top, model, hookpoint) if top == RESULTS:
            return _saes_of_suite(config, model, hookpoint)
        case ReportFile(model, hookpoint):
            return _saes_of_suite(config, model, hookpoint)
        case SweepTable(sweep):
            return members(config, sweep)
        case SaeFile(top, sae) if top != PUBLISHED:
            return [sae]
        case TracerFile(sae):
            return tracer.at_layers(config, sae)
        case CheckpointsFile(checkpoints):
            return [checkpoints.sae]
        case HubFile() | HubFolder() as laid_out:
            return saes_in_hub(config, laid_out)
        case _:
            raise SaemakeError(
                f"{path}: name a file of an SAE, a sweep's table or a suite's figure, under"
                f" {RESULTS}/, {HUB}/ or {SAELENS}/"
            )


def _saes_of_suite(config: Config, model: str, hookpoint: Hookpoint) -> list[SaeName]:
    sweeps = files.suite_sweeps(config, model, hookpoint)
    return list({sae: sae for sweep in sweeps for sae in members(config, sweep)})


def saes_in_hub(config: Config, artifact: HubFile | HubFolder) -> list[SaeName]:
    """The SAEs of a file, or of all below a folder, under hub/."""
    if isinstance(artifact, HubFile):
        return [artifact.sae]
    known = catalogue.load(config)
    return [known.wanted(config, entry) for entry in files.hub_entries(config, artifact.folder)]


def trained_file(file: str) -> bool:
    """Whether a file of an SAE comes out of its training."""
    return file in SAE_FILES or file.endswith(".pt")
