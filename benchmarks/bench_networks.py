"""How long it takes to find the sites of ten torchvision networks, and to compact them with 30 % of their neurons off.

    python benchmarks/bench_networks.py [--threads 2] [--side 224] [NAME ...]

Each network is measured once, in a process of its own, tied sites included; the example is a batch of two images. The
result goes to ``results/bench_networks.json``.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
import torchvision
from report import conditions, write

import switcher_lib as sl

NETWORKS = ("alexnet", "vgg11_bn", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "densenet121",
            "efficientnet_b0", "convnext_tiny", "vit_b_16")
OFF = 0.3


def measure(name, side, threads):
    """Find the sites of one network, switch random neurons off and compact; return what it took."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    options = {"image_size": side} if name.startswith("vit") else {}
    model, x = torchvision.models.get_model(name, weights=None, **options), torch.randn(2, 3, side, side)
    with torch.no_grad():
        for path, p in model.named_parameters():
            if "layer_scale" in path or path == "heads.head.weight":    # 1e-6 and 0 at first: their branches would be nothing
                p.uniform_(0.5, 1.5)
    began = time.perf_counter()
    net = sl.Switched(model, x, switcher="random", tied=True).eval()
    found = time.perf_counter() - began
    net.hold({site.key: (torch.rand(site.size) > OFF).float().index_fill(0, torch.tensor([0]), 1) for site in net.sites})
    began = time.perf_counter()
    small = sl.compact(net, x, tolerance=1e-10)
    return {"name": name, "sites": len(net.sites), "neurons": sum(site.size for site in net.sites), "parameters": list(small.parameters),
            "find_seconds": found, "compact_seconds": time.perf_counter() - began,
            "relative_error": small.certificate.relative_error}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of the networks (default: all ten)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--side", type=int, default=224, help="height and width of the images (default 224)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)    # in a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.names[0], options.side, options.threads)))
        return
    rows = []
    for name in options.names or NETWORKS:
        command = [sys.executable, __file__, name, "--one", "--threads", str(options.threads), "--side", str(options.side)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))
        row = rows[-1]
        print(f"{name:20} {row['sites']:4} sites in {row['find_seconds']:5.1f} s; {row['parameters'][0]:,} -> "
              f"{row['parameters'][1]:,} parameters in {row['compact_seconds']:5.1f} s, relative error {row['relative_error']:.0e}")
    if not options.names:
        write("bench_networks", {"command": f"python benchmarks/bench_networks.py --threads {options.threads} --side {options.side}",
                                 "off": OFF, "side": options.side, "rows": rows, **conditions(options.threads)})


if __name__ == "__main__":
    main()
