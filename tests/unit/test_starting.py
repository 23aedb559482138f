"""Training that begins with the weights of another SAE (training.start_from)."""

import itertools
import json

import pytest
import torch
import yaml
from conftest import CONFIG_FILE, PROJECT, SMALL, merged, raw_config
from texts import tokenised
from unit.test_architectures import SPARSITY, data, make
from unit.test_snapshots import Killed, go, kill_before, stored

from saemake import architectures
from saemake.architectures import loading
from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.jobs import turns
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.paths import files as of_model
from saemake.paths.command_words import check_target
from saemake.paths.names import SaeName, Sweep
from saemake.paths.starts import check_suites, source_files, start_of
from saemake.paths.sweeps import members
from saemake.plan.stored import Stored
from saemake.plan.work import work
from saemake.publishing import card
from saemake.recipes.training import lm_run_key, sae_recipe, stream_key
from saemake.training import files
from saemake.training.members import Start, Stores, Wanted
from saemake.training.streams import scale_all, streams
from saemake.training.train import Inputs

DEMO = raw_config(SMALL)["models"]["demo"]


def entry(start_from, **more):
    """A model entry like the demo's whose SAEs start from others."""
    return merged({"training": {"start_from": start_from}, **more}, DEMO)


def config_of(**entries):
    """The small config with these model entries; a string is where the SAEs of one start from."""
    models = {
        name: entry(said) if isinstance(said, str) else said for name, said in entries.items()
    }
    config = read(raw_config(merged({"models": models}, SMALL)), PROJECT, [CONFIG_FILE])
    check_suites(config)
    return config


def sae(model, architecture="top_k", sparsity=4, layer=3, width="256", seed=None):
    return SaeName(Sweep(model, Hookpoint(layer), architecture, width), sparsity, seed)


# Names.


@pytest.mark.parametrize(
    ("path", "name", "source"),
    [
        ("results/demo/{sae}", sae("tuned"), "results/demo/L3/top_k/256/k_4"),
        ("results/demo/{sae}", sae("tuned", seed=3), "results/demo/L3/top_k/256/k_4/seed_3"),
        (
            "results/demo/{place}/{architecture}/{width}/{sparsity}",
            sae("tuned", seed=3, layer=2),
            "results/demo/L2/top_k/256/k_4",
        ),
        ("results/demo/L3/top_k/{width}/k_7", sae("tuned"), "results/demo/L3/top_k/256/k_7"),
        ("results/demo/L3/top_k/256/k_7/ae.pt", sae("tuned"), "results/demo/L3/top_k/256/k_7"),
        (
            "results/demo/{place}/top_k/{width}/{sparsity}",
            sae("tuned", "batch_top_k"),
            "results/demo/L3/top_k/256/k_4",
        ),
    ],
)
def test_placeholders_stand_for_the_parts_of_the_path_that_is_trained(path, name, source):
    over = {"suite": {"layers": [3], "architectures": ["top_k"], "widths": ["256"]}}
    config = config_of(tuned=entry(path, **over))
    assert str(start_of(config, name)) == f"{source}/ae.pt"
    assert source_files(config, [name, name]) == [
        f"{source}/{file}" for file in ("ae.pt", "config.json", "provenance.json")
    ]


