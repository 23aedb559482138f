"""Against dictionary-learning 0.1.0, installed beside: it reads our files, and what it reads does
the same; our initial weights are distributed as its own."""

import json

import pytest
import torch
from dictionary_learning.dictionary import AutoEncoder, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK, geometric_median
from dictionary_learning.trainers.trainer import get_lr_schedule
from dictionary_learning.utils import load_dictionary
from parity.test_training import pair
from peers import SHARED
from unit.test_architectures import KEPT, data, make

from saemake.architectures import losses, schedule
from saemake.training import files

PEER = {
    "standard": AutoEncoder,
    "standard_new": AutoEncoder,
    "p_anneal": AutoEncoder,
    "gated": GatedAutoEncoder,
    "jump_relu": JumpReluAutoEncoder,
    "top_k": AutoEncoderTopK,
    "batch_top_k": BatchTopKSAE,
    "matryoshka_batch_top_k": MatryoshkaBatchTopKSAE,
}


def untrained_peer(trainer):
    """The library's own dictionary of the same shape."""
    arguments = {"k": 3} if trainer.name in KEPT else {}
    if trainer.name == "matryoshka_batch_top_k":
        arguments["group_sizes"] = trainer.dictionary.sizes
    return PEER[trainer.name](trainer.d_model, trainer.width, **arguments)


@pytest.fixture(params=list(PEER))
def trained(request):
    trainer = make(request.param)
    for step, x in enumerate(data(30)):
        trainer.update(step, x)
    return trainer


@pytest.fixture
def saved(trained, tmp_path):
    trained.dictionary.scale_biases(2.0)
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(trained.dictionary))
    config = {"trainer": trained.trainer_config()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_library_loads_our_files_and_reconstructs_the_same(trained, saved):
    loaded, _ = load_dictionary(str(saved), device="cpu")
    assert type(loaded) is PEER[trained.name]
    x = 2 * next(data(1))
    ours = files.load(saved, trained.name, 64, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), ours.decode(ours.encode(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", KEPT, indirect=True)
@pytest.mark.parametrize("inference", ["top_k", "threshold"])
def test_either_inference_is_the_librarys(trained, saved, inference):
    loaded, _ = load_dictionary(str(saved), device="cpu")
    ours = files.load(saved, trained.name, 64, torch.device("cpu"), inference)
    x = 2 * next(data(1))
    with torch.no_grad():
        theirs = loaded.encode(x, use_threshold=inference == "threshold")
        torch.testing.assert_close(ours.encode(x), theirs)
    assert theirs.any()


def test_the_state_dict_has_the_librarys_keys_shapes_and_dtypes(trained):
    ours = {k: (v.shape, v.dtype) for k, v in trained.dictionary.state_dict().items()}
    theirs = untrained_peer(trained).state_dict()
    assert ours == {k: (v.shape, v.dtype) for k, v in theirs.items()}


@pytest.mark.parametrize("name", PEER)
def test_config_json_has_every_entry_of_the_librarys_trainer_but_the_machines(name):
    ours, theirs = pair(name, fused=True)
    machine = {"device", "wandb_name", "submodule_name", "layer", "lm_name"}
    expected = {key: value for key, value in theirs.config.items() if key not in machine}
    config = ours.trainer_config()
    assert {key: config.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", PEER)
def test_initial_weights_are_distributed_as_the_librarys(name):
    torch.manual_seed(0)
    trainer = make(name, d_model=64, width=4096)
    ours, theirs = trainer.dictionary.state_dict(), untrained_peer(trainer).state_dict()
    assert set(ours) == set(theirs)
    for key in ours:
        a, b = ours[key].float(), theirs[key].float()
        torch.testing.assert_close(a.norm(), b.norm(), rtol=2e-2, atol=0, msg=key)
        torch.testing.assert_close(a.abs().max(), b.abs().max(), rtol=0.1, atol=0, msg=key)
        for moment in (1, 2, 4):
            expected = b.pow(moment).mean()
            torch.testing.assert_close(
                a.pow(moment).mean(), expected, rtol=0.05, atol=3e-3, msg=f"{key}^{moment}"
            )
        if a.dim() == 2:  # columns of equal norm, and encoder and decoder alike
            for dim in (0, 1):
                torch.testing.assert_close(
                    a.norm(dim=dim).std(), b.norm(dim=dim).std(), rtol=0.3, atol=1e-5, msg=key
                )


def test_the_geometric_median_is_the_librarys():
    x = next(data(1))
    torch.testing.assert_close(losses.geometric_median(x), geometric_median(x))


def test_the_learning_rate_is_the_librarys():
    theirs = get_lr_schedule(100, 10, decay_start=80)
    ours = [schedule.learning_rate_scale(step, 100, 10, 80) for step in range(100)]
    assert ours == [theirs(step) for step in range(100)]
    theirs = get_lr_schedule(100, 10, resample_steps=30)
    ours = [schedule.restarting_scale(step, 10, 30) for step in range(100)]
    assert ours == [theirs(step) for step in range(100)]


def test_every_dictionary_of_the_librarys_is_compared_with_it():
    assert set(PEER) == set(SHARED)
