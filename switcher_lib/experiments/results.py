"""Result files: always whole, written by one runner at a time."""

import base64
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor, nn

from switcher_lib import models
from switcher_lib.compaction import compact
from switcher_lib.errors import SwitchWarning
from switcher_lib.experiments.specs import Experiment, form_of
from switcher_lib.files import replacing
from switcher_lib.switched import Switched
from switcher_lib.switchers import RandomSwitcher

FORMAT = 1
Record = dict[str, Any]    # of one run, as run_one makes it


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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.runs: list[Record] = []
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text())
                version, runs = content["format"], content["runs"]
                for record in runs if version == FORMAT else ():
                    key(record), record["spec"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{self.path} is not a results file ({type(error).__name__}: {error}); move it away to start "
                                 "again.") from error
            if version != FORMAT:
                raise ValueError(f"{self.path} has format {version!r}; this version reads {FORMAT}. Use the version "
                                 "that wrote it, or move it away to start again.")
            self.runs = runs

    @classmethod
    @contextmanager
    def locked(cls, path: str | os.PathLike[str]) -> Iterator["Results"]:
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

    def find(self, method: str, point: int | None = None, seed: int = 0, spec: dict[str, Any] | None = None) -> Record | None:
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

    def add(self, record: Record) -> None:
        """Add a record, in place of an older one of the same method, point and seed, and write the file atomically."""
        runs = [r for r in self.runs if key(r) != key(record)] + [record]
        runs.sort(key=lambda r: (r["method"], r.get("point") or 0, r["seed"]))
        lines = ",\n".join(json.dumps(r) for r in runs)    # a line for each run: a small change is a small diff
        self.write(f'{{"format": {FORMAT}, "runs": [\n{lines}\n]}}\n'.encode(), self.path)
        self.runs = runs

    def write(self, content: bytes, path: Path) -> None:
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
            with replacing(path, part):
                part.write_bytes(content)
        except OSError as error:
            raise OSError(error.errno, f"{path} could not be written and stays as it was ({error.strerror}). Make room and "
                          "run again: what is finished in it is not repeated") from error

    def of(self, method: str, point: int | None = None) -> list[Record]:
        """Return the records of one method (at one operating point), in the order of their seeds, without those that stopped."""
        return [r for r in self.runs if key(r)[:2] == (method, point) and "stopped" not in r]

    def stopped(self, method: str, point: int | None = None) -> list[Record]:
        """Return the records of runs that training itself stopped: ``stopped`` is the reason."""
        return [r for r in self.runs if key(r)[:2] == (method, point) and "stopped" in r]


def beside(file: str, folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the path of a file of results, or None where it is not there.

    Parameters
    ----------
    file : str
        Its name.
    folder : str or Path, optional
        Where it has to be; None looks in ``results/`` here and one folder up.
    """
    folders = ("results", "../results") if folder is None else (folder,)
    return next((path for path in (Path(one) / file for one in folders) if path.exists()), None)


def beside_or_told(file: str, command: str) -> Path | None:
    """Return the path of a file of results for a page, as :func:`beside` finds it; a printed line says where it is None.

    Parameters
    ----------
    file : str
        Its name.
    command : str
        What makes it, after ``python -m switcher_lib.experiments``.
    """
    path = beside(file)
    if path is None:
        print(f"This needs results/{file} of the book's repository;\npython -m switcher_lib.experiments {command} makes it.")
    return path


def key(record: Record) -> tuple[str, int | None, int]:
    """Return (method, point, seed)."""
    return record["method"], record.get("point"), record["seed"]


def at(point: int | None) -> str:
    """Return how a ``point`` is told behind a method's name: " at 20,000", or nothing."""
    return "" if point is None else f" at {point:,}"


def follows(record: Record, source: Record) -> bool:
    """Return whether a record took its counts, or its structure, over from the record ``source`` as that is now."""
    part = "mask" if "same_structure_as" in record["spec"] and "mask" in record and "mask" in source else "sites"
    return record[part] == source[part]


def differences(old: object, new: object, path: str = "") -> str:
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


def pack(mask: Tensor) -> str:
    """Return a mask of zeros and ones as a short text."""
    return base64.b64encode(zlib.compress(np.packbits(mask.detach().bool().cpu().numpy().ravel()).tobytes(), 9)).decode()


def unpack(text: str, shape: Sequence[int]) -> Tensor:
    """Return the mask (float32, zeros and ones) of a text that :func:`pack` made."""
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8), count=prod(shape))
    return torch.from_numpy(bits.astype(np.float32)).reshape(shape)


# Switched's arguments that name the sites
WHERE = ("level", "face", "switch_inputs", "switch_flattened", "convolutions", "tied", "skip")


def count(record: Record, experiment: Experiment) -> int:
    """Count the parameters of the structure that a run ended with, by its masks: quick, for tables.

    Parameters
    ----------
    record : dict
        A finished run, at the neuron level.
    experiment : Experiment
        What it belongs to.

    Returns
    -------
    int
        The number. Compaction, which :func:`rebuild` does, may leave fewer: it also takes out what nothing reads any more, in
        front of a site that is off as a whole, or a channel whose flattened features are all off.
    """
    net, _ = _switched(record, experiment)
    return int(net.count(_on(record, net)).round())


def rebuild(record: Record, experiment: Experiment) -> nn.Module:
    """Build a plain network of the shape that a run ended with, on random weights: to count it exactly, or to time it.

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
    net, example = _switched(record, experiment)
    net.hold(_on(record, net))
    with warnings.catch_warnings():    # the run has told already which layers collapsed
        warnings.simplefilter("ignore", SwitchWarning)
        return compact(net, example).model


def _on(record, net):
    """What a record says is on: {site key: zeros and ones}; float64, for float32 cannot count beyond 16.7 million."""
    on = {site.key: torch.ones(site.size, dtype=torch.float64) for site in net.sites}
    on |= {name: (torch.arange(total) < kept).double() for name, (total, kept) in record["sites"].items()}
    return on | {name: unpack(mask, on[name].shape).double() for name, mask in record.get("mask", {}).items()}


def _switched(record, experiment):
    """The dense network that a record is part of, switched where its run, or the run whose structure it took over, was."""
    if record.get("level", "neuron") != "neuron":
        raise ValueError(f"{record['method']!r} switches connections: its structure is no smaller shape.")
    source = experiment.source(*key(record))
    found = record["spec"] if source is None else experiment.spec(*source[:2])
    where = {name: value for name, value in found.get("switched", {}).items() if name in WHERE}
    options = dict(record["spec"].get("model", {}))
    if options.get("batch_norm"):    # the run has folded it
        options["batch_norm"] = False
    return _dense(experiment.model, json.dumps(options), json.dumps(where))


@lru_cache(maxsize=16)
def _dense(model, options, where):
    """A switched network on random weights and an example; made once in a process, for a table asks for it with every record."""
    options = json.loads(options)
    shape, _ = form_of(model, {"model": options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense, example = models.make(model, **options), torch.randn(2, *shape)
        return Switched(dense, example, switcher=partial(RandomSwitcher, off=0.0), **json.loads(where)), example
