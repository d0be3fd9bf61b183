"""Experiments: what is finished is kept, what is missing is run, and a table is made of nothing else."""

import copy
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from switcher_lib import data, experiments, models
from switcher_lib.compaction import compact, fold_batchnorm
from switcher_lib.errors import DataError
from switcher_lib.experiments import Experiment, ProtocolError, Results, latency, runner, violations
from switcher_lib.experiments.__main__ import main, seeds_of
from switcher_lib.experiments.catalogue import cifar, comparison, lenet5
from switcher_lib.experiments.protocol import check
from switcher_lib.experiments.results import count, key, pack, rebuild, unpack
from switcher_lib.experiments.specs import ramp, read_experiment
from switcher_lib.experiments.tables import mean_std, table, text
from switcher_lib.metrics import count_parameters
from switcher_lib.switched import Switched
from switcher_lib.switchers import FixedSwitcher
from switcher_lib.training import evaluate

ROOT = Path(__file__).parents[1]
SGD = {"lr": 0.05, "momentum": 0.9}
SEARCH = {"kind": "switched", "switcher": "row", "options": {"gate": "clamp_centred"}, "switched": {"refresh": 2, "noise": 0.1},
          "fit": {"epochs": 2, "every": 2}, "task_sgd": SGD, "switcher_adam": {"lr": 0.01},
          "finetune": {"until_epoch": 3, "noise": 0.1, "task_sgd": SGD}}
DENSE = {"kind": "plain", "fit": {"epochs": 1}, "task_sgd": SGD}
CUT = {**SEARCH, "switcher": "magnitude", "options": {"budget": 30_000}, "switched": {"switch_inputs": True},
       "fit": {"epochs": 1}, "finetune": {"until_epoch": 2, "task_sgd": SGD}}
PLAIN = {**DENSE, "fit": {"epochs": 2}}
TINY = Experiment("tiny?", "lenet_300_100", "digits", {
    "dense": DENSE,
    "switcher": SEARCH,
    "with cost": {**SEARCH, "fit": {"epochs": 1, "every": 2, "cost": {"start": 0.0, "end": 0.1, "until": 0.5}}, "save": True},
    "random": {**DENSE, "same_count_as": "switcher", "noise": 0.1},
    "from scratch": {**DENSE, "same_structure_as": "switcher"},
})
# Two epochs each, and one of each kind of dependence: what the kills, the clusters and the protocol are tried on.
SWEEP = Experiment("sweep?", "lenet_300_100", "digits", {
    "dense": PLAIN, "cut": {30_000: CUT, 20_000: {**CUT, "options": {"budget": 20_000}}},
    "random": {30_000: {**PLAIN, "same_count_as": "cut"}}, "scratch": {20_000: {**PLAIN, "same_structure_as": "cut"}},
}, seeds=(0, 1), epochs=2, controls=("random",))
CHANGING = ("seconds", "search_seconds", "commit")    # from run to run


def as_json(experiment, path, **changes):
    """Write an experiment to a file that the command reads."""
    fields = {name: getattr(experiment, name) for name in Experiment.__dataclass_fields__}
    path.write_text(json.dumps({**fields, **changes}))
    return path


def lasting(records):
    """What must be the same whenever and wherever a sweep runs."""
    return sorted(({name: value for name, value in r.items() if name not in CHANGING} for r in records),
                  key=lambda r: (r["method"], r["point"] or 0, r["seed"]))


def child_env():
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", TINY)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a finished sweep; do not write to it."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:    # the tests may run without a git repository
        patch.setattr(runner, "_commit", lambda: "abc1234")
        experiments.run("sweep", experiment=SWEEP, folder=folder, threads=1, progress=False)
    return folder


@pytest.fixture
def records(swept):
    """The sweep's records, free to be spoilt."""
    return {key(r): r for r in Results(swept / "sweep.json").runs}


def fake_run(ran):
    def fake(experiment, method, point, seed, threads, other, *where):
        ran.append((method, point, seed))
        return dict(method=method, point=point, seed=seed, spec=experiment.spec(method, point), sites={"fc1": [4, 3]},
                    on_at_start={"fc1": 4}, test_accuracy=0.5, parameters=1, macs=1, seconds=1.0), {}
    return fake


# -------- what runs, and what does not run again

