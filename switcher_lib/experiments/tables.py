"""Tables made of results alone: mean and standard deviation over the seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from switcher_lib.experiments.protocol import check
from switcher_lib.experiments.results import Results, at
from switcher_lib.experiments.specs import Experiment


@dataclass(frozen=True)
class Row:
    """One method of an experiment: means and standard deviations over its seeds.

    Attributes
    ----------
    method : str
        Name of the method.
    point : int or None
        The operating point.
    seeds : tuple of int
        The seeds behind the numbers.
    accuracy : (float, float)
        Test accuracy in percent, mean and standard deviation.
    off : (float, float)
        Hidden neurons off at the end, percent.
    off_at_start : (float, float)
        Hidden neurons off before training, percent.
    parameters, macs, seconds : (float, float)
        Of the network that was evaluated, zeros not counted; training time.
    stopped : tuple of int
        Seeds whose training stopped with an error: they are in none of the numbers, which are NaN if no run is left.
    """

    method: str
    point: int | None
    seeds: tuple[int, ...]
    accuracy: tuple[float, float]
    off: tuple[float, float]
    off_at_start: tuple[float, float]
    parameters: tuple[float, float]
    macs: tuple[float, float]
    seconds: tuple[float, float]
    stopped: tuple[int, ...] = ()


def table(results: Results, methods: Iterable[str] | None = None, experiment: Experiment | None = None) -> list[Row]:
    """Return one :class:`Row` for each method and operating point.

    Parameters
    ----------
    results : Results
        From :func:`switcher_lib.experiments.load`.
    methods : sequence of str, optional
        Which methods, in this order; None takes all.
    experiment : Experiment, optional
        With it, results that break the rules of comparison are refused; see :func:`~switcher_lib.experiments.violations`.

    Returns
    -------
    list of Row
        Methods and points without a finished run are left out.

    Raises
    ------
    ProtocolError
        If a result may not stand in a table.
    """
    names = list(methods or (experiment.methods if experiment else sorted({r["method"] for r in results.runs})))
    if experiment is not None:
        check(results, experiment, names)
    rows = []
    for name in names:
        points = sorted({r.get("point") for r in results.runs if r["method"] == name}, key=lambda p: (p is None, p or 0), reverse=True)
        rows += [_row(name, point, results.of(name, point), results.stopped(name, point)) for point in points]
    return rows


def _row(name, point, runs, stopped):
    return Row(
        method=name, point=point, seeds=tuple(r["seed"] for r in runs),
        accuracy=mean_std([100 * r["test_accuracy"] for r in runs]),
        off=mean_std([_off({key: on for key, (_, on) in r["sites"].items()}, r) for r in runs]),
        off_at_start=mean_std([_off(r["on_at_start"], r) for r in runs]),
        parameters=mean_std([r["parameters"] for r in runs]), macs=mean_std([r["macs"] for r in runs]),
        seconds=mean_std([r["seconds"] for r in runs]), stopped=tuple(r["seed"] for r in stopped),
    )


def _off(on, run):
    """Percent of the hidden neurons (not of the inputs), or of the connections, that are off."""
    hidden = {key: total for key, (total, _) in run["sites"].items() if not key.startswith("input")}
    return 100 * (1 - sum(on.get(key, math.nan) for key in hidden) / sum(hidden.values())) if hidden else 0.0


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation of ``values`` (0 for a single one; NaN if there is none or one is not known)."""
    if not values or any(map(math.isnan, values)):
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def text(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table."""
    labels = [row.method + at(row.point) for row in rows]
    width = max((len(label) for label in labels), default=6)
    lines = [f"{'method':{width}}  {'accuracy %':>15}  {'off %':>14}  {'at step 0':>9}  {'parameters':>18}  {'MACs':>9}  "
             f"{'seconds':>7}  seeds"]
    for label, row in zip(labels, rows):
        lines.append(f"{label:{width}}  {row.accuracy[0]:7.3f} ± {row.accuracy[1]:5.3f}  {row.off[0]:6.1f} ± {row.off[1]:5.1f}  "
                     f"{row.off_at_start[0]:9.1f}  {row.parameters[0]:9,.0f} ± {row.parameters[1]:6,.0f}  {row.macs[0]:9,.0f}  "
                     f"{row.seconds[0]:7.1f}  {_seeds(row)}")
    return "\n".join(lines)


def _seeds(row):
    """The seeds behind a row, and those that stopped."""
    return " ".join([",".join(map(str, row.seeds)), f"(stopped: {','.join(map(str, row.stopped))})" * bool(row.stopped)]).strip()
