"""Recipe `saebench` against the library's trainers put back to January 2025: the differences that
matter are written here a second time, independently, on top of dictionary-learning 0.1.0.

In January the TopK family and JumpReLU made the decoder unit-norm before the forward pass, clipped
the gradients before projecting them, and projected along the decoder as it was; AuxK looked at
what top-k had kept. The other trainers were what they are in 0.1.0.
"""

import pytest
import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.top_k import TopKTrainer, geometric_median
from parity.test_training import GROUPS, agreeing, differences, pair, run
from peers import SHARED
from unit.test_architectures import KEPT


class JanuaryStep:
    """The order of a step in January."""

    def update(self, step, x):
        if step == 0 and hasattr(self.ae, "k"):
            self.ae.b_dec.data = geometric_median(x)
        linear = hasattr(self.ae, "decoder")
        weight = self.ae.decoder.weight if linear else self.ae.W_dec
        dim = 0 if linear else 1
        eps = torch.finfo(torch.float32).eps
        weight.data = weight.data / (weight.data.norm(dim=dim, keepdim=True) + eps)
        self.loss(x, step=step).backward()
        torch.nn.utils.clip_grad_norm_(self.ae.parameters(), 1.0)
        along = (weight.grad * weight.data).sum(dim=dim, keepdim=True)
        weight.grad = weight.grad - along * weight.data
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()


class JanuaryAux(JanuaryStep):
    """AuxK on the latents that were kept. The library's loss hands over the detached residual: the
    hook of `loss` keeps what January's needed besides."""

    def loss(self, x, step=None, logging=False):
        self.x = x
        return super().loss(x, step=step, logging=logging)

    def get_auxiliary_loss(self, residual, activations):
        del residual, activations
        f = self.kept(self.x)
        dead = self.is_dead()
        self.dead_features = int(dead.sum())
        if not self.dead_features:
            return torch.tensor(0.0)
        k_aux = min(self.top_k_aux, self.dead_features)
        top = f[:, dead].topk(k_aux, dim=-1)
        aux = torch.zeros_like(f[:, dead]).scatter(-1, top.indices, top.values)
        return self.january_error(f, aux, dead)


class JanuaryTopK(JanuaryAux, TopKTrainer):
    def is_dead(self):
        return self.num_tokens_since_fired > self.dead_feature_threshold

    def kept(self, x):
        return self.ae.encode(x)

    def january_error(self, f, aux, dead):
        x_hat_aux = aux @ self.ae.decoder.weight[:, dead].T + self.ae.b_dec
        error = self.ae.decode(f) - self.x
        total_variance = (self.x - self.x.mean(0)).pow(2).sum(0)
        scale = min(self.dead_features / (self.x.shape[-1] // 2), 1.0)
        return scale * ((x_hat_aux - error).pow(2) / total_variance).mean()


class JanuaryBatchTopK(JanuaryAux, BatchTopKTrainer):
    def is_dead(self):
        return self.num_tokens_since_fired >= self.dead_feature_threshold

    def kept(self, x):
        return self.ae.encode(x, use_threshold=False)

    def january_error(self, f, aux, dead):
        weight = self.ae.decoder.weight.T if hasattr(self.ae, "decoder") else self.ae.W_dec
        return (aux @ weight[dead] - (self.x - self.ae.decode(f))).pow(2).mean()


class JanuaryMatryoshka(JanuaryAux, MatryoshkaBatchTopKTrainer):
    is_dead = JanuaryBatchTopK.is_dead
    kept = JanuaryBatchTopK.kept
    january_error = JanuaryBatchTopK.january_error


class JanuaryJumpRelu(JanuaryStep, JumpReluTrainer):
    pass


JANUARY = {
    "top_k": JanuaryTopK,
    "batch_top_k": JanuaryBatchTopK,
    "matryoshka_batch_top_k": JanuaryMatryoshka,
    "jump_relu": JanuaryJumpRelu,
}


@pytest.mark.parametrize("name", SHARED)
def test_200_steps_end_where_januarys_do(name):
    weights = {"group_weights": GROUPS["group_fractions"]} if "matryoshka" in name else {}
    january = JANUARY.get(name)
    _, _, auxk = agreeing(name, fused=True, recipe="saebench", kind=january, **weights)
    assert auxk > 20 or name not in KEPT


def test_the_recipes_differ_where_they_should():
    """The comparison above would notice: the same steps by the other recipe end elsewhere."""
    for name, kind in JANUARY.items():
        ours, theirs = pair(name, fused=True, recipe="dictionary_learning", kind=kind)
        run(ours, theirs, text=0)
        assert differences(ours, theirs)
