"""The sections of the configuration, typed and closed. config/README.md explains every key for its
users.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from saemake.base.errors import SaemakeError
from saemake.base.remote_files import check_url
from saemake.base.sections import Closed, Count, Flag, Number, Rate, Reference, Whole, flag
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.llm.shape import Shape

DType = Literal["float32", "bfloat16", "float16"]


class Source(Closed):
    """Where a model or a text comes from: a local folder or a Hub repository, never both."""

    folder: str | None = None
    hub: str | None = None
    revision: str = "main"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give either 'folder' (a local folder) or 'hub' (a Hub id)")
        if self.folder is not None and "revision" in self.model_fields_set:
            raise ValueError("'revision' needs 'hub'; a folder has no revisions")
        return self


class Text(Source):
    """A text that `datasets` reads: its splits and the column with the documents. `document_tokens`
    and `document_bytes` are for `plan` only."""

    subset: str | None = None
    train_split: str = "train"
    evaluation_split: str
    column: str = "text"
    document_tokens: Count | None = None
    document_bytes: Count | None = None


class Dataset(Source):
    """Data that an evaluation of SAE Bench reads: of a repository, the files that match one of
    `files`, or, where `rows` is said, the first so many rows of `split`. `bytes` is about the size
    of the files, for `plan` only."""

    files: list[str] = Field(default=["*"], min_length=1)
    split: str | None = None
    rows: Count | None = None
    bytes: Count | None = None

    @model_validator(mode="after")
    def _rows_of_a_split(self) -> Self:
        if (self.rows is None) != (self.split is None):
            raise ValueError("'rows' and 'split' belong together")
        if self.rows is not None and self.folder is not None:
            raise ValueError("'rows' needs 'hub'; a folder is read whole")
        return self


def _site(name: str) -> str:
    try:
        return Hookpoint.at(0, name).site
    except SaemakeError as error:
        raise ValueError(str(error)) from None


class Suite(Closed):
    """What `rule all` and a model's figures show. `evaluations` are those of metrics.json; null are
    all that read a text. `pages` says whether each SAE has its page, too."""

    layers: list[Whole] = Field(min_length=1)
    sites: list[Annotated[str, AfterValidator(_site)]] = Field(
        default=[RESID_POST], min_length=1, exclude_if=lambda sites: sites == [RESID_POST]
    )
    architectures: list[str] = Field(min_length=1)
    widths: list[Reference] = Field(min_length=1)
    evaluations: list[str] | None = Field(default=None, min_length=1)
    pages: Flag = False

    @property
    def hookpoints(self) -> list[Hookpoint]:
        """Each site of each layer."""
        return [Hookpoint.at(layer, site) for layer in self.layers for site in self.sites]


class Model(Source):
    """A language model with its text and its budgets. `shape` is what `plan` counts with before the
    model is there, whose own it must be. `lm_devices` is over how many GPUs a job spreads it.
    `transformer_lens` is what TransformerLens calls it; null is its Hub id."""

    gguf_file: str | None = None
    layers: Count
    shape: Shape | None = None
    dtype: DType
    text: Reference
    context_tokens: Count
    llm_batch_contexts: Count
    buffer_tokens: Count
    train_tokens: Count
    prepend_bos: Flag = False
    lm_devices: Count = Field(default=1, exclude_if=lambda count: count == 1)
    transformer_lens: str | None = None
    evaluations: dict[str, dict[str, Any]] = Field(default={})
    baselines: dict[str, Any] = Field(default={})
    training: dict[str, Any] = Field(default={})
    architectures: dict[str, dict[str, Any]] = Field(default={})
    suite: Suite


class Baselines(Closed):
    """What SAEs are compared with: the identity, and PCA of so many tokens of the training text."""

    pca_tokens: Count


class Tolerances(Closed):
    """How far a rebuilt SAE may be from the published one: L0 relatively, loss recovered
    absolutely; and from which mean cosine of their decoders' directions their features are the
    same."""

    l0: Annotated[Number, Field(ge=0)]
    loss_recovered: Annotated[Number, Field(ge=0)]
    decoder_cosine: Annotated[Number, Field(gt=0, le=1)]


class Published(Closed):
    """The catalogue of published SAEs, a CSV; where a repository is not to be read at `main`, its
    revision; and what counts as reproduced. `results` are SAE Bench's published result files, a key
    of `datasets`."""

    catalogue: str
    results: str | None
    revisions: dict[str, str]
    tolerances: Tolerances


class Wandb(Closed):
    """Where wandb has its runs, one an SAE. The key is wandb's own affair."""

    project: str = Field(default="saemake", min_length=1)
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    tags: list[str] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _no_key(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if "key" in str(key).lower() or "token" in str(key).lower():
                raise ValueError(
                    f"'{key}' is refused, since a config is no place for an access key: remove it,"
                    " and run `wandb login` or set the environment variable WANDB_API_KEY"
                )
        return values


class Features(Closed):
    """The pages of SAEs: how much text they look at, and how much they show of it. `latents` are
    always shown, by the name of their SAE."""

    tokens: Count
    sample: Whole
    contexts: Count
    window: Whole
    latents: dict[str, list[Whole]]


class Logging(Closed):
    """What training reports; never part of a recipe. `tensorboard` is the folder of its files, or
    whether there are any."""

    every_steps: Count
    dead_after_tokens: Count
    wandb: Wandb | None = None
    tensorboard: Annotated[bool | str, BeforeValidator(flag)] = False

    @property
    def without_loggers(self) -> Self:
        """The same, in files only."""
        return self.model_copy(update={"wandb": None, "tensorboard": False})


class Snapshots(Closed):
    """When a pass saves what it needs to go on after a kill; never part of a recipe."""

    every_seconds: Annotated[Number, Field(ge=0)]


def _shared_url(url: Any) -> Any:
    if isinstance(url, str):
        check_url(url)
    return url


class SharedStore(Closed):
    """A store that others share, by its URL, and whether what is made here is put there; never part
    of a recipe. Credentials are for the environment."""

    remote: Annotated[str | None, BeforeValidator(_shared_url)]
    push: Flag

    @model_validator(mode="after")
    def _pushed_somewhere(self) -> Self:
        if self.push and self.remote is None:
            raise ValueError("'push' needs 'remote': say where")
        return self


Shared = Literal["sparsities", "widths", "architectures", "layers", "sites", "seeds"]


class Passes(Closed):
    """Which SAEs train on one run of the LM; never part of a recipe. SAEs may share one that differ
    in nothing but what `share` lists. `memory_gib` is the most that a pass may take of a device,
    `devices_per_pass` how many GPUs it takes."""

    share: list[Shared]
    memory_gib: Annotated[Number, Field(gt=0)] | None
    devices_per_pass: Annotated[int, Field(gt=0)] = 1

    @field_validator("share")
    @classmethod
    def _sparsities(cls, share: list[Shared]) -> list[Shared]:
        if "sparsities" not in share:
            raise ValueError("must list sparsities: one job trains a whole sweep")
        return share

    @property
    def across_jobs(self) -> bool:
        """Whether SAEs of several jobs may share one."""
        return set(self.share) != {"sparsities"}

    @property
    def cut_beforehand(self) -> bool:
        """Whether a run cuts what it has to train into passes before it starts."""
        return self.across_jobs or self.memory_gib is not None


class Slurm(Closed):
    """What jobs ask a scheduler such as Slurm for; never part of a recipe. Nothing where `device`,
    a key of `devices`, is null."""

    device: str | None
    gpus: Literal["gpus", "gres", "none"]
    gpu_partition: str | None
    time_factor: Annotated[Number, Field(gt=0)]
    longest_hours: Annotated[Number, Field(gt=0)]


class Publishing(Closed):
    """How a suite is pushed to the Hub; never part of a recipe."""

    private: Flag
    overwrite: Flag
    license: str | None


Hue = Literal["model", "layer", "site", "architecture", "width", "sparsity"]


class OwnFigure(Closed):
    """A figure: which columns of metrics.json it shows of which sweeps. `x` and `y` may also be
    columns of the row itself (SUBJECT_COLUMNS)."""

    title: str | None = None
    sweeps: list[str] = Field(min_length=1)
    x: str = "l0"
    y: str | Annotated[list[str], Field(min_length=1)]
    hue: Hue = "architecture"
    panels: Hue | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that it shows, a panel each."""
        return [self.y] if isinstance(self.y, str) else self.y


# The folder of the config's figures under results/, which no model can have the name of.
FIGURES = "figures"
# What a figure can show besides an evaluation's columns.
SUBJECT_COLUMNS = ("l0", "tokens", "latents", "layer")


class Device(Closed):
    """What a device does a second and holds, for `plan`: float32 and bfloat16 matrix products, and
    bytes to and from its memory, of each of which jobs reach the share `utilisation`."""

    float32_tflops: Rate
    bfloat16_tflops: Rate
    gigabytes_per_second: Rate
    memory_gib: Rate
    utilisation: Annotated[Rate, Field(le=1)]
    source: str
