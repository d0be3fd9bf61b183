"""Gates: what they return, where their gradient goes, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn

from switcher_lib import gates

SCORES = torch.tensor([-2.0, -0.5, 0.0, 0.25, 0.75, 1.0, 3.0])


def gradient(gate, scores=SCORES):
    scores = scores.clone().requires_grad_()
    gate(scores).sum().backward()
    return scores.grad


@pytest.mark.parametrize("name, factors, slopes", [
    ("relu", SCORES.relu(), [0, 0, 0, 1, 1, 1, 1]),
    ("relu_tanh", SCORES.tanh().relu(), [0, 0, 0, *(1 - SCORES[3:].tanh() ** 2).tolist()]),
    ("clamp", SCORES.clamp(0, 1), [0, 0, 0, 1, 1, 1, 1]),
    ("step", torch.tensor([0.0, 0, 0, 1, 1, 1, 1]), [1, 1, 1, 1, 1, 1, 1]),
])
def test_a_gates_factors_and_its_gradient(name, factors, slopes):
    gate = gates.make(name)
    torch.testing.assert_close(gate(SCORES), factors)
    torch.testing.assert_close(gradient(gate), torch.tensor(slopes, dtype=torch.float32))
    assert (gate(SCORES)[:3] == 0).all()    # exactly
    assert gate(SCORES).dtype == torch.float32 and gate(SCORES.double()).dtype == torch.float64


@pytest.mark.parametrize("name", ["relu", "relu_tanh"])
def test_smooth_gates_gradients_agree_with_finite_differences(name):
    scores = torch.tensor([-1.0, -0.2, 0.3, 0.9, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gates.make(name), scores)


def test_clamps_gradient_is_the_true_one_between_0_and_1():
    scores = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gates.make("clamp"), scores)


def test_the_straight_through_gradient_is_multiplied_by_what_arrives():
    scores = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    arriving = torch.tensor([3.0, 5.0, 7.0])
    for name, expected in (("clamp", [0.0, 5.0, 7.0]), ("step", [3.0, 5.0, 7.0])):
        scores.grad = None
        gates.make(name)(scores).backward(arriving)
        assert scores.grad.tolist() == expected


def test_relu_batch_norm_standardises_over_the_layer():
    gate = gates.make("relu_bn")
    scores = 100 + 7 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    factors = gate(scores)
    standard = (scores - scores.mean()) / (scores.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(factors, standard.relu(), rtol=1e-3, atol=1e-4)
    assert 0.4 < (factors == 0).float().mean() < 0.6
    assert len(list(gate.parameters())) == 2    # γ and β learn


def test_relu_batch_norm_evaluates_by_its_running_statistics():
    gate = gates.make("relu_bn").eval()
    torch.testing.assert_close(gate(SCORES), SCORES.relu(), rtol=1e-4, atol=1e-4)    # mean 0, variance 1 at the start
    gate.train()(SCORES + 5)
    assert gate.norm.running_mean.item() == pytest.approx(0.1 * (SCORES + 5).mean().item(), rel=1e-5)


def test_a_centred_clamp_ignores_what_all_scores_share_and_starts_in_the_middle():
    gate = gates.make("clamp_centred")
    torch.testing.assert_close(gate(SCORES), gate(SCORES + 3))
    torch.testing.assert_close(gate(torch.full((5,), -2.0)), torch.full((5,), 0.5))
    factors = gate(torch.tensor([-1.0, 0.0, 1.0]))
    assert factors.tolist() == [0.0, 0.5, 1.0]


def test_each_site_gets_a_gate_of_its_own_and_a_class_or_function_makes_one():
    assert gates.make("relu_bn") is not gates.make("relu_bn")
    assert isinstance(gates.make(gates.Clamp), gates.Clamp)
    assert isinstance(gates.make(partial(nn.Softplus, beta=2)), nn.Softplus)
    assert set(gates.GATES) == {"relu", "relu_bn", "relu_tanh", "clamp", "clamp_centred", "step"}


def test_an_unknown_gate_is_answered_with_the_nearest_and_all_known():
    with pytest.raises(ValueError) as caught:
        gates.make("clmp")
    assert str(caught.value) == ("gate='clmp' is not a gate; did you mean 'clamp'? "
                                 "Known: clamp, clamp_centred, relu, relu_bn, relu_tanh, step.")
    with pytest.raises(ValueError, match=r"gate='zzz' is not a gate. Known: clamp"):
        gates.make("zzz")


@pytest.mark.parametrize("gate", [3, gates.Clamp(), lambda: 5, torch.relu])
def test_what_makes_no_module_is_refused(gate):
    with pytest.raises(TypeError, match="must be a name or a class that makes an nn.Module"):
        gates.make(gate)
