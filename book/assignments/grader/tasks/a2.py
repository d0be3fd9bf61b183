"""Assignment 2: a switcher and its gate."""

import numpy as np

from grader.tasks.base import Check, Item, normal, same, whole

TITLE = "A switcher and its gate"
ROWS = "03-reading-weights#from-a-weight-matrix-to-rows"
SWITCHER = "03-reading-weights#the-row-switcher"
GATES = "03-reading-weights#gates-how-a-score-becomes-a-factor"
ORDER = "03-reading-weights#what-order-means"
ALGORITHM = "04-alternate-learning#the-algorithm"


def draw(rng):
    """The course's gate, widths and by-hand numbers."""
    slope = round(float(rng.choice([rng.uniform(0.4, 0.9), rng.uniform(1.1, 1.7)])), 2)
    shift = round(float(rng.choice([-1, 1]) * rng.uniform(0.08, 0.35)), 2)
    top = round(float(rng.choice([rng.uniform(0.7, 0.9), rng.uniform(1.1, 1.6)])), 1)
    hidden, bias = int(rng.integers(5, 13)), round(float(rng.uniform(0.2, 0.7)), 2)
    d, n1, n2, o = (int(rng.integers(low, high)) for low, high in ((30, 60), (20, 40), (10, 20), (3, 9)))
    while True:
        two = np.array(whole(rng, -4, 4, (2, 3), zero=False))
        if two.std() > 1.5 and len(set(np.abs(two).sum(1))) == 2:
            break
    size = (d + 1) * hidden + hidden + hidden + 1 + (n1 + 1) * hidden + hidden + hidden + 1
    gate_in = round((0.5 * top - shift) / slope, 1)
    return {"slope": slope, "gate_in": gate_in, "gate_out": round(slope * gate_in + shift, 6), "shift": shift, "top": top, "hidden": hidden, "bias": bias, "d": d, "n1": n1, "n2": n2, "o": o,
            "network": f"{d}-{n1}-{n2}-{o}", "count": d * n1 + n1 + n1 * n2 + n2 + n2 * o + o,
            "two": "\\begin{pmatrix} " + " \\\\ ".join(" & ".join(f"{v:g}" for v in row) for row in two) + " \\end{pmatrix}",
            "standardised": round(float(two[0, 0] / two.std()), 4), "size": size,
            "zero_below": round(-shift / slope, 4),
            "shifted": f"{'+' if shift > 0 else '-'} {abs(shift):g}"}


