"""Where the files of a language model are on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Weights:
    """The files of a language model: its folder, a file in it if the model is GGUF, the dtype to
    load, and over how many GPUs."""

    name: str
    folder: Path
    gguf_file: str | None
    dtype: str
    devices: int = 1

    def arguments(self) -> dict[str, Any]:
        """The arguments with which every `from_pretrained` reads this folder."""
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}
