"""The registry of evaluations. Each folder of this package that registers one is found by itself:
adding an evaluation is one folder here, with its settings, text, figures and cost in `__init__.py`
and its maths in `judge.py`, and one entry in the config.
"""

from saemake.base.registry import Registry
from saemake.evaluation.description import Evaluation

__all__ = ["Evaluation", "get", "names", "register"]

registry = Registry(__name__, "evaluation", Evaluation)  # type: ignore[type-abstract]
register, names, get = registry.register, registry.names, registry.get
