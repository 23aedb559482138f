"""How many directions a baseline has. Plans need it, so this is without torch."""


def components_count(name: str, d_model: int) -> int:
    """The number of directions of a baseline (see recipes.baseline_names), at most the model's
    width."""
    _, _, k = name.partition("/k_")
    return min(int(k), d_model) if k else d_model
