"""Who decides the scaling factors: one small class for each answer."""

from collections.abc import Callable, Sequence

from switcher_lib.errors import unknown_name
from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher, weight_blocks
from switcher_lib.switchers.entry import EntrySwitcher
from switcher_lib.switchers.fixed import FixedSwitcher, RandomSwitcher
from switcher_lib.switchers.free import FreeGates
from switcher_lib.switchers.hard_concrete import HardConcreteSwitcher
from switcher_lib.switchers.magnitude import BudgetSwitcher, MagnitudeSwitcher, keep_within
from switcher_lib.switchers.row import RowSwitcher
from switcher_lib.switchers.scl import SCLSwitcher
from switcher_lib.switchers.shuffled import ShuffledSwitcher
from switcher_lib.switchers.slimming import SlimmingSwitcher
from switcher_lib.switchers.stats import StatsSwitcher, row_statistics
from switcher_lib.switchers.unet import UNetSwitcher

SWITCHERS = {
    "row": RowSwitcher, "unet": UNetSwitcher, "stats": StatsSwitcher, "entry": EntrySwitcher, "free": FreeGates,
    "scl": SCLSwitcher, "hard_concrete": HardConcreteSwitcher, "slimming": SlimmingSwitcher, "magnitude": MagnitudeSwitcher,
    "random": RandomSwitcher, "fixed": FixedSwitcher, "shuffled": ShuffledSwitcher,
}

__all__ = ["BudgetSwitcher", "EntrySwitcher", "FixedSwitcher", "FreeGates", "HardConcreteSwitcher", "MagnitudeSwitcher",
           "RandomSwitcher", "RowSwitcher", "SCLSwitcher", "SWITCHERS", "ShuffledSwitcher", "SlimmingSwitcher",
           "StatsSwitcher", "Switcher", "UNetSwitcher", "keep_within", "make", "row_statistics", "weight_blocks"]


def make(switcher: str | Callable[..., Switcher], sites: Sequence[Site | Connections], gate: GateLike | None = None) -> Switcher:
    """Make a switcher for the given sites.

    Parameters
    ----------
    switcher : str or callable
        A key of ``SWITCHERS``, or a factory that takes the sites, such as ``partial(sl.RowSwitcher, hidden=64)``.
        Some need arguments (a budget, factors), so that only a factory will do.
    sites : sequence of Site
        Where the task network is switched.
    gate : str or callable, optional
        Handed on to the switcher; None leaves the switcher its own default.

    Returns
    -------
    Switcher
        The switcher network.

    Raises
    ------
    ValueError
        If the name is not known.
    TypeError
        If ``switcher`` is neither a name nor a factory of switchers.
    """
    if isinstance(switcher, str):
        if switcher not in SWITCHERS:
            raise unknown_name("switcher", switcher, SWITCHERS, "switcher")
        switcher = SWITCHERS[switcher]
    if isinstance(switcher, Switcher) or not callable(switcher):
        raise TypeError(f"switcher={switcher!r} must be a name or a factory of sites, such as RowSwitcher or "
                        f"partial(RowSwitcher, hidden=64). Known names: {', '.join(sorted(SWITCHERS))}.")
    try:
        made = switcher(sites) if gate is None else switcher(sites, gate=gate)
    except TypeError as error:
        raise TypeError(f"switcher={getattr(switcher, '__name__', switcher)!s} cannot be made from sites"
                        f"{'' if gate is None else f' and gate={gate!r}'} alone ({error}); give what it needs by "
                        "partial(...).") from error
    if not isinstance(made, Switcher):
        raise TypeError(f"switcher={switcher!r} made a {type(made).__name__}; it must make a Switcher.")
    return made
