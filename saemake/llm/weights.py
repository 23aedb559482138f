"""Where the files of a language model are on this machine, and how they are to be loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Bits = Literal["4bit", "8bit"]


@dataclass(frozen=True)
class Weights:
    """The files of a language model: its folder, a file in it if the model is GGUF, the dtype to
    load, and over how many GPUs. `trust_remote_code`: code in the folder may run. `quantization`:
    its linear layers are held in so many bits. `converted`: where the weights of the GGUF file are
    as safetensors."""

    name: str
    folder: Path
    gguf_file: str | None
    dtype: str
    devices: int = 1
    trust_remote_code: bool = False
    quantization: Bits | None = None
    converted: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments with which every `from_pretrained` reads `folder`."""
        gguf = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        # Never None: transformers would then ask on the terminal.
        return {**gguf, "trust_remote_code": self.trust_remote_code, "local_files_only": True}

    @property
    def model_folder(self) -> Path:
        """The folder that the model itself is loaded from; its tokenizer is in `folder`."""
        return self.converted or self.folder

    def model_arguments(self) -> dict[str, Any]:
        """The arguments with which a config or a model is read from `model_folder`."""
        arguments = self.arguments()
        if self.converted is not None:
            del arguments["gguf_file"]
        return arguments
