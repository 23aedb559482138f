"""Models and texts on the Hub: the real client against a local server that answers as the Hub."""

import http.server
import json
import threading
from typing import ClassVar

import pytest
from conftest import DEMO_LM

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "results/hubbed/model.json"


class Hub(http.server.BaseHTTPRequestHandler):
    """Enough of the Hub for one model: its listing, its files, and the ways it says no."""

    gated: ClassVar[bool] = False
    served: ClassVar[list[str]] = []

    def say(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.served.append(path)
        authorised = self.headers.get("Authorization") == "Bearer hf_right"
        if not path.removeprefix("/api/models").startswith("/somebody/lm/"):
            self.say(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif self.gated and not authorised:
            self.say(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif path.endswith("/revision/moved"):
            self.say(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        elif path.startswith("/api/models/somebody/lm/revision/"):
            files = [{"rfilename": file.name} for file in DEMO_LM.iterdir()]
            info = {"id": "somebody/lm", "sha": COMMIT, "siblings": files, "tags": []}
            self.say(200, json.dumps(info).encode())
        elif path.startswith("/api/models/somebody/lm/tree/"):
            files = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f"{i:040d}"}
                for i, f in enumerate(DEMO_LM.iterdir())
            ]
            self.say(200, json.dumps(files).encode())
        elif "/resolve/" in path and (DEMO_LM / path.rsplit("/", 1)[1]).exists():
            body = (DEMO_LM / path.rsplit("/", 1)[1]).read_bytes()
            self.say(200, body, ETag=f'"{hash(body):x}"', X_Repo_Commit=COMMIT)
        else:
            self.say(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def workflow(fresh):
    return fresh


@pytest.fixture
def hub(workflow):
    Hub.gated, Hub.served = False, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(workflow.folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
    }
    server.shutdown()


def configure(workflow, hub_id="somebody/lm", **more):
    model = {
        "hub": hub_id,
        "layers": 6,
        "dtype": "float32",
        "text": "state-of-the-union",
        "context_tokens": 256,
        "llm_batch_contexts": 32,
        "buffer_tokens": 8192,
        "train_tokens": 20_480,
        "evaluations": {
            "dictionary_learning": {"documents": 10},
            "sae_bench_core": {
                "text": "state-of-the-union",
                "batch_contexts": 8,
                "reconstruction_batches": 1,
                "variance_batches": 1,
            },
        },
        "baselines": {"pca_tokens": 2_048},
        "training": {"batch_tokens": 512, "norm_batches": 2, "warmup_steps": 5, "cpu_threads": 1},
        "architectures": {
            "top_k": {"sweep": [4], "threshold_start_step": 10},
        },
        "suite": {"layers": [3], "architectures": ["top_k"], "widths": ["256"]},
        **more,
    }
    workflow.configure({"models": {"hubbed": model}})


def test_a_hub_model_goes_the_whole_way_and_training_needs_no_network(workflow, hub):
    configure(workflow)
    workflow.succeed("results/hubbed/tokens/train/manifest.json", **hub)
    described = json.loads(workflow.read(MODEL))
    assert (described["hub"], described["revision"]) == ("somebody/lm", COMMIT)
    offline = {**hub, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    workflow.succeed("results/hubbed/L3/top_k/256/k_4/dictionary_learning.json", **offline)
    config = json.loads(workflow.read("results/hubbed/L3/top_k/256/k_4/config.json"))
    assert config["trainer"]["lm_name"] == "somebody/lm"


def test_the_readme_and_other_files_are_not_fetched(workflow, hub):
    configure(workflow)
    workflow.succeed(MODEL, **hub)
    assert not any(path.endswith("README.md") for path in Hub.served)


def test_a_gated_model_without_a_token(workflow, hub):
    Hub.gated = True
    configure(workflow)
    output = workflow.fail(MODEL, **hub)
    assert "saemake: model 'somebody/lm' is gated: accept its terms" in output
    assert "type `hf auth login`" in output


def test_a_gated_model_with_a_token_and_the_token_is_nowhere(workflow, hub):
    Hub.gated = True
    configure(workflow)
    output = workflow.succeed(MODEL, **{**hub, "HF_TOKEN": "hf_right"})
    assert "hf_right" not in output
    for folder in ("results", "logs"):
        for path in (workflow.folder / folder).rglob("*"):
            assert path.is_dir() or b"hf_right" not in path.read_bytes()


def test_a_model_that_is_not_there(workflow, hub):
    configure(workflow, "somebody/ml")
    output = workflow.fail(MODEL, **hub)
    assert "saemake: model 'somebody/ml' is not on the Hub, or private" in output


def test_a_revision_that_is_not_there(workflow, hub):
    configure(workflow, revision="moved")
    output = workflow.fail(MODEL, **hub)
    assert "model 'somebody/lm' has no revision 'moved'" in output


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_model_that_cannot_be_reached(workflow, hub, offline):
    configure(workflow)
    nowhere = {**hub, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline}
    output = workflow.fail(MODEL, **nowhere)
    assert "saemake: model 'somebody/lm' cannot be reached (" in output
    assert "type `hf download somebody/lm --revision main`" in output


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_text_that_cannot_be_reached(workflow, hub, offline):
    workflow.configure(
        {
            "texts": {"far": {"hub": "somebody/text", "evaluation_split": "test"}},
            "models": {"demo": {"text": "far"}},
        }
    )
    nowhere = {**hub, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline}
    output = workflow.fail("results/demo/tokens/train/manifest.json", **nowhere)
    assert "saemake: dataset 'somebody/text' cannot be reached (" in output
    assert "type `snakemake results/demo/tokens/train/manifest.json` where there is" in output
