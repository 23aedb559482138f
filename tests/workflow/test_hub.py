"""Models and texts on the Hub: real jobs and the real client, against a Hub on this machine."""

import io
import json
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import DEMO_LM, PROJECT, Workflow, copied
from hub_server import LocalHub

# One worker's: what they share is built once.
LM, TEXT = "somebody/lm", "somebody/text"
MODEL = "results/hubbed/model.json"
TOKENS = "results/hubbed/tokens/train/manifest.json"
JUDGED_ON = "results/hubbed/tokens/dictionary_learning/manifest.json"
NOWHERE = "http://127.0.0.1:9"


def parquet(documents):
    """The documents beside an image each, in groups of rows as the Hub's own shards have them."""
    noise = random.Random(0)
    images = [noise.randbytes(100_000) for _ in documents]
    content = io.BytesIO()
    table = pa.table({"text": documents, "image": images})
    pq.write_table(table, content, row_group_size=10, compression="none")
    return content.getvalue()


def text_files():
    """The beginning of the demo's text, as a dataset on the Hub has it."""
    files = {}
    for split, shards in (("train", 5), ("validation", 1)):
        packed = PROJECT.joinpath(f"resources/demo/text/{split}.jsonl.zst").read_bytes()
        with zstandard.ZstdDecompressor().stream_reader(packed) as lines:
            rows = [json.loads(line)["text"] for line in io.TextIOWrapper(lines)][: 30 * shards]
        for shard in range(shards):
            documents = rows[30 * shard : 30 * (shard + 1)]
            files[f"data/{split}-{shard:05d}-of-{shards:05d}.parquet"] = parquet(documents)
    return files


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as local:
        yield local


@pytest.fixture(autouse=True)
def _whole(hub):
    hub.mend()


def environment(hub, workflow):
    return hub.environment(workflow.folder / "hf")


def configure(workflow, repository=LM, demo_text="state-of-the-union"):
    model = {
        "hub": repository,
        "layers": 6,
        "dtype": "float32",
        "text": "far",
        "context_tokens": 256,
        "llm_batch_contexts": 32,
        "buffer_tokens": 8192,
        "train_tokens": 20_480,
        "evaluations": {"dictionary_learning": {"documents": 10}},
        "training": {"batch_tokens": 512, "norm_batches": 2, "warmup_steps": 5, "cpu_threads": 1},
        "architectures": {"top_k": {"sweep": [4], "threshold_start_step": 10}},
        "suite": {"layers": [3], "architectures": ["top_k"], "widths": ["256"]},
    }
    far = {"hub": TEXT, "evaluation_split": "validation"}
    models = {"hubbed": model, "demo": {"text": demo_text}}
    workflow.configure({"texts": {"far": far}, "models": models})


@pytest.fixture
def fetching(fresh):
    configure(fresh)
    return fresh


@pytest.fixture(scope="module")
def quiet(hub, tmp_path_factory):
    """The tokens that a model's SAEs are trained on, fetched without a fault. Not to be changed."""
    hub.commit("model", LM, {path.name: path.read_bytes() for path in DEMO_LM.iterdir()})
    hub.commit("dataset", TEXT, text_files())
    made = Workflow(tmp_path_factory.mktemp("quiet"))
    configure(made)
    made.succeed(TOKENS, **environment(hub, made))
    return made


def shards(workflow):
    manifest = workflow.folder / TOKENS
    return {path.name: path.read_bytes() for path in manifest.parent.iterdir()}


def test_tokens_are_the_same_whatever_breaks_on_the_way(hub, quiet, fetching):
    hub.answer("/api/models/", 429, 1, retry_after=1)
    hub.answer("/api/datasets/", 503, 1, retry_after=0)
    hub.drop("00001-of", after_bytes=1_000_000, times=2)
    hub.drop("00002-of", after_bytes=500_000, times=1, reset=True)
    hub.answer("00003-of", 520, 1)  # which the client takes for final
    hub.requests.clear()
    output = fetching.succeed(TOKENS, **environment(hub, fetching))
    assert [fault.times for fault in hub.faults] == [0] * 5
    assert output.count("saemake: the Hub: ") == 3
    assert shards(fetching) == shards(quiet)
    manifest = json.loads(fetching.read(TOKENS))
    assert manifest["rows_read"] > 90  # in the fourth shard
    assert manifest["text_revision"] == hub.commits("dataset", TEXT)[0]


def test_a_branch_that_moves_on_is_read_where_it_was_and_training_needs_no_network(
    hub, quiet, tmp_path
):
    workflow = copied(quiet, tmp_path)
    commits = {
        kind: hub.commits(kind, name)[0] for kind, name in (("model", LM), ("dataset", TEXT))
    }
    moved = {hub.commit("model", LM, {"config.json": b"{}"}, "moved")}
    validation = "data/validation-00000-of-00001.parquet"
    moved.add(hub.commit("dataset", TEXT, {validation: parquet(["other"] * 30)}, "moved"))
    shutil.rmtree(tmp_path / "hf")  # the client's cache
    hub.requests.clear()
    workflow.succeed(JUDGED_ON, **environment(hub, workflow))
    assert json.loads(workflow.read(MODEL))["revision"] == commits["model"]
    assert json.loads(workflow.read(JUDGED_ON))["text_revision"] == commits["dataset"]
    assert not [path for _, path, _ in hub.requests if any(commit in path for commit in moved)]
    offline = {**environment(hub, workflow), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": NOWHERE}
    workflow.succeed("results/hubbed/L3/top_k/256/k_4/dictionary_learning.json", **offline)
    config = json.loads(workflow.read("results/hubbed/L3/top_k/256/k_4/config.json"))
    assert config["trainer"]["lm_name"] == LM


def test_a_gated_model_without_a_token_and_with_one_that_is_kept_nowhere(hub, quiet, fetching):
    hub.commit("model", "somebody/gated", hub.files("model", LM, hub.commits("model", LM)[0]))
    hub.gate("model", "somebody/gated")
    hub.grant("hf_secret", "reader", may_read={"somebody/gated"})
    configure(fetching, "somebody/gated")
    asked = environment(hub, fetching)
    output = fetching.fail(MODEL, **asked)
    page = f"{hub.endpoint}/somebody/gated"
    said = f"saemake: model 'somebody/gated' is gated: accept its terms on its Hub page ({page}), "
    assert said + "type `hf auth login`" in output
    output = fetching.succeed(MODEL, **{**asked, "HF_TOKEN": "hf_secret"})
    assert "hf_secret" not in output
    kept = [path for path in fetching.folder.rglob("*") if path.is_file()]
    assert fetching.folder / MODEL in kept
    assert not [path for path in kept if b"hf_secret" in path.read_bytes()]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_model_and_a_text_that_cannot_be_reached(hub, fetching, offline):
    configure(fetching, demo_text="far")
    tokens = "results/demo/tokens/train/manifest.json"
    nowhere = {"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": offline}
    output = fetching.fail(MODEL, tokens, **{**environment(hub, fetching), **nowhere})
    assert f"saemake: model '{LM}' cannot be reached (" in output
    assert f"type `saemake build fetched/hubbed.ok` or `hf download {LM} --revision main`" in output
    assert f"saemake: dataset '{TEXT}' cannot be reached (" in output
    assert f"type `saemake build fetched/demo.ok` or `snakemake {tokens}`" in output
