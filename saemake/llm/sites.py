"""Where in a block the sites of SAEs are: found by what the block's modules compute, whatever their
names are.

A block adds the outputs of attention and MLP to the residual stream, one after the other, or in
parallel. So of the tensors that its modules take and give on a few tokens, those are wanted whose
sums are the block's own tensors, to the bit. Shapes: B contexts, L positions, D the model's width.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saemake.llm.hookpoint import Site

# After all that happens in a block.
LAST = 2**31
# How far a tensor changes, over its largest entry, that depends on another position.
MIXED = 1e-3


@dataclass(frozen=True)
class Tap:
    """A tensor that a module of a block takes first, or gives (the first of what it gives). `path`
    is the module's name in the block, empty for the block itself. `step` sorts the taps of a block
    as they are reached. With `used_again` the block uses the tensor again after the module, so that
    it is replaced in place."""

    path: str
    side: Literal["input", "output"]
    step: int
    used_again: bool = False


# Every block has them.
RESID_PRE, RESID_POST = Tap("", "input", 0), Tap("", "output", LAST)
BLOCK_TAPS: Mapping[Site, Tap] = {"resid_pre": RESID_PRE, "resid_post": RESID_POST}


@dataclass(frozen=True)
class Taps:
    """The sites of a block, and why it has no others."""

    of: Mapping[Site, Tap]
    why_not: str = ""


@dataclass(frozen=True)
class _Seen:
    tap: Tap
    value_BLD: Tensor


class _StoppedError(Exception):
    """Ends a run of the LM after a block."""


def first(values: Any) -> Any:
    """The first of what a module takes or gives, which may be one tensor."""
    return values[0] if isinstance(values, tuple | list) and values else values


@torch.no_grad()
def find(block: nn.Module, run: Callable[[], Any]) -> Taps:
    """The sites of a block. `run` runs the LM on a few tokens, two or more a context."""
    seen = _recorded(block, run)
    found = _in_sequence(seen) or _in_parallel(seen, block, run)
    if found is None:
        return Taps(
            BLOCK_TAPS, "no outputs of two of its modules add up with its input to its output"
        )
    return found


def _in_sequence(seen: Sequence[_Seen]) -> Taps | None:
    """Of a block that adds attention to the residual stream before the MLP reads it."""
    x_BLD, y_BLD = seen[0].value_BLD, seen[-1].value_BLD
    inner = seen[1:-1]
    for mid in (each for each in inner if each.tap.side == "input"):
        before = [each for each in inner if each.tap.step < mid.tap.step]
        after = [each for each in inner if each.tap.step > mid.tap.step]
        attn = _last_added(before, x_BLD, mid.value_BLD)
        mlp = _last_added(after, mid.value_BLD, y_BLD)
        if attn is None or mlp is None:
            continue
        taps: dict[Site, Tap] = {
            **BLOCK_TAPS,
            "attn_out": attn,
            "resid_mid": Tap(mid.tap.path, "input", mid.tap.step, used_again=True),
            "mlp_out": mlp,
        }
        if (mlp_in := _read_by_mlp(mid, after)) is not None:
            taps["mlp_in"] = mlp_in
        return Taps(taps, "nothing that its MLP alone reads is a module's input")
    return None


def _read_by_mlp(mid: _Seen, after: Sequence[_Seen]) -> Tap | None:
    """The input of the first module that takes what the norm of the residual stream gives."""
    path = mid.tap.path
    normed = [s for s in after if (s.tap.path, s.tap.side) == (path, "output")]
    return next(
        (
            each.tap
            for norm in normed[:1]
            for each in after
            if each.tap.step > norm.tap.step
            and each.tap.side == "input"
            and torch.equal(each.value_BLD, norm.value_BLD)
        ),
        None,
    )


def _in_parallel(seen: Sequence[_Seen], block: nn.Module, run: Callable[[], Any]) -> Taps | None:
    """Of a block whose attention and MLP both read the residual stream before it."""
    x_BLD, y_BLD = seen[0].value_BLD, seen[-1].value_BLD
    inner = seen[1:-1]
    outputs = [each for each in inner if each.tap.side == "output"]
    mixing: Callable[[_Seen], bool] | None = None
    for one, other in itertools.combinations(outputs, 2):
        if not _add_up(x_BLD, one.value_BLD, other.value_BLD, y_BLD):
            continue
        mixing = mixing or _mixing(seen, block, run)
        attn, mlp = (other, one) if mixing(other) else (one, other)
        if mixing(mlp) or not mixing(attn):
            continue
        taps: dict[Site, Tap] = {
            **BLOCK_TAPS,
            "attn_out": _last_equal(inner, attn),
            "mlp_out": _last_equal(inner, mlp),
        }
        # The first module that gives it is the MLP, or a part of it.
        child = mlp.tap.path.partition(".")[0]
        for each in inner:
            if (each.tap.path, each.tap.side) == (child, "input"):
                taps["mlp_in"] = each.tap
        return Taps(
            taps,
            "its attention and MLP read the same residual stream, and none lies between them",
        )
    return None


def _add_up(x_BLD: Tensor, one_BLD: Tensor, other_BLD: Tensor, y_BLD: Tensor) -> bool:
    """Whether three tensors are added to the fourth, in whatever order."""
    sums = (one_BLD + other_BLD + x_BLD, x_BLD + one_BLD + other_BLD, x_BLD + other_BLD + one_BLD)
    return any(torch.equal(each, y_BLD) for each in sums)


def _mixing(
    seen: Sequence[_Seen], block: nn.Module, run: Callable[[], Any]
) -> Callable[[_Seen], bool]:
    """Whether a tensor at later positions depends on the first position of the block's input, as
    attention's output does and an MLP's does not."""
    again = {
        (each.tap.path, each.tap.side): each.value_BLD
        for each in _recorded(block, run, other_beginning=True)
    }

    def mixes(each: _Seen) -> bool:
        other_BLD = again[each.tap.path, each.tap.side]
        apart = (each.value_BLD - other_BLD)[:, 1:].abs().max()
        # Not by rounding alone, as where a mixture sorts positions otherwise.
        return bool(apart > MIXED * each.value_BLD.abs().max())

    return mixes


# Of the modules that give a tensor, the last is wanted: nothing but the block's own code is between
# it and the addition.


def _last_added(seen: Sequence[_Seen], to_BLD: Tensor, sum_BLD: Tensor) -> Tap | None:
    """The last output that is added to a tensor."""
    outputs = (each for each in reversed(seen) if each.tap.side == "output")
    return next((s.tap for s in outputs if torch.equal(to_BLD + s.value_BLD, sum_BLD)), None)


def _last_equal(seen: Sequence[_Seen], output: _Seen) -> Tap:
    """The last output that is the same."""
    outputs = (each for each in reversed(seen) if each.tap.side == "output")
    return next(s.tap for s in outputs if torch.equal(s.value_BLD, output.value_BLD))


def _recorded(
    block: nn.Module, run: Callable[[], Any], other_beginning: bool = False
) -> list[_Seen]:
    """The tensors as wide as the block's input that its modules take and give, in the order of one
    run; the block's own are the first and the last. With `other_beginning` another tensor is at the
    first position of the block's input."""
    seen: list[_Seen] = []

    def keep(path: str, side: Literal["input", "output"], values: Any) -> None:
        value = first(values)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        if not seen or (value.numel(), value.shape[-1]) == (
            seen[0].value_BLD.numel(),
            seen[0].value_BLD.shape[-1],
        ):
            shaped = value if not seen else value.reshape(seen[0].value_BLD.shape)
            seen.append(_Seen(Tap(path, side, len(seen)), shaped.clone()))

    def before(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            if path == "" and other_beginning:
                x_BLD = first(args).clone()
                x_BLD[:, 0] = -2 * x_BLD[:, 0] + x_BLD[:, 1]
                args = (x_BLD, *args[1:])
            keep(path, "input", args or tuple(kwargs.values()))
            return args, kwargs

        return hook

    def after(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            keep(path, "output", output)
            if path == "":
                raise _StoppedError

        return hook

    with _hooked(block, before, after), suppress(_StoppedError):
        run()
    return seen


@contextmanager
def _hooked(
    block: nn.Module, before: Callable[[str], Any], after: Callable[[str], Any]
) -> Iterator[None]:
    handles = []
    try:
        for path, module in block.named_modules():
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(after(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()
