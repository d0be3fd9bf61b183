"""Whether a difference is more than chance: held against scipy, and against chance itself."""

import math

import pytest
import torch
from scipy import stats

from switcher_lib import experiments
from switcher_lib.experiments import Difference, ProtocolError, Row, holm, paired, runner, stored, welch

A, B = [98.1, 98.3, 98.2, 98.0, 98.4], [98.0, 98.1, 98.3]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_welch_is_scipys(level):
    ours, theirs = welch(A, B, level), stats.ttest_ind(A, B, equal_var=False)
    low, high = theirs.confidence_interval(level)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (ours.mean - ours.half, ours.mean + ours.half) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_pairs_are_scipys(level):
    other = [98.0, 98.1, 98.3, 97.9, 98.2]
    ours, theirs = paired(A, other, level), stats.ttest_rel(A, other)
    low, high = theirs.confidence_interval(level)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.mean - ours.half, ours.mean + ours.half) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_pairs_need_partners():
    with pytest.raises(ValueError, match="a has 5 runs, b has 3"):
        paired(A, B)
    with pytest.raises(ValueError, match="a has 1 run"):
        paired([1.0], [2.0])
    assert paired([1.0, 2.0], [2.0, 3.0]) == Difference(-1.0, math.inf, 1.0)


def row(values):
    t = torch.tensor(values, dtype=torch.float64)
    return Row("m", None, tuple(range(len(values))), (float(t.mean()), float(t.std())), *[(0.0, 0.0)] * 5)


def test_a_row_of_a_table_is_worth_its_runs():
    from_rows, from_runs = welch(row(A), row(B)), welch(A, B)
    assert (from_rows.mean, from_rows.half, from_rows.p) == pytest.approx((from_runs.mean, from_runs.half, from_runs.p))


def test_between_equals_one_interval_in_twenty_leaves_0_out():
    runs = torch.randn(4000, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    wrong = sum(welch(a, b).verdict != "not settled" for a, b in runs) / len(runs)
    assert 0.03 < wrong < 0.06    # Welch's is a little cautious with so few


@pytest.mark.parametrize("difference, verdict", [
    (Difference(0.2, 0.1, 0.01), "higher"), (Difference(-0.2, 0.1, 0.01), "lower"), (Difference(0.1, 0.1, 0.05), "not settled"),
    (Difference(0.2, math.inf, 1.0), "not settled"),
])
def test_the_verdict_is_the_intervals(difference, verdict):
    assert difference.verdict == verdict and str(difference).endswith(verdict)


def test_without_any_spread_nothing_is_settled():
    assert welch([1.0, 1.0], [2.0, 2.0]) == Difference(-1.0, math.inf, 1.0)


@pytest.mark.parametrize("a, b, level, message", [
    ([1.0], B, 0.95, "a has 1 run; a spread needs at least 2"), (A, [], 0.95, "b has 0 runs"), (A, B, 1.0, "level=1.0 must be in"),
    ([1.0, math.nan], B, 0.95, "a=.*nan.* has a run that is not finite"),
])
def test_bad_runs_are_refused(a, b, level, message):
    with pytest.raises(ValueError, match=message):
        welch(a, b, level)


def test_holm_settles_until_the_first_that_fails():
    assert holm([0.001, 0.04, 0.02]) == [True, True, True]
    assert holm([0.03, 0.03]) == [False, False]
    assert holm([0.04, 0.001, 0.03]) == [False, True, False]    # 0.03 > 0.05 / 2, so 0.04 is not asked
    assert holm([]) == []
    with pytest.raises(ValueError, match="level=0 must be in"):
        holm([0.1], 0)
    for p in (math.nan, -3.0, 7.0):
        with pytest.raises(ValueError, match=f"ps has {p}"):
            holm([0.001, p])


def test_a_page_reads_what_is_complete_and_says_what_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert stored("lenet300-free") == (None, {})
    assert "results/lenet300-free.json" in capsys.readouterr().out
    with pytest.raises(ValueError, match="dens"):
        stored("lenet300-free", ["dens"])


def test_committed_results_are_read_from_the_book_folder_too(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath / "book")
    results, found = stored("lenet300-neurons", ["dense", "switcher"])
    assert set(found) == {"dense", "switcher"} and set(found["switcher"]) == {100_000, 60_000, 33_300, 20_000, 14_000}
    assert found["dense"][None].seeds == (0, 1, 2, 3, 4) and len(results.of("dense")) == 5


def test_a_method_against_the_rules_or_in_parts_is_left_out(monkeypatch, request, capsys):
    monkeypatch.chdir(request.config.rootpath)

    def only_magnitude(results, methods, experiment):
        if methods == ["switcher"]:
            raise ProtocolError("planted")
        return table(results, methods, experiment)[:2]

    table = experiments.table
    monkeypatch.setattr(runner, "table", only_magnitude)
    _, found = stored("lenet300-neurons", ["dense", "switcher", "magnitude"])
    assert list(found) == ["dense"]
    assert "Not all runs are there yet: switcher, magnitude." in capsys.readouterr().out
