"""Judging by SAE Bench's own code. What does not depend on an SAE is set up once for a model, a
layer, an evaluation and a seed, and is an entry of the store. Each SAE's results are another.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saemake import evaluation
from saemake.base import devices, progress
from saemake.base.errors import SaemakeError
from saemake.base.saying import say
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import datasets, weights
from saemake.judging import environment
from saemake.judging.evaluate import FIGURES, RECIPE, Judged
from saemake.judging.worker import Worker, lay_out_sae
from saemake.metrics import rows
from saemake.paths.judged_by import judge_key, short_name, transformer_lens_name
from saemake.paths.names import STORE, SetupName
from saemake.recipes.judging import setup_recipe
from saemake.recipes.kinds import SaeBenchRecipe, SetupRecipe

log = logging.getLogger(__name__)
# The files of an entry: what the worker set up, and from which commits; what SAE Bench says of an
# SAE beside its figures.
SETUP, SOURCES, DETAILS = "setup", "sources.json", "details.json"
# Every answer of a judge, by the question's hash.
ANSWERS = "answers"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What one setup is made from: the LM's model.json, and the files under datasets/."""

    model: Path
    datasets: Sequence[Path]


class Bench:
    """One evaluation of SAE Bench at one layer, from one seed."""

    def __init__(self, config: Config, setup: SetupName, inputs: Inputs) -> None:
        self.config, self.setup = config, setup
        self.described = evaluation.by_sae_bench(setup.evaluation)
        self.settings = config.sae_bench_of(setup.model, setup.evaluation)
        self.recipe: SetupRecipe = setup_recipe(config, setup)
        self.setups = Store(STORE, "setups")
        self.weights, self.lm = weights.read(config, inputs.model)
        self.data = [datasets.read(config, path) for path in inputs.datasets]

    @property
    def sources(self) -> dict[str, Any]:
        """The commits that the setup is made from; none of what is local."""
        return {
            "lm_revision": self.lm["revision"],
            "data": {each["dataset"]: each["revision"] for each in self.data},
        }

    def _sources_of(self, setup: Path) -> dict[str, Any]:
        """The commits that a setup was made from; of one that is not kept, the present ones."""
        path = setup.with_name(SOURCES)
        return json.loads(path.read_text()) if path.exists() else self.sources

    def set_up(self) -> None:
        """Put the setup into the store, where the store lacks it."""
        key = self.recipe.hash
        with self.setups.lock([key]):
            if self.setups.has(key):
                log.info("the setup %s is in the store", key)
                return
            with self.setups.entry(key) as folder:
                self._make_setup(folder / SETUP)
                (folder / SOURCES).write_text(_text(self.sources))
                (folder / RECIPE).write_text(_text(self.recipe.model_dump(mode="json")))

    def _make_setup(self, folder: Path) -> None:
        say(f"{self.setup}: setting up")
        with self._worker(data=True) as (worker, job):
            worker.run("setup", {**job, "setup": str(folder.resolve())}, {})

    @contextlib.contextmanager
    def _setup_folder(self) -> Iterator[Path]:
        """The setup: in the store, or where it is not to be kept, made for the block."""
        key = self.recipe.hash
        if self.settings.keep_setup:
            with self.setups.shared(key):
                if not self.setups.holds(key):
                    raise SaemakeError(
                        f"the store has no setup of {self.setup}, or a damaged one; delete"
                        f" results/{self.setup}.json and run the same command again"
                    )
                yield (self.setups.folder / key / SETUP).resolve()
            return
        with _temporary() as folder:
            self._make_setup(folder / SETUP)
            yield folder / SETUP

    def judge(self, judged: Mapping[str, tuple[Judged, SaeBenchRecipe]], store: Store) -> list[str]:
        """Judge each, by the key of its evaluation in the store, and put what comes out into the
        store. Returns a line for each that could not be judged now."""
        keys, faults = list(judged), []
        say(f"{self.setup}: judging {len(keys)}")
        with (
            self._setup_folder() as setup,
            self._worker(data=self.described.reads_data) as (worker, job),
            progress.bar(len(keys), f"{self.setup}: judging", "SAE") as bar,
        ):
            for number, (subject, _) in enumerate(judged.values()):
                place = worker.work / "saes" / str(number)
                lay_out_sae(subject.folder, subject.file, place, self._lm_of_saes)

            sources = self._sources_of(setup)
            waiting = set(range(len(keys)))

            def put(number: int) -> None:
                waiting.discard(number)
                key = keys[number]
                subject, recipe = judged[key]
                result = json.loads((worker.work / f"{number}.json").read_text())
                if "error" in result:
                    # After the folder that it was laid out in.
                    _, _, said = result["error"].partition(": ")
                    faults.append(f"{subject.subject.name}: {said}")
                else:
                    store.put(key, self._entry(recipe, result, sources))
                say(f"{self.setup}: {number + 1} of {len(keys)} judged")
                bar.update(1)

            saes = [str(worker.work / "saes" / str(number)) for number in range(len(keys))]
            worker.run("judge", {**job, "setup": str(setup), "saes": saes}, self._keys(), put)
            for number in sorted(waiting):  # its line was lost among others
                put(number)
        return faults

    def _entry(
        self, recipe: SaeBenchRecipe, result: Mapping[str, Any], sources: Mapping[str, Any]
    ) -> dict[str, bytes]:
        undefined = result.get("undefined")
        figures: dict[str, float | None] = {}
        if undefined is None:
            figures = {
                name: _finite(value)
                for name, value in self.described.figures(result["metrics"], self.settings).items()
            }
        way = recipe.inferences[0]
        content = [{"inference": way, "figures": figures, "undefined": undefined}]
        return {
            FIGURES: _text(content).encode(),
            DETAILS: _text({**result, "sources": sources}).encode(),
            RECIPE: _text(recipe.model_dump(mode="json")).encode(),
        }

    @property
    def _lm_of_saes(self) -> str:
        """The LM that the SAEs were trained on, as SAE Bench calls it."""
        return transformer_lens_name(self.config, self.setup.model)

    def _keys(self) -> dict[str, str]:
        """The judge's key, from the environment."""
        variable = judge_key(self.config, self.setup.model, self.setup.evaluation)
        return {} if variable is None else {variable: key_of(variable)}

    @contextlib.contextmanager
    def _worker(self, *, data: bool) -> Iterator[tuple[Worker, dict[str, Any]]]:
        """A worker with the LM, and where asked the data, and the parts of its job that both stages
        share."""
        python = environment.python(self.config.root)
        device = devices.choose(self.recipe.cpu_threads)
        with _temporary() as work:
            worker = Worker(self.config.root, python, work)
            worker.serve(self.recipe.lm_name, self.weights, self.lm["revision"])
            folders = {}
            for number, each in enumerate(self.data if data else []):
                folder = work / "data" / str(number) / each["dataset"]
                folder.mkdir(parents=True)
                datasets.lay_out(self.config, each, folder, Store(STORE, "datasets"))
                folders[each["dataset"]] = str(folder)
            yield worker, {**self._job(), "device": device.type, "data": folders, "work": str(work)}

    def _job(self) -> dict[str, Any]:
        settings = {**self.settings.recorded(), "random_seed": self.setup.seed}
        judge = settings.pop("judge", None)
        if self.described.has_dtype:
            settings["llm_dtype"] = self.recipe.model.dtype
        chosen = {key: value for key, value in settings.items() if value is not None}
        return {
            "evaluation": self.described.worker,
            "settings": chosen,
            "model": short_name(self.recipe.lm_name),
            "saes_of": short_name(self._lm_of_saes),
            "layer": self.setup.layer,
            "d_model": self.lm["d_model"],
            "threads": self.recipe.cpu_threads,
            "software": self.recipe.software,
            "saes": [],
            "judge": judge and self._judge(judge),
        }

    def _judge(self, judge: Mapping[str, str]) -> dict[str, str]:
        variable = judge_key(self.config, self.setup.model, self.setup.evaluation)
        answers = (STORE / ANSWERS).resolve()
        return {**judge, "key": str(variable), "answers": str(answers)}


