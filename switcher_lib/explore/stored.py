"""What explorers show of stored experiments: only what the library lets stand in a table."""

from os import PathLike
from typing import Any

from ..experiments import EXPERIMENTS, Row, load, runner
from ..experiments.results import beside


def complete(name: str,
             folder: str | PathLike[str] | None = None) -> dict[str, dict[int | None, tuple[Row, list[dict[str, Any]]]]]:
    """Read the complete methods of an experiment.

    Parameters
    ----------
    name : str
        One of :data:`~switcher_lib.experiments.EXPERIMENTS`.
    folder : str or Path, optional
        Where the result files are; None looks in ``results/`` here and one folder up.

    Returns
    -------
    dict of dict
        {method: {operating point: (Row, records)}}. Left out is a method whose runs are not all there or break a
        rule of comparison; empty where there is no file.
    """
    path = beside(f"{name}.json", folder)
    if path is None:
        return {}
    experiment, results = EXPERIMENTS[name], load(name, path.parent)
    found = runner.complete(results, experiment, experiment.methods)
    return {method: {point: (row, results.of(method, point)) for point, row in rows.items()} for method, rows in found.items()}
