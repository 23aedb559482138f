"""What the pages of SAEs show, for all SAEs of a job in one run of the LM."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.base import devices
from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.evaluation.codecs import Codec, check_lm_width
from saemake.features import table
from saemake.features.latents import Peaks, Seen, activations_of, histogram, sample, seen
from saemake.features.lens import Extremes, Lens, lens_of
from saemake.features.ranking import nearest
from saemake.features.text import Captured, beginning, captured
from saemake.features.tokens import TokenTexts
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel, load_tokenizer
from saemake.llm.weights import Weights
from saemake.paths.files import FEATURES
from saemake.recipes.features import FeaturesRecipe
from saemake.recipes.judging import evaluation_key
from saemake.text.shards import Tokens

log = logging.getLogger(__name__)
RECIPE = "recipe.json"
# Tokens that are shown as promoted, and as suppressed; nearest latents; bins of a histogram.
TOKENS_SHOWN, NEAREST_SHOWN, BINS = 10, 8, 40


@dataclass(frozen=True)
class Wanted:
    """The page of an SAE: the SAE's name, the recipe, the sha256 of its ae.pt, how to load it."""

    name: str
    recipe: FeaturesRecipe
    sha256: str
    load: Callable[[torch.device], Codec]

    @property
    def key(self) -> str:
        """What names its data in the store."""
        return evaluation_key(self.recipe.hash, self.sha256)


def gather(
    wanted: Sequence[Wanted],
    hookpoint: Hookpoint,
    weights: Weights,
    tokens: Tokens,
    dropping: Dropping,
    store: Store,
    dropped: str,
) -> None:
    """Put what the pages show into the store: what it lacks. `dropped` says in words which
    positions `dropping` leaves out.

    Raises SaemakeError where the tokens are of another recipe, the tokenizer cannot show tokens, an
    SAE is not what its path says, or activations are not finite.
    """
    tokens.check(wanted[0].recipe.text.hash)
    with store.lock({each.key for each in wanted}):
        store.bring({each.key: each.recipe.hash for each in wanted})
        missing = {each.key: each for each in wanted if not store.has(each.key)}
        log.info("%d of %d SAEs have no data for a page", len(missing), len(wanted))
        if not missing:
            return
        recipe = next(iter(missing.values())).recipe
        device = devices.choose(recipe.cpu_threads)
        codecs = {key: each.load(device) for key, each in missing.items()}
        texts = TokenTexts(load_tokenizer(weights), weights.name)
        for contexts in beginning(tokens, recipe.batch_contexts, recipe.tokens):
            texts.of(contexts.ids[contexts.mask.bool()].unique().tolist())
        label = f"features of {len(missing)} on {weights.name}/{hookpoint}"
        lm = LanguageModel(weights, hookpoint.source, device, whole=False)
        for key, codec in codecs.items():
            check_lm_width(missing[key].name, codec, weights.name, lm.d_model)
        text = captured(lm, tokens, dropping, recipe.batch_contexts, recipe.tokens, label)
        if len(text.x_ND) == 0:
            raise SaemakeError(
                f"{label}: all {len(text.ids_T)} positions of the text are left out ({dropped});"
                " leave out less, or set features.tokens higher"
            )
        added = hookpoint.target.read != "mlp_in"  # to the residual stream, which the lens reads
        lens = lens_of(lm, len(texts.tokenizer)) if added else None
        for key, each in missing.items():
            shown = Shown(each.recipe, codecs[key], text, texts, lens, device)
            summary = shown.summary(dropped)
            log.info("%s: %d latents shown, %d dead", each.name, len(shown.chosen), summary.dead)
            store.put(
                key,
                {
                    FEATURES: table.content(shown.rows(), summary),
                    RECIPE: each.recipe.model_dump_json(indent=1).encode() + b"\n",
                },
            )


