"""The two evaluations: figures by hand, baselines, packing, rows and their schema."""

import json
import math

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DEMO_LM, PROJECT
from unit.test_architectures import make

from saemake import architectures, evaluation
from saemake.base.sections import Closed
from saemake.evaluation import baselines, codecs, directions, pairs
from saemake.evaluation.dictionary_learning import DictionaryLearningFigures
from saemake.evaluation.dictionary_learning import judge as dictionary_learning
from saemake.evaluation.directions import largest_cosines, unit
from saemake.evaluation.running import Mean, Variance, recovered
from saemake.evaluation.sae_bench_core import SaeBenchCoreFigures
from saemake.evaluation.sae_bench_core import judge as sae_bench_core
from saemake.inputs.layouts import packed
from saemake.inputs.tokens import special_tokens
from saemake.judging.evaluate import judge_by
from saemake.llm import model as llm_model
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.metrics import rows
from saemake.recipes.kinds import BaselinesRecipe, EvaluationRecipe, ModelRecipe, TokensRecipe
from saemake.text.shards import MANIFEST, Tokens, pack
from saemake.training.baselines import fit

CPU = torch.device("cpu")
DOCUMENTS = [[0, 5, 9, 12, 700, 3], [0, 44, 2], [0, 8, 8, 1000, 31, 77, 90], [0, 6]]


def tokens_recipe(layout="documents"):
    model = ModelRecipe(
        content="demo", hub=None, revision=None, gguf_file=None, layers=6, dtype="float32"
    )
    return TokensRecipe(
        version=1,
        model=model,
        text_content="text",
        text_hub=None,
        text_revision=None,
        subset=None,
        split="validation",
        column="text",
        shuffle_seed=None,
        after=None,
        layout=layout,
        context_tokens=8,
        amount=4,
        unit="documents",
    )


# Settings that no test here looks at.
ALL_SETTINGS = {
    "dictionary_learning": {"documents": 1, "held_out": True},
    "sae_bench_core": {
        "held_out": True,
        "shuffle_seed": None,
        "context_tokens": 8,
        "batch_contexts": 2,
    },
}


def recipe(evaluation="dictionary_learning", **settings):
    return EvaluationRecipe(
        version=1,
        evaluation=evaluation,
        settings={**ALL_SETTINGS[evaluation], **settings},
        subject="",
        tokens=tokens_recipe(),
        batch_contexts=2,
        cpu_threads=1,
        inferences=[None],
        target_l0=None,
    )


def core_recipe(**settings):
    amounts = {"reconstruction_batches": 1, "variance_batches": 1, "defects": "mended"}
    return recipe("sae_bench_core", **(amounts | settings))


def tokens(folder, documents, **special):
    (folder / "shard").write_bytes(pack(documents, 2048))
    manifest = {
        "shards": [
            {
                "file": "shard",
                "sha256": __import__("hashlib").sha256((folder / "shard").read_bytes()).hexdigest(),
            }
        ],
        "tokens": sum(map(len, documents)),
        "special_tokens": {"bos": 0, "eos": None, "pad": None, "notes": [], **special},
        "recipe_hash": tokens_recipe().hash,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Tokens(folder / MANIFEST)


class Rounded(baselines.Linear):
    """A codec that loses something, some latents never used: 4 directions of which one is 0."""

    def __init__(self, d_model=128):
        directions = torch.zeros(4, d_model)
        directions[0, 0] = directions[1, 1] = directions[2, 2] = 2.0
        super().__init__(directions, torch.zeros(d_model))

    def encode(self, x):
        return torch.relu(x[..., :4]) * torch.tensor([1.0, 1.0, 1.0, 0.0])


class Nothing(baselines.Linear):
    """Every reconstruction 0."""

    def __init__(self, d_model=128):
        super().__init__(torch.zeros(1, d_model), torch.zeros(d_model))


@pytest.fixture
def lm(demo_weights):
    return LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True)


def test_recovered_is_one_where_nothing_is_lost_and_zero_of_zeros():
    assert recovered(2.0, 2.0, 5.0) == 1
    assert recovered(2.0, 5.0, 5.0) == 0
    assert recovered(2.0, 3.5, 5.0) == 0.5


def test_mean_weighs_values_not_batches():
    mean = Mean()
    mean.add(torch.tensor([1.0, 1.0, 1.0]))
    mean.add(torch.tensor([5.0]))
    assert mean.value == 2


