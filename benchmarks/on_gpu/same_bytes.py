"""Does it run on this device, and are the bytes the same each time?"""

import contextlib
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import with_saemake
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, merged, raw_config
from peers import demo_documents
from torch import Tensor
from transformers import AutoTokenizer

import saemake
from on_gpu.run import Run
from on_gpu.texts import write_tokens
from on_gpu.trainers import with_dead
from saemake import architectures
from saemake.architectures.trainer import Trainer
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.inputs import tokens_recipe
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.training import sae_recipe
from saemake.text.shards import Tokens
from saemake.training import train
from saemake.training.members import Stores, Wanted


def small_trainer(name: str, recipe: str, dtype: str, device: torch.device) -> Trainer:
    asked = SimpleNamespace(
        architecture=name, active=16, dtype=dtype, threads=4, d_model=128, width=1024, device="cpu"
    )
    model = with_saemake.trainer_of(asked)
    early = {"threshold_start_step": 3, "dead_after_tokens": 4 * 512, "anneal_start": 4}
    fields = {key: value for key, value in early.items() if hasattr(model.settings, key)}
    return architectures.get(name).trainer()(
        d_model=128,
        width=1024,
        sparsity=model.sparsity_value,
        settings=model.settings.model_copy(update=fields),
        training=model.training.model_copy(update={"recipe": recipe, "warmup_steps": 2}),
        steps=100,
        device=device,
    )


def some_batches(count: int) -> list[Tensor]:
    x_BD = with_saemake.batch(128)
    return [x_BD.roll(37 * step, 0)[:512] for step in range(count)]


def trained(trainer: Trainer, first: int, batches: list[Tensor], device: torch.device) -> float:
    """The loss of the last step."""
    for step, x_BD in enumerate(batches[first:], first):
        loss = trainer.update(step, x_BD.to(device, trainer.dtype)).loss
    return loss.item()


def sha256(trainer: Trainer) -> str:
    state = trainer.dictionary.state_dict()
    content = b"".join(
        value.detach().cpu().contiguous().numpy().tobytes() for value in state.values()
    )
    return hashlib.sha256(content).hexdigest()


def smoke(run: Run) -> dict[str, Any]:
    """Each architecture's step in both recipes and dtypes: against the CPU's loss, twice, and gone
    on from a state."""
    batches, rows = some_batches(12), []
    for name in architectures.names():
        for recipe in ("saebench", "dictionary_learning"):
            for dtype in ("float32", "bfloat16"):
                row = {"architecture": name, "recipe": recipe, "dtype": dtype}
                try:
                    row |= smoke_case(name, recipe, dtype, batches, run.device)
                except Exception as error:
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
                rows.append(row)
                print(json.dumps(row), flush=True)
    return {"rows": rows}


def smoke_case(
    name: str, recipe: str, dtype: str, batches: list[Tensor], device: torch.device
) -> dict[str, Any]:
    cpu = torch.device("cpu")
    losses, sums = [], []
    for place in (cpu, device, device):
        trainer = with_dead(small_trainer(name, recipe, dtype, place))
        losses.append(trained(trainer, 0, batches, place))
        sums.append(sha256(trainer))
    half = with_dead(small_trainer(name, recipe, dtype, device))
    trained(half, 0, batches[:6], device)
    rest = small_trainer(name, recipe, dtype, device)
    rest.load_state(torch.load(_through_file(half.state()), weights_only=True, map_location="cpu"))
    trained(rest, 6, batches, device)
    return {
        "loss_cpu": losses[0],
        "loss_relative": losses[1] / losses[0] - 1,
        "twice_the_same": sums[1] == sums[2],
        "resumed_the_same": sums[1] == sha256(rest),
    }


def _through_file(state: dict[str, Any]) -> Path:
    path = Path(tempfile.mkdtemp()) / "state.pt"
    torch.save(state, path)
    return path


def demo_config(drop: dict[str, Any] | None = None) -> Config:
    """The small config of the tests; `drop` leaves positions out of training and evaluations."""
    judged = {"drop": drop or {}}
    over = {
        "training": {"drop": drop or {}},
        "evaluations": {"dictionary_learning": judged, "sae_bench_core": judged},
    }
    return read(raw_config(merged(over, SMALL)), PROJECT, [CONFIG_FILE])


def demo_tokens(config: Config, use: str, folder: Path) -> Tokens:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    recipe = tokens_recipe(config, "demo", use)
    texts = demo_documents("train" if use == "train" else "validation", 500)
    ids = tokenizer(texts)["input_ids"]
    length = recipe.context_tokens
    if recipe.layout == "packed":
        end_to_end = [token for document in ids for token in document]
        starts = range(0, len(end_to_end) - length, length - 1)
        bos = tokenizer.bos_token_id
        documents = [[bos, *end_to_end[at : at + length - 1]] for at in starts][: recipe.amount]
    else:
        documents = [document[:length] for document in ids if document]
        if recipe.unit == "documents":
            documents = documents[: recipe.amount]
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return write_tokens(folder / use, documents, recipe.hash, special)


def demo_wanted(config: Config) -> list[Wanted]:
    names = [
        SaeName(Sweep("demo", Hookpoint(3), name, "256"), sparsity)
        for name in architectures.names()
        for sparsity in config.settings_of("demo", name).sweep
    ]
    return [Wanted(str(name), sae_recipe(config, name)) for name in names]


