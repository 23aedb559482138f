"""`why` and `snakemake -n` agree on every kind of artifact, after some twenty edits of what a small
suite was built by: of the config, of files at hand, by another config at the same paths."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LAYER, Workflow, copied, merged, write_catalogue
from hub_server import LocalHub

from saemake.commands import why
from saemake.commands.project import load_config

pytestmark = pytest.mark.acceptance
SWEEP, OTHER = f"{LAYER}/top_k/256", f"{LAYER}/standard_new/256"
SAE = f"{SWEEP}/k_4"
PUBLISHED = "published/demo/L3"
REPOSITORY, FOLDER = "someone/saes_width-2pow8", "TopK_demo/resid_post_layer_3"
HUB = f"hub/{REPOSITORY}/{FOLDER}/trainer_0"
CARD = "published-to/somebody/saes/demo"
# One of every kind of artifact, and folders.
KINDS = [
    "results/demo/model.json",
    "results/demo/tokens/train/manifest.json",
    "results/demo/tokens/sae_bench_core/manifest.json",
    *(f"{SAE}/{file}" for file in ("ae.pt", "config.json", "training.csv", "provenance.json")),
    f"{SAE}/checkpoints/ae_20.pt",
    f"{SAE}/checkpoints/dictionary_learning.json",
    f"{SAE}/checkpoints/metrics.json",
    f"{SAE}/dictionary_learning.json",
    f"{SAE}/sae_bench_core_latents.parquet",
    f"{SAE}/metrics.json",
    f"{OTHER}/penalty_0.05/ae.pt",
    f"{SWEEP}/metrics.json",
    f"{OTHER}/metrics.json",
    f"{LAYER}/baselines/pca.safetensors",
    f"{LAYER}/baselines/sae_bench_core.json",
    f"{LAYER}/baselines/metrics.json",
    f"{LAYER}/figures/loss_recovered_vs_l0.pdf",
    f"{LAYER}/figures/loss_recovered_vs_tokens.svg",
    f"{HUB}/ae.pt",
    f"{HUB}/eval_results.json",
    f"{HUB}/checkpoints/ae_20.pt",
    f"published/repositories/{REPOSITORY}.json",
    f"{PUBLISHED}/top_k/256/k_4/ae.pt",
    f"{PUBLISHED}/top_k/256/k_4/dictionary_learning.json",
    f"{PUBLISHED}/top_k/256/k_4/metrics.json",
    f"{PUBLISHED}/top_k/256/k_4/comparison.json",
    f"{PUBLISHED}/top_k/256/k_4/against_catalogue.json",
    f"{PUBLISHED}/top_k/256/comparison.json",
    f"{PUBLISHED}/figures/decoder_match.pdf",
    f"{PUBLISHED}/figures/rebuilt_and_published.svg",
    "saelens/demo/L3/top_k/256/k_4/cfg.json",
    f"{CARD}/README.md",
]
FOLDERS = [SAE, SWEEP, f"{LAYER}/figures", LAYER, "results/demo/tokens", HUB, "published"]


def base(catalogue: str) -> dict[str, Any]:
    return {
        "models": {
            "demo": {
                "suite": {"architectures": ["top_k", "standard_new"]},
                "architectures": {"top_k": {"sweep": [4, 8], "checkpoints": [0.5]}},
            }
        },
        "published": {"catalogue": catalogue},
    }


def demo(**keys: Any) -> dict[str, Any]:
    return {"models": {"demo": keys}}


# What is laid over the config, and of the kinds some that are then stale, and some that are not.
CONFIGS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "nothing": ({}, [], KINDS),
    # Only the config beside the card, which rebuilds a suite with its log, says it.
    "how training is logged": (
        {"logging": {"every_steps": 7}},
        [f"{CARD}/README.md"],
        [kind for kind in KINDS if not kind.startswith(CARD)],
    ),
    "a sparsity changed": (
        demo(architectures={"top_k": {"sweep": [4, 16]}}),
        [f"{SAE}/ae.pt", f"{LAYER}/figures/loss_recovered_vs_l0.pdf", SWEEP, LAYER],
        [f"{OTHER}/penalty_0.05/ae.pt", "results/demo/tokens/train/manifest.json"],
    ),
    "a sparsity added": (
        demo(architectures={"top_k": {"sweep": [4, 8, 16]}}),
        [f"{SAE}/ae.pt", f"{SWEEP}/metrics.json", f"{CARD}/README.md"],
        [f"{OTHER}/penalty_0.05/ae.pt"],
    ),
    "the seed": (
        {"training": {"seed": 1}},
        [f"{SAE}/ae.pt", f"{HUB}/ae.pt", f"{PUBLISHED}/figures/decoder_match.pdf", SAE],
        [f"{LAYER}/baselines/metrics.json", f"{PUBLISHED}/top_k/256/k_4/metrics.json"],
    ),
    "the learning rate": (
        demo(training={"learning_rate": 2e-3}),
        ["saelens/demo/L3/top_k/256/k_4/cfg.json", f"{SAE}/checkpoints/metrics.json"],
        [f"{LAYER}/baselines/pca.safetensors"],
    ),
    "an architecture's setting": (
        demo(architectures={"standard_new": {"sparsity_warmup_steps": 6}}),
        [f"{OTHER}/metrics.json", f"{LAYER}/figures/loss_recovered_vs_l0.pdf"],
        [f"{SWEEP}/metrics.json", f"{LAYER}/figures/loss_recovered_vs_tokens.svg"],
    ),
    "the documents that judge": (
        demo(evaluations={"dictionary_learning": {"documents": 12}}),
        [f"{SAE}/dictionary_learning.json", f"{HUB}/eval_results.json"],
        [f"{SAE}/ae.pt", f"{SAE}/sae_bench_core_latents.parquet", f"{HUB}/checkpoints/ae_20.pt"],
    ),
    "how defects are treated": (
        {"evaluations": {"sae_bench_core": {"defects": "kept"}}},
        [f"{SAE}/sae_bench_core_latents.parquet", f"{LAYER}/baselines/sae_bench_core.json"],
        [f"{SAE}/dictionary_learning.json"],
    ),
    "the baselines' tokens": (
        demo(baselines={"pca_tokens": 5000}),
        [f"{LAYER}/baselines/pca.safetensors", f"{SWEEP}/metrics.json"],
        [f"{SAE}/metrics.json"],
    ),
    "the suite's architectures": (
        demo(suite={"architectures": ["top_k"]}),
        [f"{LAYER}/figures/loss_recovered_vs_l0.pdf", f"{LAYER}/figures", f"{CARD}/README.md"],
        [f"{LAYER}/figures/loss_recovered_vs_tokens.svg", f"{SWEEP}/metrics.json"],
    ),
    "the budget": (
        demo(train_tokens=20_992),
        ["results/demo/tokens/train/manifest.json", f"{SAE}/ae.pt"],
        ["results/demo/model.json", f"{PUBLISHED}/top_k/256/k_4/metrics.json"],
    ),
    "the text": (
        {"texts": {"state-of-the-union": {"evaluation_split": "train"}}},
        ["results/demo/tokens/sae_bench_core/manifest.json", f"{SAE}/metrics.json"],
        [f"{SAE}/ae.pt"],
    ),
    "the tolerances": (
        {"published": {"tolerances": {"l0": 0.2}}},
        [
            f"{PUBLISHED}/top_k/256/k_4/against_catalogue.json",
            f"{PUBLISHED}/top_k/256/comparison.json",
        ],
        [f"{PUBLISHED}/top_k/256/k_4/metrics.json"],
    ),
    "the revision of what is published": (
        {"published": {"revisions": {REPOSITORY: "v2"}}},
        [f"published/repositories/{REPOSITORY}.json", f"{PUBLISHED}/top_k/256/k_4/ae.pt"],
        [f"{PUBLISHED}/top_k/256/k_4/against_catalogue.json"],
    ),
    "the license": ({"publishing": {"license": "mit"}}, [f"{CARD}/README.md"], [f"{HUB}/ae.pt"]),
    "checkpoints": (
        demo(architectures={"top_k": {"checkpoints": [0.25, 0.5]}}),
        [f"{SAE}/checkpoints/metrics.json", f"{LAYER}/figures/loss_recovered_vs_tokens.svg"],
        [f"{OTHER}/metrics.json"],
    ),
}


def rewritten(path: Path, content: bytes, *, seen: bool) -> None:
    """Another file at a path; not `seen`: as old as the one before, so that Snakemake sees
    nothing."""
    before = path.stat()
    path.unlink()
    path.write_bytes(content)
    if not seen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(path: Path) -> None:
    content = path.read_bytes()
    rewritten(path, content[:-1] + bytes([content[-1] ^ 1]), seen=False)


def edited(path: Path) -> None:
    rows = json.loads(path.read_text())
    rows[0]["warnings"] = ["edited"]
    rewritten(path, json.dumps(rows).encode(), seen=True)


# What is done to a file, to which; what Snakemake would make again; what `why` alone names.
Edit = Callable[[Path], object]
FILES: dict[str, tuple[Edit, str, list[str], list[str]]] = {
    # Snakemake compares the content of files under 1 MB.
    "an SAE is touched": (Path.touch, f"{SAE}/ae.pt", [], []),
    "a table is edited": (
        edited,
        f"{SWEEP}/metrics.json",
        [f"{LAYER}/figures/loss_recovered_vs_l0.pdf"],
        [f"{SWEEP}/metrics.json", SWEEP],
    ),
    "an evaluation is edited": (
        edited,
        f"{SAE}/sae_bench_core.json",
        [f"{SAE}/metrics.json", SAE],
        [],
    ),
    "a file behind others is deleted": (Path.unlink, f"{SAE}/dictionary_learning.json", [], []),
    "a figure is damaged": (
        flipped,
        f"{LAYER}/figures/loss_recovered_vs_l0.pdf",
        [],
        [f"{LAYER}/figures/loss_recovered_vs_l0.pdf", f"{LAYER}/figures", LAYER],
    ),
    "a shard is damaged": (
        lambda manifest: flipped(next(manifest.parent.glob("shard_*"))),
        "results/demo/tokens/train/manifest.json",
        [],
        ["results/demo/tokens/train/manifest.json", f"{SAE}/ae.pt", LAYER],
    ),
    "an SAE is damaged": (
        flipped,
        f"{SAE}/ae.pt",
        [],
        [
            f"{SAE}/ae.pt",
            f"{SWEEP}/metrics.json",
            f"{HUB}/ae.pt",
            f"{PUBLISHED}/figures/decoder_match.pdf",
        ],
    ),
}


@pytest.fixture(scope="module")
def built(begun: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Every kind of artifact; what is 'published' is the SAE itself."""
    made = copied(begun, tmp_path_factory.mktemp("kinds"))
    row = {"model": "demo", "layer": 3, "width": 256, "architecture": "top_k", "sparsity": 4}
    row |= {"repository": REPOSITORY, "path": f"{FOLDER}/trainer_0"}
    row |= {"core_l0": 4, "core_loss_recovered": 0.5}
    write_catalogue(made.folder / "catalogue.csv", [row])
    made.configure(base(str(made.folder / "catalogue.csv")))
    made.succeed(f"{SAE}/ae.pt")
    with LocalHub() as hub:
        files = {
            f"{FOLDER}/trainer_0/{file}": (made.folder / SAE / file).read_bytes()
            for file in ("ae.pt", "config.json")
        }
        hub.commit("model", REPOSITORY, files)
        made.succeed(*KINDS, "--cores", "2", **hub.environment(made.folder / "home"))
    return made