def key_of(variable: str) -> str:
    """The key in a variable. Raises SaemakeError where it is not set."""
    if not (key := os.environ.get(variable)):
        raise SaemakeError(f"the judge's key is missing: set the environment variable {variable}")
    return key


def evaluate(benches: Sequence[Bench], judged: Sequence[Judged], store: Store) -> None:
    """Put the evaluations of all that is judged into the store, those that it lacks: one bench a
    seed. Raises SaemakeError where some cannot be judged; the others are kept."""
    faults: list[str] = []
    keys = {subject.key_at(place) for subject in judged for place in range(len(benches))}
    with store.lock(keys):
        store.bring(
            {
                subject.key_at(place): recipe.hash
                for subject in judged
                for place, recipe in enumerate(subject.recipes)
            }
        )
        for place, bench in enumerate(benches):
            missing = {
                key: (subject, recipe)
                for subject in judged
                if not store.has(key := subject.key_at(place))
                and isinstance(recipe := subject.recipes[place], SaeBenchRecipe)
            }
            log.info("%s: %d of %d are missing", bench.setup, len(missing), len(judged))
            if missing:
                faults += bench.judge(missing, store)
    if faults:
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        raise SaemakeError(f"{faults[0]}{more}")


def rows_of(judged: Judged, store: Store) -> list[rows.Row]:
    """The row of something that is judged: the figures from the first seed, and where there are
    several seeds, how each figure spreads."""
    entries = [
        json.loads(store.read(judged.key_at(place), FIGURES))[0]
        for place in range(len(judged.recipes))
    ]
    first, recipe = entries[0], judged.recipes[0]
    assert isinstance(recipe, SaeBenchRecipe)
    details = json.loads(store.read(judged.key, DETAILS))
    circumstances = rows.SaeBenchCircumstances(
        recipe_hash=recipe.hash,
        sha256=judged.sha256,
        setup=recipe.setup,
        settings=recipe.settings,
        software=recipe.software,
        lm=recipe.lm_name,
        lm_revision=details["sources"]["lm_revision"],
        data=details["sources"]["data"],
        caution=evaluation.by_sae_bench(recipe.evaluation).caution,
    )
    name = recipe.evaluation
    told = [] if first["undefined"] is None else [f"{name}: {first['undefined']}"]
    content = {
        **judged.subject.model_dump(exclude_unset=True),
        "inference": first["inference"],
        name: first["figures"],
        "warnings": [*judged.warnings, *told],
        "evaluations": {name: circumstances.model_dump()},
    }
    if len(entries) > 1:
        content["noise"] = {name: noise([entry["figures"] for entry in entries])}
    return [rows.row_type().model_validate(content)]


