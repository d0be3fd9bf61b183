"""The size of the weights decides, up to a budget; by whatever score, how a budget is kept."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from switcher_lib.errors import unknown_name
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.fixed import FixedSwitcher

if TYPE_CHECKING:
    from switcher_lib.switched import Switched

SCOPES = ("global", "layer")


class BudgetSwitcher(FixedSwitcher):
    """A mask that keeps what scores highest within a number of parameters; a subclass says what scores.

    All is on at first. From progress ``start`` to ``end`` the number that may remain falls from all to ``budget`` along
    a cubic, fast at first; with ``start == end`` all is cut at once. Then the mask stays.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    budget : int
        Parameters that may remain, at least 1: for neurons those of the compacted network, for connections the weights
        that are on and all other parameters. Where the network's ``price`` is MACs, so many of those.
    scope : {"global", "layer"}, default "global"
        Whether scores compete across layers, or each layer keeps the same fraction of its own.
    start, end : float, default 1.0
        Progress of training, in [0, 1], between which cutting goes on; ``start`` at most ``end``.
    interval : int, default 100
        Task steps between two cuts, at least 1.

    References
    ----------
    The cubic schedule: Zhu and Gupta 2017, arXiv:1710.01878.
    """

    steps: Tensor
    done: Tensor

    def __init__(self, sites: Sequence[Site | Connections], budget: int, scope: Literal["global", "layer"] = "global",
                 start: float = 1.0, end: float = 1.0, interval: int = 100) -> None:
        super().__init__(sites, {site.key: torch.ones(site.shape) for site in sites})
        for name, value in (("budget", budget), ("interval", interval)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be an integer of at least 1.")
        if scope not in SCOPES:
            raise unknown_name("scope", scope, SCOPES, "scope")
        if not 0 <= start <= end <= 1:
            raise ValueError(f"start={start!r} and end={end!r} must be in [0, 1], start at most end.")
        self.budget, self.scope, self.start, self.end, self.interval = budget, scope, start, end, interval
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("done", torch.tensor(False))

    def importance(self, net: "Switched") -> dict[str, Tensor]:
        """Return {site.key: scores of the site's shape}, the higher the better."""
        raise NotImplementedError(f"{type(self).__name__} must write importance().")

    def after_step(self, net: "Switched", t: float) -> None:
        """Cut, when it is time."""
        self.steps += 1
        if self.done or t < self.start or (t < self.end and self.steps % self.interval):
            return
        left = 0.0 if t >= self.end else (1 - (t - self.start) / (self.end - self.start)) ** 3
        with torch.no_grad():
            masks = keep_within(net, self.importance(net), round(self.budget + (net.dense - self.budget) * left), self.scope)
            for key, mask in masks.items():
                getattr(self, f"mask_{key}").copy_(mask)
        if t >= self.end:
            self.done.fill_(True)


class MagnitudeSwitcher(BudgetSwitcher):
    """The largest weights stay: s = 1 for the connections with the largest ``|w|``, or the neurons with the largest mean of it.

    A neuron's weights are those it reads and its bias; a pixel's or feature's are those that read it.

    Parameters
    ----------
    sites, budget, scope, start, end, interval
        As for :class:`BudgetSwitcher`; by default all layers compete and all is cut at once, at the end.

    References
    ----------
    Connections: Han et al. 2015, arXiv:1506.02626; gradually: Zhu and Gupta 2017, arXiv:1710.01878; channels: Li et al.
    2017, arXiv:1608.08710, with the mean in place of the sum so that layers of different fan-in can be compared.
    """

    def importance(self, net: "Switched") -> dict[str, Tensor]:
        """Return {site.key: mean size of the weights}, of the site's shape."""
        params = net.params()
        return {site.key: _magnitude(site, params) for site in self.sites}


def _magnitude(site, params):
    if site.kind == "connection":
        return params[site.name].detach().abs()
    return (site.rows(params) if site.own else site.columns(params)).detach().abs().mean(1)


def keep_within(net: "Switched", scores: Mapping[str, Tensor], budget: float,
                scope: Literal["global", "layer"] = "global") -> dict[str, Tensor]:
    """Return the masks that keep as many of the highest scores as a budget allows.

    Parameters
    ----------
    net : Switched
        The network, which counts.
    scores : dict of str to Tensor
        {site.key: scores of the site's shape}.
    budget : int
        Parameters that may remain, or MACs, as the network's ``price`` says.
    scope : {"global", "layer"}, default "global"
        Whether all scores compete, or each site keeps the same fraction.

    Returns
    -------
    dict of str to Tensor
        {site.key: mask of zeros and ones}; at least one neuron or connection of each site stays, even over budget.
    """
    # each entry's rank, 0 for the first to go: over all sites together, or within its site as a fraction of it
    flat = {key: s.flatten().double() for key, s in scores.items()}
    if scope == "global":
        together = _ranks(torch.cat(list(flat.values())))
        ranks = dict(zip(flat, together.split([len(s) for s in flat.values()])))
    else:
        ranks = {key: _ranks(s) for key, s in flat.items()}

    def masks(cut):    # cut: the fraction of ranks that goes
        return {key: (r >= min(cut, float(r.max()))).reshape(scores[key].shape).double() for key, r in ranks.items()}

    def fits(cut):
        return float(net.size(masks(cut))) <= budget    # in double: float32 cannot count beyond 16.7 million

    low, high = 0.0, 1.0
    if fits(low):
        high = low
    for _ in range(40 if high > low else 0):    # bisection, far below one rank
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return {key: mask.to(scores[key].dtype) for key, mask in masks(high).items()}


def _ranks(scores):
    """Each score's rank in ascending order, as a fraction in [0, 1)."""
    ranks = torch.empty_like(scores)
    ranks[scores.argsort()] = torch.arange(len(scores), dtype=scores.dtype, device=scores.device) / len(scores)
    return ranks
