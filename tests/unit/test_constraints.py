"""Order and maths of norm, clip and projection, on cases that a hand can compute."""

import pytest
import torch
from unit.test_architectures import data, make

from saemake.architectures import constraints


class Column:
    """A dictionary of one column (3, 4) and one bias, with gradients set by hand."""

    d_model_dim = 0

    def __init__(self, gradient, bias_gradient=0.0):
        self.decoder_weight = torch.nn.Parameter(torch.tensor([[3.0], [4.0]]))
        self.decoder_weight.grad = torch.tensor(gradient)[:, None]
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.bias.grad = torch.tensor([bias_gradient])

    def parameters(self):
        return [self.decoder_weight, self.bias]

    @property
    def weight(self):
        return self.decoder_weight.detach().flatten().tolist()

    @property
    def gradient(self):
        return self.decoder_weight.grad.flatten().tolist()


def test_columns_are_divided_by_their_norm():
    column = Column([0.0, 0.0])
    constraints.normalise_(column.decoder_weight, 0, epsilon=0.0)
    assert column.weight == pytest.approx([0.6, 0.8])


def test_projection_along_the_normalised_column_and_along_the_column_as_it_is():
    column = Column([1.0, 0.0])
    constraints.remove_parallel_gradient_(column.decoder_weight, 0, epsilon=0.0)
    # 1 * 0.6 of it lies along (0.6, 0.8)
    assert column.gradient == pytest.approx([1 - 0.36, -0.48])
    column = Column([1.0, 0.0])
    constraints.remove_parallel_gradient_(column.decoder_weight, 0, epsilon=None)
    assert column.gradient == pytest.approx([1 - 9.0, -12.0])


def test_rows_instead_of_columns():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    weight.grad = torch.tensor([[1.0, 0.0]])
    constraints.remove_parallel_gradient_(weight, 1, epsilon=0.0)
    assert weight.grad.flatten().tolist() == pytest.approx([0.64, -0.48])


def test_january_clips_all_gradients_and_then_projects():
    column = Column([30.0, 40.0], bias_gradient=120.0)  # norm 130; the column's wholly parallel
    january = constraints.OF_RECIPE["saebench"]
    january.before_forward(column)
    assert column.weight == pytest.approx([0.6, 0.8])
    january.before_optimizer(column)
    assert column.bias.grad.item() == pytest.approx(120 / 130, rel=1e-5)
    assert column.gradient == pytest.approx([0.0, 0.0], abs=1e-6)
    column.decoder_weight.data *= 2
    january.after_optimizer(column)
    assert column.weight == pytest.approx([1.2, 1.6])  # left for the next forward


def test_the_release_projects_and_then_clips():
    column = Column([30.0, 40.0], bias_gradient=120.0)
    release = constraints.OF_RECIPE["dictionary_learning"]
    release.before_forward(column)
    assert column.weight == [3.0, 4.0]
    release.before_optimizer(column)
    # Without its parallel part the gradient is 120, all of the bias.
    assert column.bias.grad.item() == pytest.approx(1.0, rel=1e-5)
    assert column.gradient == pytest.approx([0.0, 0.0], abs=1e-4)
    release.after_optimizer(column)
    assert column.weight == pytest.approx([0.6, 0.8])


def test_unit_norm_projects_and_does_not_clip():
    column = Column([1.0, 0.0], bias_gradient=120.0)
    constraints.UNIT_NORM.before_optimizer(column)
    assert column.gradient == pytest.approx([0.64, -0.48])
    assert column.bias.grad.item() == 120
    constraints.UNIT_NORM.after_optimizer(column)
    assert column.weight == pytest.approx([0.6, 0.8])


def test_free_clips_only():
    column = Column([30.0, 40.0], bias_gradient=120.0)
    constraints.FREE.before_optimizer(column)
    assert column.gradient == pytest.approx([30 / 130, 40 / 130], rel=1e-5)
    assert column.weight == [3.0, 4.0]


@pytest.mark.parametrize(
    ("name", "recipe", "normed"),
    [
        ("standard", "saebench", True),
        ("gated", "saebench", True),
        ("p_anneal", "dictionary_learning", True),
        ("standard_new", "saebench", False),
        ("top_k", "saebench", False),
        ("jump_relu", "saebench", False),
        ("top_k", "dictionary_learning", True),
        ("jump_relu", "dictionary_learning", True),
    ],
)
def test_which_decoders_are_unit_norm_after_a_step(name, recipe, normed):
    trainer = make(name, recipe=recipe)
    for step, x in enumerate(data(10)):
        trainer.update(step, x)
    dictionary = trainer.dictionary
    norms = dictionary.decoder_weight.norm(dim=dictionary.d_model_dim)
    assert torch.allclose(norms, torch.ones(64), atol=1e-5) is normed
