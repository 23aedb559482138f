"""What a plan says: its operations against torch's count of real jobs, and by hand."""

import contextlib
import errno
import json
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, merged, raw_config
from peers import PYTHIA as PYTHIA_SIZES
from peers import PYTHIA_VOCABULARY
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Gemma2Config, GPTNeoXConfig, MixtralConfig

from saemake import __main__, architectures
from saemake.architectures.encoding import Encoding
from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.commands import dry_run as planned
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.evaluation import codecs
from saemake.inputs import weights
from saemake.jobs.baselines import fit_baselines
from saemake.jobs.evaluate import evaluate
from saemake.jobs.inputs import fetch_model, tokenise
from saemake.jobs.train import parts_that_fit, train
from saemake.llm.cost import Lm, Operations, Reading
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.shape import Shape, shape_of
from saemake.paths.files import build_files, uses
from saemake.paths.names import Baselines, SaeName, Subjects, Sweep
from saemake.paths.sweeps import members
from saemake.plan import memory
from saemake.plan.stored import Stored
from saemake.plan.text import Texts, counted_lengths
from saemake.plan.totals import plan
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.training import sae_recipe
from saemake.text.shards import Tokens

STORE = Path("results/.store")
PYTHIA = "pythia-160m-deduped"
TOP_K = "results/demo/L3/top_k/256"


def read_config(over: dict | None = None) -> Config:
    return read(raw_config(over), PROJECT, [CONFIG_FILE])


class Jobs:
    """The bodies of the demo's jobs, run in the working directory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = Path("results/demo/model.json")
        if not self.model.exists():
            fetch_model(config, "demo", str(self.model))

    def tokenise(self) -> None:
        for use in uses(self.config):
            self.tokens(use)

    def tokens(self, use: str) -> Path:
        manifest = Path(f"results/demo/tokens/{use}/manifest.json")
        tokenise(self.config, "demo", use, self.model, None, manifest)
        return manifest

    def train(self, sweep: Sweep) -> None:
        train(self.config, sweep, self.model, self.tokens("train"))

    def evaluate(self, subjects: Subjects, evaluation: str) -> None:
        evaluate(self.config, subjects, evaluation, self.model, self.tokens(evaluation))

    def fit(self, layer: int) -> None:
        output = Path(f"results/demo/L{layer}/baselines/pca.safetensors")
        fit_baselines(
            self.config, "demo", Hookpoint(layer), self.model, self.tokens("train"), output
        )


@contextlib.contextmanager
def counted():
    """Counts operations, attention's too: its fused kernel on a CPU is not one that torch counts,
    what it is made of is. Of dense steps and decoding, as on a GPU."""
    with (
        mock.patch.object(Encoding, "lists", return_value=False),
        mock.patch.object(codecs, "most_listed", return_value=0),
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        yield counter


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A folder with the demo's texts, tokenised for a small config."""
    with contextlib.chdir(tmp_path_factory.mktemp("plan")):
        jobs = Jobs(read_config(SMALL))
        jobs.tokenise()
        yield jobs


def operations(jobs: Jobs, target: str, stage: str, named: str = "") -> Operations:
    """What is planned of a stage's job for a target."""
    made = plan(jobs.config, [target], STORE)
    return next(j.operations for j in made.jobs if j.stage == stage and named in j.name)


def agree(planned: int, counter: FlopCounterMode, what: str) -> None:
    ratio = planned / counter.get_total_flops()
    print(f"{what}: planned {ratio:.4f} of what torch counts")
    assert ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", architectures.names())
def test_operations_of_a_sweep_are_what_torch_counts(ready, name):
    sweep = Sweep("demo", Hookpoint(3), name, "256")
    target = f"{sweep.folder}/metrics.json"
    planned = operations(ready, target, "training")
    with counted() as counter:
        ready.train(sweep)
    agree(planned.lm + planned.saes, counter, f"{name}, training")
    for evaluation in ready.config.text_evaluations:
        planned = operations(ready, target, "evaluation", evaluation)
        with counted() as counter:
            ready.evaluate(sweep, evaluation)
        agree(planned.lm + planned.saes, counter, f"{name}, {evaluation}")
    left = plan(ready.config, [target], STORE)
    assert [job.stage for job in left.jobs if job.stage != "baselines"] == []
    assert left.work.stored == members(ready.config, sweep)


