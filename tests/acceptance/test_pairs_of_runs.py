"""Two runs on the same files that meet at random: both end well, with the bytes of one alone."""

import random
import shutil
import time

import pytest
from conftest import copied
from workflow.test_two_runs import WAITS, Started

from saemake.base.store import sha256

SEED = 20261126


def sums(workflow):
    """sha256 of all that is built; provenance.json holds times."""
    results = workflow.folder / "results"
    return {
        str(path.relative_to(results)): sha256(path)
        for path in sorted(results.rglob("*"))
        if path.is_file() and ".store" not in path.parts and path.name != "provenance.json"
    }


def pairs(workflow, count, wanted):
    """So many pairs of runs that meet, on all that is built, the second started after a random
    while. Before each pair all that is built is gone from results/, or a third of it; each fourth
    time the store's SAEs and evaluations are gone too."""
    draw, met, tried, longest = random.Random(SEED), 0, 0, {}
    while met < count:
        assert tried < 3 * count
        share, anew = 1.0 if tried % 2 else 0.3, tried % 4 == 1
        for path in sorted(workflow.folder.glob("results/demo/**/*")):
            if path.is_file() and ("figures" in path.parts or draw.random() < share):
                path.unlink()
        for kind in ("saes", "evaluations") if anew else ():
            shutil.rmtree(workflow.folder / "results" / ".store" / kind)
        tried += 1
        started = time.monotonic()
        first = Started(workflow, "all")
        time.sleep(draw.uniform(0, 0.8 * longest.get((share, anew), 10.0)))
        second = Started(workflow, "all")
        first.ends_well()
        longest[share, anew] = time.monotonic() - started
        second.ends_well()
        met += any(WAITS in run.said for run in (first, second))
        found = sums(workflow)
        assert found.items() <= wanted.items()
        # Snakemake does not make again what nothing needs, where a third is gone.
        assert share < 1 or found == wanted
        assert any("figures" in path for path in found)


@pytest.fixture(scope="module")
def wanted(begun, tmp_path_factory):
    """What one run alone builds."""
    alone = copied(begun, tmp_path_factory.mktemp("alone"))
    alone.succeed("all")
    return sums(alone)


@pytest.mark.acceptance
def test_pairs_of_runs_end_well_with_the_same_bytes(workflow, wanted):
    pairs(workflow, 2, wanted)


@pytest.mark.long
def test_twenty_pairs_of_runs_end_well_with_the_same_bytes(workflow, wanted):
    pairs(workflow, 20, wanted)
