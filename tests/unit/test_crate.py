"""`saemake crate`: the JSON-LD, what is named and not packed, how a crate is written, refusals."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT, raw_config
from huggingface_hub import constants

from saemake.__main__ import main
from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.commands.crate import _done
from saemake.commands.dry_run import Job
from saemake.config.checks import read
from saemake.publishing import crate_sources, crate_writing
from saemake.publishing.crate import Crate, Item, JobDone
from saemake.publishing.crate_graph import Graph, leaves, local
from saemake.records.made import By, Made

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAE = "results/demo/L3/top_k/1k/k_8"


def item(content: bytes, sum_: str | None = None) -> Item:
    return Item(content, sum_ or hashlib.sha256(content).hexdigest(), len(content))


def graph_of(graph: Graph) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in json.loads(graph.document())["@graph"]}


def started(graph: Graph) -> Graph:
    for id_ in ("ro-crate-metadata.json", "./"):
        graph.add(id_, "Thing")
    return graph


def record(recipe: dict) -> Made:
    return Made(sha256="", inputs={}, recipes={"a": By(hash="h", recipe=recipe)}, job={})


def test_the_same_entities_in_any_order_are_the_same_bytes():
    one, other = started(Graph()), started(Graph())
    one.add("b", "Thing", hasPart=[{"@id": "y"}, {"@id": "x"}, {"@id": "y"}])
    one.add("a", "Thing", name="a", nothing=None, empty=[])
    other.add("a", "Thing", name="a")
    other.add("b", "Thing", hasPart=[{"@id": "x"}, {"@id": "y"}])
    assert one.document() == other.document()
    assert graph_of(one)["a"] == {"@id": "a", "@type": "Thing", "name": "a"}


def test_a_list_of_one_is_written_without_the_list():
    graph = started(Graph())
    graph.add("a", "Thing", hasPart=[{"@id": "x"}])
    assert graph_of(graph)["a"]["hasPart"] == {"@id": "x"}


def test_a_value_is_one_entity_and_another_value_is_another():
    graph = Graph()
    assert graph.value("learning_rate", 0.001) == graph.value("learning_rate", 0.001)
    assert graph.value("learning_rate", 0.001) != graph.value("learning_rate", 0.002)
    assert graph.value("on", True) != graph.value("on", 1)
    assert graph.entities[graph.value("n", [1, None])["@id"]]["value"] == "[1, null]"


def test_settings_of_a_recipe():
    recipe = {"b": {"y": 2, "x": None}, "a": [1, 2], "c": 0}
    assert list(leaves(recipe)) == [("a", [1, 2]), ("b.y", 2), ("c", 0)]


def test_an_id_is_a_valid_uri():
    assert local("results/figures/my figure #1.pdf") == "results/figures/my%20figure%20%231.pdf"


def test_an_sae_comes_with_all_its_files_and_an_evaluation_alone():
    files = ["ae.pt", "config.json", "training.csv", "provenance.json"]
    outputs = [f"{SAE}/{file}" for file in files] + ["results/demo/L3/top_k/1k/k_2/ae.pt"]
    job = JobDone("train", "train.py", outputs, [f"{SAE}/ae.pt"], None, None)
    assert job.packed == outputs[:4]
    outputs = [f"{SAE}/metrics.json", f"{SAE}/dictionary_learning_latents.parquet"]
    job = JobDone("join", "join.py", outputs, outputs[:1], None, None)
    assert job.packed == outputs[:1]


def test_a_job_of_snakemake_has_its_times():
    job = Job(
        rule="train",
        message=lambda: "",
        runs=False,
        params_changed=False,
        inputs_before=[],
        script="train.py",
        started=1.0,
        ended=2.0,
        **{name: [] for name in ("inputs", "missing", "newer", "incomplete")},
        outputs=["a", "b"],
        needed=["a"],
    )
    assert _done(job) == JobDone("train", "train.py", ["a", "b"], ["a"], 1.0, 2.0)


def test_a_model_of_the_hub_is_its_commit(config, tmp_path, monkeypatch):
    """Its weights are named with checksums; its licence is that of the card in the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub = "EleutherAI/pythia-70m-deduped"
    folder = tmp_path / "cache" / f"models--{hub.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    path = "results/pythia-70m-deduped/model.json"
    Path(path).parent.mkdir(parents=True)
    described = {"model": "pythia-70m-deduped", "hub": hub, "revision": COMMIT}
    Path(path).write_text(json.dumps({**described, "sha256": {"model.safetensors": "aa"}}))
    graph = started(Graph())
    [ref] = crate_sources.read_with(graph, config, path, record({}))
    page = f"https://huggingface.co/{hub}"
    assert ref == {"@id": f"{page}/tree/{COMMIT}"}
    entities = graph_of(graph)
    file = entities[f"{page}/resolve/{COMMIT}/model.safetensors"]
    assert (file["@type"], file["sha256"], file["contentSize"]) == ("File", "aa", "7")
    licence = entities[entities[ref["@id"]]["license"]["@id"]]
    assert (licence["name"], licence["description"]) == ("apache-2.0", "as stated by its card")


