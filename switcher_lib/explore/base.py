"""One explorer, two lives: a Jupyter widget with a kernel, and a piece of a page without one.

Each explorer is one JavaScript function ``render({model, el})``. In Jupyter anywidget calls it with a model
that syncs with Python. On the published page the same source runs over the explorer's state, written beside
it as JSON, with a few lines (``page.js``) standing in for the model.
"""

import hashlib
import html
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anywidget
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import unknown_name

Value = TypeVar("Value")
Number = TypeVar("Number", int, float)
Notebook = TypeVar("Notebook", bound=dict[str, Any])           # nbformat's NotebookNode is one
Drawn = tuple[Sequence[tuple[float, float]], str]    # (points, colour)

_HERE = Path(__file__).parent
_EXPORT = "export default { render };"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def source(name: str) -> str:
    """The text of one of the explorers' own files, such as ``"base.css"``."""
    return (_HERE / name).read_text(encoding="utf-8")


def module_source(*names: str) -> str:
    """An explorer's JavaScript module: the shared helpers, then the files called ``names``, with the export last."""
    text = "\n".join(map(source, ("base.js", *names)))
    if not text.rstrip().endswith(_EXPORT):
        raise ValueError(f"{names[-1]} has to end with the line '{_EXPORT}'.")
    return text


def _lean(text):
    """The text without indentation, empty lines and whole-line comments, which a page need not carry."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def one_of(name: str, value: Value, known: Collection[Any], kind: str) -> Value:
    """Return ``value`` if it is one of ``known``.

    Parameters
    ----------
    name : str
        The argument that was given.
    value : object
        What was given for it.
    known : collection
        What is allowed.
    kind : str
        What it stands for, for the sentence "... is not a ``kind``".

    Raises
    ------
    ValueError
        If it is none of them; the message names the nearest.
    """
    if value not in known:
        if isinstance(value, str):
            raise unknown_name(name, value, map(str, known), kind)
        raise ValueError(f"{name}={value!r} is not a {kind}. Known: {', '.join(map(str, known))}.")
    return value


def between(name: str, value: Number, low: float, high: float) -> Number:
    """Return ``value`` if it is a number from ``low`` to ``high``.

    Parameters
    ----------
    name : str
        The argument that was given.
    value : float
        What was given for it.
    low, high : float
        What is allowed.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not (isinstance(value, (int, float)) and low <= value <= high):
        raise ValueError(f"{name}={value!r} has to lie between {low} and {high}.")
    return value


def as_bytes(images: ArrayLike | Tensor, mean: float | np.ndarray, std: float | np.ndarray) -> np.ndarray:
    """Return images as uint8: as they are, or with the standardising undone.

    Parameters
    ----------
    images : array-like or Tensor
        Of uint8, or floats (pixel / 255 - mean) / std.
    mean, std : float or array
        What they were standardised with, one number or an array that fits ``images``.

    Raises
    ------
    ValueError
        If floats do not come to pixels with this mean and std.
    """
    array = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
    if array.dtype == np.uint8:
        return array
    pixels = (array.astype(float) * std + mean) * 255
    if not np.isfinite(pixels).all() or pixels.min() < -1 or pixels.max() > 256:
        raise ValueError(
            f"images times std={np.ravel(std).tolist()} plus mean={np.ravel(mean).tolist()} leaves [0, 1]; give uint8 images, or "
            f"standardised ones with the mean and std that they were standardised with."
        )
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def chart(label: str, lines: Sequence[Drawn] = (), dots: Sequence[Drawn] = (), size: tuple[int, int] = (640, 240)) -> str:
    """A small SVG for a first frame: lines and dots scaled to fill it, with ``label`` as its text.

    Parameters
    ----------
    label : str
        What the picture shows.
    lines, dots : sequence of (points, colour)
        Points are (x, y) pairs; all share one scale.
    size : (int, int), default (640, 240)
        Width and height.
    """
    everything = [point for points, _ in (*lines, *dots) for point in points]
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*everything, strict=True))
    width, height = size

    def place(point):
        x, y = (point[0] - left) / (right - left or 1), (point[1] - low) / (high - low or 1)
        return f"{8 + x * (width - 16):.1f}", f"{height - 8 - y * (height - 16):.1f}"

    drawn = "".join(
        f'<path d="M{"L".join(" ".join(place(p)) for p in points)}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        for points, colour in lines
    ) + "".join(
        f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'
        for points, colour in dots for x, y in map(place, points)
    )  # fmt: skip
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}">{drawn}</svg>'
    )


