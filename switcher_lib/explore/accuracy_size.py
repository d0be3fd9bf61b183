"""Ask the comparison of all methods: accuracy against size, every seed."""

from os import PathLike
from typing import Any

import traitlets

from .base import Explorer, between, chart, module_source, one_of, source
from .stored import complete

SETS = {  # title, what a size counts, a run's and a row's name for it, and where the axis of accuracy ends at least
    "lenet300-neurons": ("LeNet-300-100, pixels and neurons", "parameters left", "parameters", 98.7),
    "lenet300-connections": ("LeNet-300-100, connections", "weights not 0", "parameters", 98.7),
    "lenet5-neurons": ("LeNet-5, channels and neurons", "parameters left", "parameters", 98.7),
    "lenet5-connections": ("LeNet-5, connections", "weights not 0", "parameters", 98.7),
    "cifar-resnet20": ("ResNet-20 on CIFAR-10, channels", "MACs left", "macs", 0),
}
SHOW, ZOOM = ("both", "mean", "seeds"), ("top", "all")


class AccuracySize(Explorer):
    """Test accuracy against size for every method of the stored comparisons, run by run.

    The runs come from ``results/`` through the library's rules of comparison: a method is there when all of its
    sizes and seeds are, and a network when a method besides the dense one is. Runs that stopped are named and in no
    mean; a point at which all did is left out. Means and standard deviations are computed in the page.

    Parameters
    ----------
    folder : str or Path, optional
        Where the result files are; None looks in ``results/`` here and one folder up.

    Raises
    ------
    FileNotFoundError
        If there is no complete comparison.

    Attributes
    ----------
    set : int
        Which network and level, counted from 0 in the order of the choice; synced with the page, as are the others.
    on : tuple of bool
        Which of ``methods`` are shown.
    show : {"both", "mean", "seeds"}
    zoom : {"top", "all"}
        The upper two points of accuracy, or all.
    point : int
        The point that is read, counted from 1 through the methods shown.
    """

    _esm = module_source("board.js", "accuracy_size.js")
    _css = source("base.css")

    sets = traitlets.Tuple().tag(sync=True)
    methods = traitlets.Tuple().tag(sync=True)
    colours = traitlets.Tuple().tag(sync=True)
    set = traitlets.Int(0).tag(sync=True)
    on = traitlets.Tuple().tag(sync=True)
    show = traitlets.Unicode("both").tag(sync=True)
    zoom = traitlets.Unicode("top").tag(sync=True)
    point = traitlets.Int(2).tag(sync=True)

    def __init__(self, folder: str | PathLike[str] | None = None) -> None:
        from ..plotting import COLORS  # matplotlib is not needed before

        self._rows, sets = [], []
        for name, (title, unit, size, top) in SETS.items():
            found = complete(name, folder)
            if not {*found} - {"dense"}:
                continue
            found = {method: {point: both for point, both in points.items() if both[1]} for method, points in found.items()}
            self._rows.append({method: {point: row for point, (row, _) in points.items()} for method, points in found.items()})
            sets.append({"title": title, "unit": unit, "size": size, "top": top, "methods": [
                {"name": method, "points": [
                    {"point": point, "stopped": list(row.stopped),
                     "runs": [[r["seed"], r[size], round(100 * r["test_accuracy"], 4)] for r in records]}
                    for point, (row, records) in points.items()]}
                for method, points in found.items()]})  # fmt: skip
        if not sets:
            raise FileNotFoundError(
                "No complete comparison in results/. python -m switcher_lib.experiments run lenet300-neurons makes one."
            )
        methods = tuple(dict.fromkeys(method for rows in self._rows for method in rows))
        super().__init__(
            sets=tuple(sets), methods=methods, colours=tuple(COLORS.get(m, "#009E73") for m in methods),
            on=tuple(m not in ("random", "from scratch", "SCL") for m in methods),
        )  # fmt: skip

    @traitlets.validate("set")
    def _check_set(self, proposal):
        return between("set", proposal["value"], 0, max(0, len(self.sets) - 1))

    @traitlets.validate("on")
    def _check_on(self, proposal):
        on = tuple(map(bool, proposal["value"]))
        if self.methods and len(on) != len(self.methods):
            raise ValueError(f"on has {len(on)} values; there are {len(self.methods)} methods.")
        return on

    @traitlets.validate("show", "zoom")
    def _check_choice(self, proposal):
        name = proposal["trait"].name
        return one_of(name, proposal["value"], {"show": SHOW, "zoom": ZOOM}[name], f"{name} of this explorer")

    @traitlets.validate("point")
    def _check_point(self, proposal):
        return between("point", proposal["value"], 1, 1000)

    def shown(self) -> dict[str, Any]:
        here = self.sets[self.set]
        chosen = {m: rows for m, rows in self._rows[self.set].items() if self.on[self.methods.index(m)]}
        methods: list[dict[str, Any]] = [
            {"name": m, "points": [{"point": p, "size": getattr(row, here["size"]), "accuracy": row.accuracy} for p, row in rows.items()]}
            for m, rows in chosen.items()
        ]
        flat = [(m["name"], p["point"], p["accuracy"][0], p["size"][0]) for m in methods for p in m["points"]]
        hits = {m["name"]: [r[2] for p in m["points"] for r in p["runs"]] for m in here["methods"] if m["name"] in chosen}
        every = [a for values in hits.values() for a in values]
        top = max([here["top"], *every]) + 0.08
        bottom = max(top - 2.2, min([top - 0.5, *every]) - 0.1) if self.zoom == "top" else max(0, min([97, *(a for a in every if a > 50)]) - 0.2)
        return {
            "title": here["title"], "methods": methods,
            "below": sum(a < bottom for m, values in hits.items() if m != "dense" for a in values),
            "reading": flat[min(self.point, len(flat)) - 1] if flat else None,
        }  # fmt: skip

    def describe(self) -> str:
        found = self.shown()
        best = max((p["accuracy"][0], m["name"], p["size"][0]) for m in found["methods"] for p in m["points"])
        return (
            f"Test accuracy against size, {found['title']}, {len(found['methods'])} methods; the highest mean shown is "
            f"{best[0]:.2f} % ({best[1]}, {best[2]:,.0f} {self.sets[self.set]['unit']})."
        )

    def first_frame(self) -> str:
        import math

        lines = [
            ([(math.log10(p["size"][0]), max(self.sets[self.set]["top"] - 2.2, p["accuracy"][0])) for p in m["points"]], self.colours[self.methods.index(m["name"])])
            for m in self.shown()["methods"] if m["name"] != "dense"
        ]  # fmt: skip
        return chart(self.describe(), lines, lines)
