"""A switcher that looks at one connection at a time, and at its two ends."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections
from switcher_lib.switchers.base import Switcher
from switcher_lib.switchers.row import check_scorer, output_layer


class EntrySwitcher(Switcher):
    """Each connection's factor from its weight, its row and its column: s_ij = g(MLP(w_ij, its size, row i, column j)).

    Row and column are described by mean, root mean square and largest size, all of them less their mean over the layer:
    what all connections have in common would move all scores together, and could start a layer with every score below 0.
    Permuting the neurons on either side of the layer permutes the factors with the weights: the symmetry that a matrix of
    weights has, and that an image (:class:`UNetSwitcher`) has not. One small MLP for each layer, whatever its shape.

    Parameters
    ----------
    sites : sequence of Connections
        Where the task network is switched.
    hidden : int, default 8
        Width of the MLP, at least 1. Every connection has this many activations: it is what the switcher costs.
    gate : str or callable, default "clamp"
        Maps scores to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        How the cost term counts; see :class:`Switcher`.
    bias : float, default 0.5
        Where all scores start, with the clamp gate in the middle of its slope.
    spread : float, default 1.0
        Above 0; multiplies the output layer's first weights. Below 1, all connections start closer to ``bias``.

    References
    ----------
    Ours; the layer is the exchangeable matrix layer of Hartford et al. 2018, arXiv:1803.02879, with pooled features in
    place of its pooled activations. A switcher for connections: Han et al. 2021, arXiv:2103.15590.
    """

    levels = ("connection",)
    sites: tuple[Connections, ...]

    def __init__(self, sites: Sequence[Connections], hidden: int = 8, gate: GateLike = "clamp", bias: float = 0.5,
                 spread: float = 1.0, saturation: float | None = None) -> None:
        super().__init__(sites, gate, saturation)
        check_scorer(hidden, spread)
        self.scorers = nn.ModuleDict({site.key: _EntryScorer(hidden, bias, spread) for site in self.sites})

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores of the weight's shape}."""
        return {site.key: self.scorers[site.key](site.matrix(params)).reshape(site.shape) for site in self.sites}


class _EntryScorer(nn.Module):
    """(n, d) -> (n, d). The first layer is a sum, so each row's and each column's part of it is computed once."""

    def __init__(self, hidden, bias, spread):
        super().__init__()
        self.entry = nn.Linear(2, hidden)
        self.row = nn.Linear(3, hidden, bias=False)
        self.column = nn.Linear(3, hidden, bias=False)
        self.out = output_layer(hidden, bias, spread)

    def forward(self, weight):
        w = weight / (weight.std(unbiased=False) + 1e-8)    # of the layer, so that a weak neuron still looks weak
        size = w.abs()
        entry = torch.stack([w, size - size.mean()], dim=-1)
        hidden = self.entry(entry) + self.row(_summary(w, 1))[:, None] + self.column(_summary(w, 0))[None]
        return self.out(hidden.relu()).squeeze(-1)


def _summary(w, dim):
    """Mean, root mean square and largest size along one dimension, less their means: (length of the other, 3)."""
    summary = torch.stack([w.mean(dim), (w.square().mean(dim) + 1e-12).sqrt(), w.abs().amax(dim)], dim=-1)
    return summary - summary.mean(0)
