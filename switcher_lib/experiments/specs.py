"""What an experiment is: plain data that says, for each method and operating point, how it is run."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import SGD, Adam

from switcher_lib import data as data_module
from switcher_lib import models
from switcher_lib.data import AUGMENTATIONS
from switcher_lib.errors import unknown_name
from switcher_lib.gates import GATES
from switcher_lib.precision import PRECISIONS
from switcher_lib.switched import DEFAULT_SWITCHER, Price, Switched, price_weights
from switcher_lib.switchers import SWITCHERS
from switcher_lib.switchers.magnitude import SCOPES
from switcher_lib.training import SCHEDULES, _check, fit
from switcher_lib.transfer import learn_across

KINDS = ("plain", "switched", "transfer")
UNITS = {"parameters": "parameters", "macs": "MACs"}    # in words
SHAPES = ("linear", "exponential")    # of a cost's ramp
FIELDS = {
    "kind": "plain, switched or transfer", "model": "options of the model", "fit": "arguments of fit()", "task_sgd": "arguments of SGD",
    "noise": "of a plain network's activations", "pretrain": "a plain fit() before the search", "switcher": "its name",
    "options": "arguments of the switcher", "inside": "the switcher that a shuffled one feeds", "switched": "arguments of Switched",
    "switcher_adam": "arguments of Adam", "finetune": "a plain fit() of what is left", "untrained": "the switcher never learns",
    "same_count_as": "method whose counts a random cut takes over", "same_structure_as": "method whose structure is taken over",
    "save": "keep the network of seed 0", "learn": "what a switcher learns on before it meets the network",
}
SWITCHED_ONLY = {"switcher", "options", "inside", "switched", "switcher_adam", "pretrain", "finetune", "untrained", "save",
                 "learn"}
TRANSFERRED = {"kind", "model", "fit", "task_sgd", "switcher", "options", "switched", "finetune", "learn"}
NAMED = {"schedule": (SCHEDULES, "schedule"), "augment": (AUGMENTATIONS, "way to augment"),    # of fit's arguments
         "precision": (PRECISIONS, "precision")}
RULES = {"learned": ("budget",), "magnitude": ("budget", "scope"), "random": ("budget", "scope")}    # transfer's, and options
PLAIN_FIT = {"epochs", "until_epoch", "batch_size", *NAMED, "noise", "task_sgd"}    # of pretrain and finetune
NO_DATA = {"net", "data", "progress", "seed", "task_optimizer", "switcher_optimizer", "loss_fn", "checkpoint"}


@dataclass(frozen=True)
class Experiment:
    """A question and the methods that answer it.

    Attributes
    ----------
    question : str
        What it is about, in a sentence.
    model : str
        Name for :func:`switcher_lib.models.make`.
    data : str
        Name for :func:`switcher_lib.data.load`.
    methods : dict
        For each method a specification, or one for each operating point: {point: specification}, the point a number of
        parameters, or of what ``switched`` says that the ``price`` is. A specification is plain data. ``kind`` is
        ``"plain"``, ``"switched"`` or ``"transfer"`` (a trained network is cut in one pass, by a switcher that has
        learned on others or by a rule); the other entries are arguments: of the model (``model``), of
        :class:`~switcher_lib.Switched` (``switched``), of the switcher (``switcher``, ``options``, ``inside``), of
        :func:`~switcher_lib.fit` (``fit``), of the optimizers (``task_sgd``, ``switcher_adam``), of a plain fit before
        the search (``pretrain``) and of one of what is left after it (``finetune``). ``same_count_as`` names a method
        whose number of neurons off at each site is taken over by a random choice; ``same_structure_as`` one whose very
        structure is, on fresh weights. ``noise`` trains a plain network with noise on all activations, pixels included.
        ``until_epoch`` makes the last fit end where all have had that many epochs. ``untrained`` keeps the switcher
        from learning, ``save`` keeps the network of seed 0. ``learn`` tells the learning set of a transferred switcher
        and the arguments of :func:`~switcher_lib.learn_across`.
    seeds : tuple of int, default (0, 1, 2, 3, 4)
        The seeds of a complete row.
    epochs : int, optional
        Epochs of task steps that every run must have had; None leaves it open.
    controls : tuple of str, default ()
        Methods without which no table is printed.
    curve : bool, default False
        Whether each searched method must have at least five operating points.
    tuning : bool, default False
        Whether this is where settings are chosen: trained on the training split without the validation part, judged on
        that part. The test split stays out of it.

    Raises
    ------
    ValueError
        If anything is unknown, missing or out of its range; the message says where.
    """

    question: str
    model: str
    data: str
    methods: dict[str, dict[Any, Any]]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int | None = None
    controls: tuple[str, ...] = ()
    curve: bool = False
    tuning: bool = False

    def __post_init__(self) -> None:
        for name, value, known, kind in (("model", self.model, models.known(), "model"),
                                         ("data", self.data, data_module.known(), "data set")):
            if not _one_of(value, known):
                raise unknown_name(name, value, known, kind)
        for name, flag in (("curve", self.curve), ("tuning", self.tuning)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name}={flag!r} must be true or false.")
        if not isinstance(self.methods, dict) or not self.methods:
            raise ValueError(f"methods={self.methods!r} must name at least one method: {{name: specification}}.")
        check_seeds(self.seeds)
        if self.epochs is not None and not _at_least_one(self.epochs):
            raise ValueError(f"epochs={self.epochs!r} must be None or an integer of at least 1.")
        for name in self.controls:
            if name not in self.methods:
                raise unknown_name("controls", name, self.methods, "method of this experiment")
        for method, spec in self.methods.items():
            if not isinstance(spec, dict) or not spec:
                raise ValueError(f"{method}: {spec!r} must be a specification, or {{operating point: specification}}.")
            for point in self.points(method):
                if point is not None and not _at_least_one(point):
                    raise ValueError(f"{method}: {point!r} is no operating point, a number of parameters or MACs of at least 1; and a "
                                     "specification has a 'kind'.")
                check_spec(self.spec(method, point), _where(method, point), self.model)
                self._check_form(self.spec(method, point), _where(method, point))
        for method in self.methods:
            for point in self.points(method):
                self._check_source(method, point, _where(method, point))

    def _check_form(self, spec, where):
        """The network takes the data's images and has an output for each class; else a run would fail after hours of others."""
        for name, takes, has in zip(("in_shape", "num_classes"), form_of(self.model, spec), data_module.form(self.data)):
            if takes != has:
                raise ValueError(f"{where}: {self.model} has {name}={takes}, but {self.data} has {has}; say model={{{name!r}: "
                                 f"{list(has) if isinstance(has, tuple) else has}}}.")

    def _check_source(self, method, point, where):
        """A structure can be taken over if another method finds it, at the same operating point or at its only one."""
        for part in ("same_count_as", "same_structure_as"):
            other = self.spec(method, point).get(part)
            if other is None:
                continue
            if other not in self.methods:
                raise unknown_name(f"{where}: {part}", other, self.methods, "method of this experiment")
            if point not in (points := self.points(other)) and points != (None,):
                raise ValueError(f"{where}: {part}={other!r} has no such operating point, only {', '.join(map(str, points))}.")
            source = self.spec(other, point if point in points else None)
            if any(part in source for part in ("same_count_as", "same_structure_as")):
                raise ValueError(f"{where}: {part}={other!r} takes its structure over from another method itself; name one "
                                 "that finds its own.")
            if source["kind"] != "switched":
                raise ValueError(f"{where}: {part}={other!r} is of kind {source['kind']!r} and has no structure to take over.")

    def points(self, method: str) -> tuple[int | None, ...]:
        """Return a method's operating points; (None,) if it has none."""
        spec = self.methods[method]
        return (None,) if "kind" in spec else tuple(spec)

    def spec(self, method: str, point: int | None = None) -> dict[str, Any]:
        """Return the specification of a method at an operating point."""
        spec = self.methods[method]
        return spec if "kind" in spec else spec[point]

    def source(self, method: str, point: int | None = None, seed: int = 0) -> tuple[str, int | None, int] | None:
        """Return the (method, point, seed) whose result a task takes its structure or counts from, or None.

        Parameters
        ----------
        method : str
            One of the methods.
        point : int, optional
            One of its operating points, if it has any.
        seed : int, default 0
            The seed.
        """
        spec = self.spec(method, point)
        other = spec.get("same_count_as") or spec.get("same_structure_as")
        return None if other is None else (other, point if point in self.points(other) else None, seed)

    def tasks(self, methods: Iterable[str] | None = None,
              seeds: Iterable[int] | None = None) -> list[tuple[str, int | None, int]]:
        """Return every (method, point, seed), for some methods and seeds or for all."""
        return [(method, point, seed) for seed in (self.seeds if seeds is None else seeds)
                for method in (self.methods if methods is None else methods) for point in self.points(method)]


