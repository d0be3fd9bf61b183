"""Draw what stands for the book elsewhere: the picture beside a shared link, and the icon where a browser takes no SVG.

    python book/_scripts/card.py

It writes book/_static/card.png and book/_static/mark.png, which are committed: a build draws nothing.
"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

STATIC = Path(__file__).resolve().parents[1] / "_static"
ON, OFF, INK, PAPER = "#0072B2", "#D55E00", "#1f2933", "#ffffff"    # the colours of the book's figures
SPOKEN = ("Reading\nthe Weights", "How a second network decides\nwhat a network needs")


def network(axes, layers, off, radius, width):
    """Layers of neurons, (x, heights) each; a neuron in ``off``, as (layer, index), is a ring without connections."""
    neurons = {(i, j): (x, y) for i, (x, heights) in enumerate(layers) for j, y in enumerate(heights)}
    for (i, j), start in neurons.items():
        for (k, m), end in neurons.items():
            if k == i + 1 and not {(i, j), (k, m)} & off:
                axes.plot(*zip(start, end, strict=True), color=ON, linewidth=width, alpha=0.75, zorder=1)
    for name, place in neurons.items():
        look = {"facecolor": PAPER, "edgecolor": OFF} if name in off else {"facecolor": ON, "edgecolor": ON}
        axes.add_patch(plt.Circle(place, radius, linewidth=2 * width, zorder=2, **look))


def canvas(width, height, **kwargs):
    """A figure of so many pixels whose one pair of axes counts in pixels too."""
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100, **kwargs)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_aspect("equal")
    axes.axis("off")
    return figure, axes


def card():
    figure, axes = canvas(1200, 630, facecolor=PAPER)
    axes.text(70, 560, SPOKEN[0], fontsize=54, fontweight="bold", color=INK, va="top", linespacing=1.1)
    axes.text(72, 340, SPOKEN[1], fontsize=25, color=INK, va="top", linespacing=1.35)
    axes.text(72, 70, "An open textbook with a library for PyTorch", fontsize=18, color="#52606d", va="baseline")
    layers = [(720, (135, 255, 375, 495)), (905, (75, 195, 315, 435, 555)), (1090, (195, 315, 435))]
    network(axes, layers, off={(0, 0), (1, 1), (1, 3)}, radius=26, width=2.5)
    figure.savefig(STATIC / "card.png", metadata={"Software": None})


def mark():
    figure, axes = canvas(180, 180, facecolor=PAPER)
    network(axes, [(36, (58, 122)), (90, (28, 90, 152)), (144, (90,))], off={(1, 1)}, radius=17, width=4)
    figure.savefig(STATIC / "mark.png", metadata={"Software": None})


if __name__ == "__main__":
    card()
    mark()
