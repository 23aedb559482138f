"""What transcoders are called, what they are refused as, and what a plan counts of them."""

import json

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, SMALL, raw_config
from unit.test_transcoders import make, pairs, trained

from saemake import architectures
from saemake.activations.buffer import ActivationBuffer
from saemake.architectures import elsewhere, loading
from saemake.base.errors import SaemakeError
from saemake.base.sections import laid_over
from saemake.config.checks import read
from saemake.figures import palette
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.shape import Shape
from saemake.paths import tracer
from saemake.paths.files import suite_sweeps
from saemake.paths.grammar import parse
from saemake.paths.names import SaeName, Sweep
from saemake.plan import memory
from saemake.recipes.training import sae_recipe
from saemake.training import files
from saemake.training.members import Member, Wanted

CPU = torch.device("cpu")
CONFIG = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
TRANSCODER = "results/demo/L3.mlp_in-mlp_out"
TRACED = "circuit-tracer/demo/mlp_in-mlp_out/top_k/256"


def recipe_of(architecture, site="mlp_in-mlp_out"):
    sweep = Sweep("demo", Hookpoint.at(3, site), architecture, "256")
    return sae_recipe(CONFIG, SaeName(sweep, 4))


@pytest.mark.parametrize(
    "path",
    [
        f"{TRANSCODER}/top_k_skip/256/k_4/seed_2/ae.pt",
        f"{TRACED}/k_4/config.yaml",
        f"{TRACED}/k_4/seed_2/layer_5.safetensors",
    ],
)
def test_a_path_is_read_and_written(path):
    assert str(parse(CONFIG, path)) == path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("results/demo/L3/top_k_skip/256/k_4/ae.pt", "top_k_skip is for transcoders: .* top_k, or"),
        (f"{TRANSCODER}/gated_skip/256/penalty_0.1/ae.pt", "add `gated_skip: {}` to architectures"),
        (f"{TRACED}/k_4/layer_6.safetensors", "did you mean 'layer_5.safetensors'"),
        ("circuit-tracer/demo/mlp_out/top_k/256/k_4/config.yaml", "replaces MLPs: .* not mlp_out"),
        ("circuit-tracer/demo/mlp_in-resid_post/top_k/256/k_4/config.yaml", "replaces MLPs"),
    ],
)
def test_another_is_refused_with_the_way_out(path, said):
    with pytest.raises(SaemakeError, match=f"^{path}: .*{said}") as error:
        parse(CONFIG, path)
    assert "\n" not in str(error.value)


def test_an_architecture_that_is_none_says_which_are(monkeypatch):
    monkeypatch.setattr(architectures.get("gated"), "transcodes", False)
    with pytest.raises(SaemakeError, match=r"gated cannot be a transcoder: .* batch_top_k, "):
        parse(CONFIG, f"{TRANSCODER}/gated/256/penalty_0.1/ae.pt")


def test_the_variant_has_the_architectures_settings_and_a_recipe_of_its_own():
    plain, skip = recipe_of("top_k"), recipe_of("top_k_skip")
    assert plain.settings == skip.settings
    assert (skip.read, skip.write) == ("mlp_in", "mlp_out")
    assert plain.hash != skip.hash != recipe_of("top_k", "mlp_in").hash


def test_a_folder_for_circuit_tracer_is_of_every_layer():
    sae = parse(CONFIG, f"{TRACED}/k_4/config.yaml").sae
    assert [str(each) for each in tracer.at_layers(CONFIG, sae)] == [
        f"demo/L{layer}.mlp_in-mlp_out/top_k/256/k_4" for layer in range(6)
    ]


def test_memory_has_both_sites_and_the_skip_connection():
    shape = Shape(
        d_model=100,
        heads=2,
        kv_heads=2,
        head_width=50,
        mlp_width=400,
        gated_mlp=False,
        vocabulary=1000,
        tied=False,
    )
    sae, plain, skip = (
        memory.of_training([recipe], shape)
        for recipe in (recipe_of("top_k", "mlp_in"), recipe_of("top_k"), recipe_of("top_k_skip"))
    )
    assert plain.buffer == 2 * sae.buffer
    assert skip.saes - plain.saes == 3 * 4 * 100 * 100


