"""L0 regularisation: a stochastic gate that is 0 with a probability one can differentiate."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


class HardConcreteSwitcher(Switcher):
    """One hard concrete gate for each neuron or connection, free parameters log α that read nothing.

    While training, s = min(1, max(0, (ζ − γ) σ((log u − log(1 − u) + log α) / β) + γ)) with u uniform, drawn anew at each
    call; in eval mode, σ(log α) takes the place of the draw. The cost term counts P(s ≠ 0) = σ(log α − β log(−γ/ζ)), so
    ``cost`` in :func:`~switcher_lib.fit` is the L0 penalty. The original learns weights and gates jointly:
    ``every="joint"``.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    on : float, default 0.9
        Where σ(log α) starts, in (0, 1).
    beta, gamma, zeta : float, default 2/3, -0.1, 1.1
        Temperature β > 0 and the interval (γ, ζ) that the gate is stretched to: γ < 0, ζ > 1.

    References
    ----------
    Louizos, Welling and Kingma 2018, arXiv:1712.01312, equations 10 to 13.
    """

    def __init__(self, sites: Sequence[Site | Connections], on: float = 0.9, beta: float = 2 / 3, gamma: float = -0.1,
                 zeta: float = 1.1) -> None:
        super().__init__(sites)
        for name, value, good, allowed in (("on", on, 0 < on < 1, "in (0, 1)"), ("beta", beta, beta > 0, "above 0"),
                                           ("gamma", gamma, gamma < 0, "below 0"), ("zeta", zeta, zeta > 1, "above 1")):
            if not good:
                raise ValueError(f"{name}={value!r} must be {allowed}.")
        self.beta, self.gamma, self.zeta = beta, gamma, zeta
        start = math.log(on / (1 - on))
        self.log_alpha = nn.ParameterDict({site.key: nn.Parameter(start + 0.01 * torch.randn(site.shape)) for site in self.sites})

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors of the site's shape} in [0, 1]."""
        return {key: self._gate(a) for key, a in self.log_alpha.items()}

    def _gate(self, log_alpha):
        if self.training:
            u = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6)
            on = torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / self.beta)
        else:
            on = torch.sigmoid(log_alpha)
        return (on * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)

    def p_on(self, factors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: P(s ≠ 0)}, whatever was drawn."""
        shift = self.beta * math.log(-self.gamma / self.zeta)
        return {key: torch.sigmoid(a - shift) for key, a in self.log_alpha.items()}
