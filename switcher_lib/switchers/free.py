"""The control: factors that look at nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


class FreeGates(Switcher):
    """One free score for each neuron or connection: s_j = g(a_j). Same gate, same steps, same loss, but no weights are read.

    Whatever this does as well as a switcher network does not come from reading the weights.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    gate : str or callable, default "clamp"
        Maps scores to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        How the cost term counts; see :class:`Switcher`.
    bias : float, default 0.5
        Where all scores start.
    spread : float, default 0.1
        Standard deviation of the scores' starting values, at least 0.
    """

    def __init__(self, sites: Sequence[Site | Connections], gate: GateLike = "clamp", bias: float = 0.5, spread: float = 0.1,
                 saturation: float | None = None) -> None:
        super().__init__(sites, gate, saturation)
        if spread < 0:
            raise ValueError(f"spread={spread!r} must be at least 0.")
        self.free = nn.ParameterDict({site.key: nn.Parameter(bias + spread * torch.randn(site.shape)) for site in self.sites})

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores of the site's shape}, whatever the parameters are."""
        return dict(self.free.items())
