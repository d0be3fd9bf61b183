"""The gates explorer: who can come back, and what rounding must not decide."""

import pytest

from switcher_lib.explore import Gates


def test_gates_tell_who_can_come_back():
    gates = Gates(scores=(0.6, -0.4, 1.3))
    for gate, states in {
        "clamp": ("slope", "shut", "through"), "relu": ("slope", "shut", "slope"), "step": ("through", "open", "through"),
        "clamp_centred": ("slope", "shut", "through"),
    }.items():  # fmt: skip
        gates.gate = gate
        seen = []
        for gates.neuron in (1, 2, 3):
            seen.append(gates.shown()["state"])
        assert tuple(seen) == states, gate
    gates.gate, gates.neuron = "clamp_centred", 1
    found = gates.shown()
    assert found["own"] == pytest.approx(1 - 1 / 3) and found["others"] == pytest.approx(-1 / 3)  # neuron 2 is off
    gates.gate = "clamp"
    assert gates.shown()["others"] == 0


def test_a_score_that_is_the_mean_is_off_whatever_the_rounding():
    gates = Gates(scores=(0.1, 0.2, 0.3), gate="relu_bn")
    gates.neuron = 2
    assert gates.shown()["factors"][1] == 0 and gates.shown()["own"] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: Gates(scores=[0.1]), "scores has 1 values; this explorer shows 2 to 8"),
        (lambda: Gates(scores=[0.1, 9.0]), "scores=9.0 has to lie between -1.5 and 2.5"),
        (lambda: Gates(gate="clmp"), r"gate='clmp' is not a gate; did you mean 'clamp'\?"),
        (lambda: setattr(Gates(), "neuron", 6), "neuron=6 has to lie between 1 and 5"),
    ],
)
def test_gates_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
