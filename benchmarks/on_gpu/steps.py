"""A training step beside the peers'."""

import contextlib
import importlib.util
import math
import statistics
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import with_saemake
from torch import Tensor

from on_gpu.run import Run
from on_gpu.trainers import DEAD_OF, FIRST_STEP, case_of, ours
from saemake import architectures
from saemake.architectures.trainer import Trainer


def theirs(trainer: Trainer, case: SimpleNamespace, device: torch.device) -> Any:
    """dictionary_learning's trainer with the same weights and dead latents."""
    from with_dictionary_learning import KINDS

    kind, sparsity, more = KINDS[case.architecture]
    peer = kind(
        steps=100_000,
        activation_dim=case.d_model,
        dict_size=case.width,
        layer=0,
        lm_name="none",
        lr=1e-4,
        warmup_steps=1000,
        decay_start=80_000,
        device=str(device),
        seed=0,
        **{sparsity: case.active if "penalty" not in sparsity else 0.05},
        **more,
    )
    peer.ae.load_state_dict({k: v.clone() for k, v in trainer.dictionary.state_dict().items()})
    if hasattr(peer, "num_tokens_since_fired"):
        peer.num_tokens_since_fired[::DEAD_OF] = 20_000_000
    return peer


@contextlib.contextmanager
def as_the_peer_runs() -> Iterator[None]:
    """Without our deterministic mode, which the peer does not turn on."""
    torch.use_deterministic_algorithms(False)
    try:
        with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
            yield
    finally:
        torch.use_deterministic_algorithms(True)


def peer_module(package: str, module: str) -> Any:
    """A module of a package without the package's own __init__, which imports `datasets`."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        empty = types.ModuleType(package)
        empty.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[package] = empty
    return importlib.import_module(f"{package}.{module}")


def sparsify_step(trainer: Trainer, case: SimpleNamespace, x_BD: Tensor) -> Callable[[int], Any]:
    """eai-sparsify's step, with its own kernels where it has them (see with_sparsify.py)."""
    coder, config = (peer_module("sparsify", part) for part in ("sparse_coder", "config"))
    sae = coder.SparseCoder(
        case.d_model,
        config.SparseCoderConfig(num_latents=case.width, k=case.active, normalize_decoder=True),
        device=str(x_BD.device),
        dtype=torch.float32,
    )
    given = trainer.dictionary.state_dict()
    with torch.no_grad():
        sae.encoder.weight.copy_(given["encoder.weight"])
        sae.encoder.bias.copy_(given["encoder.bias"])
        sae.W_dec.copy_(given["decoder.weight"].T)
        sae.b_dec.copy_(given["b_dec"])
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)

    def step(number: int) -> None:
        out = sae(x_BD)
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        sae.set_decoder_norm_to_unit_norm()

    return step


def synchronisations(step: Callable[[], Any], device: torch.device) -> int | None:
    """How often a step waits for the device."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        return sum("synchroniz" in str(each.message) for each in caught)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps(run: Run) -> dict[str, Any]:
    """Each architecture's step beside dictionary_learning's, TopK's also beside sparsify's."""
    large = [(2304, 16384), (512, 4096), (2304, 65536), (512, 16384)]
    rows: list[dict[str, Any]] = []
    for d_model, width in run.choose(large, [(64, 512)]):
        here = []
        for name in architectures.names() if width < 65_536 else ["top_k"]:
            if run.seconds_left < 60 and not run.small:
                break
            about = {"architecture": name, "d_model": d_model, "width": width}
            case = case_of(name, d_model, width, run.choose(80, 16))
            row = run.row(about, lambda one=case: step_case(one, run))
            rows.append(row)
            if "ratio" in row:
                here.append(row["ratio"])
        if here:
            mean = math.exp(statistics.mean(map(math.log, here)))
            print(f"{d_model} x {width}: geometric mean of ratios {mean:.2f}", flush=True)
    return {"rows": rows}


def beside_sparsify(
    trainer: Trainer, case: SimpleNamespace, x_BD: Tensor, ours_ms: float, run: Run
) -> dict[str, Any]:
    try:
        step = sparsify_step(trainer, case, x_BD)
        with as_the_peer_runs():
            times = [1000 * run.seconds(lambda: step(0), run.choose(10, 1)) for _ in range(4)]
    except Exception:
        return {"sparsify_error": traceback.format_exc()[-600:]}
    sparsify_ms = statistics.median(times[1:])
    return {"sparsify_ms": sparsify_ms, "sparsify_ratio": sparsify_ms / ours_ms}


def step_case(case: SimpleNamespace, run: Run) -> dict[str, Any]:
    x_BD = with_saemake.batch(case.d_model)
    trainer = ours(case, x_BD, run.device)
    peer = theirs(trainer, case, run.device)
    x_BD = x_BD.to(run.device, torch.bfloat16)
    number = iter(range(FIRST_STEP, 10**6))
    their_number = iter(range(FIRST_STEP, 10**6))

    def our_step() -> Any:
        return trainer.update(next(number), x_BD)

    def their_step() -> None:
        peer.update(next(their_number), x_BD)

    count = run.choose(10, 1)
    found = {
        "ours_ms": [],
        "theirs_ms": [],
        "l0": our_step().l0.item(),
        "synchronisations": synchronisations(our_step, run.device),
    }
    for round_number in range(4):
        our_ms = 1000 * run.seconds(our_step, count)
        with as_the_peer_runs():
            their_ms = 1000 * run.seconds(their_step, count)
        if round_number:  # the first warms up
            found["ours_ms"].append(our_ms)
            found["theirs_ms"].append(their_ms)
    ours_ms, theirs_ms = (statistics.median(found[side]) for side in ("ours_ms", "theirs_ms"))
    profiled = f"{case.architecture} {case.d_model} x {case.width}"
    found |= {
        "ours_ms": ours_ms,
        "theirs_ms": theirs_ms,
        "ratio": theirs_ms / ours_ms,
        "kernels": run.profiled(our_step, profiled)[0],
    }
    if case.architecture == "top_k":
        found |= beside_sparsify(trainer, case, x_BD, ours_ms, run)
    return found
