"""An LM that is spread over several GPUs. What it computes is compared on a CPU, with two names of
it, and where it computes with stand-ins for two GPUs."""

import functools
from pathlib import Path

import accelerate.hooks
import pytest
import torch
from accelerate.hooks import remove_hook_from_module
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from stand_in_gpus import WithoutCuda
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig
from unit.test_evaluation import recipe as evaluation_recipe
from unit.test_evaluation import tokens as text_of
from unit.test_llm import FAMILIES as OTHER_FAMILIES
from unit.test_llm import SMALL, clean_losses, losses_with

from saemake.base import devices, gpus, onednn
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.evaluation import baselines
from saemake.features.lens import lens_of
from saemake.jobs import job
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.shape import shape_of
from saemake.llm.spreading import places
from saemake.llm.weights import Weights
from saemake.paths.names import SaeName, SetupName, Sweep
from saemake.plan import memory
from saemake.recipes.features import features_recipe
from saemake.recipes.inputs import model_recipe, tokens_recipe
from saemake.recipes.judging import sae_evaluation_recipe, setup_recipe
from saemake.recipes.training import baselines_recipe, lm_run_key, sae_recipe
from saemake.text.shards import Contexts

CPU = torch.device("cpu")
# Torch takes these for two devices.
TWO_NAMES = [CPU, torch.device("cpu", 0)]
TWO_GPUS = [torch.device("cuda", 0), torch.device("cuda", 1)]
SAE = SaeName(Sweep("demo", Hookpoint(3), "top_k", "256"), 4)


NEOX = GPTNeoXConfig(
    **SMALL, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
)
FAMILIES = {**OTHER_FAMILIES, "gpt_neox": NEOX}  # the demo's


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Its name, and a folder with a small model of it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(FAMILIES[request.param]).save_pretrained(folder)
    return request.param, folder


@pytest.fixture(scope="module")
def contexts():
    ids_BL = torch.randint(2, 2048, (3, 9), generator=torch.Generator().manual_seed(1))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 5:] = 0
    return Contexts(ids_BL, mask_BL)


def of_lm(found):
    return lambda first, count, model: found[:count]


@pytest.fixture
def two_names(monkeypatch):
    """Inputs are handed from device to device as on GPUs. The weights stay where they are: there
    is no other memory of a CPU to put them."""
    monkeypatch.setattr(devices, "of_lm", of_lm(TWO_NAMES))
    monkeypatch.setattr(accelerate.hooks, "set_module_tensor_to_device", lambda *_, **__: None)


def spread(weights):
    return Weights(weights.name, weights.folder, None, weights.dtype, 2)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("two_names")
def test_two_devices_compute_what_one_does(family, contexts, layer, dtype):
    """To the bit: captures, logits, logits with something put in."""
    name, folder = family
    weights = Weights(name, folder, None, dtype)
    with onednn.left_out():  # which serves CPUs alone
        one, two = (
            LanguageModel(each, Hookpoint(layer), CPU, whole=True)
            for each in (weights, spread(weights))
        )
    assert set(two.model.hf_device_map.values()) == set(TWO_NAMES)
    run, run_two = one.run(contexts), two.run(contexts)
    hidden = run.written_BLD
    assert run_two.written_BLD.equal(hidden)
    assert torch.cat(list(run_two.logits)).equal(torch.cat(list(run.logits)))
    put_in = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    with_it, with_it_two = (torch.cat(list(lm.run_with(contexts, put_in))) for lm in (one, two))
    assert with_it_two.equal(with_it)
    layers = list(map(Hookpoint, range(layer + 1)))
    captured, captured_two = one.captures(contexts, layers), two.captures(contexts, layers)
    assert all(captured_two[each].equal(captured[each]) for each in layers)
    clean = clean_losses(two, contexts)[1]
    assert losses_with(two, contexts, hidden).equal(clean)


