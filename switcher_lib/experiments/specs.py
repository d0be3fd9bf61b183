"""Specifications: what each experiment asks and, as plain data, how each of its methods is run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Experiment:
    """A question and the methods that answer it.

    Attributes
    ----------
    question : str
        What it is about, in a sentence.
    model : str
        Name for :func:`switcher_lib.models.make`.
    data : str
        Name for :func:`switcher_lib.data.load`.
    methods : dict of str to dict
        Plain data. ``kind`` is ``"plain"`` or ``"switched"``; the other entries are arguments: of
        :class:`~switcher_lib.Switched` (``switched``), of the switcher (``options``), of :func:`~switcher_lib.fit`
        (``fit``), of the optimizers (``task_sgd``, ``switcher_adam``) and of a second :func:`~switcher_lib.fit` on the
        compacted network (``finetune``). ``same_count_as`` names a method whose number of neurons off at each site is taken over by a
        random choice, cut out before training. ``noise`` trains a plain network with noise on all activations, pixels
        included. ``until_epoch`` makes the second fit end where both have had that many epochs. ``untrained`` keeps
        the switcher from learning, ``save`` keeps the network of seed 0.
    """

    question: str
    model: str
    data: str
    methods: dict


def ramp(start, end, until):
    """Return a weight λ that grows linearly from ``start`` to ``end`` at progress ``until`` and then stays.

    Parameters
    ----------
    start, end : float
        First and last value, at least 0.
    until : float
        Progress in (0, 1] at which the end is reached.

    Returns
    -------
    callable
        From progress in [0, 1] to λ.
    """
    return lambda t: start + (end - start) * min(1.0, t / until)


SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
NOISE = 0.3    # of the factors' activations while training; what it does by itself is one of the controls
EPOCHS = 20

# Search by alternate learning until the network is small enough, compact, train what is left: EPOCHS in all.
SEARCH = {
    "kind": "switched", "switcher": "row", "options": {"gate": "clamp_centred", "spread": 0.1},
    "switched": {"refresh": 4, "noise": NOISE}, "fit": {"epochs": 10, "every": 4, "schedule": "constant", "stop_at": 170_000},
    "task_sgd": {**SGD, "weight_decay": 0.0}, "switcher_adam": {"lr": 2e-3, "fused": True},
    "finetune": {"until_epoch": EPOCHS, "noise": NOISE, "task_sgd": SGD},
}
DENSE = {"kind": "plain", "fit": {"epochs": EPOCHS}, "task_sgd": SGD}

FREE = Experiment(
    question="LeNet-300-100 on MNIST with no sparsity term: what does the switcher switch off, and at what price?",
    model="lenet_300_100", data="mnist",
    methods={
        "dense": DENSE,
        "dense, equal total steps": {**DENSE, "fit": {"epochs": EPOCHS + 2}},    # the search's switcher steps are fewer
        "dense with noise": {**DENSE, "noise": NOISE},
        "switcher": SEARCH,
        "untrained switcher": {**SEARCH, "untrained": True},
        "free gates": {**SEARCH, "switcher": "free", "options": {"gate": "clamp_centred", "spread": 0.02}},
        "random": {**DENSE, "same_count_as": "switcher"},
        "random with noise": {**DENSE, "same_count_as": "switcher", "noise": NOISE},
    },
)

COST_SEARCH = {
    "kind": "switched", "switcher": "row", "options": {"reads": "both", "saturation": 0.3},
    "switched": {"refresh": 4, "noise": NOISE, "switch_inputs": True},
    "fit": {"epochs": 16, "every": 4, "cost": {"start": 0.0, "end": 3.0, "until": 0.8}, "stop_at": 33_300},
    "task_sgd": SGD, "switcher_adam": {"lr": 1e-3, "fused": True},
    "finetune": {"epochs": 28, "noise": NOISE, "task_sgd": {**SGD, "lr": 0.03, "weight_decay": 2e-4}},
}

COST = Experiment(
    question="LeNet-300-100 on MNIST with the cost term, pixels switched too: how small at 98.2 %?",
    model="lenet_300_100", data="mnist",
    methods={
        "switcher": {**COST_SEARCH, "save": True},
        "free gates": {**COST_SEARCH, "switcher": "free", "options": {"saturation": 0.3}},
        "random with noise": {"kind": "plain", "same_count_as": "switcher", "fit": {"epochs": 33, "schedule": "cosine"},
                              "noise": NOISE, "task_sgd": {**SGD, "weight_decay": 2e-4}},
    },
)

EXPERIMENTS = {"lenet300-free": FREE, "lenet300-cost": COST}
