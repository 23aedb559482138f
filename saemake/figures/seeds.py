"""SAEs that differ in their seed alone: their means, and how far they spread."""

import pandas as pd

# Of a column, the standard deviation over seeds; how many seeds a row is the mean of.
SPREAD, COUNT = "seeds.{}.standard_deviation", "seeds.count"
# What ends or parts the name of an SAE with a seed.
SEED = r"/seed_\d+"
NOT_FIGURES = ("evaluations", "noise")


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with one row for all seeds of an SAE, or of a checkpoint: the means of its figures
    and of L0, and for each of these a column SPREAD, the standard deviation (of the sample; null of
    one seed). COUNT has the number of seeds. Else it is as the first of them. Rows of which none
    names a seed are returned as they are."""
    if "seed" not in rows or rows["seed"].isna().all():
        return rows
    columns = [name for name in rows if _is_figure(str(name))]
    numbers = rows[columns].apply(pd.to_numeric, errors="coerce")
    names = rows["name"].str.replace(SEED, "", regex=True)
    # Ways of choosing latents that are rows of their own (hierarchical_top_k) stay apart.
    keys = names + "|" + rows["inference"].fillna("") if "inference" in rows else names
    groups = numbers.groupby(keys, sort=False)
    spreads = groups.std().rename(columns=SPREAD.format)
    found = pd.concat([groups.mean(), spreads, groups.size().rename(COUNT)], axis=1)
    others = rows.drop(columns=[*columns, "seed"]).assign(name=names, key=keys)
    others = others[~keys.duplicated()].merge(found, left_on="key", right_index=True)
    return others.drop(columns="key")


def _is_figure(column: str) -> bool:
    """Whether a column is L0 or an evaluation's figure."""
    evaluation, _, figure = column.partition(".")
    return column == "l0" or (bool(figure) and evaluation not in NOT_FIGURES)


def spread(rows: pd.DataFrame, column: str) -> "pd.Series[float]":
    """The standard deviation of a column over the seeds of the training; of an SAE of one seed over
    those of its evaluation; null where there is neither."""
    nothing = pd.Series(float("nan"), index=rows.index)
    of_training, of_evaluation = (
        pd.to_numeric(rows[name]) if name in rows else nothing
        for name in (SPREAD.format(column), f"noise.{column}.standard_deviation")
    )
    return of_training.combine_first(of_evaluation)


def in_words(rows: pd.DataFrame) -> str:
    """How many seeds the rows are means of: `3 seeds`, `1 to 3 seeds`; empty of rows that are of
    one each."""
    counts = rows[COUNT].dropna() if COUNT in rows else pd.Series(dtype=int)
    if counts.empty or counts.max() < 2:
        return ""
    least, most = int(counts.min()), int(counts.max())
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"
