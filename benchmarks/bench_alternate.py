"""What alternate learning costs: epochs of a search against dense ones, in the configurations that the book reports.

    python benchmarks/bench_alternate.py [--configurations lenet300-free cifar-resnet20] [--epochs 5] [--steps 20] [--threads 2]

Dense and switched networks take turns, epoch by epoch, in one process, so that a slow moment of the machine falls on
both. Both take the same task steps; the switcher's steps come on top. This is the search, the dearest part of a run, and
nothing is removed in it. On CIFAR-10 an epoch has as many steps as ``--steps`` says; on MNIST all that it has. For
LeNet-300-100 the ratio of whole runs (search, then the compacted network's training, for the same number of task steps)
is taken from the seconds in ``results/lenet300-free.json``. The result goes to ``results/bench_alternate.json``.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch
from report import RESULTS, conditions, write
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib.experiments import EXPERIMENTS
from switcher_lib.switchers import SWITCHERS

METHOD = "switcher"
CONFIGURATIONS = {"lenet300-free": None, "cifar-resnet20": 20_400_000}    # experiment: its operating point
COURSE = ("batch_size", "every", "check_every", "precision", "augment")    # of fit()'s arguments, what its time depends on


def measure(name, epochs, steps, data_name=None):
    """Return a configuration's row: the seconds of each epoch, dense and switched, and the ratio of their medians."""
    experiment, spec = EXPERIMENTS[name], EXPERIMENTS[name].spec(METHOD, CONFIGURATIONS[name])
    data = sl.data.load(data_name or experiment.data)
    settings = {key: value for key, value in spec["fit"].items() if key in COURSE}
    images = data.full_train if experiment.data == "mnist" else data.train.subset(steps * settings["batch_size"])
    times = {"dense": [], "switched": []}
    for epoch in range(epochs + 1):                 # the first one warms up
        sl.seed_everything(0)
        models = [sl.models.make(experiment.model).to(memory_format=torch.channels_last) for _ in times]
        switcher = partial(SWITCHERS[spec["switcher"]], **spec.get("options", {}))
        nets = dict(zip(times, (models[0], sl.Switched(models[1], data.example, switcher=switcher, **spec.get("switched", {})))))
        for way, net in nets.items():
            history = sl.fit(net, images, epochs=1, seed=epoch, progress=False, schedule="constant",
                             task_optimizer=partial(SGD, **spec["task_sgd"]),
                             switcher_optimizer=partial(Adam, **spec["switcher_adam"]), **settings)
            if epoch:
                times[way].append(history.last["seconds"])
    median = {way: statistics.median(each) for way, each in times.items()}
    return {"experiment": name, "method": METHOD, "data": data.name, "images": len(images), **settings, "epoch_seconds": times,
            "median_seconds": median, "ratio": median["switched"] / median["dense"]}


def whole_runs():
    """Seconds of whole runs of LeNet-300-100, dense and switched, as stored, and the ratio of their means."""
    runs = sl.experiments.load("lenet300-free", RESULTS)
    seconds = {name: [run["seconds"] for run in runs.of(name)] for name in ("dense", METHOD)}
    return {"whole_run_seconds": seconds, "whole_run_ratio": statistics.fmean(seconds[METHOD]) / statistics.fmean(seconds["dense"])}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS),
                        help=f"default {' '.join(CONFIGURATIONS)}")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each (default 5)")
    parser.add_argument("--steps", type=int, default=20, help="task steps in an epoch on CIFAR-10 (default 20)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--data", help="another data set, of the same shape")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default results/)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    rows = []
    for name in options.configurations:
        rows.append(measure(name, options.epochs, options.steps, options.data))
        row = rows[-1]
        print(f"{name}, {row['data']}: one epoch of {row['images']:,} images, batch {row.get('batch_size', 64)}, a switcher step every "
              f"{row['every']} task steps, threads: {options.threads}, median of {options.epochs}", flush=True)
        print(f"  dense {row['median_seconds']['dense']:.2f} s, switched {row['median_seconds']['switched']:.2f} s: {row['ratio']:.2f} times",
              flush=True)
        if name == "lenet300-free":
            row |= whole_runs()
            print(f"  whole runs as stored, means: {row['whole_run_ratio']:.2f} times")
    write("bench_alternate", {
        "command": f"python benchmarks/bench_alternate.py --configurations {' '.join(options.configurations)} --epochs {options.epochs} "
                   f"--steps {options.steps} --threads {options.threads}",
        "data": ", ".join(dict.fromkeys(row["data"] for row in rows)), "rows": rows,
        "capability": torch.backends.cpu.get_cpu_capability(), **conditions(options.threads)}, options.out)


if __name__ == "__main__":
    main()
