"""Published SAEs beside rebuilt ones, against a Hub on this machine: fetched, judged, compared; and
rebuilt ones laid out as published. 'Published' are SAEs of the demo: the same one, one of another
seed, one of another layer that says it is of this one."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import LAYER, Workflow, copied, write_catalogue
from hub_server import LocalHub

pytestmark = pytest.mark.acceptance

REPOSITORY, ARCHITECTURE = "someone/saes_width-2pow8", "TopK_demo/resid_post_layer_3"
KS = [4, 8, 16]
SWEEP = "demo/L3/top_k/256"
HUB = f"hub/{REPOSITORY}/{ARCHITECTURE}"


def over(folder: Path, ks: list[int], **training: int) -> dict[str, Any]:
    """The sweep, trained enough to be of its layer, and the catalogue; a seed as asked. Seeds are
    further apart than those of the published suite, which trained 5000 times as long."""
    return {
        "models": {
            "demo": {
                "architectures": {"top_k": {"sweep": ks}},
                "train_tokens": 102_400,
                "training": {"batch_tokens": 256, "learning_rate": 3e-3, **training},
            }
        },
        "published": {
            "catalogue": str(folder / "catalogue.csv"),
            "tolerances": {"l0": 0.1, "loss_recovered": 0.03},
        },
    }


def trained(begun: Workflow, folder: Path, layer: int, ks: list[int], **training: int) -> Workflow:
    """A workflow that has trained a sweep."""
    folder.mkdir()
    made = copied(begun, folder)
    lay_out_catalogue(folder)
    made.configure(over(folder, ks, **training))
    made.succeed(f"results/demo/L{layer}/top_k/256/k_{ks[0]}/ae.pt")
    return made


def lay_out_catalogue(folder: Path) -> None:
    rows = [
        {
            "model": "demo",
            "layer": 3,
            "width": 256,
            "architecture": "top_k",
            "sparsity": k,
            "repository": REPOSITORY,
            "path": f"{ARCHITECTURE}/trainer_{trainer}",
            "core_l0": k,
            "core_loss_recovered": 0.5,
        }
        for trainer, k in enumerate(KS)
    ]
    write_catalogue(folder / "catalogue.csv", rows)


@dataclass
class Setting:
    """The rebuilt sweep, a Hub with the 'published' one, and how to reach it."""

    workflow: Workflow
    hub: LocalHub
    environment: dict[str, str]

    def comparison(self, k: int) -> dict[str, Any]:
        return json.loads(self.workflow.read(f"published/{SWEEP}/k_{k}/comparison.json"))


@pytest.fixture(scope="module")
def setting(begun: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    root = tmp_path_factory.mktemp("published")
    rebuilt = trained(begun, root / "rebuilt", 3, KS)
    seeded = trained(begun, root / "seeded", 3, [8], seed=1)
    layer = trained(begun, root / "layer", 0, [16])
    sources = [
        rebuilt.folder / LAYER / "top_k/256/k_4",
        seeded.folder / LAYER / "top_k/256/k_8",
        layer.folder / "results/demo/L0/top_k/256/k_16",
    ]
    with LocalHub() as hub:
        files = {}
        for trainer, source in enumerate(sources):
            place = f"{ARCHITECTURE}/trainer_{trainer}"
            files[f"{place}/ae.pt"] = (source / "ae.pt").read_bytes()
            config = json.loads((source / "config.json").read_text())
            config["trainer"] |= {"layer": 3, "device": "cuda:0"}
            files[f"{place}/config.json"] = json.dumps(config).encode()
        files[f"{ARCHITECTURE}/trainer_0/eval_results.json"] = b'{"frac_recovered": 0.5}'
        hub.commit("model", REPOSITORY, files)
        environment = hub.environment(root / "home")
        rebuilt.succeed(
            f"published/{SWEEP}/comparison.json",
            "published/demo/L3/figures/decoder_match.pdf",
            "published/demo/L3/figures/rebuilt_and_published.svg",
            **environment,
        )
        yield Setting(rebuilt, hub, environment)


def test_three_verdicts(setting: Setting) -> None:
    identical, equivalent, different = (setting.comparison(k) for k in KS)
    assert identical["verdict"] == "identical"
    assert identical["decoder"]["published_in_rebuilt"]["fraction_above_0.9"] == 1
    assert identical["config"] == {}
    core = identical["figures"]["sae_bench_core"]
    assert core["l0"]["rebuilt"] == core["l0"]["published"]
    assert core["loss_recovered"]["rebuilt"] == core["loss_recovered"]["published"]
    assert core["loss_recovered"]["catalogue"] == 0.5

    assert equivalent["verdict"] == "equivalent"
    assert equivalent["decoder"]["published_in_rebuilt"]["mean_max_cosine"] < 0.9
    assert equivalent["config"] == {"trainer.seed": {"rebuilt": 0, "published": 1}}

    assert different["verdict"] == "different"
    assert any("loss_recovered" in reason for reason in different["because"])

    gathered = json.loads(setting.workflow.read(f"published/{SWEEP}/comparison.json"))
    assert gathered == [identical, equivalent, different]


def test_the_published_ones_are_judged_as_ours(setting: Setting) -> None:
    read = setting.workflow.read
    ours, theirs = (
        json.loads(read(f"{top}/{SWEEP}/k_4/metrics.json")) for top in ("results", "published")
    )
    for one, other in zip(ours, theirs, strict=True):
        assert other["name"] == f"published/{SWEEP}/k_4"
        assert one["sae_bench_core"] == other["sae_bench_core"]
        assert one["dictionary_learning"] == other["dictionary_learning"]
    source = json.loads(read(f"published/{SWEEP}/k_4/source.json"))
    assert source["commit"] == setting.hub.commits("model", REPOSITORY)[0]
    assert source["eval_results"] == {"frac_recovered": 0.5}
    assert read("published/demo/L3/figures/decoder_match.pdf").startswith(b"%PDF")
    assert b"<svg" in read("published/demo/L3/figures/rebuilt_and_published.svg")


def test_the_recorded_commit_is_used(setting: Setting, tmp_path: Path) -> None:
    workflow = copied(setting.workflow, tmp_path)
    target = f"published/{SWEEP}/k_4/ae.pt"
    before = workflow.read(target)
    setting.hub.commit("model", REPOSITORY, {f"{ARCHITECTURE}/trainer_0/ae.pt": b"moved"})
    for file in ("ae.pt", "config.json", "source.json"):
        (workflow.folder / target).with_name(file).unlink()
    workflow.succeed(target, **setting.hub.environment(tmp_path / "other home"))
    assert workflow.read(target) == before


def test_another_catalogue_and_no_network(setting: Setting, tmp_path: Path) -> None:
    workflow = copied(setting.workflow, tmp_path)
    target = f"published/{SWEEP}/k_4/against_catalogue.json"
    workflow.succeed(target)  # HF_HUB_OFFLINE
    compared = json.loads(workflow.read(target))
    assert compared["verdict"] == "outside"
    assert [reason for reason in compared["because"] if "loss_recovered" in reason]
    # What the catalogue says is a fact of the comparison: another one makes it stale.
    rebuilt = compared["figures"]["sae_bench_core"]["loss_recovered"]["rebuilt"]
    catalogue = Path(setting.workflow.folder, "catalogue.csv")
    mine = tmp_path / "catalogue.csv"
    mine.write_text(catalogue.read_text().replace("0.5", repr(rebuilt)))
    workflow.configure(over(tmp_path, KS))
    workflow.succeed(target)
    assert json.loads(workflow.read(target))["verdict"] == "within"


def test_laid_out_as_published(setting: Setting, tmp_path: Path) -> None:
    workflow = copied(setting.workflow, tmp_path)
    workflow.succeed(f"{HUB}/trainer_1/ae.pt")
    for file in ("ae.pt", "config.json"):
        laid_out = workflow.read(f"{HUB}/trainer_1/{file}")
        assert laid_out == workflow.read(f"{LAYER}/top_k/256/k_8/{file}")
    results = json.loads(workflow.read(f"{HUB}/trainer_1/eval_results.json"))
    (row, _) = json.loads(workflow.read(f"{LAYER}/top_k/256/k_8/metrics.json"))
    assert results.pop("hyperparameters") == {"n_inputs": 10, "context_length": 256}
    assert results == row["dictionary_learning"]
    assert "Nothing to be done" in workflow.succeed(f"{HUB}/trainer_1/ae.pt")

    output = workflow.succeed(f"hub/{REPOSITORY}/")
    assert "lay out" in output
    for trainer in range(3):
        assert (workflow.folder / HUB / f"trainer_{trainer}" / "ae.pt").is_file()


def test_what_is_not_as_the_catalogue_says(setting: Setting, tmp_path: Path) -> None:
    """A damaged download, another layer, a folder that is not there."""
    workflow = copied(setting.workflow, tmp_path)
    target = f"published/{SWEEP}/k_8/ae.pt"
    home = tmp_path / "home"
    environment = setting.hub.environment(home)
    files = [workflow.folder / target, (workflow.folder / target).with_name("config.json")]

    files[0].unlink()
    workflow.succeed(target, **environment)
    (blob,) = {path.resolve() for path in home.rglob("trainer_1/ae.pt")}
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    files[0].unlink()
    said = workflow.fail(target, **environment)
    assert f"saemake: {REPOSITORY}/{ARCHITECTURE}/trainer_1/ae.pt: its checksum is" in said
    assert not files[0].exists()

    config = json.loads(setting.workflow.read(f"published/{SWEEP}/k_8/config.json"))
    config["trainer"]["layer"] = 2
    setting.hub.commit(
        "model",
        REPOSITORY,
        {f"{ARCHITECTURE}/trainer_1/config.json": json.dumps(config).encode()},
    )
    (workflow.folder / f"published/repositories/{REPOSITORY}.json").unlink()
    shutil.rmtree(home)
    said = workflow.fail(target, **environment)
    assert "trainer_1/config.json: layer is 2, the catalogue says 3" in said

    catalogue = workflow.folder / "catalogue.csv"
    catalogue.write_text(
        Path(setting.workflow.folder, "catalogue.csv").read_text().replace("trainer_1", "trainer_7")
    )
    workflow.configure(over(tmp_path, KS))
    said = workflow.fail(target, **environment)
    assert "trainer_7: no such folder at" in said
    assert f"did you mean '{ARCHITECTURE}/trainer_" in said
