"""The Hub's client against a Hub on this machine: what is asked again, pinned, and said."""

import argparse
import io
import json
import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import DEMO_LM, PROJECT, raw_config
from datasets import load_dataset
from datasets.exceptions import DatasetNotFoundError
from hub_server import LocalHub

from saemake.base.errors import SaemakeError
from saemake.base.store import Store, sha256
from saemake.commands import store as store_command
from saemake.config.checks import read
from saemake.hub import FAILURES, every_row, patiently, pinned, reached
from saemake.inputs import weights

LM = {path.name: path.read_bytes() for path in DEMO_LM.iterdir()}
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path):
    with LocalHub() as local, local.inside(tmp_path / "hf"):
        local.commit("model", "somebody/lm", {**LM, "README.md": b"#", "pytorch_model.bin": b"0"})
        yield local


@pytest.fixture
def waits(monkeypatch):
    """How long the client, and saemake, wait for the Hub: here they do not."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.fixture
def fetch(tmp_path):
    """Fetch a model of the Hub into the cache, as the job does: its description."""

    def fetched(repo="somebody/lm", revision="main"):
        return weights.fetch(configured(repo, revision), "demo", Store(tmp_path, "revisions"))

    return fetched


def configured(repo="somebody/lm", revision="main"):
    raw = raw_config()
    raw["models"]["demo"] = {**raw["models"]["demo"], "hub": repo, "revision": revision}
    del raw["models"]["demo"]["folder"]
    return read(raw, PROJECT, [])


def refusal(ask, *arguments):
    with pytest.raises(SaemakeError) as caught:
        ask(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_is_fetched_whole_and_nothing_else_is(hub, fetch):
    described = fetch()
    assert described["revision"] == hub.commits("model", "somebody/lm")[-1]
    assert described["sha256"] == {path.name: sha256(path) for path in DEMO_LM.iterdir()}
    assert not [path for _, path, _ in hub.requests if path.endswith((".md", ".bin"))]


@pytest.mark.parametrize("token", ["", "hf_of_a_stranger"])
def test_a_gated_model_says_its_page_and_what_to_type(hub, fetch, monkeypatch, token):
    hub.gate("model", "somebody/lm")
    hub.grant("hf_of_a_stranger", "stranger")
    monkeypatch.setenv("HF_TOKEN", token)
    page = f"{hub.endpoint}/somebody/lm"
    said = f"model 'somebody/lm' is gated: accept its terms on its Hub page ({page}), type"
    assert refusal(fetch).startswith(f"{said} `hf auth login`")


def test_a_token_that_may_not_read_gated_models(hub, fetch):
    hub.answer("/api/models/", 403, None)
    said = refusal(fetch)
    assert said.startswith("model 'somebody/lm' cannot be read: the Hub answers 403; accept its")
    assert f"({hub.endpoint}/somebody/lm), type `hf auth login` with a token" in said


def test_a_gated_model_with_a_token_that_the_cdn_never_sees(hub, fetch, monkeypatch):
    hub.gate("model", "somebody/lm")
    hub.grant("hf_right", "reader", may_read={"somebody/lm"})
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetch()["sha256"][WEIGHTS] == sha256(DEMO_LM / WEIGHTS)  # the CDN refuses a token


def test_a_token_that_the_hub_does_not_know(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    said = refusal(fetch)
    assert "the Hub does not know your token; type `hf auth login`" in said
    assert "hf_expired" not in said


@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_that_is_not_there_or_private(hub, fetch, hidden):
    if hidden:
        hub.hide("model", "somebody/lm")
    name = "somebody/lm" if hidden else "somebody/ml"
    assert refusal(fetch, name).startswith(f"model '{name}' is not on the Hub, or private: check")


def test_a_revision_that_is_not_there(hub, fetch):
    said = refusal(fetch, "somebody/lm", "v2")
    assert said.startswith("model 'somebody/lm' has no revision 'v2'")


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_says(hub, fetch, waits):
    hub.answer("/api/models/", 429, 2, retry_after=7)
    fetch()
    assert waits == [7, 7]


def test_a_rate_limit_without_end_is_one_line(hub, fetch, waits):
    hub.answer("/api/models/", 429, None)
    said = refusal(fetch)
    assert waits == [1, 2, 4, 8, 16]
    assert said.startswith(
        "model 'somebody/lm' cannot be read now: the Hub is busy (it answers 429"
    )


def test_a_wait_that_is_too_long_is_not_waited_for(hub, fetch, waits):
    hub.answer("/api/models/", 503, None, retry_after=3600)
    assert "the Hub is busy (it answers 503" in refusal(fetch)
    assert waits == []


def test_without_a_network_it_fails_at_once(hub, fetch, waits):
    hub.stop()
    said = refusal(fetch)
    assert said.startswith("model 'somebody/lm' cannot be reached (")
    assert said.endswith(
        "type `saemake build fetched/demo.ok` or `hf download somebody/lm --revision main`,"
        " then run the same command again"
    )
    assert waits == []


def test_a_connection_that_drops_in_the_weights_leaves_no_half_file(hub, fetch, waits):
    hub.drop(WEIGHTS, after_bytes=1_000_000)
    hub.drop(WEIGHTS, after_bytes=2_000_000, times=2, reset=True)
    assert fetch()["sha256"][WEIGHTS] == sha256(DEMO_LM / WEIGHTS)
    assert len([1 for _, path, _ in hub.requests if "/cdn/" in path]) == 4


def test_a_download_that_fails_for_good_leaves_nothing_that_is_taken_for_it(
    hub, fetch, waits, tmp_path
):
    hub.drop(WEIGHTS, after_bytes=1_000_000, times=None, reset=True)
    assert "cannot be reached" in refusal(fetch)
    names = [path.name for path in (tmp_path / "hf").rglob("*")]
    assert not [name for name in names if name == WEIGHTS or name.endswith(".incomplete")]
    hub.mend()
    assert fetch()["sha256"][WEIGHTS] == sha256(DEMO_LM / WEIGHTS)


def test_a_branch_that_moves_on_changes_nothing_that_was_fetched(hub, fetch, tmp_path):
    before = fetch()
    hub.commit("model", "somebody/lm", {"config.json": b"{}"}, "moved")
    assert fetch() == before
    description = tmp_path / "model.json"
    description.write_text(json.dumps(before))
    (tmp_path / "hf").rename(tmp_path / "elsewhere")  # the cache is wiped
    found, _ = weights.read(configured(), description)
    assert found.folder.name == before["revision"]
    assert (found.folder / "config.json").read_bytes() == LM["config.json"]
    assert fetch() == before


def test_a_commit_is_kept_for_its_own_repository_and_revision(tmp_path):
    revisions = Store(tmp_path, "revisions")
    asked = []

    def resolve(named):
        asked.append(named)
        return {"main": "aaa", "v1": "bbb"}.get(named, named)

    for kind, name, revision, commit in (
        ("model", "a/b", "main", "aaa"),
        ("model", "a/b", "main", "aaa"),
        ("model", "a/b", "v1", "bbb"),
        ("dataset", "a/b", "main", "aaa"),
        ("model", "a/c", "main", "aaa"),
    ):
        assert pinned(revisions, kind, name, revision, resolve) == commit
    assert asked == ["main", "aaa", "v1", "main", "main"]


def test_pruning_keeps_the_commits_of_what_the_config_names(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    revisions = Store(tmp_path / "results" / ".store", "revisions")
    weights.fetch(configured(), "demo", revisions)
    (named,) = revisions.entries()
    pinned(revisions, "model", "somebody/lm", "v1", str.upper)
    pinned(revisions, "dataset", "somebody/lm", "main", str.upper)
    assert len(revisions.entries()) == 3
    store_command.run(configured(), argparse.Namespace(prune=True, push=False, yes=True))
    assert revisions.entries() == [named]


def parquet_shards():
    """Three of 4 MB with four groups of rows each, larger than one request for a range."""
    noise = random.Random(0)
    for shard in range(3):
        text = [f"shard {shard}, row {row}" for row in range(20)]
        table = pa.table({"text": text, "image": [noise.randbytes(200_000) for _ in text]})
        content = io.BytesIO()
        pq.write_table(table, content, row_group_size=5, compression="none")
        yield f"data/train-{shard:05d}-of-00003.parquet", content.getvalue()


def jsonl_shards():
    noise = random.Random(0)
    for shard in range(3):
        rows = [
            json.dumps({"text": f"shard {shard}, row {row}", "more": noise.randbytes(9_000).hex()})
            for row in range(100)
        ]
        yield f"train/{shard:02d}.jsonl.zst", zstandard.compress("\n".join(rows).encode())


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("shards", [parquet_shards, jsonl_shards])
def test_rows_are_each_given_once_whatever_breaks(hub, waits, capsys, shards, shuffled):
    hub.commit("dataset", "somebody/text", dict(shards()))
    rows = load_dataset("somebody/text", split="train", streaming=True)
    if shuffled:
        rows = rows.shuffle(seed=1, buffer_size=1, max_buffer_input_shards=1)
    whole = [row["text"] for row in rows]
    assert sorted(whole) == sorted(set(whole))
    hub.drop("/cdn/", after_bytes=500_000, times=3)
    hub.drop("/cdn/", after_bytes=300_000, times=1, reset=True)
    hub.answer("/cdn/", 503, 1)
    for shard in ("00000-of", "00002-of", "/01.", "/02."):
        hub.answer(shard, 520, 2)  # which the client takes for final
    found = [row["text"] for row in every_row(rows)]
    assert found == whole
    assert [fault.times for fault in hub.faults if "/cdn/" in fault.path_part] == [0, 0, 0]
    assert capsys.readouterr().out.count("asking again in") == 4


def test_rows_that_cannot_be_had_end_in_the_error_and_not_in_fewer_rows(hub, waits):
    hub.commit("dataset", "somebody/text", dict(jsonl_shards()))
    rows = load_dataset("somebody/text", split="train", streaming=True)
    hub.answer("/01.", 520, None)
    found = []
    with (
        pytest.raises(SaemakeError, match=r"the Hub is busy \(it answers 520"),
        reached("dataset 'somebody/text'", "datasets/somebody/text", "main", "go"),
    ):
        found += (row["text"] for row in every_row(rows))
    assert found == [f"shard 0, row {row}" for row in range(100)]
    assert waits == [1, 2, 4, 8, 16]


def test_what_is_no_failure_of_the_hub_is_not_asked_again(waits):
    def wrong():
        raise KeyError

    with pytest.raises(KeyError), reached("x", "y", "z", "go"):
        patiently(wrong)
    assert waits == []
    assert KeyError not in FAILURES


def streamed(name):
    refused = (DatasetNotFoundError,)
    with reached(f"dataset '{name}'", f"datasets/{name}", "main", "go", refused):
        load_dataset(name, split="train", streaming=True)


def test_a_gated_dataset_which_datasets_says_is_not_found(hub):
    hub.commit("dataset", "somebody/text", dict(jsonl_shards()))
    hub.gate("dataset", "somebody/text")
    page = f"{hub.endpoint}/datasets/somebody/text"
    said = f"dataset 'somebody/text' is gated: accept its terms on its Hub page ({page}), type"
    assert refusal(streamed, "somebody/text").startswith(f"{said} `hf auth login`")


def test_a_dataset_that_is_not_there(hub):
    assert "is not on the Hub, or private" in refusal(streamed, "somebody/text")


def test_a_lost_connection_says_the_way_out():
    def lose():
        with reached("dataset 'a/b'", "datasets/a/b", "main", "go"):
            raise ConnectionError("reset. by peer")

    assert refusal(lose) == "dataset 'a/b' cannot be reached (reset): go"
