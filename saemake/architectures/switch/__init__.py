"""Switch SAE: a router sends each token to one of several experts, each a TopK with its share of
the latents (https://arxiv.org/abs/2410.08201, github.com/amudide/switch_sae). A step costs about
as much as that of a TopK with the latents of one expert.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.base.sections import Count, Number


class SwitchSettings(description.Settings):
    """`lb_alpha` is the weight of the load-balancing loss, which is 1 where the router sends as
    many tokens to each of the `experts`."""

    sweep: list[Count] = Field(min_length=1)
    experts: Count
    lb_alpha: Annotated[Number, Field(ge=0)]

    def latents_needed(self) -> dict[str, int]:
        """Each expert needs k latents."""
        return {"sweep": max(self.sweep) * self.experts}


@register
class Switch(Architecture):
    name = "switch"
    version = 1
    sparsity = "k"
    trainer_class = "SwitchTrainer"
    dict_class = "SwitchAutoEncoder"
    trains_end_to_end = True
    # An expert's latents are few. But the gradients of both matrices are joined from those of the
    # experts, which takes as much again.
    live_latents = 4.0
    Settings = SwitchSettings
    example: ClassVar[Mapping[str, Any]] = {"sweep": [4, 16], "experts": 4, "lb_alpha": 0.1}

    @classmethod
    def products_of_step(cls, settings: Any, sparsity: float, latents: int) -> float:
        """Five products with one expert's latents, and three with the router: forward, and the
        gradients of its weight and of its input, which has a bias."""
        return cls.step_products / settings.experts + 3 * settings.experts / latents

    @classmethod
    def products_of_encoding(cls, settings: Any, sparsity: float) -> float:
        return 1 / settings.experts
