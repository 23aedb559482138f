"""SAE Bench's evaluations through our worker, in SAE Bench's own environment. The figures are those
of its `run_eval`. They are the same for an SAE alone, among others in any order, and a second time.
"""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import bench_ground
import bench_workflow
import chat_ground
import peers
import pytest
from bench_ground import Ground
from bench_names import BASE, CHAT
from conftest import PROJECT
from judge_server import JudgeServer

from saemake import evaluation

WORKER = PROJECT / "workflow" / "workers" / "sae_bench" / "run.py"
AS_GEMMA = PROJECT / "tests" / "acceptance" / "as_gemma.py"
BY_HAND = PROJECT / "tests" / "acceptance" / "call_sae_bench.py"
ARCHITECTURES = ("standard", "top_k", "batch_top_k", "jump_relu")
SETTINGS = {
    evaluation.by_sae_bench(name).worker: bench_workflow.for_run_eval(name)
    for name in (*bench_workflow.SETTINGS, "sae_bench_unlearning")
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """An LM, SAEs and data that all evaluations judge."""
    return bench_ground.make(tmp_path_factory.mktemp("bench"), ARCHITECTURES)


@dataclasses.dataclass
class Call:
    """A call of an evaluation in a folder of its own."""

    ground: Ground
    evaluation: str
    work: Path
    setup: Path
    judge: dict[str, str] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    more: dict[str, str] = dataclasses.field(default_factory=dict)
    through: tuple[Path, ...] = ()

    def write(self, saes: list[Path], **settings: Any) -> Path:
        content = {
            "evaluation": self.evaluation,
            "settings": SETTINGS[self.evaluation] | settings,
            "model": self.ground.model,
            "layer": bench_ground.LAYER,
            "d_model": bench_ground.D_MODEL,
            "device": "cpu",
            "threads": 1,
            "saes": [str(sae) for sae in saes],
            "setup": str(self.setup),
            "data": {name: str(folder) for name, folder in self.ground.data.items()},
            "work": str(self.work),
            "judge": self.judge,
            **self.more,
        }
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "job.json"
        path.write_text(json.dumps(content))
        return path

    def run(self, script: Path, *arguments: str) -> str:
        done = subprocess.run(
            [str(peers.SAE_BENCH), *map(str, self.through), str(script), *arguments],
            cwd=self.work,
            env={
                **os.environ,
                **self.ground.environment,
                **self.environment,
                "HF_DATASETS_CACHE": f"{self.work}/cache",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def results(self, saes: list[Path]) -> dict[str, Any]:
        """By the SAE's folder."""
        return {
            sae.name: json.loads((self.work / f"{index}.json").read_text())
            for index, sae in enumerate(saes)
        }


def judged(call: Call, saes: list[Path], **settings: Any) -> dict[str, Any]:
    """By our worker. It sets up where nothing is set up."""
    job = str(call.write(saes, **settings))
    if not call.setup.exists():
        call.run(WORKER, job, "setup")
    call.run(WORKER, job, "judge")
    return call.results(saes)


# SAE Bench takes 20 seconds to start, six times here. CI has time for one evaluation through the
# workflow (test_sae_bench_workflow.py).
EVALUATIONS = [name for name in SETTINGS if name not in ("autointerp", "unlearning")]


@pytest.mark.long
@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_the_figures_are_sae_benchs_own_in_any_order(
    ground: Ground, evaluation: str, tmp_path: Path
) -> None:
    setup, saes = tmp_path / "setup", ground.saes
    together = judged(Call(ground, evaluation, tmp_path / "together", setup), saes)
    assert not any("error" in result for result in together.values()), together
    backwards = judged(Call(ground, evaluation, tmp_path / "backwards", setup), saes[::-1])
    assert backwards == together
    shutil.rmtree(setup)
    alone = judged(Call(ground, evaluation, tmp_path / "alone", setup), saes[-1:])
    assert alone == {saes[-1].name: together[saes[-1].name]}

    call = Call(ground, evaluation, tmp_path / "by_hand", tmp_path / "none")
    call.run(BY_HAND, str(call.write(saes)))
    by_hand = call.results(saes)
    # The first SAE makes what the others find, and its figures then lack what was drawn for that.
    for sae in saes[1:]:
        assert figures(together[sae.name]) == figures(by_hand[sae.name]), sae.name


def figures(result: dict[str, Any]) -> Any:
    """The figures of the SAE. The LM's own, which SAE Bench writes beside them, come from whichever
    call made the probes."""
    metrics = result.get("metrics") or result["eval_result_metrics"]
    return {group: part for group, part in metrics.items() if group != "llm"}


@pytest.mark.long
def test_unlearning_forgets_what_sae_bench_says(tmp_path: Path) -> None:
    ground = chat_ground.make(tmp_path / "ground", BASE, ("standard", "top_k", "jump_relu"))
    ground.model = CHAT
    common = {"more": {"saes_of": BASE}, "through": (AS_GEMMA,)}
    setup, saes = tmp_path / "setup", ground.saes
    together = judged(Call(ground, "unlearning", tmp_path / "together", setup, **common), saes)
    assert not any("error" in result for result in together.values()), together
    scores = [result["metrics"]["unlearning"]["unlearning_score"] for result in together.values()]
    assert max(scores) > 0
    backwards = judged(
        Call(ground, "unlearning", tmp_path / "backwards", setup, **common), saes[::-1]
    )
    assert backwards == together
    for sae in saes:
        # SAE Bench seeds once a call, so each SAE has a call of its own.
        by_hand = Call(ground, "unlearning", tmp_path / sae.name, tmp_path / "none", **common)
        by_hand.run(BY_HAND, str(by_hand.write([sae])))
        assert figures(by_hand.results([sae])[sae.name]) == figures(together[sae.name])


@pytest.mark.long
def test_a_seed_changes_the_figures(ground: Ground, tmp_path: Path) -> None:
    saes = ground.saes[:1]
    calls = [Call(ground, "tpp", tmp_path / name, tmp_path / f"setup_{name}") for name in "ab"]
    first, second = (judged(call, saes, random_seed=n) for n, call in enumerate(calls))
    assert first != second


@pytest.mark.long
def test_autointerp_asks_each_question_once(ground: Ground, tmp_path: Path) -> None:
    setup, saes = tmp_path / "setup", ground.saes
    with JudgeServer(slow_down=True) as server:
        judge = {
            "base_url": server.url,
            "model": "some-model",
            "key": "JUDGE_KEY",
            "answers": str(tmp_path / "answers"),
        }
        common = {"judge": judge, "environment": {"JUDGE_KEY": "secret"}}
        together = judged(Call(ground, "autointerp", tmp_path / "together", setup, **common), saes)
        assert not any("error" in result for result in together.values()), together
        asked = [json.dumps(question, sort_keys=True) for question in server.asked]
        assert len(asked) == len(set(asked)) > 2 * len(saes)
        backwards = judged(
            Call(ground, "autointerp", tmp_path / "backwards", setup, **common), saes[::-1]
        )
        assert backwards == together
        assert len(server.asked) == len(asked)
        assert len(list((tmp_path / "answers").iterdir())) == len(asked)

        by_hand = Call(ground, "autointerp", tmp_path / "by_hand", tmp_path / "none")
        by_hand.environment["OPENAI_BASE_URL"] = server.url
        by_hand.run(BY_HAND, str(by_hand.write(saes)))
    for name, result in by_hand.results(saes).items():
        # The mean is of float32 numbers in the order in which answers came in.
        expected = result["eval_result_metrics"]["autointerp"]
        assert together[name]["metrics"]["autointerp"] == pytest.approx(expected, rel=1e-6), name


@pytest.mark.long
def test_a_key_that_is_refused_is_written_nowhere(ground: Ground, tmp_path: Path) -> None:
    with JudgeServer(refuse=True) as server:
        judge = {"base_url": server.url, "model": "m", "key": "JUDGE_KEY"}
        call = Call(
            ground,
            "autointerp",
            tmp_path / "work",
            tmp_path / "setup",
            judge={**judge, "answers": str(tmp_path / "answers")},
            environment={"JUDGE_KEY": "sk-secret"},
        )
        job = str(call.write(ground.saes[:1]))
        output = call.run(WORKER, job, "setup") + call.run(WORKER, job, "judge")
    (result,) = call.results(ground.saes[:1]).values()
    assert set(result) == {"error"}
    assert "401" in result["error"]
    assert "wrong key: Bearer ***" in result["error"]
    written = [path.read_text() for path in (tmp_path / "work").glob("*.json")]
    assert not any("sk-secret" in text for text in [output, *written])
    assert not list((tmp_path / "answers").iterdir())


@pytest.mark.long
def test_what_cannot_be_judged_is_said_and_the_others_are_judged(
    ground: Ground, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(ground.saes[0], broken)
    (broken / "ae.pt").write_bytes(b"")
    call = Call(ground, "tpp", tmp_path / "work", tmp_path / "setup")
    with pytest.raises(AssertionError, match="nothing is set up"):
        call.run(WORKER, str(call.write([broken])), "judge")
    results = judged(call, [broken, ground.saes[1]])
    assert results["broken"]["error"].startswith(f"{broken}: ")
    assert results[ground.saes[1].name]["metrics"]["tpp_metrics"]

    letters = Call(ground, "absorption", tmp_path / "letters", tmp_path / "probes")
    for result in judged(letters, ground.saes[:2], min_GT_probe_f1=1.0).values():
        assert "only 0 first letters can be told" in result["undefined"]


@pytest.mark.long
def test_the_known_lms_are_transformer_lenss() -> None:
    """By their names, and by these without the owner, which SAE Bench uses."""
    listed = (PROJECT / "resources" / "saebench" / "transformer_lens.txt").read_text().split()
    program = (
        "from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES\n"
        "known = {}\n"
        "for name in OFFICIAL_MODEL_NAMES:\n"
        "    known |= {alias.lower(): name for alias in [name, *MODEL_ALIASES.get(name, [])]}\n"
        "for name in OFFICIAL_MODEL_NAMES:\n"
        "    if known.get(name.rpartition('/')[2].lower()) == name:\n"
        "        print(name)\n"
    )
    done = subprocess.run(
        [str(peers.SAE_BENCH), "-c", program], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == listed


@pytest.mark.long
def test_another_environment_than_the_pins_is_refused(ground: Ground, tmp_path: Path) -> None:
    call = Call(ground, "tpp", tmp_path / "work", tmp_path / "setup")
    call.more = {"software": {"sae-bench": "0.5.0"}}  # type: ignore[dict-item]
    with pytest.raises(AssertionError, match=r"has sae-bench 0\.6\.0, not the 0\.5\.0"):
        call.run(WORKER, str(call.write(ground.saes[:1])), "setup")
