"""AbsTopK: the k latents of each token that are largest in size, with their signs. It is not one of
saemake's: tests add it to a copy of the project, as docs/adding-an-architecture.md says.
"""

from typing import Any, ClassVar

from pydantic import Field

from saemake.architectures import register
from saemake.architectures.description import Architecture, Settings
from saemake.base.sections import Count


class AbsTopKSettings(Settings):
    sweep: list[Count] = Field(min_length=1)

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}


@register
class AbsTopK(Architecture):
    name = "abs_top_k"
    version = 1
    sparsity = "k"
    trainer_class = "AbsTopKTrainer"
    dict_class = "AbsTopKDictionary"
    Settings = AbsTopKSettings
    example: ClassVar[dict[str, Any]] = {"sweep": [4, 16]}
