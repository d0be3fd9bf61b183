"""Assignment 1: scale, fold, remove; by hand, with the proof of exactness."""

import numpy as np

from grader.tasks.base import Check, Item, normal, same, whole

TITLE = "Scale, fold, remove"
FACES = "02-scaling-factors#when-do-the-two-faces-agree"
ZERO = "02-scaling-factors#at-zero-what-vanishes-and-what-stays"
ONE = "02-scaling-factors#one-neuron-one-factor"
COUNT = "02-scaling-factors#counting-what-goes-with-a-neuron"
REMOVE = "06-compaction#when-may-a-neuron-go"
ROUNDS = "06-compaction#until-nothing-more-can-go"
LABELS = "06-compaction#labels-the-same-for-any-graph"

HOMOGENEOUS = {"ReLU": 0.0, "leaky ReLU": 0.0, "absolute value": 0.0, "identity": 0.0}
OTHERS = {"tanh": 0.0, "GELU": 0.0, "ReLU6": 0.0, "square": 0.0, "sigmoid": 0.5, "softplus": 0.69}
REASONS = {
    "factor": "the factor multiplies row *and* bias, so it can be taken out of the sum",
    "z": "this is what $z_j$ stands for",
    "homogeneous": "$\\varphi$ is positively homogeneous, and $s_j \\ge 0$",
    "order": "products of numbers may be grouped and ordered differently, and $h_j = \\varphi(z_j)$",
    "term": "a term that is 0 for every input can be left out of a sum",
    "linear": "$\\varphi$ is linear, so $\\varphi(a + b) = \\varphi(a) + \\varphi(b)$",
    "increasing": "$\\varphi$ never decreases",
    "tested": "no difference was seen on the test images",
}
STEPS = ["factor", "z", "homogeneous", "order", "term"]


def draw(rng):
    """The course's numbers: a 2-3-2 network for paper, the letters of the proof, a list of activations."""
    while True:
        W1, b1 = np.array(whole(rng, -3, 3, (3, 2), zero=False)), np.array(whole(rng, -2, 2, (3,), zero=False))
        W2, b2 = np.array(whole(rng, -3, 3, (2, 3), zero=False)), np.array(whole(rng, -2, 2, (2,)))
        x = np.array(whole(rng, 1, 4, (2,)))
        s = rng.permutation([0.0, 0.5, float(rng.integers(2, 4))])
        z = W1 @ x + b1
        # Each mistake must show: the neurons with factors 0 and 2 or 3 are on, and every layer's answer differs
        if (z > 0).sum() >= 2 and z[s == 0] > 0 and z[s > 1] > 0:
            f, scaled = W2 @ np.maximum(z, 0) + b2, W2 @ (s * np.maximum(z, 0)) + b2
            forgotten = W2 @ np.maximum(s[:, None] * W1 @ x + b1, 0) + b2
            if np.abs(f - scaled).min() > 0.4 and np.abs(forgotten - scaled).min() > 0.4:
                break
    off = int(np.argmin(s))
    d, n, o = int(rng.integers(20, 60)), int(rng.integers(12, 30)), int(rng.integers(3, 10))
    gone = int(rng.integers(3, 9))
    letters = rng.permutation(list("ABCDEFGH")).tolist()
    letter = dict(zip(REASONS, letters))
    by_letter = {v: k for k, v in letter.items()}
    names = rng.permutation([*rng.choice(list(HOMOGENEOUS), 3, replace=False), *rng.choice(list(OTHERS)[:4], 2, replace=False),
                             *rng.choice(list(OTHERS)[4:], 1, replace=False)]).tolist()
    zeros = {**HOMOGENEOUS, **OTHERS}
    return {
        "network": "\n".join([
            *(f"z_{j + 1} &= {_line(W1[j], ['x_1', 'x_2'], b1[j])} \\\\" for j in range(3)),
            *(f"f_{k + 1} &= {_line(W2[k], ['h_1', 'h_2', 'h_3'], b2[k])} \\\\" for k in range(2))]),
        "x": f"({x[0]:g}, {x[1]:g})", "s": "(" + ", ".join(f"{v:g}" for v in s) + ")", "off_neuron": off + 1,
        "f_dense": f.tolist(), "f_scaled": scaled.tolist(), "f_forgotten": forgotten.tolist(), "arrives": (0.5 * W2[:, off]).tolist(),
        "shape": f"{d}-{n}-{o}", "k": gone, "gone": gone * (d + 1 + o),
        "reasons": "\n".join(f"- **{c}**: {REASONS[by_letter[c]]};" for c in "ABCDEFGH"),
        "proof": [letter[step] for step in STEPS], "linear": letter["linear"],
        "activations": ", ".join(f"`\"{n}\"`" for n in names), "names": names,
        "exact": sorted(n for n in names if n in HOMOGENEOUS),
        "silent": sorted(n for n in names if zeros[n] == 0),
    }


