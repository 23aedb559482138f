"""The tables of a report: the SAEs with their figures, beside published ones, and how they were
made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saemake.metrics.rows import Row

# The columns of the SAEs' figures, after what the SAE is: the evaluation, the column, the heading.
COLUMNS = (
    ("sae_bench_core", "l0", "L0 (core)"),
    ("dictionary_learning", "l0", "L0"),
    ("dictionary_learning", "frac_recovered", "loss recovered"),
    ("sae_bench_core", "ce_loss_score", "loss recovered (core)"),
    ("dictionary_learning", "frac_variance_explained", "variance explained"),
    ("sae_bench_core", "kl_div_score", "KL score"),
    ("sae_bench_core", "frac_alive", "latents that fire"),
    ("sae_bench_absorption", "mean_absorption_fraction_score", "absorption"),
    ("sae_bench_autointerp", "autointerp_score", "autointerp"),
    ("sae_bench_sparse_probing", "sae_top_1_test_accuracy", "sparse probing, 1"),
    ("sae_bench_sae_probes", "sae_top_1_test_accuracy", "sae-probes, 1"),
    ("sae_bench_scr", "scr_metric_threshold_20", "SCR, 20"),
    ("sae_bench_tpp", "tpp_threshold_20_total_metric", "TPP, 20"),
    ("sae_bench_ravel", "disentanglement_score", "RAVEL"),
    ("sae_bench_unlearning", "unlearning_score", "unlearning"),
)

# The evaluation whose figures stand beside published ones: the first that a comparison has.
COMPARED_BY = ("sae_bench_core", "dictionary_learning")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the number that it is sorted by, if it is one, and the page that
    it leads to."""

    text: str
    number: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its headings, its rows. The first cell of a row is its heading."""

    id: str
    title: str
    about: str
    heads: list[str]
    rows: list[list[Cell]]


def _words(text: object) -> Cell:
    return Cell("" if text is None else str(text))


def _number(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:.4g}", float(value))


def _below(row: Row) -> str:
    """A row's name below its layer."""
    return row.name.removeprefix(f"{row.model}/L{row.layer}/")


def of_saes(rows: Sequence[Row], pages: Mapping[str, str]) -> Table:
    """The SAEs and the baselines with their figures: those columns that a row has. `pages` are the
    links to pages of SAEs, by their names."""
    shown = [
        (evaluation, column, head)
        for evaluation, column, head in COLUMNS
        if any(row.figure(evaluation, column) is not None for row in rows)
    ]
    body = [
        [
            Cell(_below(row), link=pages.get(row.name, "")),
            _words(row.inference),
            *(_number(row.figure(evaluation, column)) for evaluation, column, _ in shown),
            Cell(str(len(row.warnings)), len(row.warnings)),
        ]
        for row in rows
    ]
    heads = ["SAE", "chosen by", *(head for _, _, head in shown), "warnings"]
    about = (
        "A row is an SAE and a way of choosing its latents. Rows of baselines/ are the identity and"
        " PCA. docs/metrics.schema.json says what each figure is."
    )
    if pages:
        about += " The name of an SAE leads to its page: what its latents fire on."
    return Table("saes", "The SAEs", about, heads, body)


def of_warnings(rows: Sequence[Row]) -> Table:
    """What a reader should know of the figures: a row for each warning."""
    body = [
        [_words(_below(row)), _words(row.inference), text]
        for row in rows
        for text in map(_words, row.warnings)
    ]
    about = "What to know before these SAEs are compared by their figures."
    return Table("warnings", "Warnings", about, ["SAE", "chosen by", "warning"], body)


def of_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Rebuilt SAEs beside the figures of the published ones (see compare.against_catalogue)."""
    body = []
    for compared in comparisons:
        cells = [
            _words("/".join([compared["architecture"], compared["width"], compared["sparsity"]])),
            _words(compared["verdict"]),
        ]
        by_evaluation = compared["figures"]
        evaluation = next((each for each in COMPARED_BY if each in by_evaluation), "")
        for figure in ("l0", "loss_recovered"):
            sides = by_evaluation.get(evaluation, {}).get(figure, {})
            cells += [_number(sides.get("rebuilt")), _number(sides.get("catalogue"))]
        cells.append(_words(evaluation))
        body.append([*cells, _words(f"{compared['repository']}/{compared['path']}")])
    heads = [
        *("SAE", "verdict", "L0, rebuilt", "L0, published"),
        *("loss recovered, rebuilt", "loss recovered, published", "by", "published as"),
    ]
    about = (
        "Rebuilt SAEs beside the figures that the published ones have in the catalogue. The"
        " published figures are of its authors' text. `within`: L0 and loss recovered are within"
        " the config's tolerances."
    )
    return Table("published", "Beside the published suite", about, heads, body)


def of_provenance(records: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """How each SAE was made, from its provenance.json, without its times: the same SAEs give the
    same report. `records` have its name first."""
    body = [
        [
            _words(name),
            _words(record["recipe_hash"][:16]),
            _words(record["ae_sha256"][:16]),
            _words(record["device"]),
            _words(_software(record)),
            _words(_commits(record)),
        ]
        for name, record in records
    ]
    heads = ["SAE", "recipe", "ae.pt, sha256", "device", "software", "saemake's commit"]
    about = (
        "The first 16 digits of the hash of each SAE's recipe and of the sha256 of its weights. The"
        " same recipe gives the same bytes on the same kind of device. provenance.json beside each"
        " SAE has all of it, the time that it took too."
    )
    return Table("provenance", "Provenance", about, heads, body)


def _software(record: Mapping[str, Any]) -> str:
    software = record.get("software", {})
    named = ("python", "torch", "transformers")
    return ", ".join(f"{name} {software[name]}" for name in named if name in software)


def _commits(record: Mapping[str, Any]) -> str:
    return ", ".join(
        each["commit"][:12] + ("" if each["clean"] else " (edited)")
        for each in record.get("git") or []
        if each
    )
