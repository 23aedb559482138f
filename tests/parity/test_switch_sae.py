"""Against switch_sae (github.com/amudide/switch_sae at 1b48457), which cannot be installed: its
steps written down here plainly, over all latents of all tokens."""

import pytest
import torch
from parity.test_training import BATCH, D_MODEL, DECAY_START, RATE, STEPS, WIDTH, batches
from torch import nn
from unit.test_architectures import make

from saemake.architectures import losses
from saemake.architectures.constraints import FLOAT32_EPSILON

EXPERTS, K, LB_ALPHA = 4, 3, 0.02


class Plain(nn.Module):
    """The parameters of SwitchAutoEncoder by its names, and a step of SwitchTrainer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D_MODEL, WIDTH, bias=False)
        self.router = nn.Linear(D_MODEL, EXPERTS, bias=False)
        self.decoder = nn.Parameter(torch.zeros(WIDTH, D_MODEL))
        self.b_dec = nn.Parameter(torch.zeros(D_MODEL))
        self.b_router = nn.Parameter(torch.zeros(D_MODEL))
        self.adam = torch.optim.Adam(self.parameters(), lr=RATE, betas=(0.9, 0.999))

    def latents(self, x):
        """The k largest over all latents, after those of all other experts became 0."""
        chances = self.router(x - self.b_router).softmax(dim=-1)
        best = chances.argmax(dim=-1, keepdim=True)
        gate = torch.zeros_like(chances).scatter(-1, best, chances.gather(-1, best))
        f = self.encoder(x - self.b_dec).relu() * gate.repeat_interleave(WIDTH // EXPERTS, dim=-1)
        values, places = f.topk(K)
        return torch.zeros_like(f).scatter(-1, places, values), chances

    def update(self, step, x):
        if step == 0:
            for bias in (self.b_dec, self.b_router):
                bias.data.copy_(losses.geometric_median(x))
        with torch.no_grad():
            self.decoder /= self.decoder.norm(dim=1, keepdim=True) + FLOAT32_EPSILON
        f, chances = self.latents(x)
        sent = nn.functional.one_hot(chances.argmax(dim=1), EXPERTS).float().mean(dim=0)
        balance = EXPERTS * torch.dot(sent, chances.mean(dim=0))
        l2 = (f @ self.decoder + self.b_dec - x).pow(2).sum(dim=-1).mean()
        (l2 + LB_ALPHA * D_MODEL * balance).backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        along = (self.decoder.grad * self.decoder).sum(dim=1, keepdim=True)
        self.decoder.grad -= along.detach() * self.decoder.detach()
        for group in self.adam.param_groups:
            decay = (STEPS - step) / (STEPS - DECAY_START)
            group["lr"] = RATE * (decay if step >= DECAY_START else 1)
        self.adam.step()
        self.adam.zero_grad()


def pair():
    ours = make(
        "switch",
        d_model=D_MODEL,
        width=WIDTH,
        steps=STEPS,
        learning_rate=RATE,
        warmup_steps=0,
        decay_start_fraction=DECAY_START / STEPS,
        experts=EXPERTS,
        lb_alpha=LB_ALPHA * D_MODEL,
    )
    ours.dictionary.k = K
    theirs = Plain()
    theirs.load_state_dict(ours.dictionary.state_dict())
    return ours, theirs


def test_every_parameter_stays_theirs():
    """One of three texts must agree to the end: rounding may route a token to another expert."""
    seen = []
    for text in range(3):
        ours, theirs = pair()
        for step, x in enumerate(batches(text)):
            ours.update(step, x)
            theirs.update(step, x)
        expected = theirs.state_dict()
        furthest = {
            key: ((value - expected[key]).abs().max() / expected[key].abs().max()).item()
            for key, value in ours.dictionary.state_dict().items()
        }
        if max(furthest.values()) < 1e-5:
            break
        seen.append(furthest)
    else:
        pytest.fail(str(seen))
    with torch.no_grad():
        f, _ = theirs.latents(x)
        torch.testing.assert_close(ours.dictionary.encode(x), f, rtol=1e-4, atol=1e-5)
        assert (f > 0).sum() > BATCH
    sent = theirs.router(x - theirs.b_router).argmax(dim=1).bincount(minlength=EXPERTS)
    assert (sent > 0).sum() > 1
