"""Tables made of results alone: mean and standard deviation over the seeds."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One method of an experiment: means and standard deviations over its seeds.

    Attributes
    ----------
    method : str
        Name of the method.
    seeds : tuple of int
        The seeds behind the numbers.
    accuracy : (float, float)
        Test accuracy in percent, mean and standard deviation.
    off : (float, float)
        Hidden neurons off at the end, percent.
    off_at_start : (float, float)
        Hidden neurons off before training, percent.
    parameters, macs, seconds : (float, float)
        Of the network that was evaluated; training time.
    """

    method: str
    seeds: tuple
    accuracy: tuple
    off: tuple
    off_at_start: tuple
    parameters: tuple
    macs: tuple
    seconds: tuple


def table(results, methods=None):
    """Return one :class:`Row` for each method.

    Parameters
    ----------
    results : Results
        From :func:`switcher_lib.experiments.load`.
    methods : sequence of str, optional
        Which methods, in this order; None takes all.

    Returns
    -------
    list of Row
        Methods without a finished run are left out.
    """
    names = methods or sorted({r["method"] for r in results.runs})
    return [_row(name, results.of(name)) for name in names if results.of(name)]


def _row(name, runs):
    return Row(
        method=name, seeds=tuple(r["seed"] for r in runs),
        accuracy=mean_std([100 * r["test_accuracy"] for r in runs]),
        off=mean_std([_off({key: on for key, (_, on) in r["sites"].items()}, r) for r in runs]),
        off_at_start=mean_std([_off(r["on_at_start"], r) for r in runs]),
        parameters=mean_std([r["parameters"] for r in runs]), macs=mean_std([r["macs"] for r in runs]),
        seconds=mean_std([r["seconds"] for r in runs]),
    )


def _off(on, run):
    """Percent of the hidden neurons (not of the inputs) that are off."""
    hidden = {key: total for key, (total, _) in run["sites"].items() if not key.startswith("input")}
    return 100 * (1 - sum(on[key] for key in hidden) / sum(hidden.values())) if hidden else 0.0


def mean_std(values):
    """Return mean and sample standard deviation (0 for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def text(rows):
    """Return the rows as an aligned table."""
    width = max((len(row.method) for row in rows), default=6)
    lines = [f"{'method':{width}}  {'accuracy %':>15}  {'hidden off %':>14}  {'at step 0':>9}  {'parameters':>18}  "
             f"{'MACs':>9}  {'seconds':>7}  seeds"]
    for row in rows:
        lines.append(f"{row.method:{width}}  {row.accuracy[0]:7.3f} ± {row.accuracy[1]:5.3f}  {row.off[0]:6.1f} ± {row.off[1]:5.1f}  "
                     f"{row.off_at_start[0]:9.1f}  {row.parameters[0]:9,.0f} ± {row.parameters[1]:6,.0f}  {row.macs[0]:9,.0f}  "
                     f"{row.seconds[0]:7.1f}  {','.join(map(str, row.seeds))}")
    return "\n".join(lines)
