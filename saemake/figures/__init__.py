"""Figures of a model's layer. Their names are known without importing a plotting library."""

# A frontier, to the columns of metrics.json on its axes, and the label of the second.
FRONTIERS = {
    "loss_recovered_vs_l0": (
        "dictionary_learning.l0",
        "dictionary_learning.frac_recovered",
        "loss recovered",
    ),
    "variance_explained_vs_l0": (
        "dictionary_learning.l0",
        "dictionary_learning.frac_variance_explained",
        "fraction of variance explained",
    ),
    "core_loss_recovered_vs_l0": (
        "sae_bench_core.l0",
        "sae_bench_core.ce_loss_score",
        "loss recovered (SAE Bench core)",
    ),
}
# A figure of the training, to the column that it shows at each checkpoint, and its label.
TRAINING = {
    "loss_recovered_vs_tokens": ("dictionary_learning.frac_recovered", "loss recovered"),
}

# Figures of rebuilt SAEs beside published ones.
PUBLISHED = ("rebuilt_and_published", "decoder_match")


def names() -> list[str]:
    """The names of all figures."""
    return sorted([*FRONTIERS, *TRAINING])
