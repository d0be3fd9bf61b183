"""Experiments: a specification is data, a run is resumable, a table is made of results alone.

``python -m switcher_lib.experiments list`` tells what there is, ``run NAME`` runs what is missing, ``table NAME`` prints
the table. Results live in ``results/NAME.json``, one record for each method and seed.
"""

from switcher_lib.experiments.runner import Results, load, run
from switcher_lib.experiments.specs import EXPERIMENTS, Experiment
from switcher_lib.experiments.tables import Row, table

__all__ = ["EXPERIMENTS", "Experiment", "Results", "Row", "load", "run", "table"]
