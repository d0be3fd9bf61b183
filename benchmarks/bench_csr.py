"""When zeros save time: the density below which a Linear layer runs faster as CSR than dense.

    python benchmarks/bench_csr.py [--threads 1] [--runs 200]

Both layers of LeNet-300-100 that are worth it, with random connections of several densities, at three batch sizes. Dense
and CSR take turns. The crossover is where the ratio of the medians is 1, between two measured densities on straight lines
through the logarithms. The result goes to ``results/bench_csr.json``.
"""

import argparse
import math

import torch
from report import conditions, write
from torch import nn

import switcher_lib as sl

LAYERS = ((784, 300), (300, 100))
BATCHES = (1, 64, 1024)
DENSITIES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5)


def layer(n_in, n_out, density):
    """A Linear layer with exactly this part of its weights other than 0, at random places."""
    dense = nn.Linear(n_in, n_out)
    with torch.no_grad():
        holes = torch.randperm(n_in * n_out)[round(density * n_in * n_out):]
        dense.weight.view(-1)[holes] = 0
    return dense


def crossover(points):
    """The density up to which CSR is faster; None if it is not at the lowest one, 1 if it is at all of them.

    ``points`` are (density, dense milliseconds over CSR milliseconds), in rising order of density.
    """
    if points[0][1] <= 1:
        return None
    for (low, above), (high, below) in zip(points, points[1:]):
        if below <= 1:
            part = math.log(above) / (math.log(above) - math.log(below))
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--runs", type=int, default=200, help="timed passes of each (default 200)")
    options = parser.parse_args()

    rows, crossovers = [], []
    print(f"dense time / CSR time, {options.threads} thread{'s' * (options.threads > 1)}, medians of {options.runs} passes")
    print(f"{'layer':>9}{'batch':>7}" + "".join(f"{density:>8.1%}" for density in DENSITIES) + "  faster below")
    for n_in, n_out in LAYERS:
        for batch in BATCHES:
            x, points = torch.randn(batch, n_in), []
            for density in DENSITIES:
                dense = layer(n_in, n_out, density)
                models = {"dense": dense, "csr": sl.SparseLinear(dense.weight, dense.bias)}
                measured = sl.metrics.compare_latency(models, x, threads=options.threads, runs=options.runs)
                points.append((density, measured["dense"].median / measured["csr"].median))
                rows.append({"layer": [n_in, n_out], "batch": batch, "density": density, "ratio": points[-1][1],
                             **{name: vars(latency) for name, latency in measured.items()}})
            found = crossover(points)
            crossovers.append({"layer": [n_in, n_out], "batch": batch, "density": found})
            print(f"{n_in:>5}×{n_out:<3}{batch:>7}" + "".join(f"{ratio:>8.2f}" for _, ratio in points)
                  + ("         never" if found is None else f"{found:>14.1%}"), flush=True)
    write("bench_csr", {"command": f"python benchmarks/bench_csr.py --threads {options.threads} --runs {options.runs}",
                        "crossovers": crossovers, "rows": rows, **conditions(options.threads)})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
