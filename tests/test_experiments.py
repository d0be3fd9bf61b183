"""Experiments: what is finished is kept, what is missing is run, and a table is made of nothing else."""

import json
from pathlib import Path

import pytest

from switcher_lib import experiments, plotting
from switcher_lib.errors import DataError
from switcher_lib.experiments import runner, specs
from switcher_lib.experiments.__main__ import main, seeds_of
from switcher_lib.experiments.tables import mean_std, table, text

SGD = {"lr": 0.05, "momentum": 0.9}
SEARCH = {"kind": "switched", "switcher": "row", "options": {"gate": "clamp_centred"}, "switched": {"refresh": 2, "noise": 0.1},
          "fit": {"epochs": 2, "every": 2}, "task_sgd": SGD, "switcher_adam": {"lr": 0.01},
          "finetune": {"until_epoch": 3, "noise": 0.1, "task_sgd": SGD}}
TINY = specs.Experiment("tiny?", "lenet_300_100", "digits", {
    "dense": {"kind": "plain", "fit": {"epochs": 1}, "task_sgd": SGD},
    "switcher": SEARCH,
    "with cost": {**SEARCH, "fit": {"epochs": 1, "every": 2, "cost": {"start": 0.0, "end": 0.1, "until": 0.5}}, "save": True},
    "random": {"kind": "plain", "fit": {"epochs": 1}, "task_sgd": SGD, "same_count_as": "switcher", "noise": 0.1},
})


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(specs.EXPERIMENTS, "tiny", TINY)


def test_every_method_runs_and_leaves_a_whole_record(tiny, tmp_path):
    results = experiments.run("tiny", seeds=[0], folder=tmp_path, threads=1)
    assert [r["method"] for r in results.runs] == ["dense", "random", "switcher", "with cost"]
    switcher, coin = results.find("switcher", 0), results.find("random", 0)
    assert coin["sites"] == switcher["sites"] and coin["parameters"] <= switcher["parameters"] * 1.01
    assert switcher["certificate"] < 1e-12 and 0 < switcher["search_seconds"] < switcher["seconds"]
    assert switcher["task_steps"] == 3 * -(-switcher["train_examples"] // 64)
    assert all(r["data"] == "digits" and 0 < r["test_accuracy"] <= 1 for r in results.runs)
    assert (tmp_path / "tiny-with cost-0.safetensors").exists()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]    # no half-written file


def test_what_is_finished_is_not_run_again_unless_its_specification_changed(tiny, tmp_path, monkeypatch):
    ran = []

    def fake(name, method, seed, threads, off, folder):
        ran.append((method, seed))
        return dict(method=method, seed=seed, spec=specs.EXPERIMENTS[name].methods[method], sites={"fc1": [4, 3]}, on_at_start={"fc1": 4})

    monkeypatch.setattr(runner, "run_one", fake)
    experiments.run("tiny", seeds=[0, 1], methods=["dense"], folder=tmp_path)
    experiments.run("tiny", seeds=[0, 1, 2], methods=["dense"], folder=tmp_path)
    assert ran == [("dense", 0), ("dense", 1), ("dense", 2)]
    changed = {**TINY.methods, "dense": {**TINY.methods["dense"], "fit": {"epochs": 9}}}
    monkeypatch.setitem(specs.EXPERIMENTS, "tiny", specs.Experiment("tiny?", "lenet_300_100", "digits", changed))
    experiments.run("tiny", seeds=[0], methods=["dense"], folder=tmp_path)
    assert ran[3:] == [("dense", 0)] and len(experiments.load("tiny", tmp_path).runs) == 3


def test_a_run_that_breaks_off_loses_nothing_that_was_finished(tiny, tmp_path, monkeypatch):
    def breaks(name, method, seed, threads, off, folder):
        if seed == 2:
            raise KeyboardInterrupt
        return dict(method=method, seed=seed, spec=TINY.methods[method], sites={}, on_at_start={})

    monkeypatch.setattr(runner, "run_one", breaks)
    with pytest.raises(KeyboardInterrupt):
        experiments.run("tiny", seeds=range(4), methods=["dense"], folder=tmp_path)
    assert [r["seed"] for r in experiments.load("tiny", tmp_path).runs] == [0, 1]


