"""Switch off the neurons of a digit classifier, and see its probabilities change."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import traitlets
from numpy.typing import ArrayLike
from torch import Tensor, nn

from .base import Explorer, as_bytes, module_source, source
from .packed import as_text, packed

MAX_PARAMETERS = 42_000  # one byte each, four thirds of that in base64: with the pictures, below 100 KB
MAX_IMAGES = 12
SIDE = 28


def _cells(chosen):
    """An SVG path that covers the chosen pixels, run by run."""
    path = ""
    for row, line in enumerate(np.asarray(chosen).reshape(SIDE, SIDE)):
        edges = np.flatnonzero(np.diff([0, *line.astype(int), 0]))
        for start, stop in edges.reshape(-1, 2):
            path += f"M{start} {row}h{stop - start}v1h-{stop - start}z"
    return path


def _linears(model):
    """The Linear layers of a plain ReLU network, or an error that says what stands in the way."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model has to be an nn.Module, such as nn.Sequential; got {type(model).__name__}.")
    # Linear layers are whole, whatever helper a SelectLinear holds
    leaves = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear) or not list(m.children())]
    linears = []
    for path, module in leaves:
        name = f"{path or 'itself'} ({type(module).__name__})"
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 2:
            linears.append(module)
        elif weight is not None or any(True for _ in module.parameters()):
            raise ValueError(f"model: {name} is not a Linear layer; this explorer has no other.")
        elif type(module).__name__ in {"Sigmoid", "Tanh", "GELU", "LeakyReLU", "SiLU", "ELU"}:
            raise ValueError(f"model: {name} is not a ReLU; this explorer has no other.")
    for module in linears[1:]:
        if hasattr(module, "index"):
            raise ValueError("model: a Linear layer after the first has an index; only the first may.")
    if len(linears) < 2:
        raise ValueError(f"model has {len(linears)} Linear layers; it needs a hidden layer, so at least 2.")
    return linears


def _pixels(model, linears):
    """The positions of the input that the first layer reads: its ``index``, or that of a module before it."""
    for module in model.modules():
        index = getattr(module, "index", None)
        if isinstance(index, torch.Tensor):
            return index.detach().cpu().numpy().astype(int)
        if module is linears[0]:
            break
    return np.arange(SIDE * SIDE)


def _bytes_of(images, mean, std):
    """Images as (N, 28, 28) uint8: as they are, or with the standardising undone."""
    array = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
    if array.ndim < 3 or array.shape[-2:] != (SIDE, SIDE) or array.size != len(array) * SIDE * SIDE:
        raise ValueError(f"images has shape {tuple(array.shape)}; allowed: (N, 28, 28) or (N, 1, 28, 28).")
    if not 1 <= len(array) <= MAX_IMAGES:
        raise ValueError(f"images holds {len(array)} images; the page carries 1 to {MAX_IMAGES}.")
    return as_bytes(array.reshape(-1, SIDE, SIDE), mean, std)


def _single(name, value):
    array = np.asarray(value, dtype=float).ravel()
    if array.size != 1 or not np.isfinite(array[0]) or (name == "std" and array[0] <= 0):
        raise ValueError(f"{name}={value!r} has to be one number{', above 0' if name == 'std' else ''}.")
    return float(array[0])


