"""Training figures: a quality against the tokens trained on, one line for each SAE."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The training of the SAEs in `rows`, one row per checkpoint. SAEs of one architecture differ
    in their dashes."""
    drawn, (axes,) = style.canvas(7.5, 4)
    rows = rows[rows["width"].notna()]
    columns = ["width", "sparsity"] if rows["width"].nunique() > 1 else ["sparsity"]
    rows = rows.assign(sae=rows[columns].agg(" ".join, axis=1))
    for architecture, saes in rows.groupby("architecture", sort=True):
        dashes = style.dashes(saes["sae"].unique())
        for sae, dash in dashes.items():
            line = saes[saes["sae"] == sae].sort_values("tokens")
            label = f"{architecture} {sae}"
            style.draw_line(
                axes, line[figure.x], line[figure.y], str(architecture), dash=dash, label=label
            )
    # The axis starts at 0 tokens, which a logarithmic axis cannot show.
    axes.set_xscale("symlog", linthresh=max(rows.loc[rows["tokens"] > 0, "tokens"].min(), 1))
    axes.set(title=title, xlabel="tokens trained on", ylabel=figure.label)
    style.finish(axes)
    return drawn
