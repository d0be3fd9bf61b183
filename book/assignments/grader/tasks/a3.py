"""Assignment 3: alternate learning, with gradient checks."""

import numpy as np

from grader.tasks.base import Check, Item, same

TITLE = "Alternate learning"
EXAMPLE = "04-alternate-learning#the-example-to-the-end"
UPDATES = "04-alternate-learning#the-two-updates"
CHECKED = "04-alternate-learning#checked-in-float64"
ALGORITHM = "04-alternate-learning#the-algorithm"
WHOSE = "04-alternate-learning#whose-turn-and-for-how-long"
LEAVE = "04-alternate-learning#leave-the-other-as-it-was"
WRONG = "04-alternate-learning#what-could-go-wrong"


def draw(rng):
    """The course's pair of one weight and one switcher, and its timetable."""
    while True:
        w, v = float(rng.choice([0.5, 0.8, 1.0, 1.2, 1.5])), float(rng.choice([-1.5, -1.2, -0.8, -0.5]))
        c, lr = float(rng.choice([0.8, 1.0, 1.4, 1.6, 1.8])), float(rng.choice([0.05, 0.1, 0.2]))
        target = float(rng.choice([1.0, 1.5, 2.0]))
        s = v * w + c
        r = s * w - target
        if not 0.1 < s < 1.5 or abs(r) < 0.3 or abs(s + w * v) < 0.2:
            continue
        held_w, flow_w = w - lr * 2 * r * s, w - lr * 2 * r * (s + w * v)
        held, flow = (((v * q + c) * q - target) ** 2 for q in (held_w, flow_w))
        r2 = (v * held_w + c) * held_w - target
        v2, c2 = v - lr * 2 * r2 * held_w * held_w, c - lr * 2 * r2 * held_w
        after = ((v2 * held_w + c2) * held_w - target) ** 2
        if min(abs(held - flow), abs(held - after), abs(flow - after)) > 0.01:
            break
    return {"w": w, "v": f"{v:g}", "c": c, "lr": lr, "target": target,
            "held_loss": round(held, 5), "flow_loss": round(flow, 5), "round_loss": round(after, 5)}


