"""Data sets as tensors: a training, a validation and a test split, and where they came from.

Real sets (:func:`known` lists them) are downloaded once by torchvision and kept under ``$SWITCHER_DATA``,
by default ``~/.cache/switcher_lib``. ``SWITCHER_OFFLINE=1`` skips the attempt. A set that cannot be had is
replaced by digits of the same image shape, which need no network, and :class:`Data` shows a box that says
so. A damaged file is never used and never replaced: it is an error that names it.
"""

import hashlib
import html
import os
import shutil
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DataError, unknown_name

__all__ = ["AUGMENTATIONS", "Data", "Split", "crop_flip", "from_tensors", "known", "load"]

Augment = Callable[[Tensor, torch.Generator], Tensor]    # from a batch of images to a batch of images
Pair = tuple[Any, Any]                                    # images and labels: tensors, or arrays

VALIDATION = 5000               # images held out of a real set, unless load() is told otherwise
ANSWER_WITHIN = 10.0            # seconds for the first answer, every mirror and every name look-up included
SILENT_FOR = 10.0               # seconds a started download may go without a byte
DOWNLOAD_WITHIN = 600.0         # seconds for a whole download


@dataclass(frozen=True)
class _Real:
    """What is known of a real set before its files are opened."""

    title: str
    dataset: str                # torchvision's class
    stand_in: str               # a made set with the same image shape
    size: int                   # training images
    classes: int = 10


_REAL = {
    "mnist": _Real("MNIST", "MNIST", "digits", 60_000),
    "fashion_mnist": _Real("Fashion-MNIST", "FashionMNIST", "digits", 60_000),
    "cifar10": _Real("CIFAR-10", "CIFAR10", "digits_rgb", 50_000),
    "cifar100": _Real("CIFAR-100", "CIFAR100", "digits_rgb", 50_000, 100),
}
_MADE = {
    "digits": "scikit-learn's 8×8 digits, enlarged to 20×20 in a frame of 4 black pixels",
    "digits_rgb": "scikit-learn's 8×8 digits, tinted and laid over crops of its two photographs",
}
_SHAPES = {"digits": (1, 28, 28), "digits_rgb": (3, 32, 32)}
_DIGITS = tuple("0123456789")
_IDX_FILES = {                  # the MNIST family's four files and the shapes that their headers must state
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
_IDX_CLASSES = {
    "mnist": _DIGITS,
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
                      "Bag", "Ankle boot"),
}
# torchvision knows the MD5 of the packed files only; these are the unpacked ones'. Fashion-MNIST's are noted
# beside its files, in MD5SUMS, when it is downloaded; otherwise headers and lengths are what can be checked.
_IDX_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
}
_failed: dict[tuple[str, str], str] = {}                    # (name, folder) -> why the download failed: asked once per process


class _Absent(Exception):
    """A real set cannot be had; the message says why, without a path, because it is shown on the page."""


# -------- what a reader holds

