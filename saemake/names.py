"""Names of artifacts: the paths under results/, read and written in one place."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from saemake import architectures, figures
from saemake.config import Config, check_fits
from saemake.errors import SaemakeError, nearest

RESULTS = "results"
# The other folders of artifacts: saemake.catalogue and saemake.publishing say what is in them.
HUB, PUBLISHED, SAELENS, PUBLISHED_TO = "hub", "published", "saelens", "published-to"
TOPS = (RESULTS, HUB, PUBLISHED, SAELENS, PUBLISHED_TO)
EVALUATIONS = ("dictionary_learning", "sae_bench_core")
# What text is tokenised for.
USES = ("train", *EVALUATIONS)
SAE_FILES = ("ae.pt", "config.json", "training.csv", "provenance.json")
# The tables of what is judged; of an SAE there is also what was seen of each latent.
TABLES = (*(f"{name}.json" for name in EVALUATIONS), "metrics.json")
LATENTS = tuple(f"{name}_latents.parquet" for name in EVALUATIONS)
BASELINES = "baselines"
BASELINE_FILES = ("pca.safetensors", *TABLES)
FIGURE_FORMATS = ("pdf", "svg")


@dataclass(frozen=True)
class Sweep:
    """All SAEs of one model, layer, architecture and width: the names of a config's sparsities."""

    model: str
    layer: int
    architecture: str
    width: str

    @property
    def folder(self) -> str:
        return f"{RESULTS}/{self.model}/L{self.layer}/{self.architecture}/{self.width}"

    def __str__(self) -> str:
        return f"{self.model}/L{self.layer}/{self.architecture}/{self.width}"


@dataclass(frozen=True)
class SaeName:
    """One SAE: a sweep and a value of its sparsity."""

    sweep: Sweep
    sparsity: float

    @property
    def sparsity_name(self) -> str:
        return sparsity_name(self.sweep.architecture, self.sparsity)

    @property
    def folder(self) -> str:
        return f"{self.sweep.folder}/{self.sparsity_name}"

    def __str__(self) -> str:
        return f"{self.sweep}/{self.sparsity_name}"


def sparsity_name(architecture: str, value: float) -> str:
    """`k_80` or `penalty_0.03`: the architecture's parameter and its value."""
    return f"{architectures.get(architecture).sparsity}_{value!r}"


def checkpoint_file(step: int) -> str:
    """The file of the SAE before that step, under the SAE's folder."""
    return f"checkpoints/ae_{step}.pt"


def checkpoint_files(config: Config, model: str, architecture: str) -> list[str]:
    """The checkpoints that the config asks of each SAE."""
    return [checkpoint_file(step) for step in config.checkpoint_steps(model, architecture)]


def members(config: Config, sweep: Sweep) -> list[SaeName]:
    """The SAEs of a sweep, in the config's order.

    Raises SaemakeError where the model, layer, architecture or width is none, or where its settings
    do not fit (see check_fits).
    """
    check_model(config, sweep.model)
    _check_in_model(config, sweep.model, sweep.layer)
    if sweep.architecture not in config.architectures:
        raise _unknown("architecture", sweep.architecture, config.architectures)
    if sweep.width not in config.widths:
        raise _unknown("width", sweep.width, config.widths)
    check_fits(config, sweep.model, sweep.architecture, sweep.width)
    swept = config.settings_of(sweep.model, sweep.architecture).sweep
    return [SaeName(sweep, value) for value in swept]


def suite_sweeps(config: Config, model: str, layer: int) -> list[Sweep]:
    """The sweeps of a model's suite, at one layer (of the suite or not)."""
    suite = config.models[model].suite
    return [
        Sweep(model, layer, architecture, width)
        for architecture in suite.architectures
        for width in suite.widths
    ]


def checkpointed_sweeps(config: Config, model: str, layer: int) -> list[Sweep]:
    """Those of them whose checkpoints the config asks for."""
    return [
        sweep
        for sweep in suite_sweeps(config, model, layer)
        if config.checkpoint_steps(model, sweep.architecture)
    ]


def figures_of(config: Config, model: str) -> list[str]:
    """The figures that a model's suite gives: those of the training where it has checkpoints."""
    checkpointed = checkpointed_sweeps(config, model, 0)
    return [name for name in figures.names() if checkpointed or name not in figures.TRAINING]


def figure_files(config: Config, model: str, layer: int) -> list[str]:
    """The files of those figures, at one layer."""
    return [
        f"{RESULTS}/{model}/L{layer}/figures/{figure}.{suffix}"
        for figure in figures_of(config, model)
        for suffix in FIGURE_FORMATS
    ]


