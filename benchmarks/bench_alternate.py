"""What alternate learning costs: its epochs against dense ones, in the configuration that the book reports.

    python benchmarks/bench_alternate.py [--epochs 5] [--threads 2]

Dense and switched networks take turns, epoch by epoch, in one process, so that a slow moment of the machine falls on
both. Both take the same task steps; the switcher's steps come on top. This is the search, the dearest part of a run. The
ratio of whole runs (search, then the compacted network's training, for the same number of task steps) is taken from the
seconds in ``results/lenet300-free.json``. The result goes to ``results/bench_alternate.json``.
"""

import argparse
import statistics
from functools import partial

import torch
from report import RESULTS, conditions, write
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib.experiments import EXPERIMENTS
from switcher_lib.switchers import SWITCHERS

EXPERIMENT, METHOD = "lenet300-free", "switcher"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    spec = EXPERIMENTS[EXPERIMENT].methods[METHOD]
    data = sl.data.load("mnist")
    settings = {k: v for k, v in spec["fit"].items() if k in ("batch_size", "every")}
    times = {"dense": [], "switched": []}
    for epoch in range(options.epochs + 1):                 # the first one warms up
        sl.seed_everything(0)
        nets = {"dense": sl.models.lenet_300_100(),
                "switched": sl.Switched(sl.models.lenet_300_100(), data.example,
                                        switcher=partial(SWITCHERS[spec["switcher"]], **spec.get("options", {})),
                                        **spec.get("switched", {}))}
        for name, net in nets.items():
            history = sl.fit(net, data.full_train, epochs=1, seed=epoch, progress=False, schedule="constant",
                             task_optimizer=partial(SGD, **spec["task_sgd"]),
                             switcher_optimizer=partial(Adam, **spec["switcher_adam"]), **settings)
            if epoch:
                times[name].append(history.last["seconds"])
    median = {name: statistics.median(each) for name, each in times.items()}
    result = {"command": f"python benchmarks/bench_alternate.py --epochs {options.epochs} --threads {options.threads}",
              "data": data.name, "experiment": EXPERIMENT, "method": METHOD, "epoch_seconds": times,
              "median_seconds": median, "ratio": median["switched"] / median["dense"], **conditions(options.threads)}
    seconds = {name: [r["seconds"] for r in sl.experiments.load(EXPERIMENT, RESULTS).of(name)] for name in ("dense", METHOD)}
    result["whole_run_seconds"] = seconds
    result["whole_run_ratio"] = statistics.fmean(seconds[METHOD]) / statistics.fmean(seconds["dense"])
    write("bench_alternate", result)
    print(f"{data.name}: one epoch of {len(data.full_train):,} images, batch {settings.get('batch_size', 64)}, a switcher step every "
          f"{settings['every']} task steps, {options.threads} threads, median of {options.epochs}")
    print(f"dense {median['dense']:.2f} s, switched {median['switched']:.2f} s: {result['ratio']:.2f} times")
    print(f"whole runs of {EXPERIMENT}, mean of {len(seconds[METHOD])} seeds: {result['whole_run_ratio']:.2f} times")


if __name__ == "__main__":
    main()
