"""A pass: one run of the LM over the text trains every SAE of the job that the store lacks."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saemake import kernels
from saemake.base import devices, interrupts, progress, source
from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.base.saying import say
from saemake.base.store import Store
from saemake.config.sections import Logging
from saemake.llm.hookpoint import deepest
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import checkpoint_key, stream_key
from saemake.text.shards import Tokens
from saemake.training import files, reporting
from saemake.training.contexts import ContextStream
from saemake.training.members import Member, Stores, Wanted
from saemake.training.snapshots import Clock, Snapshot
from saemake.training.streams import AnyStream, by_loss, fill_all, scale_all, streams

log = logging.getLogger(__name__)
# Raised by hand when what is in a snapshot changes: passes start anew.
SNAPSHOT_LAYOUT = 2


@dataclass(frozen=True)
class Inputs:
    """The inputs of a pass: the LM's files, the content of its model.json, the text."""

    weights: Weights
    lm_description: dict[str, Any]
    tokens: Tokens

    @property
    def checksums(self) -> dict[str, Any]:
        """The checksums and the commits of the LM's files and of the text."""
        manifest, left_out = self.tokens.manifest, {"model", "recipe_hash"}
        return {
            "lm": {key: value for key, value in self.lm_description.items() if key not in left_out},
            "tokens_sha256": [shard["sha256"] for shard in manifest["shards"]],
            "text_revision": manifest["text_revision"],
        }


@dataclass(frozen=True)
class Conduct:
    """Settings of a pass that do not change its results. `label` names the pass beside its
    progress bar. With infinite `snapshot_seconds` no snapshots are made. `announce` is called once,
    before the first step, with the SAEs to train and the device. Over several GPUs of a kind SAEs
    train side by side: `spread` says on which each does, by its place among them; the first has the
    LM and the buffers."""

    label: str
    report: Logging
    snapshot_seconds: float
    announce: Callable[[Sequence[Wanted], torch.device], None] = lambda wanted, device: None
    devices_per_pass: int = 1
    spread: Callable[[Sequence[SaeRecipe], Sequence[torch.device]], Sequence[int]] = (
        lambda recipes, devices: [0] * len(recipes)
    )


