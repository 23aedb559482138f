"""The registry of evaluations. Each folder of this package that registers one is found by itself:
adding an evaluation is one folder here, with its settings, text, figures and cost in `__init__.py`
and its maths in `judge.py`, and one entry in the config.
"""

from saemake.base.registry import Registry
from saemake.evaluation.by_sae_bench import SaeBenchEvaluation
from saemake.evaluation.description import Evaluation, TextEvaluation

__all__ = [
    "Evaluation",
    "SaeBenchEvaluation",
    "TextEvaluation",
    "by_sae_bench",
    "get",
    "names",
    "on_text",
    "register",
]

registry = Registry(__name__, "evaluation", Evaluation)
register, names, get = registry.register, registry.names, registry.get


def on_text(name: str) -> type[TextEvaluation]:
    """The evaluation of that name, one that saemake computes on a text. Raises SaemakeError if
    there is no evaluation of that name, TypeError if it is one of SAE Bench's."""
    described = get(name)
    if not issubclass(described, TextEvaluation):
        raise TypeError(f"{name} reads no text")
    return described


def by_sae_bench(name: str) -> type[SaeBenchEvaluation]:
    """The evaluation of that name, one that SAE Bench computes. Raises SaemakeError if there is no
    evaluation of that name, TypeError if saemake computes it."""
    described = get(name)
    if not issubclass(described, SaeBenchEvaluation):
        raise TypeError(f"{name} is not computed by SAE Bench")
    return described