@pytest.mark.parametrize("name", ["top_k", "batch_top_k", "matryoshka_batch_top_k"])
def test_operations_with_dead_latents_are_what_torch_counts(ready, name):
    """k 4 of 256 latents that count as dead after one batch: some are from then on, and AuxK costs
    up to what is planned were all."""
    own = {"sweep": [4], "dead_after_tokens": 512}
    demo = {"architectures": {name: own}, "training": {"recipe": "dictionary_learning"}}
    over = merged({"models": {"demo": demo}}, SMALL)
    jobs = Jobs(read_config(over))
    sweep = Sweep("demo", Hookpoint(3), name, "256")
    planned = operations(jobs, f"{sweep.folder}/k_4/ae.pt", "training")
    assert planned.dead > 0
    with counted() as counter:
        jobs.train(sweep)
    counted_operations, without = counter.get_total_flops(), planned.lm + planned.saes
    print(
        f"{name}: {(counted_operations - without) / planned.dead:.2f} of what dead latents may add"
    )
    assert 1.001 * without < counted_operations < without + planned.dead


def test_operations_of_baselines_are_what_torch_counts(ready):
    target = "results/demo/L3/baselines/metrics.json"
    planned = operations(ready, target, "baselines", "baselines")
    with counted() as counter:
        ready.fit(3)
    agree(planned.lm + planned.saes, counter, "fitting")
    for evaluation in ready.config.text_evaluations:
        planned = operations(ready, target, "baselines", evaluation)
        with counted() as counter:
            ready.evaluate(Baselines("demo", Hookpoint(3)), evaluation)
        agree(planned.lm + planned.saes, counter, f"baselines, {evaluation}")
    assert plan(ready.config, [target], STORE).jobs == []


def test_operations_by_hand():
    """A block: queries and keys 2 * (4 * 6 + 4 * 3), values and output the same, MLP 2 * 4 * 5."""
    shape = Shape(
        d_model=4,
        heads=2,
        kv_heads=1,
        head_width=3,
        mlp_width=5,
        gated_mlp=False,
        vocabulary=7,
        tied=True,
    )
    assert shape.block_weights == 4 * 6 * 2 + 4 * 3 * 2 + 2 * 4 * 5
    assert shape.weights(blocks=2) == 2 * 112 + 28
    lm = Lm(shape, blocks=3, hookpoint=Hookpoint(0))
    reading = Reading(contexts=2, tokens=9, positions=10, pairs=50, known=True)
    block = 2 * 112 * 10 + 4 * 6 * 50
    assert lm.to_site(reading) == block
    assert lm.after_site(reading) == 2 * block + 2 * 28 * 10
    assert lm.whole(reading) == 3 * block + 2 * 28 * 10


def test_a_text_is_counted_with_its_padding(ready):
    """Batches of two: 3 and 5 are padded to 5, the last stands alone."""
    assert counted_lengths([3, 5, 2], 2) == Reading(3, 10, 2 * 5 + 2, 2 * 25 + 4, True)
    assert counted_lengths([3, 5, 2], 2, 8) == Reading(2, 8, 10, 50, True)
    texts = Texts(ready.config, Stored(STORE))
    whole = texts.reading("demo", "train", 32)
    tokens = Tokens(ready.tokens("train"))
    assert (whole.contexts, whole.tokens) == (tokens.manifest["documents"], tokens.count)
    assert whole.positions == sum(batch.ids.numel() for batch in tokens.contexts(32))
    assert texts.reading("demo", "train", 32, 100).contexts == 32
    alike = texts.reading("demo", "train", 32, alike=True)
    assert alike.positions == sum(batch.ids.numel() for batch in tokens.alike(32))
    assert (alike.contexts, alike.tokens) == (whole.contexts, whole.tokens)
    assert alike.positions < whole.positions


def test_a_text_that_is_not_there_is_estimated(ready, tmp_path):
    texts = Texts(ready.config, Stored(tmp_path))
    reading = texts.reading(PYTHIA, "train", 32)
    wanted = tokens_recipe(ready.config, PYTHIA, "train").amount
    assert reading.contexts == -(-wanted // 500)
    assert reading.positions == reading.contexts * 1024
    assert texts.reading(PYTHIA, "train", 32, alike=True).positions == reading.tokens
    assert not reading.known
    core = texts.reading(PYTHIA, "sae_bench_core", 16)
    assert (core.contexts, core.tokens, core.positions) == (35_200, 4_505_600, 4_505_600)


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("results/demo/model.json", []),
        ("results/demo/tokens/train/manifest.json", []),
        (f"{TOP_K}/k_4/ae.pt", ["training"]),
        (f"{TOP_K}/k_4/sae_bench_core_latents.parquet", ["training", "evaluation"]),
        (f"{TOP_K}/k_4/metrics.json", ["training", "evaluation", "evaluation"]),
        (f"{TOP_K}/metrics.json", ["training", "baselines"] + 2 * ["evaluation", "baselines"]),
        ("results/demo/L3/baselines/pca.safetensors", ["baselines"]),
        ("results/demo/L3/baselines/sae_bench_core.json", ["baselines"] * 2),
        (f"{TOP_K}/k_4/checkpoints/ae_20.pt", ["training"]),
        (f"{TOP_K}/k_4/checkpoints/metrics.json", ["training", "evaluation", "evaluation"]),
        (
            "results/demo/L3/figures/loss_recovered_vs_l0.pdf",
            ["training"] * 3 + ["baselines"] * 3 + ["evaluation"] * 6,
        ),
        (
            "results/demo/L3/figures/loss_recovered_vs_tokens.svg",
            ["training"] + ["baselines"] * 3 + ["evaluation"] * 6,
        ),
    ],
)
def test_the_jobs_behind_a_target(target, stages, tmp_path):
    own = {"top_k": {"checkpoints": [0, 0.5]}}
    over = merged({"models": {"demo": {"architectures": own}}}, SMALL)
    made = plan(read_config(over), [target], tmp_path)
    assert sorted(job.stage for job in made.jobs) == sorted(stages)


