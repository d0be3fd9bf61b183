"""Runs an experiment: one record for each method, operating point and seed, written as soon as it is there."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from switcher_lib import data as data_module
from switcher_lib import models
from switcher_lib.compaction import compact, fold, fold_batchnorm
from switcher_lib.errors import DataError, SwitchError, SwitchWarning, TrainingStopped, unknown_name
from switcher_lib.experiments import transfer
from switcher_lib.experiments.catalogue import EXPERIMENTS
from switcher_lib.experiments.protocol import ProtocolError
from switcher_lib.experiments.results import WHERE, Record, Results, at, beside_or_told, differences, follows, key, pack, unpack
from switcher_lib.experiments.specs import Experiment, check_methods, check_seeds, priced, ramp
from switcher_lib.experiments.tables import Row, table
from switcher_lib.metrics import count_macs, count_nonzero_parameters, count_nonzero_weights, macs_per_weight
from switcher_lib.progress import progress_bar
from switcher_lib.switched import Switched
from switcher_lib.switchers import SWITCHERS, FixedSwitcher, RandomSwitcher
from switcher_lib.training import _check_net, evaluate, fit, keep_zeros, seed_everything

PARTS = ("fit", "search", "finetune")    # of a run, each with its checkpoint; several runs share that of "pretrain"
NOTHING = "there is no structure to take over: "    # how the reason begins why a run stopped that depends on another


def get(name: str | Experiment) -> Experiment:
    """Return the :class:`Experiment` of a name.

    Parameters
    ----------
    name : str or Experiment
        One of :data:`~switcher_lib.experiments.EXPERIMENTS`, or an experiment, which is returned.
    """
    if isinstance(name, Experiment):
        return name
    if name not in EXPERIMENTS:
        raise unknown_name("name", name, EXPERIMENTS, "experiment")
    return EXPERIMENTS[name]


def load(name: str, folder: str | os.PathLike[str] = "results") -> Results:
    """Return the :class:`Results` of an experiment.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.EXPERIMENTS`.
    folder : str or Path, default "results"
        Where the result files are.
    """
    get(name)
    return Results(Path(folder) / f"{name}.json")


def stored(name: str, methods: Iterable[str] | None = None) -> tuple[Results | None, dict[str, dict[int | None, Row]]]:
    """Read an experiment's committed results for a page: what keeps the rules of comparison, and no more.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.EXPERIMENTS`.
    methods : sequence of str, optional
        Some of its methods; None takes all.

    Returns
    -------
    Results or None
        The runs; None, said in a printed line, where the folder ``results/`` is neither here nor one folder up.
    dict of dict
        {method: {operating point: :class:`Row`}}. A method whose runs are not all there is left out, and a line says so.
    """
    experiment = get(name)
    methods = list(methods or experiment.methods)
    check_methods(methods, experiment)
    path = beside_or_told(f"{name}.json", f"run {name}")
    if path is None:
        return None, {}
    results = load(name, path.parent)
    found = complete(results, experiment, methods)
    if missing := [method for method in methods if method not in found]:
        print(f"Not all runs are there yet: {', '.join(missing)}.")
    return results, found


def complete(results: Results, experiment: Experiment, methods: Iterable[str]) -> dict[str, dict[int | None, Row]]:
    """Return {method: {operating point: :class:`Row`}} of the methods whose runs are all there and keep the rules of comparison.

    Parameters
    ----------
    results : Results
        What there is.
    experiment : Experiment
        What it belongs to.
    methods : iterable of str
        Some of its methods.
    """
    found = {}
    for method in methods:
        try:
            rows = {row.point: row for row in table(results, [method], experiment)}
        except ProtocolError:
            continue
        if set(rows) == set(experiment.points(method)):
            found[method] = rows
    return found


def run(name: str, seeds: Iterable[int] | None = None, methods: Sequence[str] | None = None, jobs: int = 1,
        folder: str | os.PathLike[str] = "results", threads: int | None = None, *, experiment: Experiment | None = None,
        dask: str | None = None, device: str = "cpu", redo: bool = False, progress: bool = True) -> Results:
    """Run what is missing of an experiment.

    Every training is kept after each of its epochs in a hidden folder beside the results: a killed run goes on from
    there, and a network that several methods start from is trained once. The folder goes when the experiment is complete.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.EXPERIMENTS`; with ``experiment``, the name of its result file.
    seeds : iterable of int, optional
        Seeds to run; None runs the experiment's.
    methods : sequence of str, optional
        Methods to run; None runs all.
    jobs : int, default 1
        Runs at a time, each in a process of its own.
    folder : str or Path, default "results"
        Where the result file goes.
    threads : int, optional
        CPU threads for each run; None shares the cores among the jobs.
    experiment : Experiment, optional
        An experiment of one's own, such as :func:`~switcher_lib.experiments.read_experiment` returns.
    dask : str, optional
        Address of a dask cluster's scheduler that does the runs, or ``"local"`` for one on this machine. The workers
        need this library and the data; this process alone writes.
    device : str, default "cpu"
        Where runs train, such as ``"cuda"``.
    redo : bool, default False
        Whether to replace results that another version of a specification has made.
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Results
        All finished runs.

    Raises
    ------
    ValueError
        If a name is unknown, results of another specification are in the way, or a result that is needed is missing.
    BlockingIOError
        If another runner is at work on the same results.
    OSError
        If a result cannot be written; the file stays as it was.
    """
    experiment = experiment or get(name)
    check_methods(methods, experiment)
    seeds = experiment.seeds if seeds is None else tuple(seeds) if isinstance(seeds, Iterable) else seeds
    check_seeds(seeds)
    for what, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{what}={value!r} must be an integer of at least 1.")
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    checkpoints = (Path(folder) / f".{name}.checkpoints").resolve()
    with Results.locked(Path(folder) / f"{name}.json") as results:
        tasks = experiment.tasks(methods, seeds)
        _refuse_other_specs(experiment, results, tasks, redo)
        todo = [task for task in tasks if not _done(experiment, results, task)]
        waiting = [task for task in todo if experiment.source(*task)]    # for others' results
        for task in waiting:
            if experiment.source(*task) not in todo:
                _needed(experiment, results, task)    # says now what would be missing then
        _try_out(experiment, todo)
        bar = progress_bar(len(todo), name, progress)
        work: Any
        calls: list[tuple[Any, ...]]
        with _workers(jobs, dask) if todo else nullcontext() as work:
            started = {_file("pretrain", experiment, task): task for task in todo if "pretrain" in experiment.spec(*task[:2])}
            calls = [(pretrain_one, experiment, *task, threads, checkpoints, device) for task in started.values()]
            list(work(calls) if calls else ())    # what they leave is in their checkpoints
            for batch in ([task for task in todo if task not in waiting], waiting):
                calls = []
                for task in batch:
                    other = _needed(experiment, results, task)
                    if other is not None and "stopped" in other:    # no result is a result
                        why = f"{NOTHING}{other['method']!r}{at(other['point'])} stopped: {other['stopped']}"
                        results.add(_stopped(experiment, *task, threads, why))
                        bar.update()
                    else:
                        calls.append((run_one, experiment, *task, threads, other, checkpoints, device))
                for record, files in work(calls) if calls else ():
                    for suffix, content in files.items():
                        results.write(content, results.path.with_name(f"{name}-{suffix}"))
                    results.add(record)
                    for part in PARTS:
                        (checkpoints / _file(part, experiment, key(record))).unlink(missing_ok=True)
                    bar.update()
        bar.close()
        if checkpoints.exists() and (not any(checkpoints.iterdir())
                                     or all(_done(experiment, results, task) for task in experiment.tasks())):
            shutil.rmtree(checkpoints)
    return results


def _try_out(experiment, tasks):
    """Build what each task will train: an argument that only a model or a switcher knows of is refused now, not after hours.

    In a fork of the random numbers, so that nothing else is drawn otherwise.
    """
    example = torch.zeros(2, *data_module.form(experiment.data)[0])
    for method, point in dict.fromkeys((method, point) for method, point, _ in tasks):
        spec = experiment.spec(method, point)
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore", SwitchWarning)    # the run itself will say it
                model = models.make(experiment.model, **spec.get("model", {}))
                if spec["kind"] == "switched":
                    net, settings = searching(spec, model, example, seed=0)
                    _check_net(net, settings.get("epochs", 20), settings.get("freeze", 0.0))
        except (TypeError, ValueError, SwitchError) as error:
            raise ValueError(f"{method}{at(point)}: {error}") from error


@contextmanager
def _workers(jobs, dask):
    """Yield what does the runs, in processes here or on a cluster: from functions and arguments to results, as they come.

    joblib's own dask backend hands over all results at the end: a kill would lose them.
    """
    if dask is None:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        yield lambda calls: parallel(joblib.delayed(call)(*arguments) for call, *arguments in calls)
        return
    try:
        from dask.distributed import Client, as_completed
    except ImportError as error:
        raise ValueError(f"dask={dask!r} needs the package distributed: pip install distributed.") from error
    local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with Client(**(local if dask == "local" else {"address": dask})) as client:
        if any(worker["nthreads"] > 1 for worker in client.scheduler_info(n_workers=-1)["workers"].values()):
            raise ValueError(f"dask={dask!r}: a worker has several threads, but runs share a process's random numbers; start "
                             "workers with --nthreads 1.")
        yield lambda calls: (future.result() for future in as_completed(
            [client.submit(*call, pure=False) for call in calls]))


def _refuse_other_specs(experiment, results, tasks, redo):
    for method, point, seed in () if redo else tasks:
        old = results.find(method, point, seed)
        spec = experiment.spec(method, point)
        if old is not None and old["spec"] != spec:
            raise ValueError(
                f"{results.path} has a result of {method!r}{at(point)} with seed {seed} that another specification made "
                f"({differences(old['spec'], spec)}). Give redo=True (--redo) to replace it, or another folder.")


def _done(experiment, results, task):
    """Whether a task's result is there, made by its specification from its source's present result."""
    record, source = results.find(*task, spec=experiment.spec(*task[:2])), experiment.source(*task)
    if record is None or source is None:
        return record is not None
    other = results.find(*source, spec=experiment.spec(*source[:2]))
    if "stopped" in record:    # by itself, or since there was nothing to take over
        return not record["stopped"].startswith(NOTHING) or (other is not None and "stopped" in other)
    return other is not None and "stopped" not in other and follows(record, other)


def _needed(experiment, results, task):
    """The record that a task takes its counts or structure from, or None."""
    source = experiment.source(*task)
    if source is None:
        return None
    record = results.find(*source, spec=experiment.spec(*source[:2]))
    other, point, seed = source
    if record is None:
        raise ValueError(f"method {task[0]!r} needs the result of {other!r}{at(point)} with seed {seed}; run that first.")
    return record


class _Once:
    """A test split that can be looked at once."""

    def __init__(self, split):
        self._split = split

    def take(self):
        split, self._split = self._split, None
        if split is None:
            raise RuntimeError("the test split was looked at already; a run evaluates on it once, at the end.")
        return split


def _file(part, experiment, task):
    """The name of the checkpoint of a part of a task's specification, after all that its training depends on."""
    method, point, seed = task
    spec = experiment.spec(method, point)
    told = [experiment.model, spec.get("model"), experiment.data, experiment.tuning, seed, torch.__version__,
            spec["pretrain"] if part == "pretrain" else [method, point, spec]]
    return f"{part}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]}.pt"


def pretrain_one(experiment: Experiment, method: str, point: int | None, seed: int, threads: int, checkpoints: Path | None,
                 device: str) -> None:
    """Train what a task and maybe others start from, and leave it as a checkpoint.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    method, point, seed, threads, checkpoints, device
        As for :func:`run_one`; ``checkpoints`` is needed.
    """
    with _threads(threads):
        one = _Run(experiment, method, point, seed, None, checkpoints, device)
        one.pretrained(one.model())


@contextmanager
def _threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_one(experiment: str | Experiment, method: str, point: int | None = None, seed: int = 0, threads: int = 1,
            other: Record | None = None, checkpoints: Path | None = None, device: str = "cpu") -> tuple[Record, dict[str, bytes]]:
    """Run one method at one operating point with one seed.

    Parameters
    ----------
    experiment : str or Experiment
        The experiment, or its name.
    method : str
        One of its methods.
    point : int, optional
        One of the method's operating points, if it has any.
    seed : int, default 0
        Seed of everything random.
    threads : int, default 1
        CPU threads.
    other : dict, optional
        The record of the method whose counts or structure this one takes over.
    checkpoints : Path, optional
        Folder in which training is kept after every epoch, to go on from there.
    device : str, default "cpu"
        Where it trains.

    Returns
    -------
    record : dict
        ``spec``, ``seed``, test accuracy, neurons or connections in all and on at each site, at the start and at the
        end, the structure itself (``mask``), parameters (those that are not 0), weights, MACs, training seconds, and
        where and with what it ran. If training stops itself, ``stopped`` has the reason in place of all results.
    files : dict of str to bytes
        Endings of file names, and what goes into them.
    """
    try:
        with _threads(threads):
            return _Run(get(experiment), method, point, seed, other, checkpoints, device).record(threads)
    except TrainingStopped as error:    # a failure is a result, too
        return _stopped(get(experiment), method, point, seed, threads, str(error)), {}
    except Exception as error:
        error.add_note(f"It was the run of {method!r}{at(point)} with seed {seed}; what was finished before it is kept.")
        raise


def _stopped(experiment, method, point, seed, threads, why):
    """The record of a run that has no result, but a reason."""
    return dict(method=method, point=point, seed=seed, spec=experiment.spec(method, point), stopped=why, threads=threads,
                torch=torch.__version__, python=platform.python_version(), commit=_commit())


def searching(spec: dict[str, Any], model: nn.Module, example: Tensor, seed: int) -> tuple[Switched, dict[str, Any]]:
    """Return what a specification of kind ``"switched"`` searches with.

    Parameters
    ----------
    spec : dict
        The specification.
    model : nn.Module
        The network that is to be switched.
    example : Tensor
        As for :class:`~switcher_lib.Switched`.
    seed : int
        Of the shuffling, where shuffled weights are fed in.

    Returns
    -------
    net : Switched
        The switched network.
    settings : dict
        Arguments of :func:`~switcher_lib.fit`, with the cost as a function of progress.
    """
    options = dict(spec.get("options", {}))
    if "inside" in spec:
        options = {"switcher": partial(SWITCHERS[spec["inside"]], **options), "seed": seed}
    net = Switched(model, example, switcher=partial(SWITCHERS[spec["switcher"]], **options), **spec["switched"])
    if spec.get("untrained"):
        net.switcher.requires_grad_(False)
    return net, {**spec["fit"], "cost": ramp(**spec["fit"]["cost"]) if "cost" in spec["fit"] else 0.0}


class _Run:
    """One run: make the model, cut or search, train what is left, look at the test set once."""

    def __init__(self, experiment, method, point, seed, other, checkpoints, device):
        self.experiment, self.method, self.point, self.seed, self.other = experiment, method, point, seed, other
        self.checkpoints, self.device = checkpoints, device
        self.spec = experiment.spec(method, point)
        self.data = data_module.load(experiment.data, device=device)
        if self.data.is_stand_in:
            raise DataError(f"{experiment.data} could not be had, and an experiment never runs on a stand-in: {self.data.source}")
        tuning = experiment.tuning
        self.train = self.data.train if tuning else self.data.full_train
        self.test = _Once(self.data.validation if tuning else self.data.test)
        self.sites, self.start, self.mask, self.certificate = {}, {}, {}, None
        self.task_steps = self.switcher_steps = self.epochs = 0
        self.seconds = self.search_seconds = 0.0
        self.files = {}

    def record(self, threads):
        spec, model = self.spec, self.model()
        self.level = spec.get("switched", {}).get("level", "neuron")
        with nullcontext() if self.other is None else torch.random.fork_rng(devices=[]):
            if self.other is not None:
                model = self._take_over(model)
        if spec["kind"] == "plain":
            self._train_plain(model, {**spec["fit"], "task_sgd": spec["task_sgd"], "noise": spec.get("noise", 0.0)}, self.seed,
                              None if self.other else "fit")
        else:
            model = self._compacted(self._transfer() if spec["kind"] == "transfer" else self._search(model))
            if "finetune" in spec:
                self._train_plain(model, spec["finetune"], self.seed + 1000, "finetune")
        model = self._finish(model)
        result = evaluate(model, self.test.take())    # the one look at the test set
        places = macs_per_weight(model, self.data.example)
        macs = sum(places.get(name, 0) * int((p != 0).sum()) for name, p in model.named_parameters())
        return dict(
            method=self.method, point=self.point, seed=self.seed, spec=spec, data=self.data.name, level=self.level,
            train_examples=len(self.train), test_accuracy=result.accuracy, test_loss=result.loss, sites=self.sites,
            on_at_start=self.start, mask=self.mask, parameters=count_nonzero_parameters(model),
            weights=count_nonzero_weights(model), macs=macs, dense_macs=count_macs(model, self.data.example),
            epochs=self.epochs, task_steps=self.task_steps, switcher_steps=self.switcher_steps,
            seconds=round(self.seconds, 2), search_seconds=round(self.search_seconds, 2), certificate=self.certificate,
            threads=threads, device=self.device, torch=torch.__version__, python=platform.python_version(), commit=_commit(),
        ), self.files

    def model(self):
        """Return the untrained network."""
        seed_everything(self.seed)
        return models.make(self.experiment.model, **self.spec.get("model", {}))

    def pretrained(self, model):
        """Train a network before a search; methods that do the same share a checkpoint."""
        self._train_plain(model, self.spec["pretrain"], self.seed + 2000, "pretrain")

    def _search(self, model):
        """Search a structure; return the switched network."""
        spec, model = self.spec, model.to(self.device, memory_format=torch.channels_last)
        if "pretrain" in spec:
            self.pretrained(model)
        net, settings = searching(spec, model, self.data.example, self.seed)
        self.start = {key: int((s != 0).sum()) for key, s in net.train().factors().items()}
        history = fit(net, self.train, seed=self.seed, progress=False, task_optimizer=partial(SGD, **spec["task_sgd"]),
                      switcher_optimizer=partial(Adam, **spec["switcher_adam"]), checkpoint=self._kept("search"), **settings)
        self._count(history)
        self.search_seconds = history.last["seconds"]
        # only an operating point is a size that was promised; and a tuning trial that misses it loses by that
        promised = None if self.point is None or self.experiment.tuning else settings.get("stop_at")
        if promised is not None and (left := net.size().item()) > promised:
            raise TrainingStopped(f"the search ended with {left:,.0f} {priced(net.price)} left, above the {promised:,} that it was to "
                                  "reach.")
        return net

    def _transfer(self):
        """Train a network and decide on its structure in one pass; return the switched network."""
        net, history, self.search_seconds = transfer.cut(self.spec, self.experiment.model, self.data.name, self.data.example.cpu(),
                                                         self.seed, self.experiment.tuning)    # a pass: the CPU is quick enough
        self._count(history)
        self.start = {site.key: site.size for site in net.sites}
        return net

    def _compacted(self, net):
        """What is left of a switched network, as a plain one; connections stay as zeros until the end."""
        self._note(net)
        if self.level == "connection":
            return keep_zeros(fold(net))
        here = next(net.parameters()).device    # a transfer's network has stayed on the CPU
        self.small = compact(net, self.train.images[:256].to(here))
        self.certificate = self.small.certificate.relative_error
        return self.small.model

    def _note(self, net):
        """Keep the structure of a network: the counts, and which."""
        with torch.no_grad():
            on = {key: s != 0 for key, s in net.eval().factors().items()}
        self.sites = {key: [mask.numel(), int(mask.sum())] for key, mask in on.items()}
        self.mask = {key: pack(mask) for key, mask in on.items()}

    def _take_over(self, model):
        """Give an untrained network another method's structure, or as much of a random one."""
        self.level = self.other.get("level", "neuron")
        if "same_structure_as" in self.spec:
            def make(sites):
                return FixedSwitcher(sites, {site.key: unpack(self.other["mask"][site.key], site.shape) for site in sites})
        else:
            make = partial(RandomSwitcher, off={key: total - on for key, (total, on) in self.other["sites"].items()})
        options = {name: value for name, value in self.other["spec"]["switched"].items() if name in WHERE}
        net = Switched(model.to(self.device), self.data.example, switcher=make, **options)
        self._note(net)
        self.start = {key: on for key, (_, on) in self.sites.items()}
        return keep_zeros(fold(net)) if self.level == "connection" else compact(net, self.data.example).model

    def _train_plain(self, model, settings, seed, keep):
        """Train a network without a switcher, with noise on its activations if the settings say so; ``keep`` names its checkpoint."""
        settings = dict(settings)
        if "until_epoch" in settings:
            settings["epochs"] = settings.pop("until_epoch") - self.epochs
        sgd, noise = partial(SGD, **settings.pop("task_sgd")), settings.pop("noise", 0.0)
        net = model.to(self.device, memory_format=torch.channels_last)    # quicker for convolutions on a CPU, and nothing to other layers
        if noise:    # a switcher that leaves every factor at 1 and brings the noise
            net = Switched(model, self.train.images[:2], switcher=partial(RandomSwitcher, off=0.0), noise=noise, switch_inputs=True)
        self._count(fit(net, self.train, seed=seed, progress=False, task_optimizer=sgd, checkpoint=self._kept(keep), **settings))

    def _kept(self, part):
        """Where a part of the run is kept, or None."""
        keeps = part is not None and self.checkpoints is not None
        return self.checkpoints / _file(part, self.experiment, (self.method, self.point, self.seed)) if keeps else None

    def _count(self, history):
        self.task_steps += history.last["task_steps"]
        self.switcher_steps += history.last["switcher_steps"]
        self.seconds += history.last["seconds"]
        self.epochs += len(history.records)

    def _finish(self, model):
        """What is left to do after the last step: fold BatchNorm, leave out what connections have cut off, save."""
        if self.level == "connection":
            self.small = compact(model, self.train.images[:256])
            self.certificate, model = self.small.certificate.relative_error, self.small.model
        if self.spec.get("model", {}).get("batch_norm"):
            model = fold_batchnorm(model)
        if self.spec.get("save") and self.seed == 0:
            with tempfile.TemporaryDirectory() as folder:
                self.small.save(path := Path(folder) / "network.safetensors")
                point = "" if self.point is None else f"-{self.point}"
                self.files[f"{self.method}{point}-0.safetensors"] = path.read_bytes()
        return model


def _commit():
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
