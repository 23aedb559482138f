"""What the jobs of a run of the workflow do together. A run writes down beforehand which SAEs train
on one run of the LM, and which are judged in one. The first of the jobs does it for all, the others
find theirs in the store."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saemake.base import files
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths import catalogue
from saemake.paths.artifacts import ComparisonTable, FigureFile, PushFile, SaeFile, TracerFile
from saemake.paths.files import COMPARISONS, build_files, hookpoint_files
from saemake.paths.folders import ALL
from saemake.paths.grammar import parse
from saemake.paths.names import (
    HUB,
    METRICS,
    RESULTS,
    SAELENS,
    STORE,
    SaeName,
    Sweep,
    Trained,
)
from saemake.paths.sweeps import members
from saemake.paths.tracer import at_layers
from saemake.plan.judged_together import Together, together
from saemake.plan.passes import Pass, cut
from saemake.plan.stored import stored_now
from saemake.plan.work import work

FOLDER = STORE / "passes"
# What reading a file that another config or an older saemake wrote may raise.
SAYS_NOTHING = (OSError, ValueError, KeyError, TypeError, SaemakeError)


@dataclass(frozen=True)
class Shared:
    """What a run does together: SAEs that train in one pass, and what is judged in one."""

    passes: list[Pass] = field(default_factory=list)
    judged: list[Together] = field(default_factory=list)


def of_run(config: Config, targets: Iterable[str]) -> Shared:
    """What a run on these targets does together, where it cuts passes beforehand. Raises
    SaemakeError as `cut` does."""
    if not config.passes.cut_beforehand:
        return Shared()
    wanted = [path for target in targets for path in built_for(config, target)]
    lacking = work(config, wanted, stored_now(STORE))
    judged = [each for each in together(config, lacking.evaluate) if each.shared]
    return Shared(cut(config, lacking.train), judged)


def built_for(config: Config, target: str) -> list[str]:
    """The files under results/ and hub/ that a target is made from, as far as SAEs are trained for
    it; a target there is one itself."""
    if target == ALL:
        return build_files(config)
    if target.startswith((f"{RESULTS}/", f"{HUB}/")):
        return [target]
    match parse(config, target):
        case SaeFile(top, sae) if top == SAELENS:
            return [f"{sae.folder}/ae.pt"]
        case TracerFile(sae):
            return [f"{each.folder}/ae.pt" for each in at_layers(config, sae)]
        case SaeFile(_, sae, file) if file in COMPARISONS:
            return [f"{sae.folder}/{METRICS}"]
        case ComparisonTable(sweep):
            return _rebuilt(config, [sweep])
        case FigureFile(_, model, hookpoint):
            sweeps = catalogue.load(config).sweeps()
            return _rebuilt(
                config, [s for s in sweeps if (s.model, s.hookpoint) == (model, hookpoint)]
            )
        case PushFile(_, model):
            places = config.models[model].suite.hookpoints
            return [file for at in places for file in hookpoint_files(config, model, at)]
        case _:
            return []


def _rebuilt(config: Config, sweeps: Iterable[Sweep]) -> list[str]:
    """The tables of the SAEs that are rebuilt beside published ones."""
    known = catalogue.load(config)
    return [f"{sae.folder}/{METRICS}" for sweep in sweeps for sae in known.of_sweep(sweep)]


def write_down(config: Config, shared: Shared, models: Iterable[str]) -> None:
    """Keep it for the jobs of a run, which has the turn of these models."""
    for model in models:
        noted = {
            "passes": [list(map(str, each.saes)) for each in shared.passes if each.model == model],
            "judged": [
                {
                    "evaluation": each.first.evaluation,
                    "saes": [str(sae) for job in each.trained for sae in members(config, job)],
                }
                for each in shared.judged
                if each.first.model == model
            ],
        }
        path = FOLDER / f"{model}.json"
        if any(noted.values()):
            files.write(str(path), json.dumps(noted, indent=1).encode() + b"\n")
        else:
            path.unlink(missing_ok=True)


def trained_with(config: Config, trained: Trained) -> list[list[SaeName]]:
    """What a job trains, in groups that are a pass each: its own SAEs, each with those that are to
    train on the same run of the LM."""
    own = members(config, trained)
    if not config.passes.cut_beforehand:
        return [own]
    written = [group for group in _written(config, trained.model) if set(group) & set(own)]
    rest = [sae for sae in own if not any(sae in group for group in written)]
    return [*written, *([rest] if rest else [])]


def judged_with(config: Config, trained: Trained, evaluation: str) -> list[SaeName]:
    """The SAEs of other jobs that are to be judged by an evaluation together with those of one."""
    own = members(config, trained)
    if not config.passes.cut_beforehand:
        return []
    try:
        groups = [
            [_sae(config, sae) for sae in group["saes"]]
            for group in _noted(trained.model)["judged"]
            if group["evaluation"] == evaluation
        ]
    except SAYS_NOTHING:
        return []
    return [sae for group in groups if set(group) & set(own) for sae in group if sae not in own]


def name(group: Sequence[SaeName], trained: Trained) -> str:
    """What names a pass beside its progress."""
    sweeps = dict.fromkeys(sae.sweep for sae in group)
    if len(sweeps) == 1:
        return str(trained)
    return f"{trained} and {len(sweeps) - 1} more"


def _written(config: Config, model: str) -> list[list[SaeName]]:
    """The passes that the run has written down of a model. A file of another config says
    nothing."""
    try:
        return [[_sae(config, each) for each in group] for group in _noted(model)["passes"]]
    except SAYS_NOTHING:
        return []


def _noted(model: str) -> Any:
    return json.loads(Path(FOLDER, f"{model}.json").read_text())


def _sae(config: Config, text: str) -> SaeName:
    artifact = parse(config, f"{RESULTS}/{text}/ae.pt")
    if not isinstance(artifact, SaeFile):
        raise SaemakeError(f"{text}: no SAE")
    return artifact.sae
