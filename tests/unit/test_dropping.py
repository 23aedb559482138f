"""Positions that are left out: which, of what they are counted, and what becomes of them."""

import json

import pytest
import torch
from conftest import CONFIG_FILE, DEMO_IN_BFLOAT16, PROJECT, SMALL, merged, raw_config
from texts import tokenised
from unit.test_buffer import make as make_buffer
from unit.test_evaluation import DOCUMENTS, Nothing, Rounded, core_recipe, recipe, tokens
from unit.test_evaluation import lm as lm  # a fixture

from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.activations.drop_settings import Drop, TrainingDrop
from saemake.activations.dropping import Dropping
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import load_tokenizer, token_losses
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.judging import (
    baseline_evaluation_recipes,
    evaluation_recipe,
    sae_evaluation_recipe,
)
from saemake.recipes.training import baselines_recipe, sae_recipe
from saemake.text.shards import Contexts

CPU = torch.device("cpu")


def context(rows):
    """One batch; 0 is padding, and the activation of a token its id along one axis."""
    ids = torch.tensor(rows)
    return Contexts(ids, (ids > 0).long())


def capture(contexts):
    hidden = torch.zeros(*contexts.ids.shape, 2)
    hidden[..., 0] = contexts.ids
    return hidden


def kept(rows, **drop):
    """The ids that are kept."""
    contexts = context(rows)
    return contexts.ids[Dropping(**drop).kept(contexts, capture(contexts))].tolist()


def test_padding_alone_is_left_out_by_default():
    assert kept([[1, 2, 0], [3, 4, 5]]) == [1, 2, 3, 4, 5]


def test_tokens_are_left_out_by_their_ids():
    assert kept([[1, 2, 0], [1, 4, 5]], ids=[1, 5]) == [2, 4]


def test_the_median_is_the_lower_middle_of_what_is_neither_padding_nor_left_out_by_its_id():
    # Norms 2, 3, 5, 40: the lower middle is 3, and 5 is under twice that. With the padding's 0s or
    # the 900 the median would be another, and so would what is kept.
    rows = [[900, 2, 3, 0, 0, 0], [900, 5, 40, 0, 0, 0]]
    assert kept(rows, ids=[900], norm_over_median=2.0) == [2, 3, 5]
    assert kept(rows, ids=[900], norm_over_median=1.5) == [2, 3]
    assert kept(rows, ids=[900], norm_over_median=14.0) == [2, 3, 5, 40]


def test_a_norm_at_the_bound_is_kept():
    assert kept([[2, 2, 20]], norm_over_median=10.0) == [2, 2, 20]
    assert kept([[2, 2, 21]], norm_over_median=10.0) == [2, 2]


def test_a_batch_of_nothing_but_dropped_tokens_is_empty():
    assert kept([[1, 1], [1, 0]], ids=[1], norm_over_median=10.0) == []


def test_what_is_no_number_is_not_left_out():
    contexts = context([[1, 2, 3]])
    hidden = capture(contexts)
    hidden[0, 2, 1] = torch.nan
    assert Dropping(norm_over_median=2.0).kept(contexts, hidden).tolist() == [[True] * 3]


def buffer_of(rows, batch, **drop):
    """Of LM batches that are given."""
    return ActivationBuffer(
        ((each, capture(each)) for each in map(context, rows)),
        d_model=2,
        capacity_tokens=1000,
        batch_tokens=batch,
        seed=0,
        dtype=torch.float32,
        device=CPU,
        dropping=Dropping(**drop),
    )


ROWS = [[[900, 3, 4], [900, 3, 0]], [[900, 4, 4], [900, 50, 0]]]


def test_the_buffer_gives_what_is_kept_and_nothing_else():
    found = buffer_of(ROWS, 6, ids=[900]).batch()[:, 0].tolist()
    assert sorted(found) == [3, 3, 4, 4, 4, 50]
    found = buffer_of(ROWS, 5, ids=[900], norm_over_median=10.0).batch()[:, 0].tolist()
    assert sorted(found) == [3, 3, 4, 4, 4]


