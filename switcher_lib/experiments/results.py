"""Result files: always whole, written by one runner at a time."""

import base64
import json
import os
import warnings
import zlib
from contextlib import contextmanager
from math import prod
from pathlib import Path

import filelock
import numpy as np
import torch

from switcher_lib import models
from switcher_lib.layers import SelectLinear

FORMAT = 1


class Results:
    """The finished runs of one experiment, in one JSON file that is always whole.

    Parameters
    ----------
    path : str or Path
        The file; it need not exist yet.

    Raises
    ------
    ValueError
        If the file is there and is not a results file of this version.
    OSError
        If it cannot be read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.runs = []
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text())
                self.runs = content["runs"] if content["format"] == FORMAT else None
                for record in self.runs or ():
                    key(record), record["spec"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{self.path} is not a results file ({type(error).__name__}: {error}); move it away to start "
                                 "again.") from error
            if self.runs is None:
                raise ValueError(f"{self.path} has format {content['format']!r}; this version reads {FORMAT}. Use the version "
                                 "that wrote it, or move it away to start again.")

    @classmethod
    @contextmanager
    def locked(cls, path):
        """Open for writing: nobody else can, until the ``with`` block or the process ends, however it ends.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        BlockingIOError
            If another runner has it.
        OSError
            If the folder cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise BlockingIOError(f"another runner is at work on {path}; wait for it, or choose another folder.") from error
        except OSError as error:
            raise OSError(error.errno, f"{path.parent} cannot be written ({error.strerror}). Choose another folder "
                          "(--folder)") from error
        try:
            for part in path.parent.glob(f".{path.name}.*.part"):    # of a runner that was killed while it wrote
                part.unlink()
            yield cls(path)
        finally:
            lock.release()

    def find(self, method, point=None, seed=0, spec=None):
        """Return the record of a method, operating point and seed, or None.

        Parameters
        ----------
        method : str
            Name of the method.
        point : int, optional
            The operating point, if the method has any.
        seed : int, default 0
            The seed.
        spec : dict, optional
            With it, the record counts only if it was made by that very specification.
        """
        for record in self.runs:
            if key(record) == (method, point, seed) and (spec is None or record["spec"] == spec):
                return record
        return None

    def add(self, record):
        """Add a record, in place of an older one of the same method, point and seed, and write the file atomically."""
        runs = [r for r in self.runs if key(r) != key(record)] + [record]
        runs.sort(key=lambda r: (r["method"], r.get("point") or 0, r["seed"]))
        lines = ",\n".join(json.dumps(r) for r in runs)    # a line for each run: a small change is a small diff
        self.write(f'{{"format": {FORMAT}, "runs": [\n{lines}\n]}}\n'.encode(), self.path)
        self.runs = runs

    def write(self, content, path):
        """Write a file beside the results so that it is whole or as it was before.

        Parameters
        ----------
        content : bytes
            What goes in.
        path : Path
            The file.

        Raises
        ------
        OSError
            If it cannot be written, for example because the disk is full.
        """
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")    # named for the lock: its next owner removes it
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise OSError(error.errno, f"{path} could not be written and stays as it was ({error.strerror}). Make room and "
                          "run again: what is finished in it is not repeated") from error
        finally:
            part.unlink(missing_ok=True)

    def of(self, method, point=None):
        """Return the records of one method (at one operating point), in the order of their seeds, without those that stopped."""
        return [r for r in self.runs if key(r)[:2] == (method, point) and "stopped" not in r]

    def stopped(self, method, point=None):
        """Return the records of runs that training itself stopped: ``stopped`` is the reason."""
        return [r for r in self.runs if key(r)[:2] == (method, point) and "stopped" in r]


def key(record):
    """Return (method, point, seed)."""
    return record["method"], record.get("point"), record["seed"]


def at(point):
    """Return how a ``point`` is told behind a method's name: " at 20,000", or nothing."""
    return "" if point is None else f" at {point:,}"


def follows(record, source):
    """Return whether a record took its counts, or its structure, over from the record ``source`` as that is now."""
    part = "mask" if "same_structure_as" in record["spec"] and "mask" in record and "mask" in source else "sites"
    return record[part] == source[part]


def differences(old, new, path=""):
    """Return in words where two specifications differ.

    Parameters
    ----------
    old, new : dict
        The specifications.
    path : str, default ""
        Where in them this is.
    """
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{path}: {old!r}, now {new!r}"
    parts = [differences(old.get(name, "nothing"), new.get(name, "nothing"), f"{path}.{name}".strip("."))
             for name in sorted({*old, *new}) if old.get(name, "nothing") != new.get(name, "nothing")]
    return "; ".join(parts)


def pack(mask):
    """Return a mask of zeros and ones as a short text."""
    return base64.b64encode(zlib.compress(np.packbits(mask.detach().bool().cpu().numpy().ravel()).tobytes(), 9)).decode()


def unpack(text, shape):
    """Return the mask (float32, zeros and ones) of a text that :func:`pack` made."""
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8), count=prod(shape))
    return torch.from_numpy(bits.astype(np.float32)).reshape(shape)


HIDDEN = {"lenet_300_100": ("fc1", "fc2"), "lenet_5": ("conv1", "conv2", "fc1"), "conv_net": ("conv1", "conv2", "conv3")}


def rebuild(record, experiment):
    """Build a plain network of the shape that a run ended with, on random weights: to count it, or to time it.

    Parameters
    ----------
    record : dict
        A finished run, at the neuron level. A record of an earlier runner has no masks: it gets the first
        features of as many as are on, which changes neither count nor time.
    experiment : Experiment
        What it belongs to.

    Returns
    -------
    nn.Module
        BatchNorms that the run folded are not in it.

    Raises
    ------
    ValueError
        If the run switched connections: then it has no smaller shape.
    """
    if record.get("level", "neuron") != "neuron":
        raise ValueError(f"{record['method']!r} switches connections: its structure is no smaller shape.")
    on = {name: torch.arange(total, device="cpu") < kept for name, (total, kept) in record["sites"].items()}
    for name, mask in record.get("mask", {}).items():
        on[name] = unpack(mask, (record["sites"][name][0],)).bool()
    options = dict(record["spec"].get("model", {}))
    dense = models.make(experiment.model, **options)
    hidden = HIDDEN[experiment.model]
    whole = {name: torch.ones(len(dense.get_submodule(name).weight), dtype=torch.bool, device="cpu") for name in hidden}
    widths = list({**whole, **{name: on[name] for name in hidden if name in on}}.values())
    reader = "fc1" if experiment.model.startswith("lenet") else "fc"    # the first Linear layer
    features = on.get("input", on.get(f"{reader}_in"))
    if features is not None and "input" not in on:    # flattened: a channel is on with its features, and they with it
        channels = widths[hidden.index(reader) - 1 if reader in hidden else -1]
        features = features.view(len(channels), -1)
        channels &= features.any(1)
        features = features[channels].flatten()
    if options.get("batch_norm"):
        options["batch_norm"] = False
    small = models.make(experiment.model, **{**options, "widths": [max(1, int(w.sum())) for w in widths]})
    if features is not None and not features.all():
        layer = small.get_submodule(reader)
        with warnings.catch_warnings():    # of a collapsed network nothing may be left to read
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            small.set_submodule(reader, SelectLinear(features.nonzero()[:, 0], layer.out_features))
    return small