class Shown:
    """What one page shows of an SAE. Raises SaemakeError if the SAE has no latent that the recipe
    asks for."""

    def __init__(
        self,
        recipe: FeaturesRecipe,
        codec: Codec,
        text: Captured,
        texts: TokenTexts,
        lens: Lens | None,
        device: torch.device,
    ) -> None:
        self.recipe, self.codec, self.text, self.texts = recipe, codec, text, texts
        self.lens, self.device = lens, device
        self.seen: Seen = seen(codec, text, device, recipe.contexts)
        self.chosen = sample(self.seen.fired_F, recipe.sample, recipe.latents)

    def summary(self, dropped: str) -> table.Summary:
        """Of the whole SAE."""
        fired_F, positions = self.seen.fired_F, len(self.text.x_ND)
        lowest, densities = decades(fired_F, positions)
        return table.Summary(
            latents=len(fired_F),
            dead=int((fired_F == 0).sum()),
            l0=int(fired_F.sum()) / positions,
            contexts=self.text.contexts,
            tokens=len(self.text.ids_T),
            positions=positions,
            dropped=dropped,
            held_out=self.recipe.held_out,
            sample=self.recipe.sample,
            lowest_decade=lowest,
            densities=densities,
            norm=None if self.lens is None else self.lens.norm,
        )

    def rows(self) -> list[dict[str, Any]]:
        """Of each latent that is shown, in order."""
        if not self.chosen:
            return []
        chosen_S = torch.tensor(self.chosen)
        on_device = chosen_S.to(self.device)
        values_SN = activations_of(self.codec, self.text, self.device, chosen_S)
        peaks = self.seen.peaks.of(on_device)
        unit_SD = torch.nn.functional.normalize(self.codec.decoder_rows[on_device].float(), dim=-1)
        promoted, suppressed = (
            self.lens.extremes(unit_SD, TOKENS_SHOWN) if self.lens else (None, None)
        )
        cosines, neighbours = nearest(self.codec.decoder_rows, on_device, NEAREST_SHOWN)
        asked = set(self.recipe.latents)
        return [
            {
                "latent": latent,
                "asked": latent in asked,
                **_firing(values_SN[place]),
                "promoted": self._tokens(promoted, place),
                "suppressed": self._tokens(suppressed, place),
                "nearest": [
                    {"latent": other, "cosine": cosine}
                    for other, cosine in zip(
                        neighbours[place].tolist(), cosines[place].tolist(), strict=True
                    )
                ],
                "contexts": self._contexts(peaks, place, values_SN[place]),
            }
            for place, latent in enumerate(self.chosen)
        ]

    def _tokens(self, extremes: Extremes | None, place: int) -> list[dict[str, Any]]:
        if extremes is None:
            return []
        ids, logits = extremes.ids[place].tolist(), extremes.logits[place].tolist()
        texts = self.texts.of(ids, of_text=False)
        return [
            {"id": token, "token": shown, "logit": logit}
            for token, shown, logit in zip(ids, texts, logits, strict=True)
        ]

    def _contexts(self, peaks: Peaks, place: int, values_N: Tensor) -> list[dict[str, Any]]:
        found = zip(
            peaks.values[place].tolist(),
            peaks.contexts[place].tolist(),
            peaks.positions[place].tolist(),
            strict=True,
        )
        return [
            {"context": context, "position": position, "activation": value}
            | self._window(context, position, values_N)
            for value, context, position in found
            if value > 0
        ]

    def _window(self, context: int, position: int, values_N: Tensor) -> dict[str, Any]:
        """The tokens around a position of a context, with their activations."""
        start, end = self.text.starts_C[context : context + 2].tolist()
        first = max(start + position - self.recipe.window, start)
        last = min(start + position + self.recipe.window + 1, end)
        kept, rows = self.text.kept_T[first:last], self.text.rows[first:last]
        return {
            "first": first - start,
            "tokens": self.texts.of(self.text.ids_T[first:last].tolist()),
            "activations": [
                values_N[row].item() if used else None
                for used, row in zip(kept.tolist(), rows.tolist(), strict=True)
            ],
        }


def _firing(values_N: Tensor) -> dict[str, Any]:
    """How often a latent fires, and how strongly."""
    fired = values_N[values_N != 0]
    counts, _ = histogram(values_N, BINS)
    return {
        "fired": len(fired),
        "density": len(fired) / len(values_N),
        "largest": fired.max().item() if len(fired) else None,
        "mean": fired.double().mean().item() if len(fired) else None,
        "histogram": counts,
    }


def decades(fired_F: Tensor, positions: int) -> tuple[int, list[int]]:
    """How many latents that fired have a density in each decade, from that of a single firing to 1:
    the exponent of the lowest decade's lower end, and the counts."""
    lowest = _decade(1, positions)
    counts = [0] * -lowest
    for fired in fired_F[fired_F > 0].tolist():
        counts[_decade(fired, positions) - lowest] += 1
    return lowest, counts


def _decade(fired: int, positions: int) -> int:
    """The exponent of the lower end of a density's decade; a density of 1 is in the last, -1."""
    exponent = -1
    while fired * 10**-exponent < positions:
        exponent -= 1
    return exponent
