"""A shared store, in this process: what is fetched, refused, pushed, and how it fails."""

import hashlib
import json
import socket
import threading
import time

import pytest
from conftest import raw_config
from hub_server import LocalHub
from test_config import said

from saemake.base import remote as remotes
from saemake.base.digest import digest
from saemake.base.remote import Remote
from saemake.base.remote_files import RemoteError, RemoteFiles, check_url
from saemake.base.store import Store
from saemake.recipes.kinds import ModelRecipe

WEIGHTS = b"weights" * 100
RECIPE = {"layer": 3, "tokens": {"model": {"hub": "owner/lm", "revision": "main"}}}
KEY = digest(RECIPE)


def of_sae(weights=WEIGHTS, recipe=RECIPE):
    """The files of an SAE."""
    said = {"recipe": recipe, "ae_sha256": hashlib.sha256(weights).hexdigest()}
    return {
        "ae.pt": weights,
        "config.json": b"{}",
        "training.csv": b"step\n",
        "provenance.json": json.dumps(said).encode(),
    }


class Machine:
    """A store, and the shared one behind it."""

    def __init__(self, root, url, push=False):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.remote = Remote(url, push, root)

    def store(self, kind="saes"):
        return Store(self.root, kind, self.remote)

    def brings(self, key=KEY, recipe=KEY, kind="saes"):
        self.store(kind).bring({key: recipe})
        return self.store(kind).has(key)


