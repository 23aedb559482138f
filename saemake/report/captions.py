"""How to read each figure, in the words of the report. Snakemake's own report has the same words
(workflow/report/)."""

from saemake import figures

# Whoever changes what a report says or how it looks raises it: reports are written again.
VERSION = 2

L0 = "L0 is the mean number of active latents a token: fewer are easier to look at one by one."
BASELINES = (
    " Grey lines are baselines: PCA with as many components as L0, PCA with all, and the identity."
)
BETTER_ABOVE = " Further up and further left is better."
CAPTIONS = {
    "overview": "The suite at a glance. Each panel shows one figure against L0.",
    "loss_recovered_vs_l0": "Loss recovered: how much of the language model's loss comes back when"
    " the SAE's reconstructions replace the activations. 0 is as bad as zeros, 1 as good as the"
    f" activations themselves. {L0}{BETTER_ABOVE}{BASELINES}",
    "core_loss_recovered_vs_l0": "Loss recovered as SAE Bench's core evaluation computes it, on"
    f" packed contexts. {L0}{BETTER_ABOVE}{BASELINES}",
    "variance_explained_vs_l0": "The share of the activations' variance that the reconstructions"
    f" have. {L0}{BETTER_ABOVE}{BASELINES}",
    "dead_latents_vs_l0": "The share of latents that never fire on the held-out text. They cost"
    " memory and explain nothing; fewer are better.",
    "latent_densities": "On which share of tokens each latent fires. A line is an SAE; darker"
    " lines have a larger L0. A mark at 'never' is the share of latents that fire on no token."
    " Latents near 1 fire on nearly everything and say little.",
    "decoder_similarities": "Each latent's largest cosine with the decoder direction of another"
    " latent. Values near 1 are latents that say the same twice.",
    "training_curves": "Loss, variance explained, L0 and dead latents in the course of the"
    " training, each of a single batch. Curves that are still falling at the end want more tokens.",
    "loss_recovered_vs_tokens": "Loss recovered of the checkpoints, against the tokens trained on.",
    "rebuilt_and_published": "Rebuilt SAEs (filled) beside the published ones (hollow), by both"
    " evaluations. Markers that lie on each other are reproduced.",
    "decoder_match": "How much of each published SAE is in the rebuilt one: the mean over published"
    " latents of the largest decoder cosine with a rebuilt one.",
}


def caption(name: str) -> str:
    """How to read the figure of that name."""
    plain, _ = figures.split(name)
    if plain in CAPTIONS:
        return CAPTIONS[plain]
    figure = figures.get(name)
    if figure.kind == "frontier":
        return f"{figure.label}, against L0. {L0}{BASELINES}"
    return figure.label or "Evaluations of SAE Bench, a panel each."
