"""SAEs as SAE Bench reads them, and one that stands for any where the LM alone is looked at."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from calling import UnjudgeableError
from job import Job
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.custom_saes.pca_sae import PCASAE
from sae_bench.custom_saes.run_all_evals_dictionary_learning_saes import TRAINER_LOADERS
from safetensors.torch import load_file

# Principal components, as the baselines' job writes them.
PCA = "pca.safetensors"


def load(job: Job, folder: Path) -> BaseSAE:
    """The SAE in a folder, by SAE Bench's own loader of its trainer, or its principal
    components."""
    if (folder / PCA).exists():
        return _principal_components(job, folder / PCA)
    # The loader leaves files of its own beside those that it reads. It asks the Hub for them first,
    # unless HF_HUB_OFFLINE is set.
    copy = Path(tempfile.mkdtemp(dir=job.work))
    for name in ("ae.pt", "config.json"):
        shutil.copy(folder / name, copy / name)
    trainer = json.loads((copy / "config.json").read_text())["trainer"]
    if trainer["dict_size"] < job.d_model:
        raise UnjudgeableError(
            f"SAE Bench takes no SAE of fewer latents than the LM is wide ({job.d_model})"
        )
    return TRAINER_LOADERS[trainer["trainer_class"]](
        repo_id="saemake/sae",
        filename="ae.pt",
        model_name=job.saes_of,
        device=torch.device(job.device),
        dtype=job.dtype,
        layer=job.layer,
        local_dir=str(copy),
    )


def _principal_components(job: Job, path: Path) -> BaseSAE:
    device = torch.device(job.device)
    sae = PCASAE(job.d_model, job.saes_of, job.layer, device, job.dtype)
    fitted = load_file(path)
    with torch.no_grad():
        sae.mean.copy_(fitted["mean"])
        sae.W_dec.copy_(fitted["components"])
        sae.W_enc.copy_(fitted["components"].T)
    return sae


class SilentSae(BaseSAE):
    """An SAE whose latents never fire. A run with it leaves behind what all SAEs share, and draws
    as many random numbers on the way as a run with any other."""

    def __init__(self, job: Job, latents: int) -> None:
        device = torch.device(job.device)
        super().__init__(job.d_model, latents, job.model, job.layer, device, job.dtype)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros((*x.shape[:-1], self.cfg.d_sae))

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        return feature_acts.new_zeros((*feature_acts.shape[:-1], self.cfg.d_in))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)
