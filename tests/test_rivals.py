"""The other answers to who decides, and the controls: each does what its formula says, and nothing else.

That a budget is kept as well as it can be, for any scores: test_properties.py.
"""

import math
from functools import partial

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

import switcher_lib as sl
from switcher_lib import switchers, training
from switcher_lib.switchers import BudgetSwitcher, keep_within

fit = partial(sl.fit, progress=False)
LEVELS = pytest.mark.parametrize("level", ["neuron", "connection"])


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def switched(switcher, model=None, x=None, seed=0, **options):
    model = model or networks.mlp((6, 8, 5, 3), seed=seed)
    torch.manual_seed(seed)
    return sl.Switched(model, networks.inputs(model) if x is None else x, switcher=switcher, **options)


def small_sites():
    """Sites of five neurons."""
    return sl.find_sites(networks.mlp((6, 5, 3)), torch.randn(2, 6))[0]


def on(net):
    return {key: int((s != 0).sum()) for key, s in net.eval().factors().items()}


# -------- hard concrete

def concrete(n=4, **options):
    """A hard concrete switcher of n neurons, and its only log α."""
    sites, _ = sl.find_sites(networks.mlp((3, n, 2)), torch.randn(2, 3))
    switcher = sl.HardConcreteSwitcher(sites, **options)
    return switcher, switcher.log_alpha["fc1"]


def test_hard_concrete_in_training_is_the_papers_formula(monkeypatch):
    switcher, log_alpha = concrete(beta=0.5, gamma=-0.2, zeta=1.3)
    with torch.no_grad():
        log_alpha.copy_(torch.tensor([-2.0, -0.5, 0.5, 2.0]))
    u = torch.tensor([0.5, 0.45, 0.5, 0.9])
    monkeypatch.setattr(torch, "rand_like", lambda *_, **__: u.clone())
    s = switcher.train()({})["fc1"]
    expected = []
    for a, v in zip([-2.0, -0.5, 0.5, 2.0], u.tolist()):
        inner = 1 / (1 + math.exp(-(math.log(v) - math.log(1 - v) + a) / 0.5))
        expected.append(min(1, max(0, inner * 1.5 - 0.2)))
    assert s.tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[0] == 0 and 0 < expected[1] < expected[2] < 1 and expected[3] == 1
    s.sum().backward()    # through the sigmoid, and nothing where it is clamped
    assert log_alpha.grad[0] == log_alpha.grad[3] == 0
    for j in (1, 2):
        inner = (expected[j] + 0.2) / 1.5
        assert log_alpha.grad[j].item() == pytest.approx(1.5 * inner * (1 - inner) / 0.5, rel=1e-4)


def test_hard_concrete_draws_anew_in_training_and_not_at_all_in_evaluation():
    switcher, log_alpha = concrete()
    with torch.no_grad():
        log_alpha.copy_(torch.tensor([-4.0, -1.0, 1.0, 4.0]))
    assert not torch.equal(switcher.train()({})["fc1"], switcher({})["fc1"])
    s = switcher.eval()({})["fc1"]
    expected = [min(1, max(0, 1.2 / (1 + math.exp(-a)) - 0.1)) for a in (-4.0, -1.0, 1.0, 4.0)]
    assert s.tolist() == pytest.approx(expected, abs=1e-6) and s[0] == 0 and s[3] == 1
    assert torch.equal(switcher({})["fc1"], s)


def test_hard_concretes_p_on_is_how_often_the_factor_is_not_0():
    n = 8
    switcher, log_alpha = concrete(n, beta=0.6, gamma=-0.3, zeta=1.2)
    with torch.no_grad():
        log_alpha.copy_(torch.linspace(-3, 3, n))
    count = torch.stack([switcher.train()({})["fc1"] != 0 for _ in range(4000)]).double().mean(0)
    p = switcher.p_on(None)["fc1"]
    assert torch.allclose(p.double(), count, atol=0.03) and 0.1 < p[0] < 0.4 and p[-1] > 0.9
    assert torch.equal(switcher.eval().p_on({"fc1": torch.zeros(n)})["fc1"], p)    # whatever was drawn
    slope = torch.autograd.grad(p.sum(), log_alpha)[0]
    torch.testing.assert_close(slope, (p * (1 - p)).detach())


def test_hard_concretes_cost_is_the_expected_number_of_parameters():
    net = switched("hard_concrete", level="connection").train()
    p = {key: a for key, a in net.switcher.p_on(None).items()}
    expected = (sum(v.sum() for v in p.values()) + 8 + 5 + 3) / (48 + 40 + 15 + 16)
    assert net.cost().item() == pytest.approx(expected.item(), rel=1e-6)
    net.cost().backward()
    assert all((a.grad > 0).all() for a in net.switcher.log_alpha.values())


def test_hard_concrete_starts_where_it_is_told():
    switcher, log_alpha = concrete(400, on=0.7)
    assert torch.sigmoid(log_alpha).mean().item() == pytest.approx(0.7, abs=0.005) and 0.005 < log_alpha.std() < 0.02


# -------- SCL

def scl(m, grad=None, **options):
    """The factors of given mask variables of a 3 × 4 weight, and the gradient that arrives at them for a given one."""
    model = nn.Sequential(nn.Linear(4, 3))
    switcher = sl.SCLSwitcher(sl.find_connections(model)[0], **options)
    mask = switcher.masks["0"]
    with torch.no_grad():
        mask.copy_(m)
    s = switcher({})["0"]
    if grad is not None:
        s.backward(grad)
    return s, mask.grad


