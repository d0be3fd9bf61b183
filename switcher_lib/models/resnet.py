"""Residual networks in CIFAR form: a 3×3 stem without a pool, stages of blocks, global average pooling, one linear layer.

A stage's blocks add to one stream of channels, so the stream has one width (``widths``), and compaction can only take a
channel from all of a stage at once. What a block has inside is its own (``inner``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from switcher_lib.models.common import he_normal, integer, integers


class Block(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to what came in: relu(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)).

    Parameters
    ----------
    n_in, inner, n_out : int
        Channels in, between the convolutions, and out.
    stride : int, default 1
        Of the first convolution. With 1 the shortcut is the identity and needs ``n_in`` equal to ``n_out``; with more it
        is a 1×1 convolution of the same stride with BatchNorm.

    References
    ----------
    He, Zhang, Ren and Sun 2016, arXiv:1512.03385, figure 2 and option B.
    """

    def __init__(self, n_in: int, inner: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, inner, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(OrderedDict([
            ("conv", nn.Conv2d(n_in, n_out, 1, stride, bias=False)),
            ("bn", nn.BatchNorm2d(n_out)),
        ]))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, n_out, H / stride, W / stride), rounded up, for channels-first images (N, n_in, H, W)."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + self.shortcut(x))


def resnet_18(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (64, 128, 256, 512),
              inner: Sequence[int] | None = None) -> nn.Sequential:
    """ResNet-18 for small images: 2, 2, 2, 2 blocks, 11,173,962 parameters on CIFAR-10.

    Layers: ``conv``, ``bn``, ``relu``, ``block1`` to ``block8`` (each ``conv1``, ``bn1``, ``relu1``, ``conv2``, ``bn2``,
    ``shortcut``, ``relu2``), ``pool``, ``flatten``, ``fc``. The first block of every stage but the first halves both sides;
    its shortcut is a 1×1 convolution with BatchNorm. First weights of the convolutions: N(0, 2 / fan-in) (He et al. 2015);
    of ``fc``: PyTorch's own.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int, int), default (64, 128, 256, 512)
        Channels of the stages' streams, each at least 1.
    inner : 8 ints, optional
        Channels between the two convolutions of each block, each at least 1; default the width of its stream.

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
    He, Zhang, Ren and Sun 2016, arXiv:1512.03385, table 1, with a 3×3 stem of stride 1 and no max pool in place of the
    7×7 stem that ImageNet's images have: what the literature runs on CIFAR under this name.
    """
    return _resnet((2, 2, 2, 2), in_shape, num_classes, widths, inner)


def resnet_34(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (64, 128, 256, 512),
              inner: Sequence[int] | None = None) -> nn.Sequential:
    """ResNet-34 for small images: 3, 4, 6, 3 blocks, 21,282,122 parameters on CIFAR-10.

    Layers and first weights as :func:`resnet_18`'s, with ``block1`` to ``block16``.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int, int), default (64, 128, 256, 512)
        Channels of the stages' streams, each at least 1.
    inner : 16 ints, optional
        Channels between the two convolutions of each block, each at least 1; default the width of its stream.

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
    As :func:`resnet_18`.
    """
    return _resnet((3, 4, 6, 3), in_shape, num_classes, widths, inner)


def resnet_20(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (16, 32, 64),
              inner: Sequence[int] | None = None) -> nn.Sequential:
    """ResNet-20, made for CIFAR: 3, 3, 3 blocks, 272,474 parameters on CIFAR-10.

    Layers and first weights as :func:`resnet_18`'s, with ``block1`` to ``block9``. The paper's shortcut between two stages
    takes every other pixel and fills up with zero channels (option A); ours is a 1×1 convolution with BatchNorm (option
    B), so that every channel of a stream has a layer that writes it. That adds 2,752 parameters to the paper's 269,722.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int), default (16, 32, 64)
        Channels of the stages' streams, each at least 1.
    inner : 9 ints, optional
        Channels between the two convolutions of each block, each at least 1; default the width of its stream.

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
    He, Zhang, Ren and Sun 2016, arXiv:1512.03385, section 4.2.
    """
    return _resnet((3, 3, 3), in_shape, num_classes, widths, inner)


def resnet_56(in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (16, 32, 64),
              inner: Sequence[int] | None = None) -> nn.Sequential:
    """ResNet-56, made for CIFAR: 9, 9, 9 blocks, 855,770 parameters on CIFAR-10.

    Layers and first weights as :func:`resnet_18`'s, with ``block1`` to ``block27``; shortcuts as :func:`resnet_20`'s, which
    add 2,752 parameters to the paper's 853,018.

    Parameters
    ----------
    in_shape : (int, int, int), default (3, 32, 32)
        Channels, height and width of an image, each at least 1.
    num_classes : int, default 10
        Number of outputs, at least 1.
    widths : (int, int, int), default (16, 32, 64)
        Channels of the stages' streams, each at least 1.
    inner : 27 ints, optional
        Channels between the two convolutions of each block, each at least 1; default the width of its stream.

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
    He, Zhang, Ren and Sun 2016, arXiv:1512.03385, section 4.2.
    """
    return _resnet((9, 9, 9), in_shape, num_classes, widths, inner)


def _resnet(blocks: Sequence[int], in_shape: Sequence[int], num_classes: int, widths: Sequence[int],
            inner: Sequence[int] | None) -> nn.Sequential:
    """A stem, so many blocks for each stage, and a head."""
    channels = integers("in_shape", in_shape, 3)[0]
    widths = integers("widths", widths, len(blocks))
    streams = [width for width, count in zip(widths, blocks) for _ in range(count)]    # that each block adds to
    inner = streams if inner is None else integers("inner", inner, len(streams))
    halving = list(accumulate(blocks))    # numbers, from 0, of the blocks that begin a stage, but for the first
    layers = OrderedDict([
        ("conv", nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(widths[0])),
        ("relu", nn.ReLU()),
    ])
    for i, sizes in enumerate(zip((widths[0], *streams), inner, streams)):
        layers[f"block{i + 1}"] = Block(*sizes, stride=2 if i in halving else 1)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(widths[-1], integer("num_classes", num_classes))
    return he_normal(nn.Sequential(layers))
