"""How much of each published decoder is in the rebuilt one: one bar per SAE."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, palette, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A bar for each row, in the colour and with the marker of its architecture. The verdict stands
    beside the name of the SAE."""
    drawn, (axes,) = style.grid([1], 7.5, 0.25 * len(rows) + 0.8)
    for place, row in enumerate(rows.to_dict("records")):
        mark = palette.mark(row["architecture"])
        axes.barh(place, row[figure.x], height=0.3, color=mark.colour)
        axes.plot(
            row[figure.x],
            place,
            marker=mark.marker,
            color=mark.colour,
            markeredgecolor=style.EDGE,
            markeredgewidth=0.5,
            linestyle="",
            clip_on=False,
        )
    names = rows[["architecture", "width", "sparsity"]].agg(" ".join, axis=1)
    axes.set_yticks(range(len(rows)), names + " (" + rows["verdict"] + ")")
    # The first SAE is at the top.
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    keys = [style.key(name) for name in sorted(rows["architecture"].unique())]
    style.finish_grid(drawn, title, figure.label, keys)
    return drawn