def test_every_method_runs_and_leaves_a_whole_record(tiny, tmp_path):
    results = experiments.run("tiny", seeds=[0], folder=tmp_path, threads=1)
    assert [r["method"] for r in results.runs] == ["dense", "from scratch", "random", "switcher", "with cost"]
    switcher, coin, scratch = (results.find(name) for name in ("switcher", "random", "from scratch"))
    assert coin["sites"] == switcher["sites"] and coin["parameters"] <= switcher["parameters"] * 1.01
    assert coin["mask"] != switcher["mask"] == scratch["mask"] and scratch["parameters"] == switcher["parameters"]
    assert switcher["certificate"] < 1e-12 and 0 < switcher["search_seconds"] < switcher["seconds"]
    assert switcher["task_steps"] == 3 * -(-switcher["train_examples"] // 64) and switcher["epochs"] == 3
    assert all(r["data"] == "digits" and 0 < r["test_accuracy"] <= 1 for r in results.runs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tiny.json.lock", "tiny-with cost-0.safetensors", "tiny.json"]


def test_each_operating_point_saves_a_network_of_its_own(tmp_path):
    spec = {**CUT, "save": True}
    points = {point: {**spec, "options": {"budget": point}} for point in (30_000, 20_000)}
    experiments.run("x", experiment=Experiment("?", "lenet_300_100", "digits", {"cut": points}, seeds=(0,)), folder=tmp_path)
    sizes = [(tmp_path / f"x-cut-{point}-0.safetensors").stat().st_size for point in (20_000, 30_000)]
    assert sizes[0] < sizes[1]


def test_what_is_finished_is_not_run_again_and_another_specification_is_refused(tiny, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(runner, "run_one", fake_run(ran))
    experiments.run("tiny", seeds=[0, 1], methods=["dense", "switcher"], folder=tmp_path)
    experiments.run("tiny", seeds=[0, 1, 2], methods=["dense"], folder=tmp_path)
    assert ran[-1] == ("dense", None, 2) and len(ran) == 5
    before = (tmp_path / "tiny.json").read_bytes()
    changed = replace(TINY, methods={**TINY.methods, "dense": {**DENSE, "fit": {"epochs": 9}}})
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", changed)
    with pytest.raises(ValueError, match=r"'dense' with seed 0 that another specification made \(fit.epochs: 1, now 9\).*--redo"):
        experiments.run("tiny", seeds=[0, 1], folder=tmp_path)
    assert (tmp_path / "tiny.json").read_bytes() == before and len(ran) == 5
    experiments.run("tiny", seeds=[0, 1], methods=["dense", "switcher"], folder=tmp_path, redo=True)
    assert ran[5:] == [("dense", None, 0), ("dense", None, 1)] and len(experiments.load("tiny", tmp_path).runs) == 5


def test_what_took_over_a_replaced_result_is_run_again(tmp_path, monkeypatch):
    ran, on = [], [3]

    def fake(experiment, method, point, seed, threads, other, *where):
        record, files = fake_run(ran)(experiment, method, point, seed, threads, other)
        return {**record, "sites": {"fc1": [4, on[0]]} if other is None else other["sites"]}, files

    monkeypatch.setattr(runner, "run_one", fake)
    methods = ["switcher", "random"]
    experiments.run("tiny", [0], methods, folder=tmp_path, experiment=TINY)
    on[0] = 2
    changed = replace(TINY, methods={**TINY.methods, "switcher": {**SEARCH, "task_sgd": {"lr": 0.1}}})
    experiments.run("tiny", [0], ["switcher"], folder=tmp_path, experiment=changed, redo=True)
    results = experiments.run("tiny", [0], methods, folder=tmp_path, experiment=changed)
    assert ran[2:] == [("switcher", None, 0), ("random", None, 0)] and results.find("random")["sites"] == {"fc1": [4, 2]}


def test_a_run_that_breaks_off_loses_nothing_that_was_finished(tiny, tmp_path, monkeypatch):
    def breaks(experiment, method, point, seed, threads, other, *where):
        if seed == 2:
            raise KeyboardInterrupt
        return fake_run([])(experiment, method, point, seed, threads, other)

    monkeypatch.setattr(runner, "run_one", breaks)
    with pytest.raises(KeyboardInterrupt):
        experiments.run("tiny", seeds=range(4), methods=["dense"], folder=tmp_path)
    assert [r["seed"] for r in experiments.load("tiny", tmp_path).runs] == [0, 1]


def test_a_run_that_training_stops_is_kept_told_and_not_repeated(tmp_path, monkeypatch):
    digits, asked = data.load("digits"), []
    monkeypatch.setattr(data, "load", lambda name, **options: digits)
    bad = replace(TINY, methods={"dense": {**TINY.spec("dense"), "task_sgd": {"lr": 1e6}}, "switcher": {**SEARCH, "task_sgd": {"lr": 1e9}},
                                 "random": TINY.spec("random")}, seeds=(0, 1), controls=())
    results = experiments.run("bad", methods=["dense", "switcher"], folder=tmp_path, experiment=bad, progress=False)
    assert not results.of("switcher") and [r["seed"] for r in results.stopped("switcher")] == [0, 1]
    assert all("the loss is not finite" in r["stopped"] for r in results.stopped("switcher"))
    (row,) = table(results, ["switcher"], bad)
    assert row.stopped == (0, 1) and row.seeds == () and math.isnan(row.accuracy[0]) and "(stopped: 0,1)" in text([row])
    results = experiments.run("bad", methods=["random"], folder=tmp_path, experiment=bad, progress=False)
    reasons = [record["stopped"] for record in results.stopped("random")]
    assert len(reasons) == 2 and all("no structure to take over: 'switcher' stopped: epoch 1" in reason for reason in reasons)
    assert table(results, ["random"], bad)[0].stopped == (0, 1)
    assert set(results.stopped("random")[0]) == set(results.stopped("switcher")[0])
    monkeypatch.setattr(runner, "run_one", lambda *call: asked.append(call))
    experiments.run("bad", folder=tmp_path, experiment=bad, progress=False)
    assert not asked
    good = {**SEARCH, "fit": {"epochs": 1}, "finetune": {"until_epoch": 2, "task_sgd": SGD}}
    mended = replace(bad, methods={**bad.methods, "switcher": good})
    monkeypatch.undo()
    monkeypatch.setattr(data, "load", lambda name, **options: digits)
    results = experiments.run("bad", [0], ["switcher", "random"], folder=tmp_path, experiment=mended, redo=True, progress=False)
    assert len(results.of("random")) == 1    # there is something to take over now
    other = replace(bad, methods={**bad.methods, "switcher": {**SEARCH, "task_sgd": {"lr": 1e8}}})
    with pytest.raises(ProtocolError, match="another version of the specification"):
        table(results, ["switcher"], other)


STARTED = {**SEARCH, "fit": {"epochs": 1, "every": 2}, "pretrain": {"epochs": 2, "task_sgd": SGD}, "finetune": {"until_epoch": 4, "task_sgd": SGD}}


def test_what_several_methods_start_from_is_trained_once_and_counted_in_each(tmp_path, monkeypatch):
    methods = {"live": STARTED, "stale": {**STARTED, "switched": {"refresh": 4}}, "dense": {**DENSE, "fit": {"epochs": 4}}}
    experiment = Experiment("?", "lenet_300_100", "digits", methods, seeds=(0,), epochs=4)
    kept = tmp_path / ".x.checkpoints"
    before = {}
    monkeypatch.setattr(Results, "add", lambda self, record, add=Results.add: before.update({record["method"]: sorted(
        path.name.split("-")[0] for path in kept.iterdir())}) or add(self, record))
    results = experiments.run("x", folder=tmp_path, experiment=experiment, threads=1, progress=False)
    alone = runner.run_one(experiment, "live")[0]    # without checkpoints, everything is trained by itself
    live, stale = results.find("live"), results.find("stale")
    assert lasting([live]) == lasting([alone]) and stale["test_loss"] != live["test_loss"]
    assert live["epochs"] == stale["epochs"] == 4 and live["seconds"] > live["search_seconds"]
    assert before == {"live": ["finetune", "pretrain", "search"], "stale": ["finetune", "pretrain", "search"],
                      "dense": ["fit", "pretrain"]} and not kept.exists()
    assert violations({**live, "commit": "abc1234"}, experiment) == []


@pytest.mark.parametrize("method, epoch", [("dense", 1), ("live", 1), ("live", 2), ("live", 3), ("weights", 2), ("weights", 3)])
def test_a_training_goes_on_in_the_epoch_in_which_it_was_killed(method, epoch, tmp_path, monkeypatch):
    """The live ones train for two epochs, search for one, and train what is left for another one."""
    methods = {"dense": {**DENSE, "fit": {"epochs": 4}}, "live": STARTED,
               "weights": {**STARTED, "switcher": "entry", "switched": {"level": "connection"}}}
    experiment = Experiment("?", "lenet_300_100", "digits", methods, seeds=(0,))
    whole, _ = runner.run_one(experiment, method)
    batches, seen = data.Split.batches, []

    def breaks(self, *arguments, **options):
        seen.append(1)
        if len(seen) == epoch + 1:
            raise KeyboardInterrupt
        return batches(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(data.Split, "batches", breaks)
        with pytest.raises(KeyboardInterrupt):
            experiments.run("x", methods=[method], folder=tmp_path, experiment=experiment, threads=1, progress=False)
    parts = sorted(path.name.split("-")[0] for path in (tmp_path / ".x.checkpoints").iterdir())
    assert not Results(tmp_path / "x.json").runs
    assert parts == (["fit"] if method == "dense" else ["pretrain"] if epoch < 3 else ["pretrain", "search"])
    trained = []
    monkeypatch.setattr(data.Split, "batches", lambda self, *a, **o: trained.append(1) or batches(self, *a, **o))
    results = experiments.run("x", methods=[method], folder=tmp_path, experiment=experiment, threads=1, progress=False)
    assert lasting(results.runs) == lasting([whole])
    assert len(trained) == whole["epochs"] - epoch + 1, "what was done before is not done again; the last look is at the test split"


@pytest.mark.parametrize("change", [{"pretrain": {"epochs": 2, "task_sgd": {"lr": 0.01}}}, {"model": {"widths": [40, 20]}}])
def test_a_checkpoint_is_not_taken_for_one_of_another_training(change):
    methods = {"one": STARTED, "other": {**STARTED, **change}, "same": {**STARTED, "switched": {"refresh": 9}}}
    experiment = Experiment("?", "lenet_300_100", "digits", methods)
    name = {(method, seed): runner._file("pretrain", experiment, (method, None, seed)) for method in methods for seed in (0, 1)}
    assert name["one", 0] == name["same", 0] and len({name["one", 0], name["other", 0], name["one", 1]}) == 3
    assert name["one", 0] != runner._file("pretrain", replace(experiment, tuning=True), ("one", None, 0))


def test_a_device_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="device='abacus' cannot be used here: "):
        experiments.run("x", folder=tmp_path / "none", experiment=TINY, device="abacus")
    assert not (tmp_path / "none").exists()


def test_a_search_that_misses_its_size_is_a_failure_that_is_kept():
    spec = {**SEARCH, "fit": {"epochs": 1, "stop_at": 100, "cost": {"start": 0.0, "end": 0.1, "until": 0.5}},
            "finetune": {"until_epoch": 2, "task_sgd": SGD}}
    experiment = Experiment("?", "lenet_300_100", "digits", {"switcher": {100: spec}}, seeds=(0,))
    record, files = runner.run_one(experiment, "switcher", 100)
    assert "parameters left, above the 100 that it was to reach" in record["stopped"] and files == {}
    assert "stopped" not in runner.run_one(replace(experiment, tuning=True), "switcher", 100)[0]
    without_points = Experiment("?", "lenet_300_100", "digits", {"switcher": spec}, seeds=(0,))
    assert runner.run_one(without_points, "switcher")[0]["parameters"] > 100    # no size was promised: it shows how far a search gets


def test_a_method_that_takes_anothers_count_says_at_once_when_that_is_missing(tiny, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(runner, "run_one", fake_run(ran))
    with pytest.raises(ValueError, match="'random' needs the result of 'switcher' with seed 0"):
        experiments.run("tiny", seeds=[0], methods=["dense", "random"], folder=tmp_path)
    assert ran == []


def test_an_experiment_never_runs_on_a_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCHER_OFFLINE", "1")
    monkeypatch.setenv("SWITCHER_DATA", str(tmp_path))
    with pytest.raises(DataError, match="never runs on a stand-in") as caught:
        runner.run_one("lenet300-free", "dense")
    assert "'dense' with seed 0" in caught.value.__notes__[0]


def test_tuning_trains_on_the_training_part_and_never_sees_the_test_split(monkeypatch):
    digits, asked = data.load("digits"), []
    monkeypatch.setattr(runner, "evaluate", lambda model, split: asked.append(split) or evaluate(model, split))
    monkeypatch.setattr(data, "load", lambda name, **options: digits)
    record, _ = runner.run_one(replace(TINY, tuning=True), "dense")
    runner.run_one(TINY, "dense")
    assert record["train_examples"] == len(digits.train) < len(digits.full_train)
    assert asked[0] is digits.validation and asked[1] is digits.test


def test_images_are_augmented_and_rounded_as_each_part_of_a_specification_says(monkeypatch):
    fit, seen, images = runner.fit, [], []

    def watched(net, split, **settings):
        seen.append((settings.get("augment"), settings.get("precision")))
        return fit(net, split, **settings)

    monkeypatch.setattr(runner, "fit", watched)
    monkeypatch.setitem(data.AUGMENTATIONS, "crop_flip", lambda x, generator: images.append(len(x)) or data.crop_flip(x, generator))
    fast = {"augment": "crop_flip", "precision": "bfloat16"}
    spec = {**SEARCH, "fit": {**SEARCH["fit"], **fast}, "pretrain": {"epochs": 1, "task_sgd": SGD, "augment": "crop_flip"},
            "finetune": {**SEARCH["finetune"], "until_epoch": 4, "precision": "bfloat16"}}
    record, _ = runner.run_one(Experiment("?", "lenet_300_100", "digits", {"switcher": spec}, seeds=(0,)), "switcher")
    assert seen == [("crop_flip", None), ("crop_flip", "bfloat16"), (None, "bfloat16")]
    assert sum(images) == 3 * record["train_examples"]    # an epoch of pretraining and two of the search
    seen.clear()
    plain = Experiment("?", "lenet_300_100", "digits", {"dense": {**DENSE, "fit": {"epochs": 1, **fast}}, "rough": DENSE}, seeds=(0,))
    assert runner.run_one(plain, "dense")[0]["test_loss"] != runner.run_one(plain, "rough")[0]["test_loss"]
    assert seen == [("crop_flip", "bfloat16"), (None, None)]


@pytest.mark.parametrize("model, widths", [("vgg_16_bn", [4] * 13), ("resnet_20", [8, 8, 8]), ("mobilenet", [4] * 14)])
def test_a_deep_network_runs_and_its_record_keeps_the_rules(model, widths):
    fast = {"epochs": 1, "batch_size": 256, "augment": "crop_flip", "precision": "bfloat16"}
    spec = {**SEARCH, "switcher": "random", "options": {"off": 0.5}, "model": {"widths": widths}, "fit": fast,
            "finetune": {**fast, "task_sgd": SGD}}
    experiment = Experiment("?", model, "digits_rgb", {"random": spec}, seeds=(0,), epochs=2)
    record, _ = runner.run_one(experiment, "random")
    assert violations({**record, "commit": "abc1234"}, experiment) == []
    assert record["parameters"] < count_parameters(models.make(model, widths=widths))
    assert violations({**record, "commit": "abc1234", "parameters": record["parameters"] + 1}, experiment) != []


def test_a_run_looks_at_the_test_split_once():
    once = runner._Once("test")
    assert once.take() == "test"
    with pytest.raises(RuntimeError, match="looked at already"):
        once.take()


# -------- killed at any moment

SWEEPER = """
import json, os, random, signal, sys, time
from switcher_lib import data
from switcher_lib.experiments.__main__ import main

spec, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
digits = data.load("digits")
data.load = lambda name, **options: digits      # each start would read it anew

def start():
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        try:
            main(["run", spec, "--folder", folder, "--threads", "1"])
        finally:
            os._exit(0)
    return child

def state():
    path = os.path.join(folder, "sweep.json")
    return {f"{r['method']} {r['point']} {r['seed']}": r for r in json.load(open(path))["runs"]} if os.path.exists(path) else {}

def parts():
    return [name for name in os.listdir(folder) if name.endswith(".part")] if os.path.isdir(folder) else []

began = time.perf_counter()
pilot = start() if seed < 0 else None           # uninterrupted
if pilot:
    os.waitpid(pilot, 0)
    print(json.dumps({"seconds": time.perf_counter() - began}))
    sys.exit()
draw, limit, hits, seen, left = random.Random(seed), float(sys.argv[4]), 0, {}, 0
for _ in range(20):
    child = start()
    time.sleep(draw.uniform(0, limit))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    hits += os.WIFSIGNALED(status)
    left += bool(parts())
    now = state()
    assert all(now.get(name) == record for name, record in seen.items()), "a finished run is lost"
    seen = now
between = len(seen)
os.waitpid(start(), 0)
assert all(state().get(name) == record for name, record in seen.items()), "a finished run is lost"
assert not parts(), parts()
print(json.dumps({"hits": hits, "between": between, "left": left}))
"""


def drive(source, *arguments):
    done = subprocess.run([sys.executable, "-c", source, *map(str, arguments)], env=child_env(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_the_sweep_ends_as_if_never_interrupted(tmp_path):
    spec = as_json(SWEEP, tmp_path / "sweep.json", seeds=list(range(12)))
    whole = drive(SWEEPER, spec, tmp_path / "whole", -1)
    told = drive(SWEEPER, spec, tmp_path / "killed", 0, whole["seconds"] / 20)
    assert told["hits"] == 20 and 0 < told["between"] < 60    # every kill met a runner that was at work
    killed, uninterrupted = (Results(tmp_path / folder / "sweep.json").runs for folder in ("killed", "whole"))
    assert len(uninterrupted) == 60 and lasting(killed) == lasting(uninterrupted)


WRITER = """
import json, os, random, signal, sys, time
from pathlib import Path
from switcher_lib.experiments.results import Results

path, draw, counts, caught = Path(sys.argv[1]), random.Random(1), [0], 0

def runs():
    return json.loads(path.read_text())["runs"] if path.exists() else []

def halfway():
    return any(name.endswith(".part") for name in os.listdir(path.parent))

def at_once(condition):                     # freeze the writer at random moments until it is seen in such a state
    while True:
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        if condition():
            return
        os.kill(child, signal.SIGCONT)

for kill in range(20):
    child = os.fork()
    if child == 0:
        with Results.locked(path) as results:
            for seed in range(len(results.runs), 10_000):
                results.add({"method": "m", "seed": seed, "spec": {}, "ballast": "x" * 100_000})
                results.write(b"y" * 3_000_000, results.path.with_name("network"))
    at_once(lambda: len(runs()) > counts[-1])
    os.kill(child, signal.SIGCONT)
    if kill % 2:
        at_once(halfway)                    # every second kill falls into the writing of a file
    else:
        time.sleep(draw.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = runs()
    assert [r["seed"] for r in found] == list(range(len(found))) and len(found) >= counts[-1], "a finished run is lost"
    network = path.with_name("network")
    assert not network.exists() or network.stat().st_size == 3_000_000, "half a network"
    counts.append(len(found))
    caught += halfway()
with Results.locked(path):
    assert not halfway(), "half a file"
print(json.dumps({"caught": caught, "runs": counts[-1]}))
"""


def test_twenty_kills_while_it_writes_leave_whole_files(tmp_path):
    told = drive(WRITER, tmp_path / "w.json")
    assert told["caught"] >= 10 and told["runs"] >= 20


def session_of(process):
    """Ids of all processes that a process has started, in its session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_runner_leaves_no_worker_that_writes(tmp_path):
    spec, path = as_json(SWEEP, tmp_path / "sweep.json", seeds=list(range(20))), tmp_path / "results" / "sweep.json"
    command = [sys.executable, "-m", "switcher_lib.experiments", "run", str(spec), "--folder", str(path.parent), "--threads", "1"]
    process = subprocess.Popen([*command, "--jobs", "2"], env=child_env(), start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(BlockingIOError, match="another runner is at work"):    # a second one, while the first lives
            experiments.run("sweep", experiment=SWEEP, folder=path.parent)
        process.kill()
        process.wait()
        # checkpoints apart, which a worker may still finish: they are whole at any moment, and the same whoever writes them
        files = {p: p.read_bytes() for p in path.parent.iterdir() if p.is_file() and p.suffix != ".lock"}
        time.sleep(3)    # several runs long: whatever its workers still do (loky's wait for work for minutes), they write no result
        assert {p: p.read_bytes() for p in path.parent.iterdir() if p.is_file() and p.suffix != ".lock"} == files
        results = experiments.run("sweep", [0], experiment=SWEEP, folder=path.parent, threads=1)    # free again at once
    finally:
        for orphan in session_of(process):
            os.kill(orphan, signal.SIGKILL)
    before = json.loads(files[path])["runs"]
    assert 0 < len(before) < 100 and all(record in results.runs for record in before)
    assert {key(r) for r in results.runs} >= set(SWEEP.tasks(seeds=[0]))


# -------- many workers, the same numbers

def test_two_processes_give_what_one_gives(swept, tmp_path):
    results = experiments.run("sweep", experiment=SWEEP, jobs=2, folder=tmp_path, threads=1, progress=False)
    assert lasting(results.runs) == lasting(Results(swept / "sweep.json").runs)


@pytest.mark.slow
def test_a_dask_cluster_gives_what_one_process_gives(swept, tmp_path):
    distributed = pytest.importorskip("distributed")
    expected = lasting(Results(swept / "sweep.json").runs)
    results = experiments.run("sweep", experiment=SWEEP, dask="local", folder=tmp_path / "local", threads=1, progress=False)
    assert lasting(results.runs) == expected
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        results = experiments.run("sweep", experiment=SWEEP, dask=cluster.scheduler_address, folder=tmp_path / "address",
                                  threads=1, progress=False)
        assert lasting(results.runs) == expected


def test_a_dask_worker_with_several_threads_is_refused(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(ValueError, match="--nthreads 1"):
            experiments.run("sweep", experiment=SWEEP, dask=cluster.scheduler_address, folder=tmp_path, progress=False)


def test_dask_results_are_written_as_soon_as_they_are_there(tmp_path, monkeypatch):
    """joblib's dask backend hands all over at the end."""
    distributed = pytest.importorskip("distributed")
    def looks(experiment, method, point, seed, threads, other, *where):
        if seed == 3:    # runs last: what was before it must be in the file
            path, until = tmp_path / "tiny.json", time.monotonic() + 30
            while not (path.exists() and len(Results(path).runs) == 3) and time.monotonic() < until:
                time.sleep(0.02)
            (tmp_path / "there").write_text(str(len(Results(path).runs)))
        return fake_run([])(experiment, method, point, seed, threads, other)

    monkeypatch.setattr(runner, "run_one", looks)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        experiments.run("tiny", range(4), ["dense"], folder=tmp_path, experiment=TINY, dask=cluster.scheduler_address)
    assert (tmp_path / "there").read_text() == "3"


# -------- bad input: specifications

def spoilt(method="switcher", **changes):
    """TINY with a method's fields changed; None takes a field out."""
    spec = {name: value for name, value in {**TINY.methods[method], **changes}.items() if value is not None}
    return {**TINY.methods, method: spec}


BAD_SPECS = {
    "a field": (spoilt(finetun={}), "specification='finetun'.*did you mean 'finetune'"),
    "a kind": (spoilt(kind="swiched"), "did you mean 'switched'"),
    "no kind": (spoilt(kind=None), "a specification has a 'kind'"),
    "no fit": (spoilt(fit=None), "no 'fit'"),
    "no optimizer": (spoilt("dense", task_sgd=None), "no 'task_sgd'"),
    "no finetune": (spoilt(finetune=None), "no 'finetune'"),
    "no switcher": (spoilt(switcher=None), "no 'switcher'"),
    "no object": (spoilt(fit=[2]), r"fit=\[2\] must be an object"),
    "a switcher": (spoilt(switcher="rwo"), "switcher='rwo'.*did you mean 'row'"),
    "an option": (spoilt(options={"hiden": 3}), "options of row='hiden'.*did you mean 'hidden'"),
    "an option of another switcher": (spoilt(options={"budget": 3}), "options of row='budget'"),
    "a missing option": (spoilt(switcher="magnitude", options={}), "options of magnitude has no 'budget'"),
    "a gate": (spoilt(options={"gate": "clmp"}), "gate='clmp'.*did you mean 'clamp'"),
    "a gate elsewhere": (spoilt(switched={"gate": "clamp"}), "switched='gate'"),
    "inside": (spoilt(switcher="shuffled", inside="rwo"), "inside='rwo'.*did you mean 'row'"),
    "an option inside": (spoilt(switcher="shuffled", inside="row", options={"hiden": 1}), "options of row='hiden'"),
    "nothing inside": (spoilt(switcher="shuffled"), "need each other"),
    "inside a row": (spoilt(inside="row"), "need each other"),
    "Switched": (spoilt(switched={"refesh": 2}), "switched='refesh'.*did you mean 'refresh'"),
    "a level": (spoilt(switched={"level": "neurn"}), "did you mean 'neuron'"),
    "a price": (spoilt(switched={"price": {"macs": -1}}), "must have weights of at least 0"),
    "a level that it cannot": (spoilt(switched={"level": "connection"}), "'row' cannot be used at level='connection'"),
    "noise": (spoilt(switched={"noise": -1}), "switched: noise=-1"),
    "fit": (spoilt(fit={"epoch": 2}), "fit='epoch'.*did you mean 'epochs'"),
    "fit's data": (spoilt(fit={"epochs": 2, "loss_fn": "x"}), "fit='loss_fn'"),
    "epochs": (spoilt(fit={"epochs": 0}), "fit: epochs=0 must be an integer of at least 1"),
    "a batch size": (spoilt(fit={"epochs": 1, "batch_size": 0}), "fit: batch_size=0"),
    "every": (spoilt(fit={"epochs": 1, "every": "epcoh"}), "fit: every='epcoh'"),
    "a schedule": (spoilt(fit={"epochs": 1, "schedule": "cosin"}), "did you mean 'cosine'"),
    "a way to augment": (spoilt(fit={"epochs": 1, "augment": "crop_flp"}), "fit: augment='crop_flp'.*did you mean 'crop_flip'"),
    "a precision that the machine chooses": (spoilt("dense", fit={"epochs": 1, "precision": "auto"}),
                                             "fit: precision='auto' is not a precision. Known: bfloat16, float32"),
    "a precision": (spoilt("dense", fit={"epochs": 1, "precision": "float16"}), "fit: precision='float16'.*did you mean 'bfloat16'"),
    "a list for a name": (spoilt(fit={"epochs": 1, "augment": ["crop_flip"]}), r"fit: augment=\['crop_flip'\] is not"),
    "a cost": (spoilt(fit={"epochs": 1, "cost": 3.0}), "cost=3.0 must be an object with start, end and until"),
    "a cost's ramp": (spoilt(fit={"epochs": 1, "cost": {"start": 0, "end": 1, "until": 0}}), r"until=0 must be in \(0, 1\]"),
    "a cost's shape": (spoilt(fit={"epochs": 1, "cost": {"start": 1, "end": 2, "until": 1, "shape": "linaer"}}), "did you mean 'linear'"),
    "a cost's begin": (spoilt(fit={"epochs": 1, "cost": {"start": 0, "end": 2, "until": 0.5, "begin": 0.5}}), r"begin=0.5 must be in \[0, 0.5\)"),
    "an exponential from 0": (spoilt(fit={"epochs": 1, "cost": {"start": 0, "end": 2, "until": 1, "shape": "exponential"}}),
                              "start=0 must be above 0 for an exponential"),
    "an optimizer": (spoilt(task_sgd={"lrr": 1}), "task_sgd='lrr'.*did you mean 'lr'"),
    "a learning rate": (spoilt(task_sgd={"lr": -1.0}), "task_sgd: Invalid learning rate"),
    "Adam": (spoilt(switcher_adam={"beta": 1}), "switcher_adam='beta'.*did you mean 'betas'"),
    "finetune": (spoilt(finetune={"epochs": 1, "task_sgd": SGD, "every": 2}), "finetune='every'"),
    "finetune's end": (spoilt(finetune={"until_epoch": 2, "task_sgd": SGD}), "until_epoch=2 must be an integer above the 2"),
    "finetune's two ends": (spoilt(finetune={"until_epoch": 9, "epochs": 2, "task_sgd": SGD}), "either epochs or until_epoch"),
    "finetune's optimizer": (spoilt(finetune={"epochs": 2}), "finetune has no 'task_sgd'"),
    "finetune's batch": (spoilt(finetune={"epochs": 2, "batch_size": 0, "task_sgd": SGD}), "finetune: batch_size=0"),
    "finetune's way to augment": (spoilt(finetune={"epochs": 2, "task_sgd": SGD, "augment": "flip"}),
                                  "finetune: augment='flip'.*Known: crop_flip"),
    "pretrain's precision": (spoilt(pretrain={"epochs": 2, "task_sgd": SGD, "precision": 16}),
                             "pretrain: precision=16.*Known: bfloat16, float32"),
    "pretrain": (spoilt(pretrain={"epochs": 2, "task_sgd": {"lr": -1.0}}), "pretrain: task_sgd: Invalid"),
    "the model's option": (spoilt("dense", model={"width": [3, 4]}), "model='width'.*did you mean 'widths'"),
    "other images": (spoilt("dense", model={"in_shape": [3, 28, 28]}), r"dense: lenet_300_100 has in_shape=\(3, 28, 28\), but digits has"),
    "other classes": (spoilt("dense", model={"num_classes": 11}), "num_classes=11, but digits has 10; say model={'num_classes': 10}"),
    "no meaning": (spoilt("dense", finetune={}), "finetune has no meaning with kind='plain'"),
    "a plain network's cost": (spoilt("dense", fit={"epochs": 1, "cost": {"start": 0, "end": 2, "until": 0.5}}), "fit: cost has no meaning"),
    "lists for names": (spoilt(switcher=["row"]), r"switcher=\['row'\] is not"),
    "a list for a level": (spoilt(switched={"level": ["neuron"]}), r"level=\['neuron'\] is not"),
    "a list for a gate": (spoilt(options={"gate": ["clamp"]}), r"gate=\['clamp'\] is not"),
    "the end of a pretraining": (spoilt(pretrain={"until_epoch": 3, "task_sgd": SGD}, finetune={"until_epoch": 4, "task_sgd": SGD}),
                                 "until_epoch=4 must be an integer above the 5"),
    "noise in the wrong place": (spoilt(noise=0.1), "noise belongs into switched"),
    "no plain data": (spoilt("dense", model={"widths": (30, 10)}), "plain data"),
    "a source": (spoilt("random", same_count_as="swicher"), "same_count_as='swicher'.*did you mean 'switcher'"),
    "a plain source": (spoilt("random", same_count_as="dense"), "'dense' is of kind 'plain'"),
    "itself": (spoilt("random", same_count_as="random"), "takes its structure over from another method itself"),
    "a cycle": ({**TINY.methods, "a": {**DENSE, "same_count_as": "b"}, "b": {**DENSE, "same_structure_as": "a"}},
                "'b' takes its structure over from another method itself"),
    "two sources": (spoilt("random", same_structure_as="switcher"), "exclude each other"),
    "a source's point": ({"a": {9: CUT}, "b": {8: {**DENSE, "same_count_as": "a"}}}, "has no such operating point, only 9"),
    "a point": ({"a": {0: DENSE}}, "0 is no operating point"),
    "a point that is a text": ({"a": {"many": DENSE}}, "'many' is no operating point"),
    "a method": ({"a": 3}, "a: 3 must be a specification"),
    "an empty method": ({"a": {}}, "must be a specification"),
    "no methods": ({}, "at least one method"),
}


@pytest.mark.parametrize("methods, message", BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_bad_specification_is_refused_before_anything_is_trained(methods, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Experiment("?", "lenet_300_100", "digits", methods)


@pytest.mark.parametrize("changes, message", [
    ({"model": "lenet_5000"}, "did you mean 'lenet_5'"), ({"data": "digts"}, "did you mean 'digits'"),
    ({"seeds": ()}, "seeds="), ({"seeds": (0, 0)}, "seeds="), ({"seeds": (-1,)}, "seeds="), ({"seeds": 3}, "seeds="),
    ({"epochs": 0}, "epochs=0"), ({"controls": ("dens",)}, "did you mean 'dense'"),
])
def test_a_bad_experiment_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


@pytest.mark.parametrize("content, message", [
    ("{", "is not JSON"), ("[1]", "holds a list"), ('{"qestion": 1}', "did you mean 'question'"),
    ('{"question": "?"}', "has no data, methods, model"),
    ('{"question": "?", "model": "lenet_300_100", "data": "digits", "methods": [1]}', "at least one method"),
    ('{"question": "?", "model": "lenet_300_100", "data": "digits", "methods": {"a": {"many": {}}}}', "'many' is no operating point"),
])
def test_a_file_that_is_no_experiment_is_named(tmp_path, capsys, content, message):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"own.json.*{message}"):
        read_experiment(path)
    with pytest.raises(SystemExit) as caught:
        main(["run", str(path), "--folder", str(tmp_path / "results")])
    assert caught.value.code == 2 and "own.json" in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_an_experiment_comes_back_from_its_file(tmp_path):
    assert read_experiment(as_json(SWEEP, tmp_path / "sweep.json")) == SWEEP


@pytest.mark.parametrize("arguments, message", [
    (["run", "tinny"], "did you mean 'tiny'"), (["table", "tinny"], "did you mean 'tiny'"), (["latency", "tinny"], "did you mean 'tiny'"),
    (["run", "tiny", "--methods", "dens"], "did you mean 'dense'"), (["run", "tiny", "--seeds", "a"], "neither like 0-4"),
    (["run", "tiny", "--seeds", "4-0"], "neither like 0-4"), (["run", "tiny", "--jobs", "0"], "jobs=0"),
    (["run", "tiny", "--threads", "0"], "threads=0"), (["run", "nowhere.json"], "nowhere.json"),
])
def test_the_command_ends_with_status_2_and_a_message(tiny, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--folder", str(tmp_path)])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and message in said and "Traceback" not in said


def test_the_command_prints_no_traceback():
    done = subprocess.run([sys.executable, "-m", "switcher_lib.experiments", "run", "lenet300-fre"], env=child_env(),
                          capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'lenet300-free'" in done.stderr and "Traceback" not in done.stderr


def test_unknown_names_are_answered_with_the_nearest(tiny):
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        experiments.run("tinny")
    with pytest.raises(ValueError, match="did you mean 'dense'"):
        experiments.run("tiny", methods=["dens"])
    with pytest.raises(ValueError, match="is not a experiment|is not an experiment"):
        experiments.load("nothing-like-it")


# -------- bad input: result files and disks

@pytest.mark.parametrize("content", ["", "{", "[1]", '{"runs": []}', '{"format": 99, "runs": []}', '{"format": 1, "runs": [3]}',
                                     '{"format": 1, "runs": [{"method": "a"}]}', '{"format": 1, "runs": 3}'])
def test_a_file_that_is_no_results_file_is_named(tmp_path, content):
    path = tmp_path / "tiny.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="tiny.json.*move it away"):
        Results(path)
    with pytest.raises(ValueError, match="tiny.json"):
        experiments.run("tiny", experiment=TINY, folder=tmp_path)
    assert path.read_text() == content


def test_results_of_the_earlier_runner_load_and_make_a_table(tmp_path):
    """They tell neither point nor mask nor level, and their epochs only by their steps."""
    record = dict(method="switcher", seed=0, spec=SEARCH, data="digits", train_examples=1437, test_accuracy=0.9, test_loss=0.3,
                  sites={"fc1": [300, 30], "fc2": [100, 20]}, on_at_start={"fc1": 300, "fc2": 100},
                  parameters=784 * 30 + 30 + 30 * 20 + 20 + 20 * 10 + 10, macs=24_320, task_steps=69, switcher_steps=30, seconds=1.0,
                  search_seconds=0.5, certificate=0.0, threads=1, device="cpu", torch="2", python="3", commit="abc")
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, "runs": [record]}, indent=1))
    results, experiment = Results(tmp_path / "old.json"), replace(TINY, seeds=(0,))
    assert violations(record, experiment) == [] and violations(record, replace(experiment, epochs=3)) == []
    assert violations(record, replace(experiment, epochs=2)) != []
    (row,) = table(results, ["switcher"], experiment)
    assert row.point is None and row.parameters[0] == 24_380 and "24,380" in text([row])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_file_whole(tmp_path, monkeypatch, capsys, step):
    monkeypatch.setattr(runner, "run_one", fake_run([]))
    spec = as_json(TINY, tmp_path / "t.json")
    main(["run", str(spec), "--methods", "dense", "--seeds", "0", "--folder", str(tmp_path / "r")])
    before = (tmp_path / "r" / "t.json").read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(SystemExit) as caught:
            main(["run", str(spec), "--methods", "dense", "--seeds", "0-2", "--folder", str(tmp_path / "r")])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "t.json could not be written and stays as it was (No space left" in said
    assert "Make room and run again" in said and (tmp_path / "r" / "t.json").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [".t.json.lock", "t.json"]
    main(["run", str(spec), "--methods", "dense", "--seeds", "0-2", "--folder", str(tmp_path / "r")])
    assert len(Results(tmp_path / "r" / "t.json").runs) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB, where this machine lets one make it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_really_fills_up(small_disk):
    path = small_disk / "full.json"
    with Results.locked(path) as results:
        with pytest.raises(OSError, match="Make room") as caught:
            for seed in range(50):
                results.add({"method": "m", "seed": seed, "spec": {}, "ballast": "x" * 5_000})
        assert caught.value.errno == errno.ENOSPC
    kept = [r["seed"] for r in Results(path).runs]
    assert 0 < len(kept) < 12 and kept == list(range(len(kept))) == [r["seed"] for r in results.runs]
    assert not list(small_disk.glob(".*.part"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file cannot be written.*--folder"):
        experiments.run("tiny", experiment=TINY, folder=tmp_path / "file")
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:    # root may write anywhere, so somebody else tries
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            with Results.locked(folder / "x.json"):
                os.write(writer, b"it could")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    assert said.startswith("PermissionError") and "read only cannot be written" in said and "--folder" in said


def test_only_one_runner_at_a_time_and_only_on_the_same_results(tmp_path):
    with Results.locked(tmp_path / "a.json"):
        with pytest.raises(BlockingIOError, match="another runner is at work on .*a.json"):
            with Results.locked(tmp_path / "a.json"):
                pass
        with Results.locked(tmp_path / "b.json"):
            pass
    with Results.locked(tmp_path / "a.json"):
        pass


def test_a_mask_is_packed_without_loss():
    mask = (torch.rand(13, 7) < 0.5).float()
    assert unpack(pack(mask), (13, 7)).equal(mask)


# -------- the rules of comparison

def test_a_collapsed_network_has_what_compaction_leaves_and_no_other_number(records):
    record = records[CUT_KEY]
    off = {key: [total, 0] for key, (total, _) in record["sites"].items() if key != "input"}
    collapsed = {**record, "sites": {**record["sites"], **off},
                 "mask": {**record["mask"], **{key: pack(torch.zeros(total)) for key, (total, _) in off.items()}}}
    assert violations({**collapsed, "parameters": 24}, SWEEP) == []    # one pixel, one neuron, one neuron, ten classes
    assert violations({**collapsed, "parameters": 22}, SWEEP) == []    # without the two weights that are 0
    for told in (23, 25, 9_000):
        assert violations({**collapsed, "parameters": told}, SWEEP) == [f"{told:,} parameters are told, its structure has 24"]


def test_an_operating_point_whose_runs_all_stopped_is_one_of_the_curve(records, tmp_path):
    methods = {"cut": {point: {**CUT, "options": {"budget": point}} for point in (50_000, 45_000, 40_000, 35_000, 30_000)}}
    experiment = replace(SWEEP, methods=methods, curve=True, controls=(), seeds=(0,))
    runs = [{**records[CUT_KEY], "point": point, "spec": experiment.spec("cut", point), "seed": 0} for point in methods["cut"]]
    results = Results(tmp_path / "x.json")
    stopped = {name: runs[-1][name] for name in ("method", "point", "seed", "spec")} | {"stopped": "the loss is not finite"}
    for record in [*runs[:-1], stopped]:
        results.add(record)
    assert [row.point for row in table(results, ["cut"], experiment) if row.seeds] == [50_000, 45_000, 40_000, 35_000]
    results.runs.pop()
    with pytest.raises(ProtocolError, match="cut: 4 operating points"):
        table(results, ["cut"], experiment)


def test_a_good_sweep_keeps_every_rule(swept, records):
    results = Results(swept / "sweep.json")
    assert all(violations(r, SWEEP) == [] for r in results.runs)
    assert {(row.method, row.point) for row in table(results, experiment=SWEEP)} == {(m, p) for m, p, _ in SWEEP.tasks()}


def plant(record, **changes):
    return {**record, **changes}


def flipped(record):
    return {name: pack(unpack(mask, (record["sites"][name][0],)).flip(0)) for name, mask in record["mask"].items()}


CUT_KEY, RANDOM_KEY, DENSE_KEY = ("cut", 30_000, 0), ("random", 30_000, 0), ("dense", None, 0)
PLANTED = {
    "another specification": (CUT_KEY, lambda r: plant(r, spec={**r["spec"], "untrained": True}), "another version of the spec"),
    "other data": (CUT_KEY, lambda r: plant(r, data="mnist"), "made with mnist, not with digits"),
    "a strange seed": (CUT_KEY, lambda r: plant(r, seed=7), "seed 7 is none of"),
    "more steps than epochs": (CUT_KEY, lambda r: plant(r, task_steps=99), "99 task steps are more than its 2 epochs"),
    "more epochs": (CUT_KEY, lambda r: plant(r, epochs=3), "3 epochs of task steps, not the 2"),
    "fewer epochs": (DENSE_KEY, lambda r: plant(r, epochs=1, task_steps=20), "1 epochs of task steps, not the 2"),
    "no number": (CUT_KEY, lambda r: plant(r, test_loss=float("nan")), "not a number"),
    "an accuracy in percent": (CUT_KEY, lambda r: plant(r, test_accuracy=97.0), "not a number"),
    "no time": (CUT_KEY, lambda r: plant(r, seconds=0.0), "training time and MACs"),
    "no MACs": (CUT_KEY, lambda r: plant(r, macs=0), "training time and MACs"),
    "a certificate": (CUT_KEY, lambda r: plant(r, certificate=1e-6), "certificate"),
    "no certificate": (CUT_KEY, lambda r: plant(r, certificate=None), "certificate"),
    "no sites": (CUT_KEY, lambda r: plant(r, sites={}, on_at_start={}, mask={}), "what is off is not told"),
    "nothing at the start": (CUT_KEY, lambda r: plant(r, on_at_start={}), "what was off before training"),
    "more on than there is": (CUT_KEY, lambda r: plant(r, sites={**r["sites"], "fc2": [100, 101]}), "more is on"),
    "another mask": (CUT_KEY, lambda r: plant(r, mask={**r["mask"], "fc2": pack(torch.zeros(100))}), "at 'fc2' the mask"),
    "fewer parameters than its shape": (CUT_KEY, lambda r: plant(r, parameters=9_000), "9,000 parameters are told, its structure has"),
    "a dense count": (DENSE_KEY, lambda r: plant(r, parameters=266_611), "its structure has 266,610"),
    "no version": (CUT_KEY, lambda r: plant(r, torch=None), "does not tell torch"),
    "no Python": (CUT_KEY, lambda r: {k: v for k, v in r.items() if k != "python"}, "does not tell python"),
    "no commit": (CUT_KEY, lambda r: plant(r, commit=None), "does not tell commit"),
    "no training cost": (CUT_KEY, lambda r: {k: v for k, v in r.items() if k != "switcher_steps"}, "does not tell switcher_steps"),
    "a point that is not there": (CUT_KEY, lambda r: plant(r, point=7), "no such method and operating point|no result for seed"),
    "other counts than its source": (RANDOM_KEY, lambda r: plant(r, sites={k: [t, t] for k, (t, _) in r["sites"].items()}, mask={},
                                                                 parameters=266_610), "did not take over what 'cut' at 30,000 has"),
    "another structure than its source": (("scratch", 20_000, 1), lambda r: plant(r, mask=flipped(r)), "did not take over what 'cut' at 20,000 has"),
}


def assert_refused(records, experiment, tmp_path, capsys, message, methods=None):
    """Refused by the function and by the command; printed as a draft."""
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps({"format": 1, "runs": records}))
    with pytest.raises(ProtocolError, match=message):
        table(Results(path), methods, experiment)
    (tmp_path / "spec").mkdir()
    spec = as_json(experiment, tmp_path / "spec" / "sweep.json")
    with pytest.raises(SystemExit) as caught:
        main(["table", str(spec), "--folder", str(tmp_path)])
    assert caught.value.code == 2 and "against a table" in capsys.readouterr().err
    main(["table", str(spec), "--folder", str(tmp_path), "--draft"])
    assert capsys.readouterr().out.startswith("DRAFT")


@pytest.mark.parametrize("where, spoil, message", PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_refused(records, tmp_path, capsys, where, spoil, message):
    records[where] = spoil(copy.deepcopy(records[where]))
    assert_refused(list(records.values()), SWEEP, tmp_path, capsys, message)


def test_a_run_above_its_operating_point_is_refused(records, tmp_path, capsys):
    experiment = replace(SWEEP, methods={"cut": {20_000: CUT}}, controls=())    # its budget is 30,000
    spoilt = [{**r, "point": 20_000} for (m, p, _), r in records.items() if (m, p) == ("cut", 30_000)]
    assert_refused(spoilt, experiment, tmp_path, capsys, "are more than the operating point of 20000")


def test_an_operating_point_counts_macs_where_those_are_the_price(records):
    spec = {**CUT, "switched": {**CUT["switched"], "price": "macs"}}
    record = {**copy.deepcopy(records["cut", 30_000, 0]), "spec": spec, "point": 28_000}
    assert record["macs"] < 30_000 <= record["parameters"] + 200    # biases cost no MACs
    for point, words in ((record["macs"], []), (record["macs"] - 1, [f"{record['macs']:,} MACs are more than the operating point"])):
        told = violations({**record, "point": point}, replace(SWEEP, methods={"cut": {point: spec}}, controls=()))
        assert len(told) == len(words) and all(part in told[0] for part in words)


def test_an_operating_point_may_count_a_weighted_sum(records):
    spec = {**CUT, "switched": {**CUT["switched"], "price": {"parameters": 1, "macs": 0.5}}}
    record = {**copy.deepcopy(records["cut", 30_000, 0]), "spec": spec}
    size = record["parameters"] + 0.5 * record["macs"]
    for point, right in ((math.ceil(size), True), (math.ceil(size) - 1, False)):
        told = violations({**record, "point": point}, replace(SWEEP, methods={"cut": {point: spec}}, controls=()))
        assert right == (not told) and all("parameters + 0.5 · MACs are more than" in words for words in told)


def test_part_of_a_data_set_is_refused(records):
    record = {**records[DENSE_KEY], "data": "mnist", "train_examples": 55_000, "task_steps": 1000}
    assert any("not on the whole training split" in words for words in violations(record, replace(SWEEP, data="mnist")))


@pytest.mark.parametrize("left, message", [
    (lambda m, p, s: (m, s) != ("dense", 1), "dense: no result for seed 1"),
    (lambda m, p, s: m != "random", "random at 30,000: no result for seeds 0, 1"),
    (lambda m, p, s: (m, p, s) != ("cut", 20_000, 0), "cut at 20,000: no result for seed 0"),
], ids=["a seed", "a control", "a seed of a point"])
def test_what_is_missing_is_refused(records, tmp_path, capsys, left, message):
    assert_refused([r for where, r in records.items() if left(*where)], SWEEP, tmp_path, capsys, message)


def test_a_seed_that_is_there_twice_is_refused(records, tmp_path, capsys):
    assert_refused([*records.values(), records[CUT_KEY]], SWEEP, tmp_path, capsys, "cut at 30,000, seed 0: 2 results")


def test_a_control_is_needed_even_where_it_is_not_asked_for(records, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "runs": [r for w, r in records.items() if w[0] != "random"]}))
    with pytest.raises(ProtocolError, match="random at 30,000: no result"):
        table(Results(tmp_path / "x.json"), ["dense"], SWEEP)


def test_a_curve_needs_five_operating_points(records, tmp_path, capsys):
    assert_refused(list(records.values()), replace(SWEEP, curve=True), tmp_path, capsys, "cut: 2 operating points; a curve has at least 5")
    table(Results(tmp_path / "sweep.json"), ["dense"], replace(SWEEP, curve=True, controls=()))    # nothing was searched there


# -------- shapes, to count and to time

@pytest.mark.parametrize("model, options, switched", [
    ("lenet_300_100", {}, {"switch_inputs": True}), ("lenet_300_100", {"batch_norm": True}, {"switch_inputs": True}),
    ("lenet_300_100", {}, {}), ("lenet_5", {}, {}), ("lenet_5", {}, {"switch_flattened": True}), ("conv_net", {}, {}),
    ("lenet_5", {"batch_norm": True}, {}), ("conv_net", {}, {"switch_flattened": True}), ("conv_net", {"batch_norm": False}, {}),
    ("vgg_16_bn", {"widths": [6, 7] * 6 + [8]}, {}), ("vgg_16_bn", {"widths": [5] * 13, "in_shape": [3, 64, 32]}, {"switch_flattened": True}),
    ("resnet_20", {"widths": [4, 6, 8]}, {"face": "outgoing"}), ("mobilenet", {"widths": [6] * 14}, {}),
])
def test_a_rebuilt_shape_is_the_compacted_one(model, options, switched, monkeypatch):
    torch.manual_seed(0)
    network, masks = models.make(model, **options), {}
    example = torch.randn(4, *options.get("in_shape", (1, 28, 28) if model.startswith("lenet") else (3, 32, 32)))

    def random_masks(sites):
        masks.update({site.key: (torch.rand(site.shape) < (0.1 if site.key.endswith("_in") else 0.5)).float() for site in sites})
        for mask in masks.values():    # no layer goes as a whole
            mask[0] = 1
        return FixedSwitcher(sites, masks)

    net = Switched(network, example, switcher=random_masks, **switched)
    small = compact(net, example).model
    if options.get("batch_norm"):
        small = fold_batchnorm(small)
    spec = {**SEARCH, "model": options, "switched": switched}
    monkeypatch.setattr(data, "form", lambda name: (tuple(example.shape[1:]), 10))    # nothing is trained here
    experiment = Experiment("?", model, "digits", {"m": spec, "taken over": {**DENSE, "model": options, "same_structure_as": "m"}})
    record = dict(method="m", seed=0, spec=spec, mask={key: pack(m) for key, m in masks.items()},
                  sites={key: [m.numel(), int(m.sum())] for key, m in masks.items()})
    again = rebuild(record, experiment)
    assert {name: p.shape for name, p in again.named_parameters()} == {name: p.shape for name, p in small.named_parameters()}
    buffers = dict(again.named_buffers())
    assert all(buffers[name].equal(b) for name, b in small.named_buffers() if name.endswith("index"))
    assert again(example).shape == small(example).shape
    if "switch_flattened" not in switched:    # there, channels go with the last of their features
        assert count(record, experiment) == count_parameters(small)
    record |= {"method": "taken over", "spec": experiment.methods["taken over"]}
    assert count_parameters(rebuild(record, experiment)) == count_parameters(small)


def test_a_record_without_masks_is_rebuilt_by_its_counts():
    sites = {"input": [784, 313], "fc1": [300, 73], "fc2": [100, 97]}
    record = dict(method="cut", seed=0, spec={**CUT, "options": {"budget": 40_000}}, sites=sites)
    experiment = replace(TINY, methods={"cut": record["spec"]})
    assert count(record, experiment) == count_parameters(rebuild(record, experiment)) == 31_080
    with pytest.raises(ValueError, match="switches connections"):
        rebuild({**record, "level": "connection"}, experiment)


def test_a_plain_run_is_counted_and_rebuilt_dense():
    experiment = Experiment("?", "resnet_20", "digits_rgb", {"dense": {**DENSE, "model": {"widths": [2, 3, 4]}}})
    record = dict(method="dense", seed=0, spec=experiment.methods["dense"], sites={}, mask={})
    dense = count_parameters(models.resnet_20(widths=(2, 3, 4)))
    assert count(record, experiment) == count_parameters(rebuild(record, experiment)) == dense


def test_counting_draws_nothing_from_the_global_generator(records):
    before = torch.get_rng_state()
    experiments.results._dense.cache_clear()
    count(records[CUT_KEY], SWEEP)
    assert torch.equal(before, torch.get_rng_state())


def test_latency_is_told_with_its_conditions(records, tmp_path, capsys, monkeypatch):
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "runs": list(records.values())}))
    (tmp_path / "spec").mkdir()
    real, shapes = latency.compare_latency, []
    monkeypatch.setattr(latency, "rebuild", lambda record, experiment: shapes.append(record["seed"]) or rebuild(record, experiment))
    monkeypatch.setattr(latency, "compare_latency", lambda networks, x, runs: real(networks, x, runs=5, warmup=1))
    main(["latency", str(as_json(SWEEP, tmp_path / "spec" / "sweep.json")), "--folder", str(tmp_path)])
    assert "ms at batch  64  cut at 20,000" in capsys.readouterr().out and shapes == [0] * 5
    content = json.loads((tmp_path / "sweep-latency.json").read_text())
    assert set(content["conditions"]) == {"device", "machine", "torch", "python"}
    for batch in (1, 64):
        lines = [line for line in content["times"] if line["batch"] == batch]
        assert [(line["method"], line["point"]) for line in lines] == [
            ("dense network", None), ("cut", 20_000), ("cut", 30_000), ("dense", None), ("random", 30_000), ("scratch", 20_000)]
        assert all(0 < line["low"] <= line["median"] <= line["high"] and line["threads"] == 1 for line in lines)
        assert [line["parameters"] <= 30_000 for line in lines] == [False, True, True, False, True, True]
    assert not list(tmp_path.glob(".*.part"))


def test_a_page_reads_what_was_measured(records, tmp_path, monkeypatch, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "sweep.json").write_text(json.dumps({"format": 1, "runs": list(records.values())}))
    real = latency.compare_latency
    monkeypatch.setattr(latency, "compare_latency", lambda networks, x, runs: real(networks, x, runs=3, warmup=1))
    monkeypatch.chdir(tmp_path)
    assert experiments.stored_latency("sweep") == {}
    assert "experiments latency sweep makes it" in capsys.readouterr().out
    lines = latency.measure("sweep", SWEEP)
    found = experiments.stored_latency("sweep")
    assert {(line["method"], line["point"]) for line in lines} == set(found) > {("dense network", None), ("cut", 20_000)}
    assert all(set(times) == {1, 64} and times[64].batch == 64 for times in found.values())
    assert found["cut", 20_000][1].median == next(t["median"] for t in lines if (t["method"], t["point"], t["batch"]) == ("cut", 20_000, 1))


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*-latency.json")), ids=lambda path: path.stem)
def test_committed_times_are_of_the_shapes_in_the_committed_results(path):
    name = path.stem.removesuffix("-latency")
    experiment, results = experiments.EXPERIMENTS[name], Results(path.with_name(f"{name}.json"))
    times = [line for line in json.loads(path.read_text())["times"] if line["method"] != "dense network"]
    assert times
    for line in times:
        record = results.find(line["method"], line["point"], experiment.seeds[0])
        assert count_parameters(rebuild(record, experiment)) == line["parameters"]


def test_the_dense_network_that_is_timed_has_the_experiments_own_options(tmp_path, monkeypatch):
    options = {"in_shape": [1, 28, 28], "num_classes": 10, "widths": [7, 5]}
    experiment = Experiment("?", "lenet_300_100", "mnist", {"dense": {**DENSE, "model": options}}, seeds=(0,))
    record = dict(method="dense", seed=0, spec=experiment.methods["dense"], sites={}, mask={})
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "runs": [record]}))
    real = latency.compare_latency
    monkeypatch.setattr(latency, "check", lambda *told: None)
    monkeypatch.setattr(latency, "compare_latency", lambda nets, x, runs: real(nets, x, runs=3, warmup=1))
    monkeypatch.setattr(data, "load", lambda name: data.from_tensors(
        "mnist", (torch.rand(64, 1, 28, 28), torch.arange(64) % 10), (torch.rand(9, 1, 28, 28), torch.arange(9)), num_classes=10))
    times = latency.measure("x", experiment, tmp_path)
    assert {line["parameters"] for line in times} == {784 * 7 + 7 + 7 * 5 + 5 + 5 * 10 + 10}


