"""Hand-raised versions of what the bytes pass through; each enters the recipes that depend on it.

Raise one when its maths or order changes; architectures carry their own.
"""

TOKENS = 3
ACTIVATIONS = 3
EVALUATION = 6
BASELINES = 3
