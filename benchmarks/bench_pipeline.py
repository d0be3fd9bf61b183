"""One epoch of batches: tensors and indexing against torchvision's Dataset, transforms and DataLoader.

    python benchmarks/bench_pipeline.py [--batch 64] [--repeats 5] [--threads 1]

Both give shuffled, standardised float32 batches of the same images; the Dataset is torchvision's own MNIST.
All pipelines take turns in one process, so that a slow moment of the machine falls on each of them; the
ratio is that of the medians. The result goes to ``results/bench_pipeline.json``. With no real MNIST the
stand-in's images are used, and named.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision
from report import write
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from switcher_lib import data as sl_data  # noqa: E402


def torchvisions(pixels, labels, transform):
    """torchvision's own MNIST over these images: made without its constructor, which wants files on disk."""
    dataset = datasets.MNIST.__new__(datasets.MNIST)
    dataset.data, dataset.targets = pixels, labels
    dataset.transform, dataset.target_transform = transform, None
    return dataset


def seconds(batches):
    """Wall time to walk through all batches, and the number of images seen."""
    started = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    return time.perf_counter() - started, seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="images per batch (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each pipeline (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench_pipeline.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    data = sl_data.load("mnist")
    split, mean, std = data.train, data.mean, data.std
    pixels = ((split.images * std[0] + mean[0]) * 255).round().to(torch.uint8)[:, 0]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    images = torchvisions(pixels, split.labels, transform)
    assert torch.allclose(images[7][0], split.images[7], atol=1e-5), "the pipelines must give the same images"

    def loader(workers):
        return lambda: DataLoader(images, batch_size=options.batch, shuffle=True, num_workers=workers)

    pipelines = {
        "switcher_lib": lambda: split.batches(options.batch, generator=torch.Generator().manual_seed(0)),
        "DataLoader, 0 workers": loader(0),
        "DataLoader, 2 workers": loader(2),
    }
    times = {name: [] for name in pipelines}
    seconds(pipelines["switcher_lib"]())                        # the first touch of the memory is nobody's
    for _ in range(options.repeats):
        for name, make in pipelines.items():
            took, seen = seconds(make())
            assert seen == len(split), f"{name} gave {seen} of {len(split)} images"
            times[name].append(took)

    median = {name: statistics.median(each) for name, each in times.items()}
    best = min((name for name in median if name != "switcher_lib"), key=median.get)
    result = {
        "command": f"python benchmarks/bench_pipeline.py --batch {options.batch} --repeats {options.repeats} "
                   f"--threads {options.threads}",
        "data": data.name, "requested": data.requested, "images": len(split), "batch": options.batch,
        "threads": options.threads, "cores": os.cpu_count(), "repeats": options.repeats,
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "torchvision": torchvision.__version__},
        "seconds": times, "median_seconds": median, "best_loader": best,
        "ratio": median[best] / median["switcher_lib"],
    }
    write(options.out.stem, result, options.out.parent)

    print(f"{data.name}: {len(split):,} images, batch {options.batch}, {options.threads} thread(s), "
          f"median of {options.repeats} interleaved epochs")
    for name, each in times.items():
        print(f"  {name:<22}{median[name]:9.3f} s   ({min(each):.3f} to {max(each):.3f})"
              f"{median[name] / median['switcher_lib']:9.1f} ×")
    print(f"{result['ratio']:.1f} times as fast as the best of the loaders ({best})")


if __name__ == "__main__":
    main()
