"""Transfer: what a switcher that has learned on some networks says of one that it has never seen, in one pass.

Here are the experiments, and what the runner needs for them. A record is one unseen network, cut once to one size, with
or without the short training that follows; what several records share (the unseen network, the learned judge) is made
once in a process and then remembered.
"""

import json
import time
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from switcher_lib import data as data_module
from switcher_lib import models
from switcher_lib.experiments.specs import Experiment
from switcher_lib.switched import Switched
from switcher_lib.switchers import BudgetSwitcher, MagnitudeSwitcher
from switcher_lib.training import History, fit, seed_everything
from switcher_lib.transfer import learn_across


class _Coin(BudgetSwitcher):
    """A random set of neurons stays, as many as the budget allows."""

    def importance(self, net):
        """Return {site.key: random numbers (n,)}."""
        return {site.key: torch.rand(site.size) for site in self.sites}


def cut(spec: dict[str, Any], model: str, data: str, example: Tensor, seed: int, tuning: bool) -> tuple[Switched, History, float]:
    """Return a trained network, switched by what a ``transfer`` specification names, with its factors held.

    Parameters
    ----------
    spec : dict
        The specification.
    model : str
        Name of the task network's architecture.
    data : str
        What it is trained on.
    example : Tensor
        A batch of inputs.
    seed : int
        Of the unseen network.
    tuning : bool
        Whether the validation split is held out of all training.

    Returns
    -------
    net : Switched
        Factors held.
    history : History
        Of the unseen network's training.
    seconds : float
        What learning to switch took, once for all unseen networks; 0 for rules.
    """
    task, history = trained(model, data, spec.get("model", {}), spec["fit"], spec["task_sgd"], seed, tuning)
    seconds, options = 0.0, spec["options"]
    if spec["switcher"] == "learned":
        judge, seconds = _learned(json.dumps([model, spec["learn"]]), tuning)
        make = judge.on(options["budget"])
    else:
        make = partial({"magnitude": MagnitudeSwitcher, "random": _Coin}[spec["switcher"]], **options)
    net = Switched(task, example, switcher=make, **spec["switched"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net.switcher.after_step(net, 1.0)    # a rule cuts now; who has learned decides whenever it is asked
    net.freeze()
    return net, history, seconds


def trained(model: str, data: str, options: dict[str, Any], settings: dict[str, Any], sgd: dict[str, Any], seed: int,
            tuning: bool) -> tuple[nn.Module, History]:
    """Return a network of one's own, trained by :func:`switcher_lib.fit`, and the history; each is trained once in a process.

    Parameters
    ----------
    model, data : str
        Names of the architecture and of the data set.
    options : dict
        Of the model.
    settings, sgd : dict
        Arguments of :func:`switcher_lib.fit` and of SGD.
    seed : int
        Of first weights and batches.
    tuning : bool
        Whether the validation split is held out.
    """
    state, history = _trained(json.dumps([model, data, options, settings, sgd]), seed, tuning)
    task = models.make(model, **options)
    task.load_state_dict(state)
    return task, history


@lru_cache(maxsize=64)
def _trained(text, seed, tuning):
    model, data, options, settings, sgd = json.loads(text)
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed)
        task = models.make(model, **options)
        history = fit(task, _split(data, tuning), seed=seed, progress=False, task_optimizer=partial(SGD, **sgd), **settings)
    return task.state_dict(), history


@lru_cache(maxsize=4)
def _learned(text, tuning):
    """The judge that a specification's ``learn`` describes, and the seconds that it took beside the networks' own training."""
    model, learn = json.loads(text)
    learn = dict(learn)
    shared = learn.pop("data"), learn.pop("fit"), learn.pop("task_sgd")
    networks = [trained(model, shared[0], {"widths": widths}, *shared[1:], seed, tuning)[0]
                for seed, widths in learn.pop("networks")]
    start = time.perf_counter()
    judge = learn_across(networks, _split(shared[0], tuning), progress=False, **learn)
    return judge, time.perf_counter() - start


def _split(name, tuning):
    data = data_module.load(name)
    return data.train if tuning else data.full_train


# -- the experiments. The unseen networks have seeds 0 to 4, those of the learning set others.

FAST = {"lr": 0.08, "momentum": 0.9, "weight_decay": 1e-4}
TRAIN = {"fit": {"epochs": 5, "batch_size": 128}, "task_sgd": FAST}
LEARN = {"data": "mnist", **TRAIN, "steps": 1500,
         "networks": [[100, [300, 100]], [101, [300, 100]], [102, [250, 120]], [103, [350, 80]], [104, [300, 100]],
                      [105, [200, 150]]]}
AFTER = {"epochs": 1, "batch_size": 128, "task_sgd": {"lr": 0.05, "momentum": 0.9}}
SIZES = (100_000, 60_000, 33_300)
RIVALS = {
    "switcher": {"switcher": "learned", "learn": LEARN},
    "magnitude, global": {"switcher": "magnitude", "options": {"scope": "global"}},
    "magnitude, per layer": {"switcher": "magnitude", "options": {"scope": "layer"}},
    "random": {"switcher": "random", "options": {"scope": "layer"}},
}


def _methods(sizes=SIZES, train=TRAIN, after=AFTER, **unseen):
    """{method: {size: specification}}: every rival as it is after one pass, and after a short training."""
    methods = {}
    for name, rival in RIVALS.items():
        for when, then in (("", {}), (", trained on", {"finetune": after})):
            methods[name + when] = {size: {"kind": "transfer", **train, "switched": {"switch_inputs": True}, **unseen, **rival,
                                           "options": {**rival.get("options", {}), "budget": size}, **then} for size in sizes}
    return methods


DENSE = {"kind": "plain", **TRAIN}
TRANSFER = Experiment(
    question="LeNet-300-100 on MNIST: what does a switcher that learned on other networks make of an unseen one in one pass?",
    model="lenet_300_100", data="mnist", methods={"dense": DENSE, **_methods()})
WIDTH = Experiment(
    question="LeNet-400-50 on MNIST: what does a switcher that learned on other widths make of it in one pass?",
    model="lenet_300_100", data="mnist",
    methods={"dense": {**DENSE, "model": {"widths": [400, 50]}}, **_methods(model={"widths": [400, 50]})})
DIGITS_TRAIN = {"fit": {"epochs": 40, "batch_size": 64}, "task_sgd": FAST}
DIGITS = Experiment(
    question="LeNet-300-100 on digits: what does a switcher that learned on networks for MNIST make of one in one pass?",
    model="lenet_300_100", data="digits",
    methods={"dense": {"kind": "plain", **DIGITS_TRAIN},
             **_methods(train=DIGITS_TRAIN, after={**AFTER, "batch_size": 64})})
EXPERIMENTS = {"lenet300-transfer": TRANSFER, "lenet300-transfer-width": WIDTH, "lenet300-transfer-digits": DIGITS}
