"""Who decides the scaling factors: one small class for each answer."""

from switcher_lib.errors import unknown_name
from switcher_lib.switchers.base import Switcher, weight_blocks
from switcher_lib.switchers.free import FreeGates
from switcher_lib.switchers.random import RandomSwitcher
from switcher_lib.switchers.row import RowSwitcher
from switcher_lib.switchers.stats import StatsSwitcher, row_statistics
from switcher_lib.switchers.unet import UNetSwitcher

SWITCHERS = {"row": RowSwitcher, "unet": UNetSwitcher, "stats": StatsSwitcher, "free": FreeGates, "random": RandomSwitcher}

__all__ = ["FreeGates", "RandomSwitcher", "RowSwitcher", "SWITCHERS", "StatsSwitcher", "Switcher", "UNetSwitcher", "make",
           "row_statistics", "weight_blocks"]


def make(switcher, sites, gate=None):
    """Make a switcher for the given sites.

    Parameters
    ----------
    switcher : str or callable
        A name (``row``, ``unet``, ``stats``, ``free``, ``random``), or a factory that takes the sites, such as
        ``partial(sl.RowSwitcher, hidden=64)``.
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
    made = switcher(sites) if gate is None else switcher(sites, gate=gate)
    if not isinstance(made, Switcher):
        raise TypeError(f"switcher={switcher!r} made a {type(made).__name__}; it must make a Switcher.")
    return made
