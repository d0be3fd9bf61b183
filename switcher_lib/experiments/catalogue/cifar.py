"""CIFAR-10: larger networks against their own dense baselines.

On one core with instructions for bfloat16 an epoch of ResNet-20 takes about a minute and a half, one of MobileNet more than three,
one of VGG-16-BN seven; without them six, three and thirty-five. So few epochs must do, for dense too: all searches of a seed start
from one network that has been trained for a short while, look for at most an epoch, and leave the other epochs to what is left.
"""

from dataclasses import replace
from typing import Any

from switcher_lib.experiments.catalogue.recipes import BATCH, Course, comparison, entry, free, magnitude, row, slimming, tuning
from switcher_lib.experiments.specs import Experiment

SGD = {"lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4}


def course(epochs: int, before: int, search: int, precision: str = "bfloat16", check_every: int = 4,
           augment: str | None = "crop_flip", model: dict[str, Any] | None = None, lr: float = SGD["lr"], **switched: Any) -> Course:
    """Return what all methods share on CIFAR-10.

    Parameters
    ----------
    epochs, before, search : int
        In all, of those the training that every search starts from, and at most of the search.
    precision : str, default "bfloat16"
        As in :func:`~switcher_lib.fit`.
    check_every : int, default 4
        As in :func:`~switcher_lib.fit`; the tuning looked at every tenth step, and its switcher ran past the size by up to a fifth.
    augment : str or None, default "crop_flip"
        As in :func:`~switcher_lib.fit`.
    model : dict, optional
        Options of the network.
    lr : float, default 0.2
        The task network's learning rate at first; a tenth of it during the search.
    **switched
        Arguments of :class:`~switcher_lib.Switched`.

    Returns
    -------
    Course
    """
    fast = {"batch_size": BATCH, "precision": precision, **({"augment": augment} if augment else {})}
    sgd = {**SGD, "lr": lr}
    return Course(epochs, search, {**SGD, "lr": lr / 10}, switched, {"until_epoch": epochs, "task_sgd": sgd, **fast},
                  check_every=check_every, precision=precision, augment=augment, model=model,
                  pretrain={"epochs": before, "task_sgd": sgd, **fast})


def _trials(one):
    """Three settings for each method."""
    return {
        "switcher": [row(one, c, lr, reach=512) for c, lr in ((3.0, 3e-3), (10.0, 1e-3), (10.0, 3e-3))],
        "free gates": [free(one, c, lr) for c, lr in ((3.0, 3e-2), (10.0, 1e-2), (10.0, 3e-2))],
        "slimming": [slimming(one, strength, scope=scope, epochs=one.search, add_norm=False)
                     for strength, scope in ((1e-4, "global"), (1e-3, "global"), (1e-4, "layer"))],
        "magnitude": [magnitude(one, one.search, scope=scope, start=start, end=1.0)
                      for scope, start in (("global", 0.0), ("layer", 0.0), ("layer", 1.0))],
    }


# -- ResNet-20: the inner channels of its blocks; dense has 40.8 million MACs

RESNET_SIZES = (28_600_000, 20_400_000, 14_300_000)    # 70, 50 and 35 per cent
RESNET = course(10, 3, 1, price="macs")
SHORT = course(6, 3, 1, check_every=10, price="macs")    # for the tuning
RESNET_TRIALS = _trials(SHORT)
RESNET_CHOICE = {"switcher": 0, "free gates": 0, "slimming": 1, "magnitude": 1}
RESNET_20 = comparison(
    "ResNet-20 on CIFAR-10, inner channels: which method keeps the most accuracy at how many MACs?",
    "resnet_20", RESNET, _trials(RESNET), RESNET_CHOICE, RESNET_SIZES, {}, data="cifar10", seeds=(0, 1, 2), curve=False)
_, HALF, SMALLEST = RESNET_SIZES
LARGER_COST = 2
RESNET_20 = replace(RESNET_20, methods={
    **RESNET_20.methods,
    # what any network with as many channels in each layer reaches, if it may learn on its own from the first step
    "random": {HALF: RESNET.plain(same_count_as="switcher")},
    # asked after the settings that won at half had missed the smallest size with every seed: another of free gates' trials
    "free gates, larger cost": {SMALLEST: _trials(RESNET)["free gates"][LARGER_COST](SMALLEST)}})

# -- as much computing as dense instead of as many epochs: after one epoch of the whole network and the search, about 17 epochs with
#    half of the MACs; or, for what the structure is worth by itself, 20 epochs of it on fresh weights. In between, for what the early
#    search is worth by itself: ten epochs in all. And dense with as many epochs, which computes nearly twice as much

LONG, EARLY, FRESH = (course(epochs, 1, 1, price="macs") for epochs in (18, 10, 20))


def _at_half(one):
    """The switcher's chosen settings, at half of the MACs."""
    return {HALF: _trials(one)["switcher"][RESNET_CHOICE["switcher"]](HALF)}


SAME_COST = Experiment(
    question="ResNet-20 on CIFAR-10 with half of the MACs: how much is lost if the smaller network may compute as much as dense did?",
    model="resnet_20", data="cifar10", seeds=(0, 1, 2),
    methods={"switcher": _at_half(LONG),
             "switcher, ten epochs": _at_half(EARLY),
             "dense, as many epochs": LONG.plain(),
             "its structure, fresh": {HALF: FRESH.plain(same_structure_as="switcher")}})

# -- the same network and settings on an easier task; MNIST's digits are not augmented. In float32, in which any processor is quick

EASY = course(6, 2, 1, precision="float32", augment=None, model={"in_shape": [1, 28, 28]}, price="macs")
MNIST = comparison("ResNet-20 on MNIST: how much is lost with half of the MACs on an easier task?",
                   "resnet_20", EASY, _trials(EASY), {"switcher": RESNET_CHOICE["switcher"]}, (15_500_000,), {}, seeds=(0, 1, 2),
                   curve=False)

# -- connections of the fully connected layer alone, as in arXiv 2103.15590; it has 640 of the 272,474 parameters. In float32, too

FC = course(4, 2, 1, precision="float32", level="connection")
FC_SIZE = 272_474 - 320    # half of them off


def _same_course(methods, size):
    """The switcher's course with half of all drawn by chance: what the course costs, whoever chooses. Its search ends at once."""
    found = methods["switcher"][size]
    return {**found, "switcher": "random", "options": {"off": 0.5},
            "fit": {name: value for name, value in found["fit"].items() if name != "cost"}}


FC_CONNECTIONS = comparison(
    "ResNet-20 on CIFAR-10, connections of its fully connected layer: how much is lost with half of them?",
    "resnet_20", FC, {"switcher": [entry(FC, 10_000.0, 4e-3, 4)]}, {"switcher": 0}, (FC_SIZE,),
    {"random": lambda methods, size: FC.plain(same_count_as="switcher"), "random, same course": _same_course}, data="cifar10",
    seeds=(0, 1, 2), curve=False)

# -- MobileNet: dense and the switcher, with the settings that won for ResNet-20

# in bfloat16 the gradient of a depthwise convolution's weights is slow on a CPU; dense has 46.4 million MACs
SEPARABLE = course(6, 2, 1, precision="float32", lr=0.1, price="macs")    # the best of cifar-mobilenet-rates
MOBILENET = comparison("MobileNet on CIFAR-10: how much is lost with half of the MACs?", "mobilenet", SEPARABLE, _trials(SEPARABLE),
                       {"switcher": RESNET_CHOICE["switcher"]}, (23_200_000,), {}, data="cifar10", seeds=(0, 1, 2), curve=False)

# -- VGG-16-BN: dense has 14.7 million parameters and 313 million MACs. An epoch of it takes as long as eight of ResNet-20, so both
#    get as much computing as four of them: one and the search, then what is left until the twelfth, a fourth of the MACs

PRICE = {"parameters": 1, "macs": 0.05}    # at this weight the MACs count about as much as the parameters
VGG, VGG_DENSE, VGG_FRESH = (course(epochs, 1, 1, lr=0.05, price=PRICE) for epochs in (12, 4, 16))
VGG_SIZE = 6_000_000    # of 30.4: about a seventh of the parameters and a fourth of the MACs
VGG_16_BN = Experiment(
    question="VGG-16-BN on CIFAR-10 with a seventh of the parameters and a fourth of the MACs: how much is lost, if both may compute as much?",
    model="vgg_16_bn", data="cifar10", seeds=(0, 1, 2), controls=("dense",),
    # a perceptron moves all scores of a wide layer at once: with ResNet-20's rate five steps took five sixths of the network
    methods={"dense": VGG_DENSE.plain(), "switcher": {VGG_SIZE: row(VGG, 3.0, 1e-4, reach=512)(VGG_SIZE)},
             "its structure, fresh": {VGG_SIZE: VGG_FRESH.plain(same_structure_as="switcher")}})

# -- a baseline is as good as its rate: with ResNet-20's, 0.2, dense VGG-16-BN was at 56 % after six epochs

def _rates(what, model, one, rates, epochs):
    """Some epochs of the whole network with each of some rates, on the validation split."""
    plain = replace(one, epochs=epochs).plain()
    return Experiment(
        question=f"{what} on CIFAR-10's validation split, epochs of the whole network: {epochs}. Which rate?", model=model, data="cifar10",
        seeds=(100,), epochs=epochs, tuning=True, methods={f"rate {lr}": {**plain, "task_sgd": {**SGD, "lr": lr}} for lr in rates})


EXPERIMENTS = {
    "cifar-mobilenet-rates": _rates("MobileNet", "mobilenet", SEPARABLE, (0.05, 0.1, 0.2), epochs=2),
    "cifar-vgg16-rates": _rates("VGG-16-BN", "vgg_16_bn", VGG, (0.05, 0.02, 0.1), epochs=1),
    "cifar-mobilenet": MOBILENET,
    "cifar-resnet20": RESNET_20,
    "cifar-resnet20-connections": FC_CONNECTIONS,
    "cifar-resnet20-cost": SAME_COST,
    "cifar-resnet20-tuning": tuning("ResNet-20 on CIFAR-10", "resnet_20", SHORT, RESNET_TRIALS, RESNET_SIZES[1], data="cifar10"),
    "cifar-vgg16": VGG_16_BN,
    "mnist-resnet20": MNIST,
}
