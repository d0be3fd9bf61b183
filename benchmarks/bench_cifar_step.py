"""What a training step on CIFAR costs: the plain loop against fit() with channels-last weights and bfloat16.

    python benchmarks/bench_cifar_step.py [--models conv_net resnet_20 vgg_16_bn] [--steps 5] [--repeats 7] [--threads 2]

A step is a batch of cropped and flipped images, forward, backward and SGD. The plain loop keeps float32 numbers in the
layout that a new network has; ours is :func:`switcher_lib.fit` on the same images. Both take turns in one process, a few
steps each, so that a slow moment of the machine falls on both; the ratio is that of the medians, and that of the quickest
turns tells how far a busy machine may have bent it. How much bfloat16 brings depends on the processor's instructions for
it. The result goes to ``results/bench_cifar_step.json``.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from report import RESULTS, conditions, write
from torch.nn import functional as F
from torch.optim import SGD

import switcher_lib as sl

MODELS = ("conv_net", "resnet_20", "vgg_16_bn")


def plain(model, split, batch):
    """Take the steps of one epoch as a loop without this library would, and return the seconds."""
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    model.train()
    began = time.perf_counter()
    for x, y in split.batches(batch, generator=torch.Generator().manual_seed(0), augment=sl.data.crop_flip):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def ours(model, split, batch):
    """Take the same steps in :func:`switcher_lib.fit`, and return the seconds."""
    history = sl.fit(model, split, epochs=1, batch_size=batch, augment="crop_flip", precision="bfloat16", schedule="constant",
                     progress=False)
    return history.last["seconds"]


def compare(name, split, batch, repeats):
    """Return a model's row: seconds of a step in each turn, images a second, and the ratio."""
    sl.seed_everything(0)
    networks = {"plain": sl.models.make(name), "ours": sl.models.make(name).to(memory_format=torch.channels_last)}
    steps, seconds = -(-len(split) // batch), {"plain": [], "ours": []}
    for turn in range(repeats + 1):                             # the first one warms up
        for way, run in (("plain", plain), ("ours", ours)):
            took = run(networks[way], split, batch) / steps
            if turn:
                seconds[way].append(took)
    median, quickest = ({way: pick(each) for way, each in seconds.items()} for pick in (statistics.median, min))
    return {"model": name, "step_seconds": seconds, "images_per_second": {way: batch / each for way, each in median.items()},
            "ratio": median["plain"] / median["ours"], "ratio_of_the_quickest": quickest["plain"] / quickest["ours"]}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sl.models.known(), default=MODELS, help=f"default {' '.join(MODELS)}")
    parser.add_argument("--batch", type=int, default=128, help="images per step (default 128)")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn (default 5)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--data", default="cifar10", help="data set (default cifar10)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default results/)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    data = sl.data.load(options.data)
    rows = []
    for name in options.models:
        rows.append(compare(name, data.train.subset(options.batch * options.steps), options.batch, options.repeats))
        speed = rows[-1]["images_per_second"]
        print(f"{name}: plain {speed['plain']:,.0f}, ours {speed['ours']:,.0f} images a second: {rows[-1]['ratio']:.2f} times "
              f"(quickest turns {rows[-1]['ratio_of_the_quickest']:.2f})", flush=True)
    write("bench_cifar_step", {
        "command": f"python benchmarks/bench_cifar_step.py --models {' '.join(options.models)} --batch {options.batch} "
                   f"--steps {options.steps} --repeats {options.repeats} --threads {options.threads}",
        "data": data.name, "batch": options.batch, "steps": options.steps, "repeats": options.repeats, "rows": rows,
        "capability": torch.backends.cpu.get_cpu_capability(), **conditions(options.threads)}, options.out)


if __name__ == "__main__":
    main()
