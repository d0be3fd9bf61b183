"""Structure by masks under a unit step, learned through a stand-in for its derivative."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from switcher_lib.errors import unknown_name
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


def _identity(m):
    return torch.ones_like(m)


def _leaky_relu(m):
    return torch.where(m > 0, 1.0, 0.01)


PROXIES = {"identity": _identity, "leaky_relu": _leaky_relu, "softplus": torch.sigmoid}    # derivatives, each above 0


class _Mask(torch.autograd.Function):
    """H(m) with H(0) = 0. Backward: the gradient times the proxy's derivative, each feature's divided by its own size."""

    @staticmethod
    def forward(ctx, m, proxy, normalise):
        ctx.save_for_backward(m)
        ctx.proxy, ctx.normalise = proxy, normalise
        return (m > 0).to(m.dtype)

    @staticmethod
    def backward(ctx, grad):
        (m,) = ctx.saved_tensors
        if ctx.normalise:
            rows = grad.flatten(1) if grad.ndim > 1 else grad[None]
            size = rows.square().mean(1, keepdim=True).sqrt()
            rows = torch.where(size > 0, rows / size.clamp(min=1e-30), 0.0)    # a feature without a gradient stays so
            grad = rows.reshape(grad.shape)
        return grad * PROXIES[ctx.proxy](m), None, None


class SCLSwitcher(Switcher):
    """Structure by mask variables: w = v ⊙ H(m), with H the unit step, H(0) = 0.

    The step's derivative is 0; a proxy's, which must be positive for m to reach its minima, stands in for it. Masks of
    different features get gradients of very different size, so each feature's are divided by their root mean square.
    ``cost`` in :func:`~switcher_lib.fit` is λ, the weight of the number of connections that are on (as a fraction of
    the parameters).

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched. At a site of connections a feature is a neuron: a row of the weight; at a
        site of neurons, all of the site's masks are normalised together.
    proxy : {"identity", "leaky_relu", "softplus"}, default "identity"
        Whose derivative stands in for the step's.
    normalise : bool, default True
        Whether gradients are normalised feature by feature.
    cost_inside : bool, default False
        Whether the cost term's gradient passes through the normalisation too, or joins after it.
    start : float, default 0.5
        Where all m start; above 0 all is on.
    spread : float, default 0.1
        Standard deviation of the starting values, at least 0.

    References
    ----------
    arXiv:2201.05020. Known from there: the step, the requirement on the proxy, these three candidates with the identity
    chosen, normalisation feature by feature, the number of connections as regulariser. Not known, and chosen here: the
    formula of the normalisation, where λ joins, the starting values.
    """

    def __init__(self, sites: Sequence[Site | Connections], proxy: Literal["identity", "leaky_relu", "softplus"] = "identity",
                 normalise: bool = True, cost_inside: bool = False, start: float = 0.5, spread: float = 0.1) -> None:
        super().__init__(sites)
        if proxy not in PROXIES:
            raise unknown_name("proxy", proxy, PROXIES, "proxy")
        if not spread >= 0:
            raise ValueError(f"spread={spread!r} must be at least 0.")
        self.proxy, self.normalise, self.cost_inside = proxy, normalise, cost_inside
        self.masks = nn.ParameterDict({site.key: nn.Parameter(start + spread * torch.randn(site.shape)) for site in self.sites})

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors of the site's shape} in {0, 1}."""
        return {key: _Mask.apply(m, self.proxy, self.normalise) for key, m in self.masks.items()}

    def p_on(self, factors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: H(m)}, straight-through; outside the normalisation unless ``cost_inside``."""
        if self.cost_inside:
            return factors
        return {key: _Mask.apply(m, self.proxy, False) for key, m in self.masks.items()}