def build_files(config: Config) -> list[str]:
    """What a plain `snakemake` builds: the figures and checkpoints of the models under `build`."""
    return [
        path
        for model in config.build
        for layer in config.models[model].suite.layers
        for path in (*figure_files(config, model, layer), *_checkpoints(config, model, layer))
    ]


def _checkpoints(config: Config, model: str, layer: int) -> list[str]:
    return [
        f"{member.folder}/{file}"
        for sweep in checkpointed_sweeps(config, model, layer)
        for file in checkpoint_files(config, model, sweep.architecture)
        for member in members(config, sweep)
    ]


def saes_of(config: Config, path: str) -> list[SaeName]:
    """The SAEs that an artifact is, or is made of: of a file of an SAE that one, of a table its
    sweep's, of a figure the suite's.

    Raises SaemakeError where `path` is no such artifact of this config.
    """
    check_target(config, path)
    match PurePosixPath(path).parts:
        case (first, *_) if first != RESULTS:
            raise SaemakeError(f"{path}: artifacts are under {RESULTS}/")
        case (_, model, layer, "figures", _):
            sweeps = suite_sweeps(config, model, int(layer[1:]))
            return list({sae: sae for sweep in sweeps for sae in members(config, sweep)})
        case (_, model, layer, architecture, width, *inside) if (
            layer.startswith("L") and architecture != BASELINES
        ):
            saes = members(config, Sweep(model, int(layer[1:]), architecture, width))
            return saes if len(inside) == 1 else [s for s in saes if s.sparsity_name == inside[0]]
        case _:
            raise SaemakeError(f"{path}: name a file of an SAE, a sweep's table or a figure")


def _check_in_model(config: Config, model: str, layer: int) -> None:
    last = config.models[model].layers - 1
    if not 0 <= layer <= last:
        raise SaemakeError(f"{model} has layers L0 to L{last}, not L{layer}")


def check_model(config: Config, model: str) -> None:
    """Raise SaemakeError where the config has no such model."""
    if model not in config.models:
        raise SaemakeError(
            f"{_unknown('model', model, config.models)}; if a config file of your own has it, add"
            " --configfile FILE"
        )


def _unknown(kind: str, name: str, known: Iterable[str]) -> SaemakeError:
    return SaemakeError(f"no {kind} '{name}' in the config; {nearest(name, known)}")


def check_target(config: Config, path: str) -> None:
    """Raise SaemakeError, naming the nearest right name, where `path` under results/ is no
    artifact of this config. What a config names but a file need not exist for."""
    parts = PurePosixPath(path).parts
    if path.endswith((".yaml", ".yml")):
        return
    if (top := misspelt_top(path)) is not None:
        raise SaemakeError(f"{path}: did you mean '{'/'.join([top, *parts[1:]])}'?")
    if len(parts) > 2 and RESULTS in parts and parts[0] in ("/", ".."):
        at = parts.index(RESULTS)
        folder, target = PurePosixPath(*parts[:at]), "/".join(parts[at:])
        raise SaemakeError(
            f"{path}: targets are relative to the working directory; in {folder} name {target}"
        )
    if path in config.models:
        raise SaemakeError(
            f"{path}: this is a model; name what to build of it, such as {_a_figure(config, path)}"
        )
    if len(parts) > 2 and parts[0] in config.models:
        raise SaemakeError(f"{path}: did you mean '{RESULTS}/{path}'?")
    if len(parts) < 2 or parts[0] != RESULTS:
        return
    try:
        _check_parts(config, list(parts[1:]))
    except SaemakeError as error:
        raise SaemakeError(f"{path}: {error}") from None


def misspelt_top(path: str) -> str | None:
    """The folder of artifacts that the first part of a path nearly names, if it does."""
    first, *rest = PurePosixPath(path).parts or ("",)
    if first in TOPS or len(rest) < 2:
        return None
    return next(iter(difflib.get_close_matches(first, TOPS, n=1, cutoff=0.75)), None)


def _check_parts(config: Config, parts: list[str]) -> None:
    model, *rest = parts
    check_model(config, model)
    match rest:
        case ["model.json"]:
            return
        case ["tokens", use, "manifest.json"] if use in USES:
            return
        case ["tokens", *_]:
            raise SaemakeError(
                "tokens are named " + " and ".join(f"tokens/{use}/manifest.json" for use in USES)
            )
        case [layer, *below]:
            _check_layer(config, model, layer, below)
        case _:
            raise SaemakeError(
                f"this is a folder; name a file in it, for example {_a_figure(config, model)}"
            )


