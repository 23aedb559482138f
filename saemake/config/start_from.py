"""`training.start_from`: the path of the SAE that training begins from, as the config says it.

Parts of it may be placeholders, which stand for the parts of the path of the SAE that is trained.
So one line names the source of each SAE of a suite.
"""

import re

from saemake.base.errors import nearest
from saemake.config.config import Config
from saemake.config.faults import ConfigError, override_place

# A path names its top folder and its model entry; every part after them may be a placeholder.
PATH = re.compile(r"(results|published)/([^/{}]+)/.+")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# {sae} stands for all others with the seed, where the SAE's path has one.
PARTS = ("place", "architecture", "width", "sparsity")
WHOLE = "sae"


def key_of(config: Config, model: str) -> str:
    """The key that says where the training of a model's SAEs begins."""
    override = config.models[model].training
    return override_place(override, "training", model)("start_from") + ".start_from"


def filled(template: str, sae: str) -> str:
    """The path with the parts of an SAE's own path in it, which is given without results/."""
    _, rest = sae.split("/", 1)
    values = {**dict(zip(PARTS, rest.split("/"), strict=False)), WHOLE: rest}
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def models_before(config: Config, model: str) -> list[str]:
    """The model entries whose SAEs those of a model start from, and those before these; a published
    SAE has none before it.

    Raises ConfigError where a path is none, or names a model entry that is not there, or where the
    entries start from each other in a circle.
    """
    chain = [model]
    while (template := config.training_of(chain[-1]).start_from) is not None:
        key = key_of(config, chain[-1])
        top, source = _top_and_model(config, key, template)
        if top == "results" and source == chain[-1]:
            raise ConfigError(
                key,
                f"SAEs of {source} cannot start from SAEs of {source}, which start there too: give"
                " one of them a model entry of its own name",
            )
        if top == "results" and source in chain:
            circle = [*chain[chain.index(source) :], source]
            raise ConfigError(key, f"a circle: {' starts from '.join(circle)}; one must have none")
        chain.append(source)
        if top == "published":
            break
    return chain[1:]


def _top_and_model(config: Config, key: str, template: str) -> tuple[str, str]:
    match = PATH.fullmatch(template)
    if match is None:
        raise ConfigError(
            key,
            f"'{template}' is no path of an SAE: write results/<model>/{{{WHOLE}}} for the SAEs of"
            " the same names under another model entry, or the path of one SAE under results/ or"
            " published/",
        )
    for name in PLACEHOLDER.findall(template):
        if name not in (WHOLE, *PARTS):
            raise ConfigError(key, f"no placeholder {{{name}}}; {nearest(name, (WHOLE, *PARTS))}")
    if (rest := PLACEHOLDER.sub("", template)) and set(rest) & set("{}"):
        raise ConfigError(key, f"'{template}' has a brace that belongs to no placeholder")
    top, source = match.groups()
    if source not in config.models:
        raise ConfigError(key, f"no model '{source}'; {nearest(source, config.models)}")
    return top, source
