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
    titles = [s["title"].split(",")[0] for s in AccuracySize(RESULTS).sets]
    assert titles == ["LeNet-300-100"] * 2 + ["LeNet-5"] * 2 + ["ResNet-20 on CIFAR-10"]


def test_runs_that_stopped_are_named_and_a_point_without_any_is_left_out(tmp_path):
    content = json.loads((RESULTS / "lenet300-connections.json").read_text())
    few, none = sorted({r["point"] for r in content["runs"] if r["method"] == "SCL"})[:2]

    def stops(run):
        return run["method"] == "SCL" and (run["point"] == none or (run["point"], run["seed"]) == (few, 1))

    kept = ("method", "point", "seed", "spec")
    content["runs"] = [{**{k: r[k] for k in kept}, "stopped": "the search missed its size"} if stops(r) else r for r in content["runs"]]
    (tmp_path / "lenet300-connections.json").write_text(json.dumps(content))
    explorer = AccuracySize(tmp_path)
    points = {p["point"]: p for m in explorer.sets[0]["methods"] if m["name"] == "SCL" for p in m["points"]}
    assert none not in points and len(points) == 4
    assert points[few]["stopped"] == [1] and [r[0] for r in points[few]["runs"]] == [0, 2, 3, 4]
    assert "NaN" not in json.dumps([explorer.sets, explorer.shown()])


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
