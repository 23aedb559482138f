"""`saemake.load` with the LM and the metrics, and `saemake.sweep`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import DEMO_LM
from transformers import AutoModelForCausalLM, AutoTokenizer

import saemake
from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.training import files

TEXT = "The state of the Union is strong"
SAE = "results/demo/L3/top_k/64/k_4"
TRAINER = {
    "trainer_class": "TopKTrainer",
    "dict_class": "AutoEncoderTopK",
    "activation_dim": 128,
    "dict_size": 64,
    "k": 4,
    "layer": 3,
    "lm_name": "demo",
}


def lm_record(folder, **more):
    """What provenance.json says of an LM."""
    sums = {path.name: sha256(path) for path in Path(folder).iterdir() if path.suffix == ".json"}
    return {"hub": None, "revision": None, "sha256": sums, **more}


def write(folder, trainer=TRAINER, lm=None, prepend_bos=False):
    """The files of an SAE of the demo's LM, untrained."""
    folder.mkdir(parents=True)
    dictionary = architectures.get("top_k").trainer().make_dictionary(trainer)
    with torch.no_grad():
        torch.manual_seed(0)
        for parameter in dictionary.parameters():
            parameter.normal_()
    (folder / "ae.pt").write_bytes(files.sae_bytes(dictionary))
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    model = {"dtype": "float32", "gguf_file": None}
    recipe = {"tokens": {"model": model, "prepend_bos": prepend_bos}}
    record = {"lm": lm or lm_record(DEMO_LM), "recipe": recipe}
    record["ae_sha256"] = sha256(folder / "ae.pt")
    (folder / "provenance.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path(SAE))
    return Path(SAE)


def test_the_latents_of_a_text_are_those_of_the_lms_own_residual_stream(folder):
    sae = saemake.load(folder)
    seen = sae.activations(TEXT)
    model, tokenizer = sae.lm()
    tokens = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        x = model(**tokens, output_hidden_states=True).hidden_states[4][0]
    assert seen.ids == tokens["input_ids"][0].tolist()
    assert "".join(seen.tokens) == TEXT
    torch.testing.assert_close(seen.x, x, rtol=1e-5, atol=1e-4)
    assert seen.f.equal(sae.encode(seen.x))
    top = seen.top(2)
    assert len(top) == 2 * len(seen.ids)
    for row in top.itertuples():
        assert seen.f[row.position, row.latent] == row.activation
        assert row.token == seen.tokens[row.position]
    assert list(top["activation"][:2]) == seen.f[0].topk(2).values.tolist()
    assert list(seen.of(5)["activation"]) == seen.f[:, 5].tolist()


def test_latents_that_are_0_are_not_among_the_top(folder):
    assert len(saemake.load(folder).activations("We").top(64)) <= 4


def test_bos_comes_first_where_the_training_text_had_it(tmp_path):
    write(tmp_path / "sae", prepend_bos=True)
    seen = saemake.load(tmp_path / "sae").activations(TEXT)
    assert seen.ids[0] == AutoTokenizer.from_pretrained(DEMO_LM).eos_token_id
    assert "".join(seen.tokens[1:]) == TEXT


def test_an_lm_that_moved_is_given_by_its_folder(tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(DEMO_LM, moved)
    write(tmp_path / "sae", {**TRAINER, "lm_name": "mine"})
    sae = saemake.load(tmp_path / "sae")
    with pytest.raises(SaemakeError, match=r"its LM 'mine' was a local folder.*sae\.lm\('FOLDER'"):
        sae.lm()
    assert type(sae.lm(moved).model).__name__ == "GPTNeoXForCausalLM"
    # It is remembered.
    assert sae.activations(TEXT).x.shape[1] == 128
    again = saemake.load(tmp_path / "sae")
    assert again.activations(TEXT, moved).x.shape[1] == 128
    assert type(again.lm().model).__name__ == "GPTNeoXForCausalLM"


def test_another_lm_is_refused(tmp_path):
    write(tmp_path / "sae")
    sae = saemake.load(tmp_path / "sae")
    other = tmp_path / "other"
    shutil.copytree(DEMO_LM, other)
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    with pytest.raises(SaemakeError, match=r"other: not the LM that .*its tokenizer\.json differs"):
        sae.lm(other)
    # Nothing says which LM it was, but its width does.
    write(tmp_path / "narrow", {**TRAINER, "activation_dim": 16}, lm={"sha256": {}})
    with pytest.raises(SaemakeError, match="it is 128 wide with 6 layers, and the SAE reads layer"):
        saemake.load(tmp_path / "narrow").lm(DEMO_LM)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SaemakeError, match="empty: holds no LM"):
        sae.lm(tmp_path / "empty")


def test_a_text_without_tokens_is_refused(folder):
    with pytest.raises(SaemakeError, match="the text has no token"):
        saemake.load(folder).activations("")


def test_an_sae_that_was_not_read_from_files_has_no_lm():
    dictionary = architectures.get("top_k").trainer().make_dictionary(TRAINER)
    with pytest.raises(SaemakeError, match=r"not read from files; saemake\.load reads one"):
        dictionary.lm()


def rows(*ways, name="demo/L3/top_k/64/k_4"):
    return [
        {
            "name": name,
            "width": "64",
            "inference": way,
            "sae_bench_core": {"l0": 4.0 + place},
            "evaluations": {"sae_bench_core": {"split": "validation"}},
        }
        for place, way in enumerate(ways)
    ]


def test_metrics_are_those_of_the_way_of_choosing_latents(folder):
    (folder / "metrics.json").write_text(json.dumps(rows("top_k", "threshold")))
    assert saemake.load(folder).metrics["sae_bench_core"]["l0"] == 4
    assert saemake.load(folder, inference="threshold").metrics["sae_bench_core"]["l0"] == 5


def test_metrics_of_another_way_are_not_given(folder):
    (folder / "metrics.json").write_text(json.dumps(rows("threshold")))
    with pytest.raises(SaemakeError, match=r"has no row of ae\.pt, its latents chosen by top_k"):
        _ = saemake.load(folder).metrics
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(SaemakeError, match=r"has no row of ae\.pt"):
        _ = saemake.load(folder).metrics


def test_an_sae_of_links_has_what_lies_beside_them(folder, tmp_path):
    """As in the Hub's cache."""
    (folder / "metrics.json").write_text(json.dumps(rows("top_k")))
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file.absolute())
    sae = saemake.load(linked)
    assert sae.metrics["sae_bench_core"]["l0"] == 4
    assert sae.origin.provenance["recipe"]


