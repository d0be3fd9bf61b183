"""Learning a network's structure from its own weights: f(x; θ ⊙ s(θ))."""

import importlib
from typing import TYPE_CHECKING

from switcher_lib import compaction, data, errors, gates, layers, metrics, models, sites, sparse, switched, switchers, training, transfer, wiring
from switcher_lib.compaction import Certificate, Compacted, compact, fold, fold_batchnorm, load_compact
from switcher_lib.errors import CertificateError, DataError, SwitchError, SwitchWarning, TrainingStopped
from switcher_lib.layers import SelectLinear
from switcher_lib.sites import Connections, Site, find_connections, find_sites
from switcher_lib.sparse import SparseLinear, Sparsified, sparsify
from switcher_lib.switched import Switched
from switcher_lib.switchers import (
    EntrySwitcher, FixedSwitcher, FreeGates, HardConcreteSwitcher, MagnitudeSwitcher, RandomSwitcher, RowSwitcher, SCLSwitcher,
    ShuffledSwitcher, SlimmingSwitcher, StatsSwitcher, Switcher, UNetSwitcher,
)
from switcher_lib.training import History, evaluate, fit, joint_step, seed_everything, switcher_step, task_step
from switcher_lib.transfer import Judge, TransferSwitcher, learn_across

__version__ = "0.1.0"    # the one place: pyproject.toml reads it from here

__all__ = [
    "Certificate", "CertificateError", "Compacted", "Connections", "DataError", "EntrySwitcher", "FixedSwitcher", "FreeGates",
    "HardConcreteSwitcher", "History", "Judge", "MagnitudeSwitcher", "RandomSwitcher", "RowSwitcher", "SCLSwitcher", "ShuffledSwitcher",
    "SelectLinear", "Site", "SlimmingSwitcher", "SparseLinear", "Sparsified", "StatsSwitcher", "SwitchError", "SwitchWarning", "Switched",
    "Switcher", "TrainingStopped", "TransferSwitcher", "UNetSwitcher", "compact", "compaction", "data", "errors", "evaluate", "experiments", "explore", "find_connections",
    "find_sites", "fit", "fold", "fold_batchnorm", "gates", "joint_step", "layers", "learn_across", "load_compact", "metrics", "models", "plotting", "seed_everything",
    "sites", "sparse", "sparsify", "switched", "switcher_step", "switchers", "task_step", "training", "transfer", "wiring",
]

if TYPE_CHECKING:    # for a type checker everything is there, and a misspelt name is not
    from switcher_lib import experiments, explore, plotting
else:
    def __getattr__(name):
        """Import on first use what not everybody needs, so that ``import switcher_lib`` stays quick."""
        if name in ("experiments", "explore", "plotting"):
            return importlib.import_module(f"switcher_lib.{name}")
        raise AttributeError(f"module 'switcher_lib' has no attribute {name!r}")
