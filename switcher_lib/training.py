"""Alternate learning: the task network and its switcher take turns on the same loss."""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from switcher_lib.data import AUGMENTATIONS, Augment, Data, Split
from switcher_lib.errors import DataError, TrainingStopped, unknown_name
from switcher_lib.files import replacing
from switcher_lib.layers import AFFINE_MODULES
from switcher_lib.precision import Precision, choose, computing_in
from switcher_lib.progress import progress_bar
from switcher_lib.switched import LossFn, Switched, called_with, evaluating

MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
Network = TypeVar("Network", bound=nn.Module)


def seed_everything(seed: int) -> None:
    """Seed PyTorch's global generator, from which models and switchers draw their first weights.

    Parameters
    ----------
    seed : int
        At least 0.
    """
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r} must be an integer of at least 0.")
    torch.manual_seed(seed)


def task_step(net: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, loss_fn: LossFn = F.cross_entropy) -> Tensor:
    """Take one step of the task network; the switcher's parameters and buffers stay as they are.

    Parameters
    ----------
    net : Switched
        The network, in training mode, or a wrapper of it: ``DistributedDataParallel(net, find_unused_parameters=True)``.
    x, y : Tensor
        A batch of inputs and its targets.
    optimizer : torch.optim.Optimizer
        Over ``net.model.parameters()``.
    loss_fn : callable, default cross-entropy
        From outputs and targets to a scalar.

    Returns
    -------
    Tensor of shape ()
        The loss before the step, detached.
    """
    return _descend(net(x, y, loss_fn, turn="task"), optimizer)


def switcher_step(net: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, loss_fn: LossFn = F.cross_entropy,
                  cost: float = 0.0) -> Tensor:
    """Take one step of the switcher; the task network's parameters and buffers stay as they are.

    Parameters
    ----------
    net : Switched
        The network, in training mode, or a wrapper of it: ``DistributedDataParallel(net, find_unused_parameters=True)``.
    x, y : Tensor
        A batch of inputs and its targets.
    optimizer : torch.optim.Optimizer
        Over ``net.switcher.parameters()``.
    loss_fn : callable, default cross-entropy
        From outputs and targets to a scalar.
    cost : float, default 0.0
        Weight λ of the cost term, see :meth:`Switched.cost`.

    Returns
    -------
    Tensor of shape ()
        The loss before the step, cost term included, detached.
    """
    return _descend(net(x, y, loss_fn, turn="switcher", cost=cost), optimizer)


def joint_step(net: nn.Module, x: Tensor, y: Tensor, task_optimizer: Optimizer, switcher_optimizer: Optimizer,
               loss_fn: LossFn = F.cross_entropy, cost: float = 0.0) -> Tensor:
    """Take one step of both networks from one loss: what alternate learning is compared with.

    Parameters
    ----------
    net : Switched
        The network, in training mode, or a wrapper of it: ``DistributedDataParallel(net, find_unused_parameters=True)``.
    x, y : Tensor
        A batch of inputs and its targets.
    task_optimizer, switcher_optimizer : torch.optim.Optimizer
        Over ``net.model.parameters()`` and over ``net.switcher.parameters()``.
    loss_fn : callable, default cross-entropy
        From outputs and targets to a scalar.
    cost : float, default 0.0
        Weight λ of the cost term, see :meth:`Switched.cost`.

    Returns
    -------
    Tensor of shape ()
        The loss before the step, cost term included, detached.
    """
    return _descend(net(x, y, loss_fn, turn="joint", cost=cost), task_optimizer, switcher_optimizer)


def _descend(loss: Tensor, *optimizers: Optimizer) -> Tensor:
    """Take one step of each optimizer down the loss; return the loss before it, detached."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    with torch.autocast(loss.device.type, enabled=False):    # each gradient has its forward pass's type without it
        loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


def keep_zeros(model: Network) -> Network:
    """Keep every weight that is 0 at 0, whatever optimizer trains the model: its gradient is set to 0.

    For fine-tuning after connections were switched off, with a new optimizer: weight decay does nothing to a 0, but the
    momentum that an old optimizer has gathered would move it.

    Parameters
    ----------
    model : nn.Module
        The network; the weights of its Linear and Conv layers get a hook.

    Returns
    -------
    nn.Module
        The same model.
    """
    for module in model.modules():
        if isinstance(module, AFFINE_MODULES) and module.weight.requires_grad and not (module.weight != 0).all():
            module.weight.register_hook(partial(torch.mul, (module.weight.detach() != 0).to(module.weight.dtype)))
    return model


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on a split.

    Attributes
    ----------
    loss : float
        Mean over the examples.
    accuracy : float
        Fraction that is right, in [0, 1].
    size : int
        Number of examples.
    """

    loss: float
    accuracy: float
    size: int

    @property
    def error(self) -> float:
        """Error rate in percent."""
        return 100 * (1 - self.accuracy)