def test_the_norm_factor_is_of_what_is_kept():
    whole = buffer_of(ROWS, 10)
    assert norm_factor(iter(whole.batch, None), 1) == pytest.approx(
        ((4 * 900**2 + 50**2 + 2 * 9 + 3 * 16) / 10) ** 0.5
    )
    some = buffer_of(ROWS, 5, ids=[900], norm_over_median=10.0)
    assert norm_factor(iter(some.batch, None), 1) == pytest.approx(((2 * 9 + 3 * 16) / 5) ** 0.5)


def test_a_text_that_ends_too_early_says_what_was_left_out_and_what_to_set():
    buffer = buffer_of(ROWS, 6, ids=[900], norm_over_median=10.0)
    with pytest.raises(SaemakeError) as raised:
        buffer.batch()
    # 1 of the 6 that are no BOS: a fifth more would just do.
    assert str(raised.value) == (
        "the tokenised text has ended with 5 tokens left, fewer than a batch of 6;"
        " training.drop.norm_over_median 10 has left out 16.7% of the positions, more than was"
        " tokenised for it: set training.drop.reserve to 0.22, or norm_over_median higher"
    )


def test_a_buffer_goes_on_where_it_was():
    rows = [[[900, n, n + 1, 40 * n]] for n in range(2, 40)]
    drop = {"ids": [900], "norm_over_median": 10.0}

    def small(batches):
        buffer = buffer_of(batches, 4, **drop)
        buffer.capacity_tokens = 16
        return buffer

    whole = small(rows)
    draws = [whole.batch()[:, 0].tolist() for _ in range(18)]
    first = small(rows)
    assert [first.batch()[:, 0].tolist() for _ in range(7)] == draws[:7]
    second = small(rows[first.batches_read :])
    second.load_state(first.state())
    assert [second.batch()[:, 0].tolist() for _ in range(11)] == draws[7:]
    assert (second.kept, second.counted) == (whole.kept, whole.counted)
    assert 0.3 < whole.dropped_by_norm < 0.4


def test_a_buffer_without_a_drop_is_as_before():
    draws = [make_buffer([7, 3, 5, 8]).batch()[:, 0].tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    assert make_buffer([7, 3, 5, 8]).dropping == Dropping()


# Recipes


def config_of(drop=None, *, demo=None, **sections):
    over = merged({"training": {"drop": drop or {}}}, sections)
    return read(raw_config(merged({"models": {"demo": demo or {}}}, over)), PROJECT, [CONFIG_FILE])


def test_nothing_dropped_is_not_in_a_recipe():
    off = {"bos": False, "special": False, "norm_over_median": None}
    for drop in ({}, off, {"reserve": 0.3}, {**off, "reserve": 0.0}):
        config = config_of(drop, evaluations={"sae_bench_core": {"drop": off}})
        sae = sae_recipe(config, SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8))
        assert "drop" not in sae.model_dump(mode="json")["training"]
        assert "dropped" not in sae.model_dump(mode="json")["tokens"]
        core = evaluation_recipe(config, "demo", "sae_bench_core", sae.hash)
        assert "drop" not in core.settings
        assert "drop" not in baselines_recipe(config, "demo", Hookpoint(3)).model_dump()


# As commit d66b93a has them, which knew of no drop.
RECORDED = {
    (
        "demo",
        3,
        "top_k",
        "1k",
        8,
    ): "e3ee884ebbdf846063e586d68db67c4c0ba755ade573edc0f724d395814f53ed",
    (
        "demo",
        3,
        "standard_new",
        "1k",
        0.1,
    ): "a0120d9f91d57a6d3047a45c828e3a96729e4fc66ec5355e787c6bff40c86ea0",
    (
        "pythia-160m-deduped",
        8,
        "jump_relu",
        "16k",
        80,
    ): "dca705809ac98037f94743cbe20a94209044f0034b8d72b2b03ffafb40eca7da",
    (
        "gemma-2-2b",
        12,
        "matryoshka_batch_top_k",
        "65k",
        320,
    ): "3f30195be3f8e3e354ffb8f28fec80e142f128cd6e9b62385099f7a39a7b9e83",
}


