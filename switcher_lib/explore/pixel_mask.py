"""Replay which pixels a switcher keeps, over the price and over training."""

import base64
import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from ..experiments.results import beside
from .base import Explorer, between, module_source, source

SIDE = 28
FILE = "pixel-masks.json"


def _levels(text):
    """784 whole numbers from 0 to 15: 0 is exactly off, the others fifteenths of the factor, rounded up."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.stack([packed >> 4, packed & 15], 1).ravel().astype(int)


class PixelMask(Explorer):
    """The factors of MNIST's 784 pixels during six searches that differ in the price of a parameter: a replay.

    ``python book/_scripts/pixel_masks.py`` recorded them: chapter 5's live search without a stop, seed 0, λ rising
    to its end over the first 80 % of 3 epochs on 20,000 images.

    Parameters
    ----------
    path : str or Path, optional
        The recording; None looks for ``pixel-masks.json`` in ``results/`` here and one folder up.

    Raises
    ------
    FileNotFoundError
        If it is not there.

    Attributes
    ----------
    price : int
        Which of the prices, counted from 0; synced with the page.
    look : int
        Which of the looks, counted from 0: before training, then twelve times; synced.
    """

    _esm = module_source("board.js", "pixel_mask.js")
    _css = source("base.css")

    runs = traitlets.Tuple().tag(sync=True)
    mean = traitlets.Unicode().tag(sync=True)
    data = traitlets.Unicode().tag(sync=True)
    price = traitlets.Int(0).tag(sync=True)
    look = traitlets.Int(0).tag(sync=True)

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        found = beside(FILE) if path is None else beside(Path(path).name, Path(path).parent)
        if found is None:
            raise FileNotFoundError(f"{path or Path('results') / FILE} is not there; python book/_scripts/pixel_masks.py makes it.")
        content = json.loads(found.read_text(encoding="utf-8"))
        runs = sorted(content["runs"].items(), key=lambda item: float(item[0]))
        super().__init__(
            runs=tuple({"weight": float(weight), "looks": looks} for weight, looks in runs), mean=content["mean"], data=content["data"].upper(),
        )  # fmt: skip
        self.price, self.look = min(3, len(runs) - 1), len(runs[0][1]) - 1

    @traitlets.validate("price")
    def _check_price(self, proposal):
        return between("price", proposal["value"], 0, max(0, len(self.runs) - 1))

    @traitlets.validate("look")
    def _check_look(self, proposal):
        return between("look", proposal["value"], 0, len(self.runs[0]["looks"]) - 1 if self.runs else 0)

    def levels(self, look: int | None = None) -> np.ndarray:
        """Return the pixels' factors at ``look`` (None: now), (28, 28), in fifteenths rounded up; 0 is exactly off."""
        return _levels(self.runs[self.price]["looks"][self.look if look is None else look]["pixels"]).reshape(SIDE, SIDE)

    def shown(self) -> dict[str, Any]:
        now, before = self.levels() > 0, self.levels(max(0, self.look - 1)) > 0
        mean = np.frombuffer(base64.b64decode(self.mean), dtype=np.uint8).reshape(SIDE, SIDE)
        look = self.runs[self.price]["looks"][self.look]
        return {
            "on": int(now.sum()), "percent": 100 * float(now[4:24, 4:24].sum()) / max(1, int(now.sum())),
            "back": int((now & ~before).sum()), "gone": int((before & ~now).sum()), "dark": int(now[mean == 0].sum()),
            "levels": int(self.levels().sum()), **{key: look[key] for key in ("step", "weight", "accuracy", "parameters")},
        }  # fmt: skip

    def describe(self) -> str:
        found = self.shown()
        return (
            f"The pixels that are on at step {found['step']}, price {found['weight']:g}: {found['on']} of 784, "
            f"{found['percent']:.0f} % of them in the central 20 by 20."
        )

    def first_frame(self) -> str:
        cells = "".join(f"M{x} {y}h1v1h-1z" for y, x in zip(*np.nonzero(self.levels()), strict=True))
        return (
            f'<svg viewBox="0 0 28 28" width="280" height="280" role="img" aria-label="{self.describe()}">'
            f'<path d="{cells}" fill="#0072B2"/></svg>'
        )
