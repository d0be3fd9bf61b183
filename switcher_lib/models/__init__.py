"""The task networks of the book: plain modules, layers by name, nothing about switching.

Each takes its widths, so that a compacted network is the same function called with smaller ones.
"""

from typing import Any

from torch import nn

from switcher_lib.errors import unknown_name
from switcher_lib.models.lenet import lenet_5, lenet_300_100
from switcher_lib.models.resnet import resnet_18, resnet_20, resnet_34, resnet_56
from switcher_lib.models.separable import mobilenet
from switcher_lib.models.vgg import conv_net, vgg_16_bn

__all__ = ["conv_net", "known", "lenet_300_100", "lenet_5", "make", "mobilenet", "resnet_18", "resnet_20", "resnet_34",
           "resnet_56", "vgg_16_bn"]

_MODELS = {model.__name__: model for model in (conv_net, lenet_300_100, lenet_5, mobilenet, resnet_18, resnet_20, resnet_34,
                                               resnet_56, vgg_16_bn)}


def known() -> tuple[str, ...]:
    """Names that :func:`make` takes.

    Returns
    -------
    tuple of str
    """
    return tuple(_MODELS)


def make(name: str, **options: Any) -> nn.Sequential:
    """Build a model by its name.

    Parameters
    ----------
    name : str
        One of :func:`known`.
    **options
        Arguments of the function of that name.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    ValueError
        If `name` is unknown.
    """
    if name not in known():
        raise unknown_name("name", name, known(), "model")
    return _MODELS[name](**options)
