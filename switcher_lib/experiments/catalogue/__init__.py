"""The book's experiments."""

from switcher_lib.experiments import transfer
from switcher_lib.experiments.catalogue import ablations, chapters, comparison, lenet5

EXPERIMENTS = {**chapters.EXPERIMENTS, **comparison.EXPERIMENTS, **lenet5.EXPERIMENTS, **ablations.EXPERIMENTS,
               **transfer.EXPERIMENTS}