def evaluate(net: nn.Module, split: Split, *, batch_size: int = 256, loss_fn: LossFn = F.cross_entropy) -> Evaluation:
    """Evaluate a network in eval mode; a switched one with its factors at the current θ.

    Parameters
    ----------
    net : Switched or nn.Module
        The network.
    split : Split
        Images and labels, from :func:`switcher_lib.data.load`.
    batch_size : int, default 256
        At least 1. On a CPU much larger ones are slower for convolutions: their maps fall out of the caches.
    loss_fn : callable, default cross-entropy
        A mean over the batch.

    Returns
    -------
    Evaluation
        Loss and accuracy.
    """
    if len(split) == 0:
        raise DataError("split has no examples to evaluate on.")
    loss = correct = 0.0
    with torch.no_grad(), evaluating(net):
        run: Callable[[Tensor], Tensor] = net
        if isinstance(net, Switched):    # once for the split, not for every batch
            run = partial(called_with, net.model, net.scale(net.params(), net.factors()))
        for x, y in split.batches(batch_size):
            out = run(x)
            loss += float(loss_fn(out, y)) * len(y)
            correct += float((out.argmax(1) == y).sum())
    return Evaluation(loss / len(split), correct / len(split), len(split))


@dataclass
class History:
    """What happened in a training run: one record for each epoch.

    Attributes
    ----------
    records : list of dict
        ``epoch``, ``task_loss`` and ``switcher_loss`` (means over the epoch), ``task_steps`` and ``switcher_steps``
        (so far), ``on`` ({site key: neurons on}), ``parameters`` (that remain), ``validation_loss`` and
        ``validation_accuracy`` where there is a validation split, ``seconds`` (training alone, so far).
    """

    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        """The last record."""
        return self.records[-1]

    def column(self, name: str) -> list[Any]:
        """Return one entry of every record as a list."""
        return [record[name] for record in self.records]

    def __str__(self) -> str:
        return f"History of {len(self.records)} epochs; last: {self.last}" if self.records else "History of 0 epochs"


def cosine(t: float) -> float:
    """Return the learning rate's factor at progress ``t`` in [0, 1]: from 1 down to 0 along a cosine."""
    return 0.5 * (1 + math.cos(math.pi * t))


def constant(t: float) -> float:
    """Return 1 at any progress ``t``."""
    return 1.0


SCHEDULES = {"cosine": cosine, "constant": constant}