def test_variance_in_parts_is_the_variance_of_the_whole():
    vectors = torch.randn(100, 5) + 10
    parts = Variance(5, CPU)
    for part in vectors.split(33):
        parts.add(part)
    assert parts.value == pytest.approx(vectors.double().var(dim=0, correction=0).sum().item())


@pytest.mark.parametrize("value", [0.0, 2.0, -1.5])
def test_few_latents_decode_as_all_do(value):
    """Three of 40 x 50 latents, none of the first and the last token."""
    rows_FD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    codec = baselines.Linear(rows_FD, torch.arange(8.0))
    f_NF = torch.zeros(40, 50)
    f_NF[1, 7] = f_NF[1, 49] = f_NF[38, 0] = value
    found = codecs.decoded(codec, f_NF)
    torch.testing.assert_close(found, f_NF @ rows_FD + torch.arange(8.0))


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_decodes_few_latents_as_all(name):
    """Its decoding is a product with `decoder_rows` and a bias."""
    dictionary = make(name).dictionary
    generator = torch.Generator().manual_seed(0)
    f_NF = torch.rand(40, dictionary.width, generator=generator)
    f_NF[f_NF < 0.95] = 0
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.normal_(generator=generator)
        torch.testing.assert_close(codecs.decoded(dictionary, f_NF), dictionary.decode(f_NF))


def test_many_latents_are_decoded_by_the_codec():
    codec = baselines.Linear(torch.eye(4), torch.ones(4))
    f_NF = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) + 1
    assert codecs.decoded(codec, f_NF).equal(codec.decode(f_NF))


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("tokens", [0, 1, 12])
@pytest.mark.parametrize("few", [True, False])
def test_what_is_coded_in_parts_is_what_the_codec_gives_of_all(name, tokens, few, monkeypatch):
    """Each of its ways to choose latents, also where it chooses among those of the whole batch;
    decoded as a list and whole."""
    monkeypatch.setattr(codecs, "part_tokens", lambda *_: 5)
    monkeypatch.setattr(codecs, "most_listed", lambda entries, *_: entries if few else 0)
    dictionary = make(name).dictionary
    x_ND = torch.randn(tokens, dictionary.d_model, generator=torch.Generator().manual_seed(0))
    for inference in architectures.get(name).inferences or [dictionary.inference]:
        dictionary.inference = inference
        with torch.no_grad():
            f_NF = dictionary.encode(x_ND)
            found = codecs.Coded(dictionary, x_ND)
            expected = dictionary.decode(f_NF)
            reconstructed = codecs.reconstructed(dictionary, x_ND)
        torch.testing.assert_close(reconstructed, expected)
        torch.testing.assert_close(found.x_hat_ND, expected)
        shown_NF = torch.zeros_like(f_NF)
        shown_NF[found.tokens_M, found.latents_M] = found.values_M
        torch.testing.assert_close(shown_NF, f_NF)
        assert len(found.values_M) == f_NF.count_nonzero()


class FakeLM:
    """For figures of latents only."""

    d_model, device = 2, CPU


def test_the_librarys_figures_by_hand():
    class Halves(baselines.Linear):
        def encode(self, x):
            return torch.relu(x)

        def decode(self, f):
            return f / 2

    codec = Halves(torch.eye(2), torch.zeros(2))
    running = dictionary_learning._Running(codec, FakeLM())
    x = torch.tensor([[3.0, 4.0], [6.0, 0.0]])
    running.add(x, x)
    running.loss.add(torch.tensor([3.0, 4.0]))
    # Variances of x: 2.25 + 4, of the residual x / 2: a quarter.
    figures = running.judgement(clean=3.0, ablated=5.0, variance=6.25).figures
    assert figures == {
        "l2_loss": pytest.approx((2.5 + 3) / 2),
        "l1_loss": pytest.approx((7 + 6) / 2),
        "l0": 1.5,
        "frac_variance_explained": pytest.approx(0.75),
        "cossim": pytest.approx(1),
        "l2_ratio": pytest.approx(0.5),
        "relative_reconstruction_bias": pytest.approx(0.5),
        "loss_original": 3.0,
        "loss_reconstructed": 3.5,
        "loss_zero": 5.0,
        "frac_recovered": pytest.approx(0.75),
        "frac_alive": 1.0,
    }


