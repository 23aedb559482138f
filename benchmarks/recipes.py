"""What each difference between the two recipes does, on the demo: L0, loss recovered, dead latents.

    PYTHONPATH=tests .venv/bin/python benchmarks/recipes.py     (about 10 minutes; prints a table)

Every variant trains on the same batches from the same initial weights, three seeds each; a variant
is January 2025's trainer with one part of release 0.1.0's, or all of it.
"""

import argparse
import dataclasses
import itertools
import statistics
import tempfile
from pathlib import Path

from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from measurements import Table, add_into, folder_of
from texts import tokenised

from saemake import architectures
from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.architectures.constraints import OF_RECIPE
from saemake.architectures.trainer import Trainer
from saemake.base import devices, progress
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.judging import sae_evaluation_recipe

MODEL, LAYER, WIDTH = "demo", 3, 1024
SPARSITY = {"top_k": 4, "batch_top_k": 4, "matryoshka_batch_top_k": 4, "jump_relu": 16}
SEEDS = (0, 1, 2)
JANUARY, RELEASE = "saebench", "dictionary_learning"
JUDGE = "dictionary_learning"


@dataclasses.dataclass(frozen=True)
class Variant:
    """Which recipe each part is of."""

    name: str
    constraint: str = JANUARY
    auxk: str = JANUARY
    group_weights: str = "fractions"


PARTS = [
    Variant("January 2025"),
    Variant("its order of norm, clip and projection only", constraint=RELEASE),
    Variant("its AuxK only", auxk=RELEASE),
    Variant("its group weights only", group_weights="uniform"),
    Variant("release 0.1.0", RELEASE, RELEASE, "uniform"),
]
ONLY = {
    "its AuxK only": ("top_k", "batch_top_k", "matryoshka_batch_top_k"),
    "its group weights only": ("matryoshka_batch_top_k",),
    "its order of norm, clip and projection only": (
        *("top_k", "batch_top_k", "matryoshka_batch_top_k"),
    ),
}


def trainer_of(config: Config, architecture: str, variant: Variant, seed: int) -> Trainer:
    kind = architectures.get(architecture).trainer()
    mixed = type(kind.__name__, (kind,), {"constraint": OF_RECIPE[variant.constraint]})
    settings = config.settings_of(MODEL, architecture)
    if architecture == "matryoshka_batch_top_k":
        settings = settings.model_copy(update={"group_weights": variant.group_weights})
    training = config.training_of(MODEL).model_copy(update={"recipe": variant.auxk, "seed": seed})
    return mixed(
        d_model=128,
        width=WIDTH,
        sparsity=SPARSITY[architecture],
        settings=settings,
        training=training,
        steps=config.steps_of(MODEL),
        device=devices.choose(1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_into(parser)
    table = Table("recipes", folder_of(parser.parse_args()))
    config = read(raw_config(), PROJECT, [CONFIG_FILE])
    weights = Weights(MODEL, DEMO_LM, None, "float32")
    training, device = config.training_of(MODEL), devices.choose(1)
    trainers = {
        (architecture, variant.name, seed): trainer_of(config, architecture, variant, seed)
        for architecture, variant, seed in itertools.product(SPARSITY, PARTS, SEEDS)
        if architecture in ONLY.get(variant.name, (architecture,))
    }
    with tempfile.TemporaryDirectory() as folder:
        tokens = {
            split: tokenised(config, weights, split, Path(folder)) for split in ("train", JUDGE)
        }
        lm = LanguageModel(weights, Hookpoint(LAYER), device, whole=False)
        model = config.models[MODEL]
        buffer = ActivationBuffer(
            lm.captured(tokens["train"].alike(model.llm_batch_contexts)),
            d_model=lm.d_model,
            capacity_tokens=model.buffer_tokens,
            batch_tokens=training.batch_tokens,
            seed=training.seed,
            dtype=lm.dtype,
            device=device,
        )
        scale = norm_factor(iter(buffer.batch, None), training.norm_batches)
        steps = config.steps_of(MODEL)
        with progress.bar(steps, f"train {len(trainers)} SAEs", "step") as bar:
            for step in range(steps):
                x_BD = buffer.batch() / scale
                for trainer in trainers.values():
                    trainer.update(step, x_BD)
                bar.update()
        saes = {key: trainer.finished(scale).eval() for key, trainer in trainers.items()}
        whole = LanguageModel(weights, Hookpoint(LAYER), device, whole=True)
        name = SaeName(Sweep(MODEL, Hookpoint(LAYER), "top_k", "1k"), 8)
        asked = sae_evaluation_recipe(config, name, JUDGE)
        found = judge_by(asked, saes, whole, tokens[JUDGE], "evaluate")
        results = {key: judgement.figures for key, judgement in found.items()}
    print("| architecture | trained as | L0 | loss recovered | dead latents |")
    print("| --- | --- | --- | --- | --- |")
    for architecture, variant in itertools.product(SPARSITY, PARTS):
        rows = [results.get((architecture, variant.name, seed)) for seed in SEEDS]
        if rows[0] is None:
            continue
        spreads = {
            "l0": _spread([row["l0"] for row in rows]),
            "loss_recovered": _spread([row["frac_recovered"] for row in rows]),
            "dead_latents": _spread([WIDTH * (1 - row["frac_alive"]) for row in rows]),
        }
        cells = [
            f"{mean:{form}} ± {half:{form}}"
            for (mean, half), form in zip(spreads.values(), (".2f", ".4f", ".0f"), strict=True)
        ]
        print(f"| {architecture} | {variant.name} | {' | '.join(cells)} |")
        case = {"architecture": architecture, "trained_as": variant.name, "seeds": len(SEEDS)}
        means = {f"{name}_mean": mean for name, (mean, _) in spreads.items()}
        halves = {f"{name}_half_range": half for name, (_, half) in spreads.items()}
        table.append({**case, **means, **halves})


def _spread(values: list[float]) -> tuple[float, float]:
    """The mean, and half the range."""
    return statistics.mean(values), (max(values) - min(values)) / 2


if __name__ == "__main__":
    main()
