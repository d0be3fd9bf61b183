"""What single chapters ask: with no sparsity term, with the cost term, and what emerges when nobody says stop."""

from switcher_lib.experiments.catalogue.comparison import REST
from switcher_lib.experiments.catalogue.recipes import BATCH, FAST, NOISE, SEARCH_EPOCHS, SGD, TOTAL
from switcher_lib.experiments.specs import Experiment

# Search by alternate learning until the network is small enough, compact, train what is left: TOTAL in all.
SEARCH = {
    "kind": "switched", "switcher": "row", "options": {"gate": "clamp_centred", "spread": 0.1},
    "switched": {"refresh": 4, "noise": NOISE}, "fit": {"epochs": 10, "every": 4, "schedule": "constant", "stop_at": 170_000},
    "task_sgd": {**SGD, "weight_decay": 0.0}, "switcher_adam": {"lr": 2e-3, "fused": True},
    "finetune": {"until_epoch": TOTAL, "noise": NOISE, "task_sgd": SGD},
}
DENSE = {"kind": "plain", "fit": {"epochs": TOTAL}, "task_sgd": SGD}

FREE = Experiment(
    question="LeNet-300-100 on MNIST with no sparsity term: what does the switcher switch off, and at what price?",
    model="lenet_300_100", data="mnist",
    methods={
        "dense": DENSE,
        "dense, equal total steps": {**DENSE, "fit": {"epochs": TOTAL + 2}},    # the search's switcher steps are fewer
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

# -- no sparsity term and nobody who says when to stop: how much goes off by itself, on an easier and on a harder task, from a
# larger and from a smaller network

def _emerging(task_sgd, gate="clamp_centred", **model):
    return {**SEARCH, "model": model, "options": {"gate": gate, "spread": 0.1}, "task_sgd": task_sgd,
            "fit": {"epochs": SEARCH_EPOCHS, "batch_size": BATCH, "every": 4, "schedule": "constant"},
            "switched": {"refresh": 4, "noise": NOISE}, "finetune": {**REST, "noise": NOISE, "task_sgd": task_sgd}}


def _emergence(question, data, task_sgd, widths, gates, **model):
    """Dense and switched networks of several widths; the first of them with further gates."""
    methods = {}
    for pair in widths:
        name, options = "-".join(map(str, pair)), {"widths": list(pair), **model}
        methods[f"dense {name}"] = {"kind": "plain", "model": options, "noise": NOISE, "task_sgd": task_sgd,
                                    "fit": {"epochs": TOTAL, "batch_size": BATCH}}
        methods[f"switcher {name}"] = _emerging(task_sgd, **options)
    name, options = "-".join(map(str, widths[0])), {"widths": list(widths[0]), **model}
    methods |= {f"switcher {name}, {gate}": _emerging(task_sgd, gate, **options) for gate in gates}
    return Experiment(question=question, model="lenet_300_100", data=data, epochs=TOTAL, methods=methods)


EMERGENCE = _emergence("MLPs on MNIST, no sparsity term, no size to stop at: what goes off by itself, in wide and in narrow ones?",
                       "mnist", FAST, ((300, 100), (100, 30), (30, 10)), ("relu_bn", "relu_tanh"))
EMERGENCE_CIFAR = _emergence("An MLP on CIFAR-10, no sparsity term, no size to stop at: does less go off on a harder task?",
                             "cifar10", {**SGD, "lr": 0.02}, ((300, 100),), ("relu_bn",), in_shape=[3, 32, 32])

EXPERIMENTS = {"lenet300-free": FREE, "lenet300-cost": COST, "mlp-emergence": EMERGENCE, "mlp-emergence-cifar10": EMERGENCE_CIFAR}