@pytest.fixture
def at_hand(built: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """A copy, which is the working directory."""
    made = copied(built, tmp_path / "copy")
    monkeypatch.chdir(made.folder)
    made.configure(base(str(built.folder / "catalogue.csv")))
    return made


def over(workflow: Workflow, built: Workflow, more: dict[str, Any]) -> None:
    workflow.configure(merged(more, base(str(built.folder / "catalogue.csv"))))


def reasons(workflow: Workflow, paths: list[str]) -> dict[str, list[str]]:
    why._sum.cache_clear()
    files = [Path(workflow.config_file)]
    return why.reasons_of(load_config(files), files, paths)


def pending(workflow: Workflow, paths: list[str]) -> dict[str, bool]:
    """Of each path whether snakemake would make it again; one process for all."""
    there = [path for path in paths if (workflow.folder / path).is_file()]
    done = subprocess.run(
        workflow.command(*there, "--summary"),
        cwd=workflow.folder,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    plans = {row[0]: row[-1] for row in rows if row[-1] in ("no update", "update pending")}
    return {path: plans[path] == "update pending" for path in there}


@pytest.mark.parametrize("edit", CONFIGS)
def test_why_and_a_dry_run_agree_on_a_config(edit: str, built: Workflow, at_hand: Workflow) -> None:
    more, stale, current = CONFIGS[edit]
    over(at_hand, built, more)
    found, planned = reasons(at_hand, [*KINDS, *FOLDERS]), pending(at_hand, KINDS)
    for path in [path for path in planned if planned[path] and not found[path]]:
        # Made again for the sake of another that was asked for with it? Alone it counts.
        planned |= pending(at_hand, [path])
    assert {path: bool(found[path]) for path in planned} == planned, found
    assert all(found[path] for path in stale), found
    assert not any(found[path] for path in current), found
    if not stale:
        assert not any(found.values()), found


@pytest.mark.parametrize("edit", FILES)
def test_why_and_a_dry_run_agree_on_files(edit: str, at_hand: Workflow) -> None:
    do, path, stale, besides = FILES[edit]
    do(at_hand.folder / path)
    found, planned = reasons(at_hand, [*KINDS, *FOLDERS]), pending(at_hand, KINDS)
    assert all(found[kind] for kind in planned if planned[kind]), found
    assert all(found[kind] for kind in stale), found
    assert all(planned[kind] for kind in stale if kind in planned), planned
    # What Snakemake cannot see is named by `why` alone: a file that is not what its job wrote.
    for kind in besides:
        assert any("is damaged or" in reason for reason in found[kind]), found
    if not besides:
        assert {kind: bool(found[kind]) for kind in planned} == planned, found
    if not (at_hand.folder / path).exists():
        assert any("does not exist" in reason for reason in found[path])
        assert f"{path}" in at_hand.succeed(path, "--summary")


def test_a_figure_that_another_config_built_is_not_current(
    built: Workflow, at_hand: Workflow
) -> None:
    """Both configs have one path; the second has other SAEs in it, and other inputs."""
    figure = f"{LAYER}/figures/loss_recovered_vs_l0.pdf"
    for more in (demo(suite={"architectures": ["top_k"]}), demo(training={"learning_rate": 2e-3})):
        over(at_hand, built, more)
        at_hand.succeed(figure, "--cores", "2")
        assert not reasons(at_hand, [figure])[figure]
        over(at_hand, built, {})
        found = reasons(at_hand, [figure, f"{SAE}/ae.pt"])
        assert found[figure]
        assert pending(at_hand, [figure])[figure]
        assert bool(found[f"{SAE}/ae.pt"]) == ("training" in more["models"]["demo"])


def test_what_a_failed_job_leaves_behind_is_not_current(built: Workflow, at_hand: Workflow) -> None:
    """Snakemake 9.27 notes a failed job's inputs and params as if it had ended well. A plain rerun
    must still see that what was made from its outputs is old."""
    figure = f"{LAYER}/figures/loss_recovered_vs_l0.pdf"
    over(at_hand, built, {"evaluations": {"sae_bench_core": {"defects": "kept"}}})
    shard = next((at_hand.folder / "results/demo/tokens/sae_bench_core").glob("shard_*"))
    content = shard.read_bytes()
    shard.unlink()
    at_hand.fail(figure)
    shard.write_bytes(content)
    assert not (at_hand.folder / f"{SAE}/sae_bench_core.json").exists()
    said = '"mended" -> "kept"'
    assert any(said in reason for reason in reasons(at_hand, [figure])[figure])
    at_hand.succeed(figure)
    assert (at_hand.folder / f"{SAE}/sae_bench_core.json").exists()
    assert not reasons(at_hand, [figure])[figure]


def test_results_without_snakemakes_notes_are_judged_by_their_records(
    built: Workflow, at_hand: Workflow
) -> None:
    """As after a move: Snakemake knows no longer what they were made by."""
    subprocess.run(["rm", "-r", at_hand.folder / ".snakemake"], check=True)
    assert not any(reasons(at_hand, KINDS).values())
    over(at_hand, built, {"training": {"seed": 1}})
    found = reasons(at_hand, [f"{SAE}/ae.pt", f"{LAYER}/figures/loss_recovered_vs_l0.pdf"])
    assert all(any("training.seed: 0 -> 1" in line for line in lines) for lines in found.values())


def test_results_of_an_older_saemake_are_judged_by_what_they_say(
    built: Workflow, at_hand: Workflow
) -> None:
    """It left no records; SAEs and evaluations say by which recipe they were made."""
    subprocess.run(["rm", "-r", at_hand.folder / "results/.store/made"], check=True)
    assert not any(reasons(at_hand, [*KINDS, *FOLDERS]).values())
    fewer = demo(evaluations={"dictionary_learning": {"documents": 12}})
    over(at_hand, built, {**fewer, "training": {"seed": 1}})
    other = at_hand.folder / f"{SWEEP}/k_8"
    for file in ("ae.pt", "provenance.json"):
        rewritten(at_hand.folder / SAE / file, (other / file).read_bytes(), seen=False)
    judged = f"{SAE}/dictionary_learning.json was made from another {SAE}/ae.pt"
    assert judged in reasons(at_hand, [f"{SAE}/metrics.json"])[f"{SAE}/metrics.json"]
    for file in ("ae.pt", "provenance.json"):
        rewritten(at_hand.folder / SAE / file, (built.folder / SAE / file).read_bytes(), seen=False)
    found = reasons(at_hand, [f"{SAE}/ae.pt", f"{SWEEP}/metrics.json", f"{LAYER}/baselines"])
    assert any("training.seed: 0 -> 1" in line for line in found[f"{SAE}/ae.pt"])
    documents = "evaluations.dictionary_learning.settings.documents: 10 -> 12"
    assert any(documents in line for line in found[f"{SWEEP}/metrics.json"])
    assert any(documents in line for line in found[f"{LAYER}/baselines"])
