"""Runs a specification: one record for each method and seed, written as soon as it is there."""

import json
import os
import platform
import subprocess
from functools import partial
from pathlib import Path

import torch
from joblib import Parallel, delayed
from torch.optim import SGD, Adam

from switcher_lib import data as data_module
from switcher_lib import models
from switcher_lib.compaction import compact
from switcher_lib.errors import DataError, unknown_name
from switcher_lib.experiments.specs import EXPERIMENTS, ramp
from switcher_lib.metrics import count_macs, count_parameters
from switcher_lib.progress import progress_bar
from switcher_lib.switched import Switched
from switcher_lib.switchers import RandomSwitcher, SWITCHERS
from switcher_lib.training import evaluate, fit, seed_everything

FORMAT = 1


class Results:
    """The finished runs of one experiment, in one JSON file that is always whole.

    Parameters
    ----------
    path : str or Path
        The file; it need not exist yet.

    Raises
    ------
    ValueError
        If the file is there and is not a results file of this version.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.runs = []
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text())
                self.runs = content["runs"] if content["format"] == FORMAT else None
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path} is not a results file ({error}); move it away to start again.") from error
            if self.runs is None:
                raise ValueError(f"{self.path} has format {content['format']!r}; this version reads {FORMAT}.")

    def find(self, method, seed, spec=None):
        """Return the record of a method and seed, or None.

        Parameters
        ----------
        method : str
            Name of the method.
        seed : int
            The seed.
        spec : dict, optional
            With it, the record counts only if it was made by that very spec.
        """
        for record in self.runs:
            if record["method"] == method and record["seed"] == seed and (spec is None or record["spec"] == spec):
                return record
        return None

    def add(self, record):
        """Add a record, in place of an older one of the same method and seed, and write the file atomically."""
        self.runs = [r for r in self.runs if (r["method"], r["seed"]) != (record["method"], record["seed"])] + [record]
        self.runs.sort(key=lambda r: (r["method"], r["seed"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text(json.dumps({"format": FORMAT, "runs": self.runs}, indent=1) + "\n")
        os.replace(part, self.path)

    def of(self, method):
        """Return the records of one method, in the order of their seeds."""
        return [r for r in self.runs if r["method"] == method]


def load(name, folder="results"):
    """Return the :class:`Results` of an experiment.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.specs.EXPERIMENTS`.
    folder : str or Path, default "results"
        Where the result files are.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("name", name, EXPERIMENTS, "experiment")
    return Results(Path(folder) / f"{name}.json")


def run(name, seeds=range(5), methods=None, jobs=1, folder="results", threads=None):
    """Run what is missing of an experiment.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.specs.EXPERIMENTS`.
    seeds : iterable of int, default 0 to 4
        Seeds to run.
    methods : sequence of str, optional
        Methods to run; None runs all.
    jobs : int, default 1
        Runs at a time, each in a process of its own.
    folder : str or Path, default "results"
        Where the result file goes.
    threads : int, optional
        CPU threads for each run; None shares the cores among the jobs.

    Returns
    -------
    Results
        All finished runs.
    """
    results = load(name, folder)    # raises where the name is not known
    experiment = EXPERIMENTS[name]
    for method in methods or ():
        if method not in experiment.methods:
            raise unknown_name("methods", method, experiment.methods, "method of this experiment")
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    todo = [(method, seed) for seed in seeds for method in methods or experiment.methods
            if results.find(method, seed, experiment.methods[method]) is None]
    waiting = {task for task in todo if experiment.methods[task[0]].get("same_count_as")}
    bar = progress_bar(len(todo), name)
    for batch in ([t for t in todo if t not in waiting], [t for t in todo if t in waiting]):    # some need others' results
        calls = (delayed(run_one)(name, method, seed, threads, _needed(experiment, results, method, seed), folder)
                 for method, seed in batch)
        for record in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
            results.add(record)
            bar.update()
    bar.close()
    return results


def _needed(experiment, results, method, seed):
    other = experiment.methods[method].get("same_count_as")
    if other is None:
        return None
    record = results.find(other, seed, experiment.methods[other])
    if record is None:
        raise ValueError(f"method {method!r} needs the result of {other!r} with seed {seed}; run that first.")
    return {site: total - on for site, (total, on) in record["sites"].items()}


def run_one(name, method, seed, threads=1, off=None, folder="results"):
    """Run one method with one seed and return its record.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.specs.EXPERIMENTS`.
    method : str
        One of its methods.
    seed : int
        Seed of everything random.
    threads : int, default 1
        CPU threads.
    off : dict of str to int, optional
        Neurons to switch off at each site, for methods that take another's count.
    folder : str or Path, default "results"
        Where a network is saved, if the method says so.

    Returns
    -------
    dict
        ``spec``, ``seed``, test accuracy, neurons in all and on at each site, at the start and at the end, parameters,
        MACs, training seconds, and where and with what it ran.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _run_one(name, method, seed, threads, off, folder)
    finally:
        torch.set_num_threads(before)


def _run_one(name, method, seed, threads, off, folder):
    experiment = EXPERIMENTS[name]
    spec = experiment.methods[method]
    data = data_module.load(experiment.data)
    if data.is_stand_in:
        raise DataError(f"{experiment.data} could not be had, and an experiment never runs on a stand-in: {data.source}")
    train = data.full_train
    seed_everything(seed)
    model = models.make(experiment.model)
    start, sites, certificate, search_seconds = {}, {}, None, 0.0
    if off is not None:
        model, sites = _cut_at_random(model, data, off)
        start = {key: on for key, (_, on) in sites.items()}
    if spec["kind"] == "plain":
        history = _train_plain(model, train, seed, {**spec["fit"], "task_sgd": spec["task_sgd"], "noise": spec.get("noise", 0.0)})
        task_steps, switcher_steps, seconds = history.last["task_steps"], 0, history.last["seconds"]
    else:
        net = Switched(model, data.example, switcher=partial(SWITCHERS[spec["switcher"]], **spec["options"]), **spec["switched"])
        if spec.get("untrained"):
            net.switcher.requires_grad_(False)
        start = {key: int((s != 0).sum()) for key, s in net.train().factors().items()}
        settings = {**spec["fit"], "cost": ramp(**spec["fit"]["cost"]) if "cost" in spec["fit"] else 0.0}
        history = fit(net, train, seed=seed, progress=False, task_optimizer=partial(SGD, **spec["task_sgd"]),
                      switcher_optimizer=partial(Adam, **spec["switcher_adam"]), **settings)
        sites = {key: list(pair) for key, pair in net.structure().sites.items()}
        small = compact(net, train.images[:256])
        model, certificate = small.model, small.certificate.relative_error
        task_steps, switcher_steps = history.last["task_steps"], history.last["switcher_steps"]
        seconds = search_seconds = history.last["seconds"]
        again = dict(spec["finetune"])
        if "until_epoch" in again:
            again["epochs"] = again.pop("until_epoch") - len(history.records)
        history = _train_plain(model, train, seed + 1000, again)
        task_steps += history.last["task_steps"]
        seconds += history.last["seconds"]
        if spec.get("save") and seed == 0:
            small.save(Path(folder) / f"{name}-{method}-0.safetensors")
    result = evaluate(model, data.test)    # the one look at the test set
    return dict(
        method=method, seed=seed, spec=spec, data=data.name, train_examples=len(train), test_accuracy=result.accuracy,
        test_loss=result.loss, sites=sites, on_at_start=start, parameters=count_parameters(model),
        macs=count_macs(model, data.example), task_steps=task_steps, switcher_steps=switcher_steps,
        seconds=round(seconds, 2), search_seconds=round(search_seconds, 2), certificate=certificate, threads=threads,
        device="cpu", torch=torch.__version__, python=platform.python_version(), commit=_commit(),
    )


def _train_plain(model, train, seed, settings):
    """Train a network without a switcher; with noise on its activations if the settings say so."""
    settings = dict(settings)
    sgd, noise = partial(SGD, **settings.pop("task_sgd")), settings.pop("noise", 0.0)
    net = model
    if noise:    # a switcher that leaves every factor at 1 and brings the noise
        net = Switched(model, train.images[:2], switcher=partial(RandomSwitcher, off=0.0), noise=noise, switch_inputs=True)
    return fit(net, train, seed=seed, progress=False, task_optimizer=sgd, **settings)


def _cut_at_random(model, data, off):
    """Cut as many random neurons out of an untrained network as another method switched off; return also the sites."""
    net = Switched(model, data.example, switcher=partial(RandomSwitcher, off=off), switch_inputs="input" in off)
    return compact(net, data.example).model, {site.key: [site.size, site.size - off[site.key]] for site in net.sites}


def _commit():
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
