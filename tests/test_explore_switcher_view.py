"""The switcher's view: its answers are the library's, and what an edit changes is what chapter 3 proves."""

import numpy as np
import pytest
import torch
from explorers import MAKERS

from switcher_lib import data, gates
from switcher_lib.explore import SwitcherView


@pytest.fixture(scope="module")
def recorded():
    return SwitcherView.record(data.load("digits"))


def test_answers_are_those_of_the_library_s_row_switcher(recorded):
    from switcher_lib import RowSwitcher, Switched, models

    net = Switched(models.lenet_300_100(widths=(24, 16)), torch.randn(2, 1, 28, 28), switcher=lambda s: RowSwitcher(s, hidden=8)).double()
    look = recorded.looks[recorded.look]
    rows = torch.tensor(look["rows"], dtype=torch.float64)
    params = {**net.params(), "fc2.weight": rows[:, :-1], "fc2.bias": rows[:, -1]}
    mlp, s = net.switcher.scorers["fc2"], look["switcher"]
    with torch.no_grad():
        for p, values in ((mlp[0].weight, s["U"]), (mlp[0].bias, s["u"]), (mlp[2].weight, [s["v"]]), (mlp[2].bias, [s["c"]])):
            p.copy_(torch.tensor(values, dtype=torch.float64))
        expected = net.switcher(params)["fc2"]
    np.testing.assert_allclose(recorded.shown()["factors"], expected, rtol=0, atol=1e-9)
    assert isinstance(net.switcher.gates["fc2"], gates.Clamp)


def test_order_of_its_own_layer_is_followed_and_that_of_the_layer_before_is_not(recorded):
    recorded.own = "size"
    assert recorded.shown()["same"]
    recorded.own, recorded.previous = "as they are", "shuffled"
    assert not recorded.shown()["same"]
    recorded.previous, recorded.scale = "as it is", 2.0
    assert not recorded.shown()["same"]
    recorded.scale = 1.0
    assert recorded.shown()["same"]


def test_recording_is_the_same_twice_and_small_enough(recorded):
    assert SwitcherView.record(data.load("digits")).looks == recorded.looks
    assert len(recorded.html().encode()) < 100_000
    assert [look["step"] for look in recorded.looks] == [0, 50, 100, 200, 300, 450, 600]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: setattr(MAKERS["SwitcherView"](), "neuron", 7), "neuron=7 has to lie between 1 and 6"),
        (lambda: setattr(MAKERS["SwitcherView"](), "scale", 3.5), "scale=3.5 has to lie between 0 and 3"),
        (lambda: setattr(MAKERS["SwitcherView"](), "own", "sizes"), r"own='sizes' .*did you mean 'size'\?"),
        (lambda: SwitcherView([{"step": 0, "rows": [[1, 2]], "accuracy": 1, "switcher": {"U": [[1, 2, 3]]}}]), "U needs d"),
    ],
)
def test_switcher_view_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
