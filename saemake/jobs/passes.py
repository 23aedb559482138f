"""The passes of a run of the workflow. A run writes down beforehand which SAEs of its jobs are to
train on one run of the LM; the first of these jobs trains them all, the others find them in the
store."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from saemake.base import files
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths.artifacts import SaeFile
from saemake.paths.files import build_files
from saemake.paths.grammar import parse
from saemake.paths.names import HUB, RESULTS, STORE, SaeName, Trained
from saemake.paths.sweeps import members
from saemake.plan.passes import Pass, cut
from saemake.plan.stored import stored_now
from saemake.plan.work import work

FOLDER = STORE / "passes"


def of_run(config: Config, targets: Iterable[str]) -> list[Pass]:
    """The passes of a run on these targets, where it cuts them beforehand. Jobs that the plan does
    not know (of published SAEs, exports and pushes) train by themselves.

    Raises SaemakeError as `cut` does.
    """
    if not config.passes.cut_beforehand:
        return []
    wanted = [
        path
        for target in targets
        for path in (build_files(config) if target == "all" else [target])
        if path.startswith((f"{RESULTS}/", f"{HUB}/"))
    ]
    missing = work(config, wanted, stored_now(STORE)).train
    return cut(config, missing)


def write_down(passes: Sequence[Pass], models: Iterable[str]) -> None:
    """Keep them for the jobs of a run, which has the turn of these models."""
    for model in models:
        own = [list(map(str, each.saes)) for each in passes if each.model == model]
        path = FOLDER / f"{model}.json"
        if own:
            files.write(str(path), json.dumps({"passes": own}, indent=1).encode() + b"\n")
        else:
            path.unlink(missing_ok=True)


def together(config: Config, trained: Trained) -> list[list[SaeName]]:
    """What a job trains, in groups that are a pass each: its own SAEs, each with those that are to
    train on the same run of the LM."""
    own = members(config, trained)
    if not config.passes.cut_beforehand:
        return [own]
    written = [group for group in _written(config, trained.model) if set(group) & set(own)]
    rest = [sae for sae in own if not any(sae in group for group in written)]
    return [*written, *([rest] if rest else [])]


def name(group: Sequence[SaeName], trained: Trained) -> str:
    """What names a pass beside its progress."""
    sweeps = dict.fromkeys(sae.sweep for sae in group)
    if len(sweeps) == 1:
        return str(trained)
    return f"{trained} and {len(sweeps) - 1} more"


def _written(config: Config, model: str) -> list[list[SaeName]]:
    """What the run has written down of a model. A file of another config says nothing."""
    try:
        noted = json.loads(Path(FOLDER, f"{model}.json").read_text())["passes"]
        return [[_sae(config, each) for each in group] for group in noted]
    except (OSError, ValueError, KeyError, TypeError, SaemakeError):
        return []


def _sae(config: Config, text: str) -> SaeName:
    artifact = parse(config, f"{RESULTS}/{text}/ae.pt")
    if not isinstance(artifact, SaeFile):
        raise SaemakeError(f"{text}: no SAE")
    return artifact.sae
