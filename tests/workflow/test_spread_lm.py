"""An LM that the config spreads over several GPUs, through the workflow, on a CPU."""

import json
import re
from pathlib import Path

from conftest import LAYER

from saemake.commands import dry_run

SAE = f"{LAYER}/top_k/256/k_4"
SPREAD = {"models": {"demo": {"lm_devices": 2}}}


def test_jobs_that_run_the_lm_take_so_many_gpus(workflow, monkeypatch):
    workflow.configure({**SPREAD, "passes": {"devices_per_pass": 3}})
    monkeypatch.chdir(workflow.folder)
    gpus, as_planned = {}, dry_run._job

    def noted(dag, job):
        gpus[job.rule.name] = job.resources.get("gpu")
        return as_planned(dag, job)

    monkeypatch.setattr(dry_run, "_job", noted)
    tables = [f"{SAE}/{name}" for name in ("metrics.json", "features.html", "sae_bench_scr.json")]
    dry_run.jobs([Path("small.yaml")], [*tables, f"{LAYER}/baselines/metrics.json"])
    assert {rule: count for rule, count in gpus.items() if count} == {
        "train__demo__top_k": 3,
        "baselines": 2,
        "evaluate_baselines": 2,
        "evaluate__demo__top_k": 2,
        "features__demo__top_k": 2,
        # SAE Bench's own code.
        "set_up": 1,
        "sae_bench__evaluate__demo__top_k": 1,
    }


def test_on_a_cpu_only_the_recipes_say_it(workflow):
    target = f"{SAE}/dictionary_learning.json"
    workflow.succeed(target)
    before = workflow.read(f"{SAE}/ae.pt"), workflow.read(target)
    workflow.configure(SPREAD)
    planned = workflow.succeed(target, "-n")
    rules = dict(re.findall(r"^(\w+) +(\d+)$", planned, flags=re.MULTILINE))
    assert set(rules) == {"train__demo__top_k", "evaluate__demo__top_k", "total"}
    workflow.succeed(target)
    assert workflow.read(f"{SAE}/ae.pt") == before[0]
    recipe = json.loads(workflow.read(f"{SAE}/provenance.json"))["recipe"]
    assert recipe["lm_devices"] == 2
    figures = [
        [row["dictionary_learning"] for row in json.loads(table)]
        for table in (before[1], workflow.read(target))
    ]
    assert figures[0] == figures[1]