def form_of(model: str, spec: Mapping[str, Any]) -> tuple[tuple[int, int, int], int]:
    """What a specification's network takes and gives.

    Parameters
    ----------
    model : str
        Its name.
    spec : dict
        The specification; ``model`` in it may set ``in_shape`` and ``num_classes``.

    Returns
    -------
    in_shape : (int, int, int)
        Channels, height and width of an image.
    num_classes : int
    """
    default = inspect.signature(getattr(models, model)).parameters
    shape, classes = (spec.get("model", {}).get(name, default[name].default) for name in ("in_shape", "num_classes"))
    return tuple(shape), classes


def check_spec(spec: Any, where: str, model: str = "lenet_300_100") -> None:
    """Check a specification by itself, before anything is trained.

    Parameters
    ----------
    spec : dict
        The specification.
    where : str
        What to call it in an error.
    model : str, default "lenet_300_100"
        Whose options it may set.

    Raises
    ------
    ValueError
        If a field is unknown, missing, without a meaning or out of its range; the message names it.
    """
    if not isinstance(spec, dict):
        raise ValueError(f"{where}: {spec!r} must be a specification: an object with the fields {', '.join(FIELDS)}.")
    _only(where, "specification", spec, FIELDS)
    if not _one_of(spec.get("kind"), KINDS):
        raise unknown_name(f"{where}: kind", spec.get("kind"), KINDS, "kind")
    if "same_count_as" in spec and "same_structure_as" in spec:
        raise ValueError(f"{where}: same_count_as and same_structure_as exclude each other.")
    try:
        plain = json.loads(json.dumps(spec)) == spec
    except TypeError:
        plain = False
    if not plain:
        raise ValueError(f"{where}: the specification must be plain data that JSON gives back as it was: numbers, texts, lists "
                         "and objects whose keys are texts.")
    switched, transferred = (spec["kind"] == kind for kind in ("switched", "transfer"))
    without = {"plain": SWITCHED_ONLY, "switched": {"noise", "same_count_as", "same_structure_as", "learn"},
               "transfer": set(FIELDS) - TRANSFERRED}[spec["kind"]]
    for name in sorted(without & set(spec)):
        raise ValueError(f"{where}: {name} has no meaning with kind={spec['kind']!r}" + (
            "; noise belongs into switched, pretrain and finetune." if name == "noise" else "."))
    needed = {"plain": (), "switched": ("switcher", "switched", "switcher_adam", "finetune"),
              "transfer": ("switcher", "options", "switched")}[spec["kind"]]
    _needs(where, "specification", spec, FIELDS, ("fit", "task_sgd") + needed)
    for name in ("model", "fit", "task_sgd", "options", "switched", "switcher_adam", "pretrain", "finetune", "learn"):
        if not isinstance(spec.get(name, {}), dict):
            raise ValueError(f"{where}: {name}={spec[name]!r} must be an object.")
    _only(where, "model", spec.get("model", {}), inspect.signature(getattr(models, model)).parameters)
    _check_fit(where, "fit", spec["fit"])
    _check_optimizer(where, "task_sgd", SGD, spec["task_sgd"])
    _check_noise(where, "noise", spec.get("noise", 0.0))
    if switched:
        _check_optimizer(where, "switcher_adam", Adam, spec["switcher_adam"])
        _check_switched(where, spec)
        for part in [part for part in ("pretrain", "finetune") if part in spec]:
            before = spec.get("pretrain", {})
            _check_plain_fit(where, part, spec[part], {**spec["fit"], "before": before.get("epochs", before.get("until_epoch", 0))})
    elif "cost" in spec["fit"]:
        raise ValueError(f"{where}: fit: cost has no meaning with kind={spec['kind']!r}: no switcher is charged.")
    if transferred:
        _check_transfer(where, spec, model)


