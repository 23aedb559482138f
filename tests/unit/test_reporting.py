"""wandb and TensorBoard get training's figures, and cannot change or end a training."""

import csv
import dataclasses
import getpass
import io
import json
import re
import signal
import socket
import struct
import textwrap
import time
from pathlib import Path

import pytest
import wandb_server
from conftest import CONFIG_FILE, DEMO_IN_BFLOAT16, PROJECT, SMALL, merged, raw_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from unit.test_architectures import data, make
from unit.test_snapshots import Killed, go, inputs, kill_before, small, stored, wanted  # noqa: F401
from wandb.proto.wandb_internal_pb2 import Record

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.commands import verify
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.config.rebuilding import config_yaml
from saemake.config.sections import Logging
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import Sweep
from saemake.training import reporting
from saemake.training.members import Member

ID = r"[0-9a-f]{16}"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """In a folder of its own, and nobody's wandb."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def plain(small, inputs, tmp_path_factory):  # noqa: F811
    """The SAEs as they train without any logger."""
    root = tmp_path_factory.mktemp("plain")
    go(wanted(small), inputs, root, small, seconds=1e9)
    return stored(wanted(small), root)


def asking(**loggers) -> Config:
    over = merged(DEMO_IN_BFLOAT16, SMALL)
    return read(raw_config(merged({"logging": loggers}, over)), PROJECT, [CONFIG_FILE])


def fake_wandb(monkeypatch, folder: Path, code: str) -> None:
    """A package of this name, which Python finds before the real one."""
    package = folder / "fake" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(code))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def records(file: Path):
    """The records of a .wandb file: LevelDB's log format, after 7 bytes of wandb's own."""
    content, place, whole = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32_768 - place % 32_768 < 7:  # the rest of a block, too short for a header
            place += 32_768 - place % 32_768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(whole)
            whole = b""


class OfflineRun:
    """What wandb has of one run, in its own file."""

    def __init__(self, file: Path) -> None:
        every = list(records(file))
        (self.run,) = (record.run for record in every if record.HasField("run"))
        self.config = {entry.key: json.loads(entry.value_json) for entry in self.run.config.update}
        self.rows = {}
        for record in every:
            if record.HasField("history"):
                items = record.history.item
                values = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }
                self.rows[record.history.step.num] = {
                    key: value for key, value in values.items() if not key.startswith("_")
                }
        self.statuses = [record.exit.exit_code for record in every if record.HasField("exit")]


def offline_runs() -> list[OfflineRun]:
    return [OfflineRun(file) for file in sorted(Path("logs/wandb").glob("offline-run-*/*.wandb"))]


def table(csv_bytes: bytes) -> dict[int, dict[str, float]]:
    """training.csv by step, under the loggers' names."""
    rows = csv.DictReader(io.StringIO(csv_bytes.decode()))
    return {
        int(row["step"]): reporting.figures({key: float(value) for key, value in row.items()})
        for row in rows
    }


def test_both_loggers_have_training_csv_and_the_saes_stay_the_same(small, inputs, tmp_path, plain):  # noqa: F811
    config = asking(
        wandb={"mode": "offline", "project": "saes", "tags": ["mine"]}, tensorboard=True
    )
    saes = [dataclasses.replace(sae, sweep="demo/L3/top_k/256") for sae in wanted(config)]
    assert [sae.recipe.hash for sae in saes] == [sae.recipe.hash for sae in wanted(small)]
    go(saes, inputs, tmp_path / "store", config, seconds=1e9)
    assert stored(saes, tmp_path / "store") == plain
    runs = {run.run.display_name: run for run in offline_runs()}
    assert set(runs) == set(plain)
    for sae in saes:
        run, rows = runs[sae.name], table(plain[sae.name][2])
        assert (run.run.run_id, run.run.project) == (sae.recipe.hash[:16], "saes")
        assert run.run.run_group == "demo/L3/top_k/256"
        assert list(run.run.tags) == ["top_k", "L3", "mine"]
        assert run.config["recipe_hash"] == sae.recipe.hash
        assert run.config["training"]["learning_rate"] == sae.recipe.training.learning_rate
        assert run.rows == rows
        assert run.statuses == [0]

        events = EventAccumulator(f"logs/tensorboard/{sae.name}").Reload()
        for name in next(iter(rows.values())):
            points = {event.step: event.value for event in events.Scalars(name)}
            assert points == pytest.approx({step: row[name] for step, row in rows.items()})
        (described,) = events.Tensors("config/text_summary")
        assert sae.recipe.hash in described.tensor_proto.string_val[0].decode()


