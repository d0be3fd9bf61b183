"""Assignment 4: masks with an invented gradient (SCL)."""

import math

import numpy as np

from grader.tasks.base import Check, Item, normal, same

TITLE = "Masks and straight-through"
STEP = "08-scl#a-step-has-nothing-to-say"
INVENTED = "08-scl#the-invented-derivative"
WHISPER = "08-scl#small-neurons-whisper"
PRICE = "08-scl#the-price-of-a-connection"
CODE = "08-scl#scl-in-code"
RULES = "10-comparison#rules-of-this-book-s-comparison"


def draw(rng):
    """The course's proxy and its one-weight problem."""
    leak = round(float(rng.uniform(0.04, 0.3)), 2)
    while True:
        best, v = float(rng.choice([1.0, 1.5, 2.0])), float(rng.choice([0.6, 0.9, 1.1, 1.4]))
        m0, lr = -round(float(rng.uniform(0.2, 0.9)), 2), float(rng.choice([0.05, 0.1, 0.2]))
        per_step = lr * best * v
        steps = [-m0 / (per_step * slope) for slope in (1.0, leak)]
        without = [q * v / best for q in steps]          # the push taken without the weight must give another answer
        if v < best and all(0.1 < q % 1 < 0.9 and 1.5 < q < 400 and math.ceil(q) != math.ceil(r) for q, r in zip(steps, without)):
            break
    ratio = float(rng.choice([1.5, 2.5, 3.0, 4.0]))
    return {"leak": leak, "best": best, "v": v, "m0": m0, "lr": lr, "ratio": ratio,
            "steps_identity": math.ceil(steps[0]), "steps_leaky": math.ceil(steps[1]),
            "share_leaky": round(leak / (leak + ratio - 1), 5)}


