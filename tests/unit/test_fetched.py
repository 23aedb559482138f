"""What is fetched for a model by one name, what of it is gone, and what says how to fetch it."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from hub_server import LocalHub

from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.inputs import cached, datasets, weights
from saemake.jobs import fetched, turns
from saemake.paths.artifacts import FetchedFile
from saemake.paths.files import asks_judges, fetched_files, fetched_published_files, runs_sae_bench
from saemake.plan.work import Fetch, FetchData, Tokenise, behind

NINE = yaml.safe_load((PROJECT / "config" / "nine.yaml").read_text())
GEMMA = "gemma-2-2b"
MODEL, DATASET = "results/demo/model.json", "datasets/LabHC/bias_in_bios.json"


def tokens(model: str, *uses: str) -> list[str]:
    return [f"results/{model}/tokens/{use}/manifest.json" for use in uses]


def test_a_suite_on_texts_needs_its_model_and_tokens(config: Config) -> None:
    uses = ("train", "dictionary_learning", "sae_bench_core")
    assert fetched_files(config, "demo") == [MODEL, *tokens("demo", *uses)]
    assert not runs_sae_bench(config, "demo")


def test_the_text_of_the_pages_is_fetched_where_the_suite_does_not_judge_on_it() -> None:
    over = {"models": {"demo": {"suite": {"evaluations": ["sae_bench_core"]}}}}
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    uses = ("train", "sae_bench_core", "dictionary_learning")
    assert fetched_files(config, "demo") == [MODEL, *tokens("demo", *uses)]


def test_a_suite_of_sae_bench_needs_its_data_and_the_lm_that_it_asks() -> None:
    config = read(raw_config(NINE), PROJECT, [CONFIG_FILE])
    files = fetched_files(config, GEMMA)
    assert f"results/{GEMMA}-it/model.json" in files  # of unlearning
    data = {data for name in config.suite_evaluations(GEMMA) for data in _read_by(config, name)}
    assert data
    assert {f"datasets/{name}.json" for name in data} == {f for f in files if "datasets/" in f}
    assert runs_sae_bench(config, GEMMA)
    assert asks_judges(config, GEMMA) == ["sae_bench_autointerp"]
    planned = behind(config, [f"fetched/{GEMMA}.ok"])
    assert Fetch(GEMMA) in planned
    assert Tokenise(GEMMA, "train") in planned
    assert {FetchData(name) for name in data} < {*planned}
    assert turns.touched(config, [f"fetched/{GEMMA}.ok"]) == [GEMMA, f"{GEMMA}-it"]


def _read_by(config: Config, name: str) -> list[str]:
    by_bench = name in config.sae_bench_evaluations
    return config.sae_bench_datasets(GEMMA, name) if by_bench else []


def test_published_saes_are_apart_since_they_are_large(config: Config) -> None:
    files = fetched_published_files(config, GEMMA)
    weights_ = [file for file in files if file.endswith("/ae.pt")]
    assert len(weights_) == 126
    assert len([file for file in files if "repositories/" in file]) == 3
    assert not {*files} & {*fetched_files(config, GEMMA)}
    assert turns.touched(config, [f"fetched/{GEMMA}/published.ok"]) == ["_published", GEMMA]
    nine = read(raw_config(NINE), PROJECT, [CONFIG_FILE])
    (results,) = {*fetched_published_files(nine, GEMMA)} - {*files}
    assert results == f"datasets/{config.published.results}.json"


def rows() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"hard_text": ["a", "b"]}), content)
    return content.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the demo's LM and a dataset, both fetched as their jobs do."""
    monkeypatch.chdir(tmp_path)
    with LocalHub() as local, local.inside(tmp_path / "hf"):
        local.commit("model", "somebody/lm", {p.name: p.read_bytes() for p in DEMO_LM.iterdir()})
        local.commit("dataset", "somebody/bios", {"README.md": b"#", "data/a.parquet": rows()})
        config, revisions = configured(), Store(Path("results/.store"), "revisions")
        data = datasets.fetch(config, "LabHC/bias_in_bios", revisions.beside("datasets"))
        for path, content in (
            (MODEL, weights.fetch(config, "demo", revisions)),
            (DATASET, data),
        ):
            Path(path).parent.mkdir(parents=True)
            Path(path).write_text(json.dumps(content))
        yield local


def configured() -> Config:
    bios = {"hub": "somebody/bios", "files": ["README.md", "data/*"]}
    raw = raw_config({"datasets": {"LabHC/bias_in_bios": bios}})
    raw["models"]["demo"] |= {"hub": "somebody/lm", "folder": None}
    return read(raw, PROJECT, [])


def of_cache(name: str) -> list[Path]:
    """The links in the cache to a file of a repository."""
    return [path for path in Path("hf").rglob(name) if path.is_symlink()]


@pytest.mark.parametrize(("path", "file"), [(MODEL, "model.safetensors"), (DATASET, "a.parquet")])
def test_a_file_that_is_gone_from_the_cache_is_fetched_again(hub, path, file) -> None:
    config = configured()
    assert cached.gone(config, [MODEL, DATASET, *tokens("demo", "train")]) == []
    (link,) = of_cache(file)
    link.resolve().unlink()  # as an unfinished download, or a cache that was cleaned
    link.unlink()
    assert cached.gone(config, [MODEL, DATASET]) == [path]
    fetched.of_published(config, [MODEL, DATASET], "out.ok")
    assert cached.gone(config, [MODEL, DATASET]) == []
    (link,) = of_cache(file)
    assert link.is_file()
    commits = {MODEL: hub.commits("model", "somebody/lm")[0]}
    commits[DATASET] = hub.commits("dataset", "somebody/bios")[0]
    assert json.loads(Path("out.ok").read_text()) == commits


def test_what_is_gone_and_cannot_be_fetched_is_one_line_with_the_command(hub, monkeypatch) -> None:
    config = configured()
    shutil.rmtree("hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert cached.gone(config, [MODEL, DATASET]) == [MODEL, DATASET]
    commit = hub.commits("model", "somebody/lm")[0]
    for path, command in (
        (MODEL, f"`saemake build {FetchedFile('demo')}` or `hf download somebody/lm --revision"),
        (DATASET, "`hf download somebody/bios --repo-type dataset --revision "),
    ):
        with pytest.raises(SaemakeError) as raised:
            fetched.of_published(config, [path], "out.ok")
        said = str(raised.value)
        assert "\n" not in said
        assert f"where there is a network, type {command}" in said
        assert commit in said or path == DATASET
    assert not Path("out.ok").exists()