def _check_transfer(where, spec, model):
    """What cuts, and what it has learned on."""
    if not _one_of(spec["switcher"], RULES):
        raise unknown_name(f"{where}: switcher", spec["switcher"], RULES, "switcher of a transfer")
    _only(where, f"options of {spec['switcher']}", spec["options"], RULES[spec["switcher"]])
    _needs(where, f"options of {spec['switcher']}", spec["options"], {}, ("budget",))
    if not _at_least_one(spec["options"]["budget"]):
        raise ValueError(f"{where}: options: budget={spec['options']['budget']!r} must be an integer of at least 1.")
    if not _one_of(scope := spec["options"].get("scope", "global"), SCOPES):
        raise unknown_name(f"{where}: options: scope", scope, SCOPES, "scope")
    _only(where, "switched", spec["switched"], {"switch_inputs"})
    if "finetune" in spec:
        _check_plain_fit(where, "finetune", spec["finetune"], {**spec["fit"], "before": 0})
    if (spec["switcher"] == "learned") != ("learn" in spec):
        raise ValueError(f"{where}: learn ({FIELDS['learn']}) and switcher='learned' need each other.")
    if (learn := spec.get("learn")) is None:
        return
    arguments = set(inspect.signature(learn_across).parameters) - {"data", "progress", "loss_fn"}
    _only(where, "learn", learn, arguments | {"data", "fit", "task_sgd"})
    _needs(where, "learn", learn, {"networks": "[seed, widths] of each"}, ("networks", "data", "fit", "task_sgd"))
    if not _one_of(learn["data"], data_module.known()):
        raise unknown_name(f"{where}: learn: data", learn["data"], data_module.known(), "data set")
    if not isinstance(learn["fit"], dict):
        raise ValueError(f"{where}: learn: fit={learn['fit']!r} must be an object.")
    _check_fit(where, "learn: fit", learn["fit"])
    _check_optimizer(where, "learn: task_sgd", SGD, learn["task_sgd"])
    try:
        for seed, widths in learn["networks"]:
            check_seeds([seed])
            models.make(model, widths=widths)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: learn: networks={learn['networks']!r} must be [seed, widths] of each: {error}") from error