class Explorer(anywidget.AnyWidget):
    """A widget that also carries itself as a self-contained piece of HTML.

    A subclass sets ``_esm = module_source("its_file.js")`` and ``_css = source("base.css")``, declares its
    state as traits tagged ``sync=True``, and says what it shows before any script runs: :meth:`first_frame`,
    a picture, and :meth:`describe`, one sentence.

    Jupyter shows the live widget; Sphinx, told to leave widget views out, shows the HTML. Both run the same
    code.
    """

    max_bytes = 100_000  #: what :meth:`html` may weigh, data included

    def first_frame(self) -> str:
        """An inline ``<svg>`` of the present state, for places that run no script."""
        raise NotImplementedError

    def describe(self) -> str:
        """One sentence that says what the explorer shows in its present state."""
        raise NotImplementedError

    def shown(self) -> dict[str, Any]:
        """What the page writes beside its picture, computed in Python: the two have to be equal in every state."""
        raise NotImplementedError

    def page_state(self) -> dict[str, Any]:
        """The traits that the JavaScript reads, as a dictionary that ``json`` can write."""
        of_the_widget = anywidget.AnyWidget.class_traits()
        names = [name for name in self.trait_names(sync=True) if name not in of_the_widget]
        return {name: getattr(self, name) for name in sorted(names) if not name.startswith("_")}

    def html(self) -> str:
        """The explorer as HTML with all it needs inside: no kernel, no request, works from ``file://``.

        Returns
        -------
        str
            The same text for the same state: the element is known by a hash of its data, not by a random
            number.

        Raises
        ------
        ValueError
            When the text is larger than :attr:`max_bytes`.
        """
        # "<" is the only character of JSON that could end the script element it stands in
        state = json.dumps(self.page_state(), separators=(",", ":")).replace("<", "\\u003c")
        script = _lean(self._esm.replace(_EXPORT, "") + source("page.js"))
        key = hashlib.sha256(f"{type(self).__name__}{state}{script}".encode()).hexdigest()[:12]
        text = (
            f'<div class="sl-explorer" id="explorer-{key}" data-explorer="{key}">\n'
            f"<style>{_lean(self._css)}</style>\n"
            f'<div class="sl-stage"><figure class="sl-first">{self.first_frame()}'
            f"<figcaption>{html.escape(self.describe())} With scripts switched on, you can change it here."
            f"</figcaption></figure></div>\n"
            f'<script type="application/json">{state}</script>\n'
            f'<script>(() => {{\n"use strict";\n{script}\nmount("{key}", render);\n}})();</script>\n'
            f"</div>"
        )
        size = len(text.encode())
        if size > self.max_bytes:
            raise ValueError(
                f"{type(self).__name__} would put {size:,} bytes into the page; at most {self.max_bytes:,} "
                f"are allowed. Give it a smaller network or fewer examples."
            )
        return text

    def __repr__(self) -> str:  # without an address in memory, so that a notebook's stored output stays the same
        return f"{type(self).__name__}: {self.describe()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:  # a widget that was closed
            return None
        data, metadata = bundle
        return {**data, "text/html": self.html()}, metadata


def strip_widget_state(nb: Notebook) -> Notebook:
    """Take out of an executed notebook what only a live kernel can use, and what is random in it.

    A widget view names its model by a random number that means nothing once the kernel is gone, and the
    notebook's ``widgets`` metadata repeats the whole state, JavaScript included. An explorer's output keeps
    its HTML and its text, so a second execution writes the same file, and a notebook opened without a kernel
    shows the explorer instead of "Loading widget". An output that holds nothing but a view is left alone.

    Parameters
    ----------
    nb : nbformat.NotebookNode or dict
        A notebook of format 4; changed in place.

    Returns
    -------
    nbformat.NotebookNode or dict
        The same object.
    """
    nb["metadata"].pop("widgets", None)
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if _WIDGET_VIEW in data and len(data) > 1:
                del data[_WIDGET_VIEW]
                output.get("metadata", {}).pop(_WIDGET_VIEW, None)
    return nb