def noise(by_seed: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """How each figure spreads over seeds."""
    names = dict.fromkeys(name for figures in by_seed for name in figures)
    return {
        name: spread([value for f in by_seed if (value := f.get(name)) is not None])
        for name in names
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample) and the smallest difference of two means of as many
    values that Student's t test tells apart at the 5 % level: t(0.975, 2n - 2) * s * sqrt(2 / n).
    """
    n = len(values)
    deviation = statistics.stdev(values) if n > 1 else None
    smallest = None if deviation is None else _t(2 * n - 2) * deviation * math.sqrt(2 / n)
    return {
        "seeds": n,
        "mean": statistics.fmean(values) if n else None,
        "standard_deviation": deviation,
        "smallest_difference": smallest,
    }


def _t(degrees: int) -> float:
    """The 0.975 quantile of Student's t, for an even number of degrees of freedom: by halving, on
    the closed form of its distribution (Abramowitz and Stegun, 26.7.4)."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        angle = math.atan(middle / math.sqrt(degrees))
        term = total = 1.0
        for power in range(2, degrees, 2):
            term *= (power - 1) / power * math.cos(angle) ** 2
            total += term
        low, high = (middle, high) if math.sin(angle) * total < 0.95 else (low, middle)
    return high


TEMPORARY, LOCK = ".sae-bench-", "lock"


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """A folder beside the store, on whose disk there is place for a setup. Those that kills left
    behind are removed: nobody holds their locks."""
    STORE.mkdir(parents=True, exist_ok=True)
    for left in STORE.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError), (left / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=STORE) as folder,
        Path(folder, LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        inside = Path(folder, "work").resolve()
        inside.mkdir()
        yield inside


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _text(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
