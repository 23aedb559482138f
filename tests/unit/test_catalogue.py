"""The catalogue: 252 names both ways, what is fetched, and how two SAEs are compared."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, raw_config

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.commands import store
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.config.faults import ConfigError
from saemake.config.sections import Tolerances
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue as entries
from saemake.paths import files
from saemake.paths.command_words import check_target
from saemake.paths.files import hub_folder_files, suite_sweeps
from saemake.paths.grammar import parse, saes_in_hub, saes_of
from saemake.paths.names import SaeName, Sweep
from saemake.paths.sweeps import members
from saemake.plan import work as jobs
from saemake.published import compare, fetch
from saemake.recipes.judging import published_evaluation_recipes
from saemake.recipes.training import sae_recipe

EXAMPLE = (
    "hub/adamkarvonen/saebench_pythia-160m-deduped_width-2pow14_date-0108/"
    "TopK_pythia-160m-deduped__0108/resid_post_layer_8/trainer_2"
)
ODD = (
    "hub/canrager/saebench_gemma-2-2b_width-2pow14_date-0107/"
    "gemma-2-2b_batch_top_k_width-2pow14_date-0107/resid_post_layer_12"
)
TOLERANCES = Tolerances(l0=0.1, loss_recovered=0.005, decoder_cosine=0.9)


def saes_in(config: Config, path: str) -> list[SaeName]:
    """The SAEs of an artifact under hub/."""
    artifact = parse(config, path)
    return saes_in_hub(config, artifact)


@pytest.fixture(scope="module")
def published() -> Config:
    return read(raw_config(), PROJECT, [CONFIG_FILE])


def test_all_names_resolve_both_ways(published: Config) -> None:
    catalogue = entries.load(published)
    assert len(catalogue.entries) == 252
    for entry in catalogue.entries:
        name = catalogue.wanted(published, entry)
        assert catalogue.at(entry.hub_folder) == catalogue.named(str(name)) == entry
        check_target(published, f"{entry.hub_folder}/ae.pt")
        assert saes_in(published, f"{entry.hub_folder}/ae.pt") == [name]
        assert saes_of(published, f"{name.folder}/ae.pt") == [name]
        page = f"https://huggingface.co/{entry.repository}/tree/main/{entry.path}"
        assert entries.find(catalogue, page) == [entry]
        assert entries.find(catalogue, f"{name.folder}/ae.pt") == [entry]


def test_sparsities_are_what_was_measured(published: Config) -> None:
    """The trainers' order: a larger k or target has a larger L0, near it; a larger penalty a
    smaller one."""
    catalogue = entries.load(published)
    for sweep in catalogue.sweeps():
        swept = catalogue.of_sweep(sweep)
        assert len(swept) == 6
        l0 = [entry.figures["core_l0"] for entry in swept.values()]
        counts = architectures.get(sweep.architecture).sparsity in ("k", "l0")
        assert l0 == sorted(l0, reverse=not counts), sweep
        if architectures.get(sweep.architecture).sparsity == "k":
            for name, found in zip(swept, l0, strict=True):
                assert found == pytest.approx(name.sparsity, rel=0.15), name


def test_the_example_has_the_published_recipe(published: Config) -> None:
    (name,) = saes_in(published, f"{EXAMPLE}/ae.pt")
    assert name == SaeName(Sweep("pythia-160m-deduped", Hookpoint(8), "top_k", "16k"), 80)
    recipe = sae_recipe(published, name)
    assert (recipe.width, recipe.steps, recipe.training.seed) == (16_384, 244_140, 0)
    assert (recipe.training.learning_rate, recipe.training.batch_tokens) == (3e-4, 2048)
    assert recipe.tokens.text_hub == "monology/pile-uncopyrighted"
    assert recipe.tokens.context_tokens == 1024


def test_trainers_that_count_from_six(published: Config) -> None:
    found = [saes_in(published, f"{ODD}/trainer_{i}/config.json")[0] for i in range(6, 12)]
    assert [name.sparsity for name in found] == [20, 40, 80, 160, 320, 640]
    with pytest.raises(SaemakeError, match=r"trainer_5/ae.pt: .*did you mean"):
        check_target(published, f"{ODD}/trainer_5/ae.pt")


def test_folders_and_checkpoints(published: Config) -> None:
    repository = EXAMPLE.rsplit("/", 3)[0]
    assert len(saes_in(published, repository)) == 42
    assert len(saes_in(published, EXAMPLE.rsplit("/", 2)[0] + "/")) == 6
    laid_out = hub_folder_files(published, f"{EXAMPLE}/")
    assert laid_out == [f"{EXAMPLE}/{file}" for file in files.HUB_FILES]
    top_k = ODD.replace("batch_top_k", "top_k")
    (name,) = saes_in(published, f"{top_k}/trainer_0/checkpoints/ae_24414.pt")
    assert name.sparsity == 20
    assert not entries.load(published).has_folder("results/demo")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{EXAMPLE}/../trainer_3/ae.pt", r"'\.\.' cannot be part of a path"),
        (f"{EXAMPLE}/ae.bin", "no published SAE|no file"),
        (f"{EXAMPLE}/model.json", "a rebuilt SAE has no file 'model.json'"),
        (f"{EXAMPLE}/checkpoints/ae_5.pt", "no file 'checkpoints/ae_5.pt'"),
        (EXAMPLE.replace("0108", "0109") + "/ae.pt", f"did you mean '{EXAMPLE}'"),
        ("published/gemma-2-2b/L13/top_k/16k/k_80/ae.pt", "did you mean 'gemma-2-2b/L12'"),
        ("published/gemma-2-2b/L12/top_k/16k/k_81/ae.pt", "did you mean"),
        ("published/gemma-2-2b/L12/top_k/16k/k_80/ae.bin", "did you mean 'ae.pt'"),
        ("published/gemma-2-2b/L12/figures/decoder_mach.pdf", "did you mean 'decoder_match.pdf'"),
        ("published/gemma-2-2b/L12", "this is a folder"),
        ("published/repositories/adamkarvonen/saebench.json", "no such repository has published"),
    ],
)
def test_a_name_that_is_none(published: Config, path: str, said: str) -> None:
    with pytest.raises(SaemakeError, match=said) as raised:
        check_target(published, path)
    assert "\n" not in str(raised.value)


def test_published_names(published: Config) -> None:
    folder = "published/gemma-2-2b/L12/top_k/16k"
    for file in files.published_files(published):
        check_target(published, f"{folder}/k_80/{file}")
    check_target(published, f"{folder}/comparison.json")
    for suffix in ("pdf", "svg"):
        check_target(published, f"published/gemma-2-2b/L12/figures/rebuilt_and_published.{suffix}")


def test_a_published_sparsity_that_no_sweep_lists() -> None:
    """It is rebuilt by itself, with the recipe that it would have in a sweep."""
    over = {"architectures": {"top_k": {"sweep": [20, 40]}}}
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    whole = read(raw_config(), PROJECT, [CONFIG_FILE])
    for target in ("top_k/16k/comparison.json", "figures/rebuilt_and_published.pdf"):
        check_target(config, f"published/pythia-160m-deduped/L8/{target}")
    (name,) = saes_in(config, f"{EXAMPLE}/ae.pt")
    assert sae_recipe(config, name) == sae_recipe(whole, name)
    assert jobs.behind(config, [f"{name.folder}/ae.pt"]) == [jobs.Train(name)]


def test_a_published_sae_that_cannot_be_trained() -> None:
    late = {"top_k": {"threshold_start_step": 250_000}}
    model = {"suite": {"architectures": ["standard_new"]}, "architectures": late}
    over = {"models": {"pythia-160m-deduped": model}}
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    for target in ("top_k/16k/comparison.json", "figures/rebuilt_and_published.pdf"):
        with pytest.raises(SaemakeError, match=r"k_20: published, but not of this config: .*late"):
            check_target(config, f"published/pythia-160m-deduped/L8/{target}")


def test_a_second_name_of_a_width() -> None:
    """Whichever comes first in the config, the shorter is taken."""
    for widths in ({"wide": 16_384}, {"16k": 16_384, "awide": 16_384}):
        config = read(raw_config({"widths": widths}), PROJECT, [CONFIG_FILE])
        (name,) = saes_in(config, EXAMPLE)
        assert name.sweep.width == "16k"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("k_20", "k_20"), None),
        (("someone/saes", "someone/../saes"), "line 2: repository .* is no path on the Hub"),
        (("a/trainer_0", "../trainer_0"), "line 2: path .* is no path on the Hub"),
        (("someone/saes", "saes"), "line 2: repository 'saes' is not OWNER/NAME"),
        (("top_k,20", "topk,20"), "line 2: no architecture 'topk'; did you mean 'top_k'"),
        ((",20,", ",many,"), "line 2: 'many' is no sparsity of top_k"),
        ((",20,", ",20.5,"), "line 2: '20.5' is no sparsity of top_k"),
        (("layer", "leyer"), "its columns are model,leyer,.*; they should be model,layer,"),
        ((",,", ""), "line 2: it has not 14 fields"),
        (("demo,3", "demi,3"), "line 2: no model 'demi' in the config"),
        (("demo,3", "demo,6"), "line 2: demo has no layer 6"),
        ((",1024,", ",1000,"), "line 2: no width of 1000 latents in the config"),
        (("20.5,0.9", "20.5,nan"), "line 2: nan is no figure"),
        (("a/trainer_1", "a/trainer_0"), "the same place on the Hub on two lines"),
        ((",40,", ",20,"), "the same SAE on two lines"),
    ],
)
def test_a_catalogue_of_ones_own(tmp_path: Path, change: tuple[str, str], said: str | None) -> None:
    lines = [",".join(entries.COLUMNS)]
    for index, k in enumerate((20, 40)):
        lines.append(f"demo,3,1024,top_k,{k},someone/saes,a/trainer_{index},{k}.5,0.9,1,2,3,,")
    path = tmp_path / "catalogue.csv"
    path.write_text("\n".join(lines).replace(*change) + "\n")
    config = read(raw_config({"published": {"catalogue": str(path)}}), PROJECT, [CONFIG_FILE])
    if said is None:
        first = entries.load(config).at("hub/someone/saes/a/trainer_0")
        assert first.figures == {
            "core_l0": 20.5,
            "core_loss_recovered": 0.9,
            "core_ce_clean": 1,
            "core_ce_sae": 2,
            "core_ce_ablated": 3,
        }
        name = entries.load(config).wanted(config, first)  # 20 is in no sweep of the demo's
        assert str(name) == "demo/L3/top_k/1k/k_20"
    else:
        with pytest.raises(ConfigError, match=said):
            entries.load(config)


class Evil:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def entry_of(**over: Any) -> entries.Entry:
    said = {
        "model": "demo",
        "layer": 3,
        "latents": 6,
        "architecture": "top_k",
        "sparsity": 2,
        "repository": "someone/saes",
        "path": "a/trainer_0",
        "figures": {},
    }
    return entries.Entry(**{**said, **over})


def saved(state: Any) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


TRAINER = {
    "dict_class": "AutoEncoderTopK",
    "dict_size": 6,
    "layer": 3,
    "activation_dim": 4,
    "k": 2,
}


def state_of(**over: Any) -> dict[str, Any]:
    dictionary = architectures.get("top_k").trainer().make_dictionary(TRAINER)
    for weight in dictionary.parameters():  # fresh memory may hold what is no number
        torch.nn.init.ones_(weight)
    return {**dictionary.state_dict(), **over}


def test_what_is_fetched_is_checked(tmp_path: Path) -> None:
    check = fetch.check
    check(entry_of(), saved(state_of()), {"trainer": TRAINER})
    for key, value, said in [
        ("dict_class", "BatchTopKSAE", "dict_class is 'BatchTopKSAE', the catalogue says"),
        ("dict_size", 7, "dict_size is 7, the catalogue says 6"),
        ("layer", 2, "layer is 2, the catalogue says 3"),
        ("k", 4, "k is 4, the catalogue says 2"),
        ("activation_dim", "4", "its trainer describes no AutoEncoderTopK"),
    ]:
        with pytest.raises(SaemakeError, match=f"someone/saes/a/trainer_0/config.json: {said}"):
            check(entry_of(), saved(state_of()), {"trainer": {**TRAINER, key: value}})
    with pytest.raises(SaemakeError, match=r"encoder.bias has the shape \(7,\); expected \(6,\)"):
        check(entry_of(), saved(state_of(**{"encoder.bias": torch.zeros(7)})), {"trainer": TRAINER})
    with pytest.raises(SaemakeError, match=r"ae.pt: has .*more; expected"):
        check(entry_of(), saved(state_of(more=torch.zeros(1))), {"trainer": TRAINER})
    nan = {"encoder.bias": torch.full((6,), torch.nan)}
    with pytest.raises(SaemakeError, match=r"encoder.bias has values that are not finite"):
        check(entry_of(), saved(state_of(**nan)), {"trainer": TRAINER})
    with pytest.raises(SaemakeError, match=r"k is 3 in it and 2 in config.json"):
        check(entry_of(), saved(state_of(k=torch.tensor(3))), {"trainer": TRAINER})
    without = {key: value for key, value in TRAINER.items() if key != "activation_dim"}
    with pytest.raises(SaemakeError, match=r"config.json: its trainer has no 'activation_dim'"):
        check(entry_of(), saved(state_of()), {"trainer": without})
    with pytest.raises(SaemakeError, match="it has no 'trainer' section"):
        check(entry_of(), saved(state_of()), {})
    ran = tmp_path / "ran"
    evil = (saved(state_of(more=Evil(ran))), pickle.dumps(Evil(ran)))
    for content in (*evil, b"no pickle", b"hello", b"\x80\x02.", saved([1]), saved({"a": 1})):
        with pytest.raises(SaemakeError, match="refused, it is not tensors alone"):
            check(entry_of(), content, {"trainer": TRAINER})
    assert not ran.exists()


def test_decoder_match_sees_directions_only() -> None:
    kind = architectures.get("top_k")
    one, other = kind.trainer().make_dictionary(TRAINER), kind.trainer().make_dictionary(TRAINER)
    with torch.no_grad():
        one.decoder.weight.zero_()
        other.decoder.weight.zero_()
        for latent in range(6):
            one.decoder.weight[latent % 4, latent] = 1.0
            other.decoder.weight[latent % 2, latent] = 3.0
    match = compare.decoder_match(one, other)
    # All of the other's directions are among the first's; of the first's, those of 0 and 1 are
    # among the other's: latents 0, 1, 4 and 5.
    assert match["published_in_rebuilt"] == {"mean_max_cosine": 1.0, "fraction_above_0.9": 1.0}
    assert match["rebuilt_in_published"]["mean_max_cosine"] == pytest.approx(4 / 6)
    assert match["rebuilt_in_published"]["fraction_above_0.9"] == pytest.approx(4 / 6)
    assert not compare.same_weights(one, other)
    assert compare.same_weights(one, one)


def compared(l0: float | None, loss: float, of: float = 80.0) -> dict[str, Any]:
    figures = {
        "l0": {"rebuilt": l0, "published": of, "catalogue": None},
        "loss_recovered": {"rebuilt": loss, "published": 0.95, "catalogue": None},
    }
    return {"sae_bench_core": figures}


def test_deviations() -> None:
    assert compare.deviations(compared(87.9, 0.9541), "published", TOLERANCES) == (2, [])
    assert compare.deviations(compared(88.1, 0.95), "published", TOLERANCES) == (
        2,
        ["sae_bench_core: l0 88.1, published 80: more than 10% apart"],
    )
    assert compare.deviations(compared(80, 0.9449), "published", TOLERANCES) == (
        2,
        ["sae_bench_core: loss_recovered 0.9449, published 0.95: more than 0.005 apart"],
    )
    assert compare.deviations(compared(999, 0), "catalogue", TOLERANCES) == (0, [])
    # Each figure alone: what cannot be told of one is no word on the other.
    count, faults = compare.deviations(compared(None, 0), "published", TOLERANCES)
    assert (count, len(faults)) == (1, 1)


def test_verdicts() -> None:
    def match(cosine: float) -> dict[str, dict[str, float]]:
        return {way: {"mean_max_cosine": cosine} for way in ("one", "other")}

    assert compare.verdict(True, match(1), ["L0"], TOLERANCES) == "identical"
    assert compare.verdict(False, match(0.9), [], TOLERANCES) == "reproduced"
    assert compare.verdict(False, match(0.89), [], TOLERANCES) == "equivalent"
    assert compare.verdict(False, match(1), ["L0"], TOLERANCES) == "different"


def test_differing_fields() -> None:
    rebuilt = {"trainer": {"k": 2, "lr": 1e-3, "device": "cpu"}, "buffer": {"ctx_len": 8}}
    published = {"trainer": {"k": 2, "lr": 3e-4, "device": "cuda:0", "wandb_name": "x"}}
    assert compare.differing(rebuilt, published) == {
        "buffer.ctx_len": {"rebuilt": 8, "published": None},
        "trainer.lr": {"rebuilt": 1e-3, "published": 3e-4},
    }


def test_the_catalogue_names_what_names_knows(published: Config) -> None:
    """Every published SAE is one of the config's own suites."""
    suites = {
        sae
        for model in ("pythia-160m-deduped", "gemma-2-2b")
        for sweep in suite_sweeps(published, model, published.models[model].suite.hookpoints[0])
        for sae in members(published, sweep)
    }
    catalogue = entries.load(published)
    assert suites == {catalogue.name(entry) for entry in catalogue.entries}


def test_what_a_published_name_is_planned_as(published: Config) -> None:
    """Its sweep's training and evaluation, as under our name; a repository's, each once."""
    sweep = Sweep("pythia-160m-deduped", Hookpoint(8), "top_k", "16k")
    judged = jobs.Evaluate("dictionary_learning", sweep)
    assert jobs.behind(published, [f"{EXAMPLE}/ae.pt"]) == [judged]
    assert len(jobs.behind(published, [EXAMPLE.rsplit("/", 3)[0]])) == 7
    with pytest.raises(SaemakeError, match=f"{EXAMPLE}x: no published SAE of that name"):
        jobs.behind(published, [f"{EXAMPLE}x"])


def test_evaluations_of_published_ones_are_not_pruned(published: Config) -> None:
    catalogue, named = entries.load(published), store._named(published, [])["evaluations"]
    for entry in catalogue.entries[::50]:
        name = catalogue.wanted(published, entry)
        place = entry.hub_folder
        (recipe,) = published_evaluation_recipes(published, name, place, "sae_bench_core")
        assert recipe.subject in named
