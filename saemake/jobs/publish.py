"""SAEs for others: in SAELens's format, and a model's suite on the Hub."""

from pathlib import Path

from saemake.base.files import write, write_json
from saemake.config.config import Config
from saemake.config.rebuilding import config_yaml
from saemake.paths.names import SaeName
from saemake.publishing import card, circuit_tracer, push_plan, saelens
from saemake.publishing import push as pushing
from saemake.publishing.push_plan import PushPlan


def export(config: Config, sae: SaeName, weights: str, cfg: str) -> None:
    """Write an SAE in SAELens's format."""
    weights_content, cfg_content = saelens.export(config, sae)
    write(weights, weights_content)
    write(cfg, cfg_content)


def export_layer(config: Config, sae: SaeName, output: str) -> None:
    """Write a transcoder in circuit-tracer's format."""
    write(output, circuit_tracer.export(config, sae))


def describe_layers(config: Config, sae: SaeName, output: str) -> None:
    """Write what circuit-tracer needs to know of the transcoders of all layers."""
    write(output, circuit_tracer.config_yaml(config, sae))


def describe(config: Config, model: str, repository: str, card_file: str, config_file: str) -> None:
    """Write the model card of a suite, and the config that rebuilds it."""
    write(card_file, card.render(config, model, repository).encode())
    write(config_file, config_yaml(config, model).encode())


def plan_push(config: Config, model: str, repository: str, output: str) -> None:
    """Say what a push would do; send nothing."""
    text = push_plan.text(_planned(config, model, repository, Path(output).parent))
    print(text, flush=True)
    write(output, text.encode())


def push(config: Config, model: str, repository: str, output: str) -> None:
    """Push a suite to the Hub, and keep the receipt."""
    receipt = pushing.push(_planned(config, model, repository, Path(output).parent))
    write_json(output, receipt)


def _planned(config: Config, model: str, repository: str, beside: Path) -> PushPlan:
    files = push_plan.suite(config, model, beside)
    return push_plan.plan(push_plan.look(repository), model, files, config.publishing)
