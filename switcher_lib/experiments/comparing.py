"""Is a difference between two methods more than chance? Intervals and corrections for a handful of seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from switcher_lib.experiments.tables import Row


@dataclass(frozen=True)
class Difference:
    """A difference of two means, with what chance makes of it.

    Attributes
    ----------
    mean : float
        The first mean minus the second.
    half : float
        Half the width of the confidence interval ``mean ± half``.
    p : float
        Probability of a difference at least this large where there is none, in [0, 1].
    """

    mean: float
    half: float
    p: float

    @property
    def verdict(self) -> Literal["higher", "lower", "not settled"]:
        """``"higher"`` or ``"lower"`` where the interval leaves 0 out, else ``"not settled"``."""
        if abs(self.mean) <= self.half:
            return "not settled"
        return "higher" if self.mean > 0 else "lower"

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f}, {self.verdict}"


def welch(a: Row | Iterable[float], b: Row | Iterable[float], level: float = 0.95) -> Difference:
    """Compare two methods whose runs have nothing to do with each other.

    Parameters
    ----------
    a, b : Row or sequence of float
        A row of a table, for its accuracy in percent, or the runs' numbers; at least two each.
    level : float, default 0.95
        Confidence of the interval, in (0, 1).

    Returns
    -------
    Difference
        Of a minus b. If neither has any spread, nothing can be said: ``half`` is infinite and ``p`` 1.

    Raises
    ------
    ValueError
        If there are fewer than two runs, or ``level`` is out of its range.

    References
    ----------
    Welch 1947, "The generalization of Student's problem when several different population variances are involved".
    """
    (mean_a, part_a, df_a), (mean_b, part_b, df_b) = _of(a, "a"), _of(b, "b")
    variance = part_a + part_b
    df = variance**2 / (part_a**2 / df_a + part_b**2 / df_b) if variance else 0.0
    return _difference(mean_a - mean_b, variance, df, level)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Compare two methods whose runs belong together, one pair for each seed or each network.

    Parameters
    ----------
    a, b : sequence of float
        The runs' numbers, in the same order; at least two.
    level : float, default 0.95
        Confidence of the interval, in (0, 1).

    Returns
    -------
    Difference
        Of a minus b, by the spread of the differences. If they have none, ``half`` is infinite and ``p`` 1.

    Raises
    ------
    ValueError
        If there are fewer than two pairs or not as many runs of both, or ``level`` is out of its range.

    References
    ----------
    Student 1908, "The probable error of a mean".
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} runs, b has {len(b)}; each needs its partner.")
    return _difference(*_of([float(x - y) for x, y in zip(a, b)], "a"), level)


def _difference(mean, variance, df, level):
    """What Student's t makes of a difference, from its estimated variance and the degrees of freedom of that."""
    from scipy.special import stdtr, stdtrit    # distribution and quantile

    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must be in (0, 1).")
    if variance == 0:
        return Difference(mean, math.inf, 1.0)
    error = math.sqrt(variance)
    return Difference(mean, float(stdtrit(df, (1 + level) / 2)) * error, float(2 * stdtr(df, -abs(mean) / error)))


def _of(runs: Row | Iterable[float], name: str) -> tuple[float, float, int]:
    """Mean, its variance, and degrees of freedom."""
    if isinstance(runs, Row):
        (mean, std), count = runs.accuracy, len(runs.seeds)
    else:
        runs = [float(run) for run in runs]
        if not all(map(math.isfinite, runs)):
            raise ValueError(f"{name}={runs!r} has a run that is not finite; say beside the comparison what became of it.")
        mean, std, count = (statistics.fmean(runs), statistics.stdev(runs), len(runs)) if len(runs) > 1 else (0, 0, len(runs))
    if count < 2:
        raise ValueError(f"{name} has {count} run{'s' * (count != 1)}; a spread needs at least 2.")
    return mean, std**2 / count, count - 1


def holm(ps: Sequence[float], level: float = 0.05) -> list[bool]:
    """Tell which of several comparisons are settled, all mistakes together at most ``level``.

    Parameters
    ----------
    ps : sequence of float
        One p for each comparison, in [0, 1].
    level : float, default 0.05
        Probability of one or more mistakes, in (0, 1).

    Returns
    -------
    list of bool
        One for each p. The smallest is held against level / n, the next against level / (n - 1), until one fails.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must be in (0, 1).")
    for p in ps:
        if not 0 <= p <= 1:
            raise ValueError(f"ps has {p!r}; each p must be in [0, 1].")
    settled = [False] * len(ps)
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[i] > level / (len(ps) - rank):
            break
        settled[i] = True
    return settled