@pytest.mark.parametrize("site", ["attn_out", "mlp_in", "mlp_out"])
@pytest.mark.usefixtures("two_names")
def test_two_devices_capture_and_replace_at_a_site(family, contexts, site):
    name, folder = family
    weights = Weights(name, folder, None, "float32")
    with onednn.left_out():
        one, two = (
            LanguageModel(each, Hookpoint(2, site), CPU, whole=True)
            for each in (weights, spread(weights))
        )
    run, run_two = one.run(contexts), two.run(contexts)
    assert run_two.read_BLD.equal(run.read_BLD)
    put_in = torch.randn(run.read_BLD.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.cat(list(one.run_with(contexts, put_in)))
    for before_BLD in (None, run_two.before_BLD):
        found = torch.cat(list(two.run_with(contexts, put_in, before_BLD)))
        assert found.equal(expected)


@pytest.mark.usefixtures("two_names")
def test_an_identity_recovers_all_on_two_devices(demo_weights, tmp_path):
    with onednn.left_out():
        lm = LanguageModel(spread(demo_weights), Hookpoint(3), CPU, whole=True)
    text = text_of(tmp_path, [[0, 5, 9, 12, 700, 3], [0, 8, 8, 1000, 31]])
    identity = baselines.Linear(torch.eye(128), torch.zeros(128))
    found = judge_by(evaluation_recipe(), {"": identity}, lm, text, "test")
    assert found[""].figures["frac_recovered"] == 1.0


@pytest.mark.usefixtures("two_names")
def test_the_lens_is_the_same_on_two_devices(family):
    name, folder = family
    weights = Weights(name, folder, None, "float32")
    with onednn.left_out():
        one, two = (
            LanguageModel(each, Hookpoint(1), CPU, whole=False)
            for each in (weights, spread(weights))
        )
    directions_SD = torch.randn(5, one.d_model, generator=torch.Generator().manual_seed(3))
    lenses = [lens_of(lm, 2048) for lm in (one, two)]
    assert lenses[1].norm == lenses[0].norm
    assert lenses[1].logits(directions_SD).equal(lenses[0].logits(directions_SD))


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(devices, "of_lm", of_lm(TWO_GPUS))
    monkeypatch.setattr(accelerate.utils.modeling, "clear_device_cache", lambda *_: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, WithoutCuda():
        yield mode


def on_stand_ins(family, layer, *, whole):
    name, folder = family
    weights = Weights(name, folder, None, "float32", 2)
    return LanguageModel(weights, Hookpoint(layer), TWO_GPUS[0], whole=whole)


@pytest.mark.parametrize("layer", [0, 2])
def test_blocks_lie_on_both_gpus_and_all_comes_back_to_the_first(
    family, contexts, layer, stand_ins
):
    lm = on_stand_ins(family, layer, whole=True)
    blocks = lm.model.get_submodule(lm._blocks_name)
    gpu_of = [{each.device for each in block.parameters()} for block in blocks]
    assert gpu_of == [{TWO_GPUS[0]}, {TWO_GPUS[0]}, {TWO_GPUS[1]}]
    assert {each.device for each in lm.final_norm.parameters()} == {TWO_GPUS[1]}
    assert lm.model.get_input_embeddings().weight.device == TWO_GPUS[0]
    tied = lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    assert lm.model.get_output_embeddings().weight.device == TWO_GPUS[0 if tied else 1]
    given = Contexts(*map(stand_ins.from_tensor, (contexts.ids, contexts.mask)))
    run = lm.run(given)
    hidden, logits = run.written_BLD, run.logits
    put_in = torch.zeros(hidden.shape, device=hidden.device)
    found = [
        hidden,
        *logits,
        *lm.run_with(given, put_in),
        *lm.captures(given, [Hookpoint(layer)]).values(),
    ]
    assert {each.device for each in found} == {TWO_GPUS[0]}


def test_a_capturing_lm_spreads_the_blocks_that_it_holds(family, contexts, stand_ins):
    lm = on_stand_ins(family, 1, whole=False)
    blocks = lm.model.get_submodule(lm._blocks_name)
    assert [next(block.parameters()).device for block in blocks] == TWO_GPUS
    given = Contexts(*map(stand_ins.from_tensor, (contexts.ids, contexts.mask)))
    assert {x.device for x in lm.captures(given, map(Hookpoint, (0, 1))).values()} == {TWO_GPUS[0]}
    lens = lens_of(lm, 2048)
    assert lens.unembedding_VD.device == lens.scale_D.device


def test_stand_ins_notice_what_is_not_handed_on(family, contexts, stand_ins):
    lm = on_stand_ins(family, 1, whole=False)
    remove_hook_from_module(lm.model, recurse=True)
    given = Contexts(*map(stand_ins.from_tensor, (contexts.ids, contexts.mask)))
    with pytest.raises(Exception, match="at least two devices"):
        lm.captures(given, map(Hookpoint, (0, 1)))


def test_blocks_are_spread_evenly_in_order():
    assert places(5, 1) == [0] * 5
    assert places(6, 2) == [0, 0, 0, 1, 1, 1]
    assert places(7, 3) == [0, 0, 0, 1, 1, 2, 2]
    assert places(1, 2) == [0]
    for blocks in range(1, 30):
        for count in range(1, 9):
            found = places(blocks, count)
            sizes = [found.count(place) for place in range(count)]
            assert found == sorted(found)
            assert max(sizes) - min(sizes) <= 1


def test_one_device_is_as_before(demo_weights):
    lm = LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True)
    assert not hasattr(lm.model, "hf_device_map")
    # Also where the config asks for several, on a CPU.
    lm = LanguageModel(spread(demo_weights), Hookpoint(3), CPU, whole=True)
    assert not hasattr(lm.model, "hf_device_map")
    assert any(isinstance(module, onednn.Packed) for module in lm.model.modules())


@pytest.fixture
def two_kinds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    names = ["H200", "H200", "H100"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: names[gpu.index or 0])


@pytest.mark.usefixtures("two_kinds")
def test_the_gpus_of_an_lm_are_of_a_kind_and_the_first_is_first():
    cuda = torch.device("cuda")
    assert devices.of_lm(CPU, 2, "demo") == [CPU]
    assert devices.of_lm(cuda, 1, "demo") == [cuda]
    assert devices.of_lm(cuda, 2, "demo") == TWO_GPUS
    assert devices.of_lm(TWO_GPUS[1], 2, "demo") == TWO_GPUS[::-1]
    with pytest.raises(SaemakeError, match=r"several kinds .*set models\.demo\.lm_devices to 1"):
        devices.of_lm(cuda, 3, "demo")
    with pytest.raises(SaemakeError, match=r"takes 4 GPUs, and 3 can be seen: lower models\.demo"):
        devices.of_lm(cuda, 4, "demo")
    with pytest.raises(SaemakeError, match=r"several kinds .*passes\.devices_per_pass to 1"):
        devices.of_pass(cuda, 3)


def config_of(lm_devices=None, **over):
    model = {} if lm_devices is None else {"lm_devices": lm_devices}
    return read(raw_config({"models": {"demo": model}, **over}), PROJECT, [CONFIG_FILE])


def recipes_of(config):
    """What an LM computes, and what it does not."""
    computed = [
        sae_recipe(config, SAE),
        baselines_recipe(config, "demo", Hookpoint(3)),
        sae_evaluation_recipe(config, SAE, "dictionary_learning"),
        features_recipe(config, SAE),
    ]
    others = [
        model_recipe(config, "demo"),
        tokens_recipe(config, "demo", "train"),
        setup_recipe(config, SetupName("demo", 3, "sae_bench_scr", 42)),
    ]
    return computed, others


def test_recipes_of_what_an_lm_computes_say_it_and_no_others():
    (plain, others), (said, others_said) = map(recipes_of, (config_of(), config_of(2)))
    assert others_said == others
    assert recipes_of(config_of(1)) == (plain, others)
    for without, with_it in zip(plain, said, strict=True):
        assert "lm_devices" not in without.model_dump()
        assert with_it.model_dump()["lm_devices"] == 2
        assert with_it.hash != without.hash
    assert lm_run_key(said[0]) != lm_run_key(plain[0])


@pytest.mark.parametrize(
    ("lm_devices", "message"),
    [(0, "models.demo.lm_devices"), (1.5, "models.demo.lm_devices"), (7, "has 6 layers to spread")],
)
def test_a_bad_number_is_one_line(lm_devices, message):
    with pytest.raises(SaemakeError, match=message) as error:
        config_of(lm_devices)
    assert "\n" not in str(error.value)


TABLE, WEIGHTS = "results/demo/L3/top_k/256/k_4/dictionary_learning.json", f"{SAE.folder}/ae.pt"


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Says how many GPUs there are."""
    (tmp_path / "drivers" / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", tmp_path / "drivers")
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "FOLDER", tmp_path)

    def there_are(count):
        lines = [f"GPU {each}: H200 (UUID: GPU-{each})" for each in range(count)]
        monkeypatch.setattr(gpus, "_nvidia_smi", lambda: "\n".join(lines))

    return there_are


@pytest.mark.parametrize(
    ("per_pass", "outputs", "keys"),
    [
        (1, [WEIGHTS], "models.demo.lm_devices,"),
        (2, [TABLE], "models.demo.lm_devices,"),
        (2, [WEIGHTS], "models.demo.lm_devices and passes.devices_per_pass,"),
        (3, [WEIGHTS], "passes.devices_per_pass,"),
    ],
)
def test_too_few_gpus_are_one_line_with_the_keys_that_ask_for_them(seen, per_pass, outputs, keys):
    config = config_of(2, passes={"devices_per_pass": per_pass})
    seen(1)
    count = config.gpus_to_train("demo") if outputs == [WEIGHTS] else 2
    line = rf"^this job takes {count} GPUs, and 1 can be seen: lower {keys} or let"
    with pytest.raises(SaemakeError, match=line):
        job._claim(config, outputs, count)


def test_a_run_that_lets_a_job_have_fewer_gpus_is_one_line(seen):
    """Snakemake lowers what a job asks for to what `--resources` says."""
    seen(2)
    line = r"takes 2 GPUs, and the run lets it have 1: add --resources gpu=2, or lower models\.demo"
    with pytest.raises(SaemakeError, match=line):
        job._claim(config_of(2), [TABLE], 1)
    # SAE Bench's own code has one, whatever the config says.
    setup = "results/demo/L3/setups/sae_bench_scr/seed_42.json"
    for output in (setup, TABLE.replace("dictionary_learning", "sae_bench_scr")):
        held = job._claim(config_of(2), [output], 1)
        assert held.places == [0]
        held.free()


def test_a_plan_knows_what_each_gpu_has_of_the_lm():
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    whole, parts = memory.lm_bytes("float32", shape, 5), memory.lm_parts("float32", shape, 5, 2)
    assert sum(parts) == whole
    block, embedding = 4 * shape.block_weights, 4 * shape.head_weights
    assert parts == [3 * block + embedding, 2 * block + embedding]
    tied = shape.model_copy(update={"tied": True})
    parts = memory.lm_parts("float32", tied, 5, 2)
    assert parts == [3 * block + embedding, 2 * block]
    assert sum(parts) == memory.lm_bytes("float32", tied, 5)


def test_a_plan_counts_on_the_first_gpu_what_the_others_do_not_have():
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    one, two = (memory.of_training([sae_recipe(config_of(n), SAE)], shape) for n in (1, 2))
    elsewhere = memory.lm_parts("float32", shape, 4, 2)[1]
    assert one.on_other_gpus == []
    assert two.on_gpu == one.on_gpu - elsewhere
    (other,) = two.on_other_gpus
    assert other > elsewhere
    assert two.on_cpu == one.on_cpu
    recipe = sae_recipe(config_of(2), SAE)
    fits = functools.partial(memory.spread, [recipe], shape)
    assert fits([two.on_gpu, other], 1) == [0]
    assert fits([two.on_gpu - 1, other], 1) is None
    assert fits([two.on_gpu, other - 1], 1) is None
    assert fits([two.on_gpu], 1) is None
    # The SAE goes where more is free, if it may.
    assert fits([two.on_gpu, 2 * two.on_gpu], 1) == [0]
    assert fits([two.on_gpu, 2 * two.on_gpu], 2) == [1]


def test_plan_says_what_the_lm_takes_of_the_other_gpus(said_by_plan):
    lines = said_by_plan({"models": {"demo": {"lm_devices": 3}}})
    assert "and the LM takes at most" in lines
    assert "of each of 2 others: demo/L3/top_k/256" in lines


@pytest.fixture
def said_by_plan(tmp_path, monkeypatch, capsys):
    import yaml

    from saemake import __main__

    def said(over):
        monkeypatch.chdir(tmp_path)
        Path("more.yaml").write_text(yaml.safe_dump(over))
        words = ["plan", f"{SAE.folder}/ae.pt", "--configfile", "more.yaml"]
        assert __main__.main(words) in (0, None)
        return capsys.readouterr().out

    return said