@pytest.mark.parametrize("change, words", [
    ({"options": {"hidden": 0}}, "hidden=0"), ({"options": {"saturation": -1}}, "saturation=-1"), ({"options": {"reads": "x"}}, "reads='x'"),
    ({"switched": {"refresh": 0}}, "refresh=0"), ({"switched": {"face": "x"}}, "face='x'"), ({"switched": {"skip": "fc1"}}, "skip"),
    ({"switched": {"flow": True, "refresh": 4}}, "flow=True needs"),
    ({"switcher": "magnitude", "options": {"budget": 9}, "fit": {"epochs": 2, "freeze": 0.5}}, "freeze=0.5 fixes the structure"),
    ({"model": {"widths": [0, "a"]}}, "widths"),
])
def test_what_only_a_model_or_a_switcher_refuses_is_refused_before_anything_is_trained(change, words, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run_one", fake_run(ran := []))
    monkeypatch.setattr(runner, "pretrain_one", lambda *told: ran.append(told))
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"^switcher: .*{words}"):
        runner.run("x", folder=tmp_path, progress=False, experiment=replace(TINY, methods=spoilt(**change)))
    assert not ran and torch.equal(before, torch.get_rng_state())
    runner.run("x", folder=tmp_path, progress=False, experiment=TINY)
    assert ran


