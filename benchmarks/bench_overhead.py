"""What the switcher adds to a whole training: wall time and peak memory against dense training of as many task steps.

    python benchmarks/bench_overhead.py [--epochs N] [--repeats 3] [--threads 1] [--data mnist]

Whole runs as the book reports them, taken from the catalogue: search, compaction, training of what is left, one look at
the test split. Each is a process of its own, and they take turns. The seconds are those of the training steps; the wall
time is the process's, from its start to its end. Dense training gets whole epochs, at least as many task steps as the
switcher had, and its time is scaled down to as many. Peak memory is ``ru_maxrss``: Python, PyTorch and the data count
too, so a third process loads the data and does nothing, and what training takes above it is told as well. The result
goes to ``results/bench_overhead.json``.
"""

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Each configuration: experiment, method, operating point; and the experiment that has its dense network's settings.
CONFIGURATIONS = {"lenet300-neurons": ("switcher", 33_300, "lenet300-neurons"), "lenet300-cost": ("switcher", None, "lenet300-free")}
WHAT = ("data", "dense", "switcher")


def specification(configuration, what, epochs=None):
    """Return what to train by: the catalogue's specification, with ``epochs`` in place of all of its own.

    A shortened switcher has half of its epochs, at most, for the search.
    """
    from switcher_lib.experiments import EXPERIMENTS
    method, point, dense = CONFIGURATIONS[configuration]
    spec = copy.deepcopy(EXPERIMENTS[dense].spec("dense") if what == "dense" else EXPERIMENTS[configuration].spec(method, point))
    spec.pop("save", None)
    if epochs is not None:
        spec["fit"]["epochs"] = epochs if what == "dense" else max(1, epochs // 2)
    if epochs is not None and what == "switcher":
        spec["finetune"].pop("epochs", None)
        spec["finetune"]["until_epoch"] = epochs
    return spec


def child(configuration, what, epochs, seed, threads, data):
    """What a process of its own does: train, or load the data only; print what it took."""
    import torch

    import switcher_lib as sl
    torch.set_num_threads(threads)
    record = {}
    if what == "data":
        sl.data.load(data)
    else:
        experiment = sl.experiments.Experiment("what does it cost?", "lenet_300_100", data,
                                               {what: specification(configuration, what, epochs)}, seeds=(seed,))
        run, _ = sl.experiments.run_one(experiment, what, seed=seed, threads=threads)
        if "stopped" in run:
            raise RuntimeError(f"{what} of {configuration}, seed {seed}: {run['stopped']}")
        record = {name: run[name] for name in ("seconds", "search_seconds", "task_steps", "switcher_steps", "train_examples",
                                               "parameters", "test_accuracy")}
    unit = 1 if sys.platform == "darwin" else 1024    # macOS counts bytes, Linux KiB
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**record, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * unit}))


def measure(configuration, what, epochs, seed, threads, data):
    """Run one of ``WHAT`` in a fresh process; return its record, with the process's wall time.

    This process itself stays small: before it becomes another program, a child's memory is its parent's, and counts.
    """
    command = [sys.executable, __file__, "--child", configuration, what, str(seed), "--threads", str(threads), "--data", data]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"})
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{what} of {configuration} ended with {done.returncode}; its error stands above.")
    return {"what": what, "seed": seed, "wall": wall, **json.loads(done.stdout.splitlines()[-1])}