class DigitNeurons(Explorer):
    """A small classifier of 28 × 28 digits whose neurons the reader switches off.

    The page holds the weights, one byte each with one scale for each neuron, and computes activations,
    probabilities and the parameters that are left from them. :attr:`rounding` says what the bytes cost.

    Parameters
    ----------
    model : torch.nn.Module
        Linear layers with ReLU between them, such as a compacted LeNet-300-100, at most 42,000 parameters.
        Where the first layer (or a module before it) has an ``index`` buffer, it reads those positions of the
        flattened image; else all 784.
    images : array-like or torch.Tensor, (N, 28, 28) or (N, 1, 28, 28)
        At most 12: uint8, or floats standardised with ``mean`` and ``std``.
    labels : sequence of int, (N,)
        The digits they show.
    mean, std : float
        The network was trained on (pixel / 255 - mean) / std.

    Attributes
    ----------
    image : int
        Which image is shown; synced with the page.
    share : int
        Per cent of each hidden layer's neurons to switch off, smallest first, by the product of the lengths
        of a neuron's row and column; setting it sets ``off``. Synced.
    off : tuple of int
        The neurons that are off, counted through the hidden layers: the first of the second layer is number
        n1. Synced.
    rounding : float
        The largest difference, over images and classes, between the page's probabilities and the model's own.
    """

    _esm = module_source("packed.js", "digit_neurons.js")
    _css = source("base.css")

    layers = traitlets.Tuple().tag(sync=True)
    index = traitlets.Tuple().tag(sync=True)
    order = traitlets.Tuple().tag(sync=True)
    images = traitlets.Unicode().tag(sync=True)
    labels = traitlets.Tuple().tag(sync=True)
    mean = traitlets.Float().tag(sync=True)
    std = traitlets.Float(1.0).tag(sync=True)
    image = traitlets.Int(0).tag(sync=True)
    share = traitlets.Int(0).tag(sync=True)
    off = traitlets.Tuple().tag(sync=True)

    def __init__(self, model: nn.Module, images: ArrayLike | Tensor, labels: Sequence[int] | Tensor, mean: ArrayLike,
                 std: ArrayLike) -> None:
        mean, std = _single("mean", mean), _single("std", std)
        linears = _linears(model)
        index = _pixels(model, linears)
        first = linears[0].weight.shape[1]
        if len(index) != first or index.min() < 0 or index.max() >= SIDE * SIDE:
            raise ValueError(
                f"model reads {first} inputs, and its index names {len(index)} positions of 0 to "
                f"{SIDE * SIDE - 1}; the two have to agree."
            )
        parameters = sum(p.numel() for layer in linears for p in layer.parameters())
        if parameters > MAX_PARAMETERS:
            raise ValueError(
                f"model has {parameters:,} parameters; the page carries at most {MAX_PARAMETERS:,}. "
                f"Compact it, or give a smaller one."
            )
        pictures = _bytes_of(images, mean, std)
        labels = tuple(int(label) for label in labels)
        if len(labels) != len(pictures):
            raise ValueError(f"labels has {len(labels)} values for {len(pictures)} images.")

        self._weights: list[tuple[np.ndarray, np.ndarray]] = []
        layers = []
        for i, layer in enumerate(linears):
            carried, W, b = packed(layer, f"Linear layer {i + 1}")
            if i and W.shape[1] != len(self._weights[-1][0]):
                raise ValueError(f"model: Linear layer {i + 1} does not read the one before it.")
            self._weights.append((W, b))
            layers.append(carried)

        self._pixels = pictures
        self.hidden = tuple(len(W) for W, _ in self._weights[:-1])  #: neurons of each hidden layer
        super().__init__(
            layers=tuple(layers), index=tuple(index.tolist()), order=tuple(self._orders()),
            images=as_text(pictures), labels=labels, mean=mean, std=std,
        )  # fmt: skip
        self.rounding = self._rounding(linears)

    def _orders(self):
        """Each hidden layer's neurons, smallest first: length of the row (with bias) times the column's."""
        for (W, b), (after, _) in zip(self._weights, self._weights[1:], strict=False):
            size = np.sqrt((W**2).sum(1) + b**2) * np.linalg.norm(after, axis=0)
            yield np.argsort(size, kind="stable").tolist()

    def _rounding(self, linears):
        """How far the bytes move the probabilities, against the same layers in full precision."""
        worst = 0.0
        for i in range(len(self._pixels)):
            h = torch.from_numpy(self._input(i))
            for layer in linears[:-1]:
                h = torch.relu(nn.functional.linear(h, *self._double(layer)))
            p = nn.functional.linear(h, *self._double(linears[-1])).softmax(0).numpy()
            worst = max(worst, float(np.abs(p - self.probabilities(i, ())).max()))
        return worst

    @staticmethod
    def _double(layer):
        bias = layer.bias
        return layer.weight.detach().double().cpu(), None if bias is None else bias.detach().double().cpu()

    def _input(self, image):
        x = (self._pixels[image].astype(float) / 255 - self.mean) / self.std
        return x.ravel()[list(self.index)]

    @traitlets.validate("image")
    def _check_image(self, proposal):
        if not 0 <= proposal["value"] < len(self._pixels):
            raise ValueError(f"image={proposal['value']} has to lie between 0 and {len(self._pixels) - 1}.")
        return proposal["value"]

    @traitlets.validate("share")
    def _check_share(self, proposal):
        if not 0 <= proposal["value"] <= 100:
            raise ValueError(f"share={proposal['value']} is a percentage: it has to lie between 0 and 100.")
        return proposal["value"]

    @traitlets.validate("off")
    def _check_off(self, proposal):
        return self._as_off(proposal["value"])

    def _as_off(self, off):
        off = tuple(sorted({int(j) for j in off}))
        if off and not (off[0] >= 0 and off[-1] < sum(self.hidden)):
            raise ValueError(f"off={off} has to hold numbers between 0 and {sum(self.hidden) - 1}.")
        return off

    @traitlets.observe("share")
    def _switch_off_smallest(self, change):
        off, start = [], 0
        for n, order in zip(self.hidden, self.order, strict=True):
            off += [start + j for j in order[: int(change["new"] * n / 100 + 0.5)]]
            start += n
        self.off = off

    def _alive(self, off):
        """For each hidden layer 1 where a neuron is on, 0 where it is off."""
        alive = np.ones(sum(self.hidden))
        alive[list(self._as_off(off))] = 0
        return np.split(alive, np.cumsum(self.hidden)[:-1])

    def activations(self, image: int | None = None, off: Iterable[int] | None = None) -> list[np.ndarray]:
        """The hidden layers' activations: one float64 array for each, 0 where a neuron is off."""
        h, found = self._input(self.image if image is None else image), []
        for (W, b), alive in zip(self._weights, self._alive(self.off if off is None else off), strict=False):
            h = np.maximum(W @ h + b, 0) * alive
            found.append(h)
        return found

    def probabilities(self, image: int | None = None, off: Iterable[int] | None = None) -> np.ndarray:
        """The classes' probabilities, from the same rounded weights as in the page.

        Parameters
        ----------
        image : int, optional
            Which image; by default the one that is shown.
        off : sequence of int, optional
            Neurons that are off, counted through the hidden layers; by default the present ones.

        Returns
        -------
        numpy.ndarray, (classes,), float64
        """
        W, b = self._weights[-1]
        z = W @ self.activations(image, off)[-1] + b
        e = np.exp(z - z.max())
        return e / e.sum()

    def parameters_left(self, off: Iterable[int] | None = None) -> int:
        """Weights and biases once the neurons that are off are removed."""
        alive = [int(a.sum()) for a in self._alive(self.off if off is None else off)]
        widths = [len(self.index), *alive, len(self._weights[-1][0])]
        return sum(n * (d + 1) for d, n in zip(widths, widths[1:], strict=False))

    def right(self, off: Iterable[int] | None = None) -> int:
        """How many of the images are given their label."""
        return sum(int(self.probabilities(i, off).argmax()) == label for i, label in enumerate(self.labels))

    def describe(self) -> str:
        p = self.probabilities()
        return (
            f"A network of {self.parameters_left():,} parameters that reads {len(self.index)} of "
            f"{SIDE * SIDE} pixels takes this {self.labels[self.image]} for a {p.argmax()} "
            f"with probability {100 * p.max():.0f} %."
        )

    def first_frame(self) -> str:
        unread = np.ones(SIDE * SIDE, bool)
        unread[list(self.index)] = False
        grey = np.rint(self._pixels[self.image].ravel() / 255 * 5) / 5  # five shades keep the page light
        shades = np.unique(grey[grey > 0])
        ink = "".join(f'<path d="{_cells(grey == v)}" fill-opacity="{v:.1f}"/>' for v in shades)
        bars = "".join(
            f'<rect x="34" y="{1 + 2.6 * k:.1f}" width="{max(0.1, 20 * p):.2f}" height="1.6" fill="#0072B2"/>'
            f'<text x="31.5" y="{2.5 + 2.6 * k:.1f}" font-size="2">{k}</text>'
            for k, p in enumerate(self.probabilities())
        )
        return (
            f'<svg viewBox="0 0 56 28" width="448" height="224" role="img" aria-label="{self.describe()}" '
            f'fill="currentColor"><path d="{_cells(unread)}" fill="#D55E00" fill-opacity=".25"/>'
            f"{ink}{bars}</svg>"
        )