def test_a_sparsity_more_trains_one_more(ready):
    sweep = Sweep("demo", Hookpoint(3), "standard", "256")
    ready.train(sweep)
    own = {"standard": {"sweep": [0.05, 0.1, 0.2]}}
    over = merged({"models": {"demo": {"architectures": own}}}, SMALL)
    made = plan(read_config(over), [f"{sweep.folder}/penalty_0.1/ae.pt"], STORE)
    assert [str(sae) for sae in made.work.train[sweep]] == [f"{sweep}/penalty_0.1"]
    assert [sae.sparsity for sae in made.work.stored] == [0.05, 0.2]
    assert made.work.tokenise == []


def test_shapes_of_the_published_models_are_those_of_their_families(config):
    """transformers' Gemma2Config is gemma-2-2b's; Pythias are GPT-NeoX of their published sizes."""
    assert config.models["gemma-2-2b"].shape == shape_of(Gemma2Config())
    for name in ("pythia-70m-deduped", "pythia-160m-deduped"):
        width, layers, heads = PYTHIA_SIZES[name]
        found = shape_of(
            GPTNeoXConfig(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                vocab_size=PYTHIA_VOCABULARY,
            )
        )
        assert config.models[name].shape == found
    assert shape_of(AutoConfig.from_pretrained(DEMO_LM)) == weights.shape(config, "demo")


def test_a_shape_that_is_not_the_models_is_refused_when_it_is_fetched(config, tmp_path):
    revisions = Store(tmp_path, "revisions")
    own = weights.shape(config, "demo").model_dump()
    over = {"models": {"demo": {"shape": {**own, "gated_mlp": True}}}}
    weights.fetch(read_config({"models": {"demo": {"shape": own}}}), "demo", revisions)
    with pytest.raises(
        SaemakeError, match=r"'models.demo.shape.gated_mlp' says True; the model has False"
    ):
        weights.fetch(read_config(over), "demo", revisions)


def test_a_model_of_other_blocks_has_no_shape():
    small = MixtralConfig(num_hidden_layers=1, hidden_size=64, intermediate_size=64, vocab_size=8)
    with pytest.raises(ValueError, match="more than attention and an MLP"):
        shape_of(small)