class Numbers(Item):
    name, number, title = "numbers", "2.1", "By hand"
    defines = ("standardised", "size", "zero_below")
    checks = {
        "standardised": Check(1, "one entry of the standardised rows", "All entries are divided by one number, the standard deviation "
                              "over the whole block, bias column included; the mean stays in.", ROWS),
        "size": Check(1, "the number of the switcher's parameters", "Each site has its own two-layer perceptron: weights and biases of "
                      "both layers, and the row has d + 1 entries.", SWITCHER),
        "zero_below": Check(1, "the score at which the gate reaches 0", "A gate is off on a whole range of scores: solve g(a) = 0.", GATES),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        return {"standardised": same(got["standardised"], course["standardised"], 2e-3), "size": same(got["size"], course["size"], 1e-9),
                "zero_below": same(got["zero_below"], course["zero_below"], 2e-3)}


class Rows(Item):
    name, number, title = "rows", "2.2", "Rows for a switcher"
    defines = ("rows",)
    checks = {
        "bias": Check(1, "the bias as one more column", "Row j is all that the layer knows of neuron j: its weights and its bias.", ROWS),
        "layer": Check(1, "rows of different size", "Divide all rows by one number. Per row, or with the mean taken out, large and small "
                       "neurons can no longer be told apart.", ROWS),
        "std": Check(0.5, "the number that is divided by", "It is the standard deviation over all n(d+1) entries, divided by their count "
                     "(unbiased=False).", ROWS),
        "zeros": Check(0.5, "a layer of zeros", "ε keeps a layer of zeros at zeros; without it 0/0 gives NaN, and NaN spreads.", ROWS),
    }

    def cases(self, rng, course):
        for n, d in ((4, 3), (7, 10), (2, 1)):
            yield {"W": normal(rng, n, d) * np.float32(rng.uniform(0.05, 3)) + np.float32(0.3), "b": normal(rng, n), "kind": "some"}
        yield {"W": np.zeros((3, 4), np.float32), "b": np.zeros(3, np.float32), "kind": "zeros"}

    def check(self, case, got, want, course):
        made, raw = np.asarray(got["rows"], dtype=float), np.column_stack([case["W"], case["b"]]).astype(float)
        if case["kind"] == "zeros":
            return {"zeros": bool(np.isfinite(made).all()) and not made.any()}
        if made.shape != raw.shape:
            return {"bias": False, "layer": False, "std": False}
        scales = made / raw
        return {"bias": np.allclose(scales[:, -1], scales[:, 0], rtol=1e-3), "layer": np.allclose(scales, scales[0, 0], rtol=1e-3),
                "std": np.allclose(scales, 1 / raw.std(), rtol=1e-3)}


class Gate(Item):
    name, number, title = "gate", "2.3", "The gate"
    defines = ("gate",)
    checks = {
        "zeros": Check(1, "scores below the point where the gate reaches 0, and at it", "Off means exactly 0, not nearly: only then can a "
                       "neuron be cut out.", GATES),
        "values": Check(1, "factors between 0 and the top, and at the top", "The gate is the straight line of your course, held between 0 "
                        "and its top.", GATES),
        "slope": Check(1, "the gradient between 0 and the top", "Between its bounds the gate's gradient is the line's slope.", GATES),
        "above": Check(1, "the gradient above the top", "Above the top the gradient goes straight through, so that a factor at its bound "
                       "can come down again.", GATES),
        "below": Check(1, "the gradient where the gate is off", "Where this gate is off its gradient is 0: off is absorbing.", GATES),
    }

    def cases(self, rng, course):
        low, high = -course["shift"] / course["slope"], (course["top"] - course["shift"]) / course["slope"]
        parts = {"below": low - rng.uniform(0.05, 3, 6), "inside": rng.uniform(low + 0.02, high - 0.02, 6),
                 "above": high + rng.uniform(0.05, 3, 6)}
        for shape in ((18,), (3, 6)):
            a = np.concatenate(list(parts.values())).reshape(shape)
            yield {"a": a.astype(np.float64)}

    def check(self, case, got, want, course):
        s, grad, right = (np.asarray(v, dtype=float).reshape(-1) for v in (got["s"], got["grad"], want["s"]))
        below, inside, above = slice(0, 6), slice(6, 12), slice(12, 18)
        return {"zeros": len(s) == 18 and not s[below].any() and bool(np.isfinite(s).all()),
                "values": same(s[6:], right[6:], 1e-6) and np.shape(got["s"]) == case["a"].shape,
                "slope": same(grad[inside], np.full(6, course["slope"]), 1e-6), "above": same(grad[above], np.full(6, course["slope"]), 1e-6),
                "below": same(grad[below], np.zeros(6), 1e-6)}


class Switcher(Item):
    name, number, title = "switcher", "2.4", "The switcher"
    defines = ("Switcher",)
    checks = {
        "start": Check(1, "the shapes of its layers, and the score's bias at the start", "The last bias decides how many neurons are on "
                       "before anything is learned; the hidden width is the course's.", SWITCHER),
        "scores": Check(2, "factors of layers of several sizes, from given parameters", "One perceptron is shared by all rows of a layer: "
                        "rows in, one score per neuron, then the gate; the result has the shape (n,).", SWITCHER),
        "live": Check(1, "the same switcher asked again after the weights have changed", "Factors are computed from the weights as they "
                      "are now. A factor that is kept from an earlier call is stale.", ALGORITHM),
        "order": Check(1, "a layer with its neurons in another order", "The same perceptron reads every row, so each neuron keeps its own "
                       "factor in any order: the switcher is equivariant.", ORDER),
        "learns": Check(1, "the gradient of the switcher's parameters", "The loss must reach ψ through the factors: no detach, no no_grad "
                        "inside the switcher.", ALGORITHM),
    }

    def cases(self, rng, course):
        m = course["hidden"]
        for n, d in ((5, 4), (9, 2), (1, 6)):
            yield {"d": d, "state": [normal(rng, m, d + 1), normal(rng, m), normal(rng, 1, m) * np.float32(0.6), np.float32([0.4])],
                   "W": normal(rng, n, d), "b": normal(rng, n), "W_new": normal(rng, n, d), "b_new": normal(rng, n),
                   "order": rng.permutation(n).tolist(), "weights": normal(rng, n)}

    def check(self, case, got, want, course):
        # `own`: with the student's rows and gate; `stand_in`: with ours. Either counts, so that one mistake is not paid twice.
        ways = [how for how in ("own", "stand_in") if "failed" not in got[how]]
        return {"start": got["shapes"] == want["shapes"] and same(got["bias"], want["bias"]),
                "scores": any(same(got[how]["factors"], want[how]["factors"]) for how in ways),
                "live": any(_close(got[how]["again"], got[how]["fresh_new"]) for how in ways),
                "order": any(_close(got[how]["permuted"], np.asarray(got[how]["fresh"])[case["order"]]) for how in ways),
                "learns": any(same(got[how]["grad"], want[how]["grad"]) or _alive(got[how]["grad"]) for how in ways)}


def _close(one, two):
    one, two = np.asarray(one, dtype=float), np.asarray(two, dtype=float)
    return one.shape == two.shape and np.allclose(one, two, atol=1e-5)


def _alive(grad):
    made = np.asarray(grad, dtype=float)
    return made.size > 1 and bool(np.isfinite(made).all()) and bool(np.abs(made).max() > 1e-7)


class Cost(Item):
    name, number, title = "cost", "2.5", "The price"
    defines = ("cost",)
    checks = {
        "value": Check(1.5, "factors between 0 and 1", "A weight counts by how far both its ends are on; biases count with their neuron, "
                       "the outputs' biases always.", ALGORITHM),
        "clip": Check(1, "factors above 1", "A neuron that is fully on counts as one neuron, however large its factor is.", ALGORITHM),
        "slope": Check(0.5, "the gradient with respect to the factors", "Below 1 the price's gradient is what the neuron's parameters "
                       "count; from 1 on it is 0.", ALGORITHM),
    }

    def cases(self, rng, course):
        for kind in ("value", "value", "clip"):
            s1, s2 = rng.uniform(0, 0.95, course["n1"]), rng.uniform(0, 0.95, course["n2"])
            s1[:3] = 0
            if kind == "clip":
                s1[3:7] = rng.uniform(1.1, 3, 4)
                s2[:2] = 1.7
            yield {"s1": s1, "s2": s2, "kind": kind}

    def check(self, case, got, want, course):
        right = same(got["C"], want["C"], 1e-6) and np.shape(got["C"]) == ()
        slope = same(got["g1"], want["g1"], 1e-6) and same(got["g2"], want["g2"], 1e-6)
        return {case["kind"]: right, **({"slope": slope} if case["kind"] == "value" else {})}


ITEMS = [Numbers(), Rows(), Gate(), Switcher(), Cost()]
