"""SAEs of several widths, layers and seeds that train on one run of the LM are those of each alone;
and what shares one."""

import json

import pytest
import torch
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, merged, raw_config
from counted import lm_operations
from texts import tokenised
from transformers import AutoConfig
from unit.test_snapshots import Killed, go, kill_before, stored

from saemake import architectures
from saemake.activations.buffer import ActivationBuffer, fill
from saemake.activations.dropping import Dropping
from saemake.activations.shared import SharedCaptures
from saemake.base import devices
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.jobs import passes as noted
from saemake.llm.cost import Lm
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.shape import shape_of
from saemake.paths.files import suite_sweeps
from saemake.paths.names import SaeName, Sweep
from saemake.plan.judged_together import together as judged_together
from saemake.plan.messages import of_training
from saemake.plan.passes import Pass, cut, fewest, needed
from saemake.plan.stored import Stored
from saemake.plan.text import Texts, counted_lengths
from saemake.plan.totals import plan
from saemake.plan.work import Evaluate
from saemake.recipes.training import sae_recipe
from saemake.text.shards import Contexts
from saemake.training.members import Member, Stores, Wanted
from saemake.training.train import Conduct, FailedSaesError, Inputs, train_pass

CPU = torch.device("cpu")
ALL = ["sparsities", "widths", "architectures", "layers", "sites", "seeds"]
# Over this are some of the demo's norms, not as many at each layer: the buffers are filled at
# different steps.
DROP = {"models": {"demo": {"prepend_bos": True}}, "training": {"drop": {"bos": True}}}
DROP["training"]["drop"] |= {"norm_over_median": 1.4, "reserve": 0.5}


def config_of(over=None, *, share=ALL, memory_gib=None, devices_per_pass=1):
    passes = {"share": share, "memory_gib": memory_gib, "devices_per_pass": devices_per_pass}
    passes = {"passes": passes}
    widths = {"widths": {"128": 128}, "models": {"demo": {"suite": {"widths": ["256", "128"]}}}}
    return read(
        raw_config(merged(over or {}, merged(passes, merged(widths, SMALL)))),
        PROJECT,
        [CONFIG_FILE],
    )


def sae(architecture, layer=3, width="256", seed=None, place=0, site="resid_post"):
    k = architectures.get(architecture).example["sweep"][place]
    return SaeName(Sweep("demo", Hookpoint.at(layer, site), architecture, width), k, seed)


# Of each way in which SAEs of a pass may differ, more than one.
SAES = [
    sae("top_k"),
    sae("gated"),
    sae("batch_top_k", width="128"),
    sae("top_k", layer=1),
    sae("jump_relu", layer=5, width="128"),
    sae("top_k", seed=7),
    sae("top_k", site="mlp_out"),
    sae("top_k_skip", site="mlp_in-mlp_out"),
    sae("gated", site="resid_pre-mlp_out"),
]


def wanted(config, saes=SAES, steps=()):
    return [Wanted(str(each), sae_recipe(config, each), steps) for each in saes]


