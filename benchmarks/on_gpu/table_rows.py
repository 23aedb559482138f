"""The rows of docs/measurements that a stage of benchmarks/gpu.py gives, by table."""

from typing import Any

# Sizes that the stages of judging.py and passes.py use without naming them in what they give.
GEMMA_WIDTH, LARGE = 16_384, (2304, 65_536)
SAME_BYTES = ("twice_the_same", "resumed_the_same")

# The first one is what training uses; kernel_times.py tries the others.
TILES = ((128, 64, 8), (128, 64, 16), (64, 64, 4), (64, 64, 8), (256, 32, 8), (128, 32, 4))

Rows = dict[str, list[dict[str, Any]]]


def rows_of(stage: str, found: dict[str, Any]) -> Rows:
    """By table, the rows of a stage; none of a stage or case that failed."""
    return {} if "error" in found or stage not in STAGES else STAGES[stage](found)


def rates(found: dict[str, Any]) -> Rows:
    copied = {"what": "copy", "shape": "4 GiB, read and written", "dtype": "float32"}
    rows = [
        {
            "what": "matrix product",
            "shape": "8192 x 8192 x 8192",
            "dtype": dtype,
            "threads": None,
            "tflops": found[f"{dtype}_tflops"],
            "gb_per_s": None,
        }
        for dtype in ("bfloat16", "float32")
    ]
    copy_rate = 1000 * found["copy_tb_per_second"]
    return {"rates": [*rows, {**copied, "threads": None, "tflops": None, "gb_per_s": copy_rate}]}


def kernels(found: dict[str, Any]) -> Rows:
    """Kernels and products with the settings that training uses."""
    return {
        "rates": [
            {
                "what": row["kernel"],
                "shape": " x ".join(map(str, row["shape"])),
                "dtype": "float32" if row["kernel"] in ("measure", "update") else "bfloat16",
                "threads": None,
                "tflops": row.get("tflops"),
                "gb_per_s": row["gb_per_s"] or None,
            }
            for row in found["rows"]
            if "error" not in row and row.get("tile and warps") in (None, TILES[0])
        ]
    }


