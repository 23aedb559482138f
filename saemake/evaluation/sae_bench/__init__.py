"""The eight evaluations of SAE Bench that its own code computes. (saemake computes the ninth, core,
by itself.) All values are in the config; those that it has are the paper's."""

from saemake.evaluation.sae_bench import (
    absorption,
    autointerp,
    probing,
    ravel,
    scr_and_tpp,
    unlearning,
)

__all__ = ["absorption", "autointerp", "probing", "ravel", "scr_and_tpp", "unlearning"]
