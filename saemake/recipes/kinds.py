"""What is in each kind of recipe."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from saemake.activations.drop_settings import Drop, RecordedDrop
from saemake.architectures.training_settings import Training
from saemake.base.digest import digest
from saemake.base.sections import Closed
from saemake.config.sections import LINE, Chat
from saemake.llm.hookpoint import RESID_POST, Hookpoint, Site


class Recipe(Closed):
    """A recipe of any kind; `hash` names it in the store."""

    @property
    def hash(self) -> str:
        """sha256 of the recipe's canonical JSON, in hex."""
        return digest(self.model_dump(mode="json"))


class ModelRecipe(Recipe):
    """Which weights: a folder's content, or a Hub repository and revision; and their dtype. Code of
    the repository's own and quantised weights are in the recipe only where the config asks for
    them."""

    content: str | None
    hub: str | None
    revision: str | None
    gguf_file: str | None
    layers: int
    dtype: str
    trust_remote_code: bool = Field(default=False, exclude_if=lambda on: not on)
    quantization: Literal["4bit", "8bit"] | None = Field(
        default=None, exclude_if=lambda bits: bits is None
    )


class LmRecipe(Recipe):
    """Of what an LM computes; `lm_devices` is over how many GPUs it is spread, and in the recipe
    only where it is. Tokens need no LM, so they stay what they are."""

    lm_devices: int = Field(default=1, exclude_if=lambda count: count == 1)


class AtRecipe(LmRecipe):
    """Of what is computed at a hookpoint: block `layer`, and its sites as far as they are not the
    default."""

    layer: int
    read: Site = Field(default=RESID_POST, exclude_if=lambda site: site == RESID_POST)
    write: Site | None = Field(default=None, exclude_if=lambda site: site is None)

    @property
    def hookpoint(self) -> Hookpoint:
        return Hookpoint(self.layer, self.read, self.write)


class TextRecipe(Recipe):
    """A text and how its documents become contexts. `separator` and `chat` are in the recipe only
    where they are not the default."""

    text_content: str | None
    text_hub: str | None
    text_revision: str | None
    subset: str | None
    split: str | None
    column: str | None
    layout: Literal["documents", "packed", "joined", "mixed"]
    separator: str = Field(default=LINE, exclude_if=lambda separator: separator == LINE)
    chat: Chat | None = Field(default=None, exclude_if=lambda chat: chat is None)


class PartRecipe(TextRecipe):
    """A part of a mixture: so many contexts of it come in a round."""

    contexts: int


class TokensRecipe(TextRecipe):
    """The tokenised text: documents one a context, or packed or joined into contexts, or contexts
    of several texts in turn (`mix`); from the text's beginning, or after the documents that the
    tokens with the hash `after` are of.

    An `amount` of tokens does not count those of the `dropped` kinds, which are left out by whoever
    reads them. That, `prepend_bos` and `mix` are in the recipe only where they are on.
    """

    version: int
    model: ModelRecipe
    shuffle_seed: int | None
    after: str | None
    context_tokens: int
    amount: int
    unit: Literal["tokens", "documents"]
    prepend_bos: bool = Field(default=False, exclude_if=lambda on: not on)
    dropped: list[Literal["bos", "special"]] = Field(default=[], exclude_if=lambda kinds: not kinds)
    mix: list[PartRecipe] = Field(default=[], exclude_if=lambda parts: not parts)

    @property
    def sources(self) -> Sequence[TextRecipe]:
        """The texts that are read: this one, or the parts of a mixture."""
        return self.mix or [self]

    @property
    def splits(self) -> str:
        """The split that is read; of a mixture those of its parts, each once."""
        return ", ".join(dict.fromkeys(str(source.split) for source in self.sources))


class SaeRecipe(AtRecipe):
    """One SAE, or with `write` a transcoder. `ae.pt` is a function of this alone, on one kind of
    device. `start_from` names the SAE that its training begins from: the hash of its recipe, or of
    a published one its place on the Hub with the revision that the config says (see start_key)."""

    tokens: TokensRecipe
    activations_version: int
    llm_batch_contexts: int
    buffer_tokens: int
    architecture: str
    architecture_version: int
    width: int
    sparsity: int | float
    settings: dict[str, Any]
    training: Training
    steps: int
    start_from: str | None = Field(default=None, exclude_if=lambda key: key is None)


class BaselinesRecipe(AtRecipe):
    """The principal components of the activations at a single site, on the beginning of the
    training text."""

    version: int
    tokens: TokensRecipe
    llm_batch_contexts: int
    pca_tokens: int
    cpu_threads: int
    drop: RecordedDrop = Drop()


class EvaluationRecipe(LmRecipe):
    """One evaluation of one thing: `subject` is the hash of the recipe of an SAE, a checkpoint or
    a baseline. `settings` are what else its figures depend on."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    subject: str
    tokens: TokensRecipe
    batch_contexts: int
    cpu_threads: int
    inferences: list[str | None]
    target_l0: float | None


class StabilityRecipe(Recipe):
    """How the latents of a sweep's SAEs recur in other seeds: hashes of the recipes of the SAEs,
    and of the evaluations that say their L0 and which latents fire."""

    version: int
    saes: list[str]
    judged: list[str]


class DatasetRecipe(Recipe):
    """Data that SAE Bench reads: a folder's content, or files or rows of a Hub repository."""

    content: str | None
    hub: str | None
    revision: str | None
    files: list[str]
    split: str | None
    rows: int | None


class SetupRecipe(Recipe):
    """What an evaluation of SAE Bench sets up from the LM and the data alone, from the seed in its
    settings. `lm_name` is TransformerLens's name of the LM."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    model: ModelRecipe
    lm_name: str
    layer: int
    datasets: dict[str, DatasetRecipe]
    software: dict[str, str]
    cpu_threads: int


class SaeBenchRecipe(Recipe):
    """One evaluation by SAE Bench of one thing, from the seed in its settings. `subject` is as in
    EvaluationRecipe, `setup` the hash of the recipe of its setup. Latents are chosen as SAE Bench's
    loader does it: `inferences` has one entry."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    subject: str
    setup: str
    lm_name: str
    software: dict[str, str]
    inferences: list[str | None]


JudgedBy = EvaluationRecipe | SaeBenchRecipe
