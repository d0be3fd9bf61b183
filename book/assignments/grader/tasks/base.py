"""What a graded item is, and how two values are compared."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Check", "Item", "same", "small"]


@dataclass(frozen=True)
class Check:
    """One property of an answer, with its share of the item's points.

    Parameters
    ----------
    points : float
        What it is worth.
    tried : str
        What was tried, in words that a student reads; never a hidden number.
    idea : str
        The idea that is missing if it fails.
    where : str
        Where the book explains it: ``page#anchor``.
    """

    points: float
    tried: str
    idea: str
    where: str


class Item:
    """One graded thing. A subclass is all that an item needs.

    Attributes
    ----------
    name : str
        The grade_id of its answer cell; its test cell is ``test-<name>``.
    number, title : str
        As the notebook shows them.
    defines : tuple of str
        The names that the answer cell must define.
    checks : dict
        :class:`Check` by name; their points add up to the item's.
    """

    name = number = title = ""
    defines = ()
    checks = {}
    probe = None                # the name of its probe; by default the item's own
    local = False               # judged from what the notebook shows, by `outputs(submitted)`, instead of by a probe

    @property
    def points(self):
        return sum(check.points for check in self.checks.values())

    def cases(self, rng, course):
        """Hidden cases: dicts of plain arguments for the probe, drawn from the course's secret."""
        raise NotImplementedError

    def check(self, case, got, want, course):
        """{check: bool} for one case, from the outputs of the student's answer and of the reference. May leave checks out."""
        raise NotImplementedError


def array(value):
    """A value as a float array, or None if it is nothing of the kind."""
    try:
        made = np.asarray(value)
        if made.dtype.kind not in "biuf":
            return None
        return made.astype(np.float64)
    except (TypeError, ValueError):
        return None


def same(got, want, tol=1e-4):
    """Whether two values have one shape and the same finite numbers, up to `tol` relative to the largest."""
    got, want = array(got), array(want)
    if got is None or want is None or got.shape != want.shape or not np.isfinite(got).all():
        return False
    if not want.size:
        return True
    return bool(np.abs(got - want).max() <= tol * max(1.0, np.abs(want).max()))


def small(value, bound):
    """Whether every entry is finite and at most `bound` in size."""
    made = array(value)
    return made is not None and bool(np.isfinite(made).all()) and (not made.size or bool(np.abs(made).max() <= bound))


def whole(rng, low, high, shape=None, zero=True):
    """Small whole numbers as floats, as by-hand exercises want them; without 0 if `zero` is false."""
    drawn = rng.integers(low, high + 1, size=shape)
    if not zero:
        drawn = np.where(drawn == 0, high, drawn)
    return drawn.astype(float).tolist() if shape is not None else float(drawn)


def normal(rng, *shape, scale=1.0):
    """Standard normal numbers as float32."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)
