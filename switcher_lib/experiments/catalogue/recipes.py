"""What specifications are made of: the settings that all methods of a comparison share, and one function for each method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switcher_lib.experiments.specs import Experiment, priced

Spec = dict[str, Any]
Recipe = Callable[[int], Spec]    # from the size to a specification

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
FAST = {**SGD, "lr": 0.08}
NOISE = 0.3    # of the factors' activations while training; what it does by itself is one of the controls
BATCH = 128
TOTAL, SEARCH_EPOCHS = 20, 10    # of LeNet-300-100


@dataclass(frozen=True)
class Course:
    """What every method of a comparison gets.

    Attributes
    ----------
    epochs, search : int
        Epochs in all, and at most of a search against a rising cost.
    sgd : dict
        Of the task network, in the search.
    switched : dict
        Arguments of :class:`~switcher_lib.Switched`.
    finetune : dict
        The training of what is left, until ``epochs``.
    tuned_at : int or None
        Where a smaller network needs a larger cost: the size at which costs are given.
    check_every : int or None
        Steps between two looks at the size in a search against a cost; None leaves :func:`~switcher_lib.fit` its default.
    precision : str or None
        Of the search, as in :func:`~switcher_lib.fit`; that of all other training is what ``finetune`` says.
    warmup : int
        Epochs of the task network alone before a search against a cost, part of ``search``.
    augment : str or None
        Of all training, as in :func:`~switcher_lib.fit`.
    pretrain : dict or None
        The training of the whole network that every search starts from, part of ``epochs``. Dense gets its optimizer.
    model : dict or None
        Options of the network.
    """

    epochs: int
    search: int
    sgd: Spec
    switched: Spec
    finetune: Spec
    tuned_at: int | None = None
    check_every: int | None = None
    precision: str | None = None
    warmup: int = 0
    augment: str | None = None
    pretrain: Spec | None = None
    model: Spec | None = None

    def _fit(self, epochs, every, **more):
        told = {"precision": self.precision, "augment": self.augment}
        return {"epochs": epochs, "batch_size": BATCH, "every": every, **more, **_given(told)}

    def by_cost(self, switcher: str, size: int, *, options: Spec | None = None, cost: float, lr: float, every: int | str,
                check_every: int | None = None, **switched: Any) -> Spec:
        """Specify a search by the switcher's own learning, against a cost that rises until it is small enough.

        Parameters
        ----------
        switcher : str
            Its name.
        size : int
            Parameters at which the search stops.
        options : dict, optional
            Arguments of the switcher.
        cost : float
            λ at the end of its rise, at four fifths of the search.
        lr : float
            Learning rate of the switcher's Adam.
        every : int or str
            As in :func:`~switcher_lib.fit`.
        check_every : int, optional
            In place of the course's.
        **switched
            Further arguments of :class:`~switcher_lib.Switched`.
        """
        if self.tuned_at is not None and size < self.tuned_at:
            cost = round(cost * (self.tuned_at / size) ** 1.5, 3)
        check = check_every or self.check_every
        alone, late = ({"warmup": self.warmup}, {"begin": self.warmup / self.search}) if self.warmup else ({}, {})
        return {"kind": "switched", "switcher": switcher, "options": options or {}, "switched": {**self.switched, **switched},
                "task_sgd": self.sgd, "finetune": self.finetune, "switcher_adam": {"lr": lr, "fused": True},
                **_given({"model": self.model, "pretrain": self.pretrain}),
                "fit": self._fit(self.search, every, stop_at=size, cost={"start": 0.0, "end": cost, "until": 0.8, **late},
                                 **({"check_every": check} if check else {}), **alone)}

    def by_cut(self, switcher: str, size: int, *, epochs: int, options: Spec, every: int | str = 8) -> Spec:
        """Specify a search that scores, and cuts what is over a budget.

        Parameters
        ----------
        switcher : str
            Its name.
        size : int
            The budget: parameters.
        epochs : int
            Of the search.
        options : dict
            Further arguments of the switcher.
        every : int or str, default 8
            As in :func:`~switcher_lib.fit`; without meaning where nothing is learned.
        """
        return {"kind": "switched", "switcher": switcher, "options": {"budget": size, **options}, "switched": self.switched,
                "task_sgd": self.sgd, "finetune": self.finetune, "switcher_adam": {"lr": 1e-3},
                **_given({"model": self.model, "pretrain": self.pretrain}), "fit": self._fit(epochs, every, schedule="constant")}

    def plain(self, **more: Any) -> Spec:
        """Specify a network without a switcher, with the whole budget of epochs.

        Parameters
        ----------
        **more
            Further fields of the specification.
        """
        told = {"precision": self.finetune.get("precision"), "augment": self.augment}
        return {"kind": "plain", "fit": {"epochs": self.epochs, "batch_size": BATCH, **_given(told)},
                "task_sgd": (self.pretrain or {}).get("task_sgd", self.sgd), **_given({"model": self.model}), **more}


def _given(fields):
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


# -- the methods: each takes a course and its settings, and returns a function from the size to a specification

def row(course: Course, cost: float, lr: float, **options: Any) -> Recipe:
    """Return the row switcher's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    cost, lr
        As for :meth:`Course.by_cost`.
    **options
        Of the switcher.
    """
    # a shared scorer moves a whole layer's scores at once: without frequent checks a search runs past its size
    return lambda size: course.by_cost("row", size, options={"reads": "both", "saturation": 0.3, **options}, cost=cost, lr=lr,
                                       every=4, refresh=4, check_every=course.check_every or 10)


def entry(course: Course, cost: float, lr: float, every: int) -> Recipe:
    """Return the entry switcher's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    cost, lr, every
        As for :meth:`Course.by_cost`; the factors are as old as a turn is long.
    """
    return lambda size: course.by_cost("entry", size, options={"saturation": 0.3}, cost=cost, lr=lr, every=every, refresh=every,
                                       check_every=10)


def free(course: Course, cost: float, lr: float, every: int | str = 4, **options: Any) -> Recipe:
    """Return free gates'.

    Parameters
    ----------
    course : Course
        What they share with the others.
    cost, lr, every
        As for :meth:`Course.by_cost`.
    **options
        Of the gates.
    """
    return lambda size: course.by_cost("free", size, options={"saturation": 0.3, **options}, cost=cost, lr=lr, every=every)


def l0(course: Course, cost: float, lr: float, **options: Any) -> Recipe:
    """Return hard concrete's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    cost, lr
        As for :meth:`Course.by_cost`.
    **options
        Of the gates.
    """
    return lambda size: course.by_cost("hard_concrete", size, options=options, cost=cost, lr=lr, every="joint")


def scl(course: Course, cost: float, lr: float, every: int | str) -> Recipe:
    """Return SCL's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    cost, lr, every
        As for :meth:`Course.by_cost`.
    """
    return lambda size: course.by_cost("scl", size, cost=cost, lr=lr, every=every)


def slimming(course: Course, strength: float, scope: str = "layer", epochs: int = 8, add_norm: bool = True) -> Recipe:
    """Return network slimming's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    strength, scope
        Of its penalty, and of its cut.
    epochs : int, default 8
        Of the search.
    add_norm : bool, default True
        Whether the network is given BatchNorm, which it has not by itself; the run folds it.
    """
    model = {"model": {**(course.model or {}), "batch_norm": True}} if add_norm else {}
    options = {"strength": strength, "scope": scope}
    return lambda size: {**course.by_cut("slimming", size, epochs=epochs, options=options, every="joint"), **model}


def magnitude(course: Course, epochs: int, **options: Any) -> Recipe:
    """Return magnitude's.

    Parameters
    ----------
    course : Course
        What it shares with the others.
    epochs : int
        Before the last cut.
    **options
        Of the switcher.
    """
    return lambda size: course.by_cut("magnitude", size, epochs=epochs, options=options)


def tuning(what: str, model: str, course: Course, trials: Mapping[str, Sequence[Recipe]], size: int,
           data: str = "mnist") -> Experiment:
    """Return the experiment in which each method's settings are chosen, on the validation split.

    Parameters
    ----------
    what : str
        The network and the data, in words.
    model : str
        The network's name.
    course : Course
        What all trials share.
    trials : dict of list
        {method: functions from the size to a specification}, as many for each method.
    size : int
        The operating point.
    data : str, default "mnist"
        The data set's name.
    """
    return Experiment(
        question=f"{what}'s validation split, {size:,} {priced(course.switched.get('price', 'parameters'))}: which settings for each method?",
        model=model, data=data, seeds=(100,), epochs=course.epochs, tuning=True,
        methods={f"{method}, trial {i}": {size: make(size)} for method, makes in trials.items() for i, make in enumerate(makes)})


def comparison(question: str, model: str, course: Course, trials: Mapping[str, Sequence[Recipe]], choice: Mapping[str, int],
               sizes: Sequence[int], controls: Mapping[str, Callable[[dict[str, Any], int], Spec]], **more: Any) -> Experiment:
    """Return the experiment in which each method runs at every size, by the settings that won.

    Parameters
    ----------
    question, model : str
        As in :class:`Experiment`.
    course : Course
        What all methods share.
    trials : dict of list
        As for :func:`tuning`.
    choice : dict of int
        {method: which of its trials won}.
    sizes : sequence of int
        Operating points.
    controls : dict of callable
        {name: function from the methods so far and the size to a specification}; these are not tuned.
    **more
        Further arguments of :class:`Experiment`: ``data`` where it is not MNIST, ``seeds``, ``curve``.
    """
    methods: dict[str, dict[Any, Any]] = {"dense": course.plain()}
    methods |= {method: {size: trials[method][i](size) for size in sizes} for method, i in choice.items()}
    methods |= {name: {size: make(methods, size) for size in sizes} for name, make in controls.items()}
    return Experiment(**{"question": question, "model": model, "data": "mnist", "epochs": course.epochs, "methods": methods,
                         "curve": True, "controls": ("dense",), **more})
