"""What explorers show of stored experiments: only what the library lets stand in a table."""

from pathlib import Path

from ..experiments import EXPERIMENTS, ProtocolError, load, table


def complete(name, folder=None):
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
    folders = ("results", "../results") if folder is None else (folder,)
    here = next((one for one in folders if (Path(one) / f"{name}.json").exists()), None)
    if here is None:
        return {}
    experiment, results, found = EXPERIMENTS[name], load(name, here), {}
    for method in experiment.methods:
        try:
            rows = {row.point: row for row in table(results, [method], experiment)}
        except ProtocolError:
            continue
        if set(rows) == set(experiment.points(method)):
            found[method] = {point: (row, results.of(method, point)) for point, row in rows.items()}
    return found