@contextlib.contextmanager
def interrupted_after(asks: int) -> Iterator[None]:
    """A pass is asked to stop when it has looked so often whether it is."""

    class Counting:
        seen = 0

        @property
        def requested(self) -> bool:
            self.seen += 1
            return self.seen > asks

    before = train.interrupts.watched
    train.interrupts.watched = lambda: contextlib.nullcontext(Counting())  # type: ignore
    try:
        yield
    finally:
        train.interrupts.watched = before


LEFT_OUT = {"norm_over_median": 1.5}


def left_out(run: Run) -> dict[str, Any]:
    """Passes and evaluations that leave out positions by their norm."""
    return {
        "passes": passes_of_demo(run, LEFT_OUT),
        "evaluations": evaluations_of_demo(run, LEFT_OUT),
    }


def loaded(folder: Path, device: torch.device) -> float:
    """`saemake.load` of an SAE on the device against the CPU: the largest relative difference of a
    reconstruction."""
    x_BD = some_batches(1)[0]
    cpu, here = (saemake.load(folder, device=where) for where in ("cpu", device))
    apart_BD = here.decode(here.encode(x_BD.to(device))).cpu() - cpu.decode(cpu.encode(x_BD))
    return (apart_BD.norm() / x_BD.norm()).item()


def passes_of_demo(run: Run, drop: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pass of all architectures twice, once killed in its middle, once with SAEs of another layer
    and seed, and where there are two GPUs once over both: sha256 of each ae.pt."""
    config = demo_config(drop)
    folder = Path(tempfile.mkdtemp())
    inputs = train.Inputs(
        weights=Weights("demo", DEMO_LM, None, "float32"),
        lm_description={"revision": None},
        tokens=demo_tokens(config, "train", folder),
    )
    wanted, sums, seconds = demo_wanted(config), {}, {}
    others = [SaeName(Sweep("demo", Hookpoint(1), "top_k", "256"), 4)]
    others.append(SaeName(Sweep("demo", Hookpoint(3), "batch_top_k", "256"), 4, seed=7))
    beside = [Wanted(str(name), sae_recipe(config, name)) for name in others]
    two = ["on two"] if run.device.type == "cuda" and torch.cuda.device_count() > 1 else []
    for label in ("once", "again", "killed", "shared", *two):
        stores = Stores.under(folder / label)
        conduct = train.Conduct(
            label,
            config.logging,
            1e9 if label == "killed" else math.inf,
            devices_per_pass=1 + (label in two),
            spread=lambda recipes, on: [number % len(on) for number in range(len(recipes))],
        )
        start = time.monotonic()
        if label == "killed":
            with interrupted_after(40), contextlib.suppress(KeyboardInterrupt):
                train.train_pass(wanted, inputs, stores, conduct)
            assert not any(sae.is_in(stores) for sae in wanted)
        more = beside if label == "shared" else []
        train.train_pass([*more, *wanted], inputs, stores, conduct)
        seconds[label] = time.monotonic() - start
        sums[label] = {
            sae.name: hashlib.sha256(stores.saes.read(sae.recipe.hash, "ae.pt")).hexdigest()
            for sae in wanted
        }
    same = {name: len({each[name] for each in sums.values()}) == 1 for name in sums["once"]}
    return {
        "same": same,
        "all_the_same": all(same.values()),
        "loaded_apart": max(
            loaded(stores.saes.folder / sae.recipe.hash, run.device) for sae in wanted
        ),
        "seconds": seconds,
        "sha256": sums,
    }


def evaluations_of_demo(run: Run, drop: dict[str, Any] | None = None) -> dict[str, Any]:
    """Both evaluations of untrained SAEs on the demo: the largest relative difference of a figure
    from the CPU's, and whether twice is the same."""
    config = demo_config(drop)
    folder = Path(tempfile.mkdtemp())
    found: dict[str, Any] = {}
    for evaluation in config.text_evaluations:
        tokens = demo_tokens(config, evaluation, folder)
        figures = []
        for device in (torch.device("cpu"), run.device, run.device):
            lm = LanguageModel(
                Weights("demo", DEMO_LM, None, "float32"), Hookpoint(3), device, whole=True
            )
            codecs = {}
            for name in architectures.names():
                trainer = small_trainer(name, "saebench", "float32", device)
                codecs[name] = trainer.finished(10.0).eval()
            asked = sae_evaluation_recipe(
                config, SaeName(Sweep("demo", Hookpoint(3), "top_k", "256"), 4), evaluation
            )
            judged = judge_by(asked, codecs, lm, tokens, evaluation)
            figures.append({name: one.figures for name, one in judged.items()})
        cpu, once, again = figures
        apart = {
            f"{name}.{key}": abs(once[name][key] - value) / max(abs(value), 1e-6)
            for name, values in cpu.items()
            for key, value in values.items()
            if math.isfinite(value)
        }
        largest = sorted(apart, key=apart.__getitem__, reverse=True)[:5]
        found[evaluation] = {
            "largest_relative": {key: apart[key] for key in largest},
            "twice_the_same": repr(once) == repr(again),
        }
    return found
