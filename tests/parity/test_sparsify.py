"""A TopK transcoder's step against sparsify 1.3.3's: from the same weights, on the same batches,
the same reconstructions and, up to the factor between the two losses, the same gradients; so with
Adam the same steps.

sparsify is read from the folder .venv-sparsify, and the test is skipped where that is not:

    pip install --no-deps --target .venv-sparsify \
        eai-sparsify==1.3.3 einops natsort simple-parsing schedulefree docstring-parser
"""

import sys

import pytest
import torch
from conftest import PROJECT
from unit.test_transcoders import D_MODEL, WIDTH, make, pairs

PLACE = PROJECT / ".venv-sparsify"
pytestmark = pytest.mark.skipif(not PLACE.is_dir(), reason=f"there is no {PLACE.name}")
K, STEPS = 3, 60


@pytest.fixture(scope="module")
def sparse_coder():
    """sparsify's class and its config's, decoding without Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSIFY_DISABLE_TRITON", "1")
        patch.setattr(sys, "path", [*sys.path, str(PLACE)])
        from sparsify.config import SparseCoderConfig
        from sparsify.sparse_coder import SparseCoder

        yield lambda skip: SparseCoder(
            D_MODEL,
            SparseCoderConfig(num_latents=WIDTH, k=K, transcode=True, skip_connection=skip),
        )


def of_ours(dictionary):
    """Our parameters by sparsify's names, with the decoder's rows."""
    named = {
        "encoder.weight": dictionary.encoder.weight,
        "encoder.bias": dictionary.encoder.bias,
        "W_dec": dictionary.decoder.weight,
        "b_dec": dictionary.b_dec,
        "W_skip": dictionary.W_skip,
    }
    return {name: parameter for name, parameter in named.items() if parameter is not None}


def as_theirs(name, tensor):
    return tensor.T if name == "W_dec" else tensor


@pytest.mark.parametrize("skip", [False, True])
def test_steps_are_sparsifys(sparse_coder, skip):
    # Adam alone: sparsify clips no gradients, and has no schedule here.
    ours = make("top_k", skip=skip, auxk_alpha=0)
    assert ours.dictionary.kept == K
    theirs = sparse_coder(skip)
    parameters, named = of_ours(ours.dictionary), dict(theirs.named_parameters())
    assert set(parameters) == set(named)
    # As sparsify draws it: within the same bounds; and decoder, skip connection and biases at 0.
    drawn = named["encoder.weight"]
    assert drawn.abs().max() <= D_MODEL**-0.5
    assert ours.dictionary.encoder.weight.abs().max() <= D_MODEL**-0.5
    own = ours.dictionary.encoder.weight.detach()
    assert own.std().item() == pytest.approx(drawn.std().item(), rel=0.1)
    for name in set(named) - {"encoder.weight"}:
        assert not named[name].any()
        assert not parameters[name].any()

    batches = list(pairs(STEPS))
    x, y = batches[0]
    with torch.no_grad():
        drawn.copy_(ours.dictionary.encoder.weight)
        # sparsify's trainer does this on its first batch.
        named["encoder.bias"].copy_(-x.mean(0) @ drawn.T)
        named["b_dec"].copy_(y.mean(0))
    ours.start(x, y)
    with torch.no_grad():
        for name, parameter in parameters.items():
            torch.testing.assert_close(as_theirs(name, parameter), named[name])
    largest = {}
    for step, (x, y) in enumerate(batches):
        theirs.zero_grad()
        out = theirs(x, y)
        out.fvu.backward()
        ours.dictionary.zero_grad()
        ours.now = ours.schedule(step)
        forward = ours.forward(x, y, step)
        forward.loss.backward()
        torch.testing.assert_close(forward.x_hat_BD, out.sae_out)
        # Their loss is over the batch's squared distance from its mean, ours over its tokens.
        factor = ((y - y.mean(0)).pow(2).sum() / len(y)).item()
        assert forward.parts["l2"].item() == pytest.approx(out.fvu.item() * factor, rel=1e-5)
        with torch.no_grad():
            for name, parameter in parameters.items():
                expected = factor * named[name].grad
                found = as_theirs(name, parameter.grad)
                size = expected.abs().max().item()
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * max(size, 0.1))
                largest[name] = max(largest.get(name, 0.0), size)
                # One step down the same gradient, for both.
                parameter -= 0.03 * as_theirs(name, expected)
                named[name] -= 0.03 * expected
    # Each was at work.
    assert min(largest.values()) > 1e-3
