"""What the task networks share: checks of their arguments, and the first weights of the deeper ones."""

from collections.abc import Sequence
from numbers import Integral
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def integer(argument: str, value: int) -> int:
    """Return ``value`` if it is an integer of at least 1; else raise a ``ValueError`` that names the ``argument``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument}={value!r} must be an integer of at least 1.")
    return int(value)


def integers(argument: str, values: Sequence[int], length: int) -> tuple[int, ...]:
    """Return ``values`` as a tuple of ``length`` integers of at least 1.

    Parameters
    ----------
    argument : str
        What they are for, to be named in an error.
    values : sequence of int
        The values.
    length : int
        How many there must be.

    Raises
    ------
    ValueError
        If they are something else.
    """
    try:
        sizes = tuple(values)
    except TypeError:
        sizes = ()
    good = [v for v in sizes if isinstance(v, Integral) and not isinstance(v, bool) and v >= 1]
    if len(sizes) != length or len(good) != length:
        raise ValueError(f"{argument}={values!r} must be {length} integers of at least 1.")
    return tuple(map(int, sizes))


def he_normal(model: Network) -> Network:
    """Draw the weights of every convolution from N(0, 2 / fan-in), as ReLUs want it, and return the model.

    Parameters
    ----------
    model : nn.Module
        A new network. Its Linear layers keep PyTorch's own first weights, its BatchNorms start at γ = 1 and β = 0.

    References
    ----------
    He, Zhang, Ren and Sun 2015, "Delving deep into rectifiers", arXiv:1502.01852, equation 10. A channel of a depthwise
    convolution reads one channel, so its fan-in is that of its kernel.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model