def test_a_published_sae_is_a_source_of_its_own_key():
    width = {"suite": {"layers": [8], "architectures": ["top_k"], "widths": ["4k"]}}
    published = raw_config()["models"]["pythia-160m-deduped"]
    path = "published/pythia-160m-deduped/{sae}"
    over = {"tuned": merged({"training": {"start_from": path}, **width}, published)}
    raw = raw_config({"models": over})
    config = read(raw, PROJECT, [CONFIG_FILE])
    check_suites(config)
    name = sae("tuned", sparsity=20, layer=8, width="4k")
    assert source_files(config, [name])[-1].endswith("top_k/4k/k_20/source.json")
    first = sae_recipe(config, name)
    entry = "adamkarvonen/saebench_pythia-160m-deduped_width-2pow12_date-0108"
    pinned = read(merged({"published": {"revisions": {entry: "v2"}}}, raw), PROJECT, [])
    assert sae_recipe(pinned, name).start_from != first.start_from
    # The plan trains nothing for it, and a run of it holds the lock of the published commits.
    assert turns.touched(config, ["results/tuned/L8/top_k/4k/k_20/ae.pt"]) == sorted(
        ["_published", "pythia-160m-deduped", "tuned"]
    )
    fetched = of_model.fetched_files(config, "tuned")
    assert "published/pythia-160m-deduped/L8/top_k/4k/k_20/source.json" in fetched


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"tuned": "results/tuned/{sae}"}, "SAEs of tuned cannot start from SAEs of tuned"),
        (
            {"a": "results/b/{sae}", "b": "results/c/{sae}", "c": "results/a/{sae}"},
            "a circle: a starts from b starts from c starts from a",
        ),
        ({"tuned": "results/dem/{sae}"}, "no model 'dem'; did you mean 'demo'?"),
        ({"tuned": "demo/L3/top_k"}, "'demo/L3/top_k' is no path of an SAE"),
        ({"tuned": "results/../../etc/passwd"}, "no model '..'"),
        ({"tuned": "results/demo/{seed}"}, "no placeholder {seed}"),
        ({"tuned": "results/demo/{sae.sweep}"}, "no placeholder {sae.sweep}"),
        ({"tuned": "results/demo/{sae"}, "a brace that belongs to no placeholder"),
        ({"tuned": "results/demo/L9/top_k/256/k_4"}, "demo has layers L0 to L5, not L9"),
        ({"tuned": "results/demo/model.json"}, "results/demo/model.json"),
        ({"tuned": "results/demo/L3/top_k/256"}, "not a file of a sweep"),
        ({"tuned": "results/demo/L3/top_k/512/k_4"}, "it has 512 latents, not 256"),
        (
            {"tuned": "results/demo/L3/gated/256/penalty_0.1"},
            "gated has other weights than top_k, which takes those of top_k, batch_top_k",
        ),
        ({"tuned": "results/demo/L3.mlp_in-mlp_out/top_k/256/k_4"}, "it is a transcoder, not"),
        ({"tuned": "published/demo/{sae}"}, "no SAE of demo/L3 is published"),
    ],
)
def test_what_cannot_be_started_from_is_said_in_one_line(entries, words):
    with pytest.raises(SaemakeError) as raised:
        config_of(**entries)
    assert words in str(raised.value)
    assert "start_from" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_lms_of_other_widths_are_told_apart_where_the_config_knows_them():
    pythia = raw_config()["models"]["pythia-160m-deduped"]
    path = "results/gemma-2-2b/L12/top_k/4k/k_20"
    over = {"tuned": merged({"training": {"start_from": path}}, pythia)}
    over["tuned"]["suite"] = {"layers": [8], "architectures": ["top_k"], "widths": ["4k"]}
    with pytest.raises(SaemakeError, match="its LM is 2304 wide, not 768"):
        check_suites(read(raw_config({"models": over}), PROJECT, [CONFIG_FILE]))


def test_a_target_outside_the_suite_is_checked_too():
    suite = {"architectures": ["top_k"]}
    config = config_of(tuned=entry("results/demo/{place}/top_k/{width}/k_4", suite=suite))
    check_target(config, "results/tuned/L3/batch_top_k/256/k_4/ae.pt")
    with pytest.raises(SaemakeError, match="top_k has other weights than gated"):
        check_target(config, "results/tuned/L3/gated/256/penalty_0.1/metrics.json")


# Recipes, plans, turns.


