"""Assignment 5: an honest comparison on a data set of one's own choice. The protocol is checked here, the reading of it by hand."""

import json
import math
from statistics import fmean, stdev

import numpy as np

from grader.tasks.base import Check, Item, normal, same

TITLE = "An honest comparison"
RULES = "10-comparison#rules-of-this-book-s-comparison"
FIVE = "10-comparison#what-five-runs-can-say"
OWN = "10-comparison#a-comparison-of-your-own-in-half-a-minute"
WRONG = "10-comparison#what-could-go-wrong-six-ways-to-win"
ONE_STD = "10-comparison#better-by-more-than-one-standard-deviation"
COUNT = "02-scaling-factors#counting-what-goes-with-a-neuron"
ZERO = "02-scaling-factors#at-zero-what-vanishes-and-what-stays"
LONGEST = 2 << 20               # characters of the hand-in cell's output

# What an instructor marks by hand: points, and what they are for
RUBRIC = {
    "question": (3.0, "A question that the data could answer either way, and a prediction written down before the runs"),
    "controls": (4.0, "The choice of data and controls: why these, what each would show, what is missing"),
    "reading": (4.0, "The reading of the results: sizes of differences with their uncertainty, and nothing beyond them"),
    "limits": (3.0, "What the comparison cannot say, and what would settle it"),
}


def draw(rng):
    """The course's seeds, which every record must show, and its example for the statistics."""
    seeds = sorted(int(s) for s in rng.choice(np.arange(10, 1000), 5, replace=False))
    a = np.round(rng.uniform(0.85, 0.95) + 0.01 * rng.standard_normal(4), 3).tolist()
    b = np.round(rng.uniform(0.83, 0.93) + 0.01 * rng.standard_normal(4), 3).tolist()
    return {"seeds": seeds, "a": a, "b": b, "mean_a": round(fmean(a), 6), "std_a": round(stdev(a), 6)}


