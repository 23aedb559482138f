"""Evaluations and snapshots at the size of a published LM and its sweep."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import with_saemake
from conftest import CONFIG_FILE, PROJECT, raw_config
from transformers import Gemma2Config

from on_gpu.passes import KS, neox, random_lm
from on_gpu.run import Run
from on_gpu.texts import write_tokens
from on_gpu.trainers import case_of, copied, ours, sweep_of
from saemake.base.digest import digest
from saemake.base.store import Store
from saemake.config.checks import read
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.kinds import EvaluationRecipe
from saemake.text.shards import Tokens
from saemake.training.snapshots import Snapshots

SPECIAL = {"bos": 2, "eos": 1, "pad": 0}


def evaluations(run: Run) -> dict[str, Any]:
    """Six top_k of 16k on a random LM of Gemma 2's shape: seconds of one batch of each kind, and of
    what the published recipe asks."""
    layer, width = run.choose((12, 16_384), (1, 256))
    config = run.choose(Gemma2Config(), neox(64, 2, 2))
    dtype = run.choose("bfloat16", "float32")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lm = random_lm(config, dtype, layer, folder, run, whole=True)
        trainers = sweep_of("top_k", KS[: run.choose(6, 2)], lm.d_model, width, run.device)
        codecs = {i: each.finished(10.0).eval() for i, each in enumerate(trainers)}
        del trainers
        run.forget()
        vocabulary = min(config.vocab_size, 250_000)
        return {
            "sae_bench_core": core(run, folder, lm, codecs, vocabulary),
            "dictionary_learning": documents(run, folder, lm, codecs, vocabulary),
        }


def published(evaluation: str) -> EvaluationRecipe:
    """The published recipe of an evaluation of Gemma's SAEs."""
    config = read(raw_config({}), PROJECT, [CONFIG_FILE])
    name = SaeName(Sweep("gemma-2-2b", Hookpoint(12), "top_k", "16k"), 20)
    return sae_evaluation_recipe(config, name, evaluation)


def tokens_of(folder: Path, vocabulary: int, contexts: int, length: int) -> Tokens:
    rng = np.random.default_rng(0)
    documents = [rng.integers(5, vocabulary, size=length).tolist() for _ in range(contexts)]
    return write_tokens(folder, documents, "", SPECIAL)


def core(run: Run, folder: Path, lm: LanguageModel, codecs: Any, vocabulary: int) -> dict[str, Any]:
    few, more_reconstruction, more_variance = run.choose(
        ((1, 2), (5, 2), (1, 42)), ((1, 1), (2, 1), (1, 2))
    )
    tokens = tokens_of(folder / "core", vocabulary, 16 * 60, 128)
    seconds, recipe = {}, published("sae_bench_core")
    settings = recipe.settings

    def judge(reconstruction: int, variance: int) -> None:
        amounts = {"reconstruction_batches": reconstruction, "variance_batches": variance}
        some = recipe.model_copy(update={"settings": {**settings, **amounts}})
        judge_by(some, codecs, lm, tokens, "core")

    for amounts in (few, few, more_reconstruction, more_variance):  # the first warms up
        seconds[amounts] = run.seconds(lambda at=amounts: judge(*at), 1)
    reconstruction = (seconds[more_reconstruction] - seconds[few]) / (
        more_reconstruction[0] - few[0]
    )
    variance = (seconds[more_variance] - seconds[few]) / (more_variance[1] - few[1])
    fixed = seconds[few] - few[0] * reconstruction - few[1] * variance
    whole = (
        fixed
        + settings["reconstruction_batches"] * reconstruction
        + settings["variance_batches"] * variance
    )
    return {
        "saes": len(codecs),
        "reconstruction_batch_s": reconstruction,
        "variance_batch_s": variance,
        "fixed_s": fixed,
        "minutes_of_the_published_amounts": whole / 60,
        "peak_gib": run.peak_gib(),
        "kernels": run.profiled(lambda: judge(*few), "core")[0],
    }


def documents(
    run: Run, folder: Path, lm: LanguageModel, codecs: Any, vocabulary: int
) -> dict[str, Any]:
    recipe = published("dictionary_learning")
    length = run.choose(recipe.tokens.context_tokens, 64)
    few, more = run.choose((4, 20), (4, 8))
    seconds = {}
    for name, count in (("warming_up", few), ("few", few), ("more", more)):
        tokens = tokens_of(folder / name, vocabulary, count, length)
        seconds[count] = run.seconds(
            lambda t=tokens: judge_by(recipe, codecs, lm, t, "documents"), 1
        )
    one = (seconds[more] - seconds[few]) / (more - few)
    return {
        "document_tokens": length,
        "document_s": one,
        "minutes_of_200": 200 * one / 60,
        "peak_gib": run.peak_gib(),
    }


def snapshots(run: Run) -> dict[str, Any]:
    """What a snapshot of two SAEs of 65k takes to write and to read."""
    d_model, width = run.choose((2304, 65_536), (64, 512))
    case = case_of("top_k", d_model, width, run.choose(80, 16))
    x_BD = with_saemake.batch(d_model)
    first = ours(case, x_BD, run.device)
    first.update(4000, x_BD.to(run.device, torch.bfloat16))
    states = {digest([i]): member.state() for i, member in enumerate((first, copied(first, case)))}
    with tempfile.TemporaryDirectory() as folder:
        kept = Snapshots(Store(Path(folder), "snapshots"))
        start = time.perf_counter()
        kept.put(7, list(states), "bench", {"some": torch.zeros(3)}, states)
        written = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        start = time.perf_counter()
        snapshot = kept.covering(list(states), "bench")
        assert snapshot is not None
        first.load_state(kept.member(snapshot, next(iter(states))))
        read_one = time.perf_counter() - start
    return {
        "saes": len(states),
        "gib": size / 2**30,
        "write_s": written,
        "write_gib_per_second": size / 2**30 / written,
        "read_one_s": read_one,
    }
