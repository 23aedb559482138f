"""Rules: each file of an SAE is made by one rule, the rule that trains what the grammar says."""

import re
from types import SimpleNamespace

import pytest
from conftest import CONFIG_FILE, PROJECT, raw_config
from hypothesis import given, settings
from hypothesis import strategies as st

from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.jobs import rules
from saemake.llm.hookpoint import PATTERN as HOOKPOINTS
from saemake.paths.artifacts import SaeFile
from saemake.paths.grammar import parse
from saemake.paths.sweeps import trained_with

SUITE = {"architectures": ["top_k"]}
# A width of the config's own that no sweep fits into, and a sweep that no width under 3k fits.
OVER = {
    "widths": {"tiny": 32},
    "models": {"demo": {"architectures": {"batch_top_k": {"sweep": [8, 3000]}}, "suite": SUITE}},
}
CONFIG = read(raw_config(OVER), PROJECT, [CONFIG_FILE])
PASSES = rules.train_rules(CONFIG)


def pattern(path: str, constraints: dict[str, str]) -> re.Pattern[str]:
    """As Snakemake matches a path with wildcards."""
    known = {"hookpoint": HOOKPOINTS, "model": "[^/]+", "architecture": "[^/]+", **constraints}
    parts = re.split(r"\{(\w+)\}", path)
    words = [
        f"(?P<{part}>{known[part]})" if place % 2 else re.escape(part)
        for place, part in enumerate(parts)
    ]
    return re.compile("".join(words) + "$")


PATTERNS = [
    (each, pattern(path, each.constraints)) for each in PASSES for path in each.files(["ae.pt"])
]


def makers(path: str) -> list:
    """What each rule that makes a path would train."""
    return [
        each.trained(SimpleNamespace(**found.groupdict()))
        for each, regex in PATTERNS
        if (found := regex.match(path))
    ]


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(list(CONFIG.architectures)),
    st.sampled_from(["1k", "2k", "tiny", "16", "63", "64", "65", "2999", "3072", "65k"]),
    st.sampled_from(
        ["k_2", "k_3", "k_8", "k_64", "k_65", "l0_8", "l0_9", "penalty_0.1", "penalty_0.3"]
    ),
    st.sampled_from(["", "/seed_3", "/seed_1"]),
    st.sampled_from(["L3", "L0.attn_out", "L3.mlp_in-mlp_out"]),
)
def test_one_rule_makes_an_sae(architecture, width, sparsity, seed, hookpoint):
    path = f"results/demo/{hookpoint}/{architecture}/{width}/{sparsity}{seed}/ae.pt"
    try:
        artifact = parse(CONFIG, path)
    except SaemakeError:
        return
    assert isinstance(artifact, SaeFile)
    assert makers(path) == [trained_with(CONFIG, artifact.sae)]


@pytest.mark.parametrize("of", [rules.evaluate_rules, rules.join_rules])
def test_names_of_rules_differ(of):
    names = [rule.rule for rule in of(CONFIG)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"\w+", name) for name in names)


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 64, 100, 101, 640, 1000, 3001])
def test_numbers_below_a_limit(limit):
    matching = re.compile(rules.below(limit))
    numbers = [n for n in range(4000) if matching.fullmatch(str(n))]
    assert numbers == list(range(1, limit))
    assert not matching.fullmatch("01")
