"""The tables of a report: the SAEs with their figures, beside published ones, and how they were
made."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saemake.metrics.rows import Row


class Column(NamedTuple):
    """A column of metrics.json in the table of SAEs. `flipped` shows 1 - the figure."""

    evaluation: str
    column: str
    head: str
    flipped: bool = False

    def of(self, row: Row) -> float | None:
        """What a row has in this column."""
        value = row.figure(self.evaluation, self.column)
        return 1 - value if self.flipped and value is not None else value


DEAD = Column("sae_bench_core", "frac_alive", "dead latents (core)", flipped=True)
# The columns of the SAEs' figures, after what the SAE is.
COLUMNS = (
    Column("sae_bench_core", "l0", "L0 (core)"),
    Column("dictionary_learning", "l0", "L0"),
    Column("dictionary_learning", "frac_recovered", "loss recovered"),
    Column("sae_bench_core", "ce_loss_score", "loss recovered (core)"),
    Column("dictionary_learning", "frac_variance_explained", "variance explained"),
    Column("sae_bench_core", "kl_div_score", "KL score (core)"),
    DEAD,
    Column("sae_bench_absorption", "mean_absorption_fraction_score", "absorption"),
    Column("sae_bench_autointerp", "autointerp_score", "autointerp"),
    Column("sae_bench_sparse_probing", "sae_top_1_test_accuracy", "sparse probing, 1"),
    Column("sae_bench_sae_probes", "sae_top_1_test_accuracy", "sae-probes, 1"),
    Column("sae_bench_scr", "scr_metric_threshold_20", "SCR, 20"),
    Column("sae_bench_tpp", "tpp_threshold_20_total_metric", "TPP, 20"),
    Column("sae_bench_ravel", "disentanglement_score", "RAVEL"),
    Column("sae_bench_unlearning", "unlearning_score", "unlearning"),
)
CORE = "(core)"
# What the headings of the SAEs' table mean. A heading that ends with CORE has no entry of its own.
TERMS = {
    "chosen by": "How active latents are chosen: the k largest (top_k), or all above the threshold"
    " that training found (threshold). Empty where there is one way only. Of two rows, the figures"
    " show the one that says 'in figures': the way that the architecture's loader chooses them.",
    CORE: "By SAE Bench's core evaluation, on packed contexts. L0, loss recovered and variance"
    " explained without it are by dictionary_learning's evaluation, on documents."
    " docs/evaluation.md compares the two.",
    "L0": "Mean number of active latents a token.",
    "loss recovered": "The share of the language model's loss that comes back when the SAE's"
    " reconstructions replace the activations: 0 with zeros instead, 1 with the activations.",
    "variance explained": "The share of the activations' variance that the reconstructions have.",
    "KL score": "1 - the KL divergence of the language model's predictions with reconstructions,"
    " over that with zeros. 1 is best: the predictions are the same.",
    "dead latents": "The share of latents that never fire on the evaluation's text. A short text"
    " makes it larger.",
    "absorption": "SAE Bench: how much of a first letter other latents take over from its own"
    " latents. Less is better.",
    "autointerp": "SAE Bench: how often an LLM tells from a latent's description where it fires.",
    "sparse probing, 1": "SAE Bench: accuracy of a probe that reads one latent.",
    "sae-probes, 1": "SAE Bench: accuracy of a probe that reads one latent, on sae-probes' data.",
    "SCR, 20": "SAE Bench, spurious correlation removal: how much of a classifier's bias goes when"
    " 20 latents are set to zero.",
    "TPP, 20": "SAE Bench, targeted probe perturbation: how much setting 20 latents of a class"
    " to zero harms that class's probe, and no other's.",
    "RAVEL": "SAE Bench: how well latents keep the attributes of an entity apart.",
    "unlearning": "SAE Bench: how much knowledge of a topic goes when its latents are held down.",
    "warnings": "How many warnings the row has. The table of warnings lists them.",
}
# A larger share of dead latents is told among the warnings.
MANY_DEAD = 0.1

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
    """A table: what it shows, its headings, its rows. The first cell of a row is its heading.
    `terms` are headings with what they mean."""

    id: str
    title: str
    about: str
    heads: list[str]
    rows: list[list[Cell]]
    terms: dict[str, str] = field(default_factory=dict)


def _words(text: object) -> Cell:
    return Cell("" if text is None else str(text))


def _number(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:.4g}", float(value))


def _below(row: Row) -> str:
    """A row's name below its layer."""
    return row.name.removeprefix(f"{row.model}/{row.hookpoint}/")


def of_saes(rows: Sequence[Row], pages: Mapping[str, str]) -> Table:
    """The SAEs, then the baselines, with their figures: those columns that a row has. `pages` are
    the links to pages of SAEs, by their names."""
    rows = sorted(rows, key=lambda row: row.width is None)
    shown = [column for column in COLUMNS if any(column.of(row) is not None for row in rows)]
    body = [
        [
            Cell(_below(row), link=pages.get(row.name, "")),
            _words(chosen),
            *(_number(column.of(row)) for column in shown),
            Cell(str(len(warnings(row))), len(warnings(row))),
        ]
        for row, chosen in zip(rows, _chosen_by(rows), strict=True)
    ]
    heads = ["SAE", "chosen by", *(column.head for column in shown), "warnings"]
    about = (
        "A row is an SAE and a way of choosing its latents. The last rows, of baselines/, are the"
        " identity and PCA. What the columns mean stands below the table."
    )
    if pages:
        about += " The name of an SAE leads to its page: what its latents fire on."
    return Table("saes", "The SAEs", about, heads, body, _terms(heads))


def _chosen_by(rows: Sequence[Row]) -> list[str | None]:
    """How each row's latents are chosen. Figures show the first of an SAE's rows."""
    counts = Counter(row.name for row in rows)
    first = {row.name: row for row in reversed(rows)}
    return [
        f"{row.inference}, in figures"
        if counts[row.name] > 1 and row is first[row.name]
        else row.inference
        for row in rows
    ]


def _terms(heads: Sequence[str]) -> dict[str, str]:
    """What these headings mean, in the order of TERMS."""
    named = {head.removesuffix(f" {CORE}") for head in heads}
    if any(head.endswith(CORE) for head in heads):
        named.add(CORE)
    return {name: meaning for name, meaning in TERMS.items() if name in named}


def warnings(row: Row) -> list[str]:
    """A row's warnings, and one of an SAE with many dead latents."""
    dead = DEAD.of(row)
    if row.width is None or dead is None or dead <= MANY_DEAD:
        return row.warnings
    told = f"{DEAD.evaluation}: {dead:.0%} of the latents are dead on the evaluation's text"
    return [*row.warnings, told]


def of_warnings(rows: Sequence[Row]) -> Table:
    """What a reader should know of the figures: a row for each warning."""
    body = [
        [_words(_below(row)), _words(row.inference), text]
        for row in rows
        for text in map(_words, warnings(row))
    ]
    about = (
        "What to know before these SAEs are compared by their figures. metrics.json has these"
        " warnings too, but for those of dead latents."
    )
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
    """The commits that trained an SAE: several, if its training was resumed with others."""
    commits = (
        each["commit"][:12] + ("" if each["clean"] else " (edited)")
        for each in record.get("git") or []
        if each
    )
    return ", ".join(dict.fromkeys(commits))
