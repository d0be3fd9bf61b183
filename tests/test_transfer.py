"""Transfer: a judge learned on some networks cuts another, within its budget, better than what has not learned."""

import copy
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import networks
import switcher_lib as sl
from switcher_lib import experiments
from switcher_lib.experiments import Experiment, runner, transfer, violations
from switcher_lib.switchers import keep_within
from switcher_lib.transfer import DESCRIPTION, describe


def mlp(widths=(6, 5, 4, 3), seed=0):
    model = networks.mlp(widths, seed=seed)
    return model, torch.randn(2, widths[0])


def put(judge, model, budget, example):
    return sl.Switched(model, example, switcher=judge.on(budget), switch_inputs=True)


def params_of(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def some_judge(seed=0):
    """A judge whose scores and factors both depend on what it reads."""
    torch.manual_seed(seed)
    judge = sl.Judge()
    torch.nn.init.normal_(judge.gain.weight, std=0.3)
    return judge


# -------- what a neuron is known by

def permuted(model, orders):
    """A copy of an mlp whose inputs and hidden neurons stand in another order."""
    model = copy.deepcopy(model)
    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(layer.weight[:, orders[i]])
            if i + 1 < len(layers):
                layer.weight.copy_(layer.weight[orders[i + 1]])
                layer.bias.copy_(layer.bias[orders[i + 1]])
    return model


def test_permuting_neurons_anywhere_permutes_factors_and_changes_none():
    model, example = mlp((8, 7, 6, 3))
    orders = [torch.randperm(n) for n in (8, 7, 6)]
    one = put(some_judge(), model, 60, example).factors()
    other = put(some_judge(), permuted(model, orders), 60, example).factors()
    for order, (key, s) in zip(orders, one.items()):
        assert 0 < (s != 0).sum() and s[s != 0].unique().numel() > 1 or s.count_nonzero() == 1
        torch.testing.assert_close(other[key], s[order])


def test_the_description_is_finite_whatever_the_weights():
    model, example = mlp((4, 1, 3, 2))
    for scale in (0.0, 1e-20, 1e6):
        params = {name: scale * p for name, p in params_of(model).items()}
        described = describe(put(sl.Judge(), model, 9, example).sites, params)
        assert described.shape == (8, DESCRIPTION) and described.isfinite().all()


def test_path_sums_are_those_of_all_paths():
    model, example = mlp((3, 4, 5, 2))
    sites, params = put(sl.Judge(), model, 9, example).sites, params_of(model)
    for name in params:
        if name.endswith("bias"):
            params[name] = torch.zeros_like(params[name])    # no path starts at a bias
    w1, w2, w3 = (params[f"fc{i}.weight"].square() for i in (1, 2, 3))
    to = [torch.ones(3), w1.sum(1), w2 @ w1.sum(1)]
    on = [w1.T @ (w2.T @ w3.sum(0)), w2.T @ w3.sum(0), w3.sum(0)]
    for found, a, b in zip(sl.transfer._paths(sites, params), to, on):
        expected = torch.stack([(a / a.mean()).log(), (b / b.mean()).log(), (a / a.mean() * b / b.mean()).log()], 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# -------- the budget

@pytest.mark.parametrize("budget", [30, 45, 60, 82, 1000])
def test_the_budget_is_kept_and_used(budget):
    model, example = mlp((6, 7, 4, 3))    # 49 + 32 + 15 = 96 parameters
    net = put(some_judge(), model, budget, example)
    factors, params = net.factors(), net.params()
    on = {key: (s != 0).double() for key, s in factors.items()}
    assert float(net.count(on)) <= budget
    scores = dict(zip(on, net.switcher._split(net.switcher.judge(describe(net.sites, params), min(1.0, budget / 96))[0])))
    kept = keep_within(net, scores, budget)    # found in another way
    assert all(torch.equal(on[key], kept[key].double()) for key in on)


def test_at_least_one_neuron_of_each_site_stays():
    model, example = mlp()
    assert all(s.count_nonzero() == 1 for s in put(some_judge(), model, 1, example).factors().values())


def test_the_count_is_switcheds_own_for_convolutions_too():
    for model, example in ((sl.models.lenet_5(), torch.randn(2, 1, 28, 28)), mlp()):
        net = put(some_judge(), model, 5000, example)
        on = [torch.rand(site.size).round() for site in net.sites]
        counted = net.switcher._count(net.params(), torch.cat(on))
        assert float(counted) == float(net.count({site.key: one for site, one in zip(net.sites, on)}))
        assert net.structure().parameters[1] <= 5000


def test_the_threshold_moves_so_that_the_soft_count_stays():
    """Raising all scores alike changes nothing, and so has no gradient; raising one costs what the others must give."""
    model, example = mlp((6, 7, 4, 3))
    net = put(some_judge(), model, 50, example)
    params, bias = params_of(model), net.switcher.judge.score.bias
    factors = net.switcher.decide(describe(net.sites, params), params, 50)
    weights = [torch.randn_like(s) for s in factors.values()]
    loss = sum((w * s).sum() for w, s in zip(weights, factors.values()))
    grad, = torch.autograd.grad(loss, bias, retain_graph=True)
    assert abs(float(grad)) < 1e-5
    on = torch.cat(list(factors.values())) != 0
    assert on.any() and not on.all()
    assert torch.autograd.grad(loss, net.switcher.judge.score.weight)[0].abs().sum() > 1e-3


# -------- learning

BLOBS = 24    # of the inputs, the first six tell the class and the others are noise


def blobs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    images = torch.randn(n, BLOBS, generator=generator)
    images[:, :6] += 1.6 * F.one_hot(labels, 3).repeat(1, 2)
    return sl.data.Split(images, labels)


def learner(seed, widths=(16, 10)):
    model = networks.mlp((BLOBS, *widths, 3), seed=seed)
    sl.fit(model, blobs(600, 0), epochs=6, batch_size=32, seed=seed, progress=False,
           task_optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-3))
    return model


@pytest.fixture(scope="module")
def learned():
    known = [learner(seed, widths) for seed, widths in ((100, (16, 10)), (101, (12, 14)), (102, (20, 8)))]
    before = [copy.deepcopy(model.state_dict()) for model in known]
    for model in known:
        model.zero_grad()
    judge = sl.learn_across(known, blobs(600, 0), budgets=(0.1, 0.6), steps=300, batch_size=64, lr=1e-2, progress=False)
    for model, old in zip(known, before):
        assert all(torch.equal(p, old[name]) and p.grad is None for name, p in model.named_parameters())
    return judge


def test_an_unseen_network_loses_less_than_by_a_coin_or_an_unlearned_judge(learned):
    test, example = blobs(1000, 1), torch.randn(2, BLOBS)
    for widths in ((16, 10), (24, 6)):
        losses = {}
        for seed in range(3):
            model = learner(seed, widths)
            torch.manual_seed(seed)
            for name, judge in (("learned", learned), ("unlearned", sl.Judge())):
                net = put(judge, model, 200, example)
                losses.setdefault(name, []).append(sl.evaluate(net, test).loss)
            coin = keep_within(net, {site.key: torch.rand(site.size) for site in net.sites}, 200, "layer")
            net.hold(coin)
            losses.setdefault("coin", []).append(sl.evaluate(net, test).loss)
        ours, unlearned, coin = (sum(of) / 3 for of in losses.values())
        assert ours < 0.7 * min(unlearned, coin), losses


def test_what_the_judge_says_can_be_folded_and_compacted(learned):
    small = sl.compact(put(learned, learner(7), 120, torch.randn(2, BLOBS)), blobs(50, 2).images)
    assert small.certificate.relative_error < 1e-12 and sl.metrics.count_parameters(small.model) <= 120


def test_what_is_off_while_learning_hears_whether_it_should_come_on(monkeypatch):
    nets = []
    monkeypatch.setattr(sl.transfer, "Switched", lambda *given, **named: nets.append(sl.Switched(*given, **named)) or nets[-1])
    sl.learn_across([learner(0)], blobs(100, 0), steps=1, progress=False)
    params, split = params_of(nets[0].model), blobs(100, 1)
    for off in nets[0].sites:
        factors = {site.key: torch.ones(site.size) for site in nets[0].sites}
        factors[off.key] = torch.zeros(off.size, requires_grad=True)
        F.cross_entropy(nets[0]._run(split.images, factors, params), split.labels).backward()
        assert factors[off.key].grad.count_nonzero() > off.size / 2, off.key


def test_learning_is_repeatable_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    model, state = learner(0), torch.get_rng_state()
    one, two, other = (sl.learn_across([model], blobs(100, 0), steps=5, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.score.weight, two.score.weight) and not torch.equal(one.score.weight, other.score.weight)
    assert not any(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize("arguments, words", [
    ({"networks": []}, "networks"), ({"networks": ["fc1"]}, "networks"), ({"steps": 0}, "steps=0"),
    ({"batch_size": 1.5}, "batch_size=1.5"), ({"budgets": (0.5, 0.1)}, "budgets"), ({"budgets": 0.5}, "budgets=0.5"),
    ({"budgets": (0.0, 0.1)}, "budgets"), ({"lr": 0}, "lr=0"), ({"noise": -1.0}, "noise=-1.0"), ({"hidden": 0}, "hidden=0"),
])
def test_bad_arguments_are_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        sl.learn_across(**{"networks": [mlp()[0]], "data": blobs(10, 0), "progress": False, **arguments})


def test_bad_budgets_and_judges_are_told():
    model, example = mlp()
    for budget in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"budget={budget!r}"):
            put(sl.Judge(), model, budget, example)
    with pytest.raises(ValueError, match="judge='row'"):
        sl.TransferSwitcher((), "row", 10)
    with pytest.raises(ValueError, match="cannot be used at level='connection'"):
        sl.Switched(model, example, level="connection", switcher=sl.Judge().on(10))


# -------- the experiment

TRAIN = {"fit": {"epochs": 1, "batch_size": 128}, "task_sgd": {"lr": 0.05, "momentum": 0.9}}
LEARN = {"data": "digits", **TRAIN, "networks": [[100, [30, 20]], [101, [20, 20]]], "steps": 5}
CUT = {"kind": "transfer", **TRAIN, "model": {"widths": [30, 20]}, "switched": {"switch_inputs": True}}
TINY = Experiment("tiny?", "lenet_300_100", "digits", {
    "switcher": {9_000: {**CUT, "switcher": "learned", "options": {"budget": 9_000}, "learn": LEARN}},
    "switcher, trained on": {9_000: {**CUT, "switcher": "learned", "options": {"budget": 9_000}, "learn": LEARN,
                                     "finetune": {"epochs": 1, "batch_size": 128, "task_sgd": {"lr": 0.05}}}},
    "magnitude": {9_000: {**CUT, "switcher": "magnitude", "options": {"budget": 9_000}}},
    "random": {9_000: {**CUT, "switcher": "random", "options": {"budget": 9_000, "scope": "layer"}}},
}, seeds=(0, 1))


def test_the_experiment_runs_resumes_and_makes_a_table(tmp_path, monkeypatch, capsys):
    transfer._trained.cache_clear(), transfer._learned.cache_clear()
    monkeypatch.setattr(runner, "_commit", lambda: "abc1234")    # the tests may run without a git repository
    results = experiments.run("tiny", experiment=TINY, folder=tmp_path, threads=1, progress=False)
    assert len(results.runs) == 8 and not any(violations(r, TINY) for r in results.runs)
    assert transfer._trained.cache_info().misses == 4 and transfer._learned.cache_info().misses == 1    # each is trained once
    assert all(r["parameters"] <= 9_000 and r["certificate"] < 1e-12 for r in results.runs)
    raw, after = results.of("switcher", 9_000)[0], results.of("switcher, trained on", 9_000)[0]
    assert raw["mask"] == after["mask"] and after["task_steps"] == 2 * raw["task_steps"]
    assert raw["mask"] != results.of("magnitude", 9_000)[0]["mask"] != results.of("random", 9_000)[0]["mask"]
    assert results.of("random", 9_000)[0]["mask"] != results.of("random", 9_000)[1]["mask"]
    for broken, words in (({"certificate": 1e-3}, "its certificate"), ({"parameters": 9_001}, "its structure has")):
        assert any(words in reason for reason in violations({**raw, **broken}, TINY))
    rows = experiments.table(results, experiment=TINY)
    assert [row.method for row in rows] == list(TINY.methods)
    monkeypatch.setattr(runner, "run_one", None)    # nothing is left to run
    experiments.run("tiny", experiment=TINY, folder=tmp_path, progress=False)


def test_a_record_does_not_depend_on_what_ran_before_it():
    def run(method):
        record, _ = runner.run_one(TINY, method, 9_000, seed=0)
        return {name: record[name] for name in ("test_accuracy", "mask", "sites")}

    transfer._trained.cache_clear(), transfer._learned.cache_clear()
    fresh = run("switcher, trained on")
    run("random")
    assert run("switcher, trained on") == fresh


@pytest.mark.parametrize("changes, words", [
    ({"switcher": "learnt"}, "did you mean 'learned'"), ({"learn": None}, "learn"), ({"options": {}}, "budget"),
    ({"options": {"budget": 0}}, "budget=0"), ({"options": {"budget": 5, "scope": "layer"}}, "scope"),
    ({"switched": {"noise": 0.1}}, "noise"), ({"pretrain": {}}, "pretrain"),
    ({"learn": {**LEARN, "data": "mnits"}}, "did you mean 'mnist'"),
    ({"learn": {**LEARN, "steps_": 3}}, "did you mean 'steps'"), ({"learn": {**LEARN, "networks": [[1]]}}, "networks"),
    ({"learn": {name: value for name, value in LEARN.items() if name != "networks"}}, "networks"),
    ({"learn": {**LEARN, "fit": {"epochs": 0}}}, "epochs=0"), ({"finetune": {"task_sgd": {}}}, "epochs"),
])
def test_bad_specifications_are_told(changes, words):
    spec = {**TINY.spec("switcher", 9_000), **changes}
    spec = {name: value for name, value in spec.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        replace(TINY, methods={"switcher": {9_000: spec}})


def test_no_unseen_network_is_in_the_learning_set():
    for experiment in transfer.EXPERIMENTS.values():
        assert json.loads(json.dumps(experiment.methods["switcher"][60_000])) == experiment.methods["switcher"][60_000]
        learned_on = experiment.methods["switcher"][60_000]["learn"]["networks"]
        assert not {seed for seed, _ in learned_on} & set(experiment.seeds)
    widths = transfer.WIDTH.methods["switcher"][60_000]["model"]["widths"]
    assert widths not in [known for _, known in transfer.LEARN["networks"]]