def test_a_method_that_takes_anothers_count_says_when_that_is_missing(tiny, tmp_path):
    with pytest.raises(ValueError, match="'random' needs the result of 'switcher' with seed 0"):
        experiments.run("tiny", seeds=[0], methods=["random"], folder=tmp_path)


def test_unknown_names_are_answered_with_the_nearest(tiny):
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        experiments.run("tinny")
    with pytest.raises(ValueError, match="did you mean 'dense'"):
        experiments.run("tiny", methods=["dens"])
    with pytest.raises(ValueError, match="is not a experiment|is not an experiment"):
        experiments.load("nothing-like-it")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"runs": []}', '{"format": 99, "runs": []}'])
def test_a_file_that_is_no_results_file_is_named(tmp_path, content):
    path = tmp_path / "tiny.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="tiny.json"):
        experiments.Results(path)
    assert path.read_text() == content


def test_an_experiment_never_runs_on_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCHER_OFFLINE", "1")
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path))
    with pytest.raises(DataError, match="never runs on a stand-in"):
        runner.run_one("lenet300-free", "dense", 0)


def test_mean_and_sample_standard_deviation():
    assert mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_std([5.0]) == (5.0, 0.0)


def test_the_table_counts_hidden_neurons_and_not_pixels(tmp_path):
    results = experiments.Results(tmp_path / "x.json")
    common = dict(spec={}, test_accuracy=0.98, parameters=10, macs=8, seconds=1.0, on_at_start={"input": 784, "fc1": 300, "fc2": 100})
    results.add(dict(method="a", seed=0, sites={"input": [784, 1], "fc1": [300, 200], "fc2": [100, 100]}, **common))
    results.add(dict(method="a", seed=1, sites={"input": [784, 1], "fc1": [300, 100], "fc2": [100, 100]}, **common))
    (row,) = table(results)
    assert row.off[0] == pytest.approx(37.5) and row.off_at_start == (0, 0) and row.seeds == (0, 1)
    assert "37.5" in text([row]) and "98.000" in text([row])


@pytest.mark.parametrize("name", ["lenet300-free", "lenet300-cost"])
def test_committed_results_were_made_by_the_present_specifications_and_keep_the_protocol(name):
    path = Path(__file__).parents[1] / "results" / f"{name}.json"
    methods = specs.EXPERIMENTS[name].methods
    runs = json.loads(path.read_text())["runs"]
    assert {(r["method"], r["seed"]) for r in runs} == {(m, s) for m in methods for s in range(5)}
    for run in runs:
        assert run["spec"] == methods[run["method"]], f"{run['method']} {run['seed']}: run the experiment again"
        assert run["data"] == "mnist" and run["train_examples"] == 60_000
        assert run["certificate"] is None or run["certificate"] <= 1e-12


def test_seeds_are_parsed():
    assert seeds_of("0-4") == [0, 1, 2, 3, 4] and seeds_of("2,5") == [2, 5] and seeds_of("3") == [3]


def test_the_command_lists_and_tells_the_table(tiny, tmp_path, capsys):
    main(["list"])
    assert "lenet300-free: " in capsys.readouterr().out
    main(["table", "tiny", "--folder", str(tmp_path)])
    assert capsys.readouterr().out.startswith("method")


def test_a_figure_without_a_text_that_says_something_is_refused():
    figure, _ = plotting.plt.subplots()
    with pytest.raises(ValueError, match="at least 30 characters"):
        plotting.show(figure, "a plot")
    picture = plotting.show(figure, 'Accuracy falls from 98 % to "50 %" when half is off.')
    assert 'alt="Accuracy falls from 98 % to &quot;50 %&quot;' in picture._repr_mimebundle_()["text/html"]
