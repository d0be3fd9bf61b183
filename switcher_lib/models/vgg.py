"""Convolutions in a row, with pools between them: a small net and VGG-16."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from switcher_lib.models.common import he_normal, integer, integers


def conv_net(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (32, 64, 128),
             batch_norm: bool = True) -> nn.Sequential:
    """Three 3×3 convolutions, each followed by BatchNorm, ReLU and a pool that halves; then one linear layer.

    Layers: ``conv1``, ``bn1``, ``relu1``, ``pool1``, the same with 2 and 3, ``flatten``, ``fc``. 113,962
    parameters on CIFAR-10. Ours, of the size that CIFAR tutorials use.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image; both sides at least 8.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int), default (32, 64, 128)
        Channels of the three convolutions, each at least 1.
    batch_norm : bool, default True
        With BatchNorm the convolutions have no bias. Without, they have one and there is no ``bn``.

    Returns
    -------
    torch.nn.Sequential
        Images (N, C, H, W) to logits (N, num_classes).

    Raises
    ------
    ValueError
        If an argument is not as described.
    """
    channels, height, width = integers("in_shape", in_shape, 3)
    widths = integers("widths", widths, 3)
    if min(height, width) < 8:
        raise ValueError(f"in_shape={tuple(in_shape)} leaves no pixel after three pools; both sides must be "
                         f"at least 8.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (n_in, n_out) in enumerate(zip((channels, *widths), widths), start=1):
        layers[f"conv{i}"] = nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm2d(n_out)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(widths[-1] * (height // 8) * (width // 8), integer("num_classes", num_classes))
    return nn.Sequential(layers)


def vgg_16_bn(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10,
              widths: Sequence[int] = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)) -> nn.Sequential:
    """VGG-16 as CIFAR has it: 13 3×3 convolutions with BatchNorm and five pools, then one linear layer.

    Layers: ``conv1``, ``bn1``, ``relu1``, the same up to 13, with ``pool1`` to ``pool5`` behind 2, 4, 7, 10 and 13;
    ``flatten``, ``fc``. 14,724,042 parameters on CIFAR-10; no convolution has a bias. First weights of the convolutions:
    N(0, 2 / fan-in) (He et al. 2015); of ``fc``: PyTorch's own.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image; both sides at least 32.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : 13 ints, default 64 64, 128 128, 256 256 256, 512 512 512, 512 512 512
        Channels of the convolutions, each at least 1.

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
    Simonyan and Zisserman 2015, arXiv:1409.1556, configuration D. BatchNorm, and one linear layer of what the last pool
    leaves in place of three with 4096 neurons, are what the pruning literature has on CIFAR (Liu et al. 2017,
    arXiv:1708.06519).
    """
    channels, height, width = integers("in_shape", in_shape, 3)
    widths = integers("widths", widths, 13)
    if min(height, width) < 32:
        raise ValueError(f"in_shape={tuple(in_shape)} leaves no pixel after five pools; both sides must be at least 32.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    pooled = (2, 4, 7, 10, 13)
    for i, (n_in, n_out) in enumerate(zip((channels, *widths), widths), start=1):
        layers[f"conv{i}"] = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(n_out)
        layers[f"relu{i}"] = nn.ReLU()
        if i in pooled:
            layers[f"pool{pooled.index(i) + 1}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(widths[-1] * (height // 32) * (width // 32), integer("num_classes", num_classes))
    return he_normal(nn.Sequential(layers))
