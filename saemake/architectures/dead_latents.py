"""What architectures with an AuxK loss on dead latents share, whatever its form (auxk.py,
top_k_family.py): which latents are dead, and from when there may be any.

Shapes: B activations in a batch, D the model's width, F latents.
"""

from torch import Tensor

from saemake.architectures import losses
from saemake.architectures.auxk_settings import AuxKSettings
from saemake.architectures.trainer import Trainer


class DeadLatentsTrainer(Trainer):
    """A trainer that pulls dead latents back."""

    settings: AuxKSettings

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Start the decoder's bias of an SAE at the geometric median of the first batch."""
        super().start(x_BD, y_BD)
        if not self.is_transcoder:
            self.dictionary.output_bias.data.copy_(losses.geometric_median(x_BD))

    def auxk_is_due(self, step: int, batch_tokens: int) -> bool:
        """Whether the loss has an AuxK term. False while too few tokens were seen for any latent to
        be dead, so that these steps need not wait for the device."""
        if self.end_to_end is not None:  # batches may have fewer tokens, never more
            batch_tokens = self.training.batch_tokens
        seen = (step + 1) * batch_tokens
        return self.settings.auxk_alpha > 0 and seen >= self.settings.dead_after_tokens

    def dead(self) -> Tensor:
        """Latents (bool [F]) that have not fired for `dead_after_tokens`."""
        return self.tokens_since_fired_F >= self.settings.dead_after_tokens
