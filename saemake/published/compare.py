"""Compares a rebuilt SAE with the published one: figures, configuration, weights, and a verdict."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saemake import evaluation
from saemake.architectures.trainer import Dictionary
from saemake.config.sections import Tolerances
from saemake.evaluation.directions import largest_cosines, unit
from saemake.metrics.rows import Row, read_file
from saemake.paths.catalogue import Entry
from saemake.training import files

COSINE = 0.9
# Keys of config.json that describe a run and not an SAE.
OF_A_RUN = ("device", "wandb_name", "submodule_name", "norm_factor", "recipe")


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of an SAE, with its config.json and its rows of metrics.json."""

    folder: Path
    config: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, folder: Path) -> "Place":
        """Raises SaemakeError if metrics.json is damaged."""
        config = json.loads((folder / "config.json").read_text())
        return cls(folder, config, read_file(folder / "metrics.json"))

    def load(self, entry: Entry, device: torch.device) -> Dictionary:
        return files.load(self.folder, entry.architecture, entry.latents, device)


def compare(
    entry: Entry,
    name: str,
    rebuilt: Place,
    published: Place,
    tolerances: Tolerances,
    device: torch.device,
    by_sae_bench: Callable[[Row, Row], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """comparison.json: the rebuilt SAE beside the published SAE, both judged by the same
    evaluations. `by_sae_bench` gives, from the rows of both, what published result files say (see
    results.compared)."""
    rebuilt_sae, published_sae = (place.load(entry, device) for place in (rebuilt, published))
    same = same_weights(rebuilt_sae, published_sae)
    match = decoder_match(rebuilt_sae, published_sae)
    compared = figures(rebuilt.rows[0], entry, published.rows[0])
    count, faults = deviations(compared, "published", tolerances)
    if count < sum(map(len, compared.values())):
        faults.append("a figure is not defined, so that it cannot be compared")
    source = json.loads((published.folder / "source.json").read_text())
    return {
        **_heads(entry, name, rebuilt.rows[0]),
        "published_commit": source["commit"],
        "published_sha256": source["sha256"]["ae.pt"],
        "verdict": verdict(same, match, faults, tolerances),
        "because": faults,
        "figures": compared,
        "decoder": match,
        "config": differing(rebuilt.config, published.config),
        "tolerances": tolerances.model_dump(),
        **({"sae_bench": by_sae_bench(rebuilt.rows[0], published.rows[0])} if by_sae_bench else {}),
    }


def against_catalogue(
    entry: Entry, name: str, rebuilt: list[Row], tolerances: Tolerances
) -> dict[str, Any]:
    """against_catalogue.json: the rebuilt SAE's figures beside the catalogue's. Needs no published
    weights. The catalogue's figures are of its authors' text. `verdict` is `within` or `outside`
    the tolerances, or `unknown` if the catalogue has no figure to compare."""
    compared = figures(rebuilt[0], entry, None)
    count, faults = deviations(compared, "catalogue", tolerances)
    return {
        **_heads(entry, name, rebuilt[0]),
        "verdict": ("outside" if faults else "within") if count else "unknown",
        "because": faults,
        "figures": compared,
        "tolerances": tolerances.model_dump(),
    }


def _heads(entry: Entry, name: str, row: Row) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": row.architecture,
        "width": row.width,
        "sparsity": row.sparsity,
        "repository": entry.repository,
        "path": entry.path,
        "inference": row.inference,
    }


def figures(row: Row, entry: Entry, published: Row | None) -> dict[str, dict[str, Any]]:
    """L0 and loss recovered by evaluation: of the rebuilt SAE, of the published SAE judged here
    (None without `published`), and of the catalogue (None if it has no such figure)."""
    by_evaluation = {}
    for name in reversed(evaluation.names()):
        described = evaluation.get(name)
        if not issubclass(described, evaluation.TextEvaluation) or described.roles is None:
            continue
        if not described.published or row.of(name) is None:
            continue
        by_evaluation[name] = {
            compared: {
                "rebuilt": row.figure(name, figure),
                "published": published.figure(name, figure) if published else None,
                "catalogue": entry.figures.get(described.published[compared]),
            }
            for compared, figure in (
                ("l0", described.roles.l0),
                ("loss_recovered", described.roles.recovered),
            )
        }
    return by_evaluation


def deviations(
    compared: Mapping[str, Mapping[str, Any]], beside: str, tolerances: Tolerances
) -> tuple[int, list[str]]:
    """The number of figures of the rebuilt SAE that could be compared with the side `beside`
    ('published' or 'catalogue'), and a line for each that is out of tolerance."""
    count, faults = 0, []
    for evaluation_name, figures_of_both in compared.items():
        for name, sides in figures_of_both.items():
            rebuilt, other = sides["rebuilt"], sides[beside]
            if other is None or rebuilt is None:
                continue
            count += 1
            if name == "l0":
                allowed, in_words = tolerances.l0 * abs(other), f"{tolerances.l0:.0%}"
            else:
                allowed, in_words = tolerances.loss_recovered, f"{tolerances.loss_recovered:g}"
            if abs(rebuilt - other) > allowed:
                faults.append(
                    f"{evaluation_name}: {name} {rebuilt:.5g}, {beside} {other:.5g}: more than"
                    f" {in_words} apart"
                )
    return count, faults


def differing(
    rebuilt: Mapping[str, Any], published: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The fields in which two config.json differ, by dotted name. A missing field is None. Fields
    that describe only a run are left out."""
    ours, theirs = _flat(rebuilt), _flat(published)
    return {
        key: {"rebuilt": ours.get(key), "published": theirs.get(key)}
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key) and key.rpartition(".")[2] not in OF_A_RUN
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            fields |= _flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def same_weights(rebuilt: Dictionary, published: Dictionary) -> bool:
    """Whether all parameters and buffers are bitwise equal."""
    ours, theirs = rebuilt.state_dict(), published.state_dict()
    return all(ours[key].equal(theirs[key]) for key in ours)


def decoder_match(rebuilt: Dictionary, published: Dictionary) -> dict[str, dict[str, float]]:
    """How well each SAE's decoder directions match the other's: the mean over latents of the
    largest cosine similarity, and the fraction of latents where it is over 0.9."""
    ours_FD, theirs_FD = unit(rebuilt.decoder_rows), unit(published.decoder_rows)
    return {
        "published_in_rebuilt": _matched(largest_cosines(theirs_FD, ours_FD)),
        "rebuilt_in_published": _matched(largest_cosines(ours_FD, theirs_FD)),
    }


def _matched(largest_F: Tensor) -> dict[str, float]:
    return {
        "mean_max_cosine": largest_F.double().mean().item(),
        "fraction_above_0.9": (largest_F > COSINE).double().mean().item(),
    }


def verdict(
    same: bool, match: Mapping[str, Mapping[str, float]], faults: list[str], tolerances: Tolerances
) -> str:
    """`identical`: the same weights. `reproduced`: the same decoder directions, and figures within
    tolerance. `equivalent`: other directions, as from another seed, and figures within tolerance.
    `different`: a figure out of tolerance or undefined."""
    if same:
        return "identical"
    if faults:
        return "different"
    cosine = min(way["mean_max_cosine"] for way in match.values())
    return "reproduced" if cosine >= tolerances.decoder_cosine else "equivalent"
