"""What is captured and replaced at each site of a block, family by family, beside plain hooks.

    PYTHONPATH=tests .venv/bin/python benchmarks/sites.py [--families gpt_neox ...]

The LMs have random weights and three blocks; the block is the middle one. A capture, and logits
with random activations put in, are compared with those of hooks on the modules that each family's
own code has there. Loss recovered is dictionary_learning's evaluation of the identity and of zeros.
`sum_apart` is how far resid_pre + attn_out + mlp_out is from resid_post, over the largest entry.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from measurements import Table, add_into, folder_of
from site_families import FAMILIES, D, Family
from unit.test_evaluation import recipe, tokens

from saemake.base.errors import SaemakeError
from saemake.evaluation.baselines import Linear
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import SITES, Hookpoint, Site
from saemake.text.shards import Contexts

LAYER = 1


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def contexts() -> Contexts:
    """With padding."""
    ids_BL = torch.randint(1, 256, (4, 24), generator=torch.Generator().manual_seed(1))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 9:] = 0
    return Contexts(ids_BL, mask_BL)


def measured(family: Family, site: Site, root: Path) -> dict[str, Any]:
    """The row of a site. One that the family lacks has what is said of it."""
    given, lm = contexts(), family.lm(Hookpoint(LAYER, site))
    clean, there = family.run(given, LAYER)
    added = there["resid_pre"] + there["attn_out"] + there["mlp_out"]
    apart = (added - there["resid_post"]).abs().max() / there["resid_post"].abs().max()
    try:
        run = lm.run(given)
    except SaemakeError as error:
        return {"refused": str(error).partition("(")[2].partition(")")[0]}
    put_in = torch.randn(there[site].shape, generator=torch.Generator().manual_seed(2))
    expected, _ = family.run(given, LAYER, (site, put_in))
    replaced = torch.stack(list(lm.run_with(given, put_in, run.before_BLD)))
    text = tokens(root, [row[row > 0].tolist() for row in given.ids])
    codecs = {
        "identity": Linear(torch.eye(D), torch.zeros(D)),
        "zeros": Linear(torch.zeros(D, D), torch.zeros(D)),
    }
    judged = judge_by(recipe(), codecs, lm, text, "sites")
    return {
        "capture_same_bits": run.read_BLD.equal(there[site]),
        "logits_same_bits": torch.stack(list(run.logits)).equal(clean),
        "replaced_same_bits": replaced.equal(expected),
        "identity_recovered": judged["identity"].figures["frac_recovered"],
        "zeros_recovered": judged["zeros"].figures["frac_recovered"],
        "sum_apart": apart.item(),
    }


def main() -> None:
    asked = options()
    table = Table("sites", folder_of(asked))
    empty = dict.fromkeys(measured_columns())
    rows = []
    print("| family | site | capture | replaced | identity | zeros |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in asked.families:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "lm").mkdir()
            family = Family(name, root / "lm")
            for site in SITES:
                row = {"family": name, "site": site, **empty, **measured(family, site, root)}
                table.append(row)
                rows.append(row)
                cells = (
                    row["refused"] or row["capture_same_bits"],
                    *(row[key] for key in ("replaced_same_bits", "identity_recovered")),
                    row["zeros_recovered"],
                )
                print(f"| {name} | {site} | {' | '.join(map(str, cells))} |", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


def measured_columns() -> tuple[str, ...]:
    return (
        *("capture_same_bits", "logits_same_bits", "replaced_same_bits"),
        *("identity_recovered", "zeros_recovered", "sum_apart", "refused"),
    )


if __name__ == "__main__":
    main()