def _check_switched(where, spec):
    """Names and arguments of the switcher and of Switched."""
    _only(where, "switched", spec["switched"], set(inspect.signature(Switched).parameters) - {"model", "example", "switcher", "gate"})
    try:
        price_weights(spec["switched"].get("price", "parameters"))
    except ValueError as error:
        raise ValueError(f"{where}: switched: {error}") from error
    if not _one_of(level := spec["switched"].get("level", "neuron"), DEFAULT_SWITCHER):
        raise unknown_name(f"{where}: level", level, DEFAULT_SWITCHER, "level")
    _check_noise(where, "switched: noise", spec["switched"].get("noise", 0.0))
    for field in ("switcher", "inside"):
        if field in spec and not _one_of(spec[field], SWITCHERS):
            raise unknown_name(f"{where}: {field}", spec[field], SWITCHERS, "switcher")
    if (spec["switcher"] == "shuffled") != ("inside" in spec):
        raise ValueError(f"{where}: inside ({FIELDS['inside']}) and switcher='shuffled' need each other.")
    name = spec.get("inside", spec["switcher"])
    if level not in SWITCHERS[name].levels:
        raise ValueError(f"{where}: switcher={name!r} cannot be used at level={level!r}.")
    options, known = spec.get("options", {}), dict(inspect.signature(SWITCHERS[name]).parameters)
    del known["sites"]
    _only(where, f"options of {name}", options, known)
    _needs(where, f"options of {name}", options, {}, [key for key, p in known.items() if p.default is p.empty])
    if "gate" in options and not _one_of(options["gate"], GATES):
        raise unknown_name(f"{where}: gate", options["gate"], GATES, "gate")


