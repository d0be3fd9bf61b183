"""Specifications: what each experiment asks and, as plain data, how each of its methods is run."""

from dataclasses import dataclass


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
    methods : dict of str to dict
        Plain data. ``kind`` is ``"plain"`` or ``"switched"``; the other entries are arguments: of
        :class:`~switcher_lib.Switched` (``switched``), of the switcher (``options``), of :func:`~switcher_lib.fit`
        (``fit``), of the optimizers (``task_sgd``, ``switcher_adam``) and of a second :func:`~switcher_lib.fit` on the
        compacted network (``finetune``). ``same_count_as`` names a method whose number of neurons off is taken over.
    """

    question: str
    model: str
    data: str
    methods: dict


def ramp(start, end, until):
    """Return a weight λ that grows linearly from ``start`` to ``end`` at progress ``until`` and then stays.

    Parameters
    ----------
    start, end : float
        First and last value, at least 0.
    until : float
        Progress in (0, 1] at which the end is reached.

    Returns
    -------
    callable
        From progress in [0, 1] to λ.
    """
    return lambda t: start + (end - start) * min(1.0, t / until)


EXPERIMENTS = {}