def test_the_source_is_in_the_recipe_and_only_where_there_is_one():
    config = config_of(tuned="results/demo/{sae}", again="results/tuned/{sae}")
    drawn, tuned, again = (sae_recipe(config, sae(m)) for m in ("demo", "tuned", "again"))
    assert "start_from" not in drawn.model_dump(mode="json")
    assert tuned.start_from == drawn.hash
    assert again.start_from == tuned.hash
    assert len({drawn.hash, tuned.hash, again.hash}) == 3
    assert "start_from" not in tuned.model_dump(mode="json")["training"]
    # Whatever changes the source makes stale what starts from it.
    changed = raw_config(merged({"models": {"tuned": entry("results/demo/{sae}")}}, SMALL))
    changed["models"]["demo"]["training"]["learning_rate"] = 2e-3
    other = read(changed, PROJECT, [CONFIG_FILE])
    assert sae_recipe(other, sae("tuned")).start_from != tuned.start_from
    # SAEs that start elsewhere train on the same run of the LM, and on the same batches.
    assert lm_run_key(tuned) == lm_run_key(drawn)
    assert stream_key(tuned) == stream_key(drawn)


def test_a_plan_and_a_run_know_what_a_chain_begins_with(tmp_path):
    config = config_of(tuned="results/demo/{sae}", again="results/tuned/{sae}")
    target = "results/again/L3/top_k/256/k_7/ae.pt"
    needed = work(config, [target], Stored(tmp_path))
    assert list(map(str, needed.train)) == [
        f"{model}/L3/top_k/256/k_7" for model in ("demo", "tuned", "again")
    ]
    assert needed.fetch == ["demo", "tuned", "again"]
    assert turns.touched(config, [target]) == ["again", "demo", "tuned"]
    assert {"results/demo/model.json", "results/tuned/tokens/train/manifest.json"} <= set(
        of_model.fetched_files(config, "again")
    )


def test_the_config_that_rebuilds_has_the_sources_too():
    config = config_of(tuned="results/demo/{sae}", again="results/tuned/{sae}")
    said = yaml.safe_load(rebuilding.config_yaml(config, "again"))
    rebuilt = read(merged(said, raw_config()), PROJECT, [CONFIG_FILE])
    for name in ("again", "tuned", "demo"):
        assert sae_recipe(rebuilt, sae(name)).hash == sae_recipe(config, sae(name)).hash
    assert "with other SAEs, those of `results/tuned/{sae}`" in card._starts(config, "again")
    assert card._starts(config, "demo") == ""


# Weights.


def shapes(name):
    return {key: tuple(value.shape) for key, value in make(name).dictionary.state_dict().items()}


@pytest.mark.parametrize("pair", list(itertools.combinations(architectures.names(), 2)))
def test_descriptions_say_which_architectures_have_the_same_weights(pair):
    first, second = map(architectures.get, pair)
    assert (first.weights_as() == second.weights_as()) == (shapes(pair[0]) == shapes(pair[1]))


@pytest.mark.parametrize("name", architectures.names())
def test_the_first_step_has_the_loss_of_the_source(name, tmp_path):
    source = make(name)
    for step, x in enumerate(data(20)):
        source.update(step, x)
    if name == "jump_relu":  # only training keeps latents below 0, over a threshold below 0
        source.dictionary.threshold.data.clamp_(min=0)
    raw = source.finished(3.0)
    if raw.inference == "threshold":  # training keeps the largest
        raw.inference = "top_k"
    x_raw = next(iter(data(1))) * 3
    expected = (x_raw - raw.decode(raw.encode(x_raw))).pow(2).sum(dim=1).mean() / 2.5**2

    tuned = make(name, seed=7)
    tuned.drawn = False
    tuned.begin_with(source.finished(3.0), 2.5)
    forward = tuned.update(0, x_raw / 2.5)
    assert forward.parts["l2"].item() == pytest.approx(expected.item(), rel=1e-5)
    # What it hands back before any step is the source.
    tuned = make(name, seed=7)
    tuned.begin_with(source.finished(3.0), 2.5)
    for key, value in tuned.finished(2.5).state_dict().items():
        torch.testing.assert_close(value, source.finished(3.0).state_dict()[key])


