"""How a comparison is made, as rules that every record has to keep before it may stand in a table.

After Blalock et al. 2020 (arXiv:2003.03033), Liu et al. 2019 (arXiv:1810.05270) and Frankle et al. 2021
(arXiv:2009.08576). What can be ruled out by construction is not repeated here: the runner trains on the whole training
split, can look at the test split once only, and counts what is left itself.
"""

import math
from collections import Counter
from collections.abc import Sequence

from switcher_lib.experiments.results import Record, Results, at, count, follows, key, rebuild, unpack
from switcher_lib.experiments.specs import Experiment, priced
from switcher_lib.metrics import count_nonzero_parameters, count_parameters
from switcher_lib.switched import price_weights

EXAMPLES = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
TOLERANCE = 1e-12    # of a certificate
CURVE = 5            # operating points that make a curve
NEEDED = ("data", "train_examples", "test_accuracy", "test_loss", "sites", "on_at_start", "parameters", "macs", "task_steps",
          "switcher_steps", "seconds", "certificate", "threads", "device", "torch", "python", "commit")


class ProtocolError(ValueError):
    """A result that breaks the rules of comparison was asked into a table."""


def violations(record: Record, experiment: Experiment) -> list[str]:
    """Return every rule that a record breaks, in words.

    Parameters
    ----------
    record : dict
        As :func:`~switcher_lib.experiments.run_one` made it.
    experiment : Experiment
        What it belongs to.

    Returns
    -------
    list of str
        Empty if it may stand in a table, as a run that training itself stopped may.
    """
    method, point = record["method"], record.get("point")
    if method not in experiment.methods or point not in experiment.points(method):
        return ["the experiment has no such method and operating point"]
    if "stopped" in record:    # a failure is kept: it has no result, only a reason
        return [] if record["spec"] == experiment.spec(method, point) else ["another version of the specification made it"]
    if missing := [name for name in NEEDED if record.get(name) is None and name != "certificate" or name not in record]:
        return [f"it does not tell {', '.join(missing)}"]
    if record["spec"] != experiment.spec(method, point):
        return ["another version of the specification made it"]
    broken = []

    def rule(kept, words):
        if not kept:
            broken.append(words)

    rule(record["data"] == experiment.data, f"it was made with {record['data']}, not with {experiment.data}")
    rule(experiment.tuning or record["train_examples"] == EXAMPLES.get(experiment.data, record["train_examples"]),
         f"it was trained on {record['train_examples']:,} examples, not on the whole training split")
    rule(record["seed"] in experiment.seeds, f"seed {record['seed']} is none of the experiment's {experiment.seeds}")
    steps = -(-record["train_examples"] // _smallest_batch(record["spec"]))
    epochs = record.get("epochs", -(-record["task_steps"] // steps))
    rule(record["task_steps"] <= epochs * steps, f"{record['task_steps']:,} task steps are more than its {epochs} epochs")
    rule(experiment.epochs in (None, epochs),
         f"it had {epochs} epochs of task steps, not the {experiment.epochs} that every run has")
    rule(math.isfinite(record["test_loss"]) and 0 <= record["test_accuracy"] <= 1, "its test result is not a number")
    rule(record["seconds"] > 0 and record["macs"] > 0, "training time and MACs must be above 0")
    searched = record["spec"]["kind"] != "plain"
    rule(not searched or (record["certificate"] is not None and record["certificate"] <= TOLERANCE),
         f"its certificate ({record['certificate']}) is above {TOLERANCE}: what was evaluated is not what was learned")
    rule(not searched or record["sites"], "what is off is not told")
    rule(set(record["on_at_start"]) == set(record["sites"]), "what was off before training is not told")
    rule(all(0 <= on <= total for total, on in record["sites"].values()), "more is on at a site than there is")
    for name, mask in record.get("mask", {}).items():
        total, on = record["sites"][name]
        rule(int(unpack(mask, (total,)).sum()) == on, f"at {name!r} the mask and the count of what is on differ")
    if record.get("level", "neuron") == "neuron" and not broken:
        told, recount = record["parameters"], count(record, experiment)
        if told != recount:    # compaction may take out more than is off, or keep a layer's last neuron, whose numbers may be 0
            rebuilt = rebuild(record, experiment)
            recount = count_parameters(rebuilt)
            told = recount if told == count_nonzero_parameters(rebuilt) else told
        rule(told == recount, f"{told:,} parameters are told, its structure has {recount:,}")
    # while settings are tuned, a trial may fail to get there, and loses
    price = record["spec"].get("switched", {}).get("price", "parameters")
    size = sum(weight * record[unit] for unit, weight in price_weights(price).items())
    rule(point is None or not searched or experiment.tuning or size <= point,
         f"{size:,} {priced(price)} are more than the operating point of {point}")
    return broken


def _smallest_batch(spec):
    """The smallest batch size of a run's fits: it makes the most steps."""
    return min(spec.get(part, {}).get("batch_size", 64) for part in ("fit", "pretrain", "finetune"))


def check(results: Results, experiment: Experiment, methods: Sequence[str]) -> None:
    """Refuse results that may not stand in a table.

    Parameters
    ----------
    results : Results
        What there is.
    experiment : Experiment
        What it belongs to.
    methods : sequence of str
        What is wanted in the table.

    Raises
    ------
    ProtocolError
        If a record breaks a rule or is there twice, a row lacks seeds, a searched method of a curve lacks operating
        points, or a control is missing; the message lists each.
    """
    broken = [f"{method}{at(point)}, seed {seed}: {times} results" for (method, point, seed), times
              in Counter(map(key, results.runs)).items() if times > 1 and method in methods]
    for record in results.runs:
        if record["method"] in methods:
            where = at(record.get("point"))
            reasons = violations(record, experiment)
            if not reasons and "stopped" not in record and (source := experiment.source(*key(record))) is not None:
                other = results.find(*source)
                if other is None or not follows(record, other):
                    reasons = [f"it did not take over what {source[0]!r}{at(source[1])} has now; run it again"]
            broken += [f"{record['method']}{where}, seed {record['seed']}: {words}" for words in reasons]
    for method in dict.fromkeys([*methods, *experiment.controls]):
        for point in experiment.points(method):
            have = tuple(r["seed"] for r in [*results.of(method, point), *results.stopped(method, point)])
            missing = [seed for seed in experiment.seeds if seed not in have]
            if missing and (have or method in experiment.controls):
                plural = "s" * (len(missing) > 1)
                broken.append(f"{method}{at(point)}: no result for seed{plural} {', '.join(map(str, missing))}")
        there = [point for point in experiment.points(method) if results.of(method, point) or results.stopped(method, point)]
        spec = experiment.spec(method, experiment.points(method)[0])
        if experiment.curve and spec["kind"] == "switched" and not spec.get("untrained") and 0 < len(there) < CURVE:
            broken.append(f"{method}: {len(there)} operating point{'s' * (len(there) > 1)}; a curve has at least {CURVE}")
    if broken:
        raise ProtocolError(f"{results.path}: {len(broken)} reason{'s' * (len(broken) > 1)} against a table. "
                            + "; ".join(broken[:8]) + ("; …" if len(broken) > 8 else "") + ".")