class Dataset(Item):
    name, number, title = "dataset", "5.1", "Data of your choice"
    defines = ("dataset",)
    checks = {
        "splits": Check(1.5, "the three splits: sizes, types, classes", "A validation split chooses, the test split is looked at once: three "
                        "parts, each with examples of every class.", RULES),
        "disjoint": Check(1.5, "whether an example is in two splits", "What was trained on, or chosen by, says nothing about new data.", RULES),
        "standardised": Check(1.5, "the training split's mean and standard deviation, and the other splits'", "Mean and standard deviation come "
                              "from the training split alone and are applied to all three; a feature without spread becomes 0.", RULES),
        "repeatable": Check(0.5, "a second call", "The same data for everybody and every time: shuffle with a seed.", RULES),
    }

    def cases(self, rng, course):
        yield {}

    def check(self, case, got, want, course):
        parts = {name: tuple(np.asarray(v) for v in got["first"][name]) for name in ("train", "validation", "test")}
        X, y = parts["train"]
        shaped = all(p[0].ndim == 2 and p[0].dtype == np.float32 and p[1].dtype == np.int64 and len(p[0]) == len(p[1])
                     and p[0].shape[1] == X.shape[1] and np.isfinite(p[0]).all() for p in parts.values())
        if not shaped:
            return {"splits": False, "disjoint": False, "standardised": False, "repeatable": False}
        classes = set(y.tolist())
        splits = all(len(p[1]) >= least and set(p[1].tolist()) == classes for p, least in zip(parts.values(), (100, 30, 40)))
        splits = splits and classes == set(range(len(classes))) and len(classes) > 1
        rows = {name: {r.tobytes() for r in p[0]} for name, p in parts.items()}
        overlap = sum(len(rows[a] & rows[b]) for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")))
        mean, std = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
        own = np.abs(mean).max() < 1e-3 and bool((np.isclose(std, 1, atol=1e-2) | (std < 1e-6)).all())
        # a split standardised by its own numbers has a mean of 0 in every feature; by another's it cannot have
        others = all(np.abs(parts[n][0].mean(0, dtype=np.float64)).max() > 1e-3 for n in ("validation", "test"))
        again = all(same(got["second"][n][i], got["first"][n][i], 1e-7) for n in parts for i in (0, 1))
        # chance duplicates, such as two blank images, are no leak
        return {"splits": splits, "disjoint": overlap <= 0.01 * len(parts["test"][1]), "standardised": own and others, "repeatable": again}


class Choose(Item):
    name, number, title = "choose", "5.2", "Who stays"
    defines = ("choose",)
    checks = {
        "magnitude": Check(1.5, "the neurons that magnitude keeps", "Magnitude keeps the neurons with the largest rows, bias included.", OWN),
        "count": Check(1, "how many stay, and in what form", "Both methods keep exactly k, or size and choice are mixed up.", RULES),
        "coin": Check(1.5, "the coin with several seeds", "The coin is the control: k neurons by chance, the same for the same seed, others for "
                      "another, and the weights have no say.", RULES),
    }

    def cases(self, rng, course):
        for n, d, k in ((12, 5, 4), (9, 3, 8), (20, 6, 5)):
            # for the largest rows the bias decides, and the largest entries are negative
            W, b = normal(rng, n, d), normal(rng, n) * np.float32(2)
            yield {"W": W - np.float32(0.5), "b": b, "k": k, "other": normal(rng, n, d), "seeds": rng.choice(1000, 6, replace=False).tolist()}

    def check(self, case, got, want, course):
        n, k = len(case["b"]), case["k"]
        every = [got["magnitude"], *got["coin"]]
        count = all(len(set(v)) == len(v) == k and sorted(v) == v and 0 <= v[0] and v[-1] < n for v in every)
        different = len({tuple(v) for v in got["coin"]}) > (2 if math.comb(n, k) > 20 else 1)
        return {"magnitude": got["magnitude"] == want["magnitude"] if len(got["magnitude"]) == k
                else set(got["magnitude"]) <= set(want["magnitude"]) or set(want["magnitude"]) <= set(got["magnitude"]),
                "count": count, "coin": different and got["coin"] == got["coin_again"] == got["coin_other"]}


class Run(Item):
    name, number, title = "run", "5.3", "One run"
    defines = ("run",)
    checks = {
        "first": Check(1, "where a run starts", "All methods of a seed start from the same first checkpoint, so that only the choice differs.",
                       RULES),
        "steps": Check(1, "the training steps that were used, and what the record says", "One budget for all, the search included; a record "
                       "tells what was used.", RULES),
        "off": Check(1, "the removed neurons at the end", "Off stays off: training after the choice must not bring rows, biases or columns "
                     "back.", ZERO),
        "test": Check(1, "looks at the test split", "The test split is evaluated once per run, after the last step; whatever looks earlier, or "
                      "twice, chooses by it.", WRONG),
        "parameters": Check(1, "the number of parameters in the record", "Count what is left with its biases: k rows of d + 1, k columns, and "
                            "the outputs' biases.", COUNT),
        "accuracy": Check(1, "the accuracy in the record", "The record's number is that of the weights that it hands in, on all test examples.",
                          RULES),
        "learns": Check(1, "whether training works", "Half of the steps before the choice, the rest after it; the loss falls in both.", OWN),
    }

    def cases(self, rng, course):
        d, o = 6, 3
        centres = 2.0 * rng.standard_normal((o, d))
        splits = {}
        for name, count in (("train", 240), ("validation", 60), ("test", 90)):
            y = rng.integers(0, o, count).astype(np.int64)
            splits[name] = [(centres[y] + 0.7 * rng.standard_normal((count, d))).astype(np.float32), y]
        for method, k, steps in (("magnitude", 5, 60), ("coin", 4, 61), ("magnitude", 3, 0)):
            yield {"method": method, "seed": int(rng.integers(1000)), "k": k, "splits": splits, "hidden": 10, "steps": steps}

    def check(self, case, got, want, course):
        record, log = got["record"], got["log"]
        W1, b1, W2, b2 = (np.asarray(w, dtype=np.float64) for w in record["weights"])
        kept = [int(j) for j in record["kept"]]
        off = np.setdiff1d(np.arange(case["hidden"]), kept)
        X, y = (np.asarray(v) for v in case["splits"]["test"])
        d, o = X.shape[1], len(b2)
        right = float(((np.maximum(X @ W1.T + b1, 0)[:, kept] @ W2[:, kept].T + b2).argmax(1) == y).mean())
        verdicts = {
            "off": len(off) == case["hidden"] - case["k"] and not W1[off].any() and not b1[off].any() and not W2[:, off].any(),
            "test": log.count("test") == 1 and "batch" not in log[log.index("test"):],
            "steps": log.count("batch") == case["steps"] == record["steps"],
            "parameters": record["parameters"] == case["k"] * (d + 1 + o) + o,
            "accuracy": abs(float(record["test_accuracy"]) - right) < 1e-6,
        }
        if case["steps"] == 0:
            first = [np.asarray(w, dtype=np.float64) for w in got["first"]]
            verdicts["first"] = same(W1[kept], first[0][kept]) and same(b1[kept], first[1][kept]) and same(W2[:, kept], first[2][:, kept])
        else:
            verdicts["learns"] = right > 0.7
        return verdicts


class Compare(Item):
    name, number, title = "compare", "5.4", "All runs"
    defines = ("compare",)
    checks = {
        "complete": Check(1, "every method, size and seed of the plan", "The seeds are named before, and every planned run is kept: leaving one "
                          "out chooses by the result.", RULES),
        "only": Check(1, "runs that were not planned", "No run beside the plan: with enough extra seeds every method wins once.", WRONG),
    }

    def cases(self, rng, course):
        yield {"methods": ["magnitude", "coin"], "seeds": rng.choice(1000, 3, replace=False).tolist(), "sizes": [8, 4, 2], "fails": True}
        yield {"methods": ["coin", "magnitude"], "seeds": [5], "sizes": [3, 7], "fails": False}

    def check(self, case, got, want, course):
        wanted = {(m, s, k) for m in case["methods"] for s in case["seeds"] for k in case["sizes"]}
        kept = [tuple(r) for r in got["records"]]
        return {"complete": wanted <= set(kept) and len(kept) == len(set(kept)), "only": {tuple(c) for c in got["calls"]} <= wanted
                and len(got["calls"]) <= len(wanted)}


class Summarise(Item):
    name, number, title = "summarise", "5.5", "What the runs say"
    defines = ("summarise",)
    checks = {
        "mean": Check(0.5, "the means and their difference", "Δ is the difference of the means of all runs, not of the best ones.", FIVE),
        "std": Check(1, "the standard deviations", "The sample standard deviation divides by R − 1.", FIVE),
        "interval": Check(1.5, "the half width of the 95 % interval", "The standard error is √(σ̂₁²/R₁ + σ̂₂²/R₂), with Welch's degrees of "
                          "freedom and Student's t.", FIVE),
        "settled": Check(1, "the verdict", "Settled means that the interval leaves 0 out. One standard deviation better is not settled.",
                         ONE_STD),
    }

    def cases(self, rng, course):
        for gap, ra, rb, spread in ((0.001, 5, 5, 0.01), (0.03, 5, 5, 0.01), (0.012, 5, 5, 0.01), (-0.02, 4, 7, 0.008), (0.0125, 6, 3, 0.008)):
            a, b = rng.standard_normal(ra), rng.standard_normal(rb)
            a, b = ((v - v.mean()) / v.std(ddof=1) for v in (a, b))      # so that what a case shows is no accident
            yield {"a": (0.9 + gap + spread * a).tolist(), "b": (0.9 + 1.3 * spread * b).tolist()}

    def check(self, case, got, want, course):
        delta, half = got["delta"], got["half"]
        verdict = bool(got["settled"]) == bool(want["settled"]) and isinstance(got["settled"], bool)
        # a verdict that follows from a wrong interval by the right rule is paid for once
        follows = isinstance(got["settled"], bool) and got["settled"] == (abs(delta) > half)
        return {"mean": all(same(got[n], want[n], 1e-8) for n in ("mean_a", "mean_b", "delta")),
                "std": all(same(got[n], want[n], 1e-8) for n in ("std_a", "std_b")), "interval": same(half, want["half"], 1e-7),
                "settled": verdict or (follows and not same(half, want["half"], 1e-7))}


class Records(Item):
    """Judged from the output of the locked hand-in cell: plain text of the student's, which no code of theirs is needed to read."""

    name, number, title = "records", "5.6", "Your comparison"
    defines = ()
    local = True
    checks = {
        "planned": Check(1.5, "the plan: seeds, sizes, methods, and a record for each", "Your course's five seeds, at least three sizes, "
                         "magnitude and a coin; one record for every combination, none left out, none added.", RULES),
        "counts": Check(1, "the parameters, counted again from what each record kept", "Methods are compared at equal size: the coin has "
                        "magnitude's counts.", RULES),
        "steps": Check(0.5, "the steps of all runs", "One budget for all.", RULES),
        "summary": Check(1, "the summary, computed again from the records", "Means and standard deviations are of the records that you hand "
                         "in, all of them.", FIVE),
    }

    def cases(self, rng, course):
        yield {}

    def outputs(self, submitted):
        """The data of the hand-in cell's last line."""
        line = next((text for text in reversed(submitted.records[:LONGEST].splitlines()) if text.startswith("RECORDS ")), None)
        if line is None:
            return {"error": ["Missing", "the hand-in cell has no output: run it, save the notebook, and hand that in", None]}
        try:
            return {"ok": json.loads(line[len("RECORDS "):])}
        except (ValueError, RecursionError):
            return {"error": ["Missing", "the hand-in cell's output is not as the cell prints it", None]}

    def check(self, case, got, want, course):
        plan, records, widths = got["plan"], got["records"], got["widths"]
        d, n, o = (int(w) for w in widths)
        keys = [(r["method"], int(r["seed"]), int(r["k"])) for r in records]
        wanted = {(m, int(s), int(k)) for m in plan["methods"] for s in plan["seeds"] for k in plan["sizes"]}
        planned = (set(course["seeds"]) <= set(plan["seeds"]) and len(set(plan["sizes"])) >= 3 and {"magnitude", "coin"} <= set(plan["methods"])
                   and set(keys) == wanted and len(keys) == len(wanted))
        sizes = [len(set(r["kept"])) for r in records]
        counts = all(size == int(r["k"]) and 0 <= min(r["kept"]) and max(r["kept"]) < n and r["parameters"] == size * (d + 1 + o) + o
                     for size, r in zip(sizes, records))
        summary = bool(got["summary"])
        for row in got["summary"]:
            values = [r["test_accuracy"] for r in records if r["method"] == row["method"] and r["k"] == row["k"]]
            summary = (summary and len(values) > 1 and same(row["mean"], fmean(values), 1e-6) and same(row["std"], stdev(values), 1e-6))
        told = {(row["method"], row["k"]) for row in got["summary"]}
        summary = summary and told == {(m, k) for m, _, k in keys}
        return {"planned": planned, "counts": counts and bool(records), "steps": len({r["steps"] for r in records}) == 1, "summary": summary}


def example_data(secret):
    """A faultless hand-in, for the catalogue of wrong ones."""
    rng, course = secret.rng("5", "example"), draw(secret.rng("5", "course"))
    plan = {"methods": ["magnitude", "coin"], "seeds": course["seeds"], "sizes": [20, 10, 5], "data": "digits"}
    records = [{"method": m, "seed": s, "k": k, "kept": sorted(rng.choice(40, k, replace=False).tolist()), "parameters": k * (64 + 1 + 10) + 10,
                "steps": 200, "test_accuracy": round(float(rng.uniform(0.7, 0.95)), 4)}
               for m in plan["methods"] for s in plan["seeds"] for k in plan["sizes"]]
    summary = []
    for m in plan["methods"]:
        for k in plan["sizes"]:
            values = [r["test_accuracy"] for r in records if r["method"] == m and r["k"] == k]
            summary.append({"method": m, "k": k, "mean": fmean(values), "std": stdev(values)})
    return {"plan": plan, "widths": [64, 40, 10], "records": records, "summary": summary}


ITEMS = [Dataset(), Choose(), Run(), Compare(), Summarise(), Records()]