def test_a_text_of_the_hub_is_its_commit_and_no_licence_is_guessed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    config = read(raw_config({"texts": {"pile": {"hub": "some/text"}}}), PROJECT, [])
    path = "results/gemma-2-2b/tokens/train/manifest.json"
    Path(path).parent.mkdir(parents=True)
    shard = {"file": "shard_00000.safetensors", "documents": 1, "tokens": 5, "sha256": "bb"}
    Path(path).write_text(json.dumps({"text_revision": COMMIT, "shards": [shard]}))
    graph = started(Graph())
    [ref] = crate_sources.made_from(graph, config, path, record({}))
    assert ref == {"@id": f"https://huggingface.co/datasets/some/text/tree/{COMMIT}"}
    [shards] = crate_sources.read_with(graph, config, path, record({}))
    entities = graph_of(graph)
    assert entities[shards["@id"]]["sha256"] == "bb"
    assert entities[ref["@id"]]["license"] == {"@id": "#license-not-stated"}


def test_a_mixture_is_the_texts_that_it_is_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    texts = {
        "far": {"hub": "some/text"},
        "both": {"mix": {"state-of-the-union": 9, "far": 1}},
    }
    over = {"texts": texts, "models": {"demo": {"text": "both"}}}
    config = read(raw_config(over), PROJECT, [])
    path = "results/demo/tokens/train/manifest.json"
    Path(path).parent.mkdir(parents=True)
    parts = [{"text_revision": None}, {"text_revision": COMMIT}]
    content = {"text_revision": COMMIT, "shards": [], "parts": parts}
    Path(path).write_text(json.dumps(content))
    recipe = {"mix": [{"text_content": "cc"}, {"text_content": None}]}
    graph = started(Graph())
    near, far = crate_sources.made_from(graph, config, path, record(recipe))
    assert graph_of(graph)[near["@id"]]["identifier"] == "cc"
    assert far == {"@id": f"https://huggingface.co/datasets/some/text/tree/{COMMIT}"}


def test_a_published_sae_is_named_with_the_files_that_were_fetched(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("published/demo/L3/top_k/1k/k_8")
    folder.mkdir(parents=True)
    source = {"repository": "a/b", "path": "x/trainer_0", "commit": COMMIT}
    (folder / "source.json").write_text(json.dumps({**source, "sha256": {"ae.pt": "cc"}}))
    graph = started(Graph())
    [ref] = crate_sources.made_from(graph, config, f"{folder}/ae.pt", record({}))
    assert ref == {"@id": f"https://huggingface.co/a/b/resolve/{COMMIT}/x/trainer_0/ae.pt"}
    assert graph_of(graph)[ref["@id"]]["sha256"] == "cc"


@pytest.mark.parametrize(
    ("front", "name"),
    [
        ("license: mit", "mit"),
        ("license: other\nlicense_name: llama3", "llama3"),
        ("license: [mit, gpl]", "not stated"),
        ("tags: [a]", "not stated"),
        ("license: {", "not stated"),
    ],
)
def test_the_licence_is_the_cards_or_is_not_stated(tmp_path, front, name):
    card = tmp_path / "README.md"
    card.write_text(f"---\n{front}\n---\n# A model\n")
    graph = Graph()
    licence = graph.entities[crate_sources._licence(graph, card)["@id"]]
    assert licence["name"] == name


def test_a_zip_has_the_files_of_a_folder_and_no_time(tmp_path):
    (tmp_path / "big").write_bytes(bytes(range(256)) * 1000)
    content = tmp_path / "big"
    items = {"a/b.txt": item(b"b"), "big": Item(content, sha256(content), 256_000)}
    for name in ("one.zip", "two.zip", "folder"):
        crate_writing.write(Crate(items), tmp_path / name)
        content.touch()
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a/b.txt", "big"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("big") == (tmp_path / "folder/big").read_bytes() == content.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "big",
        "folder",
        "one.zip",
        "two.zip",
    ]


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_a_file_that_is_not_as_its_record_says_leaves_nothing(tmp_path, name):
    items = {"a": item(b"a"), "results/b": item(b"edited", "0" * 64)}
    with pytest.raises(SaemakeError, match=r"results/b is damaged or edited: its sha256 is"):
        crate_writing.write(Crate(items), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_nothing_is_written_over(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SaemakeError, match="is there already; delete it, or name another place"):
        crate_writing.write(Crate({"a": item(b"a")}), tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "results/.store").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *words: str) -> str:
    assert main(["crate", *words]) == 2
    said: str = capsys.readouterr().err
    assert said.count("\n") == 1
    return said.removeprefix("saemake: ").rstrip("\n")


def test_what_is_not_built_is_said_in_a_line(folder, capsys):
    assert refused(capsys, "demo/L3/top_k/1k/k_8", "--to", "c.zip") == (
        f"{SAE}/metrics.json not built; build first: saemake build demo/L3/top_k/1k/k_8 (with the"
        " options of your run)"
    )
    assert not (folder / "c.zip").exists()


def test_a_misspelt_target_is_refused(folder, capsys):
    said = refused(capsys, "demo/L3/topk/1k", "--to", "c")
    assert said.endswith("no architecture 'topk' in the config; did you mean 'top_k'?")


def test_a_place_among_built_files_is_refused(folder, capsys):
    said = refused(capsys, "demo/L3/top_k/1k", "--to", "results/crate")
    assert "is in a folder of built files; name a place outside of results, hub," in said