def smoke(found: dict[str, Any]) -> Rows:
    """A row a dtype, over architectures and recipes; none where every case failed."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        cases = [row for row in found["rows"] if row["dtype"] == dtype and "error" not in row]
        if not cases:
            continue
        worst = max(cases, key=lambda row: abs(row["loss_relative"]))
        rows.append(
            {
                "check": "12 steps, twice and resumed",
                "subject": dtype,
                "against": "CPU",
                "cases": len(cases),
                "cases_same_bytes": sum(all(row[key] for key in SAME_BYTES) for row in cases),
                "largest_relative_difference": abs(worst["loss_relative"]),
                "at_figure": f"loss of {worst['architecture']}, recipe {worst['recipe']}",
            }
        )
    return {"agreement": rows}


def demo_passes(found: dict[str, Any], subject: str = "demo") -> Rows:
    # Runs before 2026-11-28 had no shared pass.
    shared = "shared" in found.get("seconds", {})
    ways = "twice, resumed and beside another layer" if shared else "twice and resumed"
    return {
        "agreement": [
            {
                "check": f"pass of 16 SAEs, {ways}; then loaded",
                "subject": subject,
                "against": "CPU",
                "cases": len(found["same"]),
                "cases_same_bytes": sum(found["same"].values()),
                "largest_relative_difference": found.get("loaded_apart"),
                "at_figure": "reconstruction of saemake.load" if "loaded_apart" in found else None,
            }
        ]
    }


def demo_evaluations(found: dict[str, Any], subject: str = "demo") -> Rows:
    return {
        "agreement": [
            {
                "check": f"{evaluation} of eight SAEs, twice",
                "subject": subject,
                "against": "CPU",
                "cases": 1,
                "cases_same_bytes": int(judged["twice_the_same"]),
                "largest_relative_difference": max(judged["largest_relative"].values()),
                "at_figure": next(iter(judged["largest_relative"])),
            }
            for evaluation, judged in found.items()
            if evaluation != "stage_seconds"
        ]
    }


def left_out(found: dict[str, Any]) -> Rows:
    subject = "demo, positions left out by norm_over_median: 1.5"
    passes_rows = demo_passes(found["passes"], subject)["agreement"]
    return {
        "agreement": [*passes_rows, *demo_evaluations(found["evaluations"], subject)["agreement"]]
    }


def steps(found: dict[str, Any]) -> Rows:
    rows = []
    for row in found["rows"]:
        if "error" in row:
            continue
        same = ("architecture", "d_model", "width", "l0", "kernels", "synchronisations")
        about = {
            **{key: row[key] for key in same},
            "dtype": "bfloat16",
            "active": 80,
            "batch_tokens": 2048,
            "threads": None,
            "rounds": 3,
            "ours_ms": row["ours_ms"],
            "ours_peak_mib": None,
            "peer_peak_mib": None,
            "one_product_share": None,
            "dead_latents_share": 0.1,
        }
        peers = {"dictionary_learning": row["theirs_ms"], "sparsify": row.get("sparsify_ms")}
        for peer, peer_ms in peers.items():
            if peer_ms is not None:
                ratio = peer_ms / row["ours_ms"]
                rows.append({**about, "peer": peer, "peer_ms": peer_ms, "ratio": ratio})
    return {"steps": rows}


def passes(found: dict[str, Any]) -> Rows:
    rows = []
    for row in found["rows"]:
        if "error" in row:
            continue
        lm, _, sweep = row["pass"].partition(", ")
        rows.append(
            {
                "lm": lm,
                "saes": row["saes"],
                "architectures": sweep,
                "width": 4096 if sweep.endswith("4k") else 16_384,
                "lm_tokens_per_s": row["lm_tokens_a_second"],
                "tokens_per_s": row["tokens_a_second"],
                "sae_tokens_per_s": row["saes_x_tokens_a_second"],
                "steps_share": row["steps_share"],
                "matrix_rate_tflops": None,
                "share_of_matrix_rate": None,
                "hours_per_500m_tokens": row["hours_of_500M_tokens"],
                "peak_gib": row["peak_gib"],
                "attention": row["attention"],
            }
        )
    return {"passes": rows}


def memory(found: dict[str, Any]) -> Rows:
    return {
        "memory": [
            {
                "architecture": name,
                "dtype": "bfloat16",
                "d_model": found["d_model"],
                "width": found["width"],
                "active": 80,
                "l0": None,
                "saes": 6,
                "bytes_per_parameter": None,
                "peak_gib": found[f"six_{name}_gib"],
            }
            for name in ("top_k", "gated")
        ]
    }


def graphs(found: dict[str, Any]) -> Rows:
    return {
        "graphs": [
            {
                **{key: row[key] for key in ("architecture", "d_model", "width", "peak_gib")},
                "step_ms": row["ms"],
                **{key: row.get(key) for key in ("replayed_ms", "ratio", "same_bytes")},
            }
            for row in found["rows"]
            if "error" not in row
        ]
    }


def snapshots(found: dict[str, Any]) -> Rows:
    d_model, width = LARGE
    return {
        "snapshots": [
            {
                **{key: found[key] for key in ("saes", "gib", "write_s", "read_one_s")},
                "d_model": d_model,
                "width": width,
                "write_gib_per_s": found["write_gib_per_second"],
            }
        ]
    }


def evaluations(found: dict[str, Any]) -> Rows:
    core, documents = found["sae_bench_core"], found["dictionary_learning"]
    about = {"lm": "gemma-2-2b", "saes": core["saes"], "width": GEMMA_WIDTH}
    return {
        "gpu_evaluations": [
            {
                **about,
                "evaluation": "sae_bench_core",
                **{key: core[key] for key in ("reconstruction_batch_s", "variance_batch_s")},
                **{key: core[key] for key in ("fixed_s", "peak_gib", "kernels")},
                "document_s": None,
                "minutes_for_published_amounts": core["minutes_of_the_published_amounts"],
            },
            {
                **about,
                "evaluation": "dictionary_learning",
                "reconstruction_batch_s": None,
                "variance_batch_s": None,
                "fixed_s": None,
                "document_s": documents["document_s"],
                "minutes_for_published_amounts": documents["minutes_of_200"],
                "peak_gib": documents["peak_gib"],
                "kernels": None,
            },
        ]
    }


STAGES = {
    "rates": rates,
    "smoke": smoke,
    "demo_passes": demo_passes,
    "demo_evaluations": demo_evaluations,
    "left_out": left_out,
    "steps": steps,
    "passes": passes,
    "memory": memory,
    "graphs": graphs,
    "kernels": kernels,
    "snapshots": snapshots,
    "evaluations": evaluations,
}
