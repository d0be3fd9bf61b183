"""Gates: from a score, any real number, to a scaling factor with exact zeros.

A gate is an ``nn.Module`` that maps scores of shape (n,) to factors of the same shape. All but :class:`ReLUBatchNorm`
have nothing to learn. A gate's gradient where its factor is 0 decides whether a neuron can come back.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from switcher_lib.errors import unknown_name

GateLike = str | Callable[[], nn.Module]    # a name, or what makes a gate


class ReLU(nn.Module):
    """s = max(a, 0): unbounded; the gradient is 0 where the factor is 0."""

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in [0, inf)."""
        return scores.relu()


class ReLUBatchNorm(nn.Module):
    """s = ReLU(BatchNorm(a)), the BatchNorm over the layer's own scores.

    Standardising the scores puts about half of them below 0 before anything is learned. Evaluation uses the running
    statistics, as any BatchNorm does.

    References
    ----------
    The gate of the original implementation of arXiv:2110.05954 and arXiv:2103.15590, as far as it is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in [0, inf)."""
        return self.norm(scores.reshape(-1, 1)).reshape(scores.shape).relu()


class ReLUTanh(nn.Module):
    """s = max(tanh(a), 0): bounded by 1, smooth above 0; the gradient is 0 where the factor is 0."""

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in [0, 1)."""
        return scores.tanh().relu()


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        ctx.save_for_backward(scores)
        return scores.clamp(0, 1)

    @staticmethod
    def backward(ctx, grad):
        (scores,) = ctx.saved_tensors
        return grad * (scores > 0)


class Clamp(nn.Module):
    """s = min(max(a, 0), 1): the gradient is 0 where the factor is 0 and goes straight through where it is 1.

    Going straight through above 1 lets a factor that has reached its bound come down again; the true derivative
    there is 0. The choice is ours.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in [0, 1]."""
        return _Clamp.apply(scores)


class CentredClamp(Clamp):
    """s = min(max(a − ā + 1/2, 0), 1) with ā the mean of the layer's scores: a clamp in which neurons compete.

    No neuron can rise without the others falling, and a drift that all scores share changes nothing: the layer can
    neither fill up nor die out as a whole. :class:`ReLUBatchNorm` without its division. The choice is ours.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in [0, 1]."""
        return super().forward(scores - scores.mean() + 0.5)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        return (scores > 0).to(scores.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Step(nn.Module):
    """s = H(a), the unit step with H(0) = 0; the gradient goes straight through everywhere.

    Straight-through gradients bring a neuron back only where one arrives: at the incoming face of a ReLU neuron the
    pre-activation is 0 when the neuron is off, and the ReLU's own derivative there is 0. Use ``face="outgoing"``.

    References
    ----------
    Bengio et al. 2013, arXiv:1308.3432 (the straight-through estimator).
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Return factors in {0, 1}."""
        return _Step.apply(scores)


GATES = {"relu": ReLU, "relu_bn": ReLUBatchNorm, "relu_tanh": ReLUTanh, "clamp": Clamp, "clamp_centred": CentredClamp, "step": Step}


def make(gate: GateLike) -> nn.Module:
    """Make a gate.

    Parameters
    ----------
    gate : str or callable
        A name (``relu``, ``relu_bn``, ``relu_tanh``, ``clamp``, ``clamp_centred``, ``step``), or a class or function that returns a
        module from scores (n,) to factors (n,).

    Returns
    -------
    nn.Module
        A new gate, one for each site, so that those which learn do not share.

    Raises
    ------
    ValueError
        If the name is not known.
    TypeError
        If ``gate`` is neither a name nor something that makes a module.
    """
    if isinstance(gate, str):
        if gate not in GATES:
            raise unknown_name("gate", gate, GATES, "gate")
        return GATES[gate]()
    try:
        made = gate() if callable(gate) and not isinstance(gate, nn.Module) else None
    except TypeError:    # a function of scores, not one that makes a module
        made = None
    if not isinstance(made, nn.Module):
        raise TypeError(f"gate={gate!r} must be a name or a class that makes an nn.Module from scores to factors. "
                        f"Known: {', '.join(sorted(GATES))}.")
    return made
