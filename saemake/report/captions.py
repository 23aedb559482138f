"""How to read each figure, in the words of the report. Snakemake's own report has the same words
(workflow/report/)."""

from saemake import figures

# Whoever changes what a report says or how it looks raises it: reports are written again.
VERSION = 3

L0 = "L0 is the mean number of active latents a token: fewer are easier to look at one by one."
BASELINES = (
    " Grey lines are baselines: PCA with as many components as L0, PCA with all, and the identity."
)
BETTER_ABOVE = " Further up and further left is better."
CHOSEN = (
    " Where latents can be chosen in two ways, the figure shows the loader's: the k largest for"
    " top_k, those above the threshold for batch_top_k and matryoshka_batch_top_k."
)
TITLES = {
    "overview": "Overview",
    "latent_densities": "How often latents fire",
    "decoder_similarities": "Latents with similar decoder directions",
    "training_curves": "The course of the training",
}
CAPTIONS = {
    "overview": "The suite at a glance. Each panel shows one figure against L0."
    f" {L0}{BASELINES}{CHOSEN}",
    "loss_recovered_vs_l0": "Loss recovered: how much of the language model's loss comes back when"
    " the SAE's reconstructions replace the activations. 0 is as bad as zeros, 1 as good as the"
    f" activations themselves. {L0}{BETTER_ABOVE}{BASELINES}{CHOSEN}",
    "core_loss_recovered_vs_l0": "Loss recovered as SAE Bench's core evaluation computes it, on"
    f" packed contexts. {L0}{BETTER_ABOVE}{BASELINES}{CHOSEN}",
    "variance_explained_vs_l0": "The share of the activations' variance that the reconstructions"
    f" have. {L0}{BETTER_ABOVE}{BASELINES}{CHOSEN}",
    "dead_latents_vs_l0": "The share of latents that never fire on the held-out text. They cost"
    f" memory and explain nothing; fewer are better. SAEs with over 10 % are among the warnings."
    f"{CHOSEN}",
    "latent_densities": "On which share of tokens each latent fires. A line is an SAE; darker"
    " lines have a larger L0. A mark at 'never' is the share of latents that fire on no token."
    f" Latents near 1 fire on nearly everything and say little.{CHOSEN}",
    "decoder_similarities": "Each latent's largest cosine with the decoder direction of another"
    " latent. Values near 1 are latents that say the same twice.",
    "training_curves": "Loss, variance explained and L0 are of single batches. A latent is dead"
    " here if it has not fired for logging.dead_after_tokens. If the loss still falls at the end,"
    " or variance explained still rises, train on more tokens.",
    "loss_recovered_vs_tokens": "Loss recovered of the checkpoints, against the tokens trained on.",
    "stability_vs_l0": "How much of an SAE recurs when only the seed of its training differs."
    " Latents of two seeds are matched one to one by their decoder directions, and again by their"
    " encoder directions. A latent is shared if the cosine with its match is over 0.7 in both. A"
    f" bar goes from the smallest to the largest pair of seeds. {L0}",
    "rebuilt_and_published": "Rebuilt SAEs (filled) beside the published ones (hollow), by both"
    " evaluations. Markers that lie on each other are reproduced.",
    "decoder_match": "How much of each published SAE is in the rebuilt one: the mean over published"
    " latents of the largest decoder cosine with a rebuilt one.",
}


def title(name: str) -> str:
    """The title of the figure of that name."""
    label, _, x = name.rpartition("_vs_")
    if name in TITLES or not label:
        return TITLES.get(name, name.replace("_", " "))
    label = figures.get(name).label or label.replace("_", " ")
    return f"{label[0].upper()}{label[1:]} against {x.replace('_', ' ').replace('l0', 'L0')}"


def caption(name: str) -> str:
    """How to read the figure of that name."""
    plain, _ = figures.split(name)
    if plain in CAPTIONS:
        return CAPTIONS[plain]
    figure = figures.get(name)
    if figure.kind == "frontier":
        return f"{figure.label}, against L0. {L0}{BASELINES}{CHOSEN}"
    return figure.label or "Evaluations of SAE Bench, a panel each."