def _check_plain_fit(where, part, settings, search):
    """Arguments of a plain fit before or after the search, which must leave it at least an epoch."""
    _only(where, part, settings, PLAIN_FIT)
    _needs(where, part, settings, FIELDS, ("task_sgd",))
    if ("epochs" in settings) == ("until_epoch" in settings):
        raise ValueError(f"{where}: {part} must have either epochs or until_epoch.")
    until = settings.get("until_epoch")
    done = search.get("epochs", 20) + search["before"] if part == "finetune" else 0
    if until is not None and not (_at_least_one(until) and until > done):
        raise ValueError(f"{where}: {part}: until_epoch={until!r} must be an integer above the {done} epochs before it.")
    _check_noise(where, f"{part}: noise", settings.get("noise", 0.0))
    _check_optimizer(where, f"{part}: task_sgd", SGD, settings["task_sgd"])
    own = ("until_epoch", "noise", "task_sgd")
    _check_fit(where, part, {name: value for name, value in settings.items() if name not in own})


def _check_fit(where, part, settings):
    """Arguments of fit(), with the cost's ramp as an object."""
    _only(where, part, settings, set(inspect.signature(fit).parameters) - NO_DATA)
    defaults = {name: p.default for name, p in inspect.signature(fit).parameters.items()}
    try:
        if "cost" in settings:
            if not isinstance(settings["cost"], dict) or set(settings["cost"]) - {"begin", "shape"} != {"start", "end", "until"}:
                raise ValueError(f"cost={settings['cost']!r} must be an object with start, end and until, and maybe begin or shape")
            ramp(**settings["cost"])
        for name, (known, kind) in NAMED.items():
            if name in settings and settings[name] is not defaults[name] and not _one_of(settings[name], known):
                raise unknown_name(name, settings[name], known, kind)
        names = ("epochs", "batch_size", "every", "warmup", "freeze", "stop_at", "check_every", "seed")
        _check(**{name: settings.get(name, defaults[name]) for name in names}, cost=0.0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {part}: {error}") from error


def _check_optimizer(where, part, optimizer, arguments):
    """Arguments of an optimizer, which is made once to hear what it says to them."""
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}: {part}={arguments!r} must be an object.")
    _only(where, part, arguments, set(inspect.signature(optimizer).parameters) - {"params"})
    try:
        optimizer([torch.zeros(1, requires_grad=True)], **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {part}: {error}") from error


def _check_noise(where, part, noise):
    if not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
        raise ValueError(f"{where}: {part}={noise!r} must be a number of at least 0.")


def check_methods(methods: Iterable[str] | None, experiment: Experiment) -> None:
    """Check that all ``methods`` are the experiment's; else raise a ``ValueError``."""
    for method in methods or ():
        if method not in experiment.methods:
            raise unknown_name("methods", method, experiment.methods, "method of this experiment")


def check_seeds(seeds: Any) -> None:
    """Check that ``seeds`` are different integers of at least 0, one or more; else raise a ``ValueError``."""
    good = isinstance(seeds, (tuple, list, range)) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not good or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds!r} must be different integers of at least 0, one or more.")


