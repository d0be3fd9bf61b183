"""The playground: its engine gives PyTorch's values, and its page does what it says, in every position of every control."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib.switchers import FreeGates, RowSwitcher, ShuffledSwitcher

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "_static" / "playground"
PROMISE, CLOSE = 1e-6, 1e-10  # both sides compute in double precision
LAMBDA = 0.3


# ------------------------------------------------------------------------------------------- the engine against PyTorch

def make_task_network(sizes):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    pieces = [piece for layer in layers for piece in (layer, nn.ReLU())][:-1]
    return nn.Sequential(*pieces).double()


def make_switcher(who, **options):
    if who == "free":
        return lambda sites, gate="clamp": FreeGates(sites, gate=gate, spread=0.6)

    def row(sites, gate=None):
        return RowSwitcher(sites, hidden=5, spread=6.0, gate=options["gate"], reads=options["reads"])

    return row if who == "row" else lambda sites: ShuffledSwitcher(sites, row, seed=4)


def make_net(sizes=(2, 7, 6, 2), who="row", gate="clamp", reads="incoming", face="incoming", switch_inputs=False, flow=False):
    """A switched network in which, at the start, some neurons are off and some factors are at or above 1."""
    sl.seed_everything(5)
    model, example = make_task_network(sizes), torch.randn(4, sizes[0], dtype=torch.float64)
    return sl.Switched(model, example, switcher=make_switcher(who, gate=gate, reads=reads),
                       gate=None if who == "shuffled" else gate, face=face, switch_inputs=switch_inputs, flow=flow).double()


def numbers(tensors):
    return [t.detach().double().flatten().tolist() for t in tensors]


def in_engine_s_order(net, of=lambda p: p):
    """The switcher's parameters, site by site as the engine lists them; `of` takes them to their values or gradients."""
    inner = getattr(net.switcher, "switcher", net.switcher)
    if isinstance(inner, FreeGates):
        own = [inner.free[site.key] for site in net.sites]
    else:
        own = [p for site in net.sites for p in inner.scorers[site.key].parameters()]
    return numbers([of(p) for p in (*own, *inner.gates.parameters())])


def orders(net):
    """For shuffled weights: the permutation of each of the task network's parameters, None where there is none."""
    if not isinstance(net.switcher, ShuffledSwitcher):
        return None
    named = net.switcher.names
    return [getattr(net.switcher, named[name]).tolist() if name in named else None for name in net.params()]


# The engine's half: the same first weights, the same batches, the same steps.
ENGINE = """(given) => {
  const E = PlaygroundEngine;
  const put = (parameters, values) => {
    if (parameters.length !== values.length) throw new Error(`${parameters.length} parameters, ${values.length} given`);
    parameters.forEach((p, k) => {
      if (p.value.length !== values[k].length) throw new Error(`parameter ${k}: ${p.value.length}, ${values[k].length}`);
      p.value.set(values[k]);
    });
  };
  const plain = (parameters, what = "value") => parameters.map((p) => Array.from(p[what]));
  const lists = (s) => s.filter(Boolean).map((v) => Array.from(v));
  const net = new E.TaskNetwork(given.sizes, { face: given.face, switchInputs: given.switchInputs });
  put(net.parameters, given.theta);
  const order = new Map((given.orders ?? []).map((o, k) => [net.parameters[k], o]).filter(([, o]) => o));
  const switcher = given.who === "free" ? new E.FreeGates(net, { gate: given.gate })
    : new E.RowSwitcher(net, { gate: given.gate, reads: given.reads, hidden: given.hidden, order });
  put(switcher.parameters, given.psi);
  const both = new E.Switched(net, switcher, { flow: given.flow });
  const task = new E.SGD(net.parameters, given.task);
  const turn = given.sgd ? new E.SGD(switcher.parameters, given.switch) : new E.Adam(switcher.parameters, given.switch);
  const x = Float64Array.from(given.x[0].flat());
  const y = given.y[0];
  const idle = { step() {} };
  const found = {};
  const s = both.factors({ training: true });
  found.factors = lists(s);
  found.logits = Array.from(both.logits(x, y.length, s));
  found.cost = switcher.cost(s).cost;
  found.taskLoss = both.taskStep(x, y, idle);
  found.taskGradients = plain(net.parameters, "grad");
  found.switcherLoss = both.switcherStep(x, y, idle, given.lambda);
  found.switcherGradients = plain(switcher.parameters, "grad");
  found.losses = given.x.map((rows, t) => {
    const [xt, yt] = [Float64Array.from(rows.flat()), given.y[t]];
    if (given.every === "joint") return [both.jointStep(xt, yt, task, turn, given.lambda)];
    const losses = [both.taskStep(xt, yt, task)];
    if ((t + 1) % given.every === 0) losses.push(both.switcherStep(xt, yt, turn, given.lambda));
    return losses;
  }).flat();
  found.theta = plain(net.parameters);
  found.psi = plain(switcher.parameters);
  found.lastFactors = lists(both.factors());
  found.lastLogits = Array.from(both.logits(x, y.length));
  const structure = both.structure();
  found.structure = [structure.on.slice(1, -1), structure.parameters, structure.allParameters];
  const { net: small } = both.cut();
  const folded = small.forward(x, y.length, small.ones());
  found.cutSizes = small.sizes;
  if (small.sizes[0] === net.sizes[0]) found.cutLogits = Array.from(folded.logits);
  return found;
}"""