@pytest.fixture(scope="module")
def inputs(demo_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    return lambda config: Inputs(demo_weights, {}, tokenised(config, demo_weights, "train", folder))


@pytest.mark.parametrize("over", [{}, DROP], ids=["all positions", "high norms left out"])
def test_saes_of_one_pass_have_the_bytes_of_saes_alone(inputs, tmp_path, monkeypatch, over):
    config = config_of(over)
    given, saes = inputs(config), wanted(config)
    for each in saes:
        go([each], given, tmp_path / "alone", config, seconds=1e9)
    runs, run = [], LanguageModel.captures

    def counted(self, contexts, hookpoints):
        runs.append(list(hookpoints))
        return run(self, contexts, hookpoints)

    monkeypatch.setattr(LanguageModel, "captures", counted)
    go(saes, given, tmp_path / "together", config, seconds=1e9)
    assert stored(saes, tmp_path / "together") == stored(saes, tmp_path / "alone")
    # The LM has run once: up to the last layer, over each batch of contexts once.
    together = len(runs)
    captured = ("L1", "L3", "L3.mlp_in", "L3.mlp_out", "L3.resid_pre", "L5")
    assert {tuple(sorted(map(str, each))) for each in runs} == {captured}
    runs.clear()
    go(saes[:1], given, tmp_path / "once more", config, seconds=1e9)
    assert together - len(runs) in range(4)
    with monkeypatch.context() as patch:
        kill_before(patch, 5)
        with pytest.raises(Killed):
            go(saes, given, tmp_path / "killed", config)
        kill_before(patch, 33)
        with pytest.raises(Killed):
            go(saes, given, tmp_path / "killed", config)
    go(saes, given, tmp_path / "killed", config)
    assert stored(saes, tmp_path / "killed") == stored(saes, tmp_path / "alone")


def test_an_sae_that_fails_leaves_the_others_of_its_pass_alone(inputs, tmp_path):
    config = config_of({"logging": {"every_steps": 1}})
    given, saes = inputs(config), wanted(config)
    diverging = sae_recipe(config, SAES[3])
    training = diverging.training.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    bad = Wanted("bad", diverging.model_copy(update={"training": training}))
    with pytest.raises(FailedSaesError, match="bad: the loss is not finite") as error:
        go([*saes, bad], given, tmp_path / "together", config, seconds=1e9)
    assert list(error.value.faults) == [bad.recipe.hash]
    for each in saes:
        go([each], given, tmp_path / "alone", config, seconds=1e9)
    assert stored(saes, tmp_path / "together") == stored(saes, tmp_path / "alone")


def contexts(rows):
    ids = torch.tensor(rows)
    return Contexts(ids, torch.ones_like(ids))


def buffer(reader, **drop):
    return ActivationBuffer(
        reader,
        d_model=1,
        capacity_tokens=8,
        batch_tokens=2,
        seed=0,
        dtype=torch.float32,
        device=CPU,
        dropping=Dropping(**drop),
    )


def test_readers_share_runs_and_keep_one_batch_at_most():
    texts = [[[4 * n + 1, 4 * n + 2, 4 * n + 3, 4 * n + 4]] for n in range(12)]
    runs = []

    def capture(text, layers):
        runs.append(text.ids[0, 0].item())
        return {layer: (text.ids * 10**layer)[..., None].float() for layer in layers}

    captures = SharedCaptures(map(contexts, texts), capture)
    first, second = buffer(captures.reader(0)), buffer(captures.reader(2), ids=[2])
    fill([first, second])
    # 8 tokens are two batches of contexts, or three where a token is left out.
    assert (first.batches_read, second.batches_read) == (2, 3)
    assert runs == [1, 5, 9]
    assert [len(reader.waiting) for reader in captures.readers] == [1, 0]
    assert first.activations_ND.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert second.activations_ND.flatten().tolist()[:4] == [100, 300, 400, 500]
    captures.readers[0].close()
    drawn = torch.cat([second.batch() for _ in range(20)])
    assert len(captures.readers[0].waiting) == 0
    assert runs == list(range(1, 4 * len(runs), 4))
    assert sorted(drawn.flatten().tolist())[:3] == [100, 300, 400]


def missing(*sweeps):
    """As if the store lacked these sweeps' first SAEs and one more."""
    return {sweep: [SaeName(sweep, 4), SaeName(sweep, 8)] for sweep in sweeps}


TOP, WIDE, BATCH, DEEP = (
    Sweep("demo", Hookpoint(3), "top_k", "128"),
    Sweep("demo", Hookpoint(3), "top_k", "256"),
    Sweep("demo", Hookpoint(3), "batch_top_k", "128"),
    Sweep("demo", Hookpoint(4), "top_k", "128"),
)


@pytest.mark.parametrize(
    ("share", "jobs"),
    [
        ([], [(TOP,), (WIDE,), (BATCH,), (DEEP,)]),
        (["widths"], [(TOP, WIDE), (BATCH,), (DEEP,)]),
        (["architectures"], [(TOP, BATCH), (WIDE,), (DEEP,)]),
        (["layers"], [(TOP, DEEP), (WIDE,), (BATCH,)]),
        (["widths", "architectures"], [(TOP, WIDE, BATCH), (DEEP,)]),
        (["widths", "architectures", "layers"], [(TOP, WIDE, BATCH, DEEP)]),
    ],
)
def test_what_may_share_a_pass(share, jobs):
    config = config_of(share=["sparsities", *share])
    assert [each.jobs for each in cut(config, missing(TOP, WIDE, BATCH, DEEP))] == jobs


def test_other_seeds_share_a_pass_only_where_the_config_says_so():
    one = sae("top_k", seed=7)
    asked = {WIDE: [sae("top_k")], one: [one]}
    alone = cut(config_of(share=["sparsities", "layers"]), asked)
    assert [each.jobs for each in alone] == [(WIDE,), (one,)]
    assert [each.jobs for each in cut(config_of(), asked)] == [(WIDE, one)]


def test_other_texts_never_share_a_pass():
    demo = raw_config(SMALL)["models"]["demo"]
    config = config_of({"models": {"other": {**demo, "train_tokens": 40_960}}})
    asked = missing(TOP, Sweep("other", Hookpoint(3), "top_k", "128"))
    assert len(cut(config, asked)) == 2


def test_passes_fit_into_the_memory_that_the_config_gives():
    asked = missing(TOP, WIDE, BATCH, DEEP)
    whole = cut(config_of(memory_gib=100), asked)
    assert [len(each.saes) for each in whole] == [8]
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    recipes = [sae_recipe(config_of(), each) for each in whole[0].saes]
    less = (needed(recipes, shape) - 1) / 2**30
    halves = cut(config_of(memory_gib=less), asked)
    assert [len(each.saes) for each in halves] == [4, 4]
    assert sorted(str(s) for each in halves for s in each.saes) == sorted(
        str(s) for saes in asked.values() for s in saes
    )
    with pytest.raises(SaemakeError, match=r"passes.memory_gib 0.01 is too little for demo/L"):
        cut(config_of(memory_gib=0.01), asked)
    # Over two devices the halves fit together.
    assert len(cut(config_of(memory_gib=less, devices_per_pass=2), asked)) == 1


def test_the_fewest_parts_of_even_size():
    sizes = [1, 1, 1, 1, 1, 1, 1]
    for room, places in {7: [0, 7], 6: [0, 4, 7], 4: [0, 4, 7], 3: [0, 2, 5, 7], 0: None}.items():
        assert fewest(7, lambda a, b, room=room: sum(sizes[a:b]) <= room) == places
    uneven = [5, 1, 1, 1, 1, 1]  # even parts do not fit: 5 + 1 + 1 are more than 6
    assert fewest(6, lambda a, b: sum(uneven[a:b]) <= 6) == [0, 2, 6]


def test_a_plan_counts_the_lm_once_a_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    targets = [f"results/{sweep}/{sae_}/ae.pt" for sweep in (TOP, WIDE, DEEP) for sae_ in ("k_4",)]
    apart = plan(config_of(share=["sparsities"]), targets, tmp_path)
    together = plan(config_of(), targets, tmp_path)
    assert (len(apart.passes), len(together.passes)) == (3, 1)
    lm = [job.operations.lm for job in apart.jobs]
    # Blocks up to the layer: 4, 4, 5.
    assert lm[0] == lm[1]
    assert lm[2] * 4 == lm[0] * 5
    assert [job.operations.lm for job in together.jobs] == [lm[2]]
    assert apart.unshared_lm == together.unshared_lm == sum(lm)
    steps = [job.operations.saes for job in apart.jobs]
    assert [job.operations.saes for job in together.jobs] == [sum(steps)]
    # Two streams: a buffer more than one pass alone has.
    buffers = [job.memory.buffer for job in apart.jobs]
    assert together.jobs[0].memory.buffer == 2 * buffers[0]
    # A snapshot has what stays of a pass but the LM; two of them while the second is written.
    for made in (apart, together):
        kept = [job.memory.saes + job.memory.buffer for job in made.jobs]
        assert made.disk.snapshots == 2 * max(kept)


def test_what_a_job_says_of_the_others_is_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = [Sweep("demo", Hookpoint(layer), "top_k", "256") for layer in range(4)]
    saes = [SaeName(sweep, 4) for sweep in others]
    both = Pass(tuple(saes), tuple(others))
    said = str(of_training(config_of(), others[0], passes=[both, both]))
    assert said.endswith(
        "; on 2 runs of the LM with demo/L1/top_k/256, demo/L2/top_k/256 and 1 more: 8 SAEs in all"
    )


def test_a_config_is_short_where_snakemake_writes_it():
    assert len(repr(config_of())) == len(str(config_of())) < 200


def test_what_a_run_writes_down_its_jobs_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    targets = [f"results/{TOP}/k_4/ae.pt", f"results/{DEEP}/metrics.json"]
    shared = noted.of_run(config, targets)
    (one,) = shared.passes
    assert one.jobs == (TOP, DEEP)
    noted.write_down(config, shared, ["demo"])
    assert noted.trained_with(config, TOP) == noted.trained_with(config, DEEP) == [list(one.saes)]
    # What no pass has trains by itself.
    (alone,) = noted.trained_with(config, WIDE)
    assert {each.sweep for each in alone} == {WIDE}
    noted.write_down(config, noted.Shared(), ["demo"])
    (own,) = noted.trained_with(config, TOP)
    assert {each.sweep for each in own} == {TOP}
    assert noted.of_run(config_of(share=["sparsities"]), targets) == noted.Shared()


GEMMA = "gemma-2-2b/L12/top_k/16k"


@pytest.mark.parametrize(
    ("target", "trained"),
    [
        (f"saelens/{GEMMA}/k_80/cfg.json", {GEMMA}),
        (f"published/{GEMMA}/k_80/comparison.json", {GEMMA}),
        (f"published/{GEMMA}/comparison.json", {GEMMA}),
        (f"published/{GEMMA}/k_80/ae.pt", set()),
        ("results/demo/model.json", set()),
    ],
)
def test_what_trains_for_a_target_of_any_kind(target, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = noted.of_run(config_of(), [target])
    assert {str(job) for each in shared.passes for job in each.jobs} == trained


@pytest.mark.parametrize("target", ["published-to/owner/name/demo/plan.txt", "all"])
def test_what_trains_for_a_push_and_a_plain_run_is_the_suite(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    shared = noted.of_run(config, [target])
    assert {job for each in shared.passes for job in each.jobs} == {
        sweep for layer in (3,) for sweep in suite_sweeps(config, "demo", Hookpoint(layer))
    }


def test_a_run_writes_down_what_is_judged_in_one_run_of_the_lm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    targets = [f"results/{sweep}/metrics.json" for sweep in (TOP, WIDE, DEEP)]
    shared = noted.of_run(config, targets)
    # Of one layer, by each of two evaluations; the other layer and the baselines by themselves.
    core, library = (
        [Evaluate(name, sweep) for sweep in (TOP, WIDE)] for name in config.text_evaluations
    )
    assert sorted(map(list, (each.jobs for each in shared.judged)), key=str) == [core, library]
    noted.write_down(config, shared, ["demo"])
    beside = noted.judged_with(config, TOP, "sae_bench_core")
    assert {each.sweep for each in beside} == {WIDE}
    assert noted.judged_with(config, DEEP, "sae_bench_core") == []
    # One of another config, or of an older saemake.
    (noted.FOLDER / "demo.json").write_text('{"passes": []}')
    assert noted.judged_with(config, TOP, "sae_bench_core") == []


def test_a_plan_counts_the_lm_once_for_what_is_judged_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    targets = [f"results/{sweep}/k_4/dictionary_learning.json" for sweep in (TOP, WIDE)]
    apart = plan(config_of(share=["sparsities"]), targets, tmp_path)
    together = plan(config_of(), targets, tmp_path)
    ones = [job for job in apart.jobs if job.stage == "evaluation"]
    (both,) = [job for job in together.jobs if job.stage == "evaluation"]
    assert len(ones) == 2
    lm = Lm(shape_of(AutoConfig.from_pretrained(DEMO_LM)), 6, Hookpoint(3))
    reading = Texts(config_of(), Stored(tmp_path)).reading("demo", "dictionary_learning", 8)
    # Untouched and without the layer: once less.
    once = lm.whole(reading) + lm.after_site(reading)
    assert both.operations.lm == sum(job.operations.lm for job in ones) - once
    assert together.unshared_judging == sum(job.operations.lm for job in ones)
    assert both.name == "demo (L3; top_k; 128, 256) by dictionary_learning"


def test_what_is_judged_together_fits_into_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = {Evaluate("sae_bench_core", sweep): [256, 256] for sweep in (TOP, WIDE)}
    (both,) = judged_together(config_of(), jobs)
    assert both.codecs == [256] * 4
    for gib, parts in ((20, 1), (0.001, 2)):
        assert len(judged_together(config_of(memory_gib=gib), jobs)) == parts


def test_a_job_obeys_the_memory_that_the_config_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    config = config_of(share=["sparsities"])
    recipes = [sae_recipe(config, SaeName(TOP, k)) for k in (4, 16)]
    less = (needed(recipes, shape) - 1) / 2**30
    config = config_of(share=["sparsities"], memory_gib=less)
    targets = [f"results/{TOP}/k_4/ae.pt"]
    noted.write_down(config, noted.of_run(config, targets), ["demo"])
    assert [[each.sparsity for each in group] for group in noted.trained_with(config, TOP)] == [
        [4],
        [16],
    ]
    assert len(plan(config, targets, tmp_path).passes) == 2
    # Where nothing is cut beforehand, what an earlier run wrote down is not read.
    (whole,) = noted.trained_with(config_of(share=["sparsities"]), TOP)
    assert [each.sparsity for each in whole] == [4, 16]


def test_what_was_written_down_by_another_config_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    (noted.FOLDER).mkdir(parents=True)
    for content in ("", "[]", '{"passes": [["nobody/L3/top_k/128/k_4"]]}'):
        (noted.FOLDER / "demo.json").write_text(content)
        assert len(noted.trained_with(config, TOP)) == 1
    (noted.FOLDER / "demo.json").write_text(json.dumps({"passes": [[f"{TOP}/k_4"]]}))
    first, rest = noted.trained_with(config, TOP)
    assert (len(first), len(rest) > 0) == (1, True)


def test_stores_know_what_a_shared_pass_has_made(inputs, tmp_path):
    config = config_of()
    saes = wanted(config, SAES[:2], steps=(4,))
    go(saes, inputs(config), tmp_path, config, seconds=1e9)
    assert all(each.is_in(Stores.under(tmp_path)) for each in saes)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ({"share": ["widths"]}, "passes.share.: must list sparsities"),
        ({"share": ["sparsities", "models"]}, "passes.share"),
        ({"memory_gib": 0}, "passes.memory_gib"),
        ({"memory_gib": "much"}, "passes.memory_gib"),
        ({"devices_per_pass": 0}, "passes.devices_per_pass"),
    ],
)
def test_bad_passes_are_one_line(passes, message):
    with pytest.raises(SaemakeError, match=message) as error:
        read(raw_config({"passes": passes}), PROJECT, [CONFIG_FILE])
    assert "\n" not in str(error.value)


def test_a_pass_over_several_devices_has_the_same_bytes(inputs, tmp_path, monkeypatch):
    config = config_of()
    together = wanted(config)
    go(together, inputs(config), tmp_path / "one", config)
    # Two names of the CPU, which torch takes for two devices.
    both = [CPU, torch.device("cpu", 0)]
    monkeypatch.setattr(devices, "of_pass", lambda first, count: both[:count])
    used = []
    inner = Member.update
    monkeypatch.setattr(
        Member, "update", lambda self, *given: used.append(self.device) or inner(self, *given)
    )
    places = [place % 2 for place in range(len(together))]
    conduct = Conduct("test", config.logging, 0.0, devices_per_pass=2, spread=lambda *_: places)
    train_pass(together, inputs(config), Stores.under(tmp_path / "two"), conduct)
    assert set(used) == set(both)
    assert stored(together, tmp_path / "two") == stored(together, tmp_path / "one")


def test_the_lms_operations_are_those_of_the_deepest_sae_alone(inputs, tmp_path):
    config = config_of()
    deepest = max(SAES, key=lambda each: each.hookpoint.order)
    with lm_operations() as alone:
        go(wanted(config, [deepest]), inputs(config), tmp_path / "alone", config)
    with lm_operations() as together:
        # Where other sites are is found on a few tokens more.
        saes = [each for each in SAES if each.hookpoint.site == RESID_POST]
        go(wanted(config, saes), inputs(config), tmp_path / "together", config)
    assert together == alone
    # As a plan counts them.
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    tokens = inputs(config).tokens
    batches = tokens.alike(config.models["demo"].llm_batch_contexts)
    first = next(iter(batches))
    length = first.ids.shape[1]
    reading = counted_lengths([length] * len(first.ids), len(first.ids))
    assert alone[0] == Lm(shape, 6, deepest.hookpoint).to_site(reading)