def fit(net: nn.Module, data: Data | Split, epochs: int = 20, *, batch_size: int = 64, every: int | Literal["epoch", "joint"] = 8,
        warmup: int = 0, freeze: float = 0.0, cost: float | Callable[[float], float] = 0.0,
        task_optimizer: MakeOptimizer | None = None, stop_at: int | None = None, check_every: int = 50,
        switcher_optimizer: MakeOptimizer | None = None,
        schedule: Literal["cosine", "constant"] | Callable[[float], float] = "cosine", loss_fn: LossFn = F.cross_entropy,
        augment: Literal["crop_flip"] | Augment | None = None, precision: Precision = "float32",
        seed: int = 0, checkpoint: str | PathLike[str] | None = None, progress: bool = True) -> History:
    """Train a switched network by alternate learning, or a plain one by itself.

    Parameters
    ----------
    net : Switched or nn.Module
        The network. A plain module gets the same task steps and no switcher steps: the dense baseline.
    data : Data or Split
        What to learn from. With a :class:`~switcher_lib.data.Data` its training split, and every record tells the
        validation split's loss and accuracy. With a :class:`~switcher_lib.data.Split` that split and no validation.
    epochs : int, default 20
        Passes of the task network over the data, at least 1.
    batch_size : int, default 64
        At least 1.
    every : int, "epoch" or "joint", default 8
        A switcher step after every that many task steps (at least 1), on that step's batch; or ``"epoch"``: an epoch
        of switcher steps after each epoch of task steps; or ``"joint"``: no turns, both step on one loss at live
        factors, and ``task_loss`` is that loss, cost term included.
    warmup : int, default 0
        Epochs of the task network alone first, with all factors at 1; in [0, epochs]. If they are all, the factors stay held:
        ``net.release()`` comes before another fit that searches.
    freeze : float, default 0.0
        Fraction of the epochs, at the end, in which the factors are fixed and the task network goes on; in [0, 1). Rounded to
        whole epochs, and at least one.
    cost : float or callable, default 0.0
        Weight λ of the cost term in the switcher's loss, at least 0; or a function from progress in [0, 1] to λ.
    stop_at : int, optional
        Number of parameters (of MACs, or a weighted sum of both, where that is the net's ``price``). The run ends at the
        first check that finds at most that many left; the last record is then of a part of an epoch. For a search that
        compaction and fine-tuning will follow; a plain network never gets there.
    check_every : int, default 50
        Task steps, at least 1, between two checks: whether ``stop_at`` is reached, and whether training still makes
        sense. Where many go off at once, a smaller number keeps a search from running past its goal.
    task_optimizer : callable, optional
        From parameters to an optimizer; default SGD, learning rate 0.05, momentum 0.9, weight decay 1e-4.
    switcher_optimizer : callable, optional
        The same for the switcher; default Adam, learning rate 1e-3, which stays constant.
    schedule : {"cosine", "constant"} or callable, default "cosine"
        From progress in [0, 1] to the factor of the task network's learning rate.
    loss_fn : callable, default cross-entropy
        From outputs and targets to a scalar.
    augment : "crop_flip" or callable, optional
        :func:`switcher_lib.data.crop_flip`, or a function from a batch of images and a generator to a batch of images.
    precision : {"float32", "bfloat16", "auto"}, default "float32"
        ``"bfloat16"`` runs the task network's layers under ``torch.autocast``: faster for convolutions where the machine has
        instructions for it; on an x86 processor that has none the same products are made in float32's time (but
        attention's, which take several times as long). Parameters, gradients, the switcher and evaluation stay float32.
        ``"auto"`` is bfloat16 on processors with AVX-512's or AMX's instructions for it and on GPUs that compute in it,
        else float32: quick everywhere, with other last digits from machine to machine.
    seed : int, default 0
        Seed of the batches' order, of augmentation, noise and dropout. PyTorch's global generator is left as it was.
    checkpoint : str or Path, optional
        File to write after every epoch. If it is there, the run goes on from it and ends as if never interrupted. A file of
        another model, or of a run with other settings, is refused; only functions (``loss_fn``, a ``cost`` or ``schedule`` of
        one's own) cannot be told from each other.
    progress : bool, default True
        Whether to show a progress bar; ``TQDM_DISABLE=1`` in the environment silences all.

    Returns
    -------
    History
        One record for each epoch.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the checkpoint belongs to another model or another run.
    TypeError
        If ``net`` is a wrapper around a switched network, or what should be a function is none.
    DataError
        If there are no training examples.
    TrainingStopped
        If the loss is no longer finite, or all neurons of a site are switched off; the message says what to change.

    References
    ----------
    Alternate learning of both networks on one loss: Han et al. 2021, arXiv:2110.05954 and arXiv:2103.15590. Switcher
    steps between single batches, the cost term and freezing are ours.
    """
    split, validation = (data.train, data.validation) if isinstance(data, Data) else (data, None)
    if len(split) == 0:
        raise DataError("data has no training examples.")
    _check(epochs, batch_size, every, warmup, freeze, cost, stop_at, check_every, seed)
    _check_net(net, epochs, freeze)
    _check_functions(schedule=schedule, augment=augment, task_optimizer=task_optimizer, switcher_optimizer=switcher_optimizer)
    precision = choose(precision, split.images.device)
    switched = net if isinstance(net, Switched) else None
    task = (task_optimizer or partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-4))((switched.model if switched else net).parameters())
    switch = (switcher_optimizer or partial(Adam, lr=1e-3, fused=True))(
        switched.switcher.parameters()) if switched and switched.switcher.learns else None
    settings: dict[str, Any] = dict(
        epochs=epochs, batch_size=batch_size, every=every, warmup=warmup, freeze=freeze, seed=seed, stop_at=stop_at,
        check_every=check_every, cost=None if callable(cost) else cost, examples=len(split),
        **({"precision": precision} if precision != "float32" else {}),    # older checkpoints have neither
        **({"augment": augment} if isinstance(augment, str) else {}))
    if switched:
        plain = {name: value for name, value in vars(switched.switcher).items()
                 if isinstance(value, (int, float, str)) and name != "training"}
        settings |= dict(refresh=switched.refresh, flow=switched.flow, noise=switched.noise, price=switched.price, switcher=plain)
    history = History()
    saved = _Checkpoint(net, split, {"task": task, "switcher": switch}, history, checkpoint, settings,
                        schedule if isinstance(schedule, str) else None)
    training = _Epochs(net, split, epochs, batch_size, every, cost if callable(cost) else lambda t: cost, task, switch,
                       SCHEDULES[schedule] if isinstance(schedule, str) else schedule, loss_fn,
                       AUGMENTATIONS[augment] if isinstance(augment, str) else augment, precision, stop_at, check_every, progress)
    start = saved.resume()
    seconds, switcher_steps = (history.last["seconds"], history.last["switcher_steps"]) if start else (0.0, 0)

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if split.images.is_cuda else ()):
        for epoch in range(start, epochs):
            torch.manual_seed(seed * 1_000_003 + epoch)
            order = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            if switched and warmup and epoch in (0, warmup):
                switched.hold_ones() if epoch == 0 else switched.release()
            if switched and freeze and epoch == _frozen_from(epochs, freeze):
                switched.freeze()
            began = time.perf_counter()
            task_losses, switcher_losses, reached = training.run(epoch, order)
            seconds += time.perf_counter() - began
            switcher_steps += len(switcher_losses)
            record = dict(epoch=epoch + 1, task_loss=_mean(task_losses), switcher_loss=_mean(switcher_losses),
                          task_steps=epoch * training.steps + len(task_losses), switcher_steps=switcher_steps, seconds=seconds)
            if switched:
                structure = switched.structure()
                record |= dict(on={key: on for key, (_, on) in structure.sites.items()}, parameters=structure.parameters[1])
            if validation is not None and len(validation):
                result = evaluate(net, validation, loss_fn=loss_fn)
                record |= dict(validation_loss=result.loss, validation_accuracy=result.accuracy)
            history.records.append(record)
            saved.save(epochs if reached else epoch + 1)
            if reached:
                break
    return history