@pytest.mark.parametrize(("place", "recorded"), RECORDED.items())
def test_hashes_are_those_from_before(place, recorded):
    config = read(raw_config(DEMO_IN_BFLOAT16), PROJECT, [CONFIG_FILE])
    model, layer, architecture, width, sparsity = place
    sweep = Sweep(model, Hookpoint(layer), architecture, width)
    assert sae_recipe(config, SaeName(sweep, sparsity)).hash == recorded


def test_evaluations_and_baselines_have_the_hashes_from_before(config):
    found = [
        tokens_recipe(config, "demo", "sae_bench_core").hash,
        baselines_recipe(config, "demo", Hookpoint(3)).hash,
        *(
            baseline_evaluation_recipes(config, "demo", Hookpoint(3), "pca", name)[0].hash
            for name in ("sae_bench_core", "dictionary_learning")
        ),
    ]
    assert [value[:16] for value in found] == [
        "33de4747aba9de35",
        "1b7c2e3f19f15edb",
        "e0a3cb4b4a9591dc",
        "dc81b00fff26c91f",
    ]


@pytest.mark.parametrize("drop", [{"bos": True}, {"special": True}, {"norm_over_median": 10}])
def test_a_drop_changes_what_is_trained_and_fitted(drop):
    before, after = config_of(), config_of(drop)
    name = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
    assert sae_recipe(before, name).hash != sae_recipe(after, name).hash
    assert (
        baselines_recipe(before, "demo", Hookpoint(3)).hash
        != baselines_recipe(after, "demo", Hookpoint(3)).hash
    )


@pytest.mark.parametrize("name", ["dictionary_learning", "sae_bench_core"])
@pytest.mark.parametrize("drop", [{"bos": True}, {"norm_over_median": 10}])
def test_an_evaluations_drop_changes_that_evaluation_alone(name, drop):
    before, after = config_of(), config_of(evaluations={name: {"drop": drop}})
    sae = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
    assert sae_recipe(before, sae) == sae_recipe(after, sae)
    for other in before.text_evaluations:
        same = (
            sae_evaluation_recipe(before, sae, other).hash
            == sae_evaluation_recipe(after, sae, other).hash
        )
        assert same == (other != name)


def test_a_model_changes_the_keys_of_a_drop_that_it_names():
    config = config_of({"bos": True}, demo={"training": {"drop": {"norm_over_median": 10}}})
    drop = config.training_of("demo").drop
    assert drop == TrainingDrop(bos=True, norm_over_median=10.0)
    assert config.training_of("gemma-2-2b").drop == TrainingDrop(bos=True)
    over = {"evaluations": {"sae_bench_core": {"drop": {"special": True}}}}
    assert config_of(demo=over).evaluation_of("demo", "sae_bench_core").drop == Drop(special=True)


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        ({"boss": True}, "'training.drop.boss': unknown; did you mean 'bos'"),
        ({"norm_over_median": 1}, "'training.drop.norm_over_median': input should be greater"),
        ({"reserve": 2}, "'training.drop.reserve': input should be less"),
        ({"bos": "yes"}, "'training.drop.bos': input should be a valid boolean"),
    ],
)
def test_a_wrong_drop_is_refused_by_its_key(drop, said):
    with pytest.raises(SaemakeError) as raised:
        config_of(drop)
    assert said in str(raised.value)


def test_a_reserve_is_tokenised_for_norms_only():
    needed = tokens_recipe(config_of(), "demo", "train").amount
    assert tokens_recipe(config_of({"bos": True}), "demo", "train").amount == needed
    norm = {"norm_over_median": 10, "reserve": 0.5}
    assert tokens_recipe(config_of(norm), "demo", "train").amount == 1.5 * needed


def test_a_reserve_is_in_a_recipe_for_norms_only():
    """The ids of tokens are counted exactly, and a reserve changes no byte."""
    name = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
    for drop, same in (({"bos": True}, True), ({"norm_over_median": 10}, False)):
        few, many = (config_of({**drop, "reserve": reserve}) for reserve in (0.05, 0.5))
        assert (sae_recipe(few, name).hash == sae_recipe(many, name).hash) == same


def test_a_drop_is_told():
    assert Drop(bos=True, norm_over_median=10).in_words == "bos, norms over 10 x the median"
    assert not Drop().in_words