def compare(configuration, epochs=None, repeats=3, threads=1, data="mnist"):
    """Measure a configuration ``repeats`` times, each time with another seed, everything in turn.

    Returns
    -------
    dict
        The ``runs``; ``time_ratio`` and ``wall_ratio``, of the seconds and the wall times at equal task steps,
        ``memory_ratio`` and ``added_memory_ratio``, of the peaks and of what they are above the data's: each with one
        entry for each repetition, and their medians.
    """
    runs = []
    for seed in range(repeats):
        once = {what: measure(configuration, what, epochs, seed, threads, data) for what in ("data", "switcher")}
        steps = once["switcher"]["task_steps"]
        batch = specification(configuration, "dense")["fit"].get("batch_size", 64)
        enough = -(-steps // -(-once["switcher"]["train_examples"] // batch))
        once["dense"] = measure(configuration, "dense", enough, seed, threads, data)
        runs += [once[what] for what in WHAT]
    return {"configuration": configuration, **ratios(runs), "runs": runs}


def ratios(runs):
    """The switcher's figures over the dense ones', for each seed and in the median."""
    of = {what: [run for run in runs if run["what"] == what] for what in WHAT}
    found = {"time": [], "wall": [], "cpu": [], "memory": [], "added_memory": []}
    for data, dense, switcher in zip(of["data"], of["dense"], of["switcher"]):
        scale = switcher["task_steps"] / dense["task_steps"]
        idle = dense["wall"] - dense["seconds"]    # imports, data, test: not a matter of steps
        found["time"].append(switcher["seconds"] / (dense["seconds"] * scale))
        found["wall"].append(switcher["wall"] / (idle + dense["seconds"] * scale))
        found["cpu"].append((switcher["cpu"] - data["cpu"]) / ((dense["cpu"] - data["cpu"]) * scale))
        found["memory"].append(switcher["peak"] / dense["peak"])
        found["added_memory"].append((switcher["peak"] - data["peak"]) / (dense["peak"] - data["peak"]))
    return {f"{name}_ratio": {"median": statistics.median(each), "each": each} for name, each in found.items()}


def told(result):
    """A configuration's result in words."""
    of = {what: [run for run in result["runs"] if run["what"] == what] for what in WHAT}
    lines = [f"{result['configuration']}, medians of {len(of['data'])} (least to most)"]
    for what, runs in of.items():
        mib = [run["peak"] / 2**20 for run in runs]
        text = f"  {what:<9} peak {statistics.median(mib):6.0f} MiB ({min(mib):.0f} to {max(mib):.0f})"
        for name, words in (("wall", "wall"), ("seconds", "training")) if what != "data" else (("wall", "wall"),):
            each = [run[name] for run in runs]
            text += f", {words} {statistics.median(each):5.1f} s ({min(each):.1f} to {max(each):.1f})"
        lines.append(text + (f", {runs[0]['task_steps']:,} task steps" if what != "data" else ""))
    words = {"time": "training, at equal task steps", "wall": "whole process, at equal task steps",
             "cpu": "processor time above the data's, at equal task steps", "memory": "peak memory",
             "added_memory": "peak memory above the data's"}
    for name, text in words.items():
        each = result[f"{name}_ratio"]
        lines.append(f"  {text}: {each['median']:.2f} times ({min(each['each']):.2f} to {max(each['each']):.2f})")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), help="default all")
    parser.add_argument("--epochs", type=int, help="epochs of each run (default: all that the catalogue gives)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, with seeds from 0 (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--data", default="mnist", help="data set (default mnist)")
    parser.add_argument("--out", type=Path, help="folder of the result (default results/)")
    parser.add_argument("--child", nargs=3, metavar=("CONFIGURATION", "WHAT", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        configuration, what, seed = options.child
        return child(configuration, what, options.epochs, int(seed), options.threads, options.data)
    if options.epochs is not None and options.epochs < 2:
        parser.error(f"--epochs {options.epochs}: at least 2, one for the search and one for what is left")

    results = []
    for configuration in options.configurations:
        results.append(compare(configuration, options.epochs, options.repeats, options.threads, options.data))
        print(told(results[-1]), flush=True)
    from report import RESULTS, conditions, write    # late, for it brings PyTorch: see measure()
    chosen = "" if set(options.configurations) == set(CONFIGURATIONS) else f" --configurations {' '.join(options.configurations)}"
    chosen += "" if options.epochs is None else f" --epochs {options.epochs}"
    write("bench_overhead", {
        "command": f"python benchmarks/bench_overhead.py{chosen} --repeats {options.repeats} --threads {options.threads}",
        "data": options.data, "epochs": options.epochs, "configurations": results, **conditions(options.threads)},
        options.out or RESULTS)


if __name__ == "__main__":
    main()
