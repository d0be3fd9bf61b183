"""Keep fewer channels of a small convolutional network: what it sees, what it says, and what it costs in both currencies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from ..compaction import fold_batchnorm
from .base import Explorer, as_bytes, between, module_source, one_of, source
from .packed import as_text, packed

LARGEST, SMALLEST, SWITCHER = "the largest", "the smallest", "the switcher's"
MAX_IMAGES = 12


def _layers(model):
    """The convolutions and the last layer of a network of 3×3 convolution, ReLU, pool and so on, or what stands in the way."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model has to be an nn.Module, such as models.conv_net(); got {type(model).__name__}.")
    if any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        model = fold_batchnorm(model)
    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    kinds = [type(m).__name__ for m in leaves]
    n = len(leaves) // 3
    if n < 1 or kinds != ["Conv2d", "ReLU", "MaxPool2d"] * n + ["Flatten", "Linear"]:
        raise ValueError(f"model is {', '.join(kinds)}; allowed: Conv2d, (BatchNorm2d,) ReLU, MaxPool2d, as often as you like, then Flatten, Linear.")
    convs, last = leaves[:-2:3], leaves[-1]
    for conv in convs:
        if (conv.kernel_size, conv.padding, conv.stride, conv.groups, conv.dilation) != ((3, 3), (1, 1), (1, 1), 1, (1, 1)):
            raise ValueError(f"model: {conv} is not a 3×3 convolution that keeps the image's size; this explorer has no other.")
    for pool in leaves[2:-2:3]:
        if pool.kernel_size not in (2, (2, 2)) or pool.stride not in (2, (2, 2)):
            raise ValueError(f"model: {pool} does not halve the image; this explorer has no other.")
    return [*convs, last]