# Text


def small(drop, **demo):
    over = {"models": {"demo": {"prepend_bos": True, **demo}}, "training": {"drop": drop}}
    return read(raw_config(merged(over, SMALL)), PROJECT, [CONFIG_FILE])


def test_dropped_tokens_do_not_count_towards_the_budget(demo_weights, tmp_path):
    plain = tokenised(small({}, train_tokens=102_400), demo_weights, "train", tmp_path)
    config = small({"bos": True}, train_tokens=102_400)
    text = tokenised(config, demo_weights, "train", tmp_path)
    (bos,) = text.manifest["dropped_ids"]
    assert bos == text.manifest["special_tokens"]["bos"]
    documents = list(text.documents())
    assert all(document[0] == bos for document in documents)
    assert max(map(len, documents)) == 256  # cut as ever
    wanted = tokens_recipe(config, "demo", "train").amount
    counts = [int((document != bos).sum()) for document in documents]
    assert sum(counts) - counts[-1] < wanted <= sum(counts)
    assert text.count > plain.count
    # What is judged after the training's documents begins after the last of these.
    assert text.manifest["rows_read"] > plain.manifest["rows_read"]
    buffer = ActivationBuffer(
        ((contexts, contexts.ids[..., None].float()) for contexts in text.alike(32)),
        d_model=1,
        capacity_tokens=8192,
        batch_tokens=512,
        seed=0,
        dtype=torch.float32,
        device=CPU,
        dropping=Dropping.of(config.training_of("demo").drop, text),
    )
    draws = torch.cat([buffer.batch() for _ in range(wanted // 512)])
    assert not (draws == bos).any()


def test_special_is_every_special_token_of_the_tokenizer(demo_weights, tmp_path):
    text = tokenised(small({"special": True}), demo_weights, "train", tmp_path)
    special = load_tokenizer(demo_weights).all_special_ids
    assert text.manifest["dropped_ids"] == sorted(
        {*special, text.manifest["special_tokens"]["bos"]}
    )


def test_a_text_that_is_too_short_says_how_many_tokens_count(demo_weights, tmp_path):
    norm = {"bos": True, "norm_over_median": 10, "reserve": 0.5}
    config = small(norm, train_tokens=4_000_000)
    with pytest.raises(SaemakeError) as raised:
        tokenised(config, demo_weights, "train", tmp_path)
    said = str(raised.value)
    assert "of them of dropped ids) in" in said
    assert "with training.drop.reserve 0.5, ask for" in said
    fits = int(said.rsplit(" ", 1)[1].replace(",", ""))
    # Written down, that is enough.
    tokenised(small(norm, train_tokens=fits), demo_weights, "train", tmp_path)
    with pytest.raises(SaemakeError):
        tokenised(small(norm, train_tokens=fits + 1024), demo_weights, "train", tmp_path)


# Evaluation: BOS is 0 in DOCUMENTS.


def judged(made, lm, folder, documents, drop, codec, **settings):
    text = tokens(folder, documents)
    text.manifest["dropped_ids"] = drop.pop("ids", [])
    wanted = made(drop=drop, **settings) if drop else made(**settings)
    return judge_by(wanted, {"one": codec}, lm, text, "test")["one"]


def test_dropped_positions_keep_their_activation_and_count_in_the_losses_only(lm, tmp_path):
    drop = {"bos": True, "ids": [0]}
    found = judged(recipe, lm, tmp_path, DOCUMENTS, drop, Nothing()).figures
    text = tokens(tmp_path, DOCUMENTS)
    clean, losses, zeroed, kept_activations = [], [], [], []
    for contexts in text.contexts(2):
        run = lm.run(contexts)
        hidden, logits = run.written_BLD, run.logits
        clean.append(token_losses(logits, contexts))
        keep = contexts.mask.bool() & (contexts.ids != 0)
        kept_activations.append(hidden[keep])
        hidden[keep] = 0
        losses.append(token_losses(lm.run_with(contexts, hidden), contexts))
        nothing = torch.zeros_like(hidden)
        zeroed.append(token_losses(lm.run_with(contexts, nothing), contexts))
    x = torch.cat(kept_activations).double()
    assert len(x) == sum(map(len, DOCUMENTS)) - len(DOCUMENTS)
    assert found["loss_original"] == pytest.approx(torch.cat(clean).double().mean().item())
    assert found["loss_reconstructed"] == pytest.approx(torch.cat(losses).double().mean().item())
    assert found["loss_zero"] == pytest.approx(torch.cat(zeroed).double().mean().item())
    assert found["loss_zero"] != pytest.approx(found["loss_reconstructed"], abs=1e-3)
    assert found["l2_loss"] == pytest.approx(x.norm(dim=-1).mean().item(), rel=1e-6)


def test_figures_are_of_what_is_kept(lm, tmp_path):
    every = judged(recipe, lm, tmp_path, DOCUMENTS, {}, Rounded())
    drop = {"bos": True, "ids": [0]}
    some = judged(recipe, lm, tmp_path, DOCUMENTS, drop, Rounded())
    first = torch.cat([lm.capture(c)[:, 0] for c in tokens(tmp_path, DOCUMENTS).contexts(2)])
    active = (first[:, :3] > 0).sum().item()
    count = sum(map(len, DOCUMENTS))
    left = every.figures["l0"] * count - active
    assert some.figures["l0"] == pytest.approx(left / (count - len(DOCUMENTS)))


@pytest.mark.parametrize("made", [recipe, core_recipe])
def test_an_lm_whose_every_position_is_dropped_but_few_is_almost_untouched(made, lm, tmp_path):
    documents = [[0, 5, 9, 12, 700, 3, 8, 1], [0, 44, 2, 7, 5, 9, 12, 700]]
    ids = sorted({token for document in documents for token in document} - {44})
    names_of = {
        recipe: ("loss_original", "loss_reconstructed", "loss_zero", "l0"),
        core_recipe: (
            "ce_loss_without_sae",
            "ce_loss_with_sae",
            "ce_loss_with_ablation",
            "l0",
        ),
    }[made]
    plain = judged(made, lm, tmp_path, documents * 2, {}, Nothing()).figures
    dropped = {"special": True, "ids": ids}
    found = judged(made, lm, tmp_path, documents * 2, dropped, Nothing()).figures
    clean, replaced, zero, _ = names_of
    # The same predictions as without a drop, and the same ablation.
    assert found[clean] == plain[clean]
    assert found[zero] == plain[zero]
    assert abs(found[replaced] - found[clean]) < 0.3 * abs(plain[replaced] - plain[clean])
    assert found[replaced] != found[clean]


def test_core_drops_norms_besides_its_own_special_tokens(lm, tmp_path):
    documents = [[0, 5, 9, 12, 700, 3, 8, 1], [0, 44, 2, 7, 5, 9, 12, 700]] * 2
    plain = judged(core_recipe, lm, tmp_path, documents, {}, Rounded()).figures
    drop = {"norm_over_median": 1.1}
    found = judged(core_recipe, lm, tmp_path, documents, drop, Rounded()).figures
    hidden = lm.capture(Contexts(torch.tensor(documents), torch.ones(4, 8, dtype=torch.long)))[2:]
    norm = hidden.norm(dim=-1)
    bound = 1.1 * norm.flatten().sort().values[7]
    keep = (norm <= bound) & (torch.tensor(documents)[2:] != 0)
    assert 0 < keep.sum() < 14
    assert found["l2_norm_in"] == pytest.approx(norm[keep].mean().item())
    assert plain["l2_norm_in"] == pytest.approx(norm[:, 1:].mean().item())
    assert found["ce_loss_without_sae"] == plain["ce_loss_without_sae"]


def test_a_recipe_says_what_is_left_out_of_training():
    plain = Training.model_validate_json(json.dumps(TRAINING))
    assert "drop" not in plain.model_dump()
    some = plain.model_copy(update={"drop": TrainingDrop(bos=True)})
    assert some.model_dump(mode="json")["drop"]["bos"] is True


TRAINING = {
    "recipe": "saebench",
    "seed": 0,
    "batch_tokens": 4,
    "norm_batches": 1,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "decay_start_fraction": 1,
    "autocast": "float32",
    "cpu_threads": 1,
}
