"""What the judge may ask of an answer: call it on a case and hand back plain data. No expected value is in here.

A probe runs inside the sandbox on the student's names, and outside on the reference's: the same few lines for both.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["PROBES", "ask"]

PROBES = {}


def probe(function):
    PROBES[function.__name__] = function
    return function


class Names:
    """The names that an answer defined; one that is missing says so as Python does."""

    def __init__(self, space):
        self.space = space

    def __getattr__(self, name):
        if name not in self.space:
            raise NameError(f"name '{name}' is not defined")
        return self.space[name]


def ask(name, space, arguments):
    """Call one probe with the names in `space`."""
    return PROBES[name](Names(space), **arguments)


def same_tensors(before, after):
    return all(torch.equal(a, b) for a, b in zip(before, after))


@probe
def defined(ns, names):
    return all(name in ns.space for name in names)


# ------------------------------------------------------------------------------------------------------- assignment 1

@probe
def by_hand(ns):
    return {name: getattr(ns, name) for name in ("f_dense", "f_scaled", "arrives", "gone")}


@probe
def proof(ns):
    return {name: list(getattr(ns, name)) for name in ("proof", "exact", "silent")}


@probe
def scale(ns, layers, factors):
    before = [t.clone() for pair in layers for t in pair]
    made = ns.scale([tuple(pair) for pair in layers], list(factors))
    return {"layers": [[W, b] for W, b in made], "unchanged": same_tensors(before, [t for pair in layers for t in pair])}


@probe
def fold_batchnorm(ns, W, b, gamma, beta, mean, var, eps, s):
    W, b = ns.fold_batchnorm(W, b, gamma, beta, mean, var, eps, s)
    return {"W": W, "b": b}


@probe
def cut(ns, K, b, W, keep):
    K, b, W = ns.cut(K, b, W, list(keep))
    return {"K": K, "b": b, "W": W}


@probe
def compact(ns, layers, x, kind):
    before = [t.clone() for pair in layers for t in pair]
    inputs, made = ns.compact([tuple(pair) for pair in layers])
    inputs = [int(i) for i in inputs]
    h = x[:, inputs]
    for i, (W, b) in enumerate(made):
        h = h @ W.T + b
        h = h.relu() if i + 1 < len(made) else h
    return {"widths": [len(inputs), *(len(W) for W, _ in made)], "y": h,
            "unchanged": same_tensors(before, [t for pair in layers for t in pair])}


# ------------------------------------------------------------------------------------------------------- assignment 2

@probe
def numbers(ns):
    return {name: getattr(ns, name) for name in ("standardised", "size", "zero_below")}


@probe
def rows(ns, W, b, kind):
    return {"rows": ns.rows(W, b)}


@probe
def gate(ns, a):
    a.requires_grad_()
    s = ns.gate(a)
    grad = torch.autograd.grad(s.sum(), a, allow_unused=True)[0] if s.requires_grad else None
    return {"s": s, "grad": torch.zeros_like(a) if grad is None else grad}


@probe
def switcher(ns, d, state, W, b, W_new, b_new, order, weights):
    torch.manual_seed(3)
    fresh = ns.Switcher(d)
    shapes = [list(fresh.hidden.weight.shape), list(fresh.out.weight.shape)]

    def build():
        made = ns.Switcher(d)
        with torch.no_grad():
            for p, value in zip((made.hidden.weight, made.hidden.bias, made.out.weight, made.out.bias), state):
                p.copy_(value)
        return made

    def observe():
        made = build()
        factors = made(W, b)
        again = made(W_new, b_new)
        if factors.requires_grad:
            made.zero_grad()
            (build_and_weigh(made)).backward()
        grad = made.hidden.weight.grad
        return {"factors": factors, "again": again, "fresh": build()(W, b), "fresh_new": build()(W_new, b_new),
                "permuted": build()(W[order], b[order]), "grad": torch.zeros(1) if grad is None else grad}

    def build_and_weigh(made):
        return (made(W, b).reshape(-1) * weights).sum()

    own = guarded(observe)
    kept = {name: ns.space.get(name) for name in ("rows", "gate")}
    ns.space["rows"] = lambda W, b: torch.cat([W, b[:, None]], 1)
    ns.space["gate"] = lambda a: a.clamp(min=0)
    try:
        stand_in = guarded(observe)
    finally:
        for name, value in kept.items():
            if value is None:
                ns.space.pop(name)
            else:
                ns.space[name] = value
    if "failed" in own and "failed" in stand_in:
        raise RuntimeError(own["failed"])
    return {"shapes": shapes, "bias": fresh.out.bias, "own": own, "stand_in": stand_in}


@probe
def cost(ns, s1, s2, kind):
    s1.requires_grad_()
    s2.requires_grad_()
    C = ns.cost(s1, s2)
    g1, g2 = torch.autograd.grad(C, (s1, s2), allow_unused=True)
    return {"C": C, "g1": torch.zeros_like(s1) if g1 is None else g1, "g2": torch.zeros_like(s2) if g2 is None else g2}


# ------------------------------------------------------------------------------------------------------- assignment 3

@probe
def scalar(ns):
    return {name: getattr(ns, name) for name in ("held_loss", "flow_loss", "round_loss")}


FUNCTIONS = {"cubic": lambda t: (t ** 3).sum() + t.reshape(-1)[0] * t.reshape(-1)[-1], "sine": lambda t: t.sin().prod(),
             "entropy": lambda t: F.cross_entropy(t.reshape(1, -1), torch.tensor([0]))}


@probe
def differences(ns, function, theta, e):
    before = theta.clone()
    return {"d": ns.differences(FUNCTIONS[function], theta, e), "unchanged": torch.equal(before, theta)}


@probe
def gradients(ns, theta, s, G, v):
    held, factors, flow = ns.gradients(theta, s, G, v)
    return {"held": held, "factors": factors, "flow": flow}


class Task(nn.Module):
    """A small task network; with `norm` it has buffers."""

    def __init__(self, weights, norm):
        super().__init__()
        W1, b1, W2, b2 = weights
        self.fc1 = nn.Linear(W1.shape[1], W1.shape[0])
        self.norm = nn.BatchNorm1d(len(W1)) if norm else nn.Identity()
        self.fc2 = nn.Linear(W2.shape[1], W2.shape[0])
        self.double()
        with torch.no_grad():
            for p, value in zip((self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias), weights):
                p.copy_(value)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x)).relu())


class Scorer(nn.Module):
    """A switcher of one linear score; keeps what it was asked about."""

    def __init__(self, v, c):
        super().__init__()
        self.v, self.c, self.asked = nn.Parameter(v.clone()), nn.Parameter(c.clone()), []

    def forward(self, params):
        W, b = params["fc1.weight"], params["fc1.bias"]
        self.asked.append(W.detach().clone())
        return (torch.cat([W, b[:, None]], 1) @ self.v + self.c).clamp(0, 1)


def flat(parameters):
    return torch.cat([p.detach().reshape(-1) for p in parameters]).clone()


def two(weights, v, c, norm=False):
    return Task(weights, norm), Scorer(v, c)


@probe
def task_step(ns, weights, v, c, x, y, lr):
    tnn, switcher = two(weights, v, c)
    opt = torch.optim.SGD(tnn.parameters(), lr=lr)
    psi = flat(switcher.parameters())
    start = tnn.fc1.weight.detach().clone()
    loss = ns.task_step(tnn, switcher, x, y, opt)
    first, seen = flat(tnn.parameters()), [start]
    seen.append(tnn.fc1.weight.detach().clone())
    switcher.asked.clear()
    ns.task_step(tnn, switcher, x, y, opt)
    live = any(torch.allclose(W, seen[1]) for W in switcher.asked)
    alone = torch.equal(psi, flat(switcher.parameters())) and all(p.grad is None or not p.grad.any() for p in switcher.parameters())
    other, scorer = two(weights, v, c)
    for p in other.parameters():
        p.grad = torch.full_like(p, 7.0)
    ns.task_step(other, scorer, x, y, torch.optim.SGD(other.parameters(), lr=lr))
    return {"theta": first, "loss": float(loss), "live": live, "alone": alone, "dirty": flat(other.parameters())}


@probe
def switcher_step(ns, weights, v, c, x, y, lr, lam):
    def price(s):
        return s.sum() / 10

    found = {}
    for name, cost in (("free", 0.0), ("priced", lam)):
        tnn, switcher = two(weights, v, c)
        theta = flat(tnn.parameters())
        ns.switcher_step(tnn, switcher, x, y, torch.optim.SGD(switcher.parameters(), lr=lr), cost, price)
        found[name] = flat(switcher.parameters())
        found["theta"] = torch.equal(theta, flat(tnn.parameters())) and all(p.grad is None or not p.grad.any() for p in tnn.parameters())
    tnn, switcher = two(weights, v, c)
    for p in switcher.parameters():
        p.grad = torch.full_like(p, 7.0)
    ns.switcher_step(tnn, switcher, x, y, torch.optim.SGD(switcher.parameters(), lr=lr), 0.0, price)
    found["dirty"] = flat(switcher.parameters())
    tnn, switcher = two(weights, v, c, norm=True)
    before = flat(tnn.buffers())
    ns.switcher_step(tnn, switcher, x, y, torch.optim.SGD(switcher.parameters(), lr=lr), 0.0, price)
    found["buffers"] = torch.equal(before, flat(tnn.buffers())) and tnn.training
    return found


@probe
def learn(ns, batches, k, warmup):
    log = []

    def task_step(tnn, switcher, x, y, optimizer):
        log.append(["task", int(y), tnn == "tnn" and switcher == "switcher" and optimizer == "task"])
        return torch.tensor(float(y) / 2)

    def switcher_step(tnn, switcher, x, y, optimizer, lam, C):
        log.append(["switch", int(y), (tnn, switcher, optimizer, lam, C) == ("tnn", "switcher", "switch", 0.5, "C")])
        return torch.tensor(-1.0)

    kept = {name: ns.space.get(name) for name in ("task_step", "switcher_step")}
    ns.space.update(task_step=task_step, switcher_step=switcher_step)
    try:
        stream = [(torch.tensor(10.0 * i), torch.tensor(i)) for i in range(1, batches + 1)]
        losses = ns.learn("tnn", "switcher", iter(stream), "task", "switch", k, 0.5, "C", warmup)
    finally:
        ns.space.update({name: value for name, value in kept.items() if value is not None})
    return {"log": log, "losses": [float(v) for v in losses]}


# ------------------------------------------------------------------------------------------------------- assignment 4

@probe
def one_weight(ns):
    return {name: getattr(ns, name) for name in ("steps_identity", "steps_leaky", "share_leaky")}


@probe
def step(ns, m):
    before = m.clone()
    m.requires_grad_()
    s = ns.step(m)
    weights = torch.arange(1.0, m.numel() + 1, dtype=m.dtype).reshape(m.shape)
    grad = torch.autograd.grad((s * weights).sum(), m, allow_unused=True)[0] if s.requires_grad else None
    grad = torch.zeros_like(m) if grad is None else grad
    return {"s": s, "grad": grad / weights, "unchanged": torch.equal(before, m.detach())}


class Straight(torch.autograd.Function):
    """A stand-in for an answer's own step, so that one mistake is not paid twice."""

    @staticmethod
    def forward(ctx, m):
        return (m > 0).to(m.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def either(ns, name, replacement, observe):
    """What is observed with an answer's own helper, and with ours in its place."""
    found = {"own": guarded(observe)}
    kept = ns.space.get(name)
    ns.space[name] = replacement
    try:
        found["stand_in"] = guarded(observe)
    finally:
        if kept is None:
            ns.space.pop(name)
        else:
            ns.space[name] = kept
    if "failed" in found["own"] and "failed" in found["stand_in"]:
        raise RuntimeError(found["own"]["failed"])
    return found


def guarded(observe):
    try:
        return observe()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


@probe
def masked(ns, x, W, m, b):
    def observe():
        leaves = [t.clone().requires_grad_() for t in (W, m, b)]
        z = ns.masked(x.clone(), *leaves)
        gW, gm, gb = torch.autograd.grad((z * z.detach().cos()).sum(), leaves, allow_unused=True)
        zeros = [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, (gW, gm, gb))]
        return {"z": z, "gW": zeros[0], "gm": zeros[1], "gb": zeros[2],
                "unchanged": same_tensors([t.detach() for t in leaves], [W, m, b])}

    return either(ns, "step", Straight.apply, observe)


