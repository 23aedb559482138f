"""What an SAE sees of a text, for a first look."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


class Lm(NamedTuple):
    """A language model and its tokenizer, as transformers has them: `lm, tokenizer = sae.lm()`."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Activations:
    """What an SAE sees of a text of L tokens: the tokens as text and as ids; `x` [L, D], the
    LM's activations at the SAE's site in the LM's dtype; `f` [L, F], the latents, float32."""

    tokens: list[str]
    ids: list[int]
    x: Tensor
    f: Tensor

    def top(self, latents: int = 5) -> "pd.DataFrame":
        """The most active latents of each token, at most so many that are not 0. Columns:
        `position`, `token`, `latent`, `activation`; the largest first at each position."""
        import pandas as pd

        values_LK, places_LK = self.f.topk(min(latents, self.f.shape[1]), dim=1)
        rows = [
            {"position": at, "token": self.tokens[at], "latent": latent, "activation": value}
            for at, (values, places) in enumerate(
                zip(values_LK.tolist(), places_LK.tolist(), strict=True)
            )
            for value, latent in zip(values, places, strict=True)
            if value != 0
        ]
        return pd.DataFrame(rows, columns=["position", "token", "latent", "activation"])

    def of(self, latent: int) -> "pd.DataFrame":
        """One latent on each token. Columns: `position`, `token`, `activation`. Raises IndexError
        where there is no such latent."""
        import pandas as pd

        values = self.f[:, latent].tolist()
        return pd.DataFrame(
            {"position": range(len(values)), "token": self.tokens, "activation": values}
        )
