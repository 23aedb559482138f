"""What artifacts are of: sweeps and SAEs, and what one job judges together."""

import difflib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saemake import architectures
from saemake.llm.hookpoint import Hookpoint

RESULTS = "results"
HUB, PUBLISHED, SAELENS, PUBLISHED_TO = "hub", "published", "saelens", "published-to"
DATASETS, FETCHED = "datasets", "fetched"
CIRCUIT_TRACER = "circuit-tracer"
# The folders of artifacts.
TOPS = (RESULTS, HUB, PUBLISHED, SAELENS, CIRCUIT_TRACER, PUBLISHED_TO, DATASETS, FETCHED)
STORE = Path(RESULTS, ".store")
# Where running processes tell what they do.
RUNNING = STORE / "running"
SAE_FILES = ("ae.pt", "config.json", "training.csv", "provenance.json")
METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
BASELINES, PCA = "baselines", "pca.safetensors"
# Of a layer: what SAE Bench's evaluations set up once for all SAEs.
SETUPS = "setups"
# In the store: a checkpoint, and beside it the recipe hash of the SAE that it is of.
CHECKPOINT, OF_SAE = "ae.pt", "of_sae.txt"


@dataclass(frozen=True)
class Sweep:
    """The SAEs of one model, hookpoint, architecture and width, of all sparsities that the config
    lists for them. `width` is a name."""

    model: str
    hookpoint: Hookpoint
    architecture: str
    width: str

    @property
    def folder(self) -> str:
        return f"{RESULTS}/{self}"

    def __str__(self) -> str:
        return f"{self.model}/{self.hookpoint}/{self.architecture}/{self.width}"


@dataclass(frozen=True)
class SaeName:
    """One SAE: a sweep, a value of its sparsity, and its seed (None: the config's)."""

    sweep: Sweep
    sparsity: float
    seed: int | None = None

    @property
    def model(self) -> str:
        return self.sweep.model

    @property
    def hookpoint(self) -> Hookpoint:
        return self.sweep.hookpoint

    @property
    def sparsity_name(self) -> str:
        return sparsity_name(self.sweep.architecture, self.sparsity)

    @property
    def own_part(self) -> str:
        """The parts of its path below the sweep: `k_24`, or `k_24/seed_3`."""
        seed = "" if self.seed is None else f"/{seed_name(self.seed)}"
        return self.sparsity_name + seed

    @property
    def folder(self) -> str:
        return f"{RESULTS}/{self}"

    def __str__(self) -> str:
        return f"{self.sweep}/{self.own_part}"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of an SAE."""

    sae: SaeName

    @property
    def model(self) -> str:
        return self.sae.model

    @property
    def hookpoint(self) -> Hookpoint:
        return self.sae.hookpoint

    def __str__(self) -> str:
        return f"checkpoints of {self.sae}"


@dataclass(frozen=True)
class Baselines:
    """The baselines of a single site."""

    model: str
    hookpoint: Hookpoint

    @property
    def folder(self) -> str:
        return f"{RESULTS}/{self.model}/{self.hookpoint}/{BASELINES}"

    def __str__(self) -> str:
        return f"baselines of {self.model}/{self.hookpoint}"


def baselines_of(sweep: Sweep) -> Baselines:
    """What a sweep is compared with: the baselines of the site that its SAEs reconstruct, or that
    its transcoders write."""
    return Baselines(sweep.model, sweep.hookpoint.target)


@dataclass(frozen=True)
class PublishedSweep:
    """The published SAEs of a sweep."""

    sweep: Sweep

    @property
    def model(self) -> str:
        return self.sweep.model

    @property
    def hookpoint(self) -> Hookpoint:
        return self.sweep.hookpoint

    def __str__(self) -> str:
        return f"published {self.sweep}"


# What one job trains: a sweep, or an SAE that no sweep lists.
Trained = Sweep | SaeName
# What one job judges in one run of the LM.
Subjects = Trained | Checkpoints | Baselines | PublishedSweep


def sparsity_name(architecture: str, value: float) -> str:
    """`k_80` or `penalty_0.03`: the architecture's parameter and its value."""
    return f"{architectures.get(architecture).sparsity}_{value!r}"


def seed_name(seed: int) -> str:
    """`seed_3`."""
    return f"seed_{seed}"


@dataclass(frozen=True)
class SetupName:
    """What an evaluation of SAE Bench sets up from a seed, for all SAEs of the residual stream
    after block `layer`, the only site that SAE Bench reads."""

    model: str
    layer: int
    evaluation: str
    seed: int

    def __str__(self) -> str:
        folder = f"{self.model}/L{self.layer}/{SETUPS}/{self.evaluation}"
        return f"{folder}/{seed_name(self.seed)}"


def dataset_file(dataset: str) -> str:
    """The file that says what was fetched of a dataset."""
    return f"{DATASETS}/{dataset}.json"


def checkpoint_file(step: int) -> str:
    """The file of the SAE before that step, under the SAE's folder."""
    return f"{CHECKPOINTS}/ae_{step}.pt"


def misspelt_top(word: str) -> str | None:
    """The folder of artifacts that the first part of a path nearly names, if it does."""
    first, *rest = PurePosixPath(word).parts or ("",)
    if first in TOPS or len(rest) < 2:
        return None
    return next(iter(difflib.get_close_matches(first, TOPS, n=1, cutoff=0.75)), None)
