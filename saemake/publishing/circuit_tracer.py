"""circuit-tracer's format: the transcoders of all layers of an LM, a safetensors file for each, and
a config.yaml. `load_transcoders` of circuit-tracer 0.5.0 reads them.

Shapes: D the model's width, F latents.
"""

from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from saemake.architectures.dictionary import Dictionary
from saemake.config.config import Config, lm_name
from saemake.paths.names import SaeName
from saemake.paths.tracer import READ, WRITTEN
from saemake.publishing.jump_relu_form import jump_relu_form_of
from saemake.recipes.training import sae_recipe
from saemake.training import files


def export(config: Config, name: SaeName) -> bytes:
    """The safetensors of a transcoder under results/. Raises SaemakeError if its files are damaged,
    or if it has no form as a JumpReLU."""
    folder, sweep = Path(name.folder), name.sweep
    files.checked_sum(folder, sae_recipe(config, name).hash)
    return weights(
        files.load(folder, sweep.architecture, config.latents(sweep.width), torch.device("cpu"))
    )


def weights(dictionary: Dictionary) -> bytes:
    """W_enc and W_dec [F, D], b_enc [F], b_dec [D], with a skip connection W_skip [D, D], and of a
    JumpReLU the thresholds [F]; float32, without metadata, whose order in the file would change
    from call to call. Raises SaemakeError as jump_relu_form_of does."""
    form = jump_relu_form_of(dictionary)
    tensors = {
        "W_enc": form.encoder_FD,
        "b_enc": form.bias_F,
        "W_dec": dictionary.decoder_rows,
        "b_dec": dictionary.output_bias,
        "activation_function.threshold": form.threshold_F,
        "W_skip": dictionary.W_skip,
    }
    return save(
        {key: value.detach().contiguous() for key, value in tensors.items() if value is not None}
    )


def config_yaml(config: Config, name: SaeName) -> bytes:
    """config.yaml of the folder of the transcoders that have that name at all layers. It names no
    files: those beside it are found by their names."""
    hookpoint = name.sweep.hookpoint
    assert hookpoint.write is not None
    content = {
        "model_name": lm_name(config, name.model),
        "model_kind": "transcoder_set",
        "feature_input_hook": READ[hookpoint.read],
        "feature_output_hook": WRITTEN[hookpoint.write],
        "scan": f"{name.model}/{hookpoint.site}/{name.sweep.architecture}/{name.sweep.width}"
        f"/{name.own_part}",
    }
    return yaml.safe_dump(content, sort_keys=False).encode()
