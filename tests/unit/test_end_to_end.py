"""The end-to-end loss (training.loss kl and ce): its parity with plain torch, and passes that train
by it."""

import csv
import functools
import io
import json

import pytest
import torch
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, merged, raw_config
from counted import ON_CPU
from texts import tokenised
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from unit.test_architectures import data, make
from unit.test_snapshots import Killed, go, kill_before, stored

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.inputs import weights
from saemake.llm.cost import Lm, Reading
from saemake.llm.end_to_end import EndToEnd, kl_sum
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.paths.command_words import check_target
from saemake.paths.names import Sweep
from saemake.paths.sweeps import members
from saemake.plan import memory
from saemake.recipes.training import lm_run_key, sae_recipe, stream_key
from saemake.text.shards import Contexts
from saemake.training.members import Stores, Wanted
from saemake.training.train import Inputs

CPU = torch.device("cpu")
LAYER = 3


@pytest.fixture(scope="module")
def lm_at(demo_weights):
    return functools.cache(
        lambda place: LanguageModel(
            demo_weights, Hookpoint.named(place), CPU, whole=True, gradients=True
        )
    )


@pytest.fixture(scope="module")
def lm(lm_at):
    return lm_at(f"L{LAYER}")


@pytest.fixture(scope="module")
def plain():
    model = AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def contexts(lengths, vocabulary=500, seed=0):
    """Contexts of these lengths, padded to the longest."""
    ids_BL = torch.randint(
        5, vocabulary, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed)
    )
    mask_BL = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Contexts(ids_BL * mask_BL, mask_BL)


