"""A control: a switcher that reads the right numbers in the wrong places."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


class ShuffledSwitcher(Switcher):
    """Another switcher, which sees every weight, but each parameter's entries permuted: what a neuron gets is not its own.

    The permutation is drawn once. Whatever this does as well as the switcher itself does not come from reading a
    neuron's own weights.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    switcher : callable
        Factory of the switcher inside: from sites to a :class:`Switcher` that learns by gradient; one that cuts by a
        schedule looks at the network itself, and is refused.
    seed : int, optional
        Seed of the permutations; None draws from PyTorch's global generator.
    """

    def __init__(self, sites: Sequence[Site | Connections], switcher: Callable[..., Switcher], seed: int | None = None) -> None:
        super().__init__(sites)
        if isinstance(switcher, Switcher) or not callable(switcher):
            raise TypeError(f"switcher={switcher!r} must be a factory of sites, such as RowSwitcher or "
                            "partial(RowSwitcher, hidden=64).")
        self.switcher = switcher(sites)
        if not isinstance(self.switcher, Switcher):
            raise TypeError(f"switcher={switcher!r} made a {type(self.switcher).__name__}; it must make a Switcher.")
        if type(self.switcher).after_step is not Switcher.after_step:
            raise TypeError(f"switcher={type(self.switcher).__name__} cuts by a schedule and looks at the network itself: there "
                            "is nothing that shuffling could hide from it. Known to read what it is given: RowSwitcher, "
                            "StatsSwitcher, UNetSwitcher, EntrySwitcher.")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        shapes: dict[str, tuple[int, ...]] = {}
        for site in self.sites:
            shapes |= {site.name: site.shape} if site.kind == "connection" else {axis.name: axis.shape for axis in site.axes}
        self.names = {name: f"order_{i}" for i, name in enumerate(shapes)}    # a.b and a_b may both be there
        for name, shape in shapes.items():
            self.register_buffer(self.names[name], torch.randperm(math.prod(shape), generator=generator))

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors of the site's shape}."""
        return self.switcher(self._shuffled(params))

    def penalty(self, params: dict[str, Tensor]) -> Tensor | float:
        """Return what the switcher inside adds to the loss, for what it is shown."""
        return self.switcher.penalty(self._shuffled(params))

    def _shuffled(self, params):
        return {name: p.flatten()[getattr(self, self.names[name])].view_as(p) if name in self.names else p
                for name, p in params.items()}

    def p_on(self, factors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what the switcher inside returns."""
        return self.switcher.p_on(factors)
