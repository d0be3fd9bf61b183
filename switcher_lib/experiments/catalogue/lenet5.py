"""LeNet-5, both levels: the best five methods of LeNet-300-100, tuned again, on a convolutional network.

A step takes eight times as long as LeNet-300-100's: fewer epochs, and bfloat16 wherever the network is large. At the
learning rate of LeNet-300-100 some small ones do not survive the first steps after the cut.
"""

from dataclasses import replace

from switcher_lib.experiments.catalogue.comparison import CUT_SETTINGS, FREE_SETTINGS
from switcher_lib.experiments.catalogue.recipes import (
    BATCH, SGD, Course, comparison, entry, free, l0, magnitude, row, scl, slimming, tuning,
)

SLOW = {**SGD, "lr": 0.02}

# -- channels of both convolutions, flattened features one by one, and neurons

TOTAL, SEARCH_EPOCHS, CUT_EPOCHS, TUNED_AT = 8, 5, 3, 8_000
SIZES = (40_000, 15_000, 8_000, 4_500, 2_792)    # the last: 5-10-76-16, the smallest in the L0 paper's Table 1
NEURON = Course(TOTAL, SEARCH_EPOCHS, SLOW, {"switch_flattened": True},
                {"until_epoch": TOTAL, "batch_size": BATCH, "task_sgd": SLOW}, TUNED_AT, check_every=10, precision="bfloat16",
                warmup=1)    # without it all channels of conv2 can go off within 60 steps: before they are any good


def _magnitude_neurons(scope, gradual):
    return magnitude(NEURON, CUT_EPOCHS, scope=scope, start=0.3, end=1.0) if gradual else magnitude(NEURON, 2, scope=scope)


NEURON_TRIALS = {
    "switcher": [row(NEURON, c, lr, reach=512) for c, lr in ((30.0, 1e-3), (60.0, 1e-3), (30.0, 2e-3), (100.0, 1e-3))],
    "free gates": [free(NEURON, c, lr) for c, lr in ((10.0, 1e-2), (30.0, 1e-2), (10.0, 2e-2), (30.0, 3e-3))],
    "L0": [l0(NEURON, c, lr) for c, lr in ((10.0, 3e-2), (30.0, 1e-2), (30.0, 3e-2), (100.0, 1e-2))],
    "slimming": [slimming(NEURON, strength, scope=scope, epochs=CUT_EPOCHS)
                 for strength, scope in ((3e-4, "layer"), (1e-3, "layer"), (3e-4, "global"), (1e-3, "global"))],
    "magnitude": [_magnitude_neurons(s, g) for s in ("global", "layer") for g in (False, True)],
}
NEURON_CHOICE = {"switcher": 2, "free gates": 1, "slimming": 0, "L0": 3, "magnitude": 3}
NEURONS = comparison(
    "LeNet-5 on MNIST, channels, features and neurons: which method keeps the most accuracy at which size?",
    "lenet_5", NEURON, NEURON_TRIALS, NEURON_CHOICE, SIZES, {
        "random": lambda methods, size: NEURON.plain(same_count_as="switcher"),
        "from scratch": lambda methods, size: NEURON.plain(same_structure_as="switcher"),
    })

# -- the weights of all layers one by one, convolutions too

CONNECTION_TOTAL, CONNECTION_SEARCH = 6, 3
CONNECTION_TUNED_AT = 10_800
CONNECTION_SIZES = (43_000, 21_600, CONNECTION_TUNED_AT, 5_400, 4_000)    # with at most 580 biases: 10 to 126 times fewer weights
CONNECTION = Course(CONNECTION_TOTAL, CONNECTION_SEARCH, SLOW, {"level": "connection", "convolutions": True},
                    {"until_epoch": CONNECTION_TOTAL, "batch_size": BATCH, "task_sgd": SLOW, "precision": "bfloat16"},
                    CONNECTION_TUNED_AT, check_every=10, precision="bfloat16")    # at one λ no search got to the two smallest sizes
WARM = replace(CONNECTION, warmup=1)

CONNECTION_TRIALS = {
    # at LeNet-300-100's settings none of four got below 17,000 parameters in so few epochs: larger steps, from weights worth reading
    "switcher": [entry(course, c, lr, 4) for course, c, lr in ((CONNECTION, 30.0, 4e-3), (WARM, 30.0, 8e-3), (WARM, 100.0, 4e-3),
                                                               (WARM, 300.0, 4e-3))],
    "free gates": [free(CONNECTION, c, lr, e) for c, lr, e in FREE_SETTINGS],
    "L0": [l0(CONNECTION, c, lr, on=0.7) for c, lr in ((30.0, 3e-2), (100.0, 1e-2), (100.0, 3e-2), (300.0, 3e-2))],
    "SCL": [scl(CONNECTION, c, 1e-2, "joint") for c in (3e4, 1e5, 3e5, 1e6)],
    "magnitude": [magnitude(CONNECTION, 4, scope=s, start=a, end=b) for s, a, b in CUT_SETTINGS],
}
CONNECTION_CHOICE = {"switcher": 1, "free gates": 0, "magnitude": 0, "L0": 2, "SCL": 2}
CONNECTIONS = comparison(
    "LeNet-5 on MNIST, connections: which method keeps the most accuracy with how many weights?",
    "lenet_5", CONNECTION, CONNECTION_TRIALS, CONNECTION_CHOICE, CONNECTION_SIZES, {
        "random": lambda methods, size: CONNECTION.plain(same_count_as="magnitude"),
    })

EXPERIMENTS = {
    "lenet5-neurons": NEURONS, "lenet5-connections": CONNECTIONS,
    "lenet5-neurons-tuning": tuning("LeNet-5 on MNIST", "lenet_5", NEURON, NEURON_TRIALS, TUNED_AT),
    "lenet5-connections-tuning": tuning("LeNet-5 on MNIST", "lenet_5", CONNECTION, CONNECTION_TRIALS, CONNECTION_TUNED_AT),
}
