"""RawTopK: the k largest latents of each token, without a ReLU. It is not one of
saemake's: tests add it to a copy of the project, as docs/adding-an-architecture.md says.
"""

from typing import Any, ClassVar

from pydantic import Field

from saemake.architectures import register
from saemake.architectures.description import Architecture, Settings
from saemake.base.sections import Count


class RawTopKSettings(Settings):
    sweep: list[Count] = Field(min_length=1)

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}


@register
class RawTopK(Architecture):
    name = "raw_top_k"
    version = 1
    sparsity = "k"
    trainer_class = "RawTopKTrainer"
    dict_class = "RawTopKDictionary"
    Settings = RawTopKSettings
    example: ClassVar[dict[str, Any]] = {"sweep": [4, 16]}