class Scalar(Item):
    name, number, title = "scalar", "3.1", "One weight, one factor"
    defines = ("held_loss", "flow_loss", "round_loss")
    checks = {
        "held": Check(1, "the loss after a task step with the factor held", "Held means: in the derivative the factor is a constant, so it "
                      "is 2rs. The loss afterwards is with the factor that answers the new weight.", EXAMPLE),
        "flow": Check(1, "the loss after a task step with the full derivative", "If the factor will answer, the product rule adds 2r·w·v.",
                      EXAMPLE),
        "round": Check(1, "the loss after the held step and the switcher's", "The switcher's step starts from the weight that the task step "
                       "has left: derivatives 2rw·(w, 1), with the new residual.", EXAMPLE),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        return {"held": same(got["held_loss"], course["held_loss"], 2e-3), "flow": same(got["flow_loss"], course["flow_loss"], 2e-3),
                "round": same(got["round_loss"], course["round_loss"], 2e-3)}


class Differences(Item):
    name, number, title = "differences", "3.2", "A derivative without calculus"
    defines = ("differences",)
    checks = {
        "central": Check(1.5, "central differences of three functions, at a large and a small ε", "A central difference looks to both sides and "
                         "divides by 2ε: its error falls with ε², that of a one-sided one with ε.", CHECKED),
        "shape": Check(1, "parameters that are vectors and matrices", "Each entry is moved alone, and its derivative stands in its place.",
                       CHECKED),
        "copies": Check(0.5, "whether the parameters are the same afterwards", "Move a copy. Adding ε and taking it off again leaves rounding "
                        "behind, and an error in between leaves ε.", CHECKED),
    }

    def cases(self, rng, course):
        for function, shape, e in (("cubic", (4,), 0.05), ("sine", (2, 3), 1e-4), ("entropy", (3,), 0.1), ("cubic", (3, 2), 1e-3)):
            yield {"function": function, "theta": rng.uniform(0.4, 1.6, shape), "e": e}

    def check(self, case, got, want, course):
        mine, right = np.asarray(got["d"], dtype=float), np.asarray(want["d"], dtype=float)
        flat = mine.size == right.size and np.allclose(mine.reshape(-1), right.reshape(-1), rtol=0, atol=1e-7)
        return {"central": flat if case["theta"].ndim == 1 else True, "copies": got["unchanged"] is True,
                "shape": mine.shape == right.shape and (case["theta"].ndim == 1 or np.allclose(mine, right, atol=20 * case["e"]))}


class Gradients(Item):
    name, number, title = "gradients", "3.3", "Three gradients by hand"
    defines = ("gradients",)
    checks = {
        "held": Check(1, "the weights' gradient with the factors held", "The weights' gradient is multiplied by the factor: s̄ⱼ Gⱼ.", UPDATES),
        "factors": Check(1, "the factors' gradient", "The factor's gradient is made of the weights: the sum of θⱼ·Gⱼ over the neuron's "
                         "parameters.", UPDATES),
        "flow": Check(1, "the weights' gradient where the factors answer", "Without detach a term is added: ∂L/∂sⱼ times ∂sⱼ/∂θⱼ, which is v "
                      "for a linear score inside the clamp and 0 where it is off.", UPDATES),
    }

    def cases(self, rng, course):
        for n, d in ((4, 3), (3, 6), (5, 2)):
            s = rng.uniform(0.1, 0.9, n)
            s[int(rng.integers(n))] = 0
            yield {"theta": rng.standard_normal((n, d)), "s": s, "G": rng.standard_normal((n, d)), "v": rng.standard_normal(d)}

    def check(self, case, got, want, course):
        on = case["s"] > 0
        extra = np.asarray(got["flow"], dtype=float) - np.asarray(got["held"], dtype=float)     # so that a wrong `held` costs once
        right = np.asarray(want["flow"], dtype=float) - np.asarray(want["held"], dtype=float)
        flow = same(got["flow"], want["flow"], 1e-9) or (same(extra, right, 1e-9) and not extra[~on].any())
        return {"held": same(got["held"], want["held"], 1e-9), "factors": same(got["factors"], want["factors"], 1e-9), "flow": flow}


def nets(rng, n=4, d=3, o=3, batch=8):
    """A task network and a linear scorer whose scores lie inside the clamp, one of them off."""
    while True:
        weights = [rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal((o, n)), rng.standard_normal(o)]
        v, c = 0.2 * rng.standard_normal(d + 1), np.float64(0.5)
        a = np.column_stack([weights[0], weights[1]]) @ v + c
        if ((a > 0.1) & (a < 0.9)).all():
            return {"weights": weights, "v": v, "c": np.array(c), "x": rng.standard_normal((batch, d)),
                    "y": rng.integers(0, o, batch).astype(np.int64)}


class TaskStep(Item):
    name, number, title = "task_step", "3.4", "The task network's step"
    defines = ("task_step",)
    checks = {
        "held": Check(1.5, "the weights after one step", "In the task network's step the factors are held: their value is used, no derivative "
                      "goes through them.", UPDATES),
        "live": Check(1, "a second step", "The factors are those of the weights as they are now: ask the switcher in every step.", WHOSE),
        "alone": Check(0.5, "the switcher after the step", "The task network's step leaves the switcher alone: its parameters and their "
                       "gradients.", WRONG),
        "cleared": Check(1, "a step that finds old gradients", "Gradients add up. Clear them before backward, not after the step of somebody "
                         "else.", WRONG),
    }

    def cases(self, rng, course):
        for _ in range(3):
            yield {**nets(rng), "lr": float(rng.uniform(0.1, 0.5))}

    def check(self, case, got, want, course):
        return {"held": same(got["theta"], want["theta"], 1e-7), "live": got["live"] is True, "alone": got["alone"] is True,
                "cleared": same(got["dirty"], got["theta"], 1e-9)}


class SwitcherStep(Item):
    name, number, title = "switcher_step", "3.5", "The switcher's step"
    defines = ("switcher_step",)
    checks = {
        "moves": Check(1, "the switcher after a step without a price", "The loss reaches ψ through the factors: they must not be detached "
                       "here, and the task network must not run under no_grad.", UPDATES),
        "price": Check(1, "the switcher after a step with a price", "The switcher descends L + λC(s); the price is its own, the task network "
                       "does not pay it.", UPDATES),
        "theta": Check(0.5, "the task network after the step", "In the switcher's step θ is held: detach the parameters that it reads and "
                       "that run.", ALGORITHM),
        "buffers": Check(1, "a task network with a BatchNorm, in training mode", "No detach protects a buffer. Run the task network on copies "
                         "of its buffers, and leave it in training mode.", LEAVE),
        "cleared": Check(0.5, "a step that finds old gradients", "Gradients add up. Clear ψ's before backward.", WRONG),
    }

    def cases(self, rng, course):
        for _ in range(3):
            yield {**nets(rng), "lr": float(rng.uniform(0.1, 0.5)), "lam": float(rng.uniform(1, 3))}

    def check(self, case, got, want, course):
        step = np.asarray(got["priced"], dtype=float) - np.asarray(got["free"], dtype=float)      # what the price alone adds
        right = np.asarray(want["priced"], dtype=float) - np.asarray(want["free"], dtype=float)
        return {"moves": same(got["free"], want["free"], 1e-7), "price": same(step, right, 1e-7), "theta": got["theta"] is True,
                "buffers": got["buffers"] is True, "cleared": same(got["dirty"], got["free"], 1e-9)}


class Learn(Item):
    name, number, title = "learn", "3.6", "By turns"
    defines = ("learn",)
    checks = {
        "turns": Check(1, "which network steps when", "By turns: a task step on every batch, and after it the switcher's, where it is its "
                       "turn.", ALGORITHM),
        "every": Check(0.75, "the batches after which the switcher steps", "It is the switcher's turn where k divides t, and t counts from 1; "
                       "during the warm-up it has none.", WHOSE),
        "batch": Check(0.75, "the batch that the switcher gets", "The switcher's step uses the batch of the task step before it, and the "
                       "weights that this step has just changed.", ALGORITHM),
        "losses": Check(0.5, "the record that comes back", "One task loss per batch, in their order.", ALGORITHM),
    }

    def cases(self, rng, course):
        drawn = tuple(int(rng.integers(low, high)) for low, high in ((12, 41), (2, 6), (1, 9)))
        for batches, k, warmup in ((7, 1, 0), (9, 3, 0), (10, 2, 5), (9, 4, 3), drawn):
            yield {"batches": batches, "k": k, "warmup": warmup}

    def check(self, case, got, want, course):
        log = [(kind, batch) for kind, batch, _ in got["log"]]
        right = [(kind, batch) for kind, batch, _ in want["log"]]
        tasks = [batch for kind, batch in log if kind == "task"]
        switches = [batch for kind, batch in log if kind == "switch"]
        # where in the sequence of task steps the switcher's steps fall
        after = [sum(k == "task" for k, _ in log[:i]) for i, (kind, _) in enumerate(log) if kind == "switch"]
        right_after = [sum(k == "task" for k, _ in right[:i]) for i, (kind, _) in enumerate(right) if kind == "switch"]
        return {"turns": tasks == list(range(1, case["batches"] + 1)) and bool(switches) and all(ok for *_, ok in got["log"])
                and all(n == 1 for n in _runs(log)),
                "every": after == right_after, "batch": switches == [log_before(log, i) for i, (k, _) in enumerate(log) if k == "switch"],
                "losses": same(got["losses"], want["losses"])}


def _runs(log):
    """How many switcher steps follow each other."""
    runs, last = [], None
    for kind, _ in log:
        if kind == "switch":
            runs = [*runs[:-1], runs[-1] + 1] if last == "switch" else [*runs, 1]
        last = kind
    return runs


def log_before(log, i):
    """The batch of the last task step before entry i."""
    return next((batch for kind, batch in reversed(log[:i]) if kind == "task"), None)


ITEMS = [Scalar(), Differences(), Gradients(), TaskStep(), SwitcherStep(), Learn()]
