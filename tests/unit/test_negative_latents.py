"""An architecture whose latents may be negative, of one's own: AbsTopK, which keeps the latents of
largest size. It is counted right everywhere, and nothing says that peers read it."""

import json

import pytest
import torch
from peers import SHARED
from unit.test_evaluation import DOCUMENTS, core_recipe, recipe, tokens
from unit.test_evaluation import lm as lm  # a fixture

from saemake import architectures
from saemake.architectures import elsewhere, losses
from saemake.architectures.places import Listed, Masked, starts_of
from saemake.architectures.top_k import TopK
from saemake.architectures.top_k.trainer import TopKDictionary, TopKTrainer
from saemake.architectures.top_k_family import smallest_of_batch, smallest_of_tokens
from saemake.architectures.trainer import Forward
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.publishing import readers, saelens


class AbsTopKDictionary(TopKDictionary):
    def every_latent(self, x):
        return (x - self.b_dec) @ self.encoder.weight.T + self.encoder.bias

    def listed(self, x_RD):
        return None

    def keep_top(self, activations):
        kept = activations.abs().topk(self.kept, dim=-1).indices
        return torch.zeros_like(activations).scatter(-1, kept, activations.gather(-1, kept))


class AbsTopK(TopK):
    name = "abs_top_k"
    trainer_class = "AbsTopKTrainer"
    dict_class = "AutoEncoderAbsTopK"

    @classmethod
    def trainer(cls):
        return AbsTopKTrainer


class AbsTopKTrainer(AbsTopK, TopKTrainer):
    @classmethod
    def make_dictionary(cls, config):
        return AbsTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    def forward(self, x_BD, y_BD, step):
        f_BF = self.dictionary.encode(x_BD)
        places = Masked(f_BF.detach() != 0, self.dtype)
        self.update_threshold(smallest_of_tokens(f_BF.detach(), places))
        self.count_fired(places.latents(), places)
        x_hat_BD = self.dictionary.decode(f_BF)
        return Forward(losses.reconstruction(y_BD, x_hat_BD), {}, f_BF, places, x_hat_BD)


@pytest.fixture
def registered(monkeypatch):
    architectures.names()  # all others first
    monkeypatch.setitem(architectures.registry.known, "abs_top_k", AbsTopK)


def test_a_step_logs_every_latent_that_is_not_0():
    training = Training(
        recipe="saebench",
        seed=0,
        batch_tokens=32,
        norm_batches=1,
        learning_rate=1e-2,
        warmup_steps=1,
        decay_start_fraction=1,
        autocast="float32",
        cpu_threads=1,
    )
    settings = AbsTopK.Settings(
        sweep=[3],
        auxk_alpha=0,
        dead_after_tokens=96,
        threshold_beta=0.9,
        threshold_start_step=0,
    )
    trainer = AbsTopKTrainer(
        d_model=16,
        width=64,
        sparsity=3,
        settings=settings,
        training=training,
        steps=5,
        device=torch.device("cpu"),
    )
    x_BD = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    for step in range(5):
        forward = trainer.update(step, x_BD)
    assert (forward.f_P < 0).any()
    assert forward.l0 == 3
    assert trainer.dictionary.threshold > 0


def test_the_threshold_is_the_size_of_the_smallest():
    f = torch.tensor([[-3.0, 0.0, 2.0], [0.0, -1.0, 5.0]])
    masked = Masked(f != 0, f.dtype)
    counts = torch.tensor([2, 2])
    listed = Listed(torch.tensor([0, 2, 1, 2]), starts_of(counts), 3, f.dtype)
    for places, values in ((masked, f), (listed, f[f != 0])):
        assert smallest_of_tokens(values, places) == (2 + 1) / 2
        assert smallest_of_batch(values, places) == 1
        assert places.active(values).tolist() == [True] * 3


class Signed(AbsTopKDictionary):
    """Two latents: minus the first dimension, which is active everywhere, and nothing."""

    def __init__(self, d_model=128):
        super().__init__(d_model, 2, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.encoder.bias[0] = -2.0
            self.decoder.weight[0, 0] = 3.0
        self.requires_grad_(False)


def test_core_counts_negative_latents_as_firing(lm, tmp_path):
    text = tokens(tmp_path, [[0, 5, 9, 12, 700, 3, 8, 1], [0, 44, 2, 7, 5, 9, 12, 700]] * 2)
    found = judge_by(core_recipe(), {"one": Signed()}, lm, text, "test")["one"]
    assert found.figures["l0"] == 1
    assert found.figures["l1"] == pytest.approx(6)  # 2, weighed by the decoder's norm
    assert found.figures["frac_alive"] == 0.5
    assert found.latents["feature_density"].tolist() == [1, 0]
    assert found.latents["consistent_activation_heuristic"][0] == 7  # of contexts of 8 with BOS


def test_so_does_dictionary_learnings_evaluation(lm, tmp_path):
    text = tokens(tmp_path, DOCUMENTS)
    found = judge_by(recipe(), {"one": Signed()}, lm, text, "test")["one"]
    assert (found.figures["l0"], found.figures["frac_alive"]) == (1, 0.5)
    assert found.figures["l1_loss"] == pytest.approx(6)


def suite(folder, *names):
    """SAEs whose config.json is there."""
    saes = [SaeName(Sweep("demo", Hookpoint(3), name, "1k"), 8) for name in names]
    for sae in saes:
        place = folder / sae.folder
        place.mkdir(parents=True)
        trainer = {"activation_dim": 6, "dict_size": 8, "k": 2}
        (place / "config.json").write_text(json.dumps({"trainer": trainer}))
    return saes


def test_the_card_says_who_reads_what(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saes = suite(tmp_path, "top_k", "abs_top_k", "jump_relu")
    said = readers.described(saes)
    assert said.startswith(f"{readers.THREE} read `top_k`, `jump_relu`, no other.")
    assert "`abs_top_k` is a `AutoEncoderAbsTopK`, which saemake reads" in said
    assert readers.described([saes[0], saes[2]]) == f"{readers.THREE} read it."
    assert readers.described([saes[1]]).startswith(f"{readers.THREE} read none.")


def test_an_export_is_promised_only_where_there_is_one(registered, tmp_path, monkeypatch):
    """Its parent's form would be written without a word: of another function."""
    monkeypatch.chdir(tmp_path)
    (sae,) = suite(tmp_path, "abs_top_k")
    assert "which saemake reads and cannot write" in readers.described([sae])
    with pytest.raises(SaemakeError, match="AbsTopKDictionary has no form in SAELens"):
        saelens.cfg(AbsTopKDictionary(6, 8, 2), {})
    monkeypatch.setattr(saelens, "has_form", lambda each: type(each) is AbsTopKDictionary)
    assert "which saemake reads and can write" in readers.described([sae])


@pytest.mark.parametrize("name", SHARED)
def test_the_eight_are_read_by_peers(name):
    assert elsewhere.read_elsewhere(name)
