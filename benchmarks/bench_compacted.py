"""What compaction brings in time: the compacted LeNet-300-100 of the book against the dense one.

    python benchmarks/bench_compacted.py [--threads 1] [--runs 400]

The network is the one that ``python -m switcher_lib.experiments run lenet300-cost`` saved; its choice of pixels is
timed too. Dense and compacted take turns. The result goes to ``results/bench_compacted.json``.
"""

import argparse

import torch
from report import RESULTS, conditions, write

import switcher_lib as sl

MODEL = RESULTS / "lenet300-cost-switcher-0.safetensors"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--runs", type=int, default=400, help="timed passes of each (default 400)")
    options = parser.parse_args()

    models = {"dense": sl.models.lenet_300_100(), "compacted": sl.load_compact(MODEL, into=sl.models.lenet_300_100)}
    data = sl.data.load("mnist")
    rows = []
    for batch in (1, 64, 1024):
        x = data.train.images[:batch].clone()
        measured = sl.metrics.compare_latency(models, x, threads=options.threads, runs=options.runs)
        ratio = measured["dense"].median / measured["compacted"].median
        rows.append({"batch": batch, "ratio": ratio, **{name: vars(latency) for name, latency in measured.items()}})
        print(f"batch {batch}: {ratio:.1f} times as fast\n  dense      {measured['dense']}\n  compacted  {measured['compacted']}")
    write("bench_compacted", {
        "command": f"python benchmarks/bench_compacted.py --threads {options.threads} --runs {options.runs}",
        "data": data.name, "model": MODEL.name,
        "parameters": {name: sl.metrics.count_parameters(model) for name, model in models.items()},
        "macs": {name: sl.metrics.count_macs(model, data.example) for name, model in models.items()},
        "rows": rows, **conditions(options.threads)})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