@probe
def normalise(ns, u):
    before = u.clone()
    return {"u": ns.normalise(u), "unchanged": torch.equal(before, u)}


def by_rows(u):
    r = u.square().mean(1, keepdim=True).sqrt()
    return torch.where(r > 0, u / r.clamp(min=1e-30), torch.zeros_like(u))


@probe
def update(ns, m, v, G, lr, lam, count):
    def observe():
        given = [t.clone() for t in (m, v, G)]
        made = ns.update(*given, lr, lam, count)
        return {"m": made, "unchanged": same_tensors(given, [m, v, G])}

    return either(ns, "normalise", by_rows, observe)


@probe
def keep_largest(ns, weights, k, kind):
    before = [W.clone() for W in weights]
    masks = ns.keep_largest(list(weights), k)
    return {"masks": [torch.as_tensor(mask).double() for mask in masks], "unchanged": same_tensors(before, weights)}


# ------------------------------------------------------------------------------------------------------- assignment 5

class Bench:
    """Data, first checkpoints and a budget for runs, and a log of what a run used."""

    def __init__(self, splits, hidden, steps, size=32):
        self.splits, self.hidden, self.steps, self.size = splits, hidden, steps, size
        self.log = []

    @property
    def widths(self):
        X, y = self.splits["train"]
        return X.shape[1], self.hidden, int(y.max()) + 1

    def first(self, seed):
        """The first checkpoint of a seed: W1 (n, d), b1 (n,), W2 (o, n), b2 (o,)."""
        g, (d, n, o) = torch.Generator().manual_seed(seed), self.widths
        return [(2 * torch.rand(shape, generator=g) - 1) / fan_in ** 0.5
                for shape, fan_in in (((n, d), d), ((n,), d), ((o, n), n), ((o,), n))]

    def batch(self, seed, t):
        """Training batch t = 1, 2, ... of a seed: x (size, d), y (size,)."""
        self.log.append("batch")
        X, y = self.splits["train"]
        g = torch.Generator().manual_seed(100_003 * seed + t)
        i = torch.randint(len(y), (self.size,), generator=g)
        return X[i], y[i]

    def validation(self):
        self.log.append("validation")
        return self.splits["validation"]

    def test(self):
        self.log.append("test")
        return self.splits["test"]


