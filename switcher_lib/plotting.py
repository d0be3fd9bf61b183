"""How the book's figures look: one palette, one style, and no figure without a text that says what it shows."""

import base64
import html
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from torch import Tensor

# Okabe and Ito's palette, told apart by colour-blind readers too. A method keeps its colour in every chapter.
COLORS = {
    "dense": "#000000",
    "switcher": "#0072B2",
    "untrained switcher": "#56B4E9",
    "free gates": "#D55E00",
    "random": "#999999",
    "magnitude": "#009E73",
    "U-Net": "#CC79A7",
    "statistics": "#E69F00",
    "SCL": "#882255",
    "L0": "#F0E442",
    "slimming": "#44AA99",
    "shuffled weights": "#332288",
    "from scratch": "#AA4499",
}
ON, OFF = "#0072B2", "#D55E00"

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 160, "figure.constrained_layout.use": True, "font.size": 10.5,
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.8,
    "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8, "figure.facecolor": "white",
    "axes.prop_cycle": cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]),
}


def use_style() -> None:
    """Make matplotlib draw in the book's style for the rest of the session; figures are shown by :func:`show` alone."""
    plt.style.use(STYLE)
    plt.ioff()


class Picture:
    """A finished figure with its alternative text: an image that a screen reader can tell.

    Parameters
    ----------
    png : bytes
        The image.
    alt : str
        What the figure shows: the finding and its numbers.
    width : int
        Width in CSS pixels.
    """

    def __init__(self, png: bytes, alt: str, width: int) -> None:
        self.png, self.alt, self.width = png, alt, width

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.png).decode()
        tag = (f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.alt, quote=True)}" width="{self.width}" '
               'style="max-width:100%;height:auto">')
        return {"text/html": tag, "text/plain": self.alt}


def show(figure: Figure, alt: str) -> Picture:
    """Close a matplotlib figure and return it as a :class:`Picture`: the last line of a cell.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    alt : str
        What it shows, finding and numbers, in at least 30 characters; computed where the numbers are.

    Returns
    -------
    Picture
        Displays itself, with the text for those who cannot see it.

    Raises
    ------
    ValueError
        If the text is too short to say anything.
    """
    if len(alt.strip()) < 30:
        raise ValueError(f"alt={alt!r} must say what the figure shows, finding and numbers, in at least 30 characters.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return Picture(buffer.getvalue(), alt, round(figure.get_figwidth() * 100))


class Table:
    """A small table that scrolls inside the page where it is too wide for it.

    Parameters
    ----------
    head : sequence
        One heading for each column.
    rows : sequence of sequence
        The cells; the first of each row is its heading. All are shown as ``str`` does, as text; a line break in it stays.

    Raises
    ------
    ValueError
        If a row has not as many cells as there are headings.
    """

    def __init__(self, head: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
        self.head, self.rows = list(map(str, head)), [list(map(str, row)) for row in rows]
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"rows: {row} has {len(row)} cells, the head has {len(self.head)}.")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        def cell(tag, text, scope=""):
            inside = html.escape(text).replace("\n", "<br/>")
            return f"<{tag}{scope} style='padding:.15em .45em;font-size:.9em'>{inside}</{tag}>"
        head = "".join(cell("th", text, " scope='col'") for text in self.head)
        body = "".join("<tr>" + cell("th", first, " scope='row'") + "".join(cell("td", text) for text in rest) + "</tr>"
                       for first, *rest in self.rows)
        page = (f"<div style='overflow-x:auto' tabindex='0'><table><thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table></div>")
        return {"text/html": page, "text/plain": str(self)}

    def __str__(self) -> str:
        lines = [[cell.replace("\n", ", ") for cell in line] for line in (self.head, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


OTHERWISE = "This run came out otherwise than the text"


class Remark:
    """A sentence set apart from a cell's results.

    Parameters
    ----------
    text : str
        The sentence; shown as it is.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        page = ("<p role='note' style='border-left:3px solid #D55E00;padding:.2em .7em'>"
                f"{html.escape(self.text)}</p>")
        return {"text/html": page, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def as_told(claim: str, holds: bool) -> None:
    """Hold a sentence of the text against what a cell has just measured, and show a remark where they disagree.

    What is trained comes out differently on other processors, with other numbers of threads and on stand-in data: a reader whose
    run disagrees with the page is told so and reads on. Outputs that hold such a remark are not stored in the book.

    Parameters
    ----------
    claim : str
        What the text says, as a sentence without its full stop.
    holds : bool
        Whether it is so here.
    """
    if holds:
        return
    from IPython.display import display  # there in every notebook; the rest of this module does without it

    display(Remark(f"{OTHERWISE}, which says: {claim}. Other processors, numbers of threads and stand-in data change what "
                   "training finds; the text tells of the outputs on the published page."))


def plus_minus(values: Iterable[float], digits: int = 2) -> str:
    """Return mean ± sample standard deviation as text that no line break parts.

    Parameters
    ----------
    values : sequence of float, or (float, float)
        Numbers of runs as a list or tensor; or, as a tuple, a mean and a standard deviation, as in a
        :class:`~switcher_lib.experiments.Row`.
    digits : int, default 2
        Digits behind the point.
    """
    if not isinstance(values, tuple):
        runs = list(map(float, values))
        values = statistics.fmean(runs), statistics.stdev(runs) if len(runs) > 1 else 0.0
    mean, std = values
    return f"{mean:,.{digits}f}\u00a0±\u00a0{std:,.{digits}f}"


def pixel_image(values: Tensor, shape: Sequence[int] = (28, 28)) -> np.ndarray:
    """Reshape a vector of numbers, one for each pixel, to an image array for ``imshow``."""
    return values.detach().reshape(shape).cpu().numpy()