def _where(method, point):
    return method if point is None else f"{method} at {point}"


def _at_least_one(value):
    return type(value) is int and value >= 1


def _one_of(value, known):
    return isinstance(value, str) and value in known    # a list cannot even be looked up


def _only(where, what, given, known):
    for name in given:
        if name not in known:
            raise unknown_name(f"{where}: {what}", name, known, "field")


def _needs(where, what, given, meaning, needed):
    for name in needed:
        if name not in given:
            raise ValueError(f"{where}: the {what} has no {name!r}{f' ({meaning[name]})' if name in meaning else ''}.")


def priced(price: Price) -> str:
    """Say in words what an operating point counts: of a price as in :class:`~switcher_lib.Switched`."""
    weights = {unit: weight for unit, weight in price_weights(price).items() if weight}
    return " + ".join(UNITS[unit] if weight == 1 else f"{weight:g} · {UNITS[unit]}" for unit, weight in weights.items())


def read_experiment(path: str | PathLike[str]) -> Experiment:
    """Read an experiment of one's own from a JSON file.

    Parameters
    ----------
    path : str or Path
        The file: an object with the attributes of :class:`Experiment`.

    Returns
    -------
    Experiment

    Raises
    ------
    ValueError
        If the file is no JSON, or has unknown or missing fields.
    """
    known = set(Experiment.__dataclass_fields__)
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; it must be an object with the fields {', '.join(sorted(known))}.")
    for name in content:
        if name not in known:
            raise unknown_name(f"{path}: experiment", name, known, "field")
    if missing := {"question", "model", "data", "methods"} - set(content):
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}.")
    if isinstance(content["methods"], dict):    # JSON's keys are texts, an operating point is a number
        content["methods"] = {name: {int(point) if point.isdecimal() else point: one for point, one in spec.items()}
                              if isinstance(spec, dict) else spec for name, spec in content["methods"].items()}
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    try:
        return Experiment(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def ramp(start: float, end: float, until: float, begin: float = 0.0,
         shape: Literal["linear", "exponential"] = "linear") -> Callable[[float], float]:
    """Return a weight λ that goes from ``start`` at progress ``begin`` to ``end`` at progress ``until`` and then stays.

    Parameters
    ----------
    start, end : float
        First and last value, at least 0; above 0 for an exponential.
    until : float
        Progress in (0, 1] at which the end is reached.
    begin : float, default 0.0
        Progress in [0, until) until which it stays at its start: after a warm-up a weight that has grown already would be a blow.
    shape : {"linear", "exponential"}, default "linear"
        How it gets there. What a neuron costs differs between layers by orders of magnitude: an exponential λ comes past
        all of them, where a line that is steep enough for the cheap ones runs over the dear ones.

    Returns
    -------
    callable
        From progress in [0, 1] to λ.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    if shape not in SHAPES:
        raise unknown_name("shape", shape, SHAPES, "shape")
    least = "above 0 for an exponential" if shape == "exponential" else "at least 0"
    for name, value, good, allowed in (("start", start, start >= 0, least), ("end", end, end >= 0, least),
                                       ("until", until, 0 < until <= 1, "in (0, 1]"),
                                       ("begin", begin, 0 <= begin < until, f"in [0, {until})")):
        if not good or (shape == "exponential" and name in ("start", "end") and value == 0):
            raise ValueError(f"{name}={value!r} must be {allowed}.")

    def weight(t):
        part = min(1.0, max(0.0, (t - begin) / (until - begin)))
        return start * (end / start) ** part if shape == "exponential" else start + (end - start) * part

    return weight
