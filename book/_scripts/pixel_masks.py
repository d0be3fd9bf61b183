"""Record which of MNIST's pixels a switcher keeps, over the price and over training: the explorer PixelMask replays it.

    OMP_NUM_THREADS=1 python book/_scripts/pixel_masks.py

Chapter 5's live search with the cost term (seed 0, 20,000 training images, 3 epochs), without a stop, once for each of six
prices. It writes results/pixel-masks.json after each of them, and goes on where it was interrupted; about a minute on one core.
"""

import base64
import json
import os
from functools import partial
from pathlib import Path

import torch

import switcher_lib as sl
from switcher_lib import experiments

PATH = Path(__file__).resolve().parents[2] / "results" / "pixel-masks.json"
WEIGHTS = (0, 0.5, 1, 2, 4, 8)
SEED, IMAGES, EPOCHS, BATCH, LOOKS = 0, 20_000, 3, 64, 12


def levels(factors):
    """The factors of 784 pixels as text, four bits each: 0 is exactly off, 1 to 15 are fifteenths of the factor, rounded up."""
    fifteenths = (15 * factors.clamp(0, 1)).ceil().to(torch.uint8).reshape(-1, 2)
    return base64.b64encode((16 * fifteenths[:, 0] + fifteenths[:, 1]).numpy().tobytes()).decode()


def look(net, step, weight, some):
    """What there is to see at a step."""
    net.eval()
    with torch.no_grad():
        factors = net.factors()
    structure = net.structure()
    found = {
        "step": step, "weight": round(weight, 4), "pixels": levels(factors["input"]),
        "on": {key: int((s != 0).sum()) for key, s in factors.items()}, "parameters": structure.parameters[1],
        "accuracy": round(100 * sl.evaluate(net, some).accuracy, 2),
    }  # fmt: skip
    net.train()
    return found


def search(weight, data, train):
    """Search with a price that grows to ``weight`` over the first 80 % of the steps; return the looks."""
    spec = experiments.EXPERIMENTS["lenet300-cost"].methods["switcher"]
    sl.seed_everything(SEED)
    row = partial(sl.RowSwitcher, **spec["options"])
    net = sl.Switched(sl.models.lenet_300_100(), data.example, switcher=row, **spec["switched"])
    task = torch.optim.SGD(net.model.parameters(), **spec["task_sgd"])
    switch = torch.optim.Adam(net.switcher.parameters(), lr=2e-3)
    some = data.validation.subset(2_000)
    order = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * -(-len(train) // BATCH)
    looks, step = [look(net, 0, 0.0, some)], 0
    for _ in range(EPOCHS):
        for x, y in train.batches(BATCH, generator=order):
            step += 1
            sl.task_step(net, x, y, task)
            now = weight * min(1, step / (0.8 * steps))
            if step % 4 == 0:
                sl.switcher_step(net, x, y, switch, cost=now)
            if step * LOOKS // steps > (step - 1) * LOOKS // steps:
                looks.append(look(net, step, now, some))
    return looks


def main():
    data = sl.data.load("mnist", stand_in=False)
    train = data.train.subset(IMAGES)
    mean = data.train.images.mean(0)[0]
    grey = (255 * (mean - mean.min()) / (mean.max() - mean.min())).round().to(torch.uint8)
    content = {
        "command": "python book/_scripts/pixel_masks.py", "data": data.name, "seed": SEED, "images": IMAGES, "epochs": EPOCHS,
        "torch": torch.__version__.split("+")[0], "mean": base64.b64encode(grey.numpy().tobytes()).decode(), "runs": {},
    }  # fmt: skip
    if PATH.exists():
        content["runs"] = json.loads(PATH.read_text(encoding="utf-8"))["runs"]
    for weight in WEIGHTS:
        if str(weight) in content["runs"]:
            continue
        content["runs"][str(weight)] = search(weight, data, train)
        part = PATH.with_name(PATH.name + ".part")
        part.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
        os.replace(part, PATH)
        last = content["runs"][str(weight)][-1]
        print(f"λ to {weight}: {last['on']}, {last['parameters']:,} parameters, {last['accuracy']} %", flush=True)


if __name__ == "__main__":
    main()