def test_a_threshold_is_taken_over_only_where_it_means_the_same():
    source = make("top_k")
    for step, x in enumerate(data(20)):
        source.update(step, x)
    raw = source.finished(3.0)
    assert raw.threshold > 0

    def begun(name, **settings):
        tuned = make(name, **settings)
        tuned.begin_with(source.finished(3.0), 2.0)
        return tuned.dictionary

    assert begun("top_k").threshold.item() == pytest.approx(raw.threshold.item() / 2)
    assert begun("batch_top_k").threshold == -1
    assert begun("batch_top_k").k == SPARSITY["batch_top_k"]
    SPARSITY["top_k"] += 1
    try:
        other = begun("top_k")
    finally:
        SPARSITY["top_k"] -= 1
    assert (other.threshold, other.k, other.kept) == (-1, 4, 4)


@pytest.mark.parametrize(
    ("source", "tuned", "words"),
    [
        (("top_k", {"width": 32}), ("top_k", {}), "its encoder.weight has the shape [32, 16], not"),
        (("top_k", {"d_model": 8}), ("top_k", {}), "it takes activations 8 wide, not 16"),
        (("gated", {}), ("top_k", {}), "its weights are decoder_bias, r_mag"),
        (("standard_new", {}), ("standard", {}), "standard keeps the decoder's directions"),
        (
            ("matryoshka_batch_top_k", {"group_fractions": [0.5, 0.5]}),
            ("matryoshka_batch_top_k", {"group_fractions": [0.25, 0.75]}),
            "its groups have [32, 32] latents, not [16, 48]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(source, tuned, words):
    kind, more = source
    given = make(kind, **more).finished(1.0)
    with pytest.raises(SaemakeError) as raised:
        make(tuned[0], **tuned[1]).begin_with(given, 1.0)
    assert words in str(raised.value)


# Whole passes on the demo.


@pytest.fixture(scope="module")
def inputs(demo_weights, tmp_path_factory):
    config = config_of()
    text = tokenised(config, demo_weights, "train", tmp_path_factory.mktemp("tokens"))
    return Inputs(demo_weights, {}, text)


def wanted(config, model, starts=None):
    saes = members(config, Sweep(model, Hookpoint(3), "top_k", "256"))
    return [
        Wanted(str(each), sae_recipe(config, each), (0,), start=starts and starts(each))
        for each in saes
    ]


def placed(config, saes, stores, folder):
    """The files of SAEs under a folder, and where another starts from them."""
    for each in saes:
        stores.saes.link(
            each.recipe.hash,
            {
                file: folder / each.name / file
                for file in ("ae.pt", "config.json", "provenance.json")
            },
        )

    def start(name):
        source = str(name).replace("tuned/", "demo/")
        recipe = next(each.recipe.hash for each in saes if each.name == source)
        return Start(folder / source, recipe)

    return start


def test_a_pass_goes_on_from_a_trained_sae_and_resumes_after_a_kill(
    inputs, demo_weights, tmp_path, monkeypatch
):
    config = config_of(tuned="results/demo/{sae}")
    base = wanted(config, "demo")
    go(base, inputs, tmp_path, config, seconds=1e9)
    start = placed(config, base, Stores.under(tmp_path), tmp_path / "results")
    tuned = wanted(config, "tuned", start)
    go(tuned, inputs, tmp_path / "straight", config, seconds=1e9)
    for at in (0, 17):
        with monkeypatch.context() as patch:
            kill_before(patch, at)
            with pytest.raises(Killed):
                go(tuned, inputs, tmp_path / f"killed-{at}", config)
        go(tuned, inputs, tmp_path / f"killed-{at}", config)
        assert stored(tuned, tmp_path / f"killed-{at}") == stored(tuned, tmp_path / "straight")

    # The first step's loss is the source's on the same activations.
    lm = LanguageModel(demo_weights, Hookpoint(3), torch.device("cpu"), whole=False)
    ((_, stream),) = streams([tuned[0].recipe], lm, inputs.tokens, None).items()
    scale_all([stream])
    x_raw = stream.pair()[0] * stream.scale
    saes = Stores.under(tmp_path / "straight").saes
    for each in tuned:
        source = loading.load(each.start.folder, "cpu", None)
        expected = (x_raw - source.decode(source.encode(x_raw))).pow(2).sum(dim=1).mean()
        rows = saes.read(each.recipe.hash, "training.csv").decode().splitlines()
        first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
        assert float(first["l2"]) == pytest.approx(expected.item() / stream.scale**2, rel=1e-4)
        said = json.loads(saes.read(each.recipe.hash, "provenance.json"))
        ours = json.loads((each.start.folder / "provenance.json").read_text())
        assert said["start_from"] == {
            "ae_sha256": ours["ae_sha256"],
            "recipe_hash": ours["recipe_hash"],
        }
        assert said["recipe"]["start_from"] == ours["recipe_hash"]
        # The checkpoint before step 0 is the source, but for rounding.
        kept = Stores.under(tmp_path / "straight").checkpoints
        of = {kept.read(key, "of_sae.txt").decode(): key for key in kept.entries()}
        key = of[each.recipe.hash]
        at_0 = torch.load(kept.folder / key / "ae.pt", weights_only=True)
        torch.testing.assert_close(at_0, dict(source.state_dict()))


def test_a_source_that_is_missing_edited_or_of_another_recipe_is_refused(inputs, tmp_path):
    config = config_of(tuned="results/demo/{sae}")
    base = wanted(config, "demo")
    go(base, inputs, tmp_path, config, seconds=1e9)
    start = placed(config, base, Stores.under(tmp_path), tmp_path / "results")
    tuned = wanted(config, "tuned", start)[:1]
    folder = tuned[0].start.folder

    def refused(words, each):
        with pytest.raises(SaemakeError, match=words):
            go([each], inputs, tmp_path / "tuned", config, seconds=1e9)

    gone = Start(tmp_path / "nowhere", tuned[0].recipe.start_from)
    refused("is not there, and training begins with it", Wanted("x", tuned[0].recipe, start=gone))
    other = Start(folder, base[1].recipe.hash)
    refused("its recipe is not the config's", Wanted("x", tuned[0].recipe, start=other))
    content = (folder / "ae.pt").read_bytes()
    (folder / "ae.pt").unlink()
    (folder / "ae.pt").write_bytes(content[:-1])
    refused("damaged", tuned[0])
    assert files.read_provenance(folder)


def test_a_published_sae_is_begun_with_from_its_own_files(inputs, tmp_path):
    config = config_of(tuned="results/demo/{sae}")
    base = wanted(config, "demo")[:1]
    go(base, inputs, tmp_path, config, seconds=1e9)
    folder = tmp_path / "published"
    saes = Stores.under(tmp_path).saes
    saes.link(base[0].recipe.hash, {f: folder / f for f in ("ae.pt", "config.json")})
    place = {"repository": "owner/name", "path": "trainer_0", "commit": "c0ffee"}
    sums = {"ae.pt": sha256(folder / "ae.pt")}
    (folder / "source.json").write_text(json.dumps({**place, "sha256": sums}))
    recipe = wanted(config, "tuned")[0].recipe
    tuned = [Wanted("tuned", recipe, start=Start(folder, None))]
    go(tuned, inputs, tmp_path / "tuned", config, seconds=1e9)
    said = json.loads(Stores.under(tmp_path / "tuned").saes.read(recipe.hash, "provenance.json"))
    assert said["start_from"] == {"ae_sha256": sums["ae.pt"], **place}