class OneWeight(Item):
    name, number, title = "one_weight", "4.1", "One weight, one switch"
    defines = ("steps_identity", "steps_leaky", "share_leaky")
    checks = {
        "identity": Check(1, "the steps until the connection is on, identity proxy", "While it is off, every step adds η'·w*·v to m; it is on "
                          "when m is above 0, not when it is 0.", INVENTED),
        "leaky": Check(1, "the steps until it is on, your course's proxy", "The proxy's slope on the off side multiplies each step.", INVENTED),
        "share": Check(1, "the share of steps that it is on, where the weight is too large", "With ζ > 1 neither state lasts; balance the two "
                       "pushes, each with the proxy's slope on its own side.", INVENTED),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        return {"identity": same(got["steps_identity"], course["steps_identity"], 1e-9),
                "leaky": same(got["steps_leaky"], course["steps_leaky"], 1e-9), "share": same(got["share_leaky"], course["share_leaky"], 2e-3)}


class Step(Item):
    name, number, title = "step", "4.2", "A step with a gradient"
    defines = ("step",)
    checks = {
        "values": Check(1, "mask variables above and below 0", "Forward runs the true step: exactly 0 and 1.", STEP),
        "zero": Check(0.5, "a mask variable of exactly 0", "H(0) = 0: a connection must earn its place.", STEP),
        "on": Check(0.5, "the gradient where it is on", "Backward uses the proxy's slope in the place of H'; where the mask is on that is 1.",
                    INVENTED),
        "off": Check(1.5, "the gradient where it is off", "Where the mask is off the slope is the proxy's, above 0: with 0 there, off would "
                     "last for ever.", INVENTED),
        "copies": Check(0.5, "whether m is the same afterwards", "Write into a new tensor: m is a parameter, and autograd needs it as it was.",
                        CODE),
    }

    def cases(self, rng, course):
        for shape in ((7,), (3, 5)):
            m = rng.uniform(0.05, 2, shape) * np.where(rng.random(shape) < 0.5, -1, 1)
            m.reshape(-1)[:3] = [0.0, 0.4, -0.4]
            yield {"m": m}

    def check(self, case, got, want, course):
        m, s, grad = case["m"], np.asarray(got["s"], dtype=float), np.asarray(got["grad"], dtype=float)
        if s.shape != m.shape:
            return dict.fromkeys(self.checks, False)
        return {"values": bool((s[m > 0] == 1).all() and (s[m < 0] == 0).all()), "zero": bool((s[m == 0] == 0).all()),
                "on": np.allclose(grad[m > 0], 1), "off": np.allclose(grad[m < 0], course["leak"]), "copies": got["unchanged"] is True}


def _either(got, want, *names, tol=1e-5):
    """Right with the student's own helper or with ours in its place."""
    return any("failed" not in got[how] and all(same(got[how][n], want[how][n], tol) for n in names) for how in ("own", "stand_in"))


class Masked(Item):
    name, number, title = "masked", "4.3", "A masked layer"
    defines = ("masked",)
    checks = {
        "output": Check(1, "the layer's output", "What runs is w = v ⊙ H(m): masks multiply weights, one each.", STEP),
        "bias": Check(0.75, "the bias of a neuron without connections", "Biases have no mask.", STEP),
        "weights": Check(0.75, "the gradient of the weights", "∂L/∂v = G ⊙ H(m): the loss teaches a connection that is off nothing.", STEP),
        "masks": Check(1, "the gradient of the masks", "∂L/∂m := G ⊙ v times the proxy's slope: it must reach m through `step`, for "
                       "connections that are off as well.", INVENTED),
        "copies": Check(0.5, "whether weights and masks are the same afterwards", "w is a new tensor in every run. Storing it into v destroys "
                        "the weights that are off.", CODE),
    }

    def cases(self, rng, course):
        for n, d in ((3, 4), (5, 2)):
            m = rng.standard_normal((n, d))
            m[int(rng.integers(n))] = -0.5
            yield {"x": normal(rng, 6, d), "W": normal(rng, n, d), "m": m.astype(np.float32), "b": normal(rng, n)}

    def check(self, case, got, want, course):
        dead = (case["m"] <= 0).all(1)

        def column(found, which):
            z = np.asarray(found["z"], dtype=float)
            return z[:, which] if z.ndim == 2 else z

        def part(which):
            return any("failed" not in got[how] and same(column(got[how], which), column(want[how], which)) for how in ("own", "stand_in"))

        fine = {how: "failed" not in got[how] for how in ("own", "stand_in")}
        off = case["m"] <= 0
        return {"output": part(~dead), "bias": part(dead),
                "weights": any(fine[h] and not np.asarray(got[h]["gW"])[off].any() and np.asarray(got[h]["gW"])[~off].any() for h in fine),
                "masks": any(fine[h] and np.asarray(got[h]["gm"])[off & (np.abs(case["W"]) > 1e-3)].any() for h in fine),
                "copies": any(fine[h] and got[h]["unchanged"] is True for h in fine)}


class Normalise(Item):
    name, number, title = "normalise", "4.4", "Small neurons whisper"
    defines = ("normalise",)
    checks = {
        "rms": Check(1, "one row", "Divide by the root of the mean of the squares, not by their sum's root, and without taking the mean out.",
                     WHISPER),
        "rows": Check(1, "rows of very different size", "Each row has its own divisor: that is what lets a quiet neuron be heard.", WHISPER),
        "zeros": Check(1, "a row of zeros", "A row without any gradient stays 0: 0/0 is NaN, and NaN reaches every mask.", WHISPER),
    }

    def cases(self, rng, course):
        yield {"u": normal(rng, 1, 6) + np.float32(0.4)}
        for n, d in ((4, 3), (3, 8)):
            yield {"u": normal(rng, n, d) * (10.0 ** rng.integers(-4, 3, (n, 1))).astype(np.float32)}
        u = normal(rng, 4, 5)
        u[1] = 0
        yield {"u": u}

    def check(self, case, got, want, course):
        made, right = np.asarray(got["u"], dtype=float), np.asarray(want["u"], dtype=float)
        if made.shape != right.shape:
            return dict.fromkeys(self.checks, False)
        if len(right) == 1:
            return {"rms": np.allclose(made, right, rtol=1e-4, atol=1e-6)}
        zero = ~case["u"].any(1)
        if zero.any():
            return {"zeros": bool(np.isfinite(made).all()) and not made[zero].any()}
        # one factor per row is asked for here; which one it is, the single row has shown
        size, want_size = np.abs(made).mean(1), np.abs(right).mean(1)
        return {"rows": bool(np.isfinite(made).all()) and np.allclose(size / size[0], want_size / want_size[0], rtol=0.05)}


class Update(Item):
    name, number, title = "update", "4.5", "A step of the masks"
    defines = ("update",)
    checks = {
        "direction": Check(1, "steps without a price", "Down the normalised gradient u = G ⊙ v, for connections that are on and for those that "
                           "are off.", INVENTED),
        "price": Check(1.5, "what the price adds", "Every mask pays λ/|θ|, after the normalisation: inside, the rows that need the price most "
                       "would hide it.", PRICE),
        "copies": Check(0.5, "whether what came in is the same afterwards", "Return a new tensor; an in-place change of a parameter breaks "
                        "autograd.", CODE),
    }

    def cases(self, rng, course):
        for n, d, lam in ((3, 4, 0.0), (4, 2, 0.0), (3, 4, 20.0), (5, 3, 7.0)):
            m = rng.standard_normal((n, d))
            yield {"m": m, "v": rng.standard_normal((n, d)), "G": rng.standard_normal((n, d)), "lr": float(rng.uniform(0.05, 0.3)),
                   "lam": lam, "count": int(rng.integers(20, 60))}

    def check(self, case, got, want, course):
        copies = any("failed" not in got[h] and got[h]["unchanged"] is True for h in got)
        if case["lam"] == 0:
            return {"direction": _either(got, want, "m", tol=1e-8), "copies": copies}
        return {"price": self._paid(case, got), "copies": copies}

    def _paid(self, case, got):
        """What was paid beyond the answer's own normalised step, which `direction` judges."""
        u = case["G"] * case["v"]
        hat = u / np.sqrt((u ** 2).mean(1, keepdims=True))
        paid = case["lr"] * case["lam"] / case["count"]
        for how in ("own", "stand_in"):
            if "failed" in got[how]:
                continue
            moved = case["m"] - np.asarray(got[how]["m"], dtype=float)
            if any(np.allclose(moved - case["lr"] * sign * part, paid, atol=1e-8) for part in (hat, u, case["G"]) for sign in (1, -1)):
                return True
        return False


class KeepLargest(Item):
    name, number, title = "keep_largest", "4.6", "The control: magnitude"
    defines = ("keep_largest",)
    checks = {
        "largest": Check(1.5, "which connections of one layer stay", "Magnitude keeps the largest |w|; large negative weights are large.", RULES),
        "count": Check(0.75, "exactly k connections, ties included", "A comparison at equal size needs exactly k: a threshold lets ties in.",
                       RULES),
        "all": Check(0.75, "several layers together", "All layers compete for the k places: nobody has a share of its own.", RULES),
    }

    def cases(self, rng, course):
        yield {"weights": [normal(rng, 5, 4)], "k": 7, "kind": "one"}
        yield {"weights": [normal(rng, 3, 9)], "k": 1, "kind": "one"}
        yield {"weights": [np.float32([[1, -1, 1], [2, -2, 1]]), np.float32([[1, -1]])], "k": 5, "kind": "ties"}
        yield {"weights": [np.zeros((2, 3), np.float32)], "k": 4, "kind": "ties"}
        yield {"weights": [3 * normal(rng, 4, 3), normal(rng, 2, 4), 0.2 * normal(rng, 5, 2)], "k": 12, "kind": "all"}

    def check(self, case, got, want, course):
        masks = [np.asarray(m, dtype=float) for m in got["masks"]]
        shaped = [m.shape for m in masks] == [W.shape for W in case["weights"]] and all(np.isin(m, (0, 1)).all() for m in masks)
        if not shaped:
            return dict.fromkeys({"one": ["largest"], "ties": ["count"], "all": ["all"]}[case["kind"]], False)
        if case["kind"] == "ties":
            return {"count": sum(m.sum() for m in masks) == case["k"]}
        sizes = np.concatenate([np.abs(W).reshape(-1) for W in case["weights"]])
        kept = np.concatenate([m.reshape(-1) for m in masks]) > 0
        if case["kind"] == "one":
            return {"largest": sizes[kept].min(initial=np.inf) >= sizes[~kept].max(initial=0)}
        # which of each layer is largest, the single layers have shown; here, how many places each layer gets
        order = np.sort(sizes)[::-1][case["k"] - 1]
        return {"all": [int(m.sum()) for m in masks] == [int((np.abs(W) >= order).sum()) for W in case["weights"]]}


ITEMS = [OneWeight(), Step(), Masked(), Normalise(), Update(), KeepLargest()]
