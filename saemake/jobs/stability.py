"""How the latents of a sweep's SAEs recur in other seeds."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from saemake.base import devices
from saemake.base.files import write
from saemake.config.config import Config
from saemake.evaluation.matching import Agreement, agreement
from saemake.metrics import rows, stability
from saemake.metrics.rows import Row, Subject
from saemake.metrics.stability import Pair
from saemake.paths.files import FIRINGS, firings_of, latents_file
from saemake.paths.names import SaeName, Sweep
from saemake.paths.sweeps import members, with_seeds
from saemake.training import files


def write_stability(config: Config, sweep: Sweep, table: str, threads: int, output: str) -> None:
    """Compare each pair of SAEs of a sweep that differ in their seed alone. `table` is the sweep's
    metrics.json. Raises SaemakeError where a file is damaged."""
    device = devices.choose(threads)
    # Of several rows of an SAE the first has its latents chosen as its loader does.
    row_of = {row.name: row for row in reversed(rows.read_file(Path(table)))}
    pairs = [
        pair
        for own in members(config, sweep)
        for pair in _pairs(config, own, _seeds_of(config, own), row_of, device)
    ]
    write(output, stability.content(pairs))


def _seeds_of(config: Config, own: SaeName) -> list[SaeName]:
    """An SAE of a sweep, then the SAEs that differ from it in their seed alone."""
    return [sae for sae in with_seeds(config, own.sweep) if sae.sparsity == own.sparsity]


def _pairs(
    config: Config,
    own: SaeName,
    saes: Iterable[SaeName],
    row_of: Mapping[str, Row],
    device: torch.device,
) -> Iterator[Pair]:
    latents, architecture = config.latents(own.sweep.width), own.sweep.architecture
    read = [(sae, files.load(Path(sae.folder), architecture, latents, device)) for sae in saes]
    about = row_of[str(own)].model_dump(include=set(Subject.model_fields), exclude_unset=True)
    for (first, one), (second, other) in itertools.combinations(read, 2):
        seeds = [
            config.training_of(sae.model).seed if sae.seed is None else sae.seed
            for sae in (first, second)
        ]
        firing = _firing(config, first, row_of[str(first)])
        yield Pair(
            **about,
            seeds=seeds,
            l0=_l0(row_of[str(first)], row_of[str(second)]),
            **_figures(agreement(one, other), firing),
        )


def _figures(found: Agreement, firing_F: Tensor | None) -> dict[str, Any]:
    """The columns of a pair. `firing_F` says which latents of the first fire; [F]."""
    shared_F, live = found.shared(), None if firing_F is None else int(firing_F.sum())
    return {
        "method": found.method,
        "shared": _share(shared_F),
        "shared_by_decoder": _share(found.decoder.shared()),
        "shared_by_encoder": _share(found.encoder.shared()),
        "same_partner": _share(found.same_partner()),
        "decoder_mean_cosine": found.decoder.cosine_F.double().mean().item(),
        "encoder_mean_cosine": found.encoder.cosine_F.double().mean().item(),
        "live_latents": live,
        "live_shared": _share(shared_F[firing_F]) if live else None,
    }


def _share(which: Tensor) -> float:
    return which.double().mean().item()


def _firing(config: Config, sae: SaeName, row: Row) -> Tensor | None:
    """Which latents of an SAE fire on the text of an evaluation, [F]; None if no evaluation of the
    suite says it."""
    evaluation = firings_of(config, sae.model)
    if evaluation is None:
        return None
    column = FIRINGS[evaluation]
    seen = pd.read_parquet(
        Path(sae.folder, latents_file(evaluation)), columns=["inference", "index", column]
    )
    if row.inference is not None:
        seen = seen[seen["inference"] == row.inference]
    return torch.from_numpy((seen.sort_values("index")[column] > 0).to_numpy(copy=True))


def _l0(*both: Row) -> float | None:
    """The mean L0 of two SAEs, by the evaluation that figures take it from."""
    for evaluation in FIRINGS:
        found = [row.figure(evaluation, "l0") for row in both]
        known = [l0 for l0 in found if l0 is not None]
        if len(known) == len(both):
            return sum(known) / len(known)
    return None
