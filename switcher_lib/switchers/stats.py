"""A switcher that reads statistics: one for all layers, all widths, all orders of the neurons."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from switcher_lib.gates import GateLike
from switcher_lib.sites import Site
from switcher_lib.switchers.base import Switcher
from switcher_lib.switchers.row import check_scorer, scorer


class StatsSwitcher(Switcher):
    """Each neuron's factor from permutation-invariant statistics of its weights, by one MLP for all sites (or one for each).

    Nothing here depends on a layer's width, so that a switcher learned on one network can be asked about another;
    and nothing depends on the order of neurons, in its own layer or in its neighbours.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    hidden : int, default 32
        Width of the MLP, at least 1.
    shared : bool, default True
        Whether one MLP serves all sites, or each has its own.
    gate : str or callable, default "clamp"
        Maps scores to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        How the cost term counts; see :class:`Switcher`.
    bias : float, default 0.5
        Score that the MLP's output layer starts from.

    References
    ----------
    Ours. Statistics of weights as a network's description: Unterthiner et al. 2020, arXiv:2002.11448; invariance by
    pooling: Zaheer et al. 2017, arXiv:1703.06114.
    """

    levels = ("neuron",)
    sites: tuple[Site, ...]
    scorer: Any    # nn.Sequential, or nn.ModuleDict of them

    def __init__(self, sites: Sequence[Site], hidden: int = 32, shared: bool = True, gate: GateLike = "clamp", bias: float = 0.5,
                 saturation: float | None = None) -> None:
        super().__init__(sites, gate, saturation)
        check_scorer(hidden)
        self.shared = shared
        self.scorer = scorer(STATISTICS, hidden, bias) if shared else nn.ModuleDict(
            {site.key: scorer(STATISTICS, hidden, bias) for site in self.sites})

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores (n,)}."""
        return {site.key: (self.scorer if self.shared else self.scorer[site.key])(row_statistics(site, params)).squeeze(-1)
                for site in self.sites}


STATISTICS = 15    # 6 of the incoming weights, 6 of the outgoing ones, 3 of the layer


def row_statistics(site: Site, params: Mapping[str, Tensor]) -> Tensor:
    """Describe a site's neurons by statistics that no permutation of neurons can change.

    Parameters
    ----------
    site : Site
        The neurons.
    params : dict of str to Tensor
        The task network's parameters.

    Returns
    -------
    Tensor of shape (n, 15)
        For the incoming and for the outgoing weights, divided by the layer's standard deviation: mean, root mean
        square, its logarithm, mean absolute value, largest, smallest (incoming ones are 0 for features); then, for
        the layer: logarithms of the number of incoming weights (a bias included) + 1 and of outgoing ones, and whether it is a
        layer of features.
    """
    rows, columns = site.rows(params), site.columns(params)
    layer = rows.new_tensor([rows.shape[1] + 1.0, columns.shape[1], 1.0]).log()
    layer[2] = float(site.kind == "feature")
    return torch.cat([_moments(rows), _moments(columns), layer.expand(site.size, 3)], dim=1)


def _moments(weights):
    if weights.shape[1] == 0:
        return weights.new_zeros(len(weights), 6)
    w = weights / (weights.std(unbiased=False) + 1e-8)
    rms = (w.square().mean(1) + 1e-12).sqrt()
    return torch.stack([w.mean(1), rms, rms.log(), w.abs().mean(1), w.amax(1), w.amin(1)], dim=1)
