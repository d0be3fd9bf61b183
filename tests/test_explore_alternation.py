"""The schedules explorer: what goes wrong where, by the library's own steps."""

import pytest

from switcher_lib.explore import Alternation


def test_alternation_shows_what_goes_wrong_where():
    pair = Alternation()
    assert pair.lost() == [-1, -1] and pair.trajectory()[-1]["loss"] < 1e-4
    pair.schedule = "task"  # nobody answers: the larger weight makes its own factor small
    assert pair.trajectory()[-1]["factors"][0] < 0.01 and pair.trajectory()[-1]["loss"] > 0.07
    pair.schedule, pair.weight = "turns", 0.3
    live = pair.trajectory()[-1]["loss"]
    assert pair.lost() == [-1, -1]
    pair.refresh = 16  # the same price, and factors that are too old
    assert pair.lost()[0] > 0 and pair.trajectory()[-1]["loss"] > 5 * live


def test_alternation_s_first_held_step_is_chapter_4_s():
    """The loss at held factors falls; flow adds its term only with live factors."""
    pair = Alternation(flow=True)
    flow = pair.trajectory()[1]["parameters"]
    pair.refresh = 4
    stale = pair.trajectory()[1]["parameters"]
    pair.flow = False
    assert stale == pair.trajectory()[1]["parameters"] and flow != stale


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: Alternation(schedule="turn"), r"schedule='turn' .*did you mean 'turns'\?"),
        (lambda: Alternation(refresh=3), "refresh=3 is not a refresh of this explorer. Known: 1, 4, 8, 16, 32"),
        (lambda: setattr(Alternation(), "step", 121), "step=121 has to lie between 0 and 120"),
    ],
)
def test_alternation_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
