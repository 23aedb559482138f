"""The result files that SAE Bench's authors published: which are of an SAE, and their figures.

Files of one SAE are found by its model, layer, width, architecture and L0: the numbers of trainers
in their names disagree with those of the weights.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saemake import evaluation
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import sha256
from saemake.metrics.rows import Row
from saemake.paths.catalogue import Entry
from saemake.paths.names import dataset_file

# The folder of each evaluation, but for core's.
FOLDERS = {
    "sae_bench_absorption": "absorption",
    "sae_bench_autointerp": "autointerp",
    "sae_bench_ravel": "ravel",
    "sae_bench_scr": "scr",
    "sae_bench_tpp": "tpp",
    "sae_bench_sparse_probing": "sparse_probing",
    "sae_bench_unlearning": "unlearning",
}
CORE_FOLDER = "core"
SUFFIX = "_eval_results.json"
# What file names call an architecture, without case and punctuation.
ARCHITECTURES = {
    "topk": "top_k",
    "batchtopk": "batch_top_k",
    "matryoshkabatchtopk": "matryoshka_batch_top_k",
    "jumprelu": "jump_relu",
    "gated": "gated",
    "panneal": "p_anneal",
    "standard": "standard_new",
}
# The L0 of a result file may differ from the catalogue's, another measurement, by this part of it.
L0_TOLERANCE = 0.15
# The figures that 0.6.0 defines otherwise than the release of the published files (0.3.2).
REDEFINED = {
    "mean_absorption_fraction_score": "redefined in 0.4.1 (pull request 62)",
    "std_dev_absorption_fraction_score": "redefined in 0.4.1 (pull request 62)",
    "mean_num_split_features": "of other letters since 0.4.1 (pull request 67)",
    "std_dev_num_split_features": "of other letters since 0.4.1 (pull request 67)",
}


@dataclass(frozen=True)
class Result:
    """A result file: its path below the folder, figures, and the commit of SAE Bench in it."""

    file: str
    figures: Mapping[str, float | None]
    commit: str | None


class Results:
    """The result files in a folder, one folder an evaluation. `described` is what datasets/
    says of them: among others, the sha256 of each."""

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        self.folder, self.described = folder, described
        self.fetched: Mapping[str, str] = described["files"]

    def of(self, entry: Entry) -> dict[str, Result]:
        """An SAE's result of each evaluation that has one, core's under its name too. Empty where
        no file of core has about its L0. Raises SaemakeError where a file is damaged or not the one
        that was fetched."""
        wanted = entry.figures.get("core_l0")
        if wanted is None:
            return {}
        alike = {
            name: l0
            for name in self._names(entry)
            if (l0 := self._l0(name)) is not None and abs(l0 / wanted - 1) <= L0_TOLERANCE
        }
        if not alike:
            return {}
        name = min(alike, key=lambda each: abs(alike[each] - wanted))
        found = {"sae_bench_core": self._core(name)}
        for evaluated, folder in FOLDERS.items():
            if f"{folder}/{name}" in self.fetched:
                found[evaluated] = self._result(evaluated, f"{folder}/{name}")
        return found

    def _names(self, entry: Entry) -> list[str]:
        """The files of SAEs like an entry, below the folder of an evaluation."""
        width = entry.latents.bit_length() - 1
        place = f"saebench_{entry.model}_width-2pow{width}_"
        return [
            name
            for name in self._of_core
            if name.startswith(place)
            and f"layer_{entry.layer}_" in name.rpartition("/")[2]
            and _architecture(name) == entry.architecture
        ]

    @functools.cached_property
    def _of_core(self) -> list[str]:
        files = sorted(file for file in self.fetched if file.endswith(SUFFIX))
        return [file.partition("/")[2] for file in files if file.startswith(f"{CORE_FOLDER}/")]

    def _read(self, file: str) -> dict[str, Any]:
        return _read(self.folder / file, self.fetched[file], self.described["dataset"])

    def _l0(self, name: str) -> float | None:
        metrics = self._read(f"{CORE_FOLDER}/{name}")["eval_result_metrics"]
        l0 = metrics.get("sparsity", {}).get("l0")
        return None if l0 is None else float(l0)

    def _core(self, name: str) -> Result:
        """Their explained variance is the legacy one."""
        content = self._read(f"{CORE_FOLDER}/{name}")
        figures = _flat(content["eval_result_metrics"])
        if "explained_variance" in figures:
            figures["explained_variance_legacy"] = figures.pop("explained_variance")
        return Result(f"{CORE_FOLDER}/{name}", figures, content.get("sae_bench_commit_hash"))

    def _result(self, evaluated: str, file: str) -> Result:
        content = self._read(file)
        known = evaluation.get(evaluated).Figures.model_fields
        flat = _flat(content["eval_result_metrics"])
        figures = {name: value for name, value in flat.items() if name in known}
        return Result(file, figures, content.get("sae_bench_commit_hash"))


@functools.cache
def _read(path: Path, fetched: str, dataset: str) -> dict[str, Any]:
    """The content of a file whose sha256 is the one that was fetched of a dataset."""
    if not path.is_file() or sha256(path) != fetched:
        raise SaemakeError(
            f"{path}: gone, or changed since it was fetched; delete {dataset_file(dataset)} and run"
            " the same command again"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["eval_result_metrics"].items()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SaemakeError(
            f"{path}: no result file of SAE Bench ({first_line(error)}); delete it and fetch it"
            " again"
        ) from None
    return content


def _flat(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    return {
        name: value if value is None or value == value else None  # NaN
        for group in groups.values()
        for name, value in group.items()
    }


def _architecture(name: str) -> str | None:
    """The architecture that a file's name says, after the name of its folder."""
    folder, _, file = name.partition("/")
    plain = re.sub("[^a-z0-9]", "", file.removeprefix(folder).lower())
    said = [key for key in ARCHITECTURES if key in plain]
    return ARCHITECTURES[max(said, key=len)] if said else None


def compared(entry: Entry, rebuilt: Row, published: Row, results: Results) -> dict[str, Any]:
    """Of each evaluation with a result file, the figures of the rebuilt SAE, of the published one
    as judged here, and of the file."""
    found = results.of(entry)
    return {
        "revision": results.described["revision"],
        "files": {name: result.file for name, result in found.items()},
        "sae_bench_commits": {name: result.commit for name, result in found.items()},
        "figures": {
            name: dict(_sides(name, result, rebuilt, published)) for name, result in found.items()
        },
    }


def _sides(
    name: str, result: Result, rebuilt: Row, published: Row
) -> Iterator[tuple[str, dict[str, Any]]]:
    for figure in evaluation.get(name).Figures.model_fields:
        if (value := result.figures.get(figure)) is None:
            continue
        sides: dict[str, Any] = {
            "rebuilt": rebuilt.figure(name, figure),
            "published": published.figure(name, figure),
            "file": value,
        }
        if figure in REDEFINED:
            sides["not_comparable"] = REDEFINED[figure]
        yield figure, sides