FAULTS = {
    "it is not there": (
        "raise ModuleNotFoundError(\"No module named 'wandb'\", name='wandb')",
        r"the package wandb is not installed: pip install wandb",
    ),
    "only a folder has its name": ("", r"the package wandb is not installed: pip install wandb"),
    "init raises": (
        """
        class Settings:
            def __init__(self, **settings): pass
        def init(**arguments):
            raise RuntimeError("no route, key " + 40 * "a" + "\\nmore")
        """,
        r"RuntimeError: no route, key \*\*\*",
    ),
    "log raises": (
        """
        class Settings:
            def __init__(self, **settings): pass
        class Run:
            offline, dir, starting_step = True, "here", 0
            def log(self, figures, step):
                if step > 10: raise ValueError("full")
            def finish(self, exit_code): raise ValueError("again")
        def init(**arguments): return Run()
        """,
        r"ValueError: full",
    ),
    "its process dies": ("import os; os._exit(7)", r"its process ended with status 7"),
    "it never ends": ("import time; time.sleep(100)", r"it did not end within 1 s and was stopped"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_wandb_is_said_once_and_changes_nothing(
    fault,
    inputs,  # noqa: F811
    tmp_path,
    monkeypatch,
    capfd,
    plain,
):
    code, words = FAULTS[fault]
    fake_wandb(monkeypatch, tmp_path, code)
    if fault == "it never ends":
        monkeypatch.setattr(reporting, "END_S", 1.0)
    config = asking(wandb={"mode": "offline"})
    go(wanted(config), inputs, tmp_path / "store", config, seconds=1e9)
    assert stored(wanted(config), tmp_path / "store") == plain
    said = [line for line in capfd.readouterr().err.splitlines() if "wandb" in line]
    line = rf".*saemake: test: wandb: {words}; training is not affected \(logging\.wandb\)"
    assert len(said) == 1
    assert re.fullmatch(line, said[0].split("\r")[-1])


def test_a_wandb_without_a_login_is_said(tmp_path, capfd):
    """The real one, which looks for a key in the environment and in HOME."""
    with reporting.reported(asking(wandb={}).logging, "here", [RUN]):
        pass
    assert "wandb: UsageError: No API key configured" in capfd.readouterr().err


RUN = reporting.Run("0" * 16, "demo/L3/top_k/256/k_4", "demo/L3/top_k/256", [], {})


def test_a_killed_pass_goes_on_with_its_runs(inputs, tmp_path, monkeypatch, plain):  # noqa: F811
    config = asking(wandb={"mode": "offline"}, tensorboard="curves")
    saes = wanted(config)[:1]
    monkeypatch.setattr(reporting, "INTERRUPTED_S", 60.0)  # of a busy machine
    with monkeypatch.context() as patch:
        kill_before(patch, 15)
        with pytest.raises(Killed):
            go(saes, inputs, tmp_path / "store", config)
    go(saes, inputs, tmp_path / "store", config, seconds=1e9)
    first, second = offline_runs()
    rows = table(plain[saes[0].name][2])
    assert first.run.run_id == second.run.run_id == saes[0].recipe.hash[:16]
    assert (list(first.rows), first.statuses) == ([0, 10], [1])
    assert second.rows == rows
    assert second.statuses == [0]
    folder = Path("curves") / saes[0].name
    assert len(list(folder.iterdir())) == 2
    points = EventAccumulator(str(folder)).Reload().Scalars("metrics/l0")
    assert [point.step for point in points] == list(rows)


def test_online_a_run_goes_on_where_wandb_has_it(monkeypatch, capfd):
    """The real wandb, with a server on this machine."""
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    config = asking(wandb={"project": "saes", "tags": ["mine"]})
    rows = [{"step": step, "loss": 1.0 + step, "l0": 2.0} for step in (0, 10, 20)]
    with wandb_server.serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        for sent, status in ((rows[:2], 1), (rows, 0)):
            with reporting.reported(config.logging, "here", [RUN]) as reports:
                for row in sent:
                    reports.row(RUN.id, row)
                if status == 0:
                    reports.trained([RUN.id])
            assert server.rows(RUN.id) == {row["step"]: reporting.figures(row) for row in sent}
    assert "wandb" not in capfd.readouterr().err
    first = server.opened[0]
    assert (first["displayName"], first["project"]) == (RUN.name, "saes")
    assert (first["groupName"], first["tags"]) == (RUN.group, ["mine"])
    assert not [first[key] for key in ("host", "repo", "commit") if first[key]]
    # Nothing of the machine but its load: no user, no name of it, no path.
    sent_text = "\n".join(server.received)
    for private in (socket.gethostname(), getpass.getuser(), str(PROJECT)):
        assert f'"{private}' not in sent_text
    assert 40 * "a" not in sent_text


def test_a_pass_does_not_wait_for_a_logger_that_reads_nothing(monkeypatch, capfd):
    """What is written to it is more than a pipe holds."""
    monkeypatch.setattr(reporting, "END_S", 0.5)
    with reporting.reported(asking(wandb={}).logging, "here", [RUN]) as reports:
        process = reports.loggers[0].process
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        for step in range(2_000):
            reports.row(RUN.id, {"step": step, "loss": 1.0, "l0": 1.0})
        assert time.monotonic() - started < 20
    assert process.returncode == -9
    assert "did not end within" in capfd.readouterr().err


@pytest.mark.parametrize("name", architectures.names())
def test_figures_have_the_names_of_saelens(name):
    trainer, x = make(name), next(iter(data(1)))
    member = Member.__new__(Member)
    member.trainer = trainer
    forward = trainer.update(0, x)
    row = member.row(0, x, forward, Logging(every_steps=1, dead_after_tokens=1))
    named = reporting.figures(row)
    assert {
        "losses/overall_loss",
        "metrics/l0",
        "metrics/explained_variance",
        "sparsity/dead_features",
        "details/current_learning_rate",
        "details/n_training_samples",
    } <= set(named)
    losses = {key for key in named if key.startswith("losses/")} - {"losses/overall_loss"}
    assert losses == {f"losses/{part}" for part in forward.parts}
    details = {key for key in named if key.startswith("details/")}
    assert {f"details/{key}" for key in trainer.progress()} <= details
    assert len(named) == len(row) - 1


@pytest.mark.parametrize("key", ["api_key", "key", "WANDB_API_KEY", "token"])
def test_a_key_of_wandb_in_the_config_is_refused_and_not_shown(key):
    with pytest.raises(SaemakeError) as refused:
        asking(wandb={key: "secret"})
    assert f"'logging.wandb': '{key}' is refused" in str(refused.value)
    assert "wandb login" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_misspelt_key_of_wandb_is_refused():
    with pytest.raises(SaemakeError, match=r"'logging\.wandb\.projct': unknown; did you mean"):
        asking(wandb={"projct": "x"})
    with pytest.raises(SaemakeError, match=r"logging\.wandb\.mode'.*'online' or 'offline'"):
        asking(wandb={"mode": "disabled"})


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("false", False), ("tb", "tb")])
def test_tensorboard_is_a_flag_or_a_folder(said, meant):
    """As the command line says it."""
    assert asking(tensorboard=said).logging.tensorboard == meant


def test_a_pushed_config_does_not_say_whose_wandb():
    config = asking(wandb={"entity": "somebody"}, tensorboard="/home/somebody")
    assert "somebody" not in config_yaml(config, "demo")
    assert "every_steps" in config_yaml(config, "demo")


def test_verify_logs_nothing(monkeypatch, tmp_path):
    config, given = asking(wandb={}, tensorboard=True), []
    monkeypatch.setattr(
        verify.train, "into", lambda stores, config, *rest, **more: given.append(config)
    )
    monkeypatch.setattr(verify, "_manifest", lambda model, use: tmp_path)
    verify._rebuild(config, Sweep("demo", Hookpoint(3), "top_k", "256"), [], tmp_path)
    assert reporting.Reports(given[0].logging, "here", [RUN]).loggers == []


def test_nothing_is_started_by_default(config):
    assert reporting.Reports(config.logging, "here", [RUN]).loggers == []
