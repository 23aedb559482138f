"""Who else reads an SAE's `ae.pt` and `config.json`, in words: of an architecture of one's own only
saemake does."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from saemake import architectures
from saemake.paths.names import SaeName
from saemake.publishing import saelens

# What the loaders know, of dictionary_learning 0.1.0 by the dictionary's class, of SAE Bench 0.6.0
# and SAELens by the trainer's.
KNOWN = {
    "StandardTrainer": "AutoEncoder",
    "StandardTrainerAprilUpdate": "AutoEncoder",
    "PAnnealTrainer": "AutoEncoder",
    "GatedSAETrainer": "GatedAutoEncoder",
    "TopKTrainer": "AutoEncoderTopK",
    "BatchTopKTrainer": "BatchTopKSAE",
    "MatryoshkaBatchTopKTrainer": "MatryoshkaBatchTopKSAE",
    "JumpReluTrainer": "JumpReluAutoEncoder",
}
THREE = "dictionary_learning's loader, SAE Bench's and SAELens's"


def read_elsewhere(architecture: str) -> bool:
    """Whether the three loaders read SAEs of an architecture."""
    kind = architectures.get(architecture)
    return KNOWN.get(kind.trainer_class) == kind.dict_class


def described(saes: Sequence[SaeName]) -> str:
    """Who reads these SAEs, whose files are under results/: sentences."""
    one_of_each = {sae.sweep.architecture: sae for sae in saes}
    known = [name for name in one_of_each if read_elsewhere(name)]
    own = [name for name in one_of_each if name not in known]
    if not own:
        return f"{THREE} read it."
    sentences = [f"{THREE} read {_listed(known)}, no other." if known else f"{THREE} read none."]
    for name in own:
        dict_class = architectures.get(name).dict_class
        exported = "can" if has_saelens_form(one_of_each[name]) else "cannot"
        sentences.append(
            f"`{name}` is a `{dict_class}`, which saemake reads and {exported} write in SAELens's"
            " own format."
        )
    return " ".join(sentences)


def has_saelens_form(sae: SaeName) -> bool:
    """Whether the SAE can be written in SAELens's own format."""
    trainer = json.loads(Path(sae.folder, "config.json").read_text())["trainer"]
    with torch.device("meta"):  # its class is all that is wanted
        made = architectures.get(sae.sweep.architecture).trainer().make_dictionary(trainer)
    return saelens.has_form(type(made))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
