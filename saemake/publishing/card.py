"""The model card of a suite: the same bytes for the same files."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import ModelCardData

from saemake import evaluation
from saemake.activations.drop_settings import TrainingDrop
from saemake.architectures import elsewhere
from saemake.base.version import __version__
from saemake.config import rebuilding
from saemake.config.config import Config, lm_name
from saemake.config.sections import Suite
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.metrics import rows
from saemake.metrics.rows import Row
from saemake.paths import catalogue
from saemake.paths.files import REBUILDING, figures_of, suite_saes, suite_sweeps
from saemake.paths.names import PUBLISHED, RESULTS, SaeName
from saemake.paths.starts import start_of
from saemake.publishing import readers
from saemake.training import files

WEIGHTS = {".safetensors", ".bin", ".gguf"}
CARD = """---
{front}
---

# Sparse autoencoders of {lm}

{count} sparse autoencoders (SAEs) of {site} of {lm}, layer {layers}
({counted}): {architectures}, {widths} latents. Each is a folder
`{hookpoint}/<architecture>/<width>/<sparsity>` in the format of dictionary_learning. {readers} They
take raw activations.{starts}
{loading}
| file | what |
| --- | --- |
| `ae.pt`, `config.json` | one SAE |
| `metrics.json` | its evaluations; beside the SAEs, those of the sweep and of the baselines |
| `training.csv` | its training curve |
| `provenance.json` | its whole recipe, its sha256, the software and the device |
| `checkpoints/` | the SAE on the way, where there are any |
| `{hookpoint}/figures/` | figures, PDF and SVG |
| `{config}` | the configuration that rebuilds all of it |

## Metrics

{columns} metrics.json says of what text, whether it was held out, and which positions were left
out, if any.

{metrics}

## Rebuild

With saemake {version}, in its checkout; `{config}` is this repository's:

    snakemake --configfile {config} --cores 1
    python -m saemake verify {results}/{example}/ae.pt --configfile {config}

The first builds every SAE, table and figure under {results}/, the second trains one SAE again and
compares the bytes. They are the same on the same kind of device with the software below.{folders}

## Provenance

| what | |
| --- | --- |
{provenance}
"""


LOADING = """
```python
from dictionary_learning.utils import load_dictionary
from huggingface_hub import snapshot_download

folder = snapshot_download("{repo}", allow_patterns="{example}/*")
sae, config = load_dictionary(f"{{folder}}/{example}", device="cpu")
```
"""


def render(config: Config, model: str, repo: str) -> str:
    """README.md of the repository `repo`, from the suite's files under results/."""
    suite, lm = config.models[model].suite, lm_name(config, model)
    saes = suite_saes(config, model)
    return CARD.format(
        front=_front_matter(config, model),
        lm=lm,
        count=len(saes),
        **_site(suite),
        layers=", ".join(map(str, suite.layers)),
        architectures=", ".join(f"`{name}`" for name in suite.architectures),
        widths=", ".join(f"{config.latents(width):,}" for width in suite.widths),
        readers=readers.described(saes),
        starts=_starts(config, model),
        loading=_loading(saes, model, repo),
        example=_inside(saes[0].folder, model),
        config=REBUILDING,
        columns=_columns_described(config, model),
        metrics="\n".join(_metrics(config, model, at) for at in suite.hookpoints).rstrip(),
        version=__version__,
        results=f"{RESULTS}/{model}",
        folders=_folders(config, model),
        provenance=_table(_provenance(saes)),
    )


def _site(suite: Suite) -> dict[str, str]:
    """What the SAEs are of, in words, and how their folders begin."""
    if suite.sites == [RESID_POST]:
        counted = "the output of that block, counted from 0"
        return {"site": "the residual stream", "counted": counted, "hookpoint": "L<layer>"}
    sites = ", ".join(f"`{site}`" for site in suite.sites)
    return {
        "site": f"the sites {sites}",
        "counted": "blocks are counted from 0; `L<layer>` alone is `resid_post`",
        "hookpoint": "L<layer>.<site>",
    }


def _loading(saes: Sequence[SaeName], model: str, repo: str) -> str:
    """How to load the first SAE that dictionary_learning reads; empty if it reads none."""
    known = (sae for sae in saes if elsewhere.read_elsewhere(sae.sweep.architecture))
    sae = next(known, None)
    return LOADING.format(repo=repo, example=_inside(sae.folder, model)) if sae else ""


def _starts(config: Config, model: str) -> str:
    """A sentence on the SAEs that training began with; empty if all weights were drawn."""
    starts = [start_of(config, sae) for sae in suite_saes(config, model)]
    known = catalogue.load(config)
    links, own = {}, 0
    for start in starts:
        if start is not None and start.top == PUBLISHED:
            entry = known.named(str(start.sae))
            links[entry.hub_folder] = (
                f"[{entry.repository}/{entry.path}]"
                f"(https://huggingface.co/{entry.repository}/tree/main/{entry.path})"
            )
        else:
            own += start is not None
    if links:
        return f"\nTraining did not begin with drawn weights but with {', '.join(links.values())}."
    if own:
        return (
            f"\nTraining did not begin with drawn weights but with other SAEs, those of"
            f" `{config.training_of(model).start_from}` in `{REBUILDING}`. `provenance.json` has"
            " the sha256 and the recipe's hash of each."
        )
    return ""