@probe
def dataset(ns):
    first, second = ns.dataset(), ns.dataset()
    return {"first": {n: list(first[n]) for n in ("train", "validation", "test")},
            "second": {n: list(second[n]) for n in ("train", "validation", "test")}}


@probe
def choose(ns, W, b, k, other, seeds):
    def coin(W):
        return [[int(j) for j in ns.choose("coin", W, b, k, seed)] for seed in seeds]

    return {"magnitude": [int(j) for j in ns.choose("magnitude", W, b, k, seeds[0])], "coin": coin(W), "coin_again": coin(W),
            "coin_other": coin(other)}


@probe
def run(ns, method, seed, k, splits, hidden, steps):
    bench = Bench({name: tuple(part) for name, part in splits.items()}, hidden, steps)
    kept = ns.space.get("choose")
    ns.space["choose"] = lambda method, W, b, k, seed: W.norm(dim=1).topk(k).indices.sort().values.tolist()
    try:
        record = ns.run(method, seed, k, bench)
    finally:
        ns.space["choose"] = kept
    first = Bench(bench.splits, hidden, steps).first(seed)
    return {"record": {name: record[name] for name in ("kept", "parameters", "steps", "test_accuracy", "weights")}, "log": bench.log,
            "first": first}


@probe
def compare(ns, methods, seeds, sizes, fails):
    calls, kept = [], ns.space.get("run")

    def fake(method, seed, k, bench):
        calls.append([method, seed, k])
        # some runs come out badly; they are results like any other
        accuracy = 0.1 if fails and len(calls) % 4 == 0 else 0.9 + 0.01 * (seed % 7)
        return {"method": method, "seed": seed, "k": k, "test_accuracy": accuracy, "kept": list(range(k)), "parameters": 10 * k, "steps": 100,
                "weights": []}

    ns.space["run"] = fake
    try:
        records = ns.compare({"methods": methods, "seeds": seeds, "sizes": sizes}, None)
    finally:
        ns.space["run"] = kept
    return {"records": [[r["method"], r["seed"], r["k"]] for r in records], "calls": calls}


@probe
def summarise(ns, a, b):
    found = ns.summarise(list(a), list(b))
    made = {name: float(found[name]) for name in ("mean_a", "std_a", "mean_b", "std_b", "delta", "half")}
    settled = found["settled"]
    return {**made, "settled": bool(settled) if str(type(settled).__name__).startswith("bool") else str(settled)}
