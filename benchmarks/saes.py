"""What SAEs are worth: append the rows of metrics.json files to docs/measurements/saes.csv.

    .venv/bin/python benchmarks/saes.py results/demo/L3/*/1k/metrics.json ...

Each SAE gives a row an evaluation and way of choosing its latents; so do the baselines. Prints a
table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from measurements import Table, add_into, folder_of

# Where each evaluation has L0, loss recovered, variance explained and the share of latents alive.
FIGURES = {
    "dictionary_learning": ("l0", "frac_recovered", "frac_variance_explained", "frac_alive"),
    "sae_bench_core": ("l0", "ce_loss_score", "explained_variance", "frac_alive"),
}


def table_rows(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of saes.csv that a row of metrics.json gives."""
    subject = (row["architecture"], row["width"], row["sparsity"] or f"{row['latents']} latents")
    return [
        {
            "model": row["model"],
            "sae": f"L{row['layer']}/" + "/".join(part for part in subject if part),
            "evaluation": evaluation,
            "inference": row["inference"],
            "l0": row[evaluation].get(l0),
            "loss_recovered": row[evaluation].get(recovered),
            "variance_explained": row[evaluation].get(explained),
            "latents_alive_share": row[evaluation].get(alive),
        }
        for evaluation, (l0, recovered, explained, alive) in FIGURES.items()
        if evaluation in row
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="+", type=Path)
    add_into(parser)
    asked = parser.parse_args()
    table = Table("saes", folder_of(asked))
    print("| SAE | evaluation | L0 | loss recovered | variance explained | latents alive |")
    print("| --- | --- | --- | --- | --- | --- |")
    measured = [row for file in asked.metrics for row in json.loads(file.read_text())]
    for row in [row for each in measured for row in table_rows(each)]:
        figures = [row[name] for name in table.columns[4:8]]
        cells = ["" if value is None else f"{value:.4g}" for value in figures]
        print(f"| {row['sae']} | {row['evaluation']} | {' | '.join(cells)} |")
        table.append(row)


if __name__ == "__main__":
    main()
