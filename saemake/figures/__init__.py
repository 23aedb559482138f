"""Figures of a model's layer. Their names are known without importing a plotting library."""

# Figure to the column of metrics.json on its y axis, and that axis's label.
FRONTIERS = {
    "loss_recovered_vs_l0": ("loss_recovered", "loss recovered"),
    "variance_explained_vs_l0": ("frac_variance_explained", "fraction of variance explained"),
}


def names() -> list[str]:
    """The names of all figures."""
    return sorted(FRONTIERS)