@pytest.fixture
def shared(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def maker(tmp_path, shared):
    """Who has pushed an SAE."""
    machine = Machine(tmp_path / "maker", f"file://{shared}", push=True)
    machine.store().put(KEY, of_sae())
    machine.remote.push_made()
    return machine


@pytest.fixture
def taker(tmp_path, maker, shared):
    return Machine(tmp_path / "taker", f"file://{shared}")


def entry(shared):
    path = shared / "saes" / KEY / "entry.json"
    return path, json.loads(path.read_text())


def test_what_is_pushed_is_fetched_with_the_same_bytes(maker, taker, shared, capsys):
    assert taker.brings()
    assert "fetched 1 of 1 saes from file://" in capsys.readouterr().err
    for name, content in of_sae().items():
        assert taker.store().read(KEY, name) == content
    assert maker.store().read(KEY, "sums.json") == taker.store().read(KEY, "sums.json")
    # No half-written file is left there, and nothing is pushed twice.
    assert len(list((shared / "saes" / KEY).iterdir())) == 5
    assert maker.remote.send([("saes", KEY)]) == 0


def test_what_is_here_is_not_asked_for(tmp_path):
    machine = Machine(tmp_path, "file:///nowhere", push=True)
    machine.store().put(KEY, of_sae())
    assert machine.brings()
    machine.remote._made.clear()
    machine.remote.push_made()
    assert not machine.remote._failed


def test_what_is_fetched_is_not_pushed_and_snapshots_stay(maker, taker, tmp_path, shared):
    taker.remote.push = True
    assert taker.brings()
    taker.store("snapshots").put("abc", {"shared.pt": b"state"})
    taker.store("tokens").put("abc", {"manifest.json": b"{}"})
    assert taker.remote._made == []
    assert sorted(path.name for path in shared.iterdir()) == ["saes"]


def damage_bytes(shared):
    path = shared / "saes" / KEY / hashlib.sha256(WEIGHTS).hexdigest()
    path.write_bytes(WEIGHTS[:-1] + b"!")


def damage_length(shared):
    path = shared / "saes" / KEY / hashlib.sha256(WEIGHTS).hexdigest()
    path.write_bytes(WEIGHTS[:-1])


def damage_missing(shared):
    (shared / "saes" / KEY / hashlib.sha256(WEIGHTS).hexdigest()).unlink()


def said_of(change):
    def damage(shared):
        path, content = entry(shared)
        changed = change(content)
        path.write_text(changed if isinstance(changed, str) else json.dumps(content))

    return damage


def named(name):
    """`config.json` has another name, which leaves what must be there."""

    def change(content):
        content["files"][name] = content["files"]["config.json"]

    return said_of(change)


def another_recipe(shared):
    """The files of another SAE, whole, under this key."""
    content = of_sae(recipe={**RECIPE, "layer": 4})
    listed = {}
    for name, body in content.items():
        sum_ = hashlib.sha256(body).hexdigest()
        (shared / "saes" / KEY / sum_).write_bytes(body)
        listed[name] = {"sha256": sum_, "bytes": len(body)}
    (shared / "saes" / KEY / "entry.json").write_text(json.dumps({"files": listed, "pins": []}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_bytes, "ae.pt is damaged"),
        (damage_length, "ae.pt is damaged"),
        (damage_missing, "ae.pt is damaged"),
        (another_recipe, "it is of another recipe"),
        (said_of(lambda said: "{"), "entry.json is damaged"),
        (said_of(lambda said: "[" * 100_000), "entry.json is damaged"),
        (said_of(lambda said: "[]"), "entry.json is damaged"),
        (said_of(lambda said: " " * 2**22 + "{}"), "entry.json is too large"),
        (said_of(lambda said: said["files"].pop("config.json") and None), "lists no config.json"),
        (said_of(lambda said: said["files"]["ae.pt"].update(bytes=-1)), "entry.json is damaged"),
        (said_of(lambda said: said["files"]["ae.pt"].update(bytes=2**60)), "ae.pt is damaged"),
        (said_of(lambda said: said["files"]["ae.pt"].update(sha256="../x")), "entry.json is dam"),
        (said_of(lambda said: said["files"]["config.json"].update(bytes=2**27)), "is too large"),
        (
            said_of(
                lambda said: said["pins"].append(
                    {"kind": "model", "hub": "\x1b[2J", "revision": "main", "commit": "a"}
                )
            ),
            "entry.json is damaged",
        ),
        (
            said_of(
                lambda said: said["files"].update(
                    {str(n): said["files"]["ae.pt"] for n in range(10_001)}
                )
            ),
            "too many files",
        ),
        *[
            (named(name), "names a file outside its folder")
            for name in (
                *("../x", "/etc/x", "a/../../x", "a//b", "./x", "", ".", "..", "a\\b", "a\0b"),
                *("x" * 300, "a/" * 600 + "b", "sums.json", "ae.pt/x", "\ud800", "a\nb"),
            )
        ],
    ],
)
def test_what_is_wrong_is_refused_and_replaced(maker, taker, shared, capsys, damage, words):
    damage(shared)
    before = sorted(path for path in taker.root.parent.rglob("*") if path.name == "x")
    taker.remote.push = True
    assert not taker.brings()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"file://{shared}/saes/{KEY}: " in lines[0]
    assert words in lines[0]
    assert lines[0].endswith("; it is not used")
    assert sorted(path for path in taker.root.parent.rglob("*") if path.name == "x") == before
    assert list(taker.store().folder.glob("*")) == []
    # The SAE is made, and what was wrong is replaced.
    taker.store().put(KEY, of_sae())
    taker.remote.push_made()
    other = Machine(taker.root.parent / "other", f"file://{shared}")
    assert other.brings()


def test_an_entry_that_is_not_whole_yet_is_not_there(taker, shared, capsys):
    entry(shared)[0].unlink()
    assert not taker.brings()
    assert capsys.readouterr().err == ""


def test_an_entry_that_no_disk_holds_is_refused(taker, monkeypatch, capsys):
    monkeypatch.setattr(remotes, "MOST_BYTES", 100)
    assert not taker.brings()
    assert "too many for this disk" in capsys.readouterr().err
    assert taker.remote._refused == set()


def pin(machine, commit):
    content = {"kind": "model", "hub": "owner/lm", "revision": "main", "commit": commit}
    key = digest(["model", "owner/lm", "main"])
    Store(machine.root, "revisions").put(key, {"commit.json": json.dumps(content).encode()})


@pytest.mark.parametrize(("there", "here"), [("a" * 40, "b" * 40), ("a" * 40, "a" * 40)])
def test_a_branch_of_another_commit_is_told_apart(tmp_path, shared, capsys, there, here):
    maker = Machine(tmp_path / "maker", f"file://{shared}", push=True)
    pin(maker, there)
    maker.store().put(KEY, of_sae())
    maker.remote.push_made()
    taker = Machine(tmp_path / "taker", f"file://{shared}", push=True)
    pin(taker, here)
    assert taker.brings() == (there == here)
    if there != here:
        assert "made from commit aaaaaaaaaaaa of owner/lm, whose main is bbbb" in (
            capsys.readouterr().err
        )
        # Nobody's entry is replaced by that of another commit.
        before = entry(shared)
        taker.store().put(KEY, of_sae(weights=b"other"))
        taker.remote.push_made()
        assert entry(shared) == before


