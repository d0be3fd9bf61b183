"""Experiments: a specification is data, a run is resumable, a table is made of results that keep the rules.

``python -m switcher_lib.experiments list`` tells what there is, ``run NAME`` runs what is missing, ``table NAME`` prints
the table. Results live in ``results/NAME.json``, one record for each method, operating point and seed.
"""

from switcher_lib.experiments.catalogue import EXPERIMENTS
from switcher_lib.experiments.comparing import Difference, holm, paired, welch
from switcher_lib.experiments.latency import stored_latency
from switcher_lib.experiments.protocol import ProtocolError, violations
from switcher_lib.experiments.results import Results
from switcher_lib.experiments.runner import load, run, run_one, stored
from switcher_lib.experiments.specs import Experiment, read_experiment
from switcher_lib.experiments.tables import Row, table

__all__ = ["Difference", "EXPERIMENTS", "Experiment", "ProtocolError", "Results", "Row", "holm", "load", "paired", "read_experiment",
           "run", "run_one", "stored", "stored_latency", "table", "violations", "welch"]
