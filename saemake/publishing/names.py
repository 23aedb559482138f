"""Names of what is published: SAEs in SAELens's format, and what a push to the Hub leaves here.

saelens/{model}/L{layer}/{architecture}/{width}/{sparsity}/sae_weights.safetensors, cfg.json
published-to/{owner}/{repo}/{model}/plan.txt, receipt.json, and what is pushed beside results/
"""

from pathlib import PurePosixPath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from saemake import names
from saemake.config import Config
from saemake.errors import SaemakeError, first_line, nearest
from saemake.names import PUBLISHED_TO, RESULTS, SAE_FILES, SAELENS, SaeName

# Raised when other bytes are written for the same SAE.
SAELENS_VERSION = 1
SAELENS_FILES = ("sae_weights.safetensors", "cfg.json")
PLAN, RECEIPT = "plan.txt", "receipt.json"
# Pushed beside the suite: the model card, and the config that rebuilds the suite. What has the
# config was made by saemake.
CARD, CONFIG = "README.md", "saemake.yaml"
PUSH_FILES = (PLAN, CARD, CONFIG, RECEIPT)


def suite_saes(config: Config, model: str) -> list[SaeName]:
    """The SAEs of a model's suite."""
    return [
        sae
        for layer in config.models[model].suite.layers
        for sweep in names.suite_sweeps(config, model, layer)
        for sae in names.members(config, sweep)
    ]


def suite_files(config: Config, model: str) -> list[str]:
    """The files under results/ of a model's suite that a push sends: of each SAE its own and its
    metrics, and its checkpoints with theirs; tables, baselines and figures; the model's."""
    found = [f"{RESULTS}/{model}/model.json"]
    for layer in config.models[model].suite.layers:
        found.append(f"{RESULTS}/{model}/L{layer}/{names.BASELINES}/metrics.json")
        found += names.figure_files(config, model, layer)
        sweeps = names.suite_sweeps(config, model, layer)
        found += [f"{sweep.folder}/metrics.json" for sweep in sweeps]
    for sae in suite_saes(config, model):
        checkpoints = names.checkpoint_files(config, model, sae.sweep.architecture)
        own = [*SAE_FILES, "metrics.json", *checkpoints]
        own += ["checkpoints/metrics.json"] if checkpoints else []
        found += [f"{sae.folder}/{file}" for file in own]
    return found


def check_target(config: Config, path: str) -> None:
    """Raise SaemakeError, naming the nearest right name, where `path` under saelens/ or
    published-to/ is none of this config."""
    first, *rest = PurePosixPath(path).parts or ("",)
    check = {SAELENS: _check_export, PUBLISHED_TO: _check_push}.get(first)
    if check is not None:
        try:
            check(config, rest)
        except SaemakeError as error:
            raise SaemakeError(f"{path}: {error}") from None


def _check_export(config: Config, parts: list[str]) -> None:
    match parts:
        case [model, layer, architecture, width, sparsity, file]:
            if file not in SAELENS_FILES:
                raise SaemakeError(
                    f"an exported SAE has no file '{file}'; {nearest(file, SAELENS_FILES)}"
                )
            sae = f"{RESULTS}/{model}/{layer}/{architecture}/{width}/{sparsity}/ae.pt"
            try:
                names.check_target(config, sae)
            except SaemakeError as error:
                raise SaemakeError(str(error).removeprefix(f"{sae}: ")) from None
        case _:
            raise SaemakeError(
                f"name a file of an SAE: {SAELENS}/<model>/L<layer>/<architecture>/<width>/"
                f"<sparsity>/{SAELENS_FILES[0]}"
            )


def _check_push(config: Config, parts: list[str]) -> None:
    match parts:
        case [owner, repo, model, file]:
            _check_repository(f"{owner}/{repo}")
            names.check_model(config, model)
            if file not in PUSH_FILES:
                raise SaemakeError(f"a push has no file '{file}'; {nearest(file, PUSH_FILES)}")
        case _:
            raise SaemakeError(
                f"name the repository and the model: {PUBLISHED_TO}/<owner>/<repo>/<model>/{PLAN}"
                f" shows what a push would do, {RECEIPT} pushes"
            )


def _check_repository(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SaemakeError(f"no repository of the Hub ({first_line(error)})") from None
