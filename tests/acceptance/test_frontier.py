"""The demo as `make demo` builds it: its frontier is that of real SAEs."""

import numpy as np
import pytest

pytestmark = pytest.mark.long
ARCHITECTURES = ("top_k", "batch_top_k", "standard_new")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_recovered_rises_with_l0(sweeps, name):
    recovered = [row["frac_recovered"] for row in sweeps[name]]
    assert len(recovered) == 6
    assert recovered == sorted(recovered)
    assert sweeps[name][-1]["l0"] > 4 * sweeps[name][0]["l0"]


def test_top_k_at_its_largest_recovers_more_than_95_percent(sweeps):
    assert sweeps["top_k"][-1]["l0"] < 128
    assert sweeps["top_k"][-1]["frac_recovered"] > 0.95


def test_top_k_beats_standard_new_at_equal_l0(sweeps):
    def line(name):
        rows = sweeps[name]
        return np.log([row["l0"] for row in rows]), [row["frac_recovered"] for row in rows]

    l0, recovered = line("standard_new")
    top_l0, top_recovered = line("top_k")
    inside = (l0 >= top_l0[0]) & (l0 <= top_l0[-1])
    assert inside.sum() >= 3
    assert (np.interp(l0, top_l0, top_recovered) > recovered)[inside].all()


def test_a_second_run_does_nothing(demo, sweeps):
    assert "Nothing to be done" in demo.succeed("all")
