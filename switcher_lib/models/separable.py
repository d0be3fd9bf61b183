"""Depthwise separable convolutions: each channel is filtered by itself, then a 1×1 convolution mixes the channels."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from switcher_lib.models.common import he_normal, integer, integers


def mobilenet(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10,
              widths: Sequence[int] = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)) -> nn.Sequential:
    """MobileNet (version 1) for small images: a stem and 13 separable blocks, 3,217,226 parameters on CIFAR-10.

    Layers: ``conv``, ``bn``, ``relu``, ``block1`` to ``block13`` (each ``depthwise``, ``bn1``, ``relu1``, ``pointwise``,
    ``bn2``, ``relu2``), ``pool``, ``flatten``, ``fc``. Blocks 2, 4, 6 and 12 halve both sides; the stem, unlike on
    ImageNet, does not. First weights of the convolutions: N(0, 2 / fan-in) (He et al. 2015); of ``fc``: PyTorch's own.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : 14 ints, default 32, 64, 128 128, 256 256, 6 times 512, 1024 1024
        Channels that the stem and each block's pointwise convolution write, each at least 1. A depthwise convolution has
        as many as it reads.

    Returns
    -------
    torch.nn.Sequential
        Images (N, C, H, W) to logits (N, num_classes).

    Raises
    ------
    ValueError
        If an argument is not as described.

    References
    ----------
    Howard et al. 2017, arXiv:1704.04861, table 1, with a stem of stride 1.
    """
    channels = integers("in_shape", in_shape, 3)[0]
    widths = integers("widths", widths, 14)
    layers = OrderedDict([
        ("conv", nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(widths[0])),
        ("relu", nn.ReLU()),
    ])
    for i, (n_in, n_out) in enumerate(zip(widths, widths[1:]), start=1):
        stride = 2 if i in (2, 4, 6, 12) else 1
        layers[f"block{i}"] = nn.Sequential(OrderedDict([
            ("depthwise", nn.Conv2d(n_in, n_in, 3, stride, padding=1, groups=n_in, bias=False)),
            ("bn1", nn.BatchNorm2d(n_in)),
            ("relu1", nn.ReLU()),
            ("pointwise", nn.Conv2d(n_in, n_out, 1, bias=False)),
            ("bn2", nn.BatchNorm2d(n_out)),
            ("relu2", nn.ReLU()),
        ]))
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(widths[-1], integer("num_classes", num_classes))
    return he_normal(nn.Sequential(layers))