@pytest.mark.parametrize("field", ["curve", "tuning"])
def test_a_text_is_no_truth(field):
    with pytest.raises(ValueError, match=f"{field}='false' must be true or false"):
        replace(TINY, **{field: "false"})


def test_a_missing_way_to_augment_may_be_written_out():
    path = spoilt("dense", fit={"epochs": 1, "augment": None})
    assert replace(TINY, methods=path).spec("dense")["fit"]["augment"] is None


def test_latency_is_measured_on_the_datas_images(tmp_path, monkeypatch):
    experiment = Experiment("?", "conv_net", "digits", {"dense": {**DENSE, "model": {"in_shape": [1, 28, 28]}}}, seeds=(0,))
    record = dict(method="dense", seed=0, spec=experiment.methods["dense"], sites={}, mask={})
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "runs": [record]}))
    real, shapes = latency.compare_latency, []
    monkeypatch.setattr(latency, "check", lambda *told: None)
    monkeypatch.setattr(latency, "compare_latency", lambda nets, x, runs: shapes.append(tuple(x.shape)) or real(nets, x, runs=3, warmup=1))
    times = latency.measure("x", experiment, tmp_path)
    assert shapes == [(1, 1, 28, 28), (64, 1, 28, 28)] and [t["method"] for t in times] == ["dense network", "dense"] * 2


