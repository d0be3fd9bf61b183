"""The comparison explorer: what it shows is what the rules of comparison let stand."""

import json

import pytest
from explorers import RESULTS

from switcher_lib.explore import AccuracySize


def test_a_method_is_shown_when_all_its_runs_are_there(tmp_path):
    runs = json.loads((RESULTS / "lenet300-connections.json").read_text())
    (tmp_path / "lenet300-connections.json").write_text(json.dumps(runs))
    whole = AccuracySize(tmp_path)
    assert len(whole.sets) == 1 and {"L0", "switcher"} <= set(whole.methods)
    runs["runs"].remove(next(r for r in runs["runs"] if r["method"] == "L0"))
    (tmp_path / "lenet300-connections.json").write_text(json.dumps(runs))
    assert set(whole.methods) - set(AccuracySize(tmp_path).methods) == {"L0"}
    runs["runs"] = [r for r in runs["runs"] if (r["method"], r.get("point")) != ("random", 9300)]
    (tmp_path / "lenet300-connections.json").write_text(json.dumps(runs))
    assert set(whole.methods) - set(AccuracySize(tmp_path).methods) == {"L0", "random"}
    (tmp_path / "lenet300-connections.json").unlink()
    with pytest.raises(FileNotFoundError, match="lenet300-neurons makes one"):
        AccuracySize(tmp_path)


def test_a_network_appears_as_soon_as_its_runs_are_complete(monkeypatch):
    """Nothing names what is finished: the files decide."""
    from switcher_lib.explore import accuracy_size

    real = accuracy_size.complete
    monkeypatch.setattr(accuracy_size, "complete", lambda name, folder: real(name.replace("lenet5", "lenet300"), folder))
    assert [s["title"].split(",")[0] for s in AccuracySize(RESULTS).sets] == ["LeNet-300-100"] * 2 + ["LeNet-5"] * 2


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: setattr(AccuracySize(RESULTS), "on", (True,)), "on has 1 values; there are"),
        (lambda: setattr(AccuracySize(RESULTS), "show", "seed"), r"show='seed' .*did you mean 'seeds'\?"),
    ],
)
def test_accuracy_size_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