@dataclass
class _Epochs:
    """What :func:`fit` does in an epoch: task steps, and the switcher's turns in between or behind."""

    net: nn.Module
    split: Split
    epochs: int
    batch_size: int
    every: int | Literal["epoch", "joint"]
    cost: Callable[[float], float]
    task: Optimizer
    switch: Optimizer | None
    schedule: Callable[[float], float]
    loss_fn: LossFn
    augment: Augment | None
    precision: Precision
    stop_at: int | None
    check_every: int
    progress: bool

    def __post_init__(self):
        self.switched = self.net if isinstance(self.net, Switched) else None
        self.steps = math.ceil(len(self.split) / self.batch_size)
        self.rates = [group["lr"] for group in self.task.param_groups]    # at first: a checkpoint brings those of its last step

    def run(self, epoch, order):
        """Return the losses of an epoch's steps, the task network's and the switcher's, and whether ``stop_at`` was reached."""
        turns = self.switch if self.switched and self.switched.held is None else None    # the optimizer, while there are turns
        task_losses, switcher_losses, reached = [], [], False
        self.net.train()
        bar = progress_bar(self.steps, f"epoch {epoch + 1}/{self.epochs}", self.progress)
        try:
            for i, (x, y) in enumerate(self._batches(order)):
                t = (epoch + i / self.steps) / self.epochs
                for group, rate in zip(self.task.param_groups, self.rates):
                    group["lr"] = rate * self.schedule(t)
                with self._casting():
                    task_loss, switcher_loss = self._step(x, y, turns, epoch * self.steps + i + 1, t)
                task_losses.append(task_loss)
                if switcher_loss is not None:
                    switcher_losses.append(switcher_loss)
                if self.switched:
                    self.switched.switcher.after_step(self.switched, (epoch + (i + 1) / self.steps) / self.epochs)
                if self._due(i):
                    _stop_if_hopeless(self.net, [*task_losses[-self.check_every:], *switcher_losses[-self.check_every:]], epoch, i,
                                      partial(self.cost, t))
                    reached = bool(self.switched and self.stop_at is not None and float(self.switched.size()) <= self.stop_at)
                bar.update()
                if reached:
                    break
            if turns and self.every == "epoch" and not reached:
                switcher_losses = self._switcher_epoch(epoch, order, turns)
        finally:
            bar.close()
        return task_losses, switcher_losses, reached

    def _step(self, x, y, turns, step, t):
        """Take a task step, and the switcher's where it is due; return both losses, None for a step that was not taken."""
        if turns and self.every == "joint":
            loss = joint_step(self.net, x, y, self.task, turns, self.loss_fn, self.cost(t))
            return loss, loss
        if self.switched:
            task_loss = task_step(self.net, x, y, self.task, self.loss_fn)
        else:
            task_loss = _descend(self.loss_fn(self.net(x), y), self.task)
        if turns and isinstance(self.every, int) and step % self.every == 0:
            return task_loss, switcher_step(self.net, x, y, turns, self.loss_fn, self.cost(t))
        return task_loss, None

    def _switcher_epoch(self, epoch, order, turns):
        """Take an epoch of switcher steps and return their losses."""
        t, losses = (epoch + 1) / self.epochs, []
        for i, (x, y) in enumerate(self._batches(order)):
            with self._casting():
                losses.append(switcher_step(self.net, x, y, turns, self.loss_fn, self.cost(t)))
            if self._due(i):
                _stop_if_hopeless(self.net, losses[-self.check_every:], epoch, self.steps + i, partial(self.cost, t))
        return losses

    def _batches(self, order):
        return self.split.batches(self.batch_size, generator=order, augment=self.augment)

    def _casting(self):
        return computing_in(self.precision, self.split.images.device)

    def _due(self, i):
        return i % self.check_every == 0 or i == self.steps - 1


