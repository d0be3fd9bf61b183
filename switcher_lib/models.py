"""The task networks of the book: plain ``nn.Sequential``, layers by name, nothing about switching.

Each takes its widths, so that a compacted network is the same function called with smaller ones.
"""

from collections import OrderedDict
from math import prod
from numbers import Integral

from torch import nn

from .errors import unknown_name

__all__ = ["conv_net", "known", "lenet_300_100", "lenet_5", "make"]


def lenet_300_100(in_shape=(1, 28, 28), num_classes=10, widths=(300, 100), batch_norm=False):
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
    in_shape, (first, second) = _sizes("in_shape", in_shape, 3), _sizes("widths", widths, 2)
    return nn.Sequential(OrderedDict([
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(prod(in_shape), first, bias=not batch_norm)),
        *([("bn1", nn.BatchNorm1d(first))] if batch_norm else []),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(first, second, bias=not batch_norm)),
        *([("bn2", nn.BatchNorm1d(second))] if batch_norm else []),
        ("relu2", nn.ReLU()),
        ("fc3", nn.Linear(second, _size("num_classes", num_classes))),
    ]))


def lenet_5(in_shape=(1, 28, 28), num_classes=10, widths=(20, 50, 500), kernel_size=5, batch_norm=False):
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
    channels, *image = _sizes("in_shape", in_shape, 3)
    first, second, hidden = _sizes("widths", widths, 3)
    kernel_size = _size("kernel_size", kernel_size)
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
        ("fc2", nn.Linear(hidden, _size("num_classes", num_classes))),
    ]))


def conv_net(in_shape=(3, 32, 32), num_classes=10, widths=(32, 64, 128), batch_norm=True):
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
    channels, height, width = _sizes("in_shape", in_shape, 3)
    widths = _sizes("widths", widths, 3)
    if min(height, width) < 8:
        raise ValueError(f"in_shape={tuple(in_shape)} leaves no pixel after three pools; both sides must be "
                         f"at least 8.")
    layers = OrderedDict()
    for i, (n_in, n_out) in enumerate(zip((channels, *widths), widths), start=1):
        layers[f"conv{i}"] = nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm2d(n_out)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(widths[-1] * (height // 8) * (width // 8), _size("num_classes", num_classes))
    return nn.Sequential(layers)


_MODELS = {"conv_net": conv_net, "lenet_300_100": lenet_300_100, "lenet_5": lenet_5}


def known():
    """Names that :func:`make` takes.

    Returns
    -------
    tuple of str
    """
    return tuple(_MODELS)


def make(name, **options):
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


def _size(argument, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument}={value!r} must be an integer of at least 1.")
    return int(value)


def _sizes(argument, values, length):
    """`length` integers of at least 1, as a tuple."""
    try:
        sizes = tuple(values)
    except TypeError:
        sizes = ()
    good = [v for v in sizes if isinstance(v, Integral) and not isinstance(v, bool) and v >= 1]
    if len(sizes) != length or len(good) != length:
        raise ValueError(f"{argument}={values!r} must be {length} integers of at least 1.")
    return tuple(map(int, sizes))
