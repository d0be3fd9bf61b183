"""What every benchmark does at its end: write its result whole or not at all, with what it was measured on."""

import json
import os
import platform
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent.parent / "results"


def conditions(threads):
    """Where and with what a measurement was made."""
    return {"threads": threads, "cores": os.cpu_count(), "machine": platform.machine(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__}}


def write(name, result, folder=RESULTS):
    """Write ``result`` to ``folder/name.json`` atomically and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)
    return path
