"""Against dictionary-learning 0.1.0, installed beside: it reads our files, and what it reads does
the same; our initial weights are distributed as its own."""

import json

import pytest
import torch
from dictionary_learning.dictionary import AutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer, geometric_median
from dictionary_learning.trainers.trainer import get_lr_schedule
from dictionary_learning.utils import load_dictionary
from unit.test_architectures import SPARSITY, data, make

from saemake import architectures
from saemake.architectures import losses
from saemake.training import files
from saemake.training.schedule import learning_rate_scale

PEER = {"top_k": AutoEncoderTopK, "batch_top_k": BatchTopKSAE, "standard_new": AutoEncoder}


@pytest.fixture(params=architectures.names())
def trained(request):
    trainer = make(request.param)
    for step, x in enumerate(data(30)):
        trainer.update(step, x)
    return trainer


def test_the_library_loads_our_files_and_reconstructs_the_same(trained, tmp_path):
    trained.dictionary.scale_biases(2.0)
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(trained.dictionary))
    config = {"trainer": trained.trainer_config()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, _ = load_dictionary(str(tmp_path), device="cpu")
    assert type(loaded) is PEER[trained.name]
    x = 2 * next(data(1))
    ours = files.load(tmp_path, trained.name, 64, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), ours.decode(ours.encode(x)), rtol=1e-5, atol=1e-5)


def test_the_state_dict_has_the_librarys_keys_shapes_and_dtypes(trained):
    kind = PEER[trained.name]
    peer = kind(16, 64) if kind is AutoEncoder else kind(16, 64, k=3)
    ours = {k: (v.shape, v.dtype) for k, v in trained.dictionary.state_dict().items()}
    assert ours == {k: (v.shape, v.dtype) for k, v in peer.state_dict().items()}


def test_config_json_has_every_key_of_the_librarys_trainer_but_the_machines(trained):
    common = {"steps": 5000, "activation_dim": 16, "dict_size": 64, "layer": 3, "lm_name": "demo"}
    if trained.name == "standard_new":
        peer = StandardTrainerAprilUpdate(**common, device="cpu").config
    else:
        peer = TopKTrainer(**common, k=3, device="cpu").config
    machine = {"device", "wandb_name", "submodule_name", "layer", "lm_name"}
    assert set(peer) - machine <= set(trained.trainer_config())


@pytest.mark.parametrize("name", architectures.names())
def test_initial_weights_are_distributed_as_the_librarys(name):
    torch.manual_seed(0)
    ours = make(name, d_model=64, width=4096).dictionary.state_dict()
    kind = PEER[name]
    theirs = (kind(64, 4096) if kind is AutoEncoder else kind(64, 4096, k=3)).state_dict()
    for key in ("encoder.weight", "decoder.weight"):
        torch.testing.assert_close(ours[key].norm(), theirs[key].norm(), rtol=1e-3, atol=0)
    for key in ("encoder.weight", "decoder.weight", "encoder.bias"):
        for moment in (1, 2, 4):
            a, b = (state[key].pow(moment).mean() for state in (ours, theirs))
            torch.testing.assert_close(a, b, rtol=0.05, atol=3e-3)
        torch.testing.assert_close(ours[key].abs().max(), theirs[key].abs().max(), rtol=0.1, atol=0)
    centre = {"bias", "b_dec"} & set(ours)
    assert all(not ours[key].any() and not theirs[key].any() for key in centre)


def test_the_geometric_median_is_the_librarys():
    x = next(data(1))
    torch.testing.assert_close(losses.geometric_median(x), geometric_median(x))


def test_the_learning_rate_is_the_librarys():
    theirs = get_lr_schedule(100, 10, decay_start=80)
    assert [learning_rate_scale(s, 100, 10, 80) for s in range(100)] == [
        theirs(s) for s in range(100)
    ]


def test_sparsities_cover_every_architecture():
    assert set(SPARSITY) == set(architectures.names()) == set(PEER)
