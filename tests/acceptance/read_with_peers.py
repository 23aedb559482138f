"""Run by test_loaders.py in the environment of sae-bench: reconstruct activations with each SAE
that its loaders and SAELens's read, of dictionary_learning's format and of SAELens's own; of that
also encode them. Argument: the folder that has the files and takes the results.
"""

import json
import sys
from pathlib import Path

import torch
from sae_bench.custom_saes.run_all_evals_dictionary_learning_saes import TRAINER_LOADERS
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import dictionary_learning_sae_huggingface_loader_1

REPOSITORY = "saemake/demo"


def with_sae_bench(folder: str, root: Path) -> torch.nn.Module:
    config = json.loads((root / "downloaded" / folder / "config.json").read_text())
    return TRAINER_LOADERS[config["trainer"]["trainer_class"]](
        repo_id=REPOSITORY,
        filename=f"{folder}/ae.pt",
        model_name="demo",
        device=torch.device("cpu"),
        dtype=torch.float32,
        layer=3,
        local_dir=str(root / "downloaded"),
    )


def with_sae_lens(folder: str) -> torch.nn.Module:
    return SAE.from_pretrained(
        release=REPOSITORY,
        sae_id=folder,
        device="cpu",
        converter=dictionary_learning_sae_huggingface_loader_1,
    )


def main() -> None:
    root = Path(sys.argv[1])
    activations = torch.load(root / "activations.pt", weights_only=True)
    folders = json.loads((root / "folders.json").read_text())
    sae_bench, sae_lens, exported, latents = {}, {}, {}, {}
    with torch.no_grad():
        for folder in folders:
            sae_bench[folder] = with_sae_bench(folder, root)(activations).clone()
            sae_lens[folder] = with_sae_lens(folder)(activations).clone()
            sae = SAE.load_from_disk(root / "saelens" / folder)
            latents[folder] = sae.encode(activations).clone()
            exported[folder] = sae.decode(latents[folder]).clone()
    torch.save(sae_bench, root / "sae_bench.pt")
    torch.save(sae_lens, root / "sae_lens.pt")
    torch.save(exported, root / "exported.pt")
    torch.save(latents, root / "latents.pt")


if __name__ == "__main__":
    main()
