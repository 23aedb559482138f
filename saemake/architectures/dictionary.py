"""The base class of every SAE, trained or in training, in dictionary_learning's format.

Shapes: D is the model's width, F the number of latents, R a number of tokens.
"""

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from saemake.base.errors import SaemakeError
from saemake.base.onednn import linear

if TYPE_CHECKING:
    import os


class Origin(Protocol):
    """Where a dictionary was read from (see saemake.notebook.opening.Origin)."""

    @property
    def metrics(self) -> Any: ...
    def lm(self, place: "str | os.PathLike[str] | None") -> Any: ...
    def activations(self, text: str, place: "str | os.PathLike[str] | None") -> Any: ...


class Dictionary(nn.Module, abc.ABC):
    """A sparse autoencoder, or a transcoder, which reads one site of the LM and writes another. The
    keys of its state dict mean what they mean in dictionary_learning.

    A transcoder (`transcodes`) does not subtract the decoder's bias from its input, which is of
    another site. With a skip connection it adds x @ W_skip.T to what the latents decode to; W_skip
    is [D, D], a row for each number written.

    `inference` is how `encode` chooses latents, for architectures with several ways (see
    Architecture.inferences); it starts as the way that dictionary_learning's loader uses. `config`
    is the content of config.json when the dictionary was read from files (see saemake.load).
    """

    # The dimension of `decoder_weight` that runs over D: 0 for an nn.Linear [D, F], 1 for a matrix
    # [F, D] that multiplies from the right.
    d_model_dim: ClassVar[int] = 0

    d_model: int
    width: int
    inference: str | None = None
    # Whether a latent below 0 counts as active.
    negative_fires: ClassVar[bool] = True
    config: Mapping[str, Any] | None = None
    origin: Origin | None = None
    transcodes: bool = False
    W_skip: nn.Parameter | None
    # Copies of both matrices [F, D] in the dtype of training, where its optimizer keeps them.
    encoder_copy: Tensor | None = None
    decoder_copy: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("W_skip", None)

    def transcode(self, *, skip: bool) -> None:
        """Make a transcoder of it, with or without a skip connection, which starts at 0."""
        self.transcodes = True
        if skip:
            self.W_skip = nn.Parameter(torch.zeros(self.d_model, self.d_model))

    @property
    def metrics(self) -> dict[str, Any]:
        """The row of metrics.json beside the file that the dictionary was read from, for its way of
        choosing latents. Raises SaemakeError if the table is not built, or the dictionary was not
        read by saemake.load."""
        found: dict[str, Any] = self._origin.metrics
        return found

    def lm(self, place: "str | os.PathLike[str] | None" = None) -> Any:
        """The language model that the SAE is of, and its tokenizer, as transformers has them:
        `model, tokenizer = sae.lm()`. It is on the SAE's device, in the dtype of the training.

        It is found by what lies beside the SAE's files; `place`, a folder or a Hub id, is for an LM
        that moved or that the project's config does not name, and is remembered. Raises
        SaemakeError if it is not there, or another LM: its checksums, width or number of layers
        differ.
        """
        return self._origin.lm(place)

    def activations(self, text: str, place: "str | os.PathLike[str] | None" = None) -> Any:
        """What the SAE sees of a text, tokenised as in the training: an object with `tokens`,
        `ids`, `x` [tokens, D], `f` [tokens, F], and `top()`, a table of the most active latents of
        each token. The LM up to the SAE's layer is kept for the next text. Raises SaemakeError as
        `lm` does."""
        return self._origin.activations(text, place)

    @property
    def _origin(self) -> Origin:
        if self.origin is None:
            raise SaemakeError("this SAE was not read from files; saemake.load reads one")
        return self.origin

    @property
    def tokens_apart(self) -> bool:
        """Whether `encode` treats each token by itself, whatever else is in its input."""
        return True

    @property
    @abc.abstractmethod
    def encoder_weight(self) -> Tensor:
        """The encoder's weight, [F, D]."""

    @property
    @abc.abstractmethod
    def encoder_bias(self) -> Tensor:
        """The bias of each latent before the activation function, [F]."""

    @property
    def decoder_rows(self) -> Tensor:
        """The decoder's weight with one row per latent, [F, D]."""
        return self.decoder_weight.T if self.d_model_dim == 0 else self.decoder_weight

    @property
    def encoder_parameter(self) -> nn.Parameter:
        """The parameter whose memory `encoder_weight` shows."""
        start = self.encoder_weight.data_ptr()
        return next(each for each in self.parameters() if each.data_ptr() == start)

    @property
    @abc.abstractmethod
    def decoder_weight(self) -> Tensor:
        """The decoder's weight, [D, F] or [F, D] (see `d_model_dim`)."""

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Activations [..., D] of any float dtype to latents [..., F] in the weights' dtype, which
        is float32 (saemake.base.onednn.linear casts)."""

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None:
        """The places that `encode` keeps and the values there, which may be 0. A place is an index
        into the flattened latents [R, F]; the places of a token are adjacent. None if there is no
        way to know them without looking at every latent."""
        return None

    @abc.abstractmethod
    def decode(self, f: Tensor) -> Tensor:
        """Latents [..., F] to reconstructions [..., D]. This must be f @ decoder_rows plus a bias:
        evaluations rely on it."""

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias that `decode` adds, [D]. Of architectures that transcode."""
        raise NotImplementedError(f"{type(self).__name__} does not say its output_bias")

    @property
    def shift(self) -> Tensor | None:
        """What the encoder of an SAE subtracts from its input, [D]; None in a transcoder."""
        return None if self.transcodes else self.output_bias

    def shifted(self, x: Tensor) -> Tensor:
        """The input of the encoder's product: x minus `shift`."""
        return x if self.transcodes else x - self.output_bias

    def skipped(self, x: Tensor) -> Tensor | None:
        """What the skip connection adds to what latents decode to, [..., D] in the weights' dtype;
        None without one."""
        return None if self.W_skip is None else linear(x, self.W_skip, None)

    def forward(self, x: Tensor) -> Tensor:
        """Activations [..., D] to reconstructions [..., D]: of themselves, or in a transcoder of
        those of the site that it writes."""
        decoded, skipped = self.decode(self.encode(x)), self.skipped(x)
        return decoded if skipped is None else decoded + skipped

    @abc.abstractmethod
    def scale_biases(self, scale: float) -> None:
        """Turn a dictionary of activations x into the same dictionary of activations scale * x."""

    @torch.no_grad()
    def unscale(self, read: float, written: float) -> None:
        """Turn a dictionary of activations that were divided by `read`, of targets that were
        divided by `written`, into that of raw ones. Latents are then in units of what is written,
        so that the decoder's norms stay. The two factors of an SAE are one number."""
        self.scale_biases(written)
        if self.transcodes:
            self.encoder_parameter.mul_(written / read)
            if self.W_skip is not None:
                self.W_skip.mul_(written / read)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number. Waits for the device."""
        return all(bool(weight.isfinite().all()) for weight in self.state_dict().values())


def rows_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A tensor in the parameter's shape (the parameter itself, its gradient, a moment) with a row
    per latent, [F, D], as it lies in memory."""
    rows_FD = tensor.detach() if parameter.is_contiguous() else tensor.detach().T
    return rows_FD.contiguous()


def latents_together(d_model: int, width: int) -> nn.Parameter:
    """An empty parameter [D, F] whose memory holds the D numbers of a latent side by side. A
    training step reads and writes them in this order."""
    return nn.Parameter(torch.empty(width, d_model).T)


class LayeredDictionary(Dictionary):
    """Of two linear layers, which `add_layers` makes: encoder.weight [F, D], encoder.bias [F] and
    decoder.weight [D, F]."""

    encoder: nn.Linear
    decoder: nn.Linear

    def add_layers(self) -> None:
        """Make the layers. A subclass says when: parameters are saved in the order in which they
        are made."""
        self.encoder = nn.Linear(self.d_model, self.width)
        self.decoder = nn.Linear(self.width, self.d_model, bias=False)
        self.decoder.weight = latents_together(self.d_model, self.width)

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def encoder_bias(self) -> Tensor:
        return self.encoder.bias

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight
