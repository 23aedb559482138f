"""`saemake.load`: what it gives of every architecture, and what it says where there is none."""

import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from unit.test_architectures import data, make

import saemake
from saemake import architectures
from saemake.architectures.trainer import Dictionary
from saemake.base.errors import SaemakeError
from saemake.training import files

SAE = "results/demo/L3/top_k/1k/k_3"


def write(folder: Path, name: str = "top_k", **more) -> torch.nn.Module:
    """An SAE's ae.pt and config.json after a few steps; the dictionary."""
    trainer = make(name, **more)
    for step, x in enumerate(data(20)):
        trainer.update(step, x)
    dictionary = trainer.finished(scale=2.0).eval().requires_grad_(False)
    folder.mkdir(parents=True)
    config = {"trainer": {**trainer.trainer_config(), "layer": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ae.pt").write_bytes(files.sae_bytes(dictionary))
    return dictionary


@pytest.fixture
def sae(tmp_path, monkeypatch):
    """Two SAEs of a sweep below the working directory; the folder of one."""
    monkeypatch.chdir(tmp_path)
    write(Path(SAE))
    write(Path(SAE).with_name("k_30"))
    return Path(SAE)


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_is_read_back_from_its_files_alone(name, tmp_path):
    wrote = write(tmp_path / "sae", name)
    sae = saemake.load(tmp_path / "sae")
    assert type(sae) is type(wrote)
    assert sae.config["trainer"]["layer"] == 3
    assert not sae.training
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    x = 2 * next(data(1))
    assert sae.encode(x).equal(wrote.encode(x))
    assert sae.decode(sae.encode(x)).equal(wrote.decode(wrote.encode(x)))
    ways = architectures.get(name).inferences_of(sae.config["trainer"])
    assert sae.inference == next(iter(ways), None)
    for way in ways:
        wrote.inference = way
        chosen = saemake.load(str(tmp_path / "sae" / "ae.pt"), inference=way, device="cpu")
        assert chosen.inference == way
        assert chosen.encode(x).equal(wrote.encode(x))


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_activations_of_any_dtype_are_encoded_in_float32(name, dtype, tmp_path):
    write(tmp_path / "sae", name)
    sae, x = saemake.load(tmp_path / "sae"), (2 * next(data(1))).to(dtype)
    f = sae.encode(x)
    assert f.dtype == sae.decode(f).dtype == torch.float32
    torch.testing.assert_close(f, sae.encode(x.float()))
    contexts = x.view(4, 8, 16)
    assert sae.encode(contexts).shape == (4, 8, sae.width)
    assert sae.encode(x[0]).shape == (sae.width,)


def test_gradients_of_activations_pass_through(sae):
    x = (2 * next(data(1))).requires_grad_(True)
    loaded = saemake.load(sae)
    loaded.decode(loaded.encode(x)).sum().backward()
    assert x.grad.any()


def test_a_checkpoint_has_its_own_k_and_the_saes_config(sae):
    trainer = make("top_k", k_anneal_steps=10)
    for step, x in enumerate(data(4)):
        trainer.update(step, x)
    at = sae / "checkpoints" / "ae_4.pt"
    at.parent.mkdir()
    at.write_bytes(files.sae_bytes(trainer.dictionary))
    assert saemake.load(at).kept == trainer.dictionary.kept == 13
    assert saemake.load(at).config == saemake.load(sae).config
    with pytest.raises(SaemakeError, match=r"the SAEs below it are ae_4\.pt$"):
        saemake.load(at.parent)


def test_dictionary_learnings_own_layout_and_names_are_read(tmp_path):
    """A trainer that is none of ours, of a dictionary that is; without what only we write."""
    folder = tmp_path / "hub/somebody/saes/resid_post_layer_3/trainer_0"
    wrote = write(folder, "standard_new")
    config = json.loads((folder / "config.json").read_text())
    config["trainer"]["trainer_class"] = "StandardTrainerNew"
    del config["trainer"]["recipe"], config["trainer"]["autocast_dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    x = 2 * next(data(1))
    assert saemake.load(folder).encode(x).equal(wrote.encode(x))


def said(place, **arguments) -> str:
    with pytest.raises(SaemakeError) as caught:
        saemake.load(place, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_told_what_is_and_what_builds_it(sae):
    assert said("results/demo/L3/top_k/1k/k_4") == (
        "results/demo/L3/top_k/1k/k_4: no such file or folder; build it with"
        " `snakemake results/demo/L3/top_k/1k/k_4/ae.pt --cores 1`, or look in"
        " results/demo/L3/top_k/1k: did you mean 'k_3'?"
    )
    wrong = said("results/demo/L3/topk/1k/k_3")
    assert wrong.endswith(", or look in results/demo/L3: did you mean 'top_k'?")
    assert "snakemake results/demo/L3/top_k/1k/k_3/checkpoints/ae_9.pt --cores 1" in said(
        sae / "checkpoints" / "ae_9.pt"
    )
    elsewhere = said("result/demo")
    assert f"in {Path.cwd()}: did you mean 'results'?" in elsewhere
    assert "snakemake" not in elsewhere
    hub = said("hub/somebody/saes/resid_post_layer_3/trainer_7")
    assert "`snakemake hub/somebody/saes/resid_post_layer_3/trainer_7/ae.pt --cores 1`" in hub


def test_another_folder_is_told_the_saes_in_it(sae):
    (sae.parent / ".store" / "k_9").mkdir(parents=True)
    (sae.parent / ".store" / "k_9" / "ae.pt").touch()
    assert said(sae.parent).endswith(
        "not an SAE's folder (no ae.pt in it); the SAEs below it are k_3, k_30"
    )
    assert "SAEs below it are demo/L3/top_k/1k/k_3, demo/L3/top_k/1k/k_30" in said("results")
    for index in range(30):
        write(sae.parents[1] / f"w{index:02}" / "k_3")
    listed = said(sae.parents[1])
    assert listed.endswith("w08/k_3, w09/k_3, ...")
    Path("empty").mkdir()
    assert said("empty").endswith("there is no SAE below it")


def test_another_file_is_no_sae(sae):
    assert said(sae / "config.json").endswith("no SAE; name its folder or its ae.pt")


def test_an_inference_that_there_is_not_is_refused_with_those_there_are(sae, tmp_path):
    assert said(sae, inference="topk").endswith(
        "no inference 'topk': AutoEncoderTopK has top_k and threshold"
    )
    write(tmp_path / "gated", "gated")
    assert said(tmp_path / "gated", inference="top_k").endswith(
        "no inference 'top_k': GatedAutoEncoder has one way of choosing latents; leave it out"
    )


def test_a_device_that_cannot_be_used_is_said(sae):
    assert said(sae, device="gpu").startswith("device 'gpu' cannot be used: ")
    if not torch.cuda.is_available():
        assert said(sae, device="cuda").startswith("device 'cuda' cannot be used: ")


def test_a_config_that_is_missing_or_none_is_said(sae):
    config = json.loads((sae / "config.json").read_text())
    config["trainer"]["dict_class"] = "AutoEncoderTopk"
    (sae / "config.json").write_text(json.dumps(config))
    unknown = said(sae)
    assert "dict_class is 'AutoEncoderTopk', which no architecture here has" in unknown
    assert "did you mean 'AutoEncoderTopK'?" in unknown
    (sae / "config.json").write_text("[1]")
    assert "config.json: describes no SAE: it has no section 'trainer'" in said(sae)
    (sae / "config.json").write_text("{")
    assert "config.json: cannot be read (" in said(sae)
    (sae / "config.json").unlink()
    assert "k_3: no config.json there, which says what SAE it is" in said(sae)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "list", "code", "other", "no k"])
def test_a_damaged_ae_pt_is_said_in_a_line_with_one_way_out(damage, sae):
    path, content = sae / "ae.pt", (sae / "ae.pt").read_bytes()
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "noise":
            path.write_bytes(bytes(range(256)) * 40)
        case "empty":
            path.write_bytes(b"")
        case "list":
            torch.save([torch.zeros(2)], path)
        case "code":
            torch.save(torch.nn.Linear(2, 2), path)  # pickled code, which is not run
        case "other":
            path.write_bytes(files.sae_bytes(make("gated").dictionary))
        case "no k":
            config = json.loads((sae / "config.json").read_text())
            del config["trainer"]["k"]
            (sae / "config.json").write_text(json.dumps(config))
    line = said(SAE)
    assert line.startswith(f"{SAE}/ae.pt: not the SAE that its config.json describes (")
    assert line.endswith(f"; delete it and build it with `snakemake {SAE}/ae.pt --cores 1`")


@pytest.mark.parametrize(
    ("file", "content"),
    [("provenance.json", {"ae_sha256": "0"}), ("source.json", {"sha256": {"ae.pt": "0"}})],
)
def test_an_ae_pt_that_is_not_the_one_that_was_trained_is_refused(file, content, sae):
    (sae / file).write_text(json.dumps(content))
    with pytest.raises(SaemakeError, match=rf"ae\.pt: damaged or edited, .* in {file}; "):
        saemake.load(sae)


def test_importing_saemake_imports_neither_torch_nor_snakemake():
    code = "import sys, saemake; print(sorted({'torch', 'snakemake'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_loading_needs_no_snakemake(sae):
    code = (
        "import sys; sys.modules['snakemake'] = None; import saemake;"
        f" print(saemake.load('{SAE}').width)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "64"


def test_what_it_gives_is_known_to_type_checkers():
    """They read annotations, and of an installed package only where it has py.typed."""
    names = {"os": os, "torch": torch, "Dictionary": Dictionary}
    assert typing.get_type_hints(saemake.load, names)["return"] is Dictionary
    assert Path(saemake.__file__).with_name("py.typed").exists()
