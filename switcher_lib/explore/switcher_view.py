"""See a layer's rows as the switcher reads them, edit one, and see the factors that it answers."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import traitlets
from numpy.typing import ArrayLike
from torch import Tensor

from ..data import Data
from ..models import lenet_300_100
from ..switched import Switched
from ..switchers import RowSwitcher
from ..training import evaluate, seed_everything, switcher_step, task_step
from .base import Explorer, between, module_source, one_of, source

OWN, PREVIOUS = ("as they are", "reversed", "size"), ("as it is", "shuffled")
WIDTHS, HIDDEN = (24, 16), 8
LOOKS = (0, 50, 100, 200, 300, 450, 600)


def _short(tensor):
    """Nested lists of numbers with four digits, in the page and in Python alike."""
    values = tensor.detach().double().cpu().numpy()
    return np.array([float(f"{v:.4g}") for v in values.ravel()]).reshape(values.shape).tolist()


def _shuffle(n):
    """The same order without chance in the page and here: 3, 10, 17, ... modulo n where that meets all."""
    order = [(i * 7 + 3) % n for i in range(n)]
    return order if len(set(order)) == n else list(range(n))[::-1]


class SwitcherView(Explorer):
    """The rows (w_j, b_j) of one layer over training, and the factors that a row switcher answers to them.

    The page holds the layer and the switcher's perceptron at each look and computes scores and factors from them. The
    reader multiplies a row, puts the rows into another order (every neuron keeps its factor) or shuffles the neurons
    before (it does not).

    Parameters
    ----------
    looks : sequence of dict
        Each with ``step`` (int), ``rows`` (n, d + 1), ``switcher`` (``U`` (h, d + 1), ``u`` (h,), ``v`` (h,), ``c``)
        and ``accuracy`` (per cent); :meth:`record` makes them.

    Attributes
    ----------
    look, neuron : int
        Which look, counted from 0, and which neuron, from 1; synced with the page, as are the others.
    scale : float
        What the neuron's row is multiplied by, 0 to 3.
    own : {"as they are", "reversed", "size"}
        Order of the rows.
    previous : {"as it is", "shuffled"}
        Order of the neurons before.
    """

    _esm = module_source("board.js", "switcher_view.js")
    _css = source("base.css")

    looks = traitlets.Tuple().tag(sync=True)
    look = traitlets.Int(0).tag(sync=True)
    neuron = traitlets.Int(1).tag(sync=True)
    scale = traitlets.Float(1.0).tag(sync=True)
    own = traitlets.Unicode("as they are").tag(sync=True)
    previous = traitlets.Unicode("as it is").tag(sync=True)

    def __init__(self, looks: Iterable[dict[str, Any]]) -> None:
        looks = tuple(looks)
        shapes = {np.shape(look["rows"]) for look in looks}
        if len(shapes) != 1 or any(np.shape(look["switcher"]["U"])[1] != np.shape(look["rows"])[1] for look in looks):
            raise ValueError(f"looks hold rows of shapes {sorted(shapes)}; all need one shape (n, d + 1), and U needs d + 1 columns.")
        super().__init__(looks=looks, look=len(looks) - 1)

    @classmethod
    def record(cls, data: Data, seed: int = 0) -> "SwitcherView":
        """Train a small network and its switcher on ``data`` (seconds), and look at its second hidden layer.

        Widths 784-24-16-10, a row switcher of 8 hidden units for each layer, clamp, 600 task steps on batches of 64 with a
        switcher step after every second and a cost term of λ = 0.2.

        Parameters
        ----------
        data : Data
            From :func:`switcher_lib.data.load`, 28 × 28 pixels.
        seed : int, default 0
            Seed of everything random.
        """
        seed_everything(seed)
        net = Switched(lenet_300_100(widths=WIDTHS), data.example, switcher=partial(RowSwitcher, hidden=HIDDEN))
        task = torch.optim.SGD(net.model.parameters(), lr=0.05, momentum=0.9)
        switch = torch.optim.Adam(net.switcher.parameters(), lr=2e-3)
        order, looks, step = torch.Generator().manual_seed(seed), [cls._see(net, 0, data)], 0
        while step < LOOKS[-1]:
            for x, y in data.train.batches(64, generator=order):
                step += 1
                task_step(net, x, y, task)
                if step % 2 == 0:
                    switcher_step(net, x, y, switch, cost=0.2)
                if step in LOOKS:
                    looks.append(cls._see(net, step, data))
                if step == LOOKS[-1]:
                    break
        return cls(looks)

    @staticmethod
    def _see(net, step, data):
        params, mlp = net.params(), net.switcher.scorers["fc2"]
        rows = torch.cat([params["fc2.weight"], params["fc2.bias"][:, None]], 1)
        found = evaluate(net, data.validation)
        net.train()
        return {
            "step": step, "rows": _short(rows), "accuracy": round(100 * found.accuracy, 2),
            "switcher": {"U": _short(mlp[0].weight), "u": _short(mlp[0].bias), "v": _short(mlp[2].weight[0]), "c": _short(mlp[2].bias)[0]},
        }  # fmt: skip

    @traitlets.validate("look", "neuron")
    def _check_index(self, proposal):
        name = proposal["trait"].name
        rows = len(self.looks[0]["rows"]) if self.looks else 1
        low, high = (0, max(0, len(self.looks) - 1)) if name == "look" else (1, rows)
        return between(name, proposal["value"], low, high)

    @traitlets.validate("scale")
    def _check_scale(self, proposal):
        return between("scale", proposal["value"], 0, 3)

    @traitlets.validate("own", "previous")
    def _check_order(self, proposal):
        name = proposal["trait"].name
        return one_of(name, proposal["value"], {"own": OWN, "previous": PREVIOUS}[name], "order of this explorer")

    def answer(self, rows: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and factors, (n,) each, that the present look's switcher gives to ``rows`` (n, d + 1)."""
        s = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.looks[self.look]["switcher"].items()}
        rows = torch.as_tensor(rows, dtype=torch.float64)
        rows = rows / (rows.std(correction=0) + 1e-8)
        scores = torch.relu(rows @ s["U"].T + s["u"]) @ s["v"] + s["c"]
        return scores, scores.clamp(0, 1)

    def edited(self) -> tuple[Tensor, list[int]]:
        """Return the rows as the reader has edited them, (n, d + 1), and the order of the neurons in them."""
        rows = torch.tensor(self.looks[self.look]["rows"], dtype=torch.float64)
        n, d = rows.shape[0], rows.shape[1] - 1
        order = list(range(n))
        if self.own == "size":
            order.sort(key=lambda j: (-float(rows[j].norm()), j))
        elif self.own == "reversed":
            order.reverse()
        rows[self.neuron - 1] *= self.scale
        columns = [*(_shuffle(d) if self.previous == "shuffled" else range(d)), d]
        return rows[:, columns][order], order

    def shown(self) -> dict[str, Any]:
        rows, order = self.edited()
        scores, factors = self.answer(rows)
        plain = self.answer(self.looks[self.look]["rows"])[1][order]
        change = float((factors - plain).abs().max())
        return {"scores": scores.tolist(), "factors": factors.tolist(), "order": order, "change": change,
                "off": int((factors == 0).sum()), "same": change < 1e-9}  # fmt: skip

    def describe(self) -> str:
        found = self.shown()
        return (
            f"A layer of {len(found['factors'])} neurons at step {self.looks[self.look]['step']} as its switcher reads it: "
            f"{found['off']} are off, the largest factor is {max(found['factors']):.2f}."
        )

    def first_frame(self) -> str:
        rows, _ = self.edited()
        most = float(rows.abs().max())
        cells = "".join(
            f'<rect x="{12 * i}" y="{12 * j}" width="11" height="11" fill="{"#0072B2" if w > 0 else "#D55E00"}" fill-opacity="{abs(w) / most:.2f}"/>'
            for j, row in enumerate(rows.tolist()) for i, w in enumerate(row) if abs(w) / most > 0.03
        )  # fmt: skip
        width, height = 12 * rows.shape[1], 12 * rows.shape[0]
        return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{self.describe()}">{cells}</svg>'