def by_pytorch(net, batches, every, task, turn):
    """The library's half: its losses, its step functions, its structure."""
    found, loss_fn = {}, F.cross_entropy
    x, y = batches[0]
    net.train()
    with torch.no_grad():
        s = net.factors()
        found["factors"] = numbers([s[site.key] for site in net.sites])
        found["cost"] = float(net.cost(s))
        found["logits"] = numbers([net(x)])[0]
    loss = net.task_loss(x, y, loss_fn)
    loss.backward()
    found["taskLoss"] = float(loss.detach())
    found["taskGradients"] = numbers([p.grad for p in net.model.parameters()])
    for p in net.switcher.parameters():    # flow has filled them; a switcher step clears them first
        p.grad = None
    loss = net.switcher_loss(x, y, loss_fn, LAMBDA)
    loss.backward()
    found["switcherLoss"] = float(loss.detach())
    found["switcherGradients"] = in_engine_s_order(net, lambda p: p.grad)
    losses = []
    for t, (x, y) in enumerate(batches, start=1):
        if every == "joint":
            losses.append(float(sl.joint_step(net, x, y, task, turn, cost=LAMBDA)))
            continue
        losses.append(float(sl.task_step(net, x, y, task)))
        if t % every == 0:
            losses.append(float(sl.switcher_step(net, x, y, turn, cost=LAMBDA)))
    found["losses"] = losses
    found["theta"], found["psi"] = numbers(net.model.parameters()), in_engine_s_order(net)
    net.eval()
    with torch.no_grad():
        s = net.factors()
        found["lastFactors"] = numbers([s[site.key] for site in net.sites])
        found["lastLogits"] = numbers([net(batches[0][0])])[0]
    structure = net.structure()
    hidden = [structure.sites[site.key][1] for site in net.sites if site.kind == "neuron"]
    found["structure"] = [hidden, structure.parameters[1], structure.parameters[0]]
    return found


def largest_difference(a, b):
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return max((largest_difference(p, q) for p, q in zip(a, b, strict=True)), default=0.0)
    return abs(a - b)


@pytest.fixture(scope="module")
def engine(browser):
    """A blank page that holds the engine."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.add_script_tag(path=FOLDER / "engine.js")
    yield page
    page.close()


def compare(engine, every=1, sgd=False, lr=None, steps=10, **options):
    net = make_net(**options)
    generator = torch.Generator().manual_seed(1)
    sizes = options.get("sizes", (2, 7, 6, 2))
    batches = [(torch.randn(9, sizes[0], generator=generator, dtype=torch.float64),
                torch.randint(0, sizes[-1], (9,), generator=generator)) for _ in range(steps)]
    task_options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    switch_options = {"lr": lr or (0.1 if sgd else 0.01), **({"momentum": 0.5} if sgd else {})}
    given = {
        "sizes": sizes, "face": options.get("face", "incoming"), "switchInputs": options.get("switch_inputs", False),
        "who": options.get("who", "row"), "gate": options.get("gate", "clamp"), "reads": options.get("reads", "incoming"),
        "flow": options.get("flow", False), "hidden": 5, "orders": orders(net), "theta": numbers(net.model.parameters()),
        "psi": in_engine_s_order(net), "every": every, "sgd": sgd, "lambda": LAMBDA, "switch": switch_options,
        "task": {"lr": 0.1, "momentum": 0.9, "weightDecay": 1e-3},
        "x": [x.tolist() for x, _ in batches], "y": [y.tolist() for _, y in batches],
    }
    task = torch.optim.SGD(net.model.parameters(), **task_options)
    turn = (torch.optim.SGD if sgd else torch.optim.Adam)(net.switcher.parameters(), **switch_options)
    theirs, mine = by_pytorch(net, batches, every, task, turn), engine.evaluate(ENGINE, given)
    gaps = {name: largest_difference(theirs[name], mine[name]) for name in theirs}
    # A BatchNorm cancels the scores' shift: its gradient is 0 up to rounding, and Adam makes a step of any rounding
    assert max(gaps.values()) < (PROMISE if options.get("gate") == "relu_bn" else CLOSE), gaps
    if "cutLogits" in mine:
        assert largest_difference(mine["cutLogits"], mine["lastLogits"]) < 1e-12
    return theirs, gaps


GATES = list(sl.gates.GATES)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("every", [1, 3, "joint"])
def test_engine_gives_pytorch_s_values_with_every_gate(engine, gate, every):
    found, _ = compare(engine, every, gate=gate)
    factors = [s for site in found["factors"] for s in site]
    assert 0 in factors and any(s > 0 for s in factors)    # both branches of the gate were taken


@pytest.mark.parametrize("face", ["incoming", "outgoing"])
@pytest.mark.parametrize("gate", ["clamp", "step", "relu_bn"])
@pytest.mark.parametrize("flow", [False, True])
def test_engine_gives_pytorch_s_values_at_both_faces_with_flow_and_without(engine, face, gate, flow):
    for every in (2, "joint"):
        compare(engine, every, gate=gate, face=face, flow=flow)


@pytest.mark.parametrize("who", ["row", "shuffled", "free"])
@pytest.mark.parametrize("switch_inputs", [False, True])
def test_engine_gives_pytorch_s_values_whoever_decides(engine, who, switch_inputs):
    for gate, reads in (("clamp", "incoming"), ("relu_tanh", "outgoing"), ("clamp_centred", "both")):
        compare(engine, 2, who=who, gate=gate, reads=reads, switch_inputs=switch_inputs, flow=who == "shuffled")


@pytest.mark.parametrize("sizes", [(2, 5, 2), (7, 4, 2), (2, 16, 16, 2)], ids=str)
def test_engine_gives_pytorch_s_values_for_other_shapes_and_sgd(engine, sizes):
    compare(engine, 2, sizes=sizes, sgd=True)
    compare(engine, 2, sizes=sizes, steps=30)
