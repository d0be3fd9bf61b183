"""Benchmarks: what they run is what the catalogue says, and what they tell follows from what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from switcher_lib import data, models
from switcher_lib.experiments import EXPERIMENTS, Experiment, run_one

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def overhead():
    import bench_overhead
    return bench_overhead


@pytest.fixture
def clock():
    import bench_time_to
    return bench_time_to


@pytest.fixture
def step():
    import bench_cifar_step
    return bench_cifar_step


# -------- overhead

@pytest.mark.parametrize("configuration", ["lenet300-neurons", "lenet300-cost"])
def test_the_overhead_is_that_of_the_catalogues_own_specification(overhead, configuration):
    method, point, dense = overhead.CONFIGURATIONS[configuration]
    spec = EXPERIMENTS[configuration].spec(method, point)
    assert overhead.specification(configuration, "switcher") == {k: v for k, v in spec.items() if k != "save"}
    assert overhead.specification(configuration, "dense") == EXPERIMENTS[dense].spec("dense")
    short = overhead.specification(configuration, "switcher", 4)
    assert (short["fit"]["epochs"], short["finetune"]["until_epoch"]) == (2, 4)
    assert overhead.specification(configuration, "dense", 4)["fit"]["epochs"] == 4
    assert spec == EXPERIMENTS[configuration].spec(method, point) and spec["fit"]["epochs"] > 2, "the catalogue was changed"


def test_ratios_are_taken_at_equal_task_steps(overhead):
    MiB = 2**20
    runs = [{"what": "data", "wall": 3.0, "cpu": 2.0, "peak": 500 * MiB},
            {"what": "dense", "wall": 14.0, "cpu": 12.0, "seconds": 10.0, "task_steps": 1000, "peak": 600 * MiB},
            {"what": "switcher", "wall": 15.0, "cpu": 14.0, "seconds": 12.0, "task_steps": 800, "peak": 650 * MiB}]
    found = {name: each["median"] for name, each in overhead.ratios(runs).items()}
    assert found == pytest.approx({"time_ratio": 12 / 8, "wall_ratio": 15 / 12, "cpu_ratio": 12 / 8, "memory_ratio": 650 / 600,
                                   "added_memory_ratio": 150 / 100})


def test_a_short_overhead_run_from_start_to_end(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "bench_overhead.py", "--data", "digits", "--epochs", "2", "--repeats", "1",
               "--configurations", "lenet300-neurons", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_overhead.json").read_text())
    runs = {run["what"]: run for run in result["configurations"][0]["runs"]}
    assert set(runs) == {"data", "dense", "switcher"} and result["epochs"] == 2
    assert runs["data"]["peak"] < min(runs["dense"]["peak"], runs["switcher"]["peak"])
    assert runs["dense"]["task_steps"] >= runs["switcher"]["task_steps"] > runs["switcher"]["switcher_steps"] > 0
    assert runs["dense"]["switcher_steps"] == 0
    assert 0 < runs["switcher"]["seconds"] < runs["switcher"]["wall"]
    assert "peak memory" in done.stdout


# -------- time to a target

def test_every_schedule_keeps_what_was_tuned(clock):
    experiment = EXPERIMENTS[clock.EXPERIMENT]
    changed = {"epochs", "until_epoch", "lr", "end", "start", "strength", "check_every"}
    for method, schedules in clock.SCHEDULES.items():
        for schedule in schedules:
            spec, old = clock.hurried(experiment.spec(method, clock.SIZE), **schedule), experiment.spec(method, clock.SIZE)
            assert spec["finetune"]["until_epoch"] == schedule["total"] > spec["fit"]["epochs"] >= 1
            assert differing(old, spec) <= changed, (method, schedule)
        assert clock.CHOICE[method] in schedules, method
    assert len({len(schedules) for schedules in clock.SCHEDULES.values()}) == 1, "no method may have more tries than another"


def differing(old, new):
    """The names of the entries that differ, however deep."""
    if isinstance(old, dict) and isinstance(new, dict):
        return set().union(*(differing(old.get(k), new.get(k)) or set() if isinstance(old.get(k), dict) else
                             ({k} if old.get(k) != new.get(k) else set()) for k in old.keys() | new.keys()))
    return set()


def test_the_time_is_that_of_the_first_epoch_at_the_target_and_only_of_a_network_small_enough(clock):
    run = {"parameters": 100, "seconds": [1.0, 2.0, 3.0], "accuracy": [0.97, 0.982, 0.99]}
    assert clock.time_to(run, size=100, target=0.982) == 2.0
    assert clock.time_to(run, size=99, target=0.982) is None
    assert clock.time_to(run, size=100, target=0.995) is None


def test_one_seed_that_does_not_get_there_leaves_no_median(clock):
    runs = [{"method": "a", "time_to": 3.0}, {"method": "b", "time_to": 1.0}, {"method": "a", "time_to": 5.0},
            {"method": "b", "time_to": None}, {"method": "a", "time_to": 4.0}]
    assert clock.medians(runs) == {"a": 4.0, "b": None}


@pytest.mark.parametrize("method", ["switcher", "slimming", "magnitude"])
def test_the_clocked_training_is_the_runners(clock, method):
    digits = data.load("digits")
    spec = clock.hurried(EXPERIMENTS[clock.EXPERIMENT].spec(method, clock.SIZE), total=3, search=0.67)
    record, _ = run_one(Experiment("?", "lenet_300_100", "digits", {method: spec}, seeds=(100,), tuning=True), method, seed=100)
    run = clock.train(spec, digits, 100)
    assert run["parameters"] == record["parameters"]
    assert run["accuracy"][-1] == record["test_accuracy"]    # of the validation split, for a tuning experiment
    assert len(run["accuracy"]) == 3 - run["search_epochs"]
    assert run["search_seconds"] + run["cut_seconds"] < run["seconds"][0] and run["seconds"] == sorted(run["seconds"])


def test_a_short_comparison_from_start_to_end(clock, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clock, "CHOICE", {"switcher": {"total": 2, "search": 0.5}, "slimming": {"total": 2, "search": 0.5}})
    monkeypatch.setattr(clock, "SCHEDULES", {method: [choice] for method, choice in clock.CHOICE.items()})
    arguments = ["--methods", "switcher", "slimming", "--seeds", "7", "--data", "digits", "--out", str(tmp_path)]
    clock.main(["--try", *arguments])
    clock.main(arguments)
    result = json.loads((tmp_path / "bench_time_to.json").read_text())
    assert [run["method"] for run in result["runs"]] == ["switcher", "slimming"]
    assert [run["method"] for run in result["tried"]] == ["switcher", "slimming"], "what was tried is kept"
    assert result["median_seconds"] == {"switcher": None, "slimming": None}    # two epochs of 24 steps bring nobody there
    assert result["times_the_switcher"] == {"slimming": None} and "not with every seed" in capsys.readouterr().out


# -------- training steps on CIFAR

def test_both_ways_take_the_same_steps_but_for_the_precision(step, monkeypatch):
    fit, precisions = step.sl.fit, []

    def exact_fit(*arguments, precision, **settings):
        precisions.append(precision)
        return fit(*arguments, **settings)

    monkeypatch.setattr(step.sl, "fit", exact_fit)
    states = []
    for way in (step.plain, step.ours):
        torch.manual_seed(0)
        model = models.conv_net(widths=(2, 3, 4))
        assert way(model, data.load("digits_rgb").train.subset(20), 8) > 0
        states.append(model.state_dict())
    assert precisions == ["bfloat16"]
    assert all(states[0][name].equal(states[1][name]) for name in states[0]) and int(states[0]["bn1.num_batches_tracked"]) == 3


def test_a_short_run_on_cifars_shape_from_start_to_end(step, tmp_path, capsys):
    step.main(["--models", "conv_net", "--batch", "8", "--steps", "2", "--repeats", "3", "--data", "digits_rgb",
               "--threads", str(torch.get_num_threads()), "--out", str(tmp_path)])
    result = json.loads((tmp_path / "bench_cifar_step.json").read_text())
    (row,) = result["rows"]
    seconds = row["step_seconds"]
    assert result["data"] == "digits_rgb" and row["model"] == "conv_net" and [len(each) for each in seconds.values()] == [3, 3]
    assert row["ratio"] == pytest.approx(sorted(seconds["plain"])[1] / sorted(seconds["ours"])[1])
    assert row["ratio_of_the_quickest"] == pytest.approx(min(seconds["plain"]) / min(seconds["ours"]))
    assert row["images_per_second"]["ours"] == pytest.approx(8 / sorted(seconds["ours"])[1])
    assert f"{row['ratio']:.2f} times" in capsys.readouterr().out


def test_the_ten_networks_were_measured_and_are_found_in_five_and_compacted_in_twenty_seconds():
    import bench_networks
    measured = json.loads((ROOT / "results" / "bench_networks.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in measured["rows"]] == list(bench_networks.NETWORKS) and measured["side"] == 224
    for row in measured["rows"]:
        assert row["find_seconds"] <= 5 and row["compact_seconds"] <= 20, row
        assert 0 < row["relative_error"] <= 1e-10 and row["parameters"][1] < 0.9 * row["parameters"][0], row    # 0: nothing was compared


def test_alternate_learning_is_measured_in_the_catalogues_own_settings(tmp_path, capsys):
    import bench_alternate
    bench_alternate.main(["--configurations", "cifar-resnet20", "--epochs", "1", "--steps", "1", "--data", "digits_rgb",
                          "--threads", str(torch.get_num_threads()), "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "bench_alternate.json").read_text())["rows"]
    spec = EXPERIMENTS["cifar-resnet20"].spec("switcher", 20_400_000)
    assert all(row[name] == spec["fit"][name] for name in ("batch_size", "every", "precision", "augment")) and row["images"] == 128
    assert row["ratio"] == row["median_seconds"]["switched"] / row["median_seconds"]["dense"]
    assert f"{row['ratio']:.2f} times" in capsys.readouterr().out
