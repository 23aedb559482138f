"""saemake: name an SAE, get it. The package behind the workflow; it never sees `snakemake`."""

import os
from typing import TYPE_CHECKING

from saemake.base.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from saemake.architectures.trainer import Dictionary

__all__ = ["__version__", "load", "sweep"]

# Torch reads it when it first allocates: large tensors then lie in huge pages, which the kernel
# clears in a third of the time (docs/benchmarks.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def load(
    place: "str | os.PathLike[str]",
    *,
    device: "str | torch.device" = "cpu",
    inference: str | None = None,
) -> "Dictionary":
    """An SAE from its files, ready for use.

    `place` is the SAE's folder, its ae.pt or a checkpoint (`checkpoints/ae_100.pt`): built under
    results/ or hub/, fetched under published/, or any folder with an ae.pt and a config.json of
    dictionary_learning's. Neither Snakemake nor the project's config is needed.

    - `encode(x)`: activations [..., D] to latents [..., F]. `x` is the residual stream as the
      language model has it: the norm factor of the training is in the weights already. Weights are
      float32; `x` of any float dtype is cast to it, so latents are float32. Put `x` on `device`.
    - `decode(f)`: latents [..., F] to reconstructions [..., D], float32.
    - `config`: config.json's content. `config["trainer"]` has the layer and the model's name.
    - `metrics`: its row of metrics.json.
    - `lm()`: the language model and its tokenizer. `activations(text)`: what the SAE sees of a
      text, for a first look.
    - `inference`: the way of choosing latents, None where there is one only. The argument chooses
      another. By "top_k", BatchTopK and Matryoshka choose among all tokens that `encode` is given,
      so that a token's latents depend on the others.

    It is in eval mode, and no parameter asks for a gradient (gradients of `x` pass through).

    Raises SaemakeError, one line with the way out: `place` is not there, or no SAE's; config.json
    is missing or names an unknown architecture; ae.pt is damaged; the device or the inference is
    none.
    """
    # Imported here: torch takes 1.6 s, which names and plans do not need.
    from saemake.notebook import opening

    return opening.load(place, device, inference)


def sweep(*places: "str | os.PathLike[str]") -> "pd.DataFrame":
    """A table of SAEs: a row for each SAE, and way of choosing its latents, of these metrics.json.

    Each place is a sweep's or an SAE's folder or a metrics.json, and may have wildcards:
    `saemake.sweep("results/demo/L3/*/1k")`. Columns are those of metrics.json
    (docs/metrics.schema.json), an evaluation's under its name: `sae_bench_core.l0`. A sweep's table
    has its layer's baselines too: `architecture` identity and pca. What an evaluation was made with
    is left out.

    Raises SaemakeError where a place is not there or not built.
    """
    from saemake.notebook import tables

    return tables.sweep(places)