def test_the_recipe_names_its_sources_as_recipes_do():
    """The pins are found by the names of a recipe's fields."""
    of_lm = ModelRecipe(
        content=None, hub="owner/lm", revision="main", gguf_file=None, layers=6, dtype="float32"
    )
    recipe = {"tokens": {"model": of_lm.model_dump(mode="json"), "text_hub": "o/t"}}
    recipe["tokens"]["text_revision"] = "v1"
    assert set(remotes._sources(recipe)) == {("owner/lm", "main"), ("o/t", "v1")}


def test_two_writers_at_once_leave_one_whole_entry(tmp_path, shared):
    """Their provenance differs in its times, so files of both must not mix."""
    machines = []
    for number in range(4):
        machine = Machine(tmp_path / str(number), f"file://{shared}", push=True)
        files = of_sae()
        said = {**json.loads(files["provenance.json"]), "pass_wall_time_s": number}
        machine.store().put(KEY, {**files, "provenance.json": json.dumps(said).encode()})
        machines.append(machine)
    threads = [threading.Thread(target=machine.remote.push_made) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Machine(tmp_path / "taker", f"file://{shared}").brings()


def test_evaluations_and_checkpoints_say_their_recipes(tmp_path, shared):
    maker = Machine(tmp_path / "maker", f"file://{shared}", push=True)
    recipe = {"evaluation": "dictionary_learning", "subject": KEY}
    files = {
        "figures.json": b"[]",
        "latents.parquet": b"",
        "recipe.json": json.dumps(recipe).encode(),
    }
    maker.store("evaluations").put("e" * 64, files)
    maker.store("checkpoints").put("c" * 64, {"ae.pt": b"", "of_sae.txt": KEY.encode()})
    maker.remote.push_made()
    taker = Machine(tmp_path / "taker", f"file://{shared}")
    assert taker.brings("e" * 64, digest(recipe), "evaluations")
    assert taker.brings("c" * 64, KEY, "checkpoints")
    other = Machine(tmp_path / "other", f"file://{shared}")
    assert not other.brings("e" * 64, digest({}), "evaluations")
    assert not other.brings("c" * 64, digest({}), "checkpoints")


def test_a_folder_that_is_not_there_is_said_once_in_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(remotes.RUN, "1")
    for number in range(2):  # as two processes of a run
        machine = Machine(tmp_path / "here", f"file://{tmp_path}/nowhere", push=True)
        assert not machine.brings()
        machine.store().put(str(number), of_sae())
        machine.remote.push_made()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert (
        "does not exist, make it first (no such folder); this run goes on without it; push what"
        in (lines[0])
    )
    monkeypatch.setenv(remotes.RUN, "2")
    assert not Machine(tmp_path / "here", f"file://{tmp_path}/nowhere").brings()
    assert "push" not in capsys.readouterr().err


def test_a_store_within_the_project_s_own_is_refused(tmp_path, capsys):
    machine = Machine(tmp_path / "results" / ".store", f"file://{tmp_path}/results/.store/saes")
    assert not machine.brings()
    assert "lies in this project's own store" in capsys.readouterr().err


def test_a_store_without_rights_is_told(maker, taker, shared, capsys, monkeypatch):
    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied: //user:secret@host/x?signature=abc")

    taker.remote.files._filesystem().ls = forbidden
    assert not taker.brings()
    line = capsys.readouterr().err
    assert "no rights" in line
    assert "secret" not in line
    assert "abc" not in line


def test_a_host_that_never_answers_is_given_up(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("saemake.base.remote_files.ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thesecretofatest")
        machine = Machine(tmp_path, "s3://lab/x")
        started = time.monotonic()
        assert not machine.brings()
        assert time.monotonic() - started < 20  # 1 s, and what a busy machine adds
        machine.remote.files.check_root = None  # nothing is asked again
        assert not machine.brings("b" * 64)
    assert "no answer in 1 s; this run goes on without it" in capsys.readouterr().err


def test_an_address_where_nobody_listens(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thesecretofatest")
    assert not Machine(tmp_path, "s3://lab/x").brings()
    said = capsys.readouterr().err
    assert "s3://lab/x: cannot be used (Could not connect to the endpoint URL" in said
    assert "thesecretofatest" not in said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://me:thepassword@bucket/x", "is refused, since a config is no place for credentials"),
        ("s3://bucket/x?X-Amz-Signature=thepassword", "is refused, since a config is no place"),
        ("gs://bucket/x", "must begin with one of s3://, hf://, file://"),
        ("/data/store", "must begin with one of s3://, hf://, file://"),
        ("file://data/store", "file:///absolute/path"),
        ("file:///", "file:///absolute/path"),
        ("file:///data/../etc", "'..' in its path"),
        ("s3:///x", "the bucket is missing"),
        ("hf://datasets/owner", "hf://datasets/owner/name"),
        ("hf://buckets/owner/name", "hf://datasets/owner/name"),
    ],
)
def test_a_url_that_is_none_is_refused_in_the_config(url, words):
    line = said({"store": {"remote": url, "push": False}})
    assert "config key 'store.remote'" in line
    assert words in line
    assert "thepassword" not in line


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/a/b", "hf://datasets/o/n/sub", "hf://o/n", "file:///a"]
)
def test_these_are_urls_of_stores(url):
    check_url(url)