def test_the_whole_published_suite(tmp_path):
    config = read_config({"build": [PYTHIA, "gemma-2-2b"]})
    made = plan(config, build_files(config), tmp_path)
    assert sum(map(len, made.work.train.values())) == 252
    assert len(made.work.train) == 42
    assert set(made.tokens) == {
        f"{m} {use}" for m in (PYTHIA, "gemma-2-2b") for use in uses(read_config())
    }
    checkpoints = {f for f in build_files(config) if "/checkpoints/" in f}
    assert len(checkpoints) == 7 * 6 * 3 * 2


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """`saemake plan` in an empty folder: its status and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = __main__.main(["plan", *arguments])
        return status, *capsys.readouterr()

    return run


def test_the_command_says_what_a_published_sweep_costs(said):
    status, out, _ = said("results/gemma-2-2b/L12/top_k/16k/metrics.json", "--device", "h200")
    assert status == 0
    assert re.search(r"^SAEs to train +6 in 1 pass$", out, flags=re.MULTILINE)
    assert re.search(r"^download +gemma-2-2b, at most 9\.7 GiB$", out, flags=re.MULTILINE)
    assert re.search(
        r"^time on h200 +about .* h: training .*, start-up of 13 jobs 43 s$",
        out,
        flags=re.MULTILINE,
    )


def test_a_folder_that_cannot_be_written_is_planned_for_without_start_up(said, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(planned, "jobs", refused)
    status, out, err = said("results/demo/L3/top_k/1k/k_8/ae.pt")
    assert status == 0
    assert "SAEs to train" in out
    assert err == "saemake: start-up is not counted: [Errno 30] Read-only file system\n"


def test_an_sae_of_a_sweep_says_why_others_train(said):
    beside = r"^trained beside +5 SAEs not asked for: a sweep trains together, since its SAEs share"
    devices = r"^time +add --device NAME for hours: epyc-2-cores, rtx-3090, .*\n\Z"
    _, out, _ = said("demo/L3/top_k/1k/k_8")
    assert re.search(r"^SAEs to train +6 in 1 pass$", out, flags=re.MULTILINE)
    assert re.search(beside, out, flags=re.MULTILINE)
    assert re.search(devices, out, flags=re.MULTILINE)
    _, out, _ = said("demo/L3/top_k/1k", "demo/L3/top_k/1k/k_9", "--device", "h100")
    assert "trained beside" not in out
    assert "--device" not in out
    _, out, _ = said("demo/L3/top_k/1k/k_9")
    assert "trained beside" not in out


def test_the_command_gives_json(said):
    status, out, err = said("--json", "--device", "rtx-3090")
    assert status == 0, err
    found = json.loads(out)
    assert len(found["saes_to_train"]) == 18
    # A model, three texts, three sweeps and the baselines, each judged twice; then joins, tables,
    # figures.
    assert found["processes"] == {
        "heavy": 1 + 3 + 3 + 1 + 2 * 4 + 3,
        "light": 4 + 3 + 8 + 3 + 1,
    }
    start_up = found["hours"]["start-up"]
    assert 60 < 3600 * start_up < 120
    worked = sum(job["hours"] for job in found["jobs"])
    assert found["hours"]["total"] == pytest.approx(worked + start_up)
    assert found["disk"]["saes"] == 18 * 4 * (2 * 128 * 1024 + 1024 + 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/dmeo/model.json"], "no model 'dmeo' in the config; did you mean 'demo'?"),
        (["README.md"], "README.md: artifacts are under results/, hub/, "),
        (["--device", "h20"], "no device 'h20' in the config; did you mean 'h200'?"),
    ],
)
def test_a_bad_question_is_one_line(said, arguments, message):
    status, out, error = said(*arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_a_model_of_no_known_shape_is_one_line(said, tmp_path):
    unknown = {"hub": "nobody/nothing", "suite": {"layers": [0]}}
    raw = raw_config()
    mine = {**{k: v for k, v in raw["models"][PYTHIA].items() if k != "shape"}, **unknown}
    mine["suite"] = raw["models"][PYTHIA]["suite"]
    Path("mine.yaml").write_text(yaml.safe_dump({"models": {"mine": mine}}))
    status, _, error = said("results/mine/L0/top_k/4k/metrics.json", "--configfile", "mine.yaml")
    assert status == 2
    assert "model 'mine' is not on this machine: give models.mine.shape" in error


def test_a_pass_that_does_not_fit_is_cut_into_equal_parts():
    shape = shape_of(AutoConfig.from_pretrained(DEMO_LM))
    recipe = sae_recipe(read_config(SMALL), SaeName(Sweep("demo", Hookpoint(3), "top_k", "256"), 4))
    needed = [memory.of_training([recipe] * saes, shape).on_gpu for saes in range(1, 8)]
    assert needed == sorted(needed)
    for fit, parts in {7: [0, 7], 6: [0, 4, 7], 3: [0, 2, 5, 7], 1: [*range(8)]}.items():
        assert parts_that_fit([recipe] * 7, shape, [needed[fit - 1]]) == parts
    assert parts_that_fit([recipe] * 7, shape, [needed[0] - 1]) is None


def test_a_pass_spreads_over_gpus_where_its_saes_fit():
    shape, config = shape_of(AutoConfig.from_pretrained(DEMO_LM)), read_config(SMALL)
    one, wide = (
        sae_recipe(config, SaeName(Sweep("demo", Hookpoint(3), "top_k", width), 4))
        for width in ("256", "4k")
    )
    alone = memory.of_training([one], shape).on_gpu
    # What the first GPU has of one SAE is there for the LM and the buffer too.
    assert memory.spread([one], shape, [alone], 1) == [0]
    assert memory.spread([one], shape, [alone - 1], 1) is None
    room = {
        each.hash: memory.of_training([each] * 2, shape).on_gpu
        - memory.of_training([each], shape).on_gpu
        + memory._step(each, shape)
        for each in (one, wide)
    }
    assert sorted(memory.spread([one, one], shape, [alone, room[one.hash]], 2)) == [0, 1]
    assert memory.spread([one, one], shape, [alone, room[one.hash] - 1], 2) is None
    assert memory.spread([one, one], shape, [alone - 1, room[one.hash]], 2) is None
    # The largest first, where most is free.
    assert memory.spread([one, wide], shape, [alone, room[wide.hash]], 2) == [0, 1]
    assert memory.spread([one, wide], shape, [alone, room[wide.hash] - 1], 2) is None