def _a_figure(config: Config, model: str) -> str:
    """A figure of a model's suite, as an example of a target."""
    layer = config.models[model].suite.layers[0]
    return f"{RESULTS}/{model}/L{layer}/figures/{next(iter(figures.FRONTIERS))}.pdf"


def _check_layer(config: Config, model: str, layer: str, below: list[str]) -> None:
    found = re.fullmatch(r"L(0|[1-9][0-9]*)", layer)
    if not found:
        raise SaemakeError(f"'{layer}' is not a layer; layers are L0, L1, ...")
    match below:
        case ["figures", file]:
            stem, _, suffix = file.rpartition(".")
            if suffix not in FIGURE_FORMATS:
                raise SaemakeError(f"'{file}' is not a figure; figures end in .pdf or .svg")
            if stem not in figures.names():
                raise _unknown("figure", stem, figures.names())
            _check_in_model(config, model, int(found[1]))
            if stem not in figures_of(config, model):
                raise _no_checkpoints(model, "the architectures of its suite")
        case [name, file] if name == BASELINES:
            if file not in BASELINE_FILES:
                raise SaemakeError(
                    f"{BASELINES}/ has no file '{file}'; {nearest(file, BASELINE_FILES)}"
                )
            _check_in_model(config, model, int(found[1]))
        case [architecture, width, *inside]:
            _check_sweep(config, Sweep(model, int(found[1]), architecture, width), inside)
        case _:
            raise SaemakeError(
                f"this is a folder; name a file in it: {layer}/<architecture>/<width>/metrics.json"
                f" or {layer}/figures/<figure>.pdf"
            )


def _check_sweep(config: Config, sweep: Sweep, inside: list[str]) -> None:
    names = [member.sparsity_name for member in members(config, sweep)]
    files = (*SAE_FILES, *TABLES, *LATENTS)
    match inside:
        case ["metrics.json"]:
            return
        case [sparsity, file] if sparsity in names and file in files:
            return
        case [sparsity, "checkpoints", file] if sparsity in names:
            _check_checkpoint(config, sweep, file)
        case [sparsity, file] if sparsity in names:
            raise SaemakeError(f"an SAE has no file '{file}'; {nearest(file, files)}")
        case [sparsity, _] | [sparsity, "checkpoints", _]:
            raise _not_in_sweep(config, sweep, sparsity, names)
        case [] | [_] if set(inside) <= set(names):
            of = inside[0] if inside else sweep.width
            example = "ae.pt" if inside else f"{names[0]}/ae.pt"
            raise SaemakeError(
                f"this is a folder; name a file in it: {of}/metrics.json, {of}/{example}, ..."
            )
        case _:
            raise SaemakeError(
                f"not a file of a sweep; files of a sweep are {sweep.width}/metrics.json,"
                f" {sweep.width}/{names[0]}/ae.pt, ..."
            )


def _not_in_sweep(config: Config, sweep: Sweep, sparsity: str, names: list[str]) -> SaemakeError:
    """Says what is in the sweep and, where the name is one of a value, how to add that."""
    swept = config.settings_of(sweep.model, sweep.architecture).sweep
    try:
        value = type(swept[0])(sparsity.rpartition("_")[2])
    except ValueError:
        value = 0
    if value <= 0 or sparsity != sparsity_name(sweep.architecture, value):
        return _unknown("sparsity", sparsity, names)
    key = f"models.{sweep.model}.architectures.{sweep.architecture}.sweep"
    return SaemakeError(
        f"no sparsity '{sparsity}' in the config, whose sweep is {', '.join(names)}; to train it"
        f" too, set {key} to {[*swept, value]}"
    )


def _check_checkpoint(config: Config, sweep: Sweep, file: str) -> None:
    there = checkpoint_files(config, sweep.model, sweep.architecture)
    if not there:
        raise _no_checkpoints(sweep.model, sweep.architecture)
    if f"checkpoints/{file}" in there or file in TABLES:
        return
    steps = [path.removeprefix("checkpoints/") for path in there]
    raise SaemakeError(f"no checkpoint '{file}'; the checkpoints are {', '.join(steps)}")


def _no_checkpoints(model: str, architecture: str) -> SaemakeError:
    return SaemakeError(
        f"the config asks for no checkpoints of {architecture} of {model}; set"
        " architectures.<name>.checkpoints to a list of fractions of the training"
    )