class FailedSaesError(SaemakeError):
    """SAEs of a pass that failed, with what is wrong with each (`faults`, by recipe hash)."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = faults
        super().__init__(
            f"{'; '.join(faults.values())}. No result of a failed SAE is kept under its name; all"
            " other SAEs are in the store"
        )


def train_pass(wanted: Sequence[Wanted], inputs: Inputs, stores: Stores, conduct: Conduct) -> None:
    """Train the wanted SAEs that the stores lack, and put them into the stores with their
    checkpoints. If an earlier pass was interrupted, training resumes from its snapshot. The recipes
    must share the run of the LM (`lm_run_key`). The caller holds the locks of these SAEs.

    Raises SaemakeError if the tokens were made by another recipe, and FailedSaesError if the loss
    or a weight of an SAE is not finite. Of such an SAE only earlier checkpoints are stored; the
    other SAEs are stored before the error is raised. Raises KeyboardInterrupt on Ctrl-C and
    SIGTERM, after a snapshot.
    """
    missing = [sae for sae in wanted if not sae.is_in(stores)]
    stored = len(wanted) - len(missing)
    log.info("%d of %d SAEs are in the store; training %d", stored, len(wanted), len(missing))
    if not missing:
        return
    inputs.tokens.check(missing[0].recipe.tokens.hash)
    device = devices.choose(missing[0].recipe.training.cpu_threads)
    conduct.announce(missing, device)
    if device.type == "cuda" and not kernels.used_on(device):
        why = kernels.why_not_on(device)
        _warn(conduct, f"{why}: steps run by torch alone, several times more slowly")
    made_with = digest([SNAPSHOT_LAYOUT, files.circumstances(device), inputs.checksums])
    faults: dict[str, str] = {}
    for group, snapshot in _groups(missing, stores, made_with):
        faults |= _Pass(group, inputs, stores, conduct, device, made_with, snapshot).run()
    if faults:
        raise FailedSaesError(faults)


def _warn(conduct: Conduct, line: str) -> None:
    log.warning("%s", line)
    say(f"{conduct.label}: {line}")


def _groups(
    missing: Sequence[Wanted], stores: Stores, made_with: str
) -> Iterator[tuple[list[Wanted], Snapshot | None]]:
    """The missing SAEs, grouped by the snapshot from which they resume. SAEs in no snapshot come
    last and start at step 0."""
    rest = list(missing)
    while rest:
        snapshot = stores.snapshots.covering([sae.recipe.hash for sae in rest], made_with)
        group = [
            sae
            for sae in rest
            if snapshot is None
            or (
                sae.recipe.hash in snapshot.members
                and sae.has_checkpoints(stores, before=snapshot.step)
            )
        ]
        yield (group, snapshot) if group else (rest, None)
        rest = [sae for sae in rest if sae not in group] if group else []


class _Pass:
    """One run of the LM, from step 0 or from a snapshot."""

    def __init__(
        self,
        wanted: list[Wanted],
        inputs: Inputs,
        stores: Stores,
        conduct: Conduct,
        device: torch.device,
        made_with: str,
        snapshot: Snapshot | None,
    ) -> None:
        self.inputs, self.stores, self.conduct = inputs, stores, conduct
        self.device, self.made_with = device, made_with
        self.names = {sae.recipe.hash: sae.name for sae in wanted}
        self.started = time.monotonic()
        recipes = [sae.recipe for sae in wanted]
        self.batch_tokens, self.steps = recipes[0].training.batch_tokens, recipes[0].steps
        log.info("on %s", self.device)
        shared = stores.snapshots.shared(snapshot) if snapshot else None
        last, whole = deepest(recipe.hookpoint for recipe in recipes), by_loss(recipes)
        at = last if whole else last.target
        lm = LanguageModel(inputs.weights, at, self.device, whole=whole, gradients=whole)
        states = shared["streams"] if shared else None
        self.streams = streams(recipes, lm, inputs.tokens, states)
        self.faults: dict[str, str] = {}
        # One commit for each part of the pass; an interrupted pass has several parts.
        self.git = [*(shared["git"] if shared else []), source.describe()]
        if snapshot is None or shared is None:
            self.step, self.seconds, self.resumes = 0, 0.0, 0
            scale_all(list(self.streams.values()))
            for stream in self.streams.values():
                where = f"{stream.recipe.hookpoint}, " if len(self.streams) > 1 else ""
                for line in stream.warned():
                    _warn(conduct, where + line)
        else:
            self.step = snapshot.step
            self.seconds, self.resumes = shared["seconds"], shared["resumes"] + 1
            self.faults = {
                key: shared["faults"][key] for key in self.names if key in shared["faults"]
            }
            log.info("going on at step %d, from snapshot %s", self.step, snapshot.key)
            say(f"{conduct.label}: goes on at step {self.step:,} of {self.steps:,}")
        of_pass = devices.of_pass(device, conduct.devices_per_pass)
        going_on = [sae for sae in wanted if sae.recipe.hash not in self.faults]
        places = conduct.spread([sae.recipe for sae in going_on], of_pass)
        self.members = [
            Member(sae, lm.d_model, of_pass[place])
            for sae, place in zip(going_on, places, strict=True)
        ]
        for member in self.members:
            self._stream(member).members.append(member)
            if snapshot is not None:
                member.load_state(stores.snapshots.member(snapshot, member.recipe.hash))
            else:
                stream = self._stream(member)
                member.begin(stream.scale, stream.target_scale)

    def _stream(self, member: Member) -> AnyStream:
        return self.streams[stream_key(member.recipe)]

    def run(self) -> dict[str, str]:
        """Train to the end and store the finished SAEs. Returns a line for each SAE that failed, by
        its recipe hash."""
        runs = [reporting.run_of(m.name, m.recipe, m.wanted.sweep) for m in self.members]
        with reporting.reported(self.conduct.report, self.conduct.label, runs) as self.reports:
            for member in self.members:  # rows before the snapshot, of which a logger may lack some
                for row in member.rows:
                    self.reports.row(member.recipe.hash, row)
            self._train()
            self._finish()
        return self.faults

    def _train(self) -> None:
        count = len(self.members)
        label = f"{self.conduct.label} ({count} SAE{'s' * (count != 1)})"
        clock = Clock(self.conduct.snapshot_seconds, time.monotonic)
        done, total = self.step * self.batch_tokens, self.steps * self.batch_tokens
        with (
            progress.bar(total, label, "tok", done, self._figures) as bar,
            interrupts.watched() as interrupt,
        ):
            while self.step < self.steps and self.members:
                if (interrupt.requested and clock.on) or clock.due():
                    self._snapshot()
                if interrupt.requested:
                    raise KeyboardInterrupt
                faults_before = len(self.faults)
                self._step()
                for fault in list(self.faults.values())[faults_before:]:
                    say(f"{fault}; the others go on")
                bar.update(self.batch_tokens)

    def _figures(self) -> progress.Figures:
        """What the SAEs' last rows of training.csv say: nothing is computed for it."""
        rows = [member.rows[-1] for member in self.members if member.rows]
        return {
            progress.L0: [row["l0"] for row in rows],
            progress.EXPLAINED: [row["frac_variance_explained"] for row in rows],
        }

    def _step(self) -> None:
        report, step = self.conduct.report, self.step
        logged = step % report.every_steps == 0 or step == self.steps - 1
        used = [stream for stream in self.streams.values() if stream.members]
        fill_all(used)
        for stream in used:
            x_BD, y_BD = stream.pair()
            # Copies wait for the batch, and steps for the copies, on the devices alone.
            on = {each: _moved(x_BD, y_BD, each) for each in stream.devices}
            for member in list(stream.members):
                if step in member.wanted.checkpoint_steps:
                    member.save_checkpoint(
                        step, stream.scale, stream.target_scale, self.stores.checkpoints
                    )
                with devices.computing_on(member.device):
                    read_BD, target_BD = on[member.device]
                    forward = member.update(step, read_BD, target_BD, stream.end_to_end)
                    if logged:
                        row = member.row(step, target_BD, forward, report)
                        if isinstance(stream, ContextStream):  # whose batches differ in size
                            row["tokens"] = stream.tokens
                        self._log(member, row)
        self.step += 1

    def _log(self, member: Member, row: dict[str, float]) -> None:
        """Keep and report a row of training.csv. An SAE whose loss is not finite is dropped."""
        log.info("%s, step %d of %d: %s", member.name, self.step, self.steps, row)
        member.rows.append(row)
        self.reports.row(member.recipe.hash, row)
        if int(member.bad_step) >= 0:
            fault = f"the loss is not finite from step {int(member.bad_step)} on: lower"
            fault += " training.learning_rate, or take it out of the sweep"
            self._drop(member, fault)

    def _drop(self, member: Member, fault: str) -> None:
        self.members.remove(member)
        self._stream(member).drop(member)
        self.faults[member.recipe.hash] = f"{member.name}: {fault} {member.last_good()}"

    def _snapshot(self) -> None:
        shared = {
            "seconds": self.seconds + time.monotonic() - self.started,
            "resumes": self.resumes,
            "faults": self.faults,
            "git": self.git,
            "streams": {key: s.state() for key, s in self.streams.items() if s.members},
        }
        states = {member.recipe.hash: member.state() for member in self.members}
        try:
            self.stores.snapshots.put(self.step, self.names, self.made_with, shared, states)
            log.info("snapshot before step %d", self.step)
        except SaemakeError as error:  # training goes on without the snapshot
            log.warning("%s", error)
            say(f"no snapshot: {error}")

    def _finish(self) -> None:
        seconds = self.seconds + time.monotonic() - self.started
        saes = self.stores.saes
        for member in list(self.members):
            if not member.is_finite():
                self._drop(member, "a weight is not finite at the end")
                continue
            content = self._files(member, seconds)
            if saes.has(member.recipe.hash) and not _same_sae(saes, member, content):
                self._drop_checkpoints(member)
            else:
                saes.put(member.recipe.hash, content)
        self.stores.snapshots.prune([*self.names, *saes.entries()])
        self.reports.trained(member.recipe.hash for member in self.members)
        log.info("trained %d SAEs in %.0f s", len(self.members), seconds)

    def _drop_checkpoints(self, member: Member) -> None:
        """Drop the checkpoints of an SAE that was trained again to get them, but came out different
        from the SAE in the store."""
        for step in member.wanted.checkpoint_steps:
            self.stores.checkpoints.drop(checkpoint_key(member.recipe, step))
        self._drop(
            member,
            "trained again for its checkpoints, it differs from the SAE in the store, which another"
            " device or software made (saemake verify); the stored SAE is kept, the"
            " checkpoints are not",
        )

    def _files(self, member: Member, seconds: float) -> dict[str, bytes]:
        """The files of a trained SAE. Its weights include the norm factor: it takes raw
        activations."""
        recipe, stream = member.recipe, self._stream(member)
        scales = stream.scale, stream.target_scale
        weights = files.sae_bytes(member.trainer.finished(*scales))
        config = files.config_json(member.trainer, recipe, *scales)
        more = {
            "ae_sha256": hashlib.sha256(weights).hexdigest(),
            **self.inputs.checksums,
            **stream.norms,
            **({"target_norms": stream.target_norms} if stream.target_norms else {}),
            **self._dropped(stream),
            **({"start_from": member.began_with} if member.began_with else {}),
            "git": self.git,
            "pass_wall_time_s": round(seconds, 1),
            "resumes": self.resumes,
        }
        return {
            "ae.pt": weights,
            "config.json": config.encode(),
            "training.csv": files.training_csv(member.rows).encode(),
            "provenance.json": files.provenance_json(recipe, self.device, more).encode(),
        }

    def _dropped(self, stream: AnyStream) -> dict[str, Any]:
        """For provenance.json: the ids that were left out, and the fraction of the other tokens
        that was left out by norm."""
        drop, manifest = stream.recipe.training.drop, self.inputs.tokens.manifest
        norms = {"dropped_by_norm": round(stream.dropped_by_norm, 6)}
        return {
            **({"dropped_ids": manifest["dropped_ids"]} if drop.kinds else {}),
            **(norms if drop.norm_over_median is not None else {}),
        }


def _moved(x_BD: Tensor, y_BD: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch and its targets on a device; one tensor where they are one."""
    moved_BD = x_BD.to(device, non_blocking=True)
    return moved_BD, moved_BD if y_BD is x_BD else y_BD.to(device, non_blocking=True)


def _same_sae(saes: Store, member: Member, content: dict[str, bytes]) -> bool:
    return saes.read(member.recipe.hash, "ae.pt") == content["ae.pt"]
