"""How long until a small network is good: seconds of training to 98.2 % with at most 33,300 parameters.

    python benchmarks/bench_time_to.py [--methods switcher L0 …] [--try] [--clock cpu] [--threads 1]

LeNet-300-100 on MNIST. The seconds are those of the steps of every phase (search, cut, training of what is left), until
the compacted network is at the target on the validation split after an epoch; the test split has no part in it. Every
method has the settings that were tuned for it in the catalogue, and its own fastest schedule: ``--try`` runs all of
``SCHEDULES``, shortest first, and says which was the first to get there with every seed; that is what ``CHOICE`` holds.
Without ``--try`` the chosen ones take turns, seed by seed. The result goes to ``results/bench_time_to.json``.
"""

import argparse
import copy
import json
import statistics
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from report import RESULTS, conditions, write
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib.compaction import fold_batchnorm
from switcher_lib.errors import TrainingStopped, unknown_name
from switcher_lib.experiments import EXPERIMENTS
from switcher_lib.experiments.specs import check_spec, ramp
from switcher_lib.switchers import SWITCHERS, RandomSwitcher

EXPERIMENT, SIZE, TARGET = "lenet300-neurons", 33_300, 0.982
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}    # with one thread, the same on a core that is free
SEEDS = (100, 101, 102)    # those of tuning; the experiments' own are others
TOTALS = (4, 6, 8, 12, 20)    # epochs, search and the rest together

# What may be changed for speed, three ways for each method: the search's part of the epochs, how strongly it presses,
# and for L0, whose gates move slowly, their learning rate. 'pressure' multiplies λ, the cost term's or the penalty's.
VARIANTS = {
    "switcher": ({"search": 0.5}, {"search": 0.5, "pressure": 3}, {"search": 0.5, "rate": 2.5}),
    "free gates": ({"search": 0.5}, {"search": 0.5, "pressure": 3}, {"search": 0.5, "pressure": 0.3}),
    "L0": ({"search": 0.5, "pressure": 3}, {"search": 0.5, "pressure": 3, "rate": 3}, {"search": 0.25, "pressure": 10, "rate": 3}),
    "slimming": ({"search": 0.4}, {"search": 0.4, "pressure": 3}, {"search": 0.25, "pressure": 3}),
    "magnitude": ({"search": 0.4}, {"search": 0.4, "at_once": True}, {"search": 0.25, "at_once": True}),
}
SCHEDULES = {method: [{"total": total, **variant} for total in TOTALS for variant in variants]
             for method, variants in VARIANTS.items()}

# The fastest by median of those that got there with every seed; the switcher never did, and has what came nearest.
CHOICE = {
    "switcher": {"total": 20, "search": 0.5, "rate": 2.5},
    "free gates": {"total": 12, "search": 0.5, "pressure": 3},
    "L0": {"total": 20, "search": 0.5, "pressure": 3},
    "slimming": {"total": 12, "search": 0.4},
    "magnitude": {"total": 20, "search": 0.4},
}


def hurried(spec, total, search, pressure=1, rate=1, at_once=False):
    """Return a specification with fewer epochs, ``total`` in all, and what else makes its search faster.

    A search that stops at a size looks more often whether it is there, or it would run past it.

    Parameters
    ----------
    spec : dict
        As the catalogue has it, with a search and training of what is left.
    total : int
        Epochs, at least 2.
    search : float
        The largest part of them that the search may take, in (0, 1).
    pressure : float, default 1
        Multiplies λ: the cost term's, or slimming's strength.
    rate : float, default 1
        Multiplies the switcher's learning rate.
    at_once : bool, default False
        Whether magnitude pruning cuts once, at the end of the search.
    """
    spec = copy.deepcopy(spec)
    spec["fit"]["epochs"] = max(1, round(total * search))
    spec["finetune"]["until_epoch"] = total
    spec["switcher_adam"]["lr"] *= rate
    if "stop_at" in spec["fit"]:
        spec["fit"]["check_every"] = 10    # more goes off between two checks
    if "cost" in spec["fit"]:
        spec["fit"]["cost"]["end"] *= pressure
    if "strength" in spec["options"]:
        spec["options"]["strength"] *= pressure
    if at_once:
        spec["options"] |= {"start": 1.0, "end": 1.0}
    check_spec(spec, "hurried")
    return spec


def train(spec, data, seed):
    """Search, compact, train what is left: what the experiments' runner does, with a look at the validation split each epoch.

    Parameters
    ----------
    spec : dict
        A specification with a search.
    data : Data
        Trained on its training split, judged on its validation split.
    seed : int
        Of everything random.

    Returns
    -------
    dict
        ``parameters`` of the compacted network, ``search_seconds``, ``cut_seconds``, ``search_epochs``; and ``seconds``
        (from the start) and ``accuracy`` (on the validation split) after each epoch of the compacted network.
    """
    sl.seed_everything(seed)
    net = sl.Switched(sl.models.lenet_300_100(**spec.get("model", {})), data.example,
                      switcher=partial(SWITCHERS[spec["switcher"]], **spec["options"]), **spec["switched"])
    settings = {**spec["fit"], "cost": ramp(**spec["fit"]["cost"]) if "cost" in spec["fit"] else 0.0}
    search = sl.fit(net, data.train, seed=seed, progress=False, task_optimizer=partial(SGD, **spec["task_sgd"]),
                    switcher_optimizer=partial(Adam, **spec["switcher_adam"]), **settings)
    began = time.perf_counter()
    model = sl.compact(net, data.train.images[:256]).model
    cut = time.perf_counter() - began

    rest = dict(spec["finetune"])
    epochs, sgd, noise = rest.pop("until_epoch") - len(search.records), rest.pop("task_sgd"), rest.pop("noise")
    noisy = sl.Switched(model, data.train.images[:2], switcher=partial(RandomSwitcher, off=0.0), noise=noise, switch_inputs=True)
    history = sl.fit(noisy, data, epochs=epochs, seed=seed + 1000, progress=False, task_optimizer=partial(SGD, **sgd), **rest)
    if spec.get("model", {}).get("batch_norm"):
        model = fold_batchnorm(model)
    before = search.last["seconds"] + cut
    return {"parameters": sl.metrics.count_parameters(model), "search_epochs": len(search.records),
            "search_seconds": search.last["seconds"], "cut_seconds": cut,
            "seconds": [before + seconds for seconds in history.column("seconds")],
            "accuracy": history.column("validation_accuracy")}