def _front_matter(config: Config, model: str) -> str:
    texts = [config.texts[part].hub for part in config.parts_of(config.models[model].text)]
    data = ModelCardData(
        license=config.publishing.license,
        library_name="saemake",
        base_model=config.models[model].hub,
        datasets=[hub for hub in texts if hub] or None,
        tags=["sparse-autoencoder", "dictionary_learning", "interpretability"],
    )
    return data.to_yaml()


def _metrics(config: Config, model: str, hookpoint: Hookpoint) -> str:
    """The section of a hookpoint: its table, warnings and figures."""
    row_of_sae: dict[str, Row] = {}
    for sweep in suite_sweeps(config, model, hookpoint):
        for row in rows.read_file(Path(sweep.folder, "metrics.json")):
            if row.width is not None:  # no baseline
                # If an SAE has several rows, the first has latents chosen as its loader does.
                row_of_sae.setdefault(row.name, row)
    columns = _columns(config, model)
    lines = [f"### {hookpoint.titled.capitalize()}", ""]
    lines += [f"| SAE | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for row in row_of_sae.values():
        figures = [_figure(row, *place) for place in columns.values()]
        lines.append(f"| {_inside(row.name, model)} | {' | '.join(figures)} |")
    warnings = [
        f"- {_inside(row.name, model)}: {line}"
        for row in row_of_sae.values()
        for line in row.warnings
    ]
    lines += ["", *warnings, ""] if warnings else [""]
    for name in figures_of(config, model):
        lines += [f"![{name.replace('_', ' ')}]({hookpoint}/figures/{name}.svg)", ""]
    return "\n".join(lines)


def _columns(config: Config, model: str) -> dict[str, tuple[str, str]]:
    """The columns of the metrics table, to the evaluation and the figure in them."""
    return {
        column: (name, figure)
        for name in config.suite_evaluations(model)
        for column, figure in evaluation.get(name).card.items()
    }


def _columns_described(config: Config, model: str) -> str:
    """Sentences that say which evaluation each column is of."""
    described = [evaluation.get(name) for name in config.suite_evaluations(model)]
    return " ".join(f"By {each.label}: {', '.join(each.card)}." for each in described if each.card)


def _figure(row: Row, name: str, figure: str) -> str:
    value = row.figure(name, figure)
    return "" if value is None else f"{value:.4g}"


def _folders(config: Config, model: str) -> str:
    """A sentence that names the folders that rebuilding reads, if the model or a text is not on the
    Hub."""
    folders = rebuilding.folders(config, model)
    if not folders:
        return ""
    listed = ", ".join(f"`{folder}`" for folder in folders)
    return f"\nThey read {listed}, not on the Hub: provenance.json says what was in each."


def _text(recipe: dict[str, Any]) -> str:
    """A text, or a part of a mixture, by its recipe."""
    text = recipe["text_hub"] or f"a local folder of content {recipe['text_content']}"
    share = f"{recipe['contexts']} contexts a round of " if "contexts" in recipe else ""
    return f"{share}{text}, split {recipe['split']}"


def _provenance(saes: Sequence[SaeName]) -> dict[str, list[str]]:
    """The distinct values of each field of the SAEs' provenance, mostly one."""
    provenances = [_fields(files.read_provenance(Path(sae.folder))) for sae in saes]
    return {
        field: list(dict.fromkeys(fields[field] for fields in provenances))
        for field in provenances[0]
    }


def _fields(provenance: dict[str, Any]) -> dict[str, str]:
    lm, recipe, software = provenance["lm"], provenance["recipe"], provenance["software"]
    tokens, training = recipe["tokens"], recipe["training"]
    commits = [
        f"{git['commit']}{'' if git['clean'] else ' and changes'}"
        for git in provenance["git"]
        if git is not None
    ]
    texts = " and ".join(_text(part) for part in tokens.get("mix", [tokens]))
    weights = [
        f"{name} {value}"
        for name, value in lm["sha256"].items()
        if PurePath(name).suffix in WEIGHTS
    ]
    return {
        "language model": lm["hub"] or "a local folder",
        "its revision": lm["revision"] or "none",
        "sha256 of its weights": ", ".join(weights),
        "text": texts,
        "revision of the text": provenance["text_revision"] or "none",
        "training": f"recipe `{training['recipe']}`, seed {training['seed']},"
        f" {recipe['steps'] * training['batch_tokens']:,} tokens"
        f"{TrainingDrop.model_validate(training.get('drop', {})).clause}"
        f"{', loss `' + training['loss'] + '` of the LM' if 'loss' in training else ''}",
        "device": provenance["device"],
        "software": ", ".join(f"{name} {version}" for name, version in software.items()),
        "saemake's commit": ", ".join(commits) or "unknown",
    }


def _table(fields: dict[str, list[str]]) -> str:
    return "\n".join(f"| {field} | {'; '.join(values)} |" for field, values in fields.items())


def _inside(path: str, model: str) -> str:
    """A path as it is in the repository: without results/ and the model."""
    return path.removeprefix(f"{RESULTS}/").removeprefix(f"{model}/")
