"""Choose who learns when, and see the loss and the factors of the smallest pair of networks."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import traitlets
from torch import Tensor, nn
from torch.nn import functional as F

from ..sites import Site
from ..switched import Switched
from ..switchers import Switcher
from ..training import joint_step, switcher_step, task_step
from .base import Explorer, between, chart, module_source, one_of, source

SCHEDULES = ("turns", "joint", "task")
EVERY, REFRESH, RATES, WEIGHTS = (1, 2, 4, 8, 16), (1, 4, 8, 16, 32), (0.1, 0.2, 0.4), (0.0, 0.1, 0.3)
STEPS = 120
START: dict[str, Any] = {"W": (1.0, -0.6), "b": (0.1, 0.1), "V": (0.6, 0.8), "d": 0.0, "v": (-1.0, 0.0), "c": 1.2}


class LinearSwitcher(Switcher):
    """Each neuron's factor from its own row: s_j = clamp(⟨v, (w_j, b_j)⟩ + c), the scorer of chapter 4's derivations.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched; its neurons read one input.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__(sites)
        self.scorer = nn.Linear(2, 1)  # reads one weight and the bias

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: (neurons,)} for the parameters ``params``."""
        return {site.key: self.scorer(site.rows(params)).squeeze(-1) for site in self.sites}


class Alternation(Explorer):
    """Two ReLU neurons and a linear switcher of three numbers, trained in the page under the schedule that is chosen.

    The task network fits \\|x\\| at nine points; the switcher reads each neuron's weight and bias. At the start
    it answers a larger weight with a smaller factor, as in chapter 4's opening example. The page trains by
    gradients written out by hand; :meth:`trajectory` trains by the library's own steps, and both give the same numbers.

    Parameters
    ----------
    schedule : {"turns", "joint", "task"}, default "turns"
        A task step and then a switcher step; both at once on one loss, nothing held; or no switcher step at all.
    every : {1, 2, 4, 8, 16}, default 1
        Task steps for each switcher step; plays no part elsewhere than by turns.
    refresh : {1, 4, 8, 16, 32}, default 1
        Task steps for which the factors are held; 1 is live. Plays no part jointly.
    rate : {0.1, 0.2, 0.4}, default 0.4
        The task network's learning rate; the switcher's is half of it.
    weight : {0.0, 0.1, 0.3}, default 0.0
        λ of the cost term.
    flow : bool, default False
        Whether the task network's gradient flows through the factors; by turns, and only with live ones.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Attributes
    ----------
    step : int
        The step that is looked at, 0 to 120; synced with the page as all of the above.
    """

    _esm = module_source("board.js", "alternation.js")
    _css = source("base.css")

    schedule = traitlets.Unicode("turns").tag(sync=True)
    every = traitlets.Int(1).tag(sync=True)
    refresh = traitlets.Int(1).tag(sync=True)
    rate = traitlets.Float(0.4).tag(sync=True)
    weight = traitlets.Float(0.0).tag(sync=True)
    flow = traitlets.Bool(False).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    steps = traitlets.Int(STEPS).tag(sync=True)
    start = traitlets.Dict().tag(sync=True)
    x = traitlets.Tuple().tag(sync=True)
    y = traitlets.Tuple().tag(sync=True)

    def __init__(self, schedule: str = "turns", every: int = 1, refresh: int = 1, rate: float = 0.4, weight: float = 0.0,
                 flow: bool = False) -> None:
        self._runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        x = tuple(np.linspace(-1, 1, 9).tolist())
        super().__init__(
            schedule=schedule, every=every, refresh=refresh, rate=rate, weight=weight, flow=flow,
            start={k: list(v) if isinstance(v, tuple) else v for k, v in START.items()}, x=x, y=tuple(map(abs, x)),
        )  # fmt: skip

    @traitlets.validate("schedule", "every", "refresh", "rate", "weight")
    def _check_choice(self, proposal):
        known = {"schedule": SCHEDULES, "every": EVERY, "refresh": REFRESH, "rate": RATES, "weight": WEIGHTS}
        name = proposal["trait"].name
        return one_of(name, proposal["value"], known[name], f"{name} of this explorer")

    @traitlets.validate("step")
    def _check_step(self, proposal):
        return between("step", proposal["value"], 0, STEPS)

    def networks(self) -> Switched:
        """The pair as it starts, as a :class:`~switcher_lib.Switched` in float64."""
        model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        with torch.no_grad():
            for p, key in zip(model.parameters(), ("W", "b", "V", "d"), strict=True):
                p.copy_(torch.tensor(START[key], dtype=torch.float64).reshape(p.shape))
        live = self.refresh == 1 or self.schedule == "joint"
        flow = self.schedule == "joint" or (self.flow and live)  # jointly, nothing is held
        net = Switched(model, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), switcher=LinearSwitcher,
                       refresh="live" if live else self.refresh, flow=flow).double()  # fmt: skip
        scorer = cast(LinearSwitcher, net.switcher).scorer
        with torch.no_grad():
            scorer.weight.copy_(torch.tensor([START["v"]]))
            scorer.bias.fill_(START["c"])
        return net

    def trajectory(self) -> list[dict[str, Any]]:
        """Train by the library's steps: what the page computes by hand.

        Returns
        -------
        list of dict
            For each step from 0 to 120 before it is taken: ``loss`` with live factors, ``seen`` with those that the
            task step uses, ``factors``, ``stale``, ``parameters`` (7,), ``switcher`` (3,) and ``cost``.
        """
        key = (self.schedule, self.every, self.refresh, self.rate, self.weight, self.flow)
        if key not in self._runs:
            self._runs[key] = self._train()
        return self._runs[key]

    def _train(self):
        net = self.networks()
        x, y = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (self.x, self.y))
        task = torch.optim.SGD(net.model.parameters(), lr=self.rate)
        switch = torch.optim.SGD(net.switcher.parameters(), lr=self.rate / 2)
        [site] = net.sites
        found, stale = [], None

        def loss_at(s):
            return float(F.mse_loss(torch.func.functional_call(net.model, net.scale(net.params(), {site.key: s}), (x,)), y))

        for t in range(STEPS + 1):
            with torch.no_grad():
                s = net.factors()[site.key].clone()
                if self.schedule == "joint" or t % self.refresh == 0:
                    stale = s
                found.append({
                    "loss": loss_at(s), "seen": loss_at(stale), "factors": s.tolist(), "stale": stale.tolist(),
                    "parameters": [v for p in net.model.parameters() for v in p.flatten().tolist()],
                    "switcher": [v for p in net.switcher.parameters() for v in p.flatten().tolist()],
                    "cost": float(net.cost({site.key: s})),
                })  # fmt: skip
            if self.schedule == "joint":
                joint_step(net, x, y, task, switch, F.mse_loss, cost=self.weight)
                continue
            task_step(net, x, y, task, F.mse_loss)
            if self.schedule == "turns" and (t + 1) % self.every == 0:
                switcher_step(net, x, y, switch, F.mse_loss, cost=self.weight)
        return found

    def lost(self) -> list[int]:
        """For each neuron the step at which it goes off for good, or -1."""
        off = np.array([r["factors"] for r in self.trajectory()]) == 0
        last_on = [np.flatnonzero(~column) for column in off.T]
        starts = [int(on[-1]) + 1 if len(on) else 0 for on in last_on]
        return [start if start <= STEPS else -1 for start in starts]

    def shown(self) -> dict[str, Any]:
        run = self.trajectory()
        now = run[self.step]
        return {
            "losses": [r["loss"] for r in run], "seen": [r["seen"] for r in run], "factors": [r["factors"] for r in run],
            "stale": [r["stale"] for r in run], "lost": self.lost(), "parameters": now["parameters"],
            "switcher": now["switcher"], "cost": now["cost"],
        }  # fmt: skip

    def describe(self) -> str:
        run = self.trajectory()
        return (
            f"The loss of two neurons and their switcher over {STEPS} steps: {run[0]['loss']:.4f} at first, "
            f"{run[-1]['loss']:.5f} at the end, with factors {run[-1]['factors'][0]:.2f} and {run[-1]['factors'][1]:.2f}."
        )

    def first_frame(self) -> str:
        run = self.trajectory()
        factors = [([(t, r["factors"][j]) for t, r in enumerate(run)], colour) for j, colour in ((0, "#0072B2"), (1, "#D55E00"))]
        return chart(self.describe(), factors)
