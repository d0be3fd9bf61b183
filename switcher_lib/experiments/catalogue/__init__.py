"""The book's experiments."""

from switcher_lib.experiments import transfer
from switcher_lib.experiments.catalogue import ablations, chapters, cifar, comparison, lenet5

EXPERIMENTS = {**chapters.EXPERIMENTS, **comparison.EXPERIMENTS, **lenet5.EXPERIMENTS, **cifar.EXPERIMENTS,
               **ablations.EXPERIMENTS, **transfer.EXPERIMENTS}