def test_a_skip_variant_has_the_architectures_colour_and_another_marker():
    plain, skip = palette.mark("top_k"), palette.mark("top_k_skip")
    assert plain.colour == skip.colour
    assert plain.marker != skip.marker


@pytest.mark.parametrize("skip", [False, True])
def test_saved_files_are_loaded_as_the_transcoder_and_as_nothing_else(skip, tmp_path):
    name = "top_k_skip" if skip else "top_k"
    recipe = recipe_of(name).model_copy(update={"width": 64})
    member = Member(Wanted("here", recipe), 16, CPU)
    for step, (x, y) in enumerate(pairs(5)):
        member.update(step, x, y)
    dictionary = member.trainer.finished(2.0, 3.0)
    config = files.config_json(member.trainer, recipe, 2.0, 3.0)
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(dictionary))
    (tmp_path / "config.json").write_bytes(files.named("demo", config.encode()))
    section = json.loads(config)["trainer"]
    assert (section["norm_factor"], section["target_norm_factor"]) == (2, 3)
    # No other library's loader has these classes.
    assert section["dict_class"] not in elsewhere.KNOWN.values()
    assert section["trainer_class"] not in elsewhere.KNOWN
    loaded = loading.load(tmp_path, "cpu", None)
    assert loaded.transcodes
    with torch.no_grad():
        assert torch.equal(loaded(x), dictionary(x))
    assert torch.equal(files.load(tmp_path, name, 64, CPU)(x), loaded(x))
    with pytest.raises(SaemakeError, match="skip connection, its path"):
        files.load(tmp_path, "top_k" if skip else "top_k_skip", 64, CPU)


def test_weights_of_another_width_are_refused(tmp_path):
    trainer = trained("top_k", steps=2)[0]
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(trainer.finished(1.0)))
    config = {"trainer": {**trainer.trainer_config(), "activation_dim": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SaemakeError, match=r"not the SAE that its config\.json describes") as error:
        loading.load(tmp_path, "cpu", None)
    assert "\n" not in str(error.value)


def test_sites_of_another_width_than_the_weights_are_refused():
    from unit.test_transcoders import contexts_of

    contexts = contexts_of(20)
    x = torch.zeros(*contexts.ids.shape, 4)
    buffer = ActivationBuffer(
        iter([(contexts, x, torch.zeros(*contexts.ids.shape, 6))]),
        d_model=4,
        capacity_tokens=8,
        batch_tokens=4,
        seed=0,
        dtype=torch.float32,
        device=CPU,
    )
    with pytest.raises(SaemakeError, match="the activations are 4 and 6 wide, and the model 4"):
        buffer.pair()


def test_a_class_without_a_form_is_not_exported():
    from saemake.publishing import circuit_tracer, saelens

    dictionary = make("top_k").dictionary
    own = type("Own", (type(dictionary),), {})
    dictionary.__class__ = own
    for write in (saelens.weights, circuit_tracer.weights):
        with pytest.raises(SaemakeError, match="a transcoder that is a Own has no form") as error:
            write(dictionary)
        assert "\n" not in str(error.value)
    assert not saelens.has_form(dictionary)


def of_suite(**suite):
    models = {"demo": {"suite": {"architectures": ["top_k", "top_k_skip"], **suite}}}
    return read(laid_over(raw_config(SMALL), {"models": models}), PROJECT, [CONFIG_FILE])


def test_a_suite_has_skip_connections_where_its_sites_are_transcoders():
    config = of_suite(sites=["resid_post", "mlp_in-mlp_out"])
    found = {
        str(hookpoint): [sweep.architecture for sweep in suite_sweeps(config, "demo", hookpoint)]
        for hookpoint in config.models["demo"].suite.hookpoints
    }
    assert found == {"L3": ["top_k"], "L3.mlp_in-mlp_out": ["top_k", "top_k_skip"]}


def test_a_suite_of_saes_has_none():
    with pytest.raises(SaemakeError, match=r"suite\.architectures.*top_k_skip is of transcoders"):
        of_suite()