class ConvChannels(Explorer):
    """A small convolutional network whose channels the reader removes, layer by layer.

    The page holds the weights, one byte each with one scale for each channel, and computes from them the channels' maps, the
    classes' probabilities, parameters and MACs (multiplications of a forward pass over one image, biases left out).

    Parameters
    ----------
    model : nn.Module
        Such as :func:`switcher_lib.models.conv_net`: 3×3 convolutions, each with ReLU and a pool that halves, then one Linear
        layer. BatchNorm is folded. A copy is used.
    images : array-like or Tensor, (N, C, H, W)
        At most 12: uint8, or floats standardised with ``mean`` and ``std``.
    labels : sequence of int, (N,)
        Their classes.
    classes : sequence of str
        The classes' names.
    mean, std : sequence of float, (C,)
        The network was trained on (pixel / 255 - mean) / std.
    factors : sequence of array-like, optional
        For each convolution the factors that a switcher gave to its channels; adds an order of the channels.

    Attributes
    ----------
    image : int
        Which image is shown; synced with the page, as are the others.
    kept : tuple of int
        How many channels each convolution keeps.
    order : {"the largest", "the smallest", "the switcher's"}
        Which ones: by the length of a channel's filter, or by ``factors``, larger ones first.
    """

    _esm = module_source("board.js", "packed.js", "conv_channels.js")
    _css = source("base.css")
    max_bytes = 260_000    # 114,000 weights, a byte each, four thirds of that in base64, and the images

    layers = traitlets.Tuple().tag(sync=True)
    pixels = traitlets.Unicode().tag(sync=True)
    shape = traitlets.Tuple().tag(sync=True)
    labels = traitlets.Tuple().tag(sync=True)
    classes = traitlets.Tuple().tag(sync=True)
    mean = traitlets.Tuple().tag(sync=True)
    std = traitlets.Tuple().tag(sync=True)
    orders = traitlets.Dict().tag(sync=True)
    image = traitlets.Int(0).tag(sync=True)
    kept = traitlets.Tuple().tag(sync=True)
    order = traitlets.Unicode(LARGEST).tag(sync=True)

    def __init__(self, model: nn.Module, images: ArrayLike | Tensor, labels: Sequence[int] | Tensor, classes: Sequence[str],
                 mean: Sequence[float], std: Sequence[float], factors: Sequence[Any] | None = None) -> None:
        found = _layers(model)
        channels = found[0].weight.shape[1]
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ValueError(f"mean={mean} and std={std} need a number for each of {channels} channels, std above 0.")
        array = as_bytes(images, *(np.array(v, dtype=float)[:, None, None] for v in (mean, std)))
        if array.ndim != 4 or array.shape[1] != channels or not 1 <= len(array) <= MAX_IMAGES:
            raise ValueError(f"images have the shape {array.shape}; allowed: (N, {channels}, H, W), N from 1 to {MAX_IMAGES}.")
        halved = 2 ** (len(found) - 1)
        places = (array.shape[2] // halved) * (array.shape[3] // halved)
        if any(side % halved for side in array.shape[2:]) or found[-1].in_features != found[-2].out_channels * places:
            raise ValueError(f"images of {array.shape[2]}×{array.shape[3]} pixels do not fit the model's last layer, which has "
                             f"{found[-1].in_features} inputs.")
        if len(labels) != len(array) or not all(0 <= label < len(classes) for label in labels) or len(classes) != found[-1].out_features:
            raise ValueError(f"{len(array)} images, {len(labels)} labels and {len(classes)} names of classes do not belong to a model "
                             f"with {found[-1].out_features} outputs.")
        norms = [conv.weight.detach().flatten(1).norm(dim=1) for conv in found[:-1]]
        by = {LARGEST: norms, SMALLEST: [-norm for norm in norms]} | ({} if factors is None else {SWITCHER: list(factors)})
        for name, values in by.items():
            if [len(v) for v in values] != [len(norm) for norm in norms]:
                raise ValueError(f"factors have lengths {[len(v) for v in values]}; the convolutions have {[len(norm) for norm in norms]} channels.")
            # a stable order, so that the same weights make the same page everywhere
            by[name] = [np.argsort(-np.asarray(torch.as_tensor(v).detach().double()), kind="stable").tolist() for v in values]
        layers, *weights = zip(*(packed(layer, f"layer {i + 1}") for i, layer in enumerate(found)))
        # float64, as the page computes with
        self._weights = [tuple(map(torch.from_numpy, pair)) for pair in zip(*weights)]
        self._inputs = torch.from_numpy((array / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None])
        super().__init__(
            layers=layers, pixels=as_text(array), shape=array.shape[1:], labels=tuple(map(int, labels)),
            classes=tuple(classes), mean=tuple(map(float, mean)), std=tuple(map(float, std)), orders=by,
            kept=tuple(len(norm) for norm in norms),
        )  # fmt: skip

    @traitlets.validate("image")
    def _check_image(self, proposal):
        return between("image", proposal["value"], 0, max(0, len(self.labels) - 1))

    @traitlets.validate("order")
    def _check_order(self, proposal):
        return one_of("order", proposal["value"], self.orders or (LARGEST,), "order of the channels")

    @traitlets.validate("kept")
    def _check_kept(self, proposal):
        full = [layer["shape"][0] for layer in self.layers[:-1]]
        kept = tuple(proposal["value"])
        if len(kept) != len(full) or not all(isinstance(k, int) and 1 <= k <= n for k, n in zip(kept, full)):
            raise ValueError(f"kept={kept} must be {len(full)} integers, from 1 to {', '.join(map(str, full))}.")
        return kept

    def maps(self) -> list[Tensor]:
        """Return what each convolution hands on, behind ReLU and pool: (N, channels, H, W) each, 0 where a channel is removed."""
        h, found = self._inputs, []
        for (weight, bias), keep, order in zip(self._weights, self.kept, self.orders[self.order]):
            on = torch.zeros(len(bias), dtype=torch.float64)
            on[order[:keep]] = 1
            h = F.max_pool2d(F.relu(F.conv2d(h, weight, bias, padding=1)), 2) * on[:, None, None]
            found.append(h)
        return found

    def probabilities(self, maps: Sequence[Tensor] | None = None) -> Tensor:
        """Return the classes' probabilities for every image, (N, classes), float64; ``maps`` where they are known already."""
        weight, bias = self._weights[-1]
        return ((self.maps() if maps is None else maps)[-1].flatten(1) @ weight.T + bias).softmax(1)

    def costs(self) -> list[tuple[int, int]]:
        """Return (parameters, MACs) of each layer with the channels that are kept."""
        height, width = self.shape[1:]
        inputs, found = self.shape[0], []
        for keep in self.kept:
            found.append((keep * (9 * inputs + 1), keep * 9 * inputs * height * width))
            inputs, height, width = keep, height // 2, width // 2
        outputs, inputs = len(self.classes), inputs * height * width
        return [*found, (outputs * (inputs + 1), outputs * inputs)]

    def shown(self) -> dict[str, Any]:
        maps, costs = self.maps(), self.costs()
        p = self.probabilities(maps)
        right = int((p.argmax(1) == torch.tensor(self.labels)).sum())
        return {"p": p[self.image].tolist(), "costs": [list(c) for c in costs], "parameters": sum(c[0] for c in costs),
                "macs": sum(c[1] for c in costs), "right": right,
                "sums": [float(h[self.image].sum()) for h in maps]}  # fmt: skip

    def describe(self) -> str:
        found = self.shown()
        best = int(np.argmax(found["p"]))
        return (
            f"A network of {found['parameters']:,} parameters and {found['macs']:,} MACs says {self.classes[best]} with probability "
            f"{100 * found['p'][best]:.0f} %; the image is labelled {self.classes[self.labels[self.image]]}."
        )

    def first_frame(self) -> str:
        rows = [(f"conv{i + 1}" if i < len(self.kept) else "last layer", *cost) for i, cost in enumerate(self.costs())]
        most = [max(row[1] for row in rows), max(row[2] for row in rows)]
        bars = "".join(
            f'<text x="0" y="{14 + 22 * i}" font-size="12" fill="currentColor">{name}</text>'
            f'<rect x="80" y="{4 + 22 * i}" width="{max(1, 240 * parameters / most[0]):.0f}" height="12" fill="#0072B2"/>'
            f'<rect x="350" y="{4 + 22 * i}" width="{max(1, 240 * macs / most[1]):.0f}" height="12" fill="#D55E00"/>'
            for i, (name, parameters, macs) in enumerate(rows)
        )
        return f'<svg viewBox="0 0 600 {22 * len(rows)}" width="600" height="{22 * len(rows)}" role="img" aria-label="{self.describe()}">{bars}</svg>'
