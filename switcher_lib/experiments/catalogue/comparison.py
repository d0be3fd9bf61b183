"""The comparison of all methods: one budget of epochs, a search until the operating point, then training of what is left.

What differs between methods is who decides, and the settings that were tuned for each: four trials, judged on the
validation split at one operating point. ``CHOICE`` tells which won: the best of those that got as small as asked (a test
holds it to that).
"""

from dataclasses import replace

from switcher_lib.experiments.catalogue.recipes import (
    BATCH, FAST, NOISE, SEARCH_EPOCHS, SGD, TOTAL, Course, comparison, entry, free, l0, magnitude, row, scl, slimming, tuning,
)
from switcher_lib.experiments.specs import Experiment

REST = {"until_epoch": TOTAL, "batch_size": BATCH, "task_sgd": {**SGD, "weight_decay": 2e-4}}

# -- LeNet-300-100, pixels and neurons, under noise

TUNED_AT = 20_000
SIZES = (100_000, 60_000, 33_300, 20_000, 14_000)
NEURON = Course(TOTAL, SEARCH_EPOCHS, FAST, {"switch_inputs": True, "noise": NOISE}, {**REST, "noise": NOISE}, TUNED_AT)


def _magnitude_neurons(scope, gradual):
    return magnitude(NEURON, 8, scope=scope, start=0.3, end=1.0) if gradual else magnitude(NEURON, 5, scope=scope)


NEURON_TRIALS = {
    "switcher": [row(NEURON, c, lr) for c, lr in ((3.0, 1e-3), (10.0, 1e-3), (3.0, 2e-3), (10.0, 5e-4))],
    "free gates": [free(NEURON, c, lr, bias=b)
                   for c, lr, b in ((3.0, 2e-2, 0.5), (10.0, 2e-2, 0.5), (10.0, 2e-2, 0.9), (3.0, 1e-2, 0.5))],
    "L0": [l0(NEURON, c, lr) for c, lr in ((10.0, 1e-2), (10.0, 3e-2), (30.0, 1e-2), (30.0, 3e-2))],
    "SCL": [scl(NEURON, c, lr, e) for c, lr, e in ((100.0, 1e-2, 4), (300.0, 1e-2, 4), (1000.0, 1e-2, 4), (300.0, 3e-3, "joint"))],
    "slimming": [slimming(NEURON, s) for s in (1e-4, 3e-4, 1e-3, 3e-3)],
    "magnitude": [_magnitude_neurons(s, g) for s in ("global", "layer") for g in (False, True)],
}
NEURON_CHOICE = {"switcher": 2, "free gates": 0, "magnitude": 1, "slimming": 2, "L0": 0, "SCL": 1}
NEURONS = comparison(
    "LeNet-300-100 on MNIST, pixels and neurons: which method keeps the most accuracy at which size?",
    "lenet_300_100", NEURON, NEURON_TRIALS, NEURON_CHOICE, SIZES, {
        "shuffled weights": lambda methods, size: {**methods["switcher"][size], "switcher": "shuffled", "inside": "row"},
        "random": lambda methods, size: NEURON.plain(same_count_as="switcher", noise=NOISE),
        "from scratch": lambda methods, size: NEURON.plain(same_structure_as="switcher", noise=NOISE),
    })

# -- LeNet-300-100, connections

CONNECTION_SIZES = (27_000, 13_700, 9_300, 6_000, 4_846)    # with at most 410 biases: 10 to 60 times fewer weights
CONNECTION = Course(TOTAL, SEARCH_EPOCHS, FAST, {"level": "connection"}, {**REST, "task_sgd": SGD})

# of the entry switcher: λ and Adam's rate, with an epoch of the task network before it or without
ENTRY_SETTINGS = ((30.0, 1e-3), (30.0, 2e-3), (100.0, 1e-3), (20.0, 2e-3))
# λ, Adam's rate and turns; scope, start and end of cutting: tried for LeNet-5's connections, too
FREE_SETTINGS = ((30.0, 3e-3, "joint"), (100.0, 3e-3, "joint"), (30.0, 1e-2, 4), (100.0, 1e-2, 4))
CUT_SETTINGS = (("global", 0.1, 0.95), ("global", 0.5, 1.0), ("global", 1.0, 1.0), ("layer", 0.1, 0.95))