def test_core_figures_of_latents_by_hand():
    codec = Rounded(4)
    activity = sae_bench_core._Activity(codec, FakeLM(), mended=True)
    x = torch.tensor([[1.0, 0, 0, 0], [2, 1, 0, 0], [0, 0, 3, 4], [1, 0, 0, 0]])
    contexts = torch.tensor([0, 0, 1, 1])
    batch = sae_bench_core._Batch(x, x, contexts, 2)
    variance = Variance(4, CPU)
    variance.add(x)
    activity.add(batch)
    found, latents = activity.figures(variance), activity.latents()
    assert found["l0"] == (1 + 2 + 1 + 1) / 4
    assert found["l1"] == 2 * (1 + 3 + 3 + 1) / 4  # weighed by decoder norms of 2
    # x̂ = 2 x on the first three dimensions.
    squared = [1, 5, 9 + 16, 1]
    assert found["mse"] == pytest.approx(sum(squared) / 4 / 4)
    mean = torch.tensor([1, 0.25, 0.75, 1])
    total = x.square().sum(dim=-1).mean() - mean.square().sum()
    assert found["explained_variance"] == pytest.approx(1 - sum(squared) / 4 / total.item())
    assert latents["feature_density"].tolist() == [0.75, 0.25, 0.25, 0]
    heuristic = latents["consistent_activation_heuristic"].tolist()
    assert heuristic[:3] == [1.5, 1, 1]
    assert math.isnan(heuristic[3])
    assert sae_bench_core.misc(latents)["frac_alive"] == 0.75
    assert sae_bench_core.misc(latents)["freq_over_10_percent"] == 0.75


def test_what_is_wrong_in_sae_bench_can_be_kept():
    activity = sae_bench_core._Activity(Rounded(4), FakeLM(), mended=False)
    x = torch.tensor([[1.0, 0, 0, 0], [2, 1, 0, 0]])
    activity.add(sae_bench_core._Batch(x, x, torch.tensor([0, 0]), 1))
    found = activity.figures(Variance(4, CPU))
    assert found["mse"] == (1 + 5) / 2 / 2  # once more divided by the tokens
    of_all = (1 + 5) / 2 / 4  # the mean of all x²
    assert found["explained_variance"] == pytest.approx(1 - 3 / (3 - of_all**2))


def test_what_is_not_defined_is_no_number():
    assert math.isnan(recovered(2.0, 2.0, 2.0))
    assert math.isnan(Mean().value)
    alone = largest_cosines(torch.ones(1, 4))  # of no other row
    assert not alone.isfinite().any()
    activity = sae_bench_core._Activity(Rounded(4), FakeLM(), mended=True)
    none = torch.zeros(0, 4)
    nothing = sae_bench_core._Batch(none, none, torch.zeros(0, dtype=torch.long), 1)
    activity.add(nothing)
    ones = torch.ones(2, 4)
    activity.add(sae_bench_core._Batch(ones, ones, torch.tensor([0, 0]), 1))
    assert activity.bias.value == 2


