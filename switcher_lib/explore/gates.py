"""Move the scores of a layer, and see which factors are exactly 0 and which gradients are."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import traitlets

from .. import gates as library
from .base import Explorer, between, chart, module_source, one_of, source

LOW, HIGH = -1.5, 2.5
TINY = 1e-12  # nearer to 0 than this is rounding
WHOLE_LAYER = ("clamp_centred", "relu_bn")


class Gates(Explorer):
    """The library's gates on one layer of a few neurons: scores in, factors out, and the gradients that go back.

    The page computes every factor s_j and the whole matrix of ∂s_j/∂a_i from the scores. It tells apart a gradient
    of 0, a slope, and a gradient that the gate passes although the factor does not move (straight through); and
    for the gates that look at the whole layer it shows what one score does to the others' factors.

    Parameters
    ----------
    scores : sequence of float, default (0.6, -0.4, 0.25, 1.3, 0.85)
        2 to 8 scores, one for each neuron, each in [-1.5, 2.5].
    gate : {"clamp", "relu", "relu_tanh", "step", "clamp_centred", "relu_bn"}, default "clamp"
        The one that is shown first.

    Raises
    ------
    ValueError
        If a score is out of its range, or there are too few or too many, or the gate has no such name.

    Attributes
    ----------
    gate : str
        What is shown; synced with the page.
    scores : tuple of float
        Synced.
    neuron : int
        The neuron that is asked about, counted from 1; synced.
    """

    _esm = module_source("board.js", "gates.js")
    _css = source("base.css")

    gate = traitlets.Unicode("clamp").tag(sync=True)
    scores = traitlets.Tuple().tag(sync=True)
    first = traitlets.Tuple().tag(sync=True)
    neuron = traitlets.Int(1).tag(sync=True)

    def __init__(self, scores: Iterable[float] = (0.6, -0.4, 0.25, 1.3, 0.85), gate: str = "clamp") -> None:
        scores = tuple(float(a) for a in scores)
        if not 2 <= len(scores) <= 8:
            raise ValueError(f"scores has {len(scores)} values; this explorer shows 2 to 8 neurons.")
        for a in scores:
            between("scores", a, LOW, HIGH)
        super().__init__(scores=scores, first=scores, gate=gate)

    @traitlets.validate("gate")
    def _check_gate(self, proposal):
        return one_of("gate", proposal["value"], library.GATES, "gate")

    @traitlets.validate("scores")
    def _check_scores(self, proposal):
        scores = tuple(float(between("scores", a, LOW, HIGH)) for a in proposal["value"])
        if self.first and len(scores) != len(self.first):
            raise ValueError(f"scores has {len(scores)} values; this layer has {len(self.first)} neurons.")
        return scores

    @traitlets.validate("neuron")
    def _check_neuron(self, proposal):
        return between("neuron", proposal["value"], 1, len(self.scores) or 8)

    def factors_and_jacobian(self) -> tuple[np.ndarray, np.ndarray]:
        """What the library's gate gives, in training mode and float64.

        Returns
        -------
        factors : numpy.ndarray, (n,)
            One for each neuron.
        jacobian : numpy.ndarray, (n, n)
            ∂s_j/∂a_i in row j and column i, as the backward pass has it: for ``step``, and for the clamps above
            1, that is not the true derivative.
        """
        gate = library.make(self.gate).double()
        a = torch.tensor(self.scores, dtype=torch.float64)
        factors = gate(a).detach().numpy()
        jacobian = torch.autograd.functional.jacobian(gate, a).numpy()
        # A score that is the mean itself, but for rounding, is off: which side it falls on must not be chance.
        on = factors > TINY
        if self.gate in WHOLE_LAYER:
            jacobian = jacobian * on[:, None]
        return factors * on, jacobian

    def shown(self) -> dict[str, Any]:
        factors, jacobian = self.factors_and_jacobian()
        k = self.neuron - 1
        own, others = jacobian[k, k], jacobian[:, k].sum() - jacobian[k, k]
        bounded = self.gate in ("clamp", "clamp_centred") and factors[k] > 1 - TINY
        if factors[k] == 0:
            state = "shut" if own == 0 else "open"
        else:
            state = "through" if self.gate == "step" or bounded else "slope" if own else "flat"
        spread = np.sqrt(np.var(self.scores) + 1e-5) if self.gate == "relu_bn" else 1.0
        return {"factors": factors.tolist(), "jacobian": jacobian.tolist(), "off": int((factors == 0).sum()),
                "state": state, "own": own, "others": others, "spread": spread}  # fmt: skip

    def describe(self) -> str:
        found = self.shown()
        return (
            f"The gate {self.gate} on a layer of {len(self.scores)} neurons: {found['off']} are off, and the gradient "
            f"of neuron {self.neuron}'s own score is {found['own']:.2f}."
        )

    def first_frame(self) -> str:
        points = sorted(zip(self.scores, self.factors_and_jacobian()[0], strict=True))
        return chart(self.describe(), [(points, "#0072B2")], [(points, "#0072B2")])
