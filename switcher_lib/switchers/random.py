"""A coin decides: what structure is worth when nobody chose it."""

import torch

from switcher_lib.errors import unknown_name
from switcher_lib.switchers.base import Switcher


class RandomSwitcher(Switcher):
    """A random set of neurons is off, the others are at 1; drawn once, never learned.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    off : float or dict of str to int, default 0.5
        Fraction of each site's neurons that are off, in [0, 1), rounded down to whole neurons; or the number for
        each site key, at least 0 and less than the site's size.
    seed : int, optional
        Seed of the draw; None draws from PyTorch's global generator.
    """

    def __init__(self, sites, off=0.5, seed=None):
        super().__init__(sites)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for key in off if isinstance(off, dict) else ():
            if key not in (known := [site.key for site in self.sites]):
                raise unknown_name("off", key, known, "site")
        for site in self.sites:
            count = int(off * site.size) if isinstance(off, float) else off.get(site.key, 0) if isinstance(off, dict) else -1
            if not 0 <= count < site.size or (isinstance(off, float) and off < 0):
                raise ValueError(f"off={off!r} must be a fraction in [0, 1), or whole numbers below each site's size; "
                                 f"{site.key!r} has {site.size} neurons.")
            mask = torch.ones(site.size)
            mask[torch.randperm(site.size, generator=generator)[:count]] = 0
            self.register_buffer(f"mask_{site.key}", mask)

    def forward(self, params):
        """Return {site.key: factors (n,)} in {0, 1}."""
        return {site.key: getattr(self, f"mask_{site.key}") for site in self.sites}
