"""The residual block: right ways hold, wrong ways fail."""

import numpy as np
import pytest

from switcher_lib.explore import ResidualCompaction


def test_right_ways_hold_and_wrong_ways_fail():
    block = ResidualCompaction()
    block.step = 3
    rng = np.random.default_rng(1)
    for _ in range(6):
        for name, n in (("inner", 3), ("stem", 4), ("block", 4)):
            on = rng.random(n) < 0.6
            on[rng.integers(n)] = True
            setattr(block, name, tuple(map(bool, on)))
        for block.how in ("together", "gamma"):
            assert block.shown()["holds"]
    block.inner, block.stem, block.block = (True, False, True), (True, False, True, True), (True, False, True, True)
    block.how = "forgotten"
    assert block.shown()["error"] > 0.01 and block.shown()["constants"] == 1
    block.how = "one side"
    assert block.shown()["holds"]  # no channel has one writer off
    block.stem = (False, False, True, True)
    assert block.shown()["error"] > 0.01
    block.how = "together"
    assert block.shown()["holds"] and len(block.shown()["network"]["stem"]["b"]) == 3  # channel 1 stays


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: setattr(ResidualCompaction(), "inner", (False,) * 3), "at least one of them true"),
        (lambda: setattr(ResidualCompaction(), "how", "gama"), r"how='gama' .*did you mean 'gamma'\?"),
    ],
)
def test_residual_compaction_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