def test_pushing_needs_a_place():
    assert "'push' needs 'remote'" in said({"store": {"push": True}})


def test_the_default_is_none():
    assert raw_config()["store"] == {"remote": None, "push": False}


def test_a_missing_package_is_named_before_the_run(monkeypatch):
    from saemake.base import remote_files
    from saemake.base.errors import SaemakeError

    monkeypatch.setattr(remote_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SaemakeError, match="needs the package s3fs: make s3"):
        remote_files.check_installed("s3://lab/x")
    with pytest.raises(RemoteError, match="needs the package s3fs"):
        RemoteFiles("s3://lab/x").check_root()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub() as served, served.inside(tmp_path / "home"):
        served.commit("dataset", "lab/suite", {"README.md": b""})
        served.grant("hf_lab", "lab", may_write={"lab"})
        monkeypatch.setenv("HF_TOKEN", "hf_lab")
        yield served


def test_on_the_hub_a_job_is_one_commit(hub, tmp_path):
    maker = Machine(tmp_path / "maker", "hf://datasets/lab/suite/sub", push=True)
    for number in range(2):
        recipe = {**RECIPE, "layer": number}
        maker.store().put(digest(recipe), of_sae(recipe=recipe))
    maker.remote.push_made()
    assert len(hub.commits("dataset", "lab/suite")) == 2
    taker = Machine(tmp_path / "taker", "hf://datasets/lab/suite/sub")
    key = digest({**RECIPE, "layer": 1})
    assert taker.brings(key, key)
    assert not taker.brings()
    assert taker.remote.entries()["saes"] == set(maker.store().entries())


def test_who_may_read_and_not_write_goes_on_fetching(hub, tmp_path, capsys, monkeypatch):
    maker = Machine(tmp_path / "maker", "hf://datasets/lab/suite", push=True)
    maker.store().put(KEY, of_sae())
    maker.remote.push_made()
    hub.grant("hf_stranger", "stranger")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    stranger = Machine(tmp_path / "stranger", "hf://datasets/lab/suite", push=True)
    recipe = {**RECIPE, "layer": 5}
    stranger.store().put(digest(recipe), of_sae(recipe=recipe))
    stranger.remote.push_made()
    line = capsys.readouterr().err
    assert "hf://datasets/lab/suite: no rights" in line
    assert "this run pushes nothing more; push what it makes later: saemake store --push" in line
    assert "hf_stranger" not in line
    assert stranger.brings()


def test_a_repository_that_is_not_there(hub, tmp_path, capsys):
    assert not Machine(tmp_path, "hf://datasets/lab/nothing").brings()
    assert "hf://datasets/lab/nothing: does not exist, make it first" in capsys.readouterr().err
