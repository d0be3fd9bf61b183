"""The LeNets: a few layers, for MNIST."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import nn

from switcher_lib.models.common import integer, integers


def lenet_300_100(in_shape: Sequence[int] = (1, 28, 28), num_classes: int = 10, widths: Sequence[int] = (300, 100),
                  batch_norm: bool = False) -> nn.Sequential:
    """LeNet-300-100: two hidden layers of ReLUs, 266,610 parameters on MNIST.

    Layers: ``flatten``, ``fc1``, ``relu1``, ``fc2``, ``relu2``, ``fc3``; with BatchNorm ``bn1`` and ``bn2`` in front of
    the ReLUs, 267,010 parameters.

    Parameters
    ----------
    in_shape : (int, int, int), default (1, 28, 28)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int), default (300, 100)
        Neurons of the two hidden layers, each at least 1.
    batch_norm : bool, default False
        Whether a BatchNorm follows each hidden layer. Its β then takes the place of the layer's bias.
        :func:`switcher_lib.fold_batchnorm` removes it again.

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
    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to
    document recognition", with ReLU in place of its squashing functions, as the pruning literature has it. BatchNorm in
    an MLP, for network slimming's sake, is ours.
    """
    in_shape, (first, second) = integers("in_shape", in_shape, 3), integers("widths", widths, 2)
    return nn.Sequential(OrderedDict([
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(prod(in_shape), first, bias=not batch_norm)),
        *([("bn1", nn.BatchNorm1d(first))] if batch_norm else []),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(first, second, bias=not batch_norm)),
        *([("bn2", nn.BatchNorm1d(second))] if batch_norm else []),
        ("relu2", nn.ReLU()),
        ("fc3", nn.Linear(second, integer("num_classes", num_classes))),
    ]))


def lenet_5(in_shape: Sequence[int] = (1, 28, 28), num_classes: int = 10, widths: Sequence[int] = (20, 50, 500),
            kernel_size: int = 5, batch_norm: bool = False) -> nn.Sequential:
    """LeNet-5 as Caffe has it: 20 and 50 channels, 800 features, 500 neurons, 431,080 parameters on MNIST.

    Layers: ``conv1``, ``pool1``, ``conv2``, ``pool2``, ``flatten``, ``fc1``, ``relu1``, ``fc2``. The one
    nonlinearity besides max pooling is the ReLU after ``fc1``: Caffe's network has none after its
    convolutions. With BatchNorm: ``bn1`` and ``bn2`` behind the convolutions, ``bn3`` behind ``fc1``, 431,650 parameters.

    Parameters
    ----------
    in_shape : (int, int, int), default (1, 28, 28)
        Channels, height and width of an image; large enough to leave a pixel after both pools.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int), default (20, 50, 500)
        Channels of the two convolutions and neurons of ``fc1``, each at least 1.
    kernel_size : int, default 5
        Side of the convolutions' kernels, at least 1. They pad nothing; the pools halve, rounding down.
    batch_norm : bool, default False
        Whether a BatchNorm follows each hidden layer. Its β then takes the place of the layer's bias.

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
    BVLC Caffe, ``examples/mnist/lenet.prototxt``, after LeCun et al. 1998.
    """
    channels, *image = integers("in_shape", in_shape, 3)
    first, second, hidden = integers("widths", widths, 3)
    kernel_size = integer("kernel_size", kernel_size)
    side = [((s - kernel_size + 1) // 2 - kernel_size + 1) // 2 for s in image]
    if min(side) < 1:
        raise ValueError(f"in_shape={tuple(in_shape)} leaves no pixel after two convolutions of "
                         f"kernel_size={kernel_size} and two pools.")
    return nn.Sequential(OrderedDict([
        ("conv1", nn.Conv2d(channels, first, kernel_size, bias=not batch_norm)),
        *([("bn1", nn.BatchNorm2d(first))] if batch_norm else []),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(first, second, kernel_size, bias=not batch_norm)),
        *([("bn2", nn.BatchNorm2d(second))] if batch_norm else []),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(second * prod(side), hidden, bias=not batch_norm)),
        *([("bn3", nn.BatchNorm1d(hidden))] if batch_norm else []),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(hidden, integer("num_classes", num_classes))),
    ]))