CONNECTION_TRIALS = {
    "switcher": [entry(CONNECTION, c, lr, 4) for c, lr in ENTRY_SETTINGS],
    "free gates": [free(CONNECTION, c, lr, e) for c, lr, e in FREE_SETTINGS],
    "L0": [l0(CONNECTION, c, lr, on=0.7) for c, lr in ((30.0, 1e-2), (30.0, 3e-2), (100.0, 1e-2), (100.0, 3e-2))],
    "SCL": [scl(CONNECTION, c, 1e-2, "joint") for c in (1e4, 3e4, 1e5, 1e6)],
    "magnitude": [magnitude(CONNECTION, 12, scope=s, start=a, end=b) for s, a, b in CUT_SETTINGS],
}
CONNECTION_CHOICE = {"switcher": 3, "free gates": 0, "magnitude": 0, "L0": 2, "SCL": 3}
CONNECTIONS = comparison(
    "LeNet-300-100 on MNIST, connections: which method keeps the most accuracy with how many weights?",
    "lenet_300_100", CONNECTION, CONNECTION_TRIALS, CONNECTION_CHOICE, CONNECTION_SIZES, {
        "random": lambda methods, size: CONNECTION.plain(same_count_as="magnitude"),
        "from scratch": lambda methods, size: CONNECTION.plain(same_structure_as="magnitude"),
    })

# Asked after the comparison was seen: LeNet-5's entry switcher reads weights that have learned for an epoch, this one's drawn ones.
LATER_TRIALS = {"switcher": [entry(replace(CONNECTION, warmup=1), c, lr, 4) for c, lr in ENTRY_SETTINGS]}
LATER_CHOICE = {"switcher": 3}
LATER = Experiment(
    question="LeNet-300-100 on MNIST, connections: does the entry switcher do better where it begins to read after an epoch?",
    model="lenet_300_100", data="mnist", epochs=TOTAL, curve=True,
    methods={"switcher": {size: LATER_TRIALS["switcher"][LATER_CHOICE["switcher"]](size) for size in CONNECTION_SIZES}})

LONGER = Course(2 * TOTAL, TOTAL, FAST, CONNECTION.switched, {**CONNECTION.finetune, "until_epoch": 2 * TOTAL})
# chosen on the validation split, 3 seeds at 20 epochs: weight decay 1e-4 had 2.04 % errors, 3e-4 2.03, 5e-4 1.85; 1e-3 (2 seeds) 2.12
DECAY = {"weight_decay": 5e-4}
DECAYED = Course(TOTAL, SEARCH_EPOCHS, {**FAST, **DECAY}, CONNECTION.switched, {**CONNECTION.finetune, "task_sgd": {**SGD, **DECAY}})
SIXTY = Experiment(    # of magnitude alone; the other methods' connections were tried with neither
    question="LeNet-300-100 on MNIST, 60 times fewer weights: what do twice the epochs of the comparison bring, what five times its "
             "weight decay?",
    model="lenet_300_100", data="mnist",
    methods={name: {4_846: magnitude(course, epochs, scope="global", start=0.1, end=0.95)(4_846)}
             for name, course, epochs in (("magnitude", LONGER, TOTAL), ("magnitude, more decay", DECAYED, 12))})

EXPERIMENTS = {
    "lenet300-neurons": NEURONS, "lenet300-connections": CONNECTIONS, "lenet300-sixty": SIXTY, "lenet300-entry-later": LATER,
    "lenet300-neurons-tuning": tuning("LeNet-300-100 on MNIST", "lenet_300_100", NEURON, NEURON_TRIALS, TUNED_AT),
    "lenet300-connections-tuning": tuning("LeNet-300-100 on MNIST", "lenet_300_100", CONNECTION, CONNECTION_TRIALS, min(CONNECTION_SIZES)),
    "lenet300-entry-later-tuning": tuning("LeNet-300-100 on MNIST", "lenet_300_100", CONNECTION, LATER_TRIALS, min(CONNECTION_SIZES)),
}