# -------- tables

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


@pytest.mark.parametrize("path", [p for p in sorted((ROOT / "results").glob("*.json")) if p.stem in experiments.EXPERIMENTS],
                         ids=lambda path: path.stem)
def test_committed_results_were_made_by_the_present_specifications_and_keep_the_protocol(path):
    experiment, results = experiments.EXPERIMENTS[path.stem], Results(path)
    have = {key(r) for r in results.runs}
    assert have <= set(experiment.tasks())
    for record in results.runs:
        assert violations(record, experiment) == [], f"{key(record)}: run the experiment again"
    complete = [m for m in experiment.methods if have >= set(experiment.tasks([m]))]    # a long sweep may still go on
    assert complete and set(experiment.controls) <= set(complete)
    check(results, experiment, complete)


@pytest.mark.parametrize("trials, choice, size, name", [
    (comparison.NEURON_TRIALS, comparison.NEURON_CHOICE, comparison.TUNED_AT, "lenet300-neurons-tuning"),
    (comparison.CONNECTION_TRIALS, comparison.CONNECTION_CHOICE, min(comparison.CONNECTION_SIZES), "lenet300-connections-tuning"),
    (comparison.LATER_TRIALS, comparison.LATER_CHOICE, min(comparison.CONNECTION_SIZES), "lenet300-entry-later-tuning"),
    (lenet5.NEURON_TRIALS, lenet5.NEURON_CHOICE, lenet5.TUNED_AT, "lenet5-neurons-tuning"),
    (lenet5.CONNECTION_TRIALS, lenet5.CONNECTION_CHOICE, lenet5.CONNECTION_TUNED_AT, "lenet5-connections-tuning"),
    (cifar.RESNET_TRIALS, cifar.RESNET_CHOICE, cifar.RESNET_SIZES[1], "cifar-resnet20-tuning"),
])
def test_the_settings_of_a_comparison_are_those_that_won_the_tuning(trials, choice, size, name):
    results = experiments.load(name, ROOT / "results")
    assert len({len(makes) for makes in trials.values()}) == 1, "every method has as many trials"
    for method, makes in trials.items():
        runs = [results.find(f"{method}, trial {i}", size, 100) for i in range(len(makes))]
        price = makes[0](size)["switched"].get("price", "parameters")
        small = [i for i, run in enumerate(runs) if "stopped" not in run and run[price] <= size]
        assert choice[method] == max(small, key=lambda i: runs[i]["test_accuracy"]), method


def test_seeds_are_parsed():
    assert seeds_of("0-4") == [0, 1, 2, 3, 4] and seeds_of("2,5") == [2, 5] and seeds_of("3") == [3]


def test_the_command_lists_runs_and_tells_the_table(swept, tmp_path, capsys):
    main(["list"])
    assert "lenet300-free: " in capsys.readouterr().out
    spec = as_json(SWEEP, tmp_path / "sweep.json")
    main(["table", str(spec), "--folder", str(swept)])
    assert "cut at 20,000" in (told := capsys.readouterr().out)
    main(["run", str(spec), "--folder", str(swept)])    # nothing is left to do
    assert capsys.readouterr().out.splitlines()[0] == told.splitlines()[0]


def test_a_ramp_goes_where_it_says():
    line, curve = ramp(2.0, 10.0, 0.5), ramp(1.0, 100.0, 0.5, shape="exponential")
    late = ramp(2.0, 10.0, 0.6, begin=0.2)
    assert [late(t) for t in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([2, 2, 6, 10, 10])
    assert [line(t) for t in (0, 0.25, 0.5, 1)] == [2, 6, 10, 10]
    assert [curve(t) for t in (0, 0.25, 0.5, 1)] == pytest.approx([1, 10, 100, 100])