def by_hand(plain, module, kind, batch, kept_BL, y_hat_ND):
    """The loss and its gradient with a hook on transformers' model, and autograd."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    leaf_ND = y_hat_ND.clone().requires_grad_()
    own = plain(**inputs).logits

    def hook(module, given, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[kept_BL] = leaf_ND
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = module.register_forward_hook(hook)
    logits = plain(**inputs).logits
    handle.remove()
    mask_BL = batch.mask.bool()
    if kind == "kl":
        kl_BL = functional.kl_div(
            logits.log_softmax(-1), own.log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        loss = kl_BL[mask_BL].mean()
    else:
        labels_BL = batch.ids.where(mask_BL, -100)
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels_BL[:, 1:].flatten())
    loss.backward()
    return loss.detach(), leaf_ND.grad


@pytest.mark.parametrize("kind", ["kl", "ce"])
@pytest.mark.parametrize(
    ("place", "together"), [("", 1024), ("", 16), (".mlp_out", 16), (".mlp_in-mlp_out", 16)]
)
def test_the_loss_and_its_gradient_are_those_of_a_hook_and_autograd(
    lm_at, plain, monkeypatch, kind, place, together
):
    """Also in pieces of one context each, whose positions are not all kept."""
    monkeypatch.setattr("saemake.llm.model.POSITIONS_TOGETHER", together)
    lm, block = lm_at(f"L{LAYER}{place}"), plain.gpt_neox.layers[LAYER]
    module = block.mlp if place else block
    batch = contexts([14, 9, 11])
    kept_BL = batch.mask.bool().clone()
    kept_BL[:, 0] = False
    kept_BL[1, 5] = False
    intact = lm.run(batch)
    noise = torch.randn(int(kept_BL.sum()), lm.d_model, generator=torch.Generator().manual_seed(1))
    y_hat_ND = intact.written_BLD[kept_BL] + 0.3 * noise
    expected, gradient_ND = by_hand(plain, module, kind, batch, kept_BL, y_hat_ND)

    leaf_ND = y_hat_ND.clone().requires_grad_()
    loss = EndToEnd(lm, kind, batch, intact, kept_BL).loss(leaf_ND)
    (3 * loss).backward()  # a factor, as that of AuxK has
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected > 0.01
    torch.testing.assert_close(leaf_ND.grad / 3, gradient_ND, rtol=1e-4, atol=1e-7)


def test_the_divergence_of_the_lm_from_itself_is_0(lm):
    batch = contexts([7, 12])
    kept_BL, intact = batch.mask.bool(), lm.run(batch)
    value, gradient_ND = EndToEnd(lm, "kl", batch, intact, kept_BL).value_and_gradient(
        intact.written_BLD[kept_BL]
    )
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert gradient_ND.abs().max() < 1e-6
    # Where nothing is kept, nothing is replaced.
    none = torch.zeros_like(kept_BL)
    value, gradient_ND = EndToEnd(lm, "kl", batch, intact, none).value_and_gradient(
        torch.zeros(0, lm.d_model)
    )
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert gradient_ND.shape == (0, lm.d_model)


def test_a_divergence_by_hand():
    own, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    by_hand = 0.5 * torch.tensor(0.5 / 0.25).log() + 0.5 * torch.tensor(0.5 / 0.75).log()
    torch.testing.assert_close(kl_sum(own, other), by_hand)
    assert kl_sum(own, own) == 0


# Steps.


@pytest.mark.parametrize("name", architectures.names())
def test_a_step_takes_the_loss_in_the_place_of_the_squared_error(name):
    """The rest of the loss stays. With the squared error as the end-to-end loss nothing changes."""
    kind = architectures.get(name)
    if not kind.trains_end_to_end:
        pytest.skip("it is refused")
    plain, end_to_end = make(name), make(name)
    kl = {"loss": "kl"}
    end_to_end.training = end_to_end.training.model_copy(update=kl)
    for step, x in enumerate(data(8)):
        calls = []

        def squared(y_hat, x=x, calls=calls):
            calls.append(y_hat)
            return (x - y_hat).pow(2).sum(dim=-1).mean()

        expected, forward = plain.update(step, x), end_to_end.update(step, x, end_to_end=squared)
        assert len(calls) == kind.errors_in_a_step(end_to_end.settings)
        assert forward.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
        renamed = {key.replace("l2", "kl") if key != "gate_l2" else key for key in expected.parts}
        assert set(forward.parts) == renamed
    for key, value in plain.dictionary.state_dict().items():
        torch.testing.assert_close(end_to_end.dictionary.state_dict()[key], value)
    assert end_to_end.trainer_config()["loss"] == "kl"
    assert "loss" not in plain.trainer_config()


# Passes.


def config_of(loss="kl", **more):
    training = {"loss": loss, "learning_rate": 3e-3, **more}
    over = {"models": {"demo": {"training": training}}, "logging": {"every_steps": 1}}
    return read(raw_config(merged(over, SMALL)), PROJECT, [CONFIG_FILE])


@pytest.fixture(scope="module")
def inputs(demo_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")

    def made(config):
        return Inputs(demo_weights, {}, tokenised(config, demo_weights, "train", folder))

    return made


def wanted(config, architecture="top_k", count=2, place="L3"):
    saes = members(config, Sweep("demo", Hookpoint.named(place), architecture, "256"))[:count]
    return [Wanted(str(each), sae_recipe(config, each)) for each in saes]


def rows(saes, root):
    content = Stores.under(root).saes.read(saes[0].recipe.hash, "training.csv").decode()
    return [
        {key: float(value) for key, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(content))
    ]


def ends(found, key):
    """Means of the first ten steps and of the last ten: contexts differ in how hard they are."""
    values = [row[key] for row in found]
    return sum(values[:10]) / 10, sum(values[-10:]) / 10


@pytest.mark.parametrize("place", ["L3.mlp_out", "L3.mlp_in-mlp_out"])
def test_other_sites_and_transcoders_are_trained_end_to_end_too(inputs, tmp_path, place):
    config = config_of()
    saes = wanted(config, count=1, place=place)
    go(saes, inputs(config), tmp_path, config, seconds=1e9)
    first, last = ends(rows(saes, tmp_path), "kl")
    assert last < first


@pytest.mark.parametrize("loss", ["kl", "ce"])
def test_a_pass_lowers_the_loss_and_a_killed_one_ends_with_the_same_bytes(
    inputs, tmp_path, monkeypatch, loss
):
    config = config_of(loss, drop={"bos": True, "norm_over_median": 3.0})
    saes, given = wanted(config), inputs(config)
    go(saes, given, tmp_path / "straight", config, seconds=1e9)
    found = rows(saes, tmp_path / "straight")
    first, last = ends(found, loss)
    assert last < 0.9 * first
    assert "l2" not in found[0]
    # Tokens that were trained on: contexts that are not full make it fewer than the budget.
    last = found[-1]["tokens"]
    assert 0.3 * 20_480 < last < 20_480
    with monkeypatch.context() as patch:
        kill_before(patch, 17)
        with pytest.raises(Killed):
            go(saes, given, tmp_path / "killed", config)
    go(saes, given, tmp_path / "killed", config)
    assert stored(saes, tmp_path / "killed") == stored(saes, tmp_path / "straight")
    # Alone an SAE has the same bytes.
    go(saes[1:], given, tmp_path / "alone", config, seconds=1e9)
    assert (
        stored(saes[1:], tmp_path / "alone").items() <= stored(saes, tmp_path / "straight").items()
    )
    read_back = Stores.under(tmp_path / "straight").saes
    said = json.loads(read_back.read(saes[0].recipe.hash, "provenance.json"))
    assert said["recipe"]["training"]["loss"] == loss
    assert 0 <= said["dropped_by_norm"] < 0.5


def test_the_loss_is_in_the_recipe_only_where_it_is_not_the_squared_error():
    mse, kl = wanted(config_of("mse"))[0].recipe, wanted(config_of("kl"))[0].recipe
    assert "loss" not in mse.model_dump(mode="json")["training"]
    assert kl.model_dump(mode="json")["training"]["loss"] == "kl"
    assert mse.hash != kl.hash
    assert lm_run_key(mse) != lm_run_key(kl)
    other = kl.model_copy(update={"training": kl.training.model_copy(update={"seed": 3})})
    assert stream_key(other) == stream_key(kl)


def test_what_cannot_be_trained_end_to_end_is_refused(monkeypatch):
    with pytest.raises(SaemakeError, match=r"300 is no multiple of models\.demo"):
        config_of(batch_tokens=300)
    with pytest.raises(SaemakeError, match=r"training\.loss"):
        config_of("kll")
    monkeypatch.setattr(architectures.get("gated"), "trains_end_to_end", False)
    config = config_of()
    with pytest.raises(SaemakeError) as raised:
        check_target(config, "results/demo/L3/gated/256/penalty_0.1/ae.pt")
    assert "gated cannot be trained by 'kl', but top_k, " in str(raised.value)


def test_a_plan_counts_the_operations_of_the_loss_and_of_its_gradient(lm):
    shape = weights.shape(config_of(), "demo")
    batch = contexts([16, 16])
    intact = lm.run(batch)
    of = EndToEnd(lm, "kl", batch, intact, batch.mask.bool())
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
        of.value_and_gradient(intact.written_BLD.flatten(0, 1))
    reading = Reading(contexts=2, tokens=32, positions=32, pairs=2 * 16**2, known=True)
    planned = Lm(shape, 6, Hookpoint(LAYER)).end_to_end(reading)
    assert counter.get_total_flops() == pytest.approx(planned, rel=0.02)


def test_a_plan_of_memory_has_the_whole_lm_and_no_buffer():
    """A pass of two SAEs of the demo, by /proc: 691 MiB at its largest."""
    width = {"suite": {"widths": ["1k"]}}
    config = read(
        raw_config({"models": {"demo": {"training": {"loss": "kl"}, **width}}}), PROJECT, []
    )
    saes = members(config, Sweep("demo", Hookpoint(3), "top_k", "1k"))[:2]
    recipes = [sae_recipe(config, each) for each in saes]
    planned = memory.of_training(recipes, weights.shape(config, "demo"))
    assert planned.buffer == 0
    assert planned.lm == [memory.lm_bytes("float32", weights.shape(config, "demo"), 6)]
    assert 0.9 < planned.on_cpu / (691 * 2**20) < 1.1
