"""Run by test_transcoder_formats.py in the environment of sae-bench: what SAELens makes of
activations with the transcoders in a folder, and circuit-tracer, where its folder is on the path.
Arguments: the folder, and `sae_lens` or `circuit_tracer`.
"""

import sys
from pathlib import Path

import torch
import yaml


def with_sae_lens(root: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    from sae_lens import SAE

    found = {}
    for folder in sorted((root / "saelens").iterdir()):
        found[folder.name] = SAE.load_from_disk(folder)(x)
    return found


def with_circuit_tracer(root: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    from huggingface_hub import constants

    # circuit-tracer 0.5.0 asks for a constant that later versions of huggingface_hub dropped.
    constants.HF_HUB_ENABLE_HF_TRANSFER = False
    from circuit_tracer.utils.hf_utils import load_transcoders

    found = {}
    for folder in sorted((root / "circuit-tracer").iterdir()):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        files = sorted(folder.glob("layer_*.safetensors"))
        transcoders = load_transcoders(
            # As the Hub's client would have downloaded them.
            {**config, "transcoders": [str(file) for file in files]},
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        assert len(transcoders) == len(files)
        assert transcoders.feature_input_hook == "mlp.hook_in"
        assert transcoders.feature_output_hook == "hook_mlp_out"
        for layer, transcoder in enumerate(transcoders):
            found[f"{folder.name}/{layer}"] = transcoder(x)
    return found


def main() -> None:
    root, library = Path(sys.argv[1]), sys.argv[2]
    x = torch.load(root / "x.pt", weights_only=True)
    reader = {"sae_lens": with_sae_lens, "circuit_tracer": with_circuit_tracer}[library]
    with torch.no_grad():
        found = {name: y.detach().clone() for name, y in reader(root, x).items()}
    torch.save(found, root / f"{library}.pt")


if __name__ == "__main__":
    main()
