"""One change at a time to the comparison's switcher, at one size.

Without operating points: what does not get there is shown with the size that it got.
"""

from switcher_lib.experiments.catalogue.comparison import NEURONS
from switcher_lib.experiments.catalogue.recipes import TOTAL
from switcher_lib.experiments.specs import Experiment

ABLATED_AT = 33_300


def _changed(spec, changes):
    """A copy of a specification with the entries of ``changes`` put in, inside its objects too; None takes one out."""
    merged = dict(spec)
    for name, value in changes.items():
        merged[name] = _changed(spec.get(name, {}), value) if isinstance(value, dict) else value
    return {name: value for name, value in merged.items() if value is not None}


def _options(**options):
    return {"options": options}


def _every(every, **fit):
    """A switcher step after every so many task steps, factors as old as that."""
    return {"fit": {"every": every, **fit}, "switched": {"refresh": every if isinstance(every, int) else None}}


CHANGES = {
    # the gate
    "gate: relu": _options(gate="relu"),
    "gate: relu_tanh": _options(gate="relu_tanh"),
    "gate: relu_bn": _options(gate="relu_bn"),
    "gate: clamp_centred": _options(gate="clamp_centred"),
    "gate: step": _options(gate="step", saturation=None),
    # what the switcher reads, and with how many networks
    "input: incoming weights": _options(reads="incoming"),
    "input: outgoing weights": _options(reads="outgoing"),
    "input: statistics, one for each layer": {"switcher": "stats", **_options(reads=None, shared=False)},
    "input: statistics, shared": {"switcher": "stats", **_options(reads=None)},
    "input: weight image (U-Net)": {"switcher": "unet", **_options(reads=None)},
    "input: weights, and a free score": _options(own=10.0),
    "input: none (free gates)": {"switcher": "free", **_options(reads=None), "switched": {"refresh": None}},
    "input: shuffled weights": {"switcher": "shuffled", "inside": "row"},
    # who learns when
    "alternation: every step": _every(1),
    "alternation: every 16th step": _every(16),
    "alternation: epochs": _every("epoch"),
    "alternation: joint": _every("joint"),
    "refresh: live": {"switched": {"refresh": "live"}},
    "refresh: every 16th step": {"switched": {"refresh": 16}},
    "gradient: flows through the switcher": {"switched": {"flow": True, "refresh": "live"}},
    "warm-up: 2 epochs": {"fit": {"warmup": 2}},
    "freeze: from epoch 2 on": {"fit": {"freeze": 0.8}},
    "switcher: frozen at random": {"untrained": True},
    # the cost term
    "cost: none": {"fit": {"cost": None}},
    "cost: of the factors themselves": _options(saturation=None),
    "cost: saturation 0.1": _options(saturation=0.1),
    "cost: saturation 1": _options(saturation=1.0),
    # where the gate starts
    "bias: 0.1": _options(bias=0.1),
    "bias: 0.9": _options(bias=0.9),
    # noise
    "noise: none": {"switched": {"noise": None}, "finetune": {"noise": None}},
}

ABLATIONS = Experiment(
    question="LeNet-300-100 on MNIST, pixels and neurons: what does each choice in the switcher's search change?",
    model="lenet_300_100", data="mnist", epochs=TOTAL,
    methods={name: _changed(NEURONS.spec("switcher", ABLATED_AT), changes) for name, changes in {"as compared": {}, **CHANGES}.items()})

EXPERIMENTS = {"lenet300-ablations": ABLATIONS}
