"""The end-to-end loss (training.loss kl and ce): its parity with plain torch, and passes that train
by it."""

import pytest
import torch
from conftest import DEMO_LM
from torch.nn import functional
from transformers import AutoModelForCausalLM

from saemake.llm.end_to_end import EndToEnd, kl_sum
from saemake.llm.model import LanguageModel
from saemake.text.shards import Contexts

CPU = torch.device("cpu")
LAYER = 3


@pytest.fixture(scope="module")
def lm(demo_weights):
    return LanguageModel(demo_weights, LAYER, CPU, whole=True, gradients=True)


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


def by_hand(plain, kind, batch, kept_BL, y_hat_ND):
    """The loss and its gradient with a hook on transformers' model, and autograd."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    leaf_ND = y_hat_ND.clone().requires_grad_()
    own = plain(**inputs).logits

    def hook(module, given, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[kept_BL] = leaf_ND
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = plain.gpt_neox.layers[LAYER].register_forward_hook(hook)
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
@pytest.mark.parametrize("together", [1024, 16])
def test_the_loss_and_its_gradient_are_those_of_a_hook_and_autograd(
    lm, plain, monkeypatch, kind, together
):
    """Also in pieces of one context each, whose positions are not all kept."""
    monkeypatch.setattr("saemake.llm.model.POSITIONS_TOGETHER", together)
    batch = contexts([14, 9, 11])
    kept_BL = batch.mask.bool().clone()
    kept_BL[:, 0] = False
    kept_BL[1, 5] = False
    intact = lm.intact(batch)
    noise = torch.randn(int(kept_BL.sum()), lm.d_model, generator=torch.Generator().manual_seed(1))
    y_hat_ND = intact.written_BLD[kept_BL] + 0.3 * noise
    expected, gradient_ND = by_hand(plain, kind, batch, kept_BL, y_hat_ND)

    leaf_ND = y_hat_ND.clone().requires_grad_()
    loss = EndToEnd(lm, kind, batch, intact, kept_BL).loss(leaf_ND)
    (3 * loss).backward()  # a factor, as that of AuxK has
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected > 0.01
    torch.testing.assert_close(leaf_ND.grad / 3, gradient_ND, rtol=1e-4, atol=1e-7)


def test_the_divergence_of_the_lm_from_itself_is_0(lm):
    batch = contexts([7, 12])
    kept_BL, intact = batch.mask.bool(), lm.intact(batch)
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
