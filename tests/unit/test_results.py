"""Published result files of SAE Bench: which are of an SAE, and their figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.metrics import rows
from saemake.paths.catalogue import Entry
from saemake.published.results import Results, compared

RELEASE = "saebench_gemma-2-2b_width-2pow12_date-0108"


def entry(architecture: str = "batch_top_k", l0: float | None = 40.0) -> Entry:
    figures = {} if l0 is None else {"core_l0": l0}
    return Entry("gemma-2-2b", 12, 4096, architecture, 40, "owner/repo", "path", figures)


def file_of(folder: Path, kind: str, sae: str, metrics: dict[str, Any]) -> Path:
    path = folder / kind / RELEASE / f"{RELEASE}_{sae}_eval_results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"eval_result_metrics": metrics, "sae_bench_commit_hash": "abc"}
    path.write_text(json.dumps(content))
    return path


def sae(architecture: str, trainer: int, layer: int = 12) -> str:
    return f"{architecture}_gemma-2-2b__0108_resid_post_layer_{layer}_trainer_{trainer}"


def fetched(folder: Path) -> Results:
    """The files as they lie."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    return Results(folder, {"dataset": "owner/results", "revision": "commit", "files": sums})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Trainer numbers that disagree with the weights', other architectures and layers beside."""
    for trainer, l0 in ((7, 20.0), (6, 41.0)):
        core = {
            "sparsity": {"l0": l0},
            "reconstruction_quality": {"explained_variance": 0.7},
            "model_performance_preservation": {"ce_loss_score": 0.97},
        }
        for name in ("BatchTopK", "TopK", "MatryoshkaBatchTopK"):
            file_of(tmp_path, "core", sae(name, trainer), core)
        file_of(tmp_path, "core", sae("BatchTopK", trainer, layer=5), core)
    tpp = {"tpp_metrics": {"tpp_threshold_20_total_metric": 0.25, "of_another_release": 1.0}}
    file_of(tmp_path, "tpp", sae("BatchTopK", 6), tpp)
    mean = {"mean_absorption_fraction_score": 0.1, "mean_full_absorption_score": float("nan")}
    file_of(tmp_path, "absorption", sae("BatchTopK", 6), {"mean": mean})
    return tmp_path


def test_files_are_paired_by_l0(folder: Path) -> None:
    found = fetched(folder).of(entry())
    assert set(found) == {"sae_bench_core", "sae_bench_tpp", "sae_bench_absorption"}
    assert found["sae_bench_tpp"].file.endswith(
        "BatchTopK_gemma-2-2b__0108_resid_post_layer_12_trainer_6_eval_results.json"
    )
    assert found["sae_bench_tpp"].figures == {"tpp_threshold_20_total_metric": 0.25}
    assert found["sae_bench_core"].figures["explained_variance_legacy"] == 0.7
    assert "explained_variance" not in found["sae_bench_core"].figures
    assert found["sae_bench_absorption"].figures["mean_full_absorption_score"] is None


@pytest.mark.parametrize(
    ("architecture", "l0"), [("batch_top_k", 90.0), ("gated", 40.0), ("batch_top_k", None)]
)
def test_no_file_is_paired_with_another_sae(
    folder: Path, architecture: str, l0: float | None
) -> None:
    assert fetched(folder).of(entry(architecture, l0)) == {}


def test_an_architecture_is_no_part_of_anothers_name(folder: Path) -> None:
    for architecture, said in (("top_k", "_TopK_"), ("matryoshka_batch_top_k", "_MatryoshkaB")):
        (found,) = fetched(folder).of(entry(architecture)).values()
        assert said in found.file


def row(**figures: Any) -> rows.Row:
    subject = {
        "name": "gemma-2-2b/L12/batch_top_k/4k/k_40",
        "model": "gemma-2-2b",
        "layer": 12,
        "architecture": "batch_top_k",
        "width": "4k",
        "latents": 4096,
        "sparsity": "k_40",
        "steps": 1,
        "tokens": 1,
        "inference": "threshold",
        "warnings": [],
        "evaluations": {},
    }
    return rows.row_type().model_validate({**subject, **figures})


def test_only_like_is_compared_with_like(folder: Path) -> None:
    rebuilt = row(
        sae_bench_tpp={"tpp_threshold_20_total_metric": 0.3},
        sae_bench_absorption={"mean_absorption_fraction_score": 0.05},
    )
    published = row(sae_bench_tpp={"tpp_threshold_20_total_metric": 0.24})
    found = compared(entry(), rebuilt, published, fetched(folder))
    assert found["figures"]["sae_bench_tpp"] == {
        "tpp_threshold_20_total_metric": {"rebuilt": 0.3, "published": 0.24, "file": 0.25}
    }
    absorbed = found["figures"]["sae_bench_absorption"]["mean_absorption_fraction_score"]
    assert absorbed == {
        "rebuilt": 0.05,
        "published": None,
        "file": 0.1,
        "not_comparable": "redefined in 0.4.1 (pull request 62)",
    }
    assert found["sae_bench_commits"]["sae_bench_tpp"] == "abc"
    assert found["revision"] == "commit"


def test_a_damaged_file_is_told(folder: Path) -> None:
    next((folder / "tpp").rglob("*.json")).write_text("{")
    with pytest.raises(SaemakeError, match="no result file of SAE Bench"):
        fetched(folder).of(entry())


def test_a_file_that_was_changed_after_it_was_fetched_is_told(folder: Path) -> None:
    before = fetched(folder)
    tpp = next((folder / "tpp").rglob("*.json"))
    tpp.write_text(tpp.read_text().replace("0.25", "0.99"))
    with pytest.raises(
        SaemakeError, match="changed since it was fetched; delete datasets/owner/re"
    ):
        before.of(entry())
