"""A rebuilt SAE beside its published one: figures, configuration, weights, and a verdict."""

import dataclasses
import json
from collections.abc import Mapping
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
# What a config.json has that is of a run and not of an SAE.
OF_A_RUN = ("device", "wandb_name", "submodule_name", "norm_factor", "recipe")


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of an SAE that was judged."""

    folder: Path
    config: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, folder: Path) -> "Place":
        """SaemakeError where its files are damaged."""
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
) -> dict[str, Any]:
    """comparison.json: the rebuilt SAE beside the published one that was judged as it was."""
    one, other = (place.load(entry, device) for place in (rebuilt, published))
    same, match = same_weights(one, other), decoder_match(one, other)
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
    }


def against_catalogue(
    entry: Entry, name: str, rebuilt: list[Row], tolerances: Tolerances
) -> dict[str, Any]:
    """against_catalogue.json: the rebuilt SAE's figures beside the catalogue's, without the
    published weights. The catalogue's are of its authors' text; `verdict` says `within` or
    `outside` the tolerances, or `unknown` where the catalogue has none of them."""
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
    """By evaluation: L0 and loss recovered of the rebuilt SAE, of the published one judged here
    (None where it is not there), and of the catalogue (None where it says nothing)."""
    found = {}
    for name in reversed(evaluation.names()):
        described = evaluation.get(name)
        if described.roles is None or not described.published:
            continue
        found[name] = {
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
    return found


def deviations(
    compared: Mapping[str, Mapping[str, Any]], beside: str, tolerances: Tolerances
) -> tuple[int, list[str]]:
    """How many figures of the rebuilt SAE could be compared with what stands `beside` it
    ('published' or 'catalogue'), and which are out of tolerance, a sentence each."""
    count, faults = 0, []
    for evaluation_name, figures_of_both in compared.items():
        for name, sides in figures_of_both.items():
            rebuilt, other = sides["rebuilt"], sides[beside]
            if other is None or rebuilt is None:
                continue
            count += 1
            if name == "l0":
                allowed, said = tolerances.l0 * abs(other), f"{tolerances.l0:.0%}"
            else:
                allowed, said = tolerances.loss_recovered, f"{tolerances.loss_recovered:g}"
            if abs(rebuilt - other) > allowed:
                faults.append(
                    f"{evaluation_name}: {name} {rebuilt:.5g}, {beside} {other:.5g}: more than"
                    f" {said} apart"
                )
    return count, faults


def differing(
    rebuilt: Mapping[str, Any], published: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The fields of two config.json that differ, by dotted name; what only one has is None in the
    other. What is of a run only is left out."""
    one, other = _flat(rebuilt), _flat(published)
    return {
        key: {"rebuilt": one.get(key), "published": other.get(key)}
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and key.rpartition(".")[2] not in OF_A_RUN
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def same_weights(rebuilt: Dictionary, published: Dictionary) -> bool:
    """Whether all parameters and buffers are equal to the bit."""
    one, other = rebuilt.state_dict(), published.state_dict()
    return all(one[key].equal(other[key]) for key in one)


def decoder_match(rebuilt: Dictionary, published: Dictionary) -> dict[str, dict[str, float]]:
    """How well one's decoder directions are found in the other's, both ways: the mean over latents
    of the largest cosine similarity, and the fraction of latents where it is over 0.9."""
    one, other = unit(rebuilt.decoder_rows), unit(published.decoder_rows)
    return {
        "published_in_rebuilt": _matched(largest_cosines(other, one)),
        "rebuilt_in_published": _matched(largest_cosines(one, other)),
    }


def _matched(largest_F: Tensor) -> dict[str, float]:
    return {
        "mean_max_cosine": largest_F.double().mean().item(),
        "fraction_above_0.9": (largest_F > COSINE).double().mean().item(),
    }


def verdict(
    same: bool, match: Mapping[str, Mapping[str, float]], faults: list[str], tolerances: Tolerances
) -> str:
    """`identical`: the same weights. `reproduced`: the same features and figures within tolerance.
    `equivalent`: figures within tolerance of other features, as of another seed. `different`:
    figures out of tolerance."""
    if same:
        return "identical"
    if faults:
        return "different"
    cosine = min(way["mean_max_cosine"] for way in match.values())
    return "reproduced" if cosine >= tolerances.decoder_cosine else "equivalent"