M = torch.tensor([[-1.0, 0.0, 0.5, 2.0], [1.0, -0.1, 1e-6, -3.0], [0.2, 0.3, -0.4, 0.0]])
GRAD = torch.tensor([[3.0, -4.0, 0.0, 0.0], [1e-8, 1e-8, -1e-8, 1e-8], [0.0, 0.0, 0.0, 0.0]])


def test_scls_step_is_0_at_0():
    s, _ = scl(M)
    assert s.tolist() == [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("proxy, slope", [
    ("identity", lambda m: 1.0), ("leaky_relu", lambda m: 1.0 if m > 0 else 0.01),
    ("softplus", lambda m: 1 / (1 + math.exp(-m))),
])
def test_each_proxys_derivative_stands_in_for_the_steps(proxy, slope):
    _, got = scl(M, GRAD, proxy=proxy, normalise=False)
    expected = torch.tensor([[g * slope(m) for g, m in zip(*rows)] for rows in zip(GRAD.tolist(), M.tolist())])
    torch.testing.assert_close(got, expected)
    _, got = scl(M, GRAD, proxy=proxy)    # after the normalisation, whose root mean square is that of the gradient alone
    expected = torch.tensor([[g * slope(m) for g, m in zip(*rows)] for rows in zip(
        [[1.2, -1.6, 0, 0], [1, 1, -1, 1], [0] * 4], M.tolist())])
    torch.testing.assert_close(got, expected)


def test_normalised_gradients_have_a_root_mean_square_of_1_in_each_row_and_0_stays_0():
    _, got = scl(M, GRAD)
    torch.testing.assert_close(got, torch.tensor([[1.2, -1.6, 0, 0], [1, 1, -1, 1], [0, 0, 0, 0]]))
    _, tiny = scl(M, 1e-30 * GRAD)
    assert tiny.isfinite().all()


def test_a_convolutions_feature_is_a_channel_and_a_layers_neurons_are_normalised_together():
    model = networks.conv()
    switcher = sl.SCLSwitcher(sl.find_connections(model, convolutions=True)[0])
    s = switcher({})["conv1"]
    grad = torch.randn(s.shape) * torch.tensor([1e-3, 1.0, 1e3, 7, 0.1]).reshape(-1, 1, 1, 1)
    s.backward(grad)
    expected = torch.stack([channel / channel.square().mean().sqrt() for channel in grad])
    torch.testing.assert_close(switcher.masks["conv1"].grad, expected)
    neurons = sl.SCLSwitcher(sl.find_sites(model, networks.inputs(model))[0])
    neurons({})["conv1"].backward(torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(neurons.masks["conv1"].grad, torch.tensor([3.0, 4, 0, 0, 0]) / math.sqrt(5))


@pytest.mark.parametrize("inside", [False, True])
def test_scls_cost_joins_after_the_normalisation_unless_told_to_join_before(inside):
    net = switched(partial(sl.SCLSwitcher, cost_inside=inside), level="connection").train()
    x, y, weight = torch.randn(8, 6), torch.arange(8) % 3, 2.0
    net.switcher_loss(x, y, F.cross_entropy, weight).backward()
    factors = {key: torch.ones_like(m, requires_grad=True) for key, m in net.switcher.masks.items()}
    net.hold(factors)
    loss = F.cross_entropy(torch.func.functional_call(net.model, net.scale(net.params(), factors), (x,)), y)
    grads = torch.autograd.grad(loss, list(factors.values()))
    for (key, m), grad in zip(net.switcher.masks.items(), grads):
        assert (m > 0).all()
        slope = weight / (48 + 40 + 15 + 16)
        total = grad + slope if inside else grad
        size = total.square().mean(1, keepdim=True).sqrt()
        expected = torch.where(size > 0, total / size.clamp(min=1e-30), 0.0) + (0.0 if inside else slope)
        torch.testing.assert_close(m.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("proxy", ["identity", "leaky_relu", "softplus"])
def test_scls_cost_counts_what_is_on_and_pulls_at_every_mask(proxy):
    net = switched(partial(sl.SCLSwitcher, proxy=proxy, start=0.0, spread=1.0), level="connection").train()
    assert net.cost().item() == pytest.approx(net.structure().parameters[1] / net.structure().parameters[0])
    net.cost().backward()
    for m in net.switcher.masks.values():
        slope = switchers.scl.PROXIES[proxy](m.detach()) / 119
        assert (m > 0).any() and (m < 0).any()
        torch.testing.assert_close(m.grad, slope)


def test_scl_starts_where_it_is_told():
    (mask,) = switched(partial(sl.SCLSwitcher, start=0.3, spread=0.0), networks.mlp((6, 8, 3))).switcher.masks.values()
    assert torch.equal(mask, torch.full((8,), 0.3))
    (mask,) = switched(sl.SCLSwitcher, networks.mlp((6, 900, 3))).switcher.masks.values()
    assert mask.mean().item() == pytest.approx(0.5, abs=0.02) and mask.std().item() == pytest.approx(0.1, abs=0.02)


# -------- the step gate's cost

@LEVELS
def test_a_step_gates_cost_gradient_goes_straight_through_on_and_off(level):
    net = switched(partial(sl.FreeGates, gate="step", bias=0.0, spread=1.0), level=level).train()
    assert net.cost().item() == pytest.approx(net.structure().parameters[1] / net.structure().parameters[0])
    net.cost().backward()
    on_at = torch.cat([(a > 0).flatten() for a in net.switcher.free.values()])
    slopes = torch.cat([a.grad.flatten() for a in net.switcher.free.values()])
    assert on_at.any() and not on_at.all() and (slopes > 0).all()


def test_other_gates_keep_their_cost_gradient_from_factors_at_1():
    net = switched(partial(sl.FreeGates, gate="clamp", bias=2.0, spread=0.0)).train()
    net.cost().backward()
    assert all(not a.grad.any() for a in net.switcher.free.values())


# -------- a budget

def at(net, t):
    """What the switcher does after one task step at progress t."""
    net.switcher.after_step(net, t)
    return net.structure().parameters[1]


def test_magnitudes_scores_are_sizes_of_weights_by_hand():
    model = networks.mlp((6, 5, 3))
    net = switched(partial(sl.MagnitudeSwitcher, budget=9), model, switch_inputs=True)
    scores = net.switcher.importance(net)
    own = torch.cat([model.fc1.weight, model.fc1.bias[:, None]], 1).abs().mean(1)
    torch.testing.assert_close(scores, {"input": model.fc1.weight.abs().mean(0).detach(), "fc1": own.detach()})
    single = switched(partial(sl.MagnitudeSwitcher, budget=9), model, level="connection")
    torch.testing.assert_close(single.switcher.importance(single)["fc2"], model.fc2.weight.detach().abs())


def test_magnitude_keeps_the_largest_weights_of_all_layers_or_of_each():
    model = networks.mlp((6, 8, 5, 3))
    with torch.no_grad():
        model.fc1.weight.mul_(10)
        model.fc1.weight[0, 0] = 0
    weights = {f"fc{i}": getattr(model, f"fc{i}").weight.detach().abs() for i in (1, 2, 3)}
    for scope in ("global", "layer"):
        net = switched(partial(sl.MagnitudeSwitcher, budget=16 + 40, scope=scope), model, level="connection")
        at(net, 1.0)
        masks = net.factors()
        kept = on(net)
        assert net.structure().parameters[1] <= 56
        for key, w in weights.items():    # the largest of each layer, however many
            assert w[masks[key] == 1].min() >= w[masks[key] == 0].max()
        if scope == "global":
            assert sum(kept.values()) == 40 and kept["fc1"] == 38 and kept["fc2"] == kept["fc3"] == 1
        else:
            fractions = [kept[key] / w.numel() for key, w in weights.items()]
            assert max(fractions) - min(fractions) < 0.07 and min(kept.values()) > 4


@LEVELS
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_one_shot_cuts_nothing_before_its_time_all_then_and_nothing_after(level, scope):
    net = switched(partial(sl.MagnitudeSwitcher, budget=70, scope=scope, start=0.5, end=0.5, interval=1), level=level)
    dense = 48 + 40 + 15 + 16
    assert at(net, 0.25) == at(net, 0.49) == dense
    left = at(net, 0.5)
    assert 55 < left <= 70
    before = networks.state(net.switcher)
    with torch.no_grad():
        for p in net.model.parameters():
            p.normal_()
    assert at(net, 0.75) == at(net, 1.0) == left
    assert all(torch.equal(v, before[key]) for key, v in networks.state(net.switcher).items() if key.startswith("mask_"))


def test_gradual_cutting_follows_the_cubic_at_every_interval_and_ends_at_the_budget():
    net = switched(partial(sl.MagnitudeSwitcher, budget=40, start=0.2, end=0.8, interval=3), level="connection")
    left = [at(net, i / 30) for i in range(1, 31)]
    dense, allowed, expected = 119, 119, []
    for step in range(1, 31):
        t = step / 30
        if t >= 0.8:
            allowed = 40
        elif t >= 0.2 and step % 3 == 0:
            allowed = round(40 + (dense - 40) * (1 - (t - 0.2) / 0.6) ** 3)
        expected.append(allowed)
    assert left == expected    # a connection is one parameter, so that every budget is met exactly
    assert left == sorted(left, reverse=True) and len(set(left)) > 5 and left[4] == dense and left[-1] == 40


def test_a_cut_looks_at_the_weights_of_its_own_time():
    net = switched(partial(sl.MagnitudeSwitcher, budget=40, start=0.0, end=1.0, interval=1), level="connection")
    at(net, 0.9)
    weight = net.model.fc1.weight
    gone = torch.nonzero(net.factors()["fc1"] == 0)[0]
    with torch.no_grad():
        weight[tuple(gone)] = 100
    at(net, 0.95)
    assert net.factors()["fc1"][tuple(gone)] == 1


@LEVELS
def test_at_least_one_of_each_site_stays_even_over_budget(level):
    net = switched(partial(sl.MagnitudeSwitcher, budget=1), level=level)
    assert at(net, 1.0) > 1 and set(on(net).values()) == {1}


def test_a_budget_of_everything_cuts_nothing():
    net = switched(partial(sl.MagnitudeSwitcher, budget=119), level="connection")
    assert at(net, 1.0) == 119 and on(net) == {"fc1": 48, "fc2": 40, "fc3": 15}


def test_keeping_within_a_budget_keeps_the_scores_types_and_shapes():
    net = switched("free", level="connection")
    scores = {site.key: torch.rand(site.shape, dtype=torch.float64) for site in net.sites}
    masks = keep_within(net, scores, 60)
    assert all(masks[key].dtype == torch.float64 and masks[key].shape == s.shape for key, s in scores.items())
    assert net.count(masks).item() == 60


def test_a_budget_is_met_exactly_beyond_what_float32_can_count():
    model = networks.mlp((6, 5, 3))
    model.register_parameter("more", nn.Parameter(torch.empty(2**25 + 1)))    # is never touched, so takes no memory
    net = switched("free", model, level="connection")
    masks = keep_within(net, {site.key: torch.rand(site.shape) for site in net.sites}, 2**25 + 1 + 8 + 11)
    assert sum(int(mask.sum()) for mask in masks.values()) == 11


@LEVELS
def test_a_budget_is_met_after_training_and_a_resumed_run_equals_an_uninterrupted_one(level, tmp_path):
    class Interrupted(Exception):
        pass

    def breaking(t):
        if t > 0.55:
            raise Interrupted
        return training.cosine(t)

    def make(seed=0):
        return switched(partial(sl.MagnitudeSwitcher, budget=60, start=0.2, end=0.8, interval=2), level=level, seed=seed)

    split, how = networks.split(38), dict(epochs=6, batch_size=8, seed=3)
    whole, broken, fresh = make(), make(), make(seed=7)
    history = fit(whole, split, **how)
    with pytest.raises(Interrupted):
        fit(broken, split, checkpoint=tmp_path / "run.pt", schedule=breaking, **how)
    again = fit(fresh, split, checkpoint=tmp_path / "run.pt", **how)
    assert networks.same(networks.state(whole), networks.state(fresh))
    assert again.column("parameters") == history.column("parameters")
    assert history.last["parameters"] <= 60 < history.records[2]["parameters"] < history.records[0]["parameters"] <= 119
    assert history.last["switcher_steps"] == 0 and whole.switcher.done


def test_a_budget_switcher_of_ones_own_writes_its_scores():
    with pytest.raises(NotImplementedError, match="BudgetSwitcher must write importance"):
        at(switched(partial(BudgetSwitcher, budget=60)), 1.0)

    class Backwards(sl.MagnitudeSwitcher):
        def importance(self, net):
            return {key: -s for key, s in super().importance(net).items()}

    net = switched(partial(Backwards, budget=16 + 20), level="connection")
    at(net, 1.0)
    kept = net.factors()["fc1"] == 1
    assert net.model.fc1.weight.abs()[kept].max() <= net.model.fc1.weight.abs()[~kept].min()


# -------- slimming

def slim(model=None, **options):
    model = model or networks.conv(norm=True)
    return switched(partial(sl.SlimmingSwitcher, **{"budget": 100, "strength": 0.01, **options}), model)


def test_slimmings_penalty_and_its_gradient_are_those_of_gamma():
    net = slim().train()
    model, x, y = net.model, networks.inputs(net.model, batch=8), torch.arange(8) % 3
    with torch.no_grad():
        model.bn1.weight[1] *= -1
    assert not net.switcher.learns and list(net.switcher.gamma) == ["conv1", "conv2"]
    expected = 0.01 * (model.bn1.weight.abs().sum() + model.bn2.weight.abs().sum())
    assert net.switcher.penalty(net.params()).item() == pytest.approx(expected.item(), rel=1e-6)
    net.switcher.done.fill_(True)
    assert net.switcher.penalty(net.params()) == 0    # once all is cut, what is left is trained without it
    net.switcher.done.fill_(False)
    grads = {}
    for strength in (0.01, 0.0):
        net.switcher.strength = strength
        net.zero_grad()
        net.task_loss(x, y, F.cross_entropy).backward()
        grads[strength] = {name: p.grad.clone() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        slope = 0.01 * p.sign() if name in ("bn1.weight", "bn2.weight") else torch.zeros_like(p)
        torch.testing.assert_close(grads[0.01][name] - grads[0.0][name], slope, rtol=1e-3, atol=1e-6)


def test_slimming_cuts_the_smallest_gammas_of_either_sign():
    net = slim(budget=165)
    with torch.no_grad():
        net.model.bn1.weight.copy_(torch.tensor([0.9, -0.8, 0.1, -0.05, 0.7]))
        net.model.bn2.weight.copy_(torch.tensor([0.01, -0.95, 0.6, 0.5]))
    net.switcher.after_step(net, 1.0)
    assert net.structure().parameters[1] <= 165
    s = net.factors()
    assert s["conv1"].tolist() == [1, 1, 0, 0, 1] and s["conv2"].tolist() == [0, 1, 1, 1]


def test_slimming_reads_every_gamma_of_a_neuron():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    tied = networks.Bottleneck()
    for model, x, options, gammas in ((flat, torch.randn(2, 1, 4, 4), {}, ["2.weight"]),
                                      (tied, networks.inputs(tied), {"tied": True}, ["bn0.weight", "bn1.weight", "bn2.weight", "bn3.weight"])):
        net = sl.Switched(model, x, switcher=partial(sl.SlimmingSwitcher, budget=9, strength=1.0), **options)
        with torch.no_grad():
            for name in gammas:
                p = model.get_parameter(name)
                p.copy_(torch.arange(1.0, len(p) + 1) * -1)
        assert net.switcher.penalty(net.params()).item() == sum(p.abs().sum().item() for p in map(model.get_parameter, gammas))
        assert {key: tuple(one.shape) for key, one in net.switcher.importance(net).items()} == {
            site.key: (site.size,) for site in net.sites}
        if model is flat:    # a channel's four
            assert net.switcher.importance(net)["0"].tolist() == [2.5, 6.5, 10.5]


def test_a_tied_layer_without_batch_norm_brings_no_gamma():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.bn, self.res, self.out = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x):
            h = F.relu(self.bn(self.stem(x)))
            return self.out(F.relu(h + self.res(h)).mean((2, 3)))

    net = sl.Switched(Adds(), torch.randn(2, 2, 6, 6), tied=True, switcher=partial(sl.SlimmingSwitcher, budget=9, strength=1.0))
    assert net.switcher.penalty(net.params()).item() == 4 and net.switcher.scales(net.params())["stem"].shape == (4, 1)


def test_slimming_brings_free_scales_where_there_is_no_batch_norm():
    model = nn.Sequential(networks.conv(norm=True, classes=6, side=16), nn.ReLU(), nn.Linear(6, 3))
    net = slim(model=networks.mlp((6, 5, 4, 3)))
    assert list(net.switcher.free) == ["fc1", "fc2"] and not net.switcher.gamma and net.switcher.learns
    assert all(torch.equal(s, torch.ones_like(s)) for s in net.factors().values())
    mixed = sl.Switched(model, torch.randn(2, 2, 16, 16), switcher=partial(sl.SlimmingSwitcher, budget=100, strength=0.5),
                        switch_flattened=True)
    keys = [site.key for site in mixed.sites]
    assert set(mixed.switcher.gamma) == {"0_conv1", "0_conv2"}
    assert set(mixed.switcher.gamma) | set(mixed.switcher.free) == set(keys)
    with torch.no_grad():
        mixed.switcher.free["0_fc"].copy_(torch.tensor([2.0, -0.5, 1, 1, 1, 1]))
    expected = 0.5 * (sum(model[0].get_submodule(n).weight.abs().sum().item() for n in ("bn1", "bn2"))
                      + 6.5 + sum(len(s) for key, s in mixed.switcher.free.items() if key != "0_fc"))
    assert mixed.switcher.penalty(mixed.params()).item() == pytest.approx(expected, rel=1e-5)
    assert mixed.factors()["0_fc"].tolist() == [2.0, -0.5, 1, 1, 1, 1]
    assert torch.equal(mixed.switcher.importance(mixed)["0_fc"], torch.tensor([2.0, 0.5, 1, 1, 1, 1]))
    mixed.switcher.after_step(mixed, 1.0)    # what stays goes on multiplying
    s = mixed.factors()["0_fc"]
    assert s[0] == 2.0 and s[1] == 0


class CatNorm(nn.Module):
    """One BatchNorm behind two convolutions side by side."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.norm = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 1), networks.lively(nn.BatchNorm2d(7))
        self.join, self.out = nn.Conv2d(7, 5, 3), nn.Linear(500, 3)

    def forward(self, x):
        x = F.relu(self.norm(torch.cat([self.left(x), self.right(x)], dim=1)))
        return self.out(F.relu(self.join(x)).flatten(1))


def test_a_batch_norm_behind_a_concatenation_gives_each_site_its_own_gammas():
    net = slim(model=CatNorm())
    gamma = net.model.norm.weight
    scales = net.switcher.scales(net.params())
    assert torch.equal(scales["left"][:, 0], gamma[:3]) and torch.equal(scales["right"][:, 0], gamma[3:])
    assert net.switcher.penalty(net.params()).item() == pytest.approx(0.01 * (gamma.abs().sum().item() + 5), rel=1e-5)
    net.switcher.after_step(net, 1.0)
    assert net.structure().parameters[1] < net.structure().parameters[0]


def test_joint_learning_moves_the_free_scales_and_the_penalty_shrinks_them():
    left = []
    for strength in (0.0, 0.05):
        net = slim(model=networks.mlp((6, 8, 5, 3)), strength=strength, budget=60)
        history = fit(net, networks.split(60), epochs=4, batch_size=8, every="joint", schedule="constant",
                      switcher_optimizer=partial(SGD, lr=0.05))
        scales = torch.cat([s.detach() for s in net.switcher.free.values()])
        assert (scales != 1).float().mean() > 0.8    # a dead ReLU has no gradient
        left.append(scales.abs().mean().item())
    assert left[1] < left[0] - 0.05 and history.last["parameters"] <= 60 < history.records[-2]["parameters"]


def test_slimmings_price_is_its_penalty_so_that_the_cost_counts_but_does_not_pull():
    net = slim(model=networks.mlp((6, 8, 5, 3)))
    with torch.no_grad():
        net.switcher.free["fc1"].copy_(torch.tensor([0.0, 0.1, -0.1, 1, 1, 1, 1, 3]))
    assert net.switcher.p_on(net.factors())["fc1"].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert not net.cost().requires_grad


# -------- controls: shuffled, fixed, random

class Reading(sl.Switcher):
    """Remembers what it was shown, and answers with the mean of all of it."""

    def forward(self, params):
        self.seen = params
        return {site.key: torch.ones(site.shape) * sum(p.square().mean() for p in params.values()) for site in self.sites}


@LEVELS
def test_shuffled_shows_each_switched_parameter_permuted_and_always_in_the_same_way(level):
    model = networks.mlp((6, 8, 5, 3))
    net = switched(partial(sl.ShuffledSwitcher, switcher=Reading), model, level=level, switch_inputs=level == "neuron")
    params = net.params()
    net.factors()
    first = dict(net.switcher.switcher.seen)
    for name, p in params.items():
        shown = first[name]
        assert shown.shape == p.shape and torch.equal(shown.flatten().sort().values, p.flatten().sort().values)
        if level == "neuron" and name != "fc3.bias" or name.endswith("weight"):
            assert not torch.equal(shown, p), name
        else:
            assert shown is p    # no site has a part in it
    net.eval().factors()
    assert all(torch.equal(first[name], shown) for name, shown in net.switcher.switcher.seen.items())


def test_shuffled_permutes_single_entries_and_not_whole_rows():
    net = switched(partial(sl.ShuffledSwitcher, switcher=Reading), level="connection")
    net.factors()
    shown = net.switcher.switcher.seen["fc1.weight"]
    rows = {tuple(sorted(row)) for row in net.model.fc1.weight.tolist()}
    assert all(tuple(sorted(row)) not in rows for row in shown.tolist())


def test_shuffling_passes_the_gradient_to_the_entry_that_it_came_from():
    net = switched(partial(sl.ShuffledSwitcher, switcher=Reading), level="connection", flow=True)
    net.factors()["fc1"][0, 0].backward()
    for p in net.model.parameters():
        torch.testing.assert_close(p.grad, 2 * p.detach() / p.numel())


def test_shuffled_orders_come_from_the_seed_and_travel_with_the_state():
    sites = sl.find_connections(networks.mlp())[0]
    make = partial(sl.ShuffledSwitcher, sites, sl.FreeGates)
    orders = [{name: b for name, b in make(seed=seed).named_buffers()} for seed in (1, 1, 2)]
    assert networks.same(orders[0], orders[1]) and not networks.same(orders[0], orders[2]) and orders[0]
    other = make(seed=2)
    other.load_state_dict(make(seed=1).state_dict())
    assert networks.same(dict(other.named_buffers()), orders[0])


def test_shuffled_learns_costs_and_normalises_as_the_switcher_inside():
    net = switched(partial(sl.ShuffledSwitcher, switcher=sl.HardConcreteSwitcher), level="connection").train()
    inside = net.switcher.switcher
    assert net.switcher.learns
    assert networks.same(net.switcher.p_on(None), inside.p_on(None))
    fixed = switched(partial(sl.ShuffledSwitcher, switcher=sl.RandomSwitcher))
    assert not fixed.switcher.learns


def test_shuffled_passes_on_what_the_switcher_inside_adds_to_the_loss():
    class Priced(Reading):
        def penalty(self, params):
            return params["fc1.weight"][0, 0] ** 2

    net = switched(partial(sl.ShuffledSwitcher, switcher=Priced), level="connection")
    shown = net.switcher.penalty(net.params())
    net.factors()
    assert shown == net.switcher.switcher.seen["fc1.weight"][0, 0] ** 2 != net.params()["fc1.weight"][0, 0] ** 2


def test_layers_of_colliding_names_are_shuffled_each_by_its_own_order():
    model = nn.Sequential()
    model.add_module("l", nn.Sequential())
    model.l.add_module("a", nn.Linear(4, 5))
    model.add_module("l_a", nn.Linear(5, 3))
    net = switched(partial(sl.ShuffledSwitcher, switcher=Reading), model, torch.randn(2, 4), level="connection")
    net.factors()
    for name, p in net.params().items():
        assert torch.equal(net.switcher.switcher.seen[name].flatten().sort().values, p.flatten().sort().values)


@LEVELS
def test_fixed_factors_are_those_given_copied_and_never_learned(level):
    model = networks.mlp()
    found = sl.find_sites(model, torch.randn(2, 6)) if level == "neuron" else sl.find_connections(model)
    given = networks.factors(found[0])
    net = switched(partial(sl.FixedSwitcher, factors=given), model, level=level)
    expected = {key: s.clone() for key, s in given.items()}
    next(iter(given.values())).zero_()
    assert networks.same(net.factors(), expected) and not net.switcher.learns and not list(net.switcher.parameters())


@LEVELS
@pytest.mark.parametrize("off", [0.0, 0.3, 0.99])
def test_random_switches_off_exactly_as_many_neurons_or_connections_as_asked(level, off):
    net = switched(partial(sl.RandomSwitcher, off=off, seed=1), level=level)
    for site in net.sites:
        s = net.factors()[site.key]
        assert s.shape == site.shape and set(s.unique().tolist()) <= {0.0, 1.0}
        assert int((s == 0).sum()) == int(off * site.size)


def test_random_takes_a_number_of_connections_for_each_layer():
    net = switched(partial(sl.RandomSwitcher, off={"fc1": 7, "fc3": 14}, seed=1), level="connection")
    assert on(net) == {"fc1": 41, "fc2": 40, "fc3": 1}
    gone = torch.nonzero(net.factors()["fc1"].flatten() == 0)[:, 0]
    other = switched(partial(sl.RandomSwitcher, off={"fc1": 7}, seed=2), level="connection").factors()["fc1"]
    assert gone.max() - gone.min() > 7 and not torch.equal(other, net.factors()["fc1"])    # scattered, and by the seed


# -------- both at once

@pytest.mark.parametrize("flow", [False, True])
def test_a_joint_step_takes_both_gradients_of_one_loss_at_the_same_point(flow):
    split = networks.split(20)
    x, y, rate = split.images, split.labels, 0.1
    net = switched(partial(sl.RowSwitcher, hidden=4, bias=0.4), networks.mlp((6, 8, 3), act=nn.Tanh), flow=flow)
    net, x = net.double().train(), x.double()
    before = networks.state(net)
    params = net.params()
    factors = net.switcher(params if flow else {name: p.detach() for name, p in params.items()})
    scaled = net.scale(params, factors)
    loss = F.cross_entropy(torch.func.functional_call(net.model, scaled, (x,)), y) + 3.0 * net.cost(factors)
    everything = dict(net.named_parameters())
    grads = dict(zip(everything, torch.autograd.grad(loss, list(everything.values()))))
    task, switch = SGD(net.model.parameters(), lr=rate), SGD(net.switcher.parameters(), lr=rate)
    returned = sl.joint_step(net, x, y, task, switch, cost=3.0)
    assert returned.item() == pytest.approx(loss.item()) and not returned.requires_grad
    after = networks.state(net)
    for name, grad in grads.items():
        torch.testing.assert_close(after[name], before[name] - rate * grad, rtol=1e-9, atol=1e-12)
    assert any(g.any() for n, g in grads.items() if n.startswith("switcher."))


def test_a_joint_step_starts_from_empty_gradients_and_moves_both_networks_buffers():
    model = networks.conv(norm=True)
    x, y = networks.inputs(model, batch=8), torch.arange(8) % 3
    states = []
    for spoiled in (False, True):
        net = switched(partial(sl.UNetSwitcher, channels=(2, 3)), networks.conv(norm=True)).train()
        if spoiled:
            net(x).sum().backward()
            net.load_state_dict(start)
            for p in net.parameters():
                p.grad = torch.ones_like(p)
        start = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in net.state_dict().items()}
        before = networks.state(net)
        sl.joint_step(net, x, y, SGD(net.model.parameters(), lr=0.1), SGD(net.switcher.parameters(), lr=0.1))
        states.append(networks.state(net))
        moved = [name for name in before if not torch.equal(before[name], states[-1][name])]
        assert "model.bn1.running_mean" in moved and any(n.startswith("switcher.") and "running_mean" in n for n in moved)
    assert networks.same(*states)


def counted(monkeypatch):
    """Write down every step that fit takes."""
    taken = []
    for name, letter in (("task_step", "t"), ("switcher_step", "s"), ("joint_step", "j")):
        def step(*args, original=getattr(training, name), letter=letter, **kwargs):
            taken.append(letter)
            return original(*args, **kwargs)
        monkeypatch.setattr(training, name, step)
    return taken


@pytest.mark.parametrize("switcher, options, expected", [
    ("row", dict(every="joint"), "j" * 15), ("row", dict(every="joint", warmup=1), "t" * 5 + "j" * 10),
    ("row", dict(every="joint", freeze=0.34), "j" * 10 + "t" * 5),
    ("row", dict(every="joint", warmup=1, freeze=0.34), "t" * 5 + "j" * 5 + "t" * 5),
    ("row", dict(every=5), ("t" * 5 + "s") * 3), ("random", dict(every="joint"), "t" * 15),
])
def test_joint_learning_takes_no_turns_but_keeps_warm_up_and_freeze(switcher, options, expected, monkeypatch):
    taken = counted(monkeypatch)
    net = switched(switcher)
    history = fit(net, networks.split(40), epochs=3, batch_size=8, **options)
    assert "".join(taken) == expected and history.last["task_steps"] == 15
    assert history.last["switcher_steps"] == expected.count("j") + expected.count("s")
    assert (net.held is not None) == ("freeze" in options)


def test_joint_learning_is_ones_own_loop_of_joint_steps_with_the_schedules_of_fit():
    split, options = networks.split(40), dict(epochs=2, batch_size=8, seed=5)
    one, other = switched("row"), switched("row")
    fit(one, split, every="joint", schedule="constant", cost=lambda t: t, switcher_optimizer=partial(SGD, lr=0.1), **options)
    task = SGD(other.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    switch, step = SGD(other.switcher.parameters(), lr=0.1), 0
    other.train()
    for epoch in range(2):
        for x, y in split.batches(8, generator=torch.Generator().manual_seed(5 * 1_000_003 + epoch)):
            sl.joint_step(other, x, y, task, switch, cost=(epoch + step % 5 / 5) / 2)
            step += 1
    assert networks.same(networks.state(one), networks.state(other))


def test_a_joint_run_resumes_as_if_never_interrupted(tmp_path):
    split, how = networks.split(40), dict(batch_size=8, every="joint", cost=0.1, schedule="constant")

    class Interrupted(Exception):
        pass

    def breaking(t):
        if t > 0.6:
            raise Interrupted
        return 1.0

    whole, broken = switched("hard_concrete", level="connection"), switched("hard_concrete", level="connection")
    fit(whole, split, epochs=4, **how)
    with pytest.raises(Interrupted):
        fit(broken, split, epochs=4, checkpoint=tmp_path / "run.pt", **{**how, "schedule": breaking})
    fit(broken, split, epochs=4, checkpoint=tmp_path / "run.pt", **how)
    assert networks.same(networks.state(whole), networks.state(broken))


# -------- bad input

@pytest.mark.parametrize("make, error, words", [
    (lambda s: sl.HardConcreteSwitcher(s, on=1.0), ValueError, "on=1.0 must be in (0, 1)"),
    (lambda s: sl.HardConcreteSwitcher(s, on=0), ValueError, "on=0 must be in (0, 1)"),
    (lambda s: sl.HardConcreteSwitcher(s, beta=0), ValueError, "beta=0 must be above 0"),
    (lambda s: sl.HardConcreteSwitcher(s, gamma=0.0), ValueError, "gamma=0.0 must be below 0"),
    (lambda s: sl.HardConcreteSwitcher(s, zeta=1.0), ValueError, "zeta=1.0 must be above 1"),
    (lambda s: sl.SCLSwitcher(s, proxy="identiy"), ValueError, "proxy='identiy' is not a proxy; did you mean 'identity'? "
                                                               "Known: identity, leaky_relu, softplus."),
    (lambda s: sl.SCLSwitcher(s, spread=-1), ValueError, "spread=-1 must be at least 0"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=0), ValueError, "budget=0 must be an integer of at least 1"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=0.1), ValueError, "budget=0.1 must be an integer"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=9, interval=0), ValueError, "interval=0 must be an integer of at least 1"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=9, scope="layers"), ValueError, "scope='layers' is not a scope; did you mean "
                                                                              "'layer'? Known: global, layer."),
    (lambda s: sl.MagnitudeSwitcher(s, budget=9, start=0.6, end=0.5), ValueError, "start=0.6 and end=0.5 must be in [0, 1], "
                                                                                  "start at most end"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=9, start=-0.1), ValueError, "start=-0.1"),
    (lambda s: sl.MagnitudeSwitcher(s, budget=9, end=1.5), ValueError, "end=1.5"),
    (lambda s: sl.SlimmingSwitcher(s, budget=9, strength=-1e-4), ValueError, "strength=-0.0001 must be at least 0"),
    (lambda s: sl.SlimmingSwitcher(s, budget=9, strength=math.nan), ValueError, "strength=nan"),
    (lambda s: sl.SlimmingSwitcher(s, budget=-1), ValueError, "budget=-1"),
    (lambda s: sl.FixedSwitcher(s, {}), ValueError, "factors['fc1'] is nothing; it must be a finite tensor of shape (5,)"),
    (lambda s: sl.FixedSwitcher(s, {"fc1": torch.ones(4)}), ValueError, "factors['fc1'] is a tensor of shape (4,); it must"),
    (lambda s: sl.FixedSwitcher(s, {"fc1": torch.full((5,), math.nan)}), ValueError, "shape (5,), not all finite"),
    (lambda s: sl.FixedSwitcher(s, {"fc1": [1.0] * 5}), ValueError, "factors['fc1'] is a list"),
    (lambda s: sl.FixedSwitcher(s, {"fc1": torch.ones(5), "fc2": torch.ones(3)}), ValueError,
     "factors='fc2' is not a site; did you mean 'fc1'? Known: fc1."),
    (lambda s: sl.RandomSwitcher(s, off=math.nan), ValueError, "off=nan must be a fraction in [0, 1)"),
    (lambda s: sl.RandomSwitcher(s, off="half"), ValueError, "off='half'"),
    (lambda s: sl.RandomSwitcher(s, off={"fc1": 1.5}), ValueError, "off={'fc1': 1.5}"),
    (lambda s: sl.RandomSwitcher(s, off={"fc1": -1}), ValueError, "off={'fc1': -1}"),
    (lambda s: sl.ShuffledSwitcher(s, "row"), TypeError, "switcher='row' must be a factory of sites"),
    (lambda s: sl.ShuffledSwitcher(s, sl.FreeGates(s)), TypeError, "must be a factory of sites"),
    (lambda s: sl.ShuffledSwitcher(s, partial(sl.MagnitudeSwitcher, budget=10)), TypeError,
     "switcher=MagnitudeSwitcher cuts by a schedule and looks at the network itself"),
    (lambda s: sl.ShuffledSwitcher(s, lambda sites: nn.Linear(2, 2)), TypeError, "made a Linear; it must make a Switcher"),
    (lambda s: switchers.make("magnitude", s), TypeError, "cannot be made from sites alone"),
    (lambda s: switchers.make("magnitude", s), TypeError, "'budget'); give what it needs by partial(...)"),
    (lambda s: switchers.make("fixed", s), TypeError, "'factors'); give what it needs"),
    (lambda s: switchers.make("scl", s, "clamp"), TypeError, "and gate='clamp' alone"),
])
def test_a_wrong_argument_is_named_with_its_value(make, error, words):
    with pytest.raises(error) as caught:
        make(small_sites())
    assert words in str(caught.value)


def test_a_wrong_number_of_connections_off_names_the_layer():
    sites, _ = sl.find_connections(networks.mlp((6, 5, 3)))
    with pytest.raises(ValueError, match="'fc2' has 15 connections"):
        sl.RandomSwitcher(sites, off={"fc2": 15})


@pytest.mark.parametrize("every", ["jont", "JOINT", None, 0])
def test_every_is_a_number_epoch_or_joint(every):
    with pytest.raises(ValueError) as caught:
        fit(switched("row"), networks.split(), epochs=1, every=every)
    assert f"every={every!r} must be 'epoch', 'joint' or a number of task steps of at least 1" in str(caught.value)
