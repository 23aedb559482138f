"""The kinds of artifacts. `str` of an artifact is its path; the grammar reads a path as one."""

from dataclasses import dataclass

from saemake.config.sections import FIGURES
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import files
from saemake.paths.names import (
    CHECKPOINTS,
    CIRCUIT_TRACER,
    FETCHED,
    METRICS,
    PUBLISHED,
    PUBLISHED_TO,
    RESULTS,
    Baselines,
    Checkpoints,
    SaeName,
    SetupName,
    Sweep,
    dataset_file,
)


@dataclass(frozen=True)
class ModelFile:
    """A model's description."""

    model: str

    def __str__(self) -> str:
        return f"{RESULTS}/{self.model}/model.json"


@dataclass(frozen=True)
class TokensFile:
    """The manifest of a text, tokenised for a use: training, or an evaluation."""

    model: str
    use: str

    def __str__(self) -> str:
        return f"{RESULTS}/{self.model}/tokens/{self.use}/manifest.json"


@dataclass(frozen=True)
class BaselinesFile:
    """A file of the baselines of a site."""

    baselines: Baselines
    file: str

    @property
    def model(self) -> str:
        return self.baselines.model

    def __str__(self) -> str:
        return f"{self.baselines.folder}/{self.file}"


@dataclass(frozen=True)
class SetupFile:
    """What SAE Bench set up, in the store."""

    setup: SetupName

    @property
    def model(self) -> str:
        return self.setup.model

    def __str__(self) -> str:
        return f"{RESULTS}/{self.setup}.json"


@dataclass(frozen=True)
class DatasetFile:
    """What was fetched of a dataset that SAE Bench reads."""

    dataset: str

    def __str__(self) -> str:
        return dataset_file(self.dataset)


@dataclass(frozen=True)
class FetchedFile:
    """That all is here which a model's suite needs of the network, or where `published`, its
    published SAEs."""

    model: str
    published: bool = False

    def __str__(self) -> str:
        inside = f"/{PUBLISHED}" if self.published else ""
        return f"{FETCHED}/{self.model}{inside}{files.OK}"


@dataclass(frozen=True)
class FigureFile:
    """A figure of a model's suite at one hookpoint, or where `top` is published/, of rebuilt SAEs
    beside published ones."""

    top: str
    model: str
    hookpoint: Hookpoint
    figure: str
    suffix: str

    def __str__(self) -> str:
        folder = f"{self.top}/{self.model}/{self.hookpoint}/{FIGURES}"
        return f"{folder}/{self.figure}.{self.suffix}"


@dataclass(frozen=True)
class ReportFile:
    """The report of a model's suite at one hookpoint."""

    model: str
    hookpoint: Hookpoint

    def __str__(self) -> str:
        return f"{RESULTS}/{self.model}/{self.hookpoint}/{files.REPORT}"


@dataclass(frozen=True)
class OwnFigureFile:
    """A figure that the config describes."""

    figure: str
    suffix: str

    def __str__(self) -> str:
        return f"{RESULTS}/{FIGURES}/{self.figure}.{self.suffix}"


@dataclass(frozen=True)
class SweepTable:
    """A sweep's table."""

    sweep: Sweep

    @property
    def model(self) -> str:
        return self.sweep.model

    def __str__(self) -> str:
        return f"{self.sweep.folder}/{METRICS}"


@dataclass(frozen=True)
class SaeFile:
    """A file of an SAE, under results/, published/ or saelens/."""

    top: str
    sae: SaeName
    file: str

    @property
    def model(self) -> str:
        return self.sae.model

    def __str__(self) -> str:
        return f"{self.top}/{self.sae}/{self.file}"


@dataclass(frozen=True)
class TracerFile:
    """A file of the transcoders that have one name at all layers, in circuit-tracer's format. `sae`
    is the one of layer 0."""

    sae: SaeName
    file: str

    @property
    def model(self) -> str:
        return self.sae.model

    def __str__(self) -> str:
        sweep = self.sae.sweep
        sites = f"{sweep.model}/{sweep.hookpoint.site}/{sweep.architecture}/{sweep.width}"
        return f"{CIRCUIT_TRACER}/{sites}/{self.sae.own_part}/{self.file}"


@dataclass(frozen=True)
class CheckpointsFile:
    """A checkpoint of an SAE, or a table of all its checkpoints."""

    checkpoints: Checkpoints
    file: str

    @property
    def model(self) -> str:
        return self.checkpoints.model

    def __str__(self) -> str:
        return f"{self.checkpoints.sae.folder}/{CHECKPOINTS}/{self.file}"


@dataclass(frozen=True)
class HubFile:
    """A file of a rebuilt SAE that is laid out in a folder under hub/."""

    folder: str
    sae: SaeName
    file: str

    @property
    def model(self) -> str:
        return self.sae.model

    def __str__(self) -> str:
        return f"{self.folder}/{self.file}"


@dataclass(frozen=True)
class HubFolder:
    """A folder under hub/ that one rebuilt SAE, or several, are laid out in."""

    folder: str

    def __str__(self) -> str:
        return self.folder


@dataclass(frozen=True)
class RepositoryFile:
    """The commit of a Hub repository of published SAEs."""

    repository: str

    def __str__(self) -> str:
        return f"{PUBLISHED}/{files.REPOSITORIES}/{self.repository}.json"


@dataclass(frozen=True)
class ComparisonTable:
    """The comparisons of a sweep's SAEs with the published ones."""

    sweep: Sweep

    @property
    def model(self) -> str:
        return self.sweep.model

    def __str__(self) -> str:
        return f"{PUBLISHED}/{self.sweep}/{files.COMPARISON}"


@dataclass(frozen=True)
class PushFile:
    """A file of a push of a model's suite to a Hub repository."""

    repository: str
    model: str
    file: str

    def __str__(self) -> str:
        return f"{PUBLISHED_TO}/{self.repository}/{self.model}/{self.file}"


Artifact = (
    ModelFile
    | TokensFile
    | BaselinesFile
    | SetupFile
    | DatasetFile
    | FetchedFile
    | FigureFile
    | OwnFigureFile
    | ReportFile
    | SweepTable
    | SaeFile
    | TracerFile
    | CheckpointsFile
    | HubFile
    | HubFolder
    | RepositoryFile
    | ComparisonTable
    | PushFile
)
