"""Where a language model's files lie on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Weights:
    """A language model on this machine: a folder, for GGUF a file in it, and the dtype to load."""

    name: str
    folder: Path
    gguf_file: str | None
    dtype: str

    def arguments(self) -> dict[str, Any]:
        """What every `from_pretrained` takes to read this folder."""
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}
