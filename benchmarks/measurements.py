"""The tables of measured rows: docs/measurements/*.csv, one file a question.

    python benchmarks/measurements.py FOLDER

adds the rows of FOLDER's tables to docs/measurements. Use it for rows that were measured on another
machine.

A benchmark program appends its rows with `Table(name).append(row)`. Every row ends with where it
comes from: date, commit, machine, torch, command and a note. Programs leave the note empty; it is
for a person to say what changes how the row reads.
"""

import argparse
import csv
import io
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs" / "measurements"

# Widest first; they decide how fast products are.
INSTRUCTION_SETS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")

PROVENANCE = ("date", "commit", "machine", "torch", "command", "note")

# Each table's columns, before those of PROVENANCE. Tables without a program are kept by hand, from
# what the tests named in docs/benchmarks.md print.
COLUMNS: dict[str, tuple[str, ...]] = {
    "saes": (
        *("model", "sae", "evaluation", "inference"),
        *("l0", "loss_recovered", "variance_explained", "latents_alive_share"),
    ),
    "recipes": (
        *("architecture", "trained_as", "seeds", "l0_mean", "l0_half_range"),
        *("loss_recovered_mean", "loss_recovered_half_range"),
        *("dead_latents_mean", "dead_latents_half_range"),
    ),
    "drop": (
        *("layer", "left_out", "sae", "l0", "loss_recovered", "pca_loss_recovered"),
        *("variance_explained", "pca_variance_explained", "threshold_l0"),
        *("threshold_loss_recovered", "threshold_variance_explained"),
        *("documents_loss_recovered", "documents_variance_explained"),
        "largest_1_percent_share_of_squared_norm",
    ),
    "sharing": (
        *("share", "saes", "jobs", "passes", "tokens", "seconds", "lm_planned", "lm_counted"),
        "same_bytes",
    ),
    "precision": ("architecture", "float32_loss", "bfloat16_loss", "difference_percent"),
    "agreement": (
        *("check", "subject", "against", "cases", "cases_same_bytes"),
        *("largest_relative_difference", "at_figure"),
    ),
    "steps": (
        *("architecture", "dtype", "d_model", "width", "active", "l0", "batch_tokens"),
        *("threads", "rounds", "peer", "ours_ms", "peer_ms", "ratio", "ours_peak_mib"),
        *("peer_peak_mib", "one_product_share", "dead_latents_share", "kernels"),
        "synchronisations",
    ),
    "graphs": (
        *("architecture", "d_model", "width", "step_ms", "replayed_ms", "ratio"),
        *("same_bytes", "peak_gib"),
    ),
    "end_to_end": (
        *("lm", "layer", "width", "saes", "dtype", "batch_tokens", "threads"),
        *("ours_sae_tokens_per_s", "library_sae_tokens_per_s", "ratio"),
        *("ours_s", "library_s"),
    ),
    "sae_bench": (
        *("evaluation", "lm", "saes", "ours_s", "ours_setup_s", "ours_each_more_s"),
        *("peer_s", "peer_each_s", "ratio"),
    ),
    "captures": (
        *("lm", "layer", "context_tokens", "threads", "rounds"),
        *("bare_full_tokens_per_s", "captured_full_tokens_per_s", "full_ratio"),
        *("bare_own_tokens_per_s", "captured_own_tokens_per_s", "own_ratio"),
        "buffered_own_tokens_per_s",
    ),
    "sites": (
        *("family", "site", "capture_same_bits", "logits_same_bits", "replaced_same_bits"),
        *("identity_recovered", "zeros_recovered", "sum_apart", "refused"),
    ),
    "growth": ("varied", "tokens", "saes", "width", "threads", "runs", "seconds_least"),
    "passes": (
        *("lm", "saes", "architectures", "width", "lm_tokens_per_s", "tokens_per_s"),
        *("sae_tokens_per_s", "steps_share", "matrix_rate_tflops", "share_of_matrix_rate"),
        *("hours_per_500m_tokens", "peak_gib", "attention"),
    ),
    "evaluation": (
        *("lm", "layer", "width", "reconstruction_batches", "variance_batches", "side"),
        *("saes", "runs", "seconds_median", "seconds_least", "seconds_most", "peak_mib"),
    ),
    "gpu_evaluations": (
        *("evaluation", "lm", "saes", "width", "reconstruction_batch_s", "variance_batch_s"),
        *("fixed_s", "document_s", "minutes_for_published_amounts", "peak_gib", "kernels"),
    ),
    "snapshots": ("saes", "d_model", "width", "gib", "write_s", "write_gib_per_s", "read_one_s"),
    "memory": (
        *("architecture", "dtype", "d_model", "width", "active", "l0", "saes"),
        *("bytes_per_parameter", "peak_gib"),
    ),
    "planned": ("job", "quantity", "planned", "measured", "ratio_least", "ratio_most"),
    "commands": ("what", "case", "runs", "seconds_median", "seconds_least", "peak_mib"),
    "rates": ("what", "shape", "dtype", "threads", "tflops", "gb_per_s"),
    "operations": ("lm", "layer", "part", "tflop", "share_of_first_sae"),
    "tried": (
        *("part", "change", "case", "quantity", "before_least", "before_most"),
        *("after_least", "after_most", "taken"),
    ),
}


