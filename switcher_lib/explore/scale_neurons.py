"""Scale the neurons of a network of one input, and see its curve change (or not)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import traitlets
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..errors import unknown_name
from .base import Explorer, module_source, source

SLOPE = 0.1  # of the leaky ReLU where z < 0; on a screen torch's own 0.01 could not be told from ReLU

_ACTIVATIONS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "relu": ("ReLU", lambda z: np.maximum(z, 0.0)),
    "leaky_relu": (f"leaky ReLU ({SLOPE})", lambda z: np.where(z > 0, z, SLOPE * z)),
    "tanh": ("tanh", np.tanh),
}
_FACES = ("incoming", "outgoing")


def _vector(name, values, length=None):
    """``values`` as a list of finite floats, or an error that names the argument."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=float)
    flat = array.ravel()
    if array.size != max(array.shape, default=1) or (length is not None and flat.size != length):
        wanted = f"{length} values" if length is not None else "one value for each neuron"
        raise ValueError(f"{name} has shape {tuple(array.shape)}; a network with one input needs {wanted}.")
    if not np.isfinite(flat).all():
        raise ValueError(f"{name} holds a value that is not finite.")
    return tuple(flat.tolist())


class ScaleNeurons(Explorer):
    """A network 1 → n → 1 whose neurons' factors s_j the reader sets, at the incoming or the outgoing face.

    The page computes both curves from the weights: f(x) = Σ w2_j φ(s_j (W1_j x + b1_j)) + b2 for the incoming
    face, Σ s_j w2_j φ(W1_j x + b1_j) + b2 for the outgoing one. They are the same for ReLU and leaky ReLU,
    which are positively homogeneous, and differ for tanh unless every factor is 0 or 1.

    Parameters
    ----------
    W1, b1, w2 : array-like or torch.Tensor
        Weights in, biases and weights out: one value for each of the n neurons, in any shape with one long
        side.
    b2 : float
        Bias of the output.
    target : pair of array-like, optional
        What the network was fitted to, as (x, y); drawn as points.
    activation : {"relu", "leaky_relu", "tanh"}, default "relu"
        The one it was fitted with, and the first that is shown.
    x_range : pair of float, default (-2, 2)
        Where the curves are drawn.

    Attributes
    ----------
    factors : tuple of float
        One in [0, 2] for each neuron; synced with the page.
    activation, face : str
        What is shown; synced with the page.
    """

    _esm = module_source("scale_neurons.js")
    _css = source("base.css")

    W1 = traitlets.Tuple().tag(sync=True)
    b1 = traitlets.Tuple().tag(sync=True)
    w2 = traitlets.Tuple().tag(sync=True)
    b2 = traitlets.Float().tag(sync=True)
    target = traitlets.Tuple().tag(sync=True)
    fitted_with = traitlets.Unicode().tag(sync=True)
    x_range = traitlets.Tuple().tag(sync=True)
    factors = traitlets.Tuple().tag(sync=True)
    activation = traitlets.Unicode("relu").tag(sync=True)
    face = traitlets.Unicode("incoming").tag(sync=True)

    def __init__(self, W1: ArrayLike | Tensor, b1: ArrayLike | Tensor, w2: ArrayLike | Tensor, b2: ArrayLike | Tensor,
                 target: tuple[Any, Any] | None = None, activation: str = "relu",
                 x_range: tuple[float, float] = (-2.0, 2.0)) -> None:
        inward = _vector("W1", W1)
        x_range = _vector("x_range", x_range, 2)
        if x_range[0] >= x_range[1]:
            raise ValueError(f"x_range={x_range} has to run from a smaller to a larger number.")
        points: tuple[Any, ...] = ()
        if target is not None:
            x = _vector("target[0]", target[0])
            points = tuple(zip(x, _vector("target[1]", target[1], len(x)), strict=True))
        super().__init__(
            W1=inward, b1=_vector("b1", b1, len(inward)), w2=_vector("w2", w2, len(inward)), b2=_vector("b2", b2, 1)[0],
            target=points, activation=activation, fitted_with=activation, x_range=x_range,
            factors=(1.0,) * len(inward),
        )  # fmt: skip

    @classmethod
    def fit(cls, function: Callable[[Tensor], Tensor], neurons: int = 8, x_range: tuple[float, float] = (-2.0, 2.0),
            steps: int = 1500) -> "ScaleNeurons":
        """Fit a ReLU network to ``function`` (about a second) and show it.

        There is no chance in it: the kinks start evenly spread, the left half of the neurons looking to the
        left, with the weights out that fit best; Adam then moves everything.

        Parameters
        ----------
        function : callable
            Maps a float64 tensor of inputs to a tensor of outputs of the same shape.
        neurons : int, default 8
            Hidden neurons, 2 to 12.
        x_range : pair of float, default (-2, 2)
            Where to fit and to draw.
        steps : int, default 1500
            Steps of Adam on all 61 points at once.
        """
        if not 2 <= neurons <= 12:
            raise ValueError(f"neurons={neurons} has to lie between 2 and 12: each has a slider.")
        x = torch.linspace(*x_range, 61, dtype=torch.float64)
        y = function(x).double()
        side = torch.ones_like(x[:neurons])
        side[: neurons // 2] = -1
        kinks = torch.linspace(*x_range, neurons + 2, dtype=torch.float64)[1:-1]
        H = torch.cat([torch.relu(side * (x[:, None] - kinks)), torch.ones_like(x[:, None])], 1)
        ridge = 0.01 * torch.eye(neurons + 1, dtype=torch.float64)
        *w2, b2 = torch.linalg.solve(H.T @ H + ridge, H.T @ y)
        w2 = torch.stack(w2)
        root = w2.abs().clamp(min=0.05).sqrt()  # the same function, with rows as long as columns
        start = (side * root, -side * kinks * root, w2 / root, b2.reshape(1))
        W1, b1, w2, b2 = (nn.Parameter(p) for p in start)
        optimizer = torch.optim.Adam([W1, b1, w2, b2], lr=0.01)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
        for _ in range(steps):
            error = (torch.relu(x[:, None] * W1 + b1) @ w2 + b2 - y).square().mean()
            decay = 0.001 * (W1.square() + w2.square()).mean()  # or two neurons grow large and cancel
            optimizer.zero_grad()
            (error + decay).backward()
            optimizer.step()
            schedule.step()
        return cls(W1, b1, w2, b2, target=(x[::2], y[::2]), x_range=x_range)

    @traitlets.validate("factors")
    def _check_factors(self, proposal):
        factors = tuple(float(s) for s in proposal["value"])
        if self.W1 and len(factors) != len(self.W1):
            raise ValueError(f"factors has {len(factors)} values; this network has {len(self.W1)} neurons.")
        for s in factors:
            if not 0 <= s <= 2:
                raise ValueError(f"factors holds {s}; a factor lies between 0 and 2.")
        return factors

    @traitlets.validate("activation")
    def _check_activation(self, proposal):
        if proposal["value"] not in _ACTIVATIONS:
            raise unknown_name("activation", proposal["value"], _ACTIVATIONS, "activation of this explorer")
        return proposal["value"]

    @traitlets.validate("face")
    def _check_face(self, proposal):
        if proposal["value"] not in _FACES:
            raise unknown_name("face", proposal["value"], _FACES, "face")
        return proposal["value"]

    def contributions(self, x: ArrayLike, face: str | None = None) -> np.ndarray:
        """What each neuron adds to the output: (len(x), n), float64."""
        phi = _ACTIVATIONS[self.activation][1]
        W1, b1, w2, s = (np.array(v) for v in (self.W1, self.b1, self.w2, self.factors))
        z = np.multiply.outer(np.asarray(x, dtype=float), W1) + b1
        return w2 * phi(s * z) if (face or self.face) == "incoming" else s * w2 * phi(z)

    def values(self, x: ArrayLike, face: str | None = None) -> np.ndarray:
        """The curve at ``x``: what the page draws, computed in NumPy.

        Parameters
        ----------
        x : array-like, (m,)
            Inputs.
        face : {"incoming", "outgoing"}, optional
            Where the factors apply; by default the face that is shown.

        Returns
        -------
        numpy.ndarray, (m,), float64
        """
        return self.contributions(x, face).sum(-1) + self.b2

    def grid(self) -> np.ndarray:
        """The 201 inputs at which the page computes the curves."""
        low, high = self.x_range
        return low + (high - low) * np.arange(201) / 200

    def gap(self) -> float:
        """The largest difference between the two faces' curves on :meth:`grid`."""
        x = self.grid()
        return float(np.abs(self.values(x, "incoming") - self.values(x, "outgoing")).max())

    def parameters_left(self) -> int:
        """Parameters once the neurons with factor 0 are removed: three for each that stays, and b2."""
        return 3 * sum(s > 0 for s in self.factors) + 1

    def describe(self) -> str:
        off = sum(s == 0 for s in self.factors)
        return (
            f"The curve of a network with {len(self.W1)} hidden neurons "
            f"({_ACTIVATIONS[self.activation][0]}), factors at the {self.face} face: "
            f"{off} neurons off, {self.parameters_left()} of {3 * len(self.W1) + 1} parameters left."
        )

    def first_frame(self) -> str:
        x, y = self.grid(), self.values(self.grid())
        known = [p[1] for p in self.target]
        low, high = min([*y, *known]), max([*y, *known])
        width, height = 640, 240
        left, span = self.x_range[0], self.x_range[1] - self.x_range[0]

        def place(a, b):
            up = (b - low) / (high - low or 1)
            return f"{(a - left) / span * width:.1f} {height - 8 - up * (height - 16):.1f}"

        dots = "".join(
            f'<circle cx="{p[0]}" cy="{p[1]}" r="2.5" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
            for p in (place(*point).split() for point in self.target)
        )
        curve = "L".join(place(a, b) for a, b in zip(x[::4], y[::4], strict=True))
        return (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            f'aria-label="{self.describe()}">{dots}<path d="M{curve}" fill="none" stroke="#0072B2" '
            f'stroke-width="3"/></svg>'
        )