def _line(row, symbols, constant):
    text = ""
    for value, symbol in zip([*row, constant], [*symbols, ""]):
        if value == 0:
            continue
        sign = "-" if value < 0 else "+" if text else ""
        size = f"{abs(value):g}" if abs(value) != 1 or not symbol else ""
        text += f" {sign} {size}{'' if not size or not symbol else chr(92) + ','}{symbol}"
    return text.strip()


class ByHand(Item):
    name, number, title = "by_hand", "1.1", "By hand"
    defines = ("f_dense", "f_scaled", "arrives", "gone")
    checks = {
        "dense": Check(0.5, "the outputs with all factors 1", "The network without factors: z, then ReLU, then the reader.", ONE),
        "scaled": Check(1, "the outputs with the factors at the incoming face", "A factor at the incoming face multiplies the row and the "
                        "bias: z becomes s·z. An output has no factor.", ONE),
        "arrives": Check(1, "what a sigmoid neuron with factor 0 sends to its readers",
                         "Off at the incoming face means z = 0, and the neuron then sends φ(0), which is 0.5 for a sigmoid.", ZERO),
        "gone": Check(0.5, "how many parameters leave with the neurons", "With a neuron go its row, its bias and its column in every "
                      "layer that reads it.", COUNT),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        return {"dense": same(got["f_dense"], course["f_dense"], 1e-6), "scaled": same(got["f_scaled"], course["f_scaled"], 1e-6),
                "arrives": same(got["arrives"], course["arrives"], 1e-6), "gone": same(got["gone"], course["gone"], 1e-9)}


class Proof(Item):
    name, number, title = "proof", "1.2", "The proof"
    defines = ("proof", "exact", "silent")
    checks = {
        "steps": Check(1.5, "the reason for each line of the proof", "Each equality needs its own reason; homogeneity is used once, and "
                       "needs a factor that is not negative.", FACES),
        "exact": Check(0.75, "the activations for which the two faces agree", "The faces agree exactly for positively homogeneous "
                       "functions: two half-lines through 0.", FACES),
        "silent": Check(0.75, "the activations for which off leaves nothing behind", "After a factor of 0 at the incoming face the neuron "
                        "sends φ(0); only where that is 0 can it be deleted as it is.", ZERO),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        return {"steps": [str(v).strip().upper() for v in got["proof"]] == course["proof"],
                "exact": sorted(set(got["exact"])) == course["exact"], "silent": sorted(set(got["silent"])) == course["silent"]}


class Scale(Item):
    name, number, title = "scale", "1.3", "Factors on every layer"
    defines = ("scale",)
    checks = {
        "rows": Check(0.75, "hidden neurons' weight rows on networks of two to four layers",
                      "At the incoming face factor j multiplies row j, for every input that the row reads.", ONE),
        "bias": Check(0.75, "hidden neurons' biases", "Row and bias are scaled together, or z does not become s·z: the bias trap.", ZERO),
        "inputs": Check(0.5, "the factors of the input features", "An input feature has no row of its own: its factor multiplies a column "
                        "of the first layer.", ONE),
        "outputs": Check(0.5, "the last layer", "The network's own outputs have no factor: ten classes stay ten classes.", ONE),
        "copies": Check(0.5, "whether the network that was handed in is still the same afterwards",
                        "θ ⊙ s is a new set of tensors. Writing into θ itself changes the network for good, and breaks autograd.", ONE),
    }

    def cases(self, rng, course):
        for widths in ([4, 5, 3], [3, 6, 4, 2], [5, 4, 4, 3, 2]):
            layers = [[normal(rng, n, d), normal(rng, n)] for d, n in zip(widths, widths[1:])]
            factors = [(rng.uniform(0.2, 1.8, n) * (rng.random(n) > 0.3)).astype(np.float32) for n in widths[:-1]]
            yield {"layers": layers, "factors": factors}

    def check(self, case, got, want, course):
        mine, right = got["layers"], want["layers"]
        if len(mine) != len(right):
            return dict.fromkeys(self.checks, False)
        first_rows = np.allclose  # columns of the first layer are compared up to its rows' factors, so that one mistake costs once
        W, s0, s1 = (np.asarray(v, dtype=float) for v in (case["layers"][0][0], case["factors"][0], case["factors"][1]))
        got_first = np.asarray(mine[0][0], dtype=float)
        inputs = got_first.shape == W.shape and any(
            first_rows(got_first, W * s0 * rows, atol=1e-5) for rows in (s1[:, None], np.ones((len(s1), 1))))
        rows = got_first.shape == W.shape and any(first_rows(got_first, W * s1[:, None] * cols, atol=1e-5)
                                                  for cols in (s0, np.ones(len(s0))))
        rows = rows and all(same(mine[i][0], right[i][0]) for i in range(1, len(right) - 1))
        return {"rows": rows, "bias": all(same(mine[i][1], right[i][1]) for i in range(len(right) - 1)), "inputs": inputs,
                "outputs": same(mine[-1][0], right[-1][0]) and same(mine[-1][1], right[-1][1]), "copies": got["unchanged"] is True}


class FoldBatchNorm(Item):
    name, number, title = "fold_batchnorm", "1.4", "Fold a BatchNorm and its factors"
    defines = ("fold_batchnorm",)
    checks = {
        "weight": Check(1, "the folded weight", "Behind a BatchNorm the incoming face is γ and β: the folded row is w·s·γ/√(variance + ε).",
                        ZERO),
        "beta": Check(1.5, "the folded bias", "Scale β along with γ. With γ alone, β is left over, and a neuron that is off still sends "
                      "φ(β).", ZERO),
        "off": Check(0.5, "a neuron with factor 0", "After folding a factor of 0 is a row of zeros with bias 0.", ZERO),
    }

    def cases(self, rng, course):
        for n, d, eps in ((4, 3, 1e-5), (6, 5, 1e-3), (3, 7, 0.1)):
            s = rng.uniform(0.2, 1.9, n)
            s[int(rng.integers(n))] = 0
            yield {"W": rng.standard_normal((n, d)), "b": rng.standard_normal(n), "gamma": rng.uniform(0.5, 2, n),
                   "beta": rng.standard_normal(n) + 0.5, "mean": rng.standard_normal(n), "var": rng.uniform(0.05, 2, n), "eps": eps, "s": s}

    def check(self, case, got, want, course):
        off = case["s"] == 0
        return {"weight": same(got["W"], want["W"], 1e-7), "beta": same(np.asarray(got["b"])[~off], np.asarray(want["b"])[~off], 1e-7),
                "off": same(np.asarray(got["W"])[off], 0 * case["W"][off]) and same(np.asarray(got["b"])[off], 0 * case["b"][off])}


class Cut(Item):
    name, number, title = "cut", "1.5", "Through the flatten"
    defines = ("cut",)
    checks = {
        "kernels": Check(0.75, "kernels and biases of the channels that stay", "Removing a channel deletes its kernels and its bias: row j "
                         "of both.", LABELS),
        "columns": Check(2.25, "the columns of the Linear layer behind the flatten", "Flattening turns channel c into the H·W columns from "
                         "c·H·W on, next to each other: one label, many columns.", LABELS),
    }

    def cases(self, rng, course):
        for channels, inputs, size, n, keep in ((4, 1, (2, 3), 5, [0, 2]), (5, 2, (3, 3), 2, [1, 3, 4]), (3, 3, (1, 1), 4, [2]),
                                                (6, 1, (4, 2), 3, [0, 5])):
            yield {"K": normal(rng, channels, inputs, 3, 3), "b": normal(rng, channels), "W": normal(rng, n, channels * size[0] * size[1]),
                   "keep": keep}

    def check(self, case, got, want, course):
        return {"kernels": same(got["K"], want["K"]) and same(got["b"], want["b"]), "columns": same(got["W"], want["W"])}


class Compact(Item):
    name, number, title = "compact", "1.6", "Remove until nothing more can go"
    defines = ("compact",)
    checks = {
        "off": Check(1, "networks with rows and biases of zeros", "Rule (a): a neuron that is 0 for every input goes, and nothing else "
                     "changes.", REMOVE),
        "unread": Check(1, "networks with neurons and inputs that nobody reads", "Rule (b): if every reader's column is 0, the neuron, or "
                        "the input, can go, whatever it computes.", REMOVE),
        "constant": Check(1.5, "rows of zeros with a bias above and below 0", "Rule (c): a constant neuron goes, and its readers' biases "
                          "absorb what it sent, which is φ(b) times the column.", REMOVE),
        "rounds": Check(1.5, "chains in which one removal makes the next possible", "Removing a neuron can leave another unread, or "
                        "constant. Go on until a round finds nothing.", ROUNDS),
    }

    def cases(self, rng, course):
        for kind in ("off", "unread", "constant", "rounds", "rounds", "constant", "off", "unread"):
            widths = [4, 6, 5, 3]
            layers = [[rng.standard_normal((n, d)) * (1.5 if i else 1), rng.standard_normal(n)]
                      for i, (d, n) in enumerate(zip(widths, widths[1:]))]
            (W1, b1), (W2, b2), (W3, b3) = layers
            i, j = (int(v) for v in rng.choice(6, 2, replace=False))
            p = int(rng.integers(5))
            if kind == "off":
                W1[i] = b1[i] = 0
                W2[p] = b2[p] = 0
            elif kind == "unread":
                W2[:, i] = 0
                W3[:, p] = 0
                W1[:, int(rng.integers(4))] = 0
            elif kind == "constant":
                W1[i], b1[i] = 0, 1.25
                W1[j], b1[j] = 0, -0.75
                W2[p], b2[p] = 0, 0.5
            else:                                    # W3 ignores p, p alone reads j; neuron q reads the constant i alone
                q = (p + 2) % 5
                W3[:, p] = 0
                W2[:, j] = 0
                W2[p, j] = 1.0
                W1[i], b1[i] = 0, 1.5
                W2[q] = 0
                W2[q, i], b2[q] = 1.25, 0.25
                feature = int(rng.integers(4))
                W1[:, feature] = 0
                W1[j, feature] = 2.0
            yield {"layers": layers, "x": 2 * rng.standard_normal((32, 4)), "kind": kind}

    def check(self, case, got, want, course):
        right = got["widths"] == want["widths"] and same(got["y"], want["y"], 1e-9) and got["unchanged"] is True
        return {case["kind"]: right}


ITEMS = [ByHand(), Proof(), Scale(), FoldBatchNorm(), Cut(), Compact()]
