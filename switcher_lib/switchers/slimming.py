"""The size of BatchNorm's γ, kept small by an L1 penalty, decides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from switcher_lib.sites import Site
from switcher_lib.switchers.magnitude import BudgetSwitcher

if TYPE_CHECKING:
    from switcher_lib.switched import Switched


class SlimmingSwitcher(BudgetSwitcher):
    """Network slimming: ``λ Σ|γ|`` joins the task network's loss, then the channels with the smallest ``|γ|`` go.

    Where a neuron has no BatchNorm whose γ could be read (pixels; layers without BatchNorm), the switcher brings one free
    scale for each, starting at 1, under the same penalty and, after the cut, still multiplying: train those with
    ``every="joint"``. That part is ours; the original has BatchNorm everywhere.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    budget : int
        Parameters that may remain, at least 1.
    strength : float, default 1e-4
        λ, at least 0.
    scope, start, end, interval
        As for :class:`BudgetSwitcher`; by default all layers compete and all is cut at once, at the end.

    References
    ----------
    Liu et al. 2017, arXiv:1708.06519. Scales without BatchNorm: Huang and Wang 2018, arXiv:1707.01213.
    """

    levels = ("neuron",)
    sites: tuple[Site, ...]

    def __init__(self, sites: Sequence[Site], budget: int, strength: float = 1e-4, scope: Literal["global", "layer"] = "global",
                 start: float = 1.0, end: float = 1.0, interval: int = 100) -> None:
        super().__init__(sites, budget, scope, start, end, interval)
        if not strength >= 0:
            raise ValueError(f"strength={strength!r} must be at least 0.")
        self.strength = strength
        # a BatchNorm's γ and β lie on one axis each; a Linear or Conv layer's weight is itself what the neurons own
        own = {axis.name for site in self.sites for axis in site.own}
        self.gamma = {site.key: [axis for axis in site.incoming if axis.name.endswith("weight") and axis.name not in own]
                      for site in self.sites if site.own and site.incoming[0].name not in own}
        self.free = nn.ParameterDict({site.key: nn.Parameter(torch.ones(site.size)) for site in self.sites
                                      if site.key not in self.gamma})

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors (n,)}: the mask, times the free scales where there are some."""
        masks = super().forward(params)
        return {key: mask * self.free[key] if key in self.free else mask for key, mask in masks.items()}

    def scales(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scales (n, k)}: γ, or the free ones; k above 1 behind a flattening, or where tied layers have a γ each."""
        return {site.key: self.free[site.key][:, None] if site.key in self.free else
                torch.cat([axis.read(params) for axis in self.gamma[site.key]], 1)
                for site in self.sites}    # read, for a BatchNorm behind a concatenation has the γ of several sites

    def penalty(self, params: dict[str, Tensor]) -> Tensor | float:
        """Return ``λ Σ|γ|`` until the last cut, and 0 from then on: what is left is trained without it."""
        return 0.0 if self.done else self.strength * sum(scale.abs().sum() for scale in self.scales(params).values())

    def importance(self, net: "Switched") -> dict[str, Tensor]:
        """Return {site.key: ``|γ|`` (n,)}, of several the mean."""
        return {key: scale.detach().abs().mean(1) for key, scale in self.scales(net.params()).items()}

    def p_on(self, factors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: 1 where a neuron is on}: slimming's price is its penalty, not the cost term."""
        return {key: (s != 0).to(s.dtype) for key, s in factors.items()}
