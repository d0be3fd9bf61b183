"""A switcher that looks at one neuron at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from switcher_lib.errors import unknown_name
from switcher_lib.gates import GateLike
from switcher_lib.sites import Site
from switcher_lib.switchers.base import Reads, Switcher, read_linear


class RowSwitcher(Switcher):
    """Each neuron's factor from its own weights: s_j = g(MLP(w_j)).

    One MLP for each site, shared by the site's neurons: permuting a layer's neurons permutes its factors. Permuting
    the layer before permutes the entries of w_j, and does change them.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    hidden : int, default 32
        Width of the MLP, at least 1.
    reads : {"incoming", "outgoing", "both"}, default "incoming"
        Which of a neuron's weights w_j is made of; pixels and flattened features have outgoing weights only.
    gate : str or callable, default "clamp"
        Maps scores to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        How the cost term counts; see :class:`Switcher`.
    bias : float, default 0.5
        Score that the MLP's output layer starts from. With the clamp gate, 0.5 is the middle of its slope.
    spread : float, default 1.0
        Above 0; multiplies the output layer's first weights. Below 1, all neurons start closer to ``bias``.
    reach : int, optional
        At least 1. Adam moves every first-layer weight by about its learning rate in a step, and so a score by that times
        the number of weights that are read: a great deal where a neuron has thousands. With ``reach`` a step moves a score
        as if at most so many were read; where scores start is left alone.
    own : float, default 0.0
        At least 0. Above 0, each neuron also has a score of its own that nothing is read for, which starts at 0 and is
        added ``own`` times: the factor of that score's learning rate against the MLP's, under Adam. For telling apart
        what reading brings and what a free gate can do.

    References
    ----------
    Han et al. 2021, arXiv:2110.05954. The row MLP is ours; theirs is :class:`UNetSwitcher`. Steps that do not depend on the
    number of inputs: Yang and Hu 2021, arXiv:2011.14522.
    """

    levels = ("neuron",)
    sites: tuple[Site, ...]
    scorers: Any    # nn.ModuleDict of nn.Sequential

    def __init__(self, sites: Sequence[Site], hidden: int = 32, reads: Reads = "incoming", gate: GateLike = "clamp",
                 bias: float = 0.5, spread: float = 1.0, saturation: float | None = None, own: float = 0.0,
                 reach: int | None = None) -> None:
        super().__init__(sites, gate, saturation)
        check_scorer(hidden, spread)
        if reads not in ("incoming", "outgoing", "both"):
            raise unknown_name("reads", reads, ("incoming", "outgoing", "both"), "set of weights")
        if not own >= 0:
            raise ValueError(f"own={own!r} must be a number of at least 0.")
        if reach is not None and (not isinstance(reach, int) or reach < 1):
            raise ValueError(f"reach={reach!r} must be None or an integer of at least 1.")
        self.reads, self.own, self.reach = reads, own, reach
        self.free = nn.ParameterDict({site.key: nn.Parameter(torch.zeros(site.size)) for site in self.sites if own})
        self.scorers = nn.ModuleDict({site.key: scorer(_width(site, reads), hidden, bias, spread) for site in self.sites})
        for first, *_ in self.scorers.values():
            first.weight.data /= self._scale(first)

    def _scale(self, first):
        """What the first layer's sum is multiplied by, and its first weights are divided by."""
        return 1.0 if self.reach is None else min(1.0, self.reach / first.in_features)

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores (n,)}."""
        scores = {}
        for site in self.sites:
            first, activation, last = self.scorers[site.key]      # the MLP, on the site's weight_blocks()
            scores[site.key] = last(activation(read_linear(first, site, params, self.reads, self._scale(first)))).squeeze(-1)
        return {key: score + self.own * self.free[key] if self.own else score for key, score in scores.items()}


def scorer(width: int, hidden: int, bias: float, spread: float = 1.0) -> nn.Sequential:
    """Return an MLP from (n, width) to scores (n, 1), with one layer of ``hidden`` ReLUs, that starts near ``bias``.

    Parameters
    ----------
    width : int
        Numbers that it reads of each neuron.
    hidden : int
        Its width.
    bias : float
        Where the scores start.
    spread : float, default 1.0
        Multiplies the output layer's first weights: the smaller, the closer the scores start to ``bias``.

    Returns
    -------
    nn.Sequential
        Linear, ReLU, Linear.
    """
    out = output_layer(hidden, bias, spread)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), out)


def output_layer(hidden: int, bias: float, spread: float) -> nn.Linear:
    """Return the last layer of a scorer: from hidden activations to one score.

    Parameters
    ----------
    hidden : int
        How many activations there are.
    bias, spread : float
        As for :func:`scorer`.
    """
    out = nn.Linear(hidden, 1)
    nn.init.uniform_(out.weight, -spread / hidden**0.5, spread / hidden**0.5)    # PyTorch's own range, times spread
    nn.init.constant_(out.bias, bias)
    return out


def check_scorer(hidden: int, spread: float = 1.0) -> None:
    """Raise a ``ValueError`` unless ``hidden`` is an integer of at least 1 and ``spread`` above 0."""
    if not isinstance(hidden, int) or hidden < 1:
        raise ValueError(f"hidden={hidden!r} must be an integer of at least 1.")
    if not spread > 0:
        raise ValueError(f"spread={spread!r} must be above 0.")


def _width(site, reads):
    def width(axes):
        return sum(axis.width for axis in axes)

    if not site.own or reads == "outgoing":
        return width(site.outgoing)
    return width(site.own) + (width(site.outgoing) if reads == "both" else 0)
