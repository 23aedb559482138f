"""Which other libraries read an SAE's `ae.pt` and `config.json`, in words. Only saemake reads SAEs
of your own architectures."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from saemake import architectures
from saemake.architectures.elsewhere import read_elsewhere
from saemake.paths.names import SaeName
from saemake.publishing import saelens

THREE = "dictionary_learning's loader, SAE Bench's and SAELens's"


def described(saes: Sequence[SaeName]) -> str:
    """Sentences that say which libraries read these SAEs, whose files are under results/."""
    examples = {sae.sweep.architecture: sae for sae in saes}
    # No other library's loader knows a transcoder by its class.
    known = [
        name
        for name, sae in examples.items()
        if read_elsewhere(name) and not sae.hookpoint.is_transcoder
    ]
    unknown = [name for name in examples if name not in known]
    if not unknown:
        return f"{THREE} read it."
    sentences = [f"{THREE} read {_listed(known)}, no other." if known else f"{THREE} read none."]
    for name in unknown:
        transcodes = examples[name].hookpoint.is_transcoder
        kind = "transcoder" if transcodes else f"`{architectures.get(name).dict_class}`"
        exported = "can" if has_saelens_form(examples[name]) else "cannot"
        sentences.append(
            f"`{name}` is a {kind}, which saemake reads and {exported} write in SAELens's"
            " own format."
        )
    return " ".join(sentences)


def has_saelens_form(sae: SaeName) -> bool:
    """Whether the SAE can be written in SAELens's own format."""
    trainer = json.loads(Path(sae.folder, "config.json").read_text())["trainer"]
    with torch.device("meta"):  # only the class is needed, no weights
        dictionary = (
            architectures.get(sae.sweep.architecture).trainer().described_dictionary(trainer)
        )
    return saelens.has_form(dictionary)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