class Table:
    """One CSV of measured rows. A file with other columns is refused at once."""

    def __init__(self, name: str, folder: Path = FOLDER, device: str = "cpu") -> None:
        self.columns = (*COLUMNS[name], *PROVENANCE)
        self.file, self.device = folder / f"{name}.csv", device
        self.rows()

    def rows(self) -> list[dict[str, str]]:
        """The rows of the file, as text; none where there is no file."""
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            self._check(reader.fieldnames or (), f"{self.file}: the columns")
            rows = list(reader)
        for row in rows:
            if None in row or None in row.values():
                raise SystemExit(f"{self.file}: a row has more or fewer cells than the header")
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add one measured row, with where it comes from."""
        self.extend([{**row, **provenance(self.device)}])

    def extend(self, rows: list[dict[str, Any]]) -> None:
        """Add rows that say themselves where they come from."""
        for row in rows:
            self._check(row, f"{self.file.name}: the columns of a new row")
        self._write([*self.rows(), *({k: cell(row[k]) for k in self.columns} for row in rows)])

    def _check(self, columns: Any, subject: str) -> None:
        missing = [column for column in self.columns if column not in columns]
        unknown = [column for column in columns if column not in self.columns]
        if missing or unknown:
            parts = {"missing": missing, "unknown": unknown}
            said = "; ".join(
                f"{part}: {', '.join(names)}" for part, names in parts.items() if names
            )
            raise SystemExit(f"{subject} are not those of benchmarks/measurements.py ({said})")

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the whole file, so that a killed program leaves the file before."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
                opened.write(text.getvalue())
                opened.flush()
                os.fsync(opened.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(self.file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def cell(value: Any) -> str:
    """A value as a cell: numbers with six significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return str(value)


def add_into(parser: argparse.ArgumentParser) -> None:
    """The option for the folder of the tables."""
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="where the measured rows are appended (default: docs/measurements; with --out, the "
        "folder of that file)",
    )


def folder_of(asked: argparse.Namespace) -> Path:
    """The folder that the options name."""
    if asked.into:
        return asked.into
    out = getattr(asked, "out", None)
    return out.parent if out else FOLDER


def provenance(device: str = "cpu") -> dict[str, str]:
    """Where a row that is measured now comes from."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(device),
        "torch": metadata.version("torch"),
        "command": command(sys.argv),
        "note": "",
    }


def commit() -> str:
    """The commit of this tree, with `+` where files outside docs/measurements differ from it."""
    changed = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/measurements"]
    try:
        head, changes = (
            subprocess.run(
                ["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+" if changes else head


def machine(device: str) -> str:
    """The kind of machine: a GPU's name, or how many cores of which maker."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    fields = {
        key.strip(): value.split()
        for key, _, value in (
            line.partition(":") for line in (info.read_text().splitlines() if info.exists() else [])
        )
    }
    name = " ".join(fields.get("model name", [platform.machine()])[:2])
    widest = [each for each in INSTRUCTION_SETS if each in fields.get("flags", ())]
    return f"{os.cpu_count()} cores of {name}" + (f" ({widest[0]})" if widest else "")


def command(argv: list[str]) -> str:
    """What was run, without where its files went."""
    words = [Path(argv[0]).name]
    rest = iter(argv[1:])
    for word in rest:
        if word in ("--out", "--into"):
            next(rest, None)
        else:
            words.append(word)
    return shlex.join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    add_into(parser)
    asked = parser.parse_args()
    files = sorted(asked.folder.glob("*.csv"))
    if not files:
        raise SystemExit(f"{asked.folder}: has no CSV files")
    for file in files:
        if file.stem not in COLUMNS:
            raise SystemExit(f"{file}: not a table of benchmarks/measurements.py")
    pairs = [(Table(file.stem, asked.folder), Table(file.stem, folder_of(asked))) for file in files]
    for source, target in pairs:
        rows = source.rows()
        target.extend(rows)
        print(f"{target.file}: {len(rows)} rows added")


if __name__ == "__main__":
    main()
