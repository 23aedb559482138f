"""A job of SAE Bench's evaluations: what it judges, with what, and where its results go."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

# sae-probes has no dtype: it loads the LM in float32.
WITHOUT_DTYPE = {"sae_probes"}


@dataclass(frozen=True)
class Job:
    """Read from a job.json.

    `settings` are fields of the evaluation's own config. `model` is TransformerLens's name of the
    LM, `layer` the block whose output the SAEs encode. Each of `saes` is a folder with an ae.pt and
    its config.json. `setup` is the folder with what the evaluation needs of the LM and the data
    alone, and `data` has the folder of each dataset by its id. The results go to `work`. While an
    SAE is judged, `work` is an empty folder that is deleted afterwards. `judge` says which LM
    explains latents: `base_url`, `model`, the name of the environment variable with the `key`, and
    the folder of `answers`. `saes_of` is the LM that the SAEs were trained on, where it is not
    `model`: that of an instruction-tuned LM's base. `software` are the versions that the
    environment must have.
    """

    evaluation: str
    settings: dict[str, Any]
    model: str
    layer: int
    d_model: int
    device: str
    threads: int
    saes: list[Path]
    setup: Path
    data: dict[str, Path]
    work: Path
    judge: dict[str, str] = field(default_factory=dict)
    saes_of: str = ""
    software: dict[str, str] = field(default_factory=dict)

    @property
    def hook(self) -> str:
        """TransformerLens's name of the activations."""
        return f"blocks.{self.layer}.hook_resid_post"

    @property
    def seed(self) -> int:
        return int(self.settings["random_seed"])

    @property
    def dtype(self) -> torch.dtype:
        """Of the LM and of the SAEs."""
        if self.evaluation in WITHOUT_DTYPE:
            return torch.float32
        return getattr(torch, self.settings["llm_dtype"])


def read(path: Path) -> Job:
    """The job in a file, with absolute paths. Raises ValueError if the seed or the dtype is
    missing: SAE Bench has defaults of its own for them."""
    content = json.loads(path.read_text())
    needed = {"random_seed", "llm_dtype"}
    if content["evaluation"] in WITHOUT_DTYPE:
        needed.remove("llm_dtype")
    if lacking := needed - set(content["settings"]):
        raise ValueError(f"{path}: the settings lack {', '.join(sorted(lacking))}")
    judge = content.get("judge") or {}
    if judge:
        judge = {**judge, "answers": str(Path(judge["answers"]).resolve())}
    return Job(
        evaluation=content["evaluation"],
        settings=content["settings"],
        model=content["model"],
        layer=content["layer"],
        d_model=content["d_model"],
        device=content["device"],
        threads=content["threads"],
        saes=[Path(folder).resolve() for folder in content["saes"]],
        setup=Path(content["setup"]).resolve(),
        data={name: Path(folder).resolve() for name, folder in content["data"].items()},
        work=Path(content["work"]).resolve(),
        judge=judge,
        saes_of=content.get("saes_of") or content["model"],
        software=content.get("software") or {},
    )


def seed_everything(seed: int) -> None:
    """All generators that SAE Bench draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
