"""The maths of loss by position."""

from collections.abc import Mapping
from typing import Any

import torch

from saemake.base import progress
from saemake.evaluation.codecs import Codec, Judgement, reconstructed
from saemake.evaluation.running import Mean
from saemake.llm.model import LanguageModel, checked, token_losses
from saemake.text.shards import Tokens


@torch.no_grad()
def judge(
    codecs: Mapping[Any, Codec],
    lm: LanguageModel,
    tokens: Tokens,
    settings: Any,
    batch_contexts: int,
    label: str,
) -> dict[Any, Judgement]:
    """Every codec on packed contexts, whose predictions are all there: [B, L - 1] a batch."""
    first = {key: Mean() for key in codecs}
    later = {key: Mean() for key in codecs}
    active = {key: torch.zeros(codec.width, dtype=torch.double) for key, codec in codecs.items()}
    with progress.bar(tokens.count, label, "tok") as bar:
        for contexts in tokens.contexts(batch_contexts):
            hidden_BLD = lm.capture(contexts)
            x_ND = checked(hidden_BLD.flatten(0, 1).float(), label, lm)
            for key, codec in codecs.items():
                x_hat_BLD = reconstructed(codec, x_ND).view_as(hidden_BLD)
                losses = token_losses(lm.run_with(contexts, x_hat_BLD), contexts)
                losses_BP = losses.view(len(contexts.ids), -1)
                first[key].add(losses_BP[:, : settings.first])
                later[key].add(losses_BP[:, settings.first :])
                active[key] += (codec.encode(x_ND) != 0).sum(dim=0)
            bar.update(contexts.tokens)
    return {
        key: Judgement(
            {"loss_first": first[key].value, "loss_later": later[key].value},
            {"density": active[key] / tokens.count},
        )
        for key in codecs
    }
