"""Measured time of the shapes that an experiment found."""

import json
import platform
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from switcher_lib import data, models
from switcher_lib.experiments.protocol import check
from switcher_lib.experiments.results import Results, beside_or_told, rebuild
from switcher_lib.experiments.specs import Experiment
from switcher_lib.metrics import Latency, compare_latency, count_parameters

BATCHES = (1, 64)


def measure(name: str, experiment: Experiment, folder: str | PathLike[str] = "results", runs: int = 200) -> list[dict[str, Any]]:
    """Time what each method and operating point ended with at seed 0, in turn with the dense network, on one CPU thread.

    Weights are random: time depends on the shape alone. No runner may be at work on the same results.

    Parameters
    ----------
    name : str
        Name of the result file.
    experiment : Experiment
        What it belongs to.
    folder : str or Path, default "results"
        Where the results are, and where ``NAME-latency.json`` goes.
    runs : int, default 200
        Timed passes of each network, at least 3.

    Returns
    -------
    list of dict
        What is in the file under ``times``: method, point, parameters, and a :class:`~switcher_lib.metrics.Latency`'s fields,
        in milliseconds, for each batch size. Runs that switched connections have no shape of their own and are left out.

    Raises
    ------
    ProtocolError
        If a result may not stand in a table.
    """
    with Results.locked(Path(folder) / f"{name}.json") as results:
        check(results, experiment, list(experiment.methods))
        method, point, _ = experiment.tasks()[0]
        dense = models.make(experiment.model, **experiment.spec(method, point).get("model", {}))
        networks: dict[tuple[str, int | None], nn.Module] = {("dense network", None): dense}
        networks |= {(r["method"], r.get("point")): rebuild(r, experiment) for r in results.runs
                     if r["seed"] == experiment.seeds[0] and "stopped" not in r and r.get("level", "neuron") == "neuron"}
        images = data.load(experiment.data).train.images
        sizes = {which: count_parameters(network) for which, network in networks.items()}    # tells of what shape the times are
        times = [{"method": which[0], "point": which[1], "parameters": sizes[which], **asdict(latency)} for batch in BATCHES
                 for which, latency in compare_latency(networks, images[:batch].clone(), runs=runs).items()]
        conditions = {"device": "cpu", "machine": platform.machine(), "torch": torch.__version__,
                      "python": platform.python_version()}
        lines = ",\n".join(json.dumps(line) for line in times)
        text = f'{{"conditions": {json.dumps(conditions)}, "times": [\n{lines}\n]}}\n'
        results.write(text.encode(), results.path.with_name(f"{name}-latency.json"))
    return times


def stored_latency(name: str) -> dict[tuple[str, int | None], dict[int, Latency]]:
    """Read the measured times of what an experiment found, as ``python -m switcher_lib.experiments latency NAME`` wrote them.

    Parameters
    ----------
    name : str
        Name of the experiment.

    Returns
    -------
    dict of dict
        {(method, operating point): {batch size: :class:`~switcher_lib.metrics.Latency`}}, of them ``("dense network", None)``,
        which the others took turns with. Empty, said in a printed line, where the folder ``results/`` is neither here nor one
        folder up, or the times are not in it.
    """
    path = beside_or_told(f"{name}-latency.json", f"latency {name}")
    if path is None:
        return {}
    found: dict[tuple[str, int | None], dict[int, Latency]] = {}
    for line in json.loads(path.read_text(encoding="utf-8"))["times"]:
        which = line.pop("method"), line.pop("point")
        del line["parameters"]
        found.setdefault(which, {})[line["batch"]] = Latency(**line)
    return found