@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and labels as two tensors on one device.

    Parameters
    ----------
    images : torch.Tensor, shape (N, C, H, W), float32
        Standardised with the training split's mean and standard deviation per channel.
    labels : torch.Tensor, shape (N,), int64
        Class numbers from 0.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images of {_shape(self.images)} on {self.images.device})"

    def batches(self, batch_size: int, generator: torch.Generator | None = None, augment: Augment | None = None,
                drop_last: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over the split in batches, each made by indexing the tensors.

        Parameters
        ----------
        batch_size : int
            Images per batch, at least 1. The last batch may be smaller.
        generator : torch.Generator, optional
            Shuffles the images, and is handed on to `augment`. Without one the order is the split's own,
            and the batches are views: do not write into them.
        augment : callable, optional
            ``augment(images, generator) -> images``, called once per batch; see :func:`crop_flip`.
        drop_last : bool, default False
            Leave out a last batch that is smaller than `batch_size`.

        Returns
        -------
        iterator of (images, labels)
            Tensors of shapes (B, C, H, W) and (B,), on the split's device.

        Raises
        ------
        ValueError
            If `batch_size` is not an integer of at least 1.
        """
        if not _is_int(batch_size) or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be an integer of at least 1.")
        return self._batches(int(batch_size), generator, augment, drop_last)

    def _batches(self, batch_size, generator, augment, drop_last):
        n = len(self)
        order = None
        if generator is not None:
            order = torch.randperm(n, generator=generator, device=generator.device).to(self.images.device)
        for start in range(0, n - n % batch_size if drop_last else n, batch_size):
            pick = slice(start, start + batch_size) if order is None else order[start:start + batch_size]
            images = self.images[pick]
            yield images if augment is None else augment(images, generator), self.labels[pick]

    def to(self, device: str | torch.device, memory_format: torch.memory_format | None = None) -> "Split":
        """The same split on another device, or in another memory format.

        Parameters
        ----------
        device : str or torch.device
            Where the tensors go.
        memory_format : torch.memory_format, optional
            For the images; ``torch.channels_last`` is faster for convolutions on many CPUs. Batches keep it.

        Returns
        -------
        Split
        """
        return Split(self.images.to(device, memory_format=memory_format), self.labels.to(device))

    def subset(self, n: int) -> "Split":
        """The first `n` images, as a view. A training split is in random order already.

        Parameters
        ----------
        n : int
            From 1 to ``len(split)``.

        Returns
        -------
        Split

        Raises
        ------
        ValueError
            If `n` is not such an integer.
        """
        if not _is_int(n) or not 1 <= n <= len(self):
            raise ValueError(f"n={n!r} must be an integer from 1 to {len(self)}, the size of the split.")
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set in three splits. Show it on a page: its box says when a stand-in is used.

    Made by :func:`load` and :func:`from_tensors`.

    Parameters
    ----------
    name : str
        The set in use. Tables and figures name this one.
    requested : str
        The set that was asked for.
    source : str
        Where the images come from, a sentence.
    train, validation, test : Split
        To learn from, to choose by, and to look at once, at the end.
    full_train : Split
        `train` followed by `validation`: for the final run, after everything is chosen. Shares their memory.
    num_classes : int
        Number of classes.
    classes : tuple of str, length num_classes
        Their names.
    mean, std : tuple of float, length C
        Of the training split's pixels per channel, before standardising; 8-bit pixels count as 0 to 1.
    reason : str or None
        Why a stand-in is used, if one is.
    """

    name: str
    requested: str
    source: str
    train: Split
    validation: Split
    test: Split
    full_train: Split
    num_classes: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reason: str | None = None

    @property
    def is_stand_in(self) -> bool:
        """bool : Whether the set in use is not the one that was asked for."""
        return self.name != self.requested

    @property
    def example(self) -> Tensor:
        """torch.Tensor, shape (B, C, H, W) : The first two training images, to run through a model."""
        return self.train.images[:2]

    def _notice(self):
        if not self.is_stand_in:
            return None
        wanted = _title(self.requested)
        return (f"Real {wanted} could not be had ({self.reason}): this page runs on {self.name}, "
                f"{_MADE[self.name]}. Its numbers are not {wanted}'s.")

    def _rows(self):
        uses = (("train", "to learn from"), ("validation", "to choose by"), ("test", "to look at once"))
        return [(use, f"{len(getattr(self, use)):,}", _shape(self.train.images), what) for use, what in uses]

    def __str__(self) -> str:
        lines = [f"{_title(self.name)}: {self.num_classes} classes. {self.source}"]
        lines += [f"  {use:<11}{count:>7} × {shape}  {what}" for use, count, shape, what in self._rows()]
        if self.is_stand_in:
            rule = "!" * 78
            lines = [rule, f"! {self._notice()}", rule, *lines]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        box = ""
        if self.is_stand_in:
            box = ('<div role="note" style="border:2px solid #d55e00;border-left-width:10px;padding:.6em 1em;'
                   f'margin:.5em 0"><strong>A stand-in is used.</strong> {html.escape(self._notice())}</div>')
        head = "".join(f'<th scope="col">{h}</th>' for h in ("split", "images", "shape", "use"))
        body = ""
        for split, *cells in self._rows():
            body += f'<tr><th scope="row">{split}</th>' + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
        caption = html.escape(f"{_title(self.name)}: {self.num_classes} classes. {self.source}")
        return (f'{box}<table><caption style="text-align:left">{caption}</caption>'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


# -------- the public calls

def known() -> tuple[str, ...]:
    """Names that :func:`load` takes.

    Returns
    -------
    tuple of str
    """
    return (*_REAL, *_MADE)


def form(name: str) -> tuple[tuple[int, int, int], int]:
    """What a data set's images are, told without opening a file.

    Parameters
    ----------
    name : str
        One of :func:`known`.

    Returns
    -------
    shape : (int, int, int)
        Channels, height and width of an image.
    num_classes : int

    Raises
    ------
    ValueError
        If the name is unknown; the message names those there are.
    """
    if name not in known():
        raise unknown_name("name", name, known(), "data set")
    real = _REAL.get(name)
    return (_SHAPES[real.stand_in], real.classes) if real else (_SHAPES[name], 10)


def load(name: str, root: str | os.PathLike[str] | None = None, validation: int | None = None, device: str | torch.device = "cpu",
         stand_in: bool = True) -> Data:
    """Load a data set as tensors, or its stand-in where it cannot be had.

    The training images are put into one fixed random order (NumPy's ``RandomState(0)``), the same on every
    machine; the last `validation` of them are held out. All splits are standardised with the training
    split's mean and standard deviation per channel. The test split is the set's own.

    Parameters
    ----------
    name : str
        ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``: the real sets, from disk or by one download.
        ``digits`` (1×28×28) and ``digits_rgb`` (3×32×32): scikit-learn's digits, with no network.
    root : path, optional
        Folder of the real sets, in torchvision's layout. Default: ``$SWITCHER_DATA``, else
        ``~/.cache/switcher_lib``.
    validation : int, optional
        Training images to hold out, from 0 to one less than there are. Default 5000; ``digits`` and
        ``digits_rgb`` hold out the same fraction as 5000 of 60,000, and so does a stand-in of whatever was
        asked.
    device : str or torch.device, default "cpu"
        Where the tensors live.
    stand_in : bool, default True
        Whether to go on with ``digits`` or ``digits_rgb`` where the real set cannot be had: tried once in a
        process, with a short time-out. The stand-in has the real set's image shape, and always 10 classes.

    Returns
    -------
    Data

    Raises
    ------
    ValueError
        If `name` is unknown or `validation` out of range.
    DataError
        If a file is damaged or half-written, if the data folder that was asked for cannot be one, or if the
        set cannot be had and `stand_in` is False.
    """
    if name not in known():
        raise unknown_name("name", name, known(), "data set")
    if validation is not None and (not _is_int(validation) or validation < 0):
        raise ValueError(f"validation={validation!r} must be an integer of at least 0, or None.")
    device = torch.device(device)
    if name in _MADE:
        raw, used, reason = _made(name), name, None
        source = f"Made from {_MADE[name]}."
        held = round(len(raw[1]) * VALIDATION / 60_000) if validation is None else validation
        size = len(raw[1])
    else:
        real = _REAL[name]
        held = VALIDATION if validation is None else validation
        size = real.size
    if not held < size:
        raise ValueError(f"validation={held!r} must be smaller than {size}, the training images of {name}.")
    if name in _REAL:
        used, reason = name, None
        try:
            raw = _real(name, root)
            source = f"The real {real.title}, as torchvision lays it out, every file checked."
        except _Absent as absent:
            reason, used = str(absent), real.stand_in
            if not stand_in:
                raise DataError(f"{real.title} could not be had ({reason}). Put its files into the data "
                                f"folder, or allow a stand-in with stand_in=True.") from None
            raw = _made(used)
            source = f"Made from {_MADE[used]}; a stand-in for {real.title}."
            held = min(len(raw[1]) - 1, -(-held * len(raw[1]) // size))    # the same fraction, rounded up
    images, labels, test_images, test_labels, classes = raw

    # RandomState's stream is frozen by NumPy's promise; torch.randperm's may change with a version.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    images, labels = images[order], labels[order]
    n = len(labels) - held
    mean, std = _byte_statistics(images[:n])
    full = Split(_standardise(images, mean, std).to(device), labels.to(device))
    test = Split(_standardise(test_images, mean, std).to(device), test_labels.to(device))
    return _assemble(used, name, source, full, n, test, classes, mean, std, reason)


def from_tensors(name: str, train: Pair, test: Pair, validation: Pair | None = None, num_classes: int | None = None,
                 classes: Iterable[str] | None = None, device: str | torch.device = "cpu") -> Data:
    """Make a :class:`Data` of your own images.

    Every split is standardised with the mean and standard deviation of `train` per channel; a channel that
    is the same everywhere is only centred.

    Parameters
    ----------
    name : str
        What tables and figures call the set.
    train, test : (images, labels)
        Images (N, C, H, W), whole or real numbers (8-bit ones are divided by 255), and labels (N,), whole
        numbers from 0. Tensors or arrays.
    validation : (images, labels), optional
        Without one the validation split is empty.
    num_classes : int, optional
        At least 1. Default: the largest training label plus 1.
    classes : sequence of str, optional
        Names of the classes. Default: their numbers.
    device : str or torch.device, default "cpu"
        Where the tensors live.

    Returns
    -------
    Data

    Raises
    ------
    DataError
        If a split is empty, holds NaN or infinity, has the wrong dimensions, another number of labels
        than of images, or labels out of range. The message names the split.
    ValueError
        If `num_classes` or `classes` is out of range.
    """
    device = torch.device(device)
    if num_classes is not None and (not _is_int(num_classes) or num_classes < 1):
        raise ValueError(f"num_classes={num_classes!r} must be an integer of at least 1.")
    pairs = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    splits = {split: _checked(split, pair) for split, pair in pairs.items()}
    images, labels = splits["train"]
    num_classes = int(labels.max()) + 1 if num_classes is None else int(num_classes)
    for split, (x, y) in splits.items():
        if y.min() < 0 or y.max() >= num_classes:
            bad = int(y.min()) if y.min() < 0 else int(y.max())
            raise DataError(f"{split}: label {bad} is out of range; with num_classes={num_classes} labels go "
                            f"from 0 to {num_classes - 1}.")
        if x.shape[1:] != images.shape[1:]:
            raise DataError(f"{split}: images are {_shape(x)} where train's are {_shape(images)}.")
    classes = tuple(map(str, range(num_classes) if classes is None else classes))
    if len(classes) != num_classes:
        raise ValueError(f"classes has {len(classes)} names, num_classes={num_classes} wants as many.")

    n = len(labels)
    variances, means = torch.var_mean(images.double(), dim=(0, 2, 3), correction=0)
    mean, std = tuple(means.tolist()), tuple(torch.where(variances > 0, variances.sqrt(), 1.0).tolist())
    held_out = splits.get("validation", (images[:0], labels[:0]))
    full = Split(_standardise(torch.cat([images, held_out[0]]), mean, std).to(device),
                 torch.cat([labels, held_out[1]]).to(device))
    held_back = Split(_standardise(splits["test"][0], mean, std).to(device), splits["test"][1].to(device))
    return _assemble(str(name), str(name), "Your own tensors.", full, n, held_back, classes, mean, std, None)


def crop_flip(images: Tensor, generator: torch.Generator | None = None, padding: int = 4, flip: bool = True) -> Tensor:
    """Shift every image at random within a padded frame, and mirror half of them: for CIFAR.

    As torchvision's ``RandomCrop(size, padding)`` and ``RandomHorizontalFlip``, for a whole batch in one
    gather. The frame is filled with 0, which is the mean pixel of standardised images (torchvision, which
    pads before it standardises, fills with black).

    Parameters
    ----------
    images : torch.Tensor, shape (N, C, H, W)
        A batch.
    generator : torch.Generator, optional
        Draws shifts and flips; default torch's own.
    padding : int, default 4
        Largest shift in pixels, at least 0.
    flip : bool, default True
        Mirror each image left to right with probability 1/2.

    Returns
    -------
    torch.Tensor, shape (N, C, H, W)
        A new tensor, in the memory format of `images`.

    Raises
    ------
    ValueError
        If `padding` is not an integer of at least 0, or `images` has not 4 dimensions.
    """
    if not _is_int(padding) or padding < 0:
        raise ValueError(f"padding={padding!r} must be an integer of at least 0.")
    if images.dim() != 4:
        raise ValueError(f"images has shape {tuple(images.shape)}; crop_flip takes (N, C, H, W).")
    n, c, h, w = images.shape
    where = images.device if generator is None else generator.device
    shift = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=where).to(images.device)
    rows = torch.arange(h, device=images.device) + shift[0]                         # (N, H)
    columns = torch.arange(w, device=images.device) + shift[1]                      # (N, W)
    if flip:
        mirror = torch.randint(2, (n, 1), generator=generator, device=where).to(images.device) == 1
        columns = torch.where(mirror, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).reshape(n, 1, h * w)
    out = padded.reshape(n, c, -1).gather(2, pixels.expand(n, c, h * w)).view(n, c, h, w)
    if c > 1 and images.is_contiguous(memory_format=torch.channels_last):
        out = out.contiguous(memory_format=torch.channels_last)
    return out


AUGMENTATIONS = {"crop_flip": crop_flip}    # by the names that fit() takes


# -------- assembling

def _assemble(name, requested, source, full, n, test, classes, mean, std, reason):
    """Cut the joined training tensors into two views, so that ``full_train`` costs no memory."""
    train = Split(full.images[:n], full.labels[:n])
    validation = Split(full.images[n:], full.labels[n:])
    return Data(name, requested, source, train, validation, test, full, len(classes), tuple(classes),
                mean, std, reason)


def _byte_statistics(images):
    """Mean and std per channel of 8-bit images, from counts: exact, whatever the number of threads."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = ((levels - mean[:, None]).square() * share).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _standardise(images, mean, std):
    """(x - mean) / std per channel, float32; 8-bit images are 0 to 1 first."""
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * scale
    std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) * scale
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


def _checked(split, pair):
    """The split's images (8-bit ones as 0 to 1) and int64 labels, or a DataError that names the split."""
    try:
        images, labels = (torch.as_tensor(part) for part in pair)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{split} must be a pair (images, labels) of tensors or arrays: {error}") from error
    if images.dim() != 4:
        hint = " images[:, None] adds the channel." if images.dim() == 3 else ""
        raise DataError(f"{split}: images have shape {tuple(images.shape)}; (N, C, H, W) is needed.{hint}")
    if labels.dim() != 1:
        raise DataError(f"{split}: labels have shape {tuple(labels.shape)}; (N,) is needed.")
    if len(images) != len(labels):
        raise DataError(f"{split}: {len(images)} images and {len(labels)} labels; there must be as many.")
    if images.numel() == 0:
        raise DataError(f"{split} is empty: images have shape {tuple(images.shape)}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{split}: labels are {labels.dtype}; class numbers must be whole numbers.")
    if images.is_complex():
        raise DataError(f"{split}: images are {images.dtype}; real numbers are needed.")
    images = images / 255 if images.dtype == torch.uint8 else images.float()
    broken = (~torch.isfinite(images)).flatten(1).any(1)
    if broken.any():
        raise DataError(f"{split}: {int(broken.sum())} of {len(images)} images hold NaN or infinity, the "
                        f"first at index {int(broken.nonzero()[0])}.")
    return images.cpu(), labels.long().cpu()


# -------- with no network

def _made(name):
    """8-bit digits of the wanted shape: training and test images and labels, class names. Deterministic."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    random = np.random.RandomState(0)
    order = torch.from_numpy(random.permutation(len(bunch.target)))     # the set is sorted by who wrote it
    ink = torch.from_numpy(bunch.images).float()[order, None] / 16
    labels = torch.from_numpy(bunch.target).long()[order]
    size = 20 if name == "digits" else 24               # in a frame of 4 black pixels, as MNIST's digits are
    ink = F.pad(F.interpolate(ink, size=(size, size), mode="bilinear", align_corners=False), (4,) * 4)
    if name == "digits_rgb":
        ink = _tinted(ink, random)
    images = (ink * 255).round().clamp(0, 255).to(torch.uint8)
    n = len(labels) * 4 // 5
    return images[:n], labels[:n], images[n:], labels[n:], _DIGITS


def _tinted(ink, random):
    """Lay digits (N, 1, 32, 32) in random light colours over random, darkened crops of two photographs."""
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images)                        # (2, 427, 640, 3)
    n, side = len(ink), ink.shape[-1]
    photo = random.randint(len(photos), size=n)
    rows = random.randint(photos.shape[1] - side + 1, size=(n, 1)) + np.arange(side)
    columns = random.randint(photos.shape[2] - side + 1, size=(n, 1)) + np.arange(side)
    crops = photos[photo[:, None, None], rows[:, :, None], columns[:, None, :]]      # (N, 32, 32, 3)
    ground = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 * 0.6
    colour = torch.from_numpy(random.uniform(0.5, 1.0, size=(n, 3, 1, 1))).float()
    return ink * colour + (1 - ink) * ground


# -------- from the network

def _real(name, root):
    """The real set's 8-bit tensors, checked; downloaded first if need be. Raises _Absent or DataError."""
    folder = _folder(root)
    files = _files(name, folder)
    missing = _verify(folder, files)
    if missing:
        _fetch(name, folder, files, missing)
    return _read_idx_set(name, folder) if name in _IDX_CLASSES else _read_cifar(name, folder)


def _folder(root):
    """The data folder, made if need be."""
    value = root if root is not None else os.environ.get("SWITCHER_DATA") or None
    asked = f"root={os.fspath(root)!r}" if root is not None else f"SWITCHER_DATA={value!r}"
    folder = Path(value if value is not None else "~/.cache/switcher_lib").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if value is None:
            raise _Absent(f"the default data folder cannot be made: {error.strerror}") from None
        raise DataError(f"{asked} is not a folder and cannot be made one ({error.strerror}). Name a folder "
                        f"that you can write to, or unset it for the default.") from None
    return folder


def _torchvision(name):
    try:
        from torchvision import datasets
    except Exception as error:          # a torchvision that does not match torch raises more than ImportError
        raise _Absent(f"torchvision cannot be imported: {_first_line(error)}") from None
    return getattr(datasets, _REAL[name].dataset)


def _files(name, folder):
    """{path below the data folder: MD5, or None where no checksum is known}."""
    if name in _IDX_CLASSES:
        below = f"{_REAL[name].dataset}/raw"
        sums = dict(_IDX_MD5.get(name, {}))
        written = folder / below / "MD5SUMS"
        if name not in _IDX_MD5 and written.is_file():
            try:
                sums = {file: md5 for md5, file in map(str.split, written.read_text().splitlines())}
            except (OSError, ValueError):
                raise DataError(_damaged(written, "it is not a list of MD5s")) from None
        return {f"{below}/{file}": sums.get(file) for file in _IDX_FILES}
    dataset = _torchvision(name)
    listed = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
    return {f"{dataset.base_folder}/{file}": md5 for file, md5 in listed}


def _verify(folder, files):
    """The files that are not there; a DataError for one that is there and not what it should be."""
    missing = []
    for below, expected in files.items():
        path = folder / below
        if not os.path.lexists(path):
            missing.append(below)
        elif expected is not None and (found := _md5(path)) != expected:
            raise DataError(_damaged(path, f"its MD5 is {found}, not {expected}"))
    return missing


def _md5(path):
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    return digest.hexdigest()


def _damaged(path, why):
    return f"{path} is damaged or half-written: {why}. It is not used. Delete it, then load again."


def _fetch(name, folder, files, missing):
    """Download into a folder of its own, check, then move whole files: no interruption leaves half of one."""
    whole = len(missing) == len(files)
    gone = "it is not in the data folder" if whole else f"{Path(missing[0]).name} is missing"
    if os.environ.get("SWITCHER_OFFLINE", "0") not in ("", "0"):
        raise _Absent(f"{gone}, and SWITCHER_OFFLINE is set")
    if (name, str(folder)) in _failed:
        raise _Absent(_failed[name, str(folder)])
    dataset = _torchvision(name)
    try:
        part = Path(tempfile.mkdtemp(dir=folder, prefix=".download-"))
    except OSError as error:
        raise _Absent(f"{gone}, and the data folder cannot be written: {error.strerror}") from None
    silence = socket.getdefaulttimeout()
    try:
        dataset = _within(ANSWER_WITHIN, lambda: _answering(dataset))
        socket.setdefaulttimeout(SILENT_FOR)
        _within(DOWNLOAD_WITHIN, lambda: dataset(root=str(part), download=True))
        if _verify(part, files):
            raise DataError
        unknown = [below for below in files if files[below] is None]
        if unknown:                     # torchvision has just checked the packed files, so these are right
            lines = [f"{_md5(part / below)}  {Path(below).name}\n" for below in unknown]
            sums = Path(unknown[0]).with_name("MD5SUMS")
            (part / sums).write_text("".join(lines))
            files = {**files, sums: None}
        for below in files:
            (folder / below).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / below, folder / below)
    except Exception as error:
        cause = "what arrived is damaged" if isinstance(error, DataError) else _first_line(error)
        _failed[name, str(folder)] = f"{gone}, and the download failed: {cause}"
        raise _Absent(_failed[name, str(folder)]) from None
    finally:
        socket.setdefaulttimeout(silence)
        shutil.rmtree(part, ignore_errors=True)


def _answering(dataset):
    """torchvision's class, without the mirrors before the first that answers.

    Raises the last one's error if none does. torchvision itself goes to the next mirror after a refusal,
    but gives up at one that stays silent.
    """
    mirrors = getattr(dataset, "mirrors", [""])
    path = dataset.resources[0][0] if hasattr(dataset, "mirrors") else dataset.url
    for i, mirror in enumerate(mirrors):
        request = urllib.request.Request(mirror + path, method="HEAD", headers={"User-Agent": "switcher_lib"})
        try:
            urllib.request.urlopen(request, timeout=0.45 * ANSWER_WITHIN).close()
        except Exception as error:      # also http.client's, which are no OSError
            last = error
        else:
            return type(dataset.__name__, (dataset,), {"mirrors": mirrors[i:]})     # the name is the folder's
    raise last


def _within(seconds, work):
    """What `work` returns, within `seconds`. In a thread, because a name look-up heeds no socket time-out."""
    outcome = []

    def run():
        try:
            outcome.append((work(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def _read_idx_set(name, folder):
    raw = folder / _REAL[name].dataset / "raw"
    parts = {file: _read_idx(raw / file, shape) for file, shape in _IDX_FILES.items()}
    x, y, test_x, test_y = parts.values()
    return x[:, None], y.long(), test_x[:, None], test_y.long(), _IDX_CLASSES[name]


def _read_idx(path, shape):
    """An idx file: two zero bytes, the type (8: unsigned byte), the number of sizes, the sizes, the data."""
    expected = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    if content[:len(expected)].tobytes() != expected:
        raise DataError(_damaged(path, f"its header is not that of {'×'.join(map(str, shape))} bytes"))
    length = len(expected) + int(np.prod(shape))
    if len(content) != length:
        raise DataError(_damaged(path, f"it has {len(content)} bytes, not {length}"))
    return torch.from_numpy(content[len(expected):]).view(shape)


def _read_cifar(name, folder):
    """Through torchvision, which unpickles: only after the MD5s are known to be right."""
    dataset = _torchvision(name)
    train, test = dataset(root=str(folder), train=True), dataset(root=str(folder), train=False)
    parts = []
    for split in (train, test):
        parts += [torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets)]
    return (*parts, tuple(train.classes))


# -------- words

def _is_int(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shape(images):
    return "×".join(map(str, images.shape[1:]))


def _title(name):
    return _REAL[name].title if name in _REAL else name


def _first_line(error):
    cause = getattr(error, "reason", None) or error
    text = str(getattr(cause, "strerror", None) or cause).strip().splitlines()   # strerror has no path
    return text[0].rstrip(":") if text else type(error).__name__
