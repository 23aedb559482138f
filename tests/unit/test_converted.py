"""A GGUF file's weights are converted once, and later jobs load these: the same to the bit."""

import argparse
import json

import pytest
import tiny_gguf
import torch
from conftest import PROJECT, raw_config

from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.commands import store as store_command
from saemake.config.checks import read
from saemake.config.depth import layers_of
from saemake.inputs import converted, weights
from saemake.jobs.inputs import fetch_model
from saemake.llm import loading
from saemake.llm.depth import blocks_in
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.paths.names import CONVERTED, STORE
from saemake.text.shards import Contexts

CPU = torch.device("cpu")
FILE = "tiny.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("gguf")
    tiny_gguf.write(made / FILE)
    return made


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(folder, **over):
    raw = raw_config()
    demo = {key: value for key, value in raw["models"]["demo"].items() if key != "layers"}
    own = {"folder": str(folder), "gguf_file": FILE, "context_tokens": 64, **over}
    raw["models"]["tiny"] = {**demo, **own, "suite": {**demo["suite"], "layers": [1]}}
    return read(raw, PROJECT, [])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_converted_weights_are_the_files_to_the_bit(folder, inside, dtype):
    config = configured(folder, dtype=dtype)
    fetch_model(config, "tiny", "model.json")
    kept, described = weights.read(config, inside / "model.json")
    assert described["layers"] == layers_of(config, "tiny") == tiny_gguf.LAYERS
    assert kept.converted is not None
    assert kept.converted.parent == STORE / CONVERTED
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in kept.converted.iterdir())
    direct = weights.locate(config, "tiny", None)
    assert direct.converted is None
    ids_BL = torch.randint(0, tiny_gguf.VOCABULARY, (2, 16), generator=torch.manual_seed(0))
    contexts = Contexts(ids_BL, torch.ones_like(ids_BL))
    found = []
    for each in (direct, kept):
        lm = LanguageModel(each, Hookpoint(1), CPU, whole=True)
        run = lm.run(contexts)
        hidden, logits = run.written_BLD, run.logits
        found.append([hidden, *logits, *loading.load(each, CPU).state_dict().values()])
    assert len(found[0]) == len(found[1])
    assert all(a.equal(b) and a.dtype == b.dtype for a, b in zip(*found, strict=True))


def conversions(config, inside, capsys):
    """How many times reading the model converts."""
    capsys.readouterr()
    weights.read(config, inside / "model.json")
    return capsys.readouterr().err.count("converting tiny.gguf to safetensors, once")


def test_conversion_is_done_again_only_where_it_is_gone_or_damaged(folder, inside, capsys):
    config = configured(folder)
    fetch_model(config, "tiny", "model.json")
    assert conversions(config, inside, capsys) == 0
    store = Store(STORE, CONVERTED)
    (key,) = store.entries()
    file = store.folder / key / "model.safetensors"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"!")
    assert conversions(config, inside, capsys) == 1
    assert file.read_bytes() == before
    store.drop(key)
    assert conversions(config, inside, capsys) == 1
    assert file.read_bytes() == before
    assert conversions(config, inside, capsys) == 0


def test_another_file_or_dtype_is_another_entry(folder, tmp_path):
    tiny_gguf.write(tmp_path / FILE, seed=1)
    configs = [configured(folder), configured(folder, dtype="bfloat16"), configured(tmp_path)]
    assert len({converted.converted_key(config, "tiny") for config in configs}) == 3


def test_pruning_keeps_what_the_config_names(folder, inside, capsys):
    config = configured(folder)
    fetch_model(config, "tiny", "model.json")
    store = Store(STORE, CONVERTED)
    (key,) = store.entries()
    store.put("another", {"config.json": b"{}"})
    store_command.run(config, argparse.Namespace(prune=True, push=False, yes=True))
    assert store.entries() == [key]


def test_the_blocks_of_a_gguf_file_are_read_without_loading_it(folder, tmp_path):
    assert blocks_in(folder, FILE) == tiny_gguf.LAYERS
    (tmp_path / "other").write_bytes(b"GGML and more")
    with pytest.raises(SaemakeError, match=r"other: not valid GGUF \(it does not begin with GGUF"):
        blocks_in(tmp_path, "other")
    (tmp_path / "cut").write_bytes((folder / FILE).read_bytes()[:40])
    with pytest.raises(SaemakeError, match="cut: not valid GGUF"):
        blocks_in(tmp_path, "cut")
    with pytest.raises(SaemakeError, match="none: not there"):
        blocks_in(tmp_path, "none")


def test_the_blocks_of_config_json_are_under_any_familys_key(tmp_path):
    contents = {
        "llama": {"num_hidden_layers": 3},
        "gpt2": {"n_layer": 4},
        "mpt": {"n_layers": 5},
        "images": {"vision_config": {"num_hidden_layers": 9}, "text_config": {"num_layers": 6}},
        "silent": {"hidden_size": 7},
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    assert [blocks_in(tmp_path / name, None) for name in contents] == [3, 4, 5, 6, None]