def time_to(run, size=SIZE, target=TARGET):
    """The seconds after which a run was at the target, or None if it is larger than ``size`` or never was."""
    if run["parameters"] > size:
        return None
    return next((s for s, accuracy in zip(run["seconds"], run["accuracy"]) if accuracy >= target), None)


def attempt(method, schedule, data, seed, size=SIZE, target=TARGET):
    """One run of a method by a schedule, as a record; a search that stops itself never gets there."""
    record = {"method": method, "schedule": schedule, "seed": seed}
    try:
        run = train(hurried(EXPERIMENTS[EXPERIMENT].spec(method, size), **schedule), data, seed)
    except TrainingStopped as stopped:
        return {**record, "stopped": str(stopped), "time_to": None}
    return {**record, **run, "time_to": time_to(run, size, target)}


def tried(method, data, seeds=SEEDS):
    """Try a method's schedules, shortest first, up to the first number of epochs that gets there with every seed.

    A schedule that fails with one seed is not run with the others.

    Returns
    -------
    list of dict
        The records, without their epochs.
    """
    records, enough = [], None
    for schedule in SCHEDULES[method]:
        if enough is not None and schedule["total"] > enough:
            break
        for seed in seeds:
            record = attempt(method, schedule, data, seed)
            print(line(record), flush=True)
            if "accuracy" in record:
                record["best"] = max(record["accuracy"])
            records.append({name: value for name, value in record.items() if name not in ("seconds", "accuracy")})
            if record["time_to"] is None:
                break
        else:
            enough = schedule["total"]
    return records


def line(record):
    """A record in one line."""
    schedule = ", ".join(f"{name} {value}" for name, value in record["schedule"].items())
    if "stopped" in record:
        return f"{record['method']:<11} {schedule:<44} seed {record['seed']}: stopped itself"
    end = "not reached" if record["time_to"] is None else f"{record['time_to']:.1f} s"
    return (f"{record['method']:<11} {schedule:<44} seed {record['seed']}: {record['parameters']:,} parameters, searched "
            f"{record['search_epochs']} epochs {record['search_seconds']:.1f} s, best {max(record['accuracy']):.2%}, {end}")


def compare(methods, data, seeds=SEEDS, size=SIZE, target=TARGET):
    """Run the chosen schedule of every method with every seed; the methods take turns. Return the records."""
    records = []
    for seed in seeds:    # the seed outside: a slow moment of the machine falls on all methods
        for method in methods:
            records.append(attempt(method, CHOICE[method], data, seed, size, target))
            print(line(records[-1]), flush=True)
    return records


def medians(records):
    """Return {method: median seconds}, None for a method that did not get there with every seed."""
    times = {}
    for record in records:
        times.setdefault(record["method"], []).append(record["time_to"])
    return {method: None if None in each else statistics.median(each) for method, each in times.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default all")
    parser.add_argument("--try", action="store_true", dest="trying", help="try all schedules first, and keep what they gave")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default 100 101 102")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, where the machine is busy (default wall)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--data", default="mnist", help="data set (default mnist)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default results/)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with mock.patch("time.perf_counter", CLOCKS[options.clock]):    # what fit() tells its seconds by
        run(options)


def run(options):
    """Try if that is asked, compare, write and print."""
    data = sl.data.load(options.data)
    before = options.out / "bench_time_to.json"
    tries = json.loads(before.read_text()).get("tried", []) if before.exists() else []
    if options.trying:
        tries = [record for record in tries if record["method"] not in options.methods]
        for method in options.methods:
            tries += tried(method, data, options.seeds)
    records = compare(options.methods, data, options.seeds)
    times = medians(records)
    own = times.get("switcher")
    ratios = {method: None if own is None or other is None else other / own
              for method, other in times.items() if method != "switcher"}
    write("bench_time_to", {
        "command": "python benchmarks/bench_time_to.py" + " --try" * options.trying + f" --clock {options.clock} --threads {options.threads}",
        "data": data.name, "experiment": EXPERIMENT, "size": SIZE, "target": TARGET, "judged_on": "validation", "clock": options.clock,
        "train_examples": len(data.train), "seeds": options.seeds, "choice": {m: CHOICE[m] for m in options.methods},
        "median_seconds": times, "times_the_switcher": ratios, "runs": records, "tried": tries,
        **conditions(options.threads)}, options.out)
    print(f"{data.name}: seconds to {TARGET:.1%} on the validation split with at most {SIZE:,} parameters, median of "
          f"{len(options.seeds)} seeds")
    for method, seconds in times.items():
        print(f"  {method:<11}" + ("not with every seed" if seconds is None else f"{seconds:.1f} s")
              + (f", {ratios[method]:.2f} times the switcher's" if ratios.get(method) else ""))


if __name__ == "__main__":
    main()