def _plain(value):
    """NumPy's numbers as Python's, at any depth: torch.load(weights_only=True), which reads a checkpoint, takes no others."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _mean(losses):
    return float(torch.stack(losses).mean()) if losses else None


def _check(epochs, batch_size, every, warmup, freeze, cost, stop_at, check_every, seed):
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("warmup", warmup, 0),
                               ("check_every", check_every, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")
    if every not in ("epoch", "joint") and (not isinstance(every, int) or every < 1):
        raise ValueError(f"every={every!r} must be 'epoch', 'joint' or a number of task steps of at least 1.")
    if warmup > epochs:
        raise ValueError(f"warmup={warmup} must not be more than epochs={epochs}.")
    if not isinstance(freeze, (int, float)) or not 0 <= freeze < 1:
        raise ValueError(f"freeze={freeze!r} must be a fraction in [0, 1).")
    frozen_from = _frozen_from(epochs, freeze)
    if freeze and frozen_from == epochs:
        raise ValueError(f"freeze={freeze} is half an epoch of epochs={epochs} or less: none would be frozen.")
    if frozen_from == 0:
        raise ValueError(f"freeze={freeze} would freeze all of epochs={epochs}: the switcher would never learn.")
    if warmup > frozen_from:
        raise ValueError(f"warmup={warmup} and freeze={freeze} overlap: of epochs={epochs}, the last {epochs - frozen_from} are "
                         "frozen. Lower one of them.")
    if stop_at is not None and (not isinstance(stop_at, int) or stop_at < 1):
        raise ValueError(f"stop_at={stop_at!r} must be None or an integer of at least 1, in what the network's price counts.")
    if not callable(cost) and (not isinstance(cost, (int, float)) or not cost >= 0):
        raise ValueError(f"cost={cost!r} must be a number of at least 0, or a function from progress in [0, 1].")


def _check_net(net, epochs, freeze):
    if not isinstance(net, Switched):
        if any(isinstance(module, Switched) for module in net.modules()):
            raise TypeError(f"net is a {type(net).__name__} around a switched network, whose two networks it would train as one. "
                            "Give the switched network itself; for several processes use task_step and switcher_step in your own loop.")
    elif freeze and net.switcher.end > _frozen_from(epochs, freeze) / epochs:
        raise ValueError(f"freeze={freeze} fixes the structure after {_frozen_from(epochs, freeze)} of epochs={epochs}, before the switcher has made its "
                         f"last cut (at progress end={net.switcher.end}). Lower one of them.")


def _frozen_from(epochs, freeze):
    """The first epoch, counted from 0, in which the factors are fixed."""
    return round(epochs * (1 - freeze))


def _check_functions(schedule, augment, **optimizers):
    for name, value, known, wanted in (("schedule", schedule, SCHEDULES, "progress in [0, 1] to a factor"),
                                       ("augment", augment, AUGMENTATIONS, "images and a generator to images"),
                                       *((name, make, {}, "parameters to an optimizer") for name, make in optimizers.items())):
        if isinstance(value, str) and known:
            if value not in known:
                raise unknown_name(name, value, known, "schedule" if name == "schedule" else "way to augment")
        elif value is not None and not callable(value):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a function from {wanted}.")


def _stop_if_hopeless(net, losses, epoch, step, cost):
    where = f"epoch {epoch + 1}, step {step + 1}"
    if not all(math.isfinite(loss) for loss in losses):
        raise TrainingStopped(f"{where}: the loss is not finite. Lower the task network's learning rate, or use a "
                              "bounded gate (clamp, relu_tanh): unbounded factors can grow without end.")
    if isinstance(net, Switched) and net.held is None:
        with torch.no_grad():
            off = _all_off(net, net.factors())
            if off:    # a stochastic gate may have drawn only zeros: what counts is the structure
                with evaluating(net):
                    off &= _all_off(net, net.factors())
        for site in net.sites:
            if site.key in off:
                now = round(float(cost()), 4)
                advice = f"lower cost (now {now}), " if now else ""
                raise TrainingStopped(
                    f"{where}: all {site.size} {site.kind}s of {site.key!r} are switched off, so nothing can be learned any "
                    f"more. Try: {advice}a lower learning rate of the switcher, a larger starting bias of its scores, a "
                    "bounded gate, or a warm-up.")


def _all_off(net, factors):
    return {site.key for site in net.sites if not (factors[site.key] != 0).any()}


def _digest(told):
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass
class _Checkpoint:
    """A training run's file: the run can be left, and taken up again."""

    net: nn.Module
    split: Split
    optimizers: dict[str, Optimizer | None]
    history: History
    path: str | PathLike[str] | None
    settings: dict[str, Any]
    schedule: str | None    # None: a function, which cannot be told from another

    def __post_init__(self):
        self.course = {} if self.schedule is None else {"schedule": self.schedule}
        if self.path is not None:
            images, labels = self.split.images, self.split.labels
            told = {"data": [list(images.shape), hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()],
                    "layers": re.sub(" at 0x[0-9a-f]+", "", repr(self.net))}    # such as a dropout's p; an address is another each time
            if isinstance(self.net, Switched):
                told["sites"] = [(site.key, *(axis.name for axis in site.face_axes)) if self.net.level == "neuron" else site.key
                                 for site in self.net.sites]
            self.course |= {f"{name} (digest)": _digest(one)[:8] for name, one in told.items()}
        for name, optimizer in self.optimizers.items():
            if optimizer:
                self.course[f"{name}_optimizer"] = type(optimizer).__name__
                for i, group in enumerate(optimizer.param_groups):
                    self.course |= {f"{name}_optimizer, group {i}, {key}": repr(_plain(value)) for key, value in group.items()
                                    if isinstance(value, (int, float, str, tuple))}

    @property
    def _fingerprint(self):
        shapes = {name: list(p.shape) for name, p in self.net.named_parameters()}
        kinds = [type(module).__name__ for module in self.net.modules()]    # a gate or an activation has no shape
        return _digest([shapes, kinds, self.settings])

    def save(self, epochs_done):
        if self.path is None:
            return
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:    # a killed run leaves the last whole checkpoint
            torch.save(dict(fingerprint=self._fingerprint, settings=_plain(self.settings), course=self.course, epochs_done=epochs_done,
                            net=self.net.state_dict(), records=self.history.records,
                            optimizers={k: _plain(o.state_dict()) for k, o in self.optimizers.items() if o}), part)

    def resume(self):
        if self.path is None or not Path(self.path).exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location=next(self.net.parameters()).device)
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise ValueError(f"checkpoint={str(self.path)!r} is not a readable checkpoint ({type(error).__name__}); "
                             "delete it to start again.") from error
        if fingerprint != self._fingerprint:
            raise ValueError(f"checkpoint={str(self.path)!r} belongs to another model or run (its settings: "
                             f"{state['settings']}; this run: {self.settings}). Delete it, or name another file.")
        then = state.get("course", {})    # which older checkpoints do not have
        for name in (name for name in self.course if name in then and then[name] != self.course[name]):
            raise ValueError(f"checkpoint={str(self.path)!r} belongs to another run: its {name} is {then[name]}, this run's "
                             f"{self.course[name]}. Delete it, or name another file.")
        self.net.load_state_dict(state["net"])
        for key, optimizer in self.optimizers.items():
            if optimizer:
                optimizer.load_state_dict(state["optimizers"][key])
        self.history.records.extend(state["records"])
        return state["epochs_done"]
