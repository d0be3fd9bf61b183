"""Structure that nobody learns: given from outside, or drawn by a coin."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from switcher_lib.errors import unknown_name
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


class FixedSwitcher(Switcher):
    """Given factors, which stay as they are: another method's structure, its shuffled copy, or a fine-tuning's mask.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    factors : dict of str to Tensor
        {site.key: tensor of the site's shape}, finite.

    Raises
    ------
    ValueError
        If a site has no factors, or they have another shape or are not finite, or a key names no site.
    """

    def __init__(self, sites: Sequence[Site | Connections], factors: Mapping[str, Tensor]) -> None:
        super().__init__(sites)
        for key in factors:
            if key not in (known := [site.key for site in sites]):
                raise unknown_name("factors", key, known, "site")
        for site in self.sites:
            s = factors.get(site.key)
            if not isinstance(s, torch.Tensor) or s.shape != site.shape or not s.isfinite().all():
                got = ("nothing" if s is None else f"a {type(s).__name__}" if not isinstance(s, torch.Tensor) else
                       f"a tensor of shape {tuple(s.shape)}" + ("" if s.isfinite().all() else ", not all finite"))
                raise ValueError(f"factors[{site.key!r}] is {got}; it must be a finite tensor of shape {tuple(site.shape)}.")
            self.register_buffer(f"mask_{site.key}", s.detach().clone().to(torch.get_default_dtype()))

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors of the site's shape}."""
        return {site.key: getattr(self, f"mask_{site.key}") for site in self.sites}


class RandomSwitcher(FixedSwitcher):
    """A random set of neurons, or of connections, is off, the others are at 1; drawn once, never learned.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    off : float or dict of str to int, default 0.5
        Fraction of each site that is off, in [0, 1), rounded down to whole neurons or connections; or the number for
        each site key, at least 0 and less than the site's size.
    seed : int, optional
        Seed of the draw; None draws from PyTorch's global generator.
    """

    def __init__(self, sites: Sequence[Site | Connections], off: float | dict[str, int] = 0.5, seed: int | None = None) -> None:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for key in off if isinstance(off, dict) else ():
            if key not in (known := [site.key for site in sites]):
                raise unknown_name("off", key, known, "site")
        factors = {}
        for site in sites:
            if isinstance(off, dict):
                count = off.get(site.key, 0)
            else:    # 0.29 of 100 is 28.999999999999996 in floating point
                count = int(off * site.size + 1e-9) if isinstance(off, (int, float)) and 0 <= off < 1 else -1
            if not isinstance(count, int) or not 0 <= count < site.size:
                raise ValueError(f"off={off!r} must be a fraction in [0, 1), or whole numbers below each site's size; "
                                 f"{site.key!r} has {site.size} {site.kind}s.")
            mask = torch.ones(site.size)
            mask[torch.randperm(site.size, generator=generator)[:count]] = 0
            factors[site.key] = mask.reshape(site.shape)
        super().__init__(sites, factors)