def test_largest_cosines_leave_out_the_row_itself():
    rows_FD = torch.tensor([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
    half = 0.5**0.5
    assert largest_cosines(unit(rows_FD)).tolist() == pytest.approx([half, half, half, 0])


def test_largest_cosines_in_blocks(monkeypatch):
    for module in (directions, pairs):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    rows_FD = unit(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    all_FF = (rows_FD @ rows_FD.T).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(largest_cosines(rows_FD), all_FF.amax(dim=1))
    assert pairs.pairs_multiplied(8) == 3 * 8 + 3 * 5 + 2 * 2


def test_largest_cosines_with_others():
    these = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    those = torch.tensor([[0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]])
    assert largest_cosines(these, those).tolist() == pytest.approx([0.8, 0.96])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_identity_recovers_all_and_zeros_nothing(tmp_path, dtype):
    lm = LanguageModel(Weights("demo", DEMO_LM, None, dtype), Hookpoint(3), CPU, whole=True)
    text = tokens(tmp_path, DOCUMENTS)
    identity = baselines.Linear(torch.eye(128), torch.zeros(128))
    codecs = {"identity": identity, "nothing": Nothing()}
    found = judge_by(recipe(), codecs, lm, text, "test")
    assert found["identity"].figures["frac_recovered"] == 1.0
    assert found["identity"].figures["frac_variance_explained"] == 1.0
    assert found["nothing"].figures["frac_recovered"] == 0.0
    assert found["nothing"].figures["cossim"] == 0
    assert math.isnan(found["nothing"].figures["relative_reconstruction_bias"])


def test_core_of_an_identity_and_of_zeros(lm, tmp_path):
    text = tokens(tmp_path, [[0, *range(i, i + 7)] for i in range(3, 7)])
    identity = baselines.Linear(torch.eye(128), torch.zeros(128))
    found = judge_by(core_recipe(), {"identity": identity}, lm, text, "test")
    figures = found["identity"].figures
    assert figures["kl_div_with_sae"] == pytest.approx(0, abs=1e-6)
    assert figures["kl_div_score"] == pytest.approx(1)
    assert figures["ce_loss_score"] == pytest.approx(1)
    assert figures["explained_variance"] == pytest.approx(1)
    assert figures["total_tokens_eval_reconstruction"] == 16


def test_zeros_are_judged_in_every_context_where_tokens_are_still_seen(lm, tmp_path, monkeypatch):
    """An LM whose logits tell contexts apart though its layer gives zeros, three positions a
    part."""
    monkeypatch.setattr(llm_model, "LOGITS_TOGETHER", {"cpu": 3})
    text = tokens(tmp_path, [[0, *range(i, i + 7)] for i in range(3, 7)])
    contexts = next(text.contexts(4))
    run_with = LanguageModel.run_with

    def telling(self, contexts, hidden, before=None):
        return run_with(self, contexts, hidden + contexts.ids[..., None], before)

    monkeypatch.setattr(LanguageModel, "run_with", telling)
    found = list(sae_bench_core._without_site(lm, contexts, lm.run(contexts)))
    zeros = torch.zeros(4, 8, 128)
    for one, expected in zip(found, telling(lm, contexts, zeros), strict=True):
        assert one.equal(expected)
    assert not found[0].equal(found[3])


@pytest.mark.parametrize("defects", ["mended", "kept"])
def test_core_behaviour_equals_a_plain_computation(lm, tmp_path, defects):
    """Loss and divergence by hand on whole logits; BOS (0) and EOS (9) keep their activation."""
    documents = [[0, 3, 9, 5, 6], [0, 8, 7, 6, 9], [0, 1, 2, 3, 4], [0, 4, 3, 2, 1]]
    text = tokens(tmp_path, documents, eos=9)
    codec = Rounded()
    found = judge_by(core_recipe(defects=defects), {0: codec}, lm, text, "test")[0]
    first = next(text.contexts(2))
    run = lm.run(first)
    hidden, logits = run.written_BLD, run.logits
    counted = (first.ids != 0) & (first.ids != 9)
    spliced = hidden.where(~counted[..., None], codec.decode(codec.encode(hidden)))
    logp = torch.stack(list(logits)).log_softmax(-1)
    for name, put in {"sae": spliced, "ablation": 0 * hidden}.items():
        logits = lm.run_with(first, put)
        logq = torch.stack(list(logits)).log_softmax(-1)
        kl = (logp.exp() * (logp - logq)).sum(-1)[counted].mean()
        assert found.figures[f"kl_div_with_{name}"] == pytest.approx(kl.item(), rel=1e-5)
        losses = -logq[:, :-1].gather(2, first.ids[:, 1:, None])[..., 0]
        assert found.figures[f"ce_loss_with_{name}"] == pytest.approx(
            losses[counted[:, :-1]].mean().item(), rel=1e-6
        )


def test_activations_that_are_no_numbers_are_refused(lm, tmp_path):
    lm.model.gpt_neox.layers[2].mlp.dense_h_to_4h.bias.fill_(torch.nan)
    text = tokens(tmp_path, DOCUMENTS)
    for asked in (recipe(), core_recipe()):
        with pytest.raises(Exception, match="here: the LM's activations are not finite"):
            judge_by(asked, {0: Rounded()}, lm, text, "here")


def test_principal_components_are_numpys(lm, demo_weights, tmp_path):
    text = tokens(tmp_path, DOCUMENTS)
    asked = BaselinesRecipe(
        version=1,
        tokens=tokens_recipe(),
        layer=3,
        llm_batch_contexts=2,
        pca_tokens=1000,
        cpu_threads=1,
    )
    path = tmp_path / "pca.safetensors"
    path.write_bytes(fit(demo_weights, text, asked))
    assert {fit(demo_weights, text, asked) for _ in range(4)} == {path.read_bytes()}
    x = torch.cat([lm.capture(one)[one.mask.bool()] for one in text.contexts(2)])
    centred = x.double().numpy() - x.double().numpy().mean(axis=0)
    kept = np.linalg.svd(centred, full_matrices=False)[2][:3]
    expected = centred @ kept.T @ kept + x.double().numpy().mean(axis=0)
    codec = baselines.load_codec(path, "pca/k_3", CPU)
    np.testing.assert_allclose(codec.decode(codec.encode(x)), expected, atol=1e-3)
    whole = baselines.load_codec(path, "pca", CPU)
    torch.testing.assert_close(whole.decode(whole.encode(x)), x, atol=1e-3, rtol=0)
    assert (codec.width, whole.width) == (3, 128)
    assert baselines.load_codec(path, "pca/k_999", CPU).width == 128


def test_packing_begins_contexts_and_documents_with_bos():
    documents = [(0, np.array([0, 1, 2, 3, 4])), (1, np.array([5])), (4, np.array([0, 6, 7, 8]))]
    found = [(row, ids.tolist()) for row, ids in packed(iter(documents), 4, 0, 0)]
    assert found == [(0, [0, 1, 2, 3]), (1, [0, 4, 0, 5]), (4, [0, 6, 7, 8])]
    without = [ids.tolist() for _, ids in packed(iter(documents), 4, None, None)]
    assert without == [[0, 1, 2, 3], [4, 5, 0, 6]]


class Tokenizer:
    def __init__(self, bos, eos, pad):
        self.bos_token_id, self.eos_token_id, self.pad_token_id = bos, eos, pad


def test_what_stands_for_a_missing_special_token_is_said():
    assert special_tokens(Tokenizer(1, 2, 3)) == {"bos": 1, "eos": 2, "pad": 3, "notes": []}
    found = special_tokens(Tokenizer(None, 2, None))
    assert (found["bos"], found["pad"]) == (2, 2)
    assert found["notes"] == [
        "the tokenizer has no BOS: EOS (2) stands for it",
        "the tokenizer has no PAD: EOS (2) stands for it",
    ]
    assert special_tokens(Tokenizer(None, None, None))["notes"] == [
        "the tokenizer has no EOS",
        "the tokenizer has no BOS: none is used",
        "the tokenizer has no PAD: none is used",
    ]


def test_the_published_schema_is_the_rows_own():
    assert (PROJECT / "docs" / "metrics.schema.json").read_text() == rows.schema()


def test_rows_of_two_evaluations_join_and_make_one_table():
    subject = {
        "name": "demo/L3/top_k/1k/k_8",
        "model": "demo",
        "layer": 3,
        "architecture": "top_k",
        "width": "1k",
        "latents": 1024,
        "sparsity": "k_8",
        "steps": 10,
        "tokens": 20,
    }
    made = {
        "recipe_hash": "",
        "split": "",
        "held_out": True,
        "documents": 1,
        "tokens": 1,
        "context_tokens": 1,
        "special_tokens": {},
        "sha256": "",
    }
    figures = {
        "dictionary_learning": dict.fromkeys(DictionaryLearningFigures.model_fields, 0.5),
        "sae_bench_core": dict.fromkeys(SaeBenchCoreFigures.model_fields, 1),
    }
    files = [
        rows.content(
            [
                rows.row_type().model_validate(
                    {
                        **subject,
                        "inference": way,
                        name: figures[name],
                        "warnings": [name],
                        "evaluations": {name: made},
                    }
                )
                for way in ("top_k", "threshold")
            ]
        )
        for name in figures
    ]
    joined = rows.content(rows.joined([rows.read(file) for file in files]))
    jsonschema.validate(json.loads(joined), json.loads(rows.schema()))
    table = pd.json_normalize(json.loads(joined))
    assert table["inference"].tolist() == ["top_k", "threshold"]
    assert table["dictionary_learning.frac_recovered"].tolist() == [0.5, 0.5]
    assert table["sae_bench_core.mse"].tolist() == [1, 1]
    assert table["warnings"].tolist() == [["dictionary_learning", "sae_bench_core"]] * 2
    assert rows.content(rows.read(joined)) == joined


def test_the_registry_refuses_an_evaluation_that_lacks_something():
    class Half(evaluation.TextEvaluation):
        name, version, label = "half", 1, "half"
        Settings = Figures = Closed

    with pytest.raises(ValueError, match="the evaluation lacks cost, text"):
        evaluation.register(Half)
    assert "half" not in evaluation.names()
