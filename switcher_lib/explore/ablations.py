"""Question the ablation table: two variants, seed by seed; and train them, where a kernel is."""

from functools import partial
from os import PathLike
from typing import Any

import torch
import traitlets

from ..data import Data
from ..experiments import EXPERIMENTS, Difference, paired
from ..experiments.results import unpack
from ..experiments.runner import searching
from .base import Explorer, between, chart, module_source, one_of, source
from .stored import complete

BASE = "as compared"
NAME = "lenet300-ablations"
METRICS = (
    {"name": "test accuracy", "unit": "%", "digits": 2},
    {"name": "parameters left", "unit": "", "digits": 0},
    {"name": "pixels on", "unit": "", "digits": 0},
    {"name": "first layer, neurons on", "unit": "", "digits": 0},
    {"name": "second layer, neurons on", "unit": "", "digits": 0},
    {"name": "pixels as in the base, same seed", "unit": "%", "digits": 1},
)
IMAGES, EPOCHS = 8_000, 4  # of a run of the reader's own


class Ablations(Explorer):
    """Every run of the book's ablations, by question and by measure, and the paired difference of any two variants.

    Means, standard deviations, the interval of the difference and its verdict are computed in the page, from the
    runs. Where a kernel is, a button trains the two that are compared, in a short version, with a progress bar.

    Parameters
    ----------
    folder : str or Path, optional
        Where the result files are; None looks in ``results/`` here and one folder up.

    Raises
    ------
    FileNotFoundError
        If the stored ablations are not there or not complete.

    Attributes
    ----------
    group : str
        What is changed; synced with the page, as are the others.
    metric : int
        Which measure, counted from 0 in the order of the choice.
    a, b : int
        The variants compared, counted from 0.
    progress : float
        Of the training, 0 to 1.
    trained : tuple of dict
        What was trained here: name, seed, validation accuracy in per cent, parameters.
    """

    _esm = module_source("board.js", "ablations.js")
    _css = source("base.css")

    variants = traitlets.Tuple().tag(sync=True)
    metrics = traitlets.Tuple(METRICS).tag(sync=True)
    quantiles = traitlets.Tuple().tag(sync=True)
    group = traitlets.Unicode("gate").tag(sync=True)
    metric = traitlets.Int(0).tag(sync=True)
    a = traitlets.Int(0).tag(sync=True)
    b = traitlets.Int(1).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    training = traitlets.Unicode("").tag(sync=True)
    trained = traitlets.Tuple().tag(sync=True)

    def __init__(self, folder: str | PathLike[str] | None = None) -> None:
        from scipy.special import stdtrit  # the quantiles of Student's t

        found = {method: points[None] for method, points in complete(NAME, folder).items()}
        if BASE not in found or len(found) < 2:
            raise FileNotFoundError(f"No complete ablations in results/. python -m switcher_lib.experiments run {NAME} makes them.")
        masks = {r["seed"]: unpack(r["mask"]["input"], (784,)) for r in found[BASE][1]}
        variants = [
            {"name": method, "group": method.partition(": ")[0] if ": " in method else "", "stopped": list(row.stopped),
             "runs": [self._measures(r, masks) for r in records]}
            for method, (row, records) in found.items()
        ]  # fmt: skip
        variants.sort(key=lambda v: v["name"] != BASE)  # the base first, the others as the catalogue has them
        super().__init__(variants=tuple(variants), quantiles=tuple(float(stdtrit(df, 0.975)) for df in range(1, 10)))
        self.on_msg(self._hear)

    @staticmethod
    def _measures(record, masks):
        on = {key: n for key, (_, n) in record["sites"].items()}
        mine = unpack(record["mask"]["input"], (784,))
        same = float((mine == masks[record["seed"]]).float().mean())
        return [record["seed"], round(100 * record["test_accuracy"], 4), record["parameters"], on["input"], on["fc1"], on["fc2"],
                round(100 * same, 4)]  # fmt: skip

    @traitlets.validate("group")
    def _check_group(self, proposal):
        return one_of("group", proposal["value"], {v["group"] for v in self.variants[1:]} or {"gate"}, "question of this table")

    @traitlets.validate("metric", "a", "b")
    def _check_index(self, proposal):
        name = proposal["trait"].name
        return between(name, proposal["value"], 0, (len(METRICS) if name == "metric" else len(self.variants) or 2) - 1)

    def values(self, variant: int) -> dict[int, float]:
        """Return {seed: the chosen measure} of the variant of number ``variant``."""
        return {run[0]: run[self.metric + 1] for run in self.variants[variant]["runs"]}

    def difference(self) -> Difference | None:
        """The paired difference A − B by the library, or None where it can't be taken."""
        a, b = self.values(self.a), self.values(self.b)
        seeds = [seed for seed in a if seed in b]
        if self.a == self.b or len(seeds) < 2:
            return None
        return paired([a[s] for s in seeds], [b[s] for s in seeds])

    def shown(self) -> dict[str, Any]:
        from ..experiments.tables import mean_std

        rows = [0, *(i for i, v in enumerate(self.variants) if v["group"] == self.group)]
        d = self.difference()
        spread = [list(self.values(i).values()) for i in rows]
        sizes = [[run[2] for run in self.variants[i]["runs"]] for i in (self.a, self.b)]
        means = [sum(s) / len(s) if s else 0 for s in sizes]
        return {
            "rows": [[self.variants[i]["name"], *(mean_std(v) if v else (None, None))] for i, v in zip(rows, spread, strict=True)],
            "pairs": len({*self.values(self.a)} & {*self.values(self.b)}),
            "difference": None if d is None else {
                "mean": d.mean, "half": None if d.half == float("inf") else d.half,
                "verdict": "open" if d.verdict == "not settled" else d.verdict},
            "apart": bool(self.metric != 1 and min(means) > 0 and max(means) / min(means) > 1.1),
        }  # fmt: skip

    def describe(self) -> str:
        a, b, d = self.variants[self.a]["name"], self.variants[self.b]["name"], self.difference()
        told = f"{d}" if d else "no difference can be taken"
        return f"Ablations, {METRICS[self.metric]['name']}: {a} minus {b}: {told}."

    def first_frame(self) -> str:
        rows = [v for v in self.variants if v["group"] in (self.group, "")]
        dots = [([(max(run[self.metric + 1], 94 if self.metric == 0 else 0), -i) for run in v["runs"]], "#0072B2") for i, v in enumerate(rows)]
        return chart(self.describe(), dots=[d for d in dots if d[0]], size=(640, 30 + 30 * len(rows)))

    def _hear(self, _, content, buffers):
        """The button in the page: train both variants, one after the other."""
        if "train" in content:
            seed = 100 + len(self.trained) // 2
            for part, variant in enumerate(content["train"]):
                self.train(variant, seed, part, len(content["train"]))

    def train(self, variant: int, seed: int = 100, part: int = 0, parts: int = 1, data: Data | None = None) -> dict[str, Any]:
        """Train one variant in a short version: 8,000 images, 4 epochs of search, compaction, validation accuracy.

        Parameters
        ----------
        variant : int
            Its number.
        seed : int, default 100
            Seed of everything random; not one of the table's.
        part, parts : int, default 0 and 1
            This run's place among several, for the progress bar.
        data : Data, optional
            What to learn from; None takes MNIST, or says that a stand-in was taken.

        Returns
        -------
        dict
            ``name``, ``seed``, ``accuracy`` (per cent, on the validation split) and ``parameters``; also in
            :attr:`trained`.
        """
        from .. import data as data_module
        from .. import models
        from ..compaction import compact
        from ..errors import TrainingStopped
        from ..metrics import count_parameters
        from ..training import evaluate, fit, seed_everything

        name = self.variants[variant]["name"]
        spec = EXPERIMENTS[NAME].spec(name, None)
        data = data or data_module.load("mnist")
        split = data.train.subset(min(IMAGES, len(data.train)))
        steps, taken = EPOCHS * -(-len(split) // spec["fit"]["batch_size"]), [0]

        def tell(*_):
            taken[0] += 1
            if taken[0] % 5 == 0:
                self.progress = min(0.999, (part + taken[0] / steps) / parts)

        def task(params):
            optimizer = torch.optim.SGD(params, **spec["task_sgd"])
            optimizer.register_step_post_hook(tell)
            return optimizer

        self.training, self.progress = f"{name}, seed {seed}, {data.name} \u2026", max(0.001, part / parts)
        seed_everything(seed)
        net, settings = searching(spec, models.lenet_300_100(), data.example, seed)
        try:
            fit(net, split, seed=seed, progress=False, task_optimizer=task,
                switcher_optimizer=partial(torch.optim.Adam, **spec["switcher_adam"]), **{**settings, "epochs": EPOCHS})  # fmt: skip
            small = compact(net, split.images[:64]).model
            found = {"name": name, "seed": seed, "accuracy": 100 * evaluate(small, data.validation).accuracy,
                     "parameters": count_parameters(small)}  # fmt: skip
            self.training = f"{name}: {found['accuracy']:.2f} % on {data.name}'s validation split"
            self.trained = (*self.trained, found)
        except TrainingStopped as error:
            found, self.training = {"name": name, "seed": seed, "stopped": str(error)}, f"{name} stopped: {error}"
        self.progress = 1.0 if part + 1 == parts else (part + 1) / parts
        return found