def test_metrics_that_are_not_built_are_told(folder):
    with pytest.raises(SaemakeError, match=r"k_4/metrics\.json: not there; build it"):
        _ = saemake.load(folder).metrics


def test_a_sweep_is_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pca = {**rows(None, name="demo/L3/baselines/pca")[0], "width": None}
    for kind in ("top_k", "gated"):
        place = tmp_path / "results/demo/L3" / kind / "64"
        place.mkdir(parents=True)
        content = [*rows("top_k", "threshold", name=f"demo/L3/{kind}/64/k_4"), pca]
        (place / "metrics.json").write_text(json.dumps(content))
    table = saemake.sweep("results/demo/L3/*/64")
    assert list(table["name"]) == [
        *["demo/L3/gated/64/k_4"] * 2,
        "demo/L3/baselines/pca",
        *["demo/L3/top_k/64/k_4"] * 2,
    ]
    assert list(table.columns) == ["name", "width", "inference", "sae_bench_core.l0"]
    assert list(table.index) == list(range(5))
    one = saemake.sweep("results/demo/L3/gated/64/metrics.json", "results/demo/L3/gated/64")
    assert len(one) == 3
    # Of another project: SAEs of the same names, other figures.
    other = tmp_path / "other"
    other.mkdir()
    changed = (tmp_path / "results/demo/L3/gated/64/metrics.json").read_text().replace("4.0", "7.0")
    (other / "metrics.json").write_text(changed)
    assert len(saemake.sweep("results/demo/L3/gated/64", other)) == 3 + 2  # that differ


def test_a_sweep_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SaemakeError, match="no such file or folder; build it, `saemake build"):
        saemake.sweep(tmp_path / "none")
    with pytest.raises(SaemakeError, match=r"it has no metrics\.json; name the folder of a sweep"):
        saemake.sweep(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SaemakeError, match=r"config\.json: not a table of SAEs"):
        saemake.sweep(tmp_path / "config.json")
    (tmp_path / "metrics.json").write_text("[")
    with pytest.raises(SaemakeError, match=r"metrics\.json: cannot be read"):
        saemake.sweep(tmp_path)


def test_the_lm_is_the_projects_own(folder):
    ours = saemake.load(folder).lm().model.state_dict()
    own = AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32).state_dict()
    assert all(ours[name].equal(own[name]) for name in own)
