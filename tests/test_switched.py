"""The network that runs: f(x; θ ⊙ s(θ)), its factors, its cost, its structure."""

import pickle
from functools import partial

import networks
import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib import metrics
from switcher_lib.errors import SwitchError


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def ones(net):
    return {site.key: torch.ones(site.size) for site in net.sites}


@pytest.fixture
def net():
    return sl.Switched(networks.mlp(), torch.randn(2, 6))


# -------- the equation

def test_the_network_that_runs_is_the_scaled_one():
    tnn = networks.mlp((6, 5, 4, 3))
    net, x = sl.Switched(tnn, torch.randn(2, 6), switch_inputs=True), networks.inputs(tnn)
    s = net.factors()
    by_hand = tnn.fc3(s["fc2"] * F.relu(tnn.fc2(s["fc1"] * F.relu(tnn.fc1(s["input"] * x)))))
    torch.testing.assert_close(net.eval()(x), by_hand)
    assert not torch.allclose(by_hand, tnn(x))


def test_the_task_network_is_used_and_not_copied_nor_changed(net):
    before = networks.state(net.model)
    net.train()(torch.randn(4, 6)).sum().backward()
    assert networks.same(before, networks.state(net.model))
    assert net.params()["fc1.weight"] is net.model.fc1.weight and net.model.fc1.weight.grad is not None


def test_evaluation_recomputes_the_factors_at_the_current_weights(net):
    net.eval()
    first = net.factors()["fc1"]
    with torch.no_grad():
        net.model.fc1.weight.mul_(torch.linspace(0.1, 3, 5)[:, None])
    assert not torch.equal(first, net.factors()["fc1"])


def test_asking_for_factors_moves_no_buffer():
    net = sl.Switched(networks.conv(norm=True), torch.randn(2, 2, 12, 12), switcher="unet").train()
    before = networks.state(net)
    net.factors()
    assert networks.same(before, networks.state(net))
    net.structure(), net.eval().factors()
    assert networks.same(before, networks.state(net))


# -------- refresh, flow, noise

def counting(net):
    """Count how often the switcher is asked."""
    asked = []
    net.switcher.register_forward_hook(lambda *_: asked.append(1))
    return asked


@pytest.mark.parametrize("refresh, asked_for_8", [("live", 8), (1, 8), (4, 2), (3, 3), (8, 1)])
def test_refresh_says_how_often_the_factors_are_computed(refresh, asked_for_8):
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), refresh=refresh).train()
    asked = counting(net)
    for _ in range(8):
        net(torch.randn(2, 6))
    assert len(asked) == asked_for_8


def test_stale_factors_stay_for_exactly_that_many_task_steps():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), refresh=3).train()
    x, used = networks.inputs(net.model), []
    for step in range(7):
        with torch.no_grad():
            net.model.fc1.weight.normal_()
        now = net.factors()
        used.append(torch.allclose(net(x), torch.func.functional_call(net.model, net.scale(net.params(), now), (x,))))
    assert used == [True, False, False, True, False, False, True]


def test_a_live_task_steps_gradient_flows_to_theta_through_the_switcher_only_with_flow():
    x = torch.randn(4, 6)
    for flow in (False, True):
        torch.manual_seed(0)
        net = sl.Switched(networks.mlp(), x, flow=flow).train()
        net(x).square().sum().backward()
        assert all((p.grad is not None) == flow for p in net.switcher.parameters())
        held = sl.Switched(networks.mlp(), x)
        held.hold(net.factors())
        held(x).square().sum().backward()
        direct = held.model.fc1.weight.grad
        assert torch.allclose(net.model.fc1.weight.grad, direct) == (not flow)


def test_noise_multiplies_while_training_and_never_in_evaluation():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), noise=0.5)
    x = torch.randn(4, 6)
    net.train()
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("make, face, layer", [
    (networks.mlp, "incoming", "act1"), (networks.mlp, "outgoing", "fc2"),
    (lambda: networks.conv(norm=True), "incoming", "act1"), (lambda: networks.conv(norm=True), "outgoing", "conv2"),
])
def test_noise_is_each_activations_own_and_leaves_off_at_off(make, face, layer, monkeypatch):
    model = make()
    model.act1, seen = nn.Identity(), []
    x = networks.inputs(model, batch=2000)
    net = sl.Switched(model, x, noise=0.5, face=face).train()
    net.hold({**ones(net), net.sites[0].key: torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0])})
    computes = nn.Linear if layer == "fc2" else nn.Conv2d if layer == "conv2" else nn.Identity
    original = computes.forward

    def look(module, h):
        if module is model.get_submodule(layer):
            seen.append(h.detach())
        return original(module, h)

    monkeypatch.setattr(computes, "forward", look)    # what arrives there, behind every hook
    for noise in (0.5, 0.0):
        net.noise = noise
        net(x)
    noisy, clean = (h.transpose(0, 1) for h in seen)
    ratio = (noisy / clean)[[0, 2, 3, 4]].flatten()
    ratio = ratio[ratio.isfinite()]
    assert ratio.mean().item() == pytest.approx(1, abs=0.03) and ratio.std().item() == pytest.approx(0.5, abs=0.03)
    assert not noisy[1].any() and clean[2].any()


# -------- holding

def test_held_factors_are_what_runs_until_they_are_released(net):
    x = torch.randn(4, 6)
    before = net.train()(x)
    s = networks.factors(net.sites)
    net.hold(s)
    expected = torch.func.functional_call(net.model, net.scale(net.params(), s), (x,))
    assert torch.equal(net(x), expected) and torch.equal(net.eval()(x), expected)
    s["fc1"].zero_()    # what was given is copied
    assert torch.equal(net(x), expected)
    net.release()
    assert torch.equal(net.train()(x), before)


def test_holding_and_releasing_take_effect_at_once_with_stale_factors():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), refresh=100).train()
    x = torch.randn(4, 6)
    free = net(x)
    net.hold_ones()
    assert torch.equal(net(x), net.model(x)) and not torch.allclose(free, net(x))
    net.release()
    assert torch.equal(net(x), free)
    net.hold({site.key: torch.zeros(site.size) for site in net.sites})
    assert torch.equal(net(x), net.model.fc3.bias.expand(4, 3))


def test_freezing_takes_the_factors_of_evaluation():
    net = sl.Switched(networks.mlp((6, 9, 3)), torch.randn(2, 6), gate="relu_bn").train()
    for _ in range(3):
        net.switcher_loss(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]), F.cross_entropy)
    training = net.factors()["fc1"]
    net.freeze()
    assert net.training and not torch.allclose(net.factors()["fc1"], training)
    frozen = net.factors()["fc1"].clone()
    with torch.no_grad():
        net.model.fc1.weight.normal_()
    assert torch.equal(net.factors()["fc1"], frozen)
    net.release()
    net.eval()
    assert not torch.equal(net.factors()["fc1"], frozen)


@pytest.mark.parametrize("change, words", [
    (lambda s: s.update(fc1=torch.ones(4)), "factors of 'fc1' have shape (4,); this site has 5 neurons"),
    (lambda s: s.update(fc1=torch.ones(5, 1)), "factors of 'fc1' have shape (5, 1)"),
    (lambda s: s.update(fc2=torch.tensor(1.0)), "factors of 'fc2' have shape ()"),
    (lambda s: s.pop("fc2"), "factors has no 'fc2'; it needs one vector for each of ['fc1', 'fc2']"),
])
def test_holding_wrong_factors_is_an_error_and_changes_nothing(net, change, words):
    s = ones(net)
    change(s)
    with pytest.raises(ValueError) as caught:
        net.hold(s)
    assert words in str(caught.value) and net.held is None


@pytest.mark.parametrize("options, words", [
    ({"switcher": "rwo"}, "switcher='rwo' is not a switcher; did you mean 'row'?"),
    ({"gate": "clmp"}, "gate='clmp' is not a gate; did you mean 'clamp'?"),
    ({"face": "in"}, "face='in' is not a face"),
    ({"refresh": 0}, "refresh=0 must be 'live' or a number of task steps of at least 1"),
    ({"refresh": -2}, "refresh=-2"),
    ({"refresh": 2.5}, "refresh=2.5"),
    ({"refresh": "dead"}, "refresh='dead'"),
    ({"flow": True, "refresh": 4}, "flow=True needs refresh='live', not 4"),
    ({"noise": -0.1}, "noise=-0.1 must be a number of at least 0"),
    ({"skip": ["fc7"]}, "skip names 'fc7'"),
])
def test_a_wrong_option_is_named_with_its_value(options, words):
    with pytest.raises(ValueError) as caught:
        sl.Switched(networks.mlp(), torch.randn(2, 6), **options)
    assert words in str(caught.value)


def test_a_wrong_example_or_a_model_with_nothing_to_switch_is_refused():
    with pytest.raises(sl.SwitchError, match=r"example of shape \(2, 5\) does not go through Sequential"):
        sl.Switched(networks.mlp(), torch.randn(2, 5))
    with pytest.raises(sl.SwitchError, match="nothing in Sequential can be switched"):
        sl.Switched(networks.mlp((6, 3)), torch.randn(2, 6))


# -------- cost and structure

def without(net, on):
    """The plain network with the neurons that are off left out, by hand: no cascade, no folding."""
    model = net.model
    keep = {key: s.bool() for key, s in on.items()}
    pixels = keep.get("input", torch.ones(model.fc1.in_features, dtype=torch.bool))
    sizes = [int(pixels.sum()), int(keep["fc1"].sum()), int(keep["fc2"].sum()), 3]
    return networks.mlp(sizes)


@pytest.mark.parametrize("switch_inputs", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_cost_of_0_and_1_factors_is_the_size_of_the_network_without_them(switch_inputs, seed):
    net = sl.Switched(networks.mlp((9, 7, 5, 3)), torch.randn(2, 9), switch_inputs=switch_inputs)
    on = {key: (s != 0).float() for key, s in networks.factors(net.sites, seed).items()}
    small = without(net, on)
    assert net.count(on).item() == metrics.count_parameters(small)
    assert net.count(on, macs=True).item() == metrics.count_macs(small, torch.zeros(1, small.fc1.in_features))
    assert net.cost(on).item() == pytest.approx(metrics.count_parameters(small) / metrics.count_parameters(net.model))
    assert net.cost(ones(net)).item() == 1


@pytest.mark.parametrize("face", ["incoming", "outgoing"])
def test_the_cost_counts_biases_batch_norms_and_both_sides_of_a_convolution(face):
    net = sl.Switched(networks.conv(norm=True), torch.randn(2, 2, 12, 12), face=face)
    on = {"conv1": torch.tensor([1.0, 0, 1, 0, 1]), "conv2": torch.tensor([0.0, 1, 1, 0])}
    conv1, conv2 = 3 * 2 * 9 + 2 * 3, 2 * 3 * 9 + 2 * 2    # weight, γ, β
    assert net.count(on).item() == conv1 + conv2 + 3 * 2 * 1 + 3
    assert net.count(on, macs=True).item() == 3 * 2 * 9 * 100 + 2 * 3 * 9 * 9 + 6


def test_the_price_may_be_macs_instead_of_parameters():
    net = sl.Switched(networks.conv(norm=True), torch.randn(2, 2, 12, 12), price="macs")
    on = {"conv1": torch.tensor([1.0, 0, 1, 0, 1]), "conv2": torch.tensor([0.0, 1, 1, 0])}
    left, dense = 3 * 2 * 9 * 100 + 2 * 3 * 9 * 9 + 6, 5 * 2 * 9 * 100 + 4 * 5 * 9 * 9 + 12
    assert net.dense == dense == metrics.count_macs(net.model, torch.randn(1, 2, 12, 12))
    assert net.cost(on).item() == pytest.approx(left / dense) and net.cost(ones(net)).item() == 1


def test_the_price_may_be_a_weighted_sum_of_both():
    x, on = torch.randn(2, 2, 12, 12), {"conv1": torch.tensor([1.0, 0, 1, 0, 1]), "conv2": torch.tensor([0.0, 1, 1, 0])}
    parameters, macs, both = (sl.Switched(networks.conv(norm=True), x, price=price)
                              for price in ("parameters", "macs", {"parameters": 2, "macs": 0.5}))
    assert both.dense == 2 * parameters.dense + 0.5 * macs.dense
    assert both.size(on).item() == pytest.approx(2 * parameters.size(on).item() + 0.5 * macs.size(on).item())
    assert both.cost(on).item() == pytest.approx(both.size(on).item() / both.dense)
    assert sl.Switched(networks.conv(norm=True), x, price={"macs": 1}).size(on) == macs.size(on)    # what is left out weighs 0


@pytest.mark.parametrize("price, budget", [("parameters", 200), ("macs", 4000), ({"parameters": 1, "macs": 0.1}, 700)])
def test_searches_and_budgets_count_what_the_price_says(price, budget):
    x, y = torch.randn(64, 2, 12, 12), torch.randint(0, 3, (64,))
    split = sl.data.Split(x, y)
    for switcher, options in ((partial(sl.MagnitudeSwitcher, budget=budget), {}),
                              ("free", {"cost": 30.0, "stop_at": budget, "check_every": 1, "every": 1,
                                        "switcher_optimizer": partial(torch.optim.Adam, lr=0.01)})):
        net = sl.Switched(networks.conv(norm=True), x[:2], switcher=switcher, price=price)
        history = sl.fit(net, split, epochs=100 if options else 1, batch_size=32, progress=False, **options)
        assert 0.5 * budget < net.size().item() <= budget
        if isinstance(price, str):
            assert net.size().item() == getattr(net.structure(), price)[1]
        assert len(history.records) < 100


@pytest.mark.parametrize("options", [dict(switcher="unet"), dict(gate="relu_bn"), dict(level="connection", switcher="unet")],
                         ids=["unet", "gate", "connections"])
def test_a_fresh_switchers_batch_norms_know_the_first_weights(options):
    net = sl.Switched(networks.mlp((160, 120, 80, 3)), torch.randn(2, 160), **options)
    norms = [m for m in net.switcher.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(m.momentum == 0.1 for m in norms)
    with torch.no_grad():
        training, evaluation = net.train().factors(), net.eval().factors()
    for key, s in training.items():    # apart from n / (n - 1) in the variance they are the same
        on, still = (s > 0).double().mean(), (evaluation[key] > 0).double().mean()
        assert 0 < still and abs(on - still) < 0.1


def test_a_model_in_float64_may_meet_a_switcher_with_batch_norm_that_is_moved_later():
    model = networks.mlp((40, 30, 20, 3)).double()
    x = torch.randn(2, 40, dtype=torch.float64)
    assert sl.Switched(model, x, switcher="unet").double()(x).dtype == torch.float64


@pytest.mark.parametrize("price, message", [
    ("flops", "price='flops'"), (None, "price=None"), ({"flops": 1}, "price='flops'"), ({}, "must have weights"),
    ({"macs": 0}, "not all 0"), ({"macs": -1}, "at least 0"), ({"macs": float("nan")}, "at least 0"), ({"macs": "1"}, "at least 0"),
])
def test_a_price_that_is_none_is_refused(price, message):
    with pytest.raises(ValueError, match=message):
        sl.Switched(networks.mlp(), torch.randn(2, 6), price=price)


def test_a_parameter_that_two_sites_touch_is_counted_by_their_product():
    net = sl.Switched(networks.mlp((2, 2, 2, 1)), torch.randn(2, 2))
    on = {"fc1": torch.tensor([0.5, 1.0]), "fc2": torch.tensor([0.25, 0.0])}
    by_hand = 2 * 1.5 + 1.5 + 1.5 * 0.25 + 0.25 + 0.25 + 1    # fc1 weight, bias; fc2 weight, bias; fc3 weight, bias
    assert net.count(on).item() == pytest.approx(by_hand)


def test_flattened_features_and_their_channels_multiply():
    net = sl.Switched(networks.conv(side=16), torch.randn(2, 2, 16, 16), switch_flattened=True)
    (features,) = [site for site in net.sites if site.kind == "feature"]
    on = ones(net)
    on["conv2"] = torch.tensor([1.0, 0, 1, 1])
    on[features.key] = torch.ones(features.size)
    per_channel = features.size // 4
    on[features.key][:per_channel + 1] = 0
    # channel 0 loses its features, channel 1 is off and has lost another one
    dense = metrics.count_parameters(net.model)
    lost = 5 * 9 + 1 + 3 * per_channel + 3 * per_channel
    assert net.count(on).item() == dense - lost


def test_the_cost_has_a_gradient_for_every_neuron_that_is_on():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), switch_inputs=True)
    s = {key: (0.5 * torch.ones_like(v)).requires_grad_() for key, v in ones(net).items()}
    net.cost(s).backward()
    assert all((v.grad > 0).all() for v in s.values())
    assert torch.autograd.gradcheck(lambda a, b: net.cost({"input": torch.ones(6, dtype=torch.float64), "fc1": a, "fc2": b}),
                                    [torch.rand(5, dtype=torch.float64, requires_grad=True),
                                     torch.rand(4, dtype=torch.float64, requires_grad=True)])


def test_the_cost_reaches_the_switchers_parameters_through_the_loss():
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    grads = []
    for cost in (0.0, 5.0):
        net = sl.Switched(networks.mlp(), x, switcher=partial(sl.FreeGates, spread=0.0)).train()
        net.switcher_loss(x, y, F.cross_entropy, cost).backward()
        grads.append(net.switcher.free["fc1"].grad.clone())
    torch.testing.assert_close(grads[1] - grads[0], 5.0 * _cost_slope(net))
    assert ((grads[1] - grads[0]) > 0).all()


def _cost_slope(net):
    a = net.switcher.free["fc1"]
    a.grad = None
    net.cost().backward()
    return a.grad


def test_factors_above_1_cost_no_more_than_1():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    s = {key: 7 * v for key, v in ones(net).items()}
    assert net.cost(s).item() == 1


def test_the_structure_tells_neurons_parameters_and_macs():
    net = sl.Switched(networks.mlp((9, 7, 5, 3)), torch.randn(2, 9))
    net.hold({"fc1": torch.tensor([0.0, 0.3, 0, 2, 0, 1, 1]), "fc2": torch.tensor([1.0, 0, 0, 0.1, 1])})
    structure = net.structure()
    assert structure.sites == {"fc1": (7, 4), "fc2": (5, 3)}
    assert structure.parameters == (9 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3, 9 * 4 + 4 + 4 * 3 + 3 + 3 * 3 + 3)
    assert structure.macs == (63 + 35 + 15, 36 + 12 + 9)


def test_the_structure_counts_exactly_beyond_what_float32_can():
    model = nn.Sequential(nn.Conv2d(3, 41, 7), nn.ReLU(), nn.Conv2d(41, 3, 1))
    x = torch.randn(1, 3, 67, 67)
    net = sl.Switched(model, x)
    net.hold_ones()
    net._macs = {name: places * 1_001 for name, places in net._macs.items()}    # as if the image were larger
    assert net.structure().macs[1] == 1_001 * metrics.count_macs(model, x) > 2 ** 25


def test_two_layers_with_one_weight_both_count():
    net = networks.built(networks.Shared)
    dense = 30 + 30 + 30 + 20 + 12
    assert metrics.count_macs(net, torch.randn(2, 6)) == dense
    assert sl.Switched(net, torch.randn(2, 6)).structure().macs[0] == dense


# -------- what a wrapper sees

def through(net, x, y):
    """The losses of each turn, through forward and by their own names."""
    by_name = {"task": net.task_loss, "switcher": partial(net.switcher_loss, cost=0.5),
               "joint": partial(net.joint_loss, cost=0.5)}
    for turn, loss in by_name.items():
        yield turn, net(x, y, F.cross_entropy, turn=turn, cost=0.5), loss(x, y, F.cross_entropy)


def test_forward_gives_the_loss_of_each_turn(net):
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    losses = {}
    for turn, asked, loss in through(net.train(), x, y):
        assert torch.equal(asked, loss)
        with_gradient = [name for name, p in net.named_parameters()
                         if torch.autograd.grad(asked, p, retain_graph=True, allow_unused=True)[0] is not None]
        assert {name.split(".")[0] for name in with_gradient} == {"task": {"model"}, "switcher": {"switcher"},
                                                                  "joint": {"model", "switcher"}}[turn]
        losses[turn] = float(asked.detach())
    assert losses["task"] < losses["switcher"] == losses["joint"]    # the cost term is not the task network's


@pytest.mark.parametrize("given, words", [
    (dict(turn="taks"), "turn='taks' is not a turn; did you mean 'task'? Known: joint, switcher, task."),
    (dict(), "turn=None asks for outputs, which need x alone; name whose loss it is: task, switcher, joint."),
])
def test_a_loss_needs_to_know_whose_turn_it_is(net, given, words):
    with pytest.raises(ValueError) as caught:
        net(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]), F.cross_entropy, **given)
    assert str(caught.value) == words
    with pytest.raises(ValueError, match="turn=None asks for outputs"):
        net(torch.randn(4, 6), cost=0.5)
    with pytest.raises(ValueError, match="turn='switcher' asks for a loss, which needs y and loss_fn."):
        net(torch.randn(4, 6), turn="switcher")


# -------- state

def test_a_switched_network_travels_through_its_state_dict():
    options = dict(refresh=4)
    net = sl.Switched(networks.mlp(), torch.randn(2, 6), **options).train()
    x = torch.randn(4, 6)
    net(x), net(x)
    with torch.no_grad():
        net.model.fc1.weight.normal_()
    other = sl.Switched(networks.mlp(seed=9), torch.randn(2, 6), **options).train()
    other.load_state_dict(net.state_dict())
    for _ in range(4):    # stale factors and their age came along
        assert torch.equal(net(x), other(x))
    net.hold(networks.factors(net.sites))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), other.eval()(x)) and other.held is not None


def test_a_wrapped_network_compacts_after_being_switched_again():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    again = sl.Switched(net.model, torch.randn(2, 6), switcher="free")
    assert [site.key for site in again.sites] == [site.key for site in net.sites]


def test_the_cost_pulls_at_factors_below_1_and_leaves_those_at_1_to_the_loss():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    s = {key: v.clone().requires_grad_() for key, v in ones(net).items()}
    first = next(iter(s))
    with torch.no_grad():
        s[first][0] = 0.5
    net.cost(s).backward()
    assert s[first].grad[0] > 0 and (s[first].grad[1:] == 0).all()


# -------- layers called by keyword, and held factors on the move

class Named(nn.Module):
    """Its layers are called as layer(input=x)."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 5, 2), nn.Linear(5, 2)

    def forward(self, x):
        return self.c(input=self.b(input=self.a(input=x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("options", [dict(face="outgoing", noise=0.5), dict(noise=0.5), dict(level="connection", noise=0.5)])
def test_layers_may_be_called_by_keyword(options):
    torch.manual_seed(0)
    model, x = Named(), torch.randn(2, 3, 6, 6)
    net = sl.Switched(model, x, switcher="free", **options)
    net.hold_ones()
    assert torch.allclose(net.eval()(x), model(x), atol=1e-6)
    assert not torch.allclose(net.train()(x), model(x), atol=1e-3)    # the noise
    assert sl.metrics.count_macs(model, x) == 3 * 4 * 9 * 16 + 4 * 5 * 4 * 16 + 5 * 2


def test_held_factors_go_along_to_another_type_and_device():
    net, x = sl.Switched(networks.mlp(), torch.randn(2, 6)), torch.randn(2, 6)
    net.hold({site.key: torch.full(site.shape, 0.5) for site in net.sites})
    assert net.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert {s.dtype for s in net.held.values()} == {torch.bfloat16}
    net.hold_ones()
    assert net(x.bfloat16()).dtype == torch.bfloat16
    assert {s.device.type for s in net.to("meta").held.values()} == {"meta"}


def test_a_factor_that_is_no_tensor_is_refused_by_name():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    key = net.sites[0].key
    with pytest.raises(ValueError, match=rf"factors\['{key}'\] is a list; it must be a tensor of the site's shape"):
        net.hold({key: [1.0] * net.sites[0].size})


def test_the_root_is_nothing_to_skip():
    with pytest.raises(ValueError, match="skip names ''"):
        sl.Switched(networks.mlp(), torch.randn(2, 6), skip=[""])


# -------- what a forward() may do besides computing

class Aliased(nn.Module):
    """Each layer has two names, as in an encoder that is put together from another network's layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.conv2, self.out = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.Linear(4, 2)
        self.stem = nn.Sequential(self.conv, self.norm)
        self.again = nn.ModuleList([self.conv2, self.conv2])

    def forward(self, x):
        return self.out(F.relu(self.again[1](F.relu(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize("options", [{}, {"face": "outgoing"}, {"level": "connection", "convolutions": True}], ids=str)
def test_a_layer_with_two_names_keeps_its_parameters(options):
    torch.manual_seed(0)
    x, model = torch.randn(8, 3, 8, 8), Aliased()
    before = {name: p for name, p in model.named_parameters()}
    net = sl.Switched(model, x, **options).eval()
    y = model(x)
    net.hold({site.key: torch.full(site.shape, 0.5) for site in net.sites})
    half = net(x)
    assert torch.equal(net(x), half) and not torch.allclose(half, y)
    assert torch.equal(sl.fold(net).eval()(x), half) or torch.allclose(sl.fold(net).eval()(x), half, atol=1e-6)
    net.hold_ones()
    assert torch.allclose(net(x), y, atol=1e-6)
    net.release()
    sl.fit(net, sl.data.Split(x, torch.arange(8) % 2), epochs=1, batch_size=4, every=1, progress=False)
    now = dict(model.named_parameters())
    assert all(now[name] is p and isinstance(p, nn.Parameter) and p.requires_grad for name, p in before.items())
    assert sl.compact(net, x).certificate.holds


class Checkpointed(nn.Module):
    def __init__(self, linear, reentrant):
        super().__init__()
        layers = (nn.Linear(6, 5), nn.Linear(5, 4)) if linear else (nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3))
        (self.a, self.b), self.out, self.reentrant, self.saves, self.linear = layers, nn.Linear(4, 2), reentrant, True, linear

    def block(self, x):
        return F.relu(self.b(F.relu(self.a(x))))

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=self.reentrant) if self.saves else self.block(x)
        return self.out(x if self.linear else x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused_before_it_makes_wrong_gradients(linear, reentrant):
    x, y = torch.randn(4, *((6,) if linear else (3, 8, 8))), torch.arange(4) % 2
    model = Checkpointed(linear, reentrant)
    model.saves = False
    net = sl.Switched(model, x, switcher="free")
    optimizers = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(net.switcher.parameters())
    sl.task_step(net, x, y, optimizers[0])
    model.saves = True    # as gradient_checkpointing_enable() does, of which nobody is told
    net.train()
    for step, optimizer in ((sl.task_step, optimizers[0]), (sl.switcher_step, optimizers[1])):
        net.train()
        for _ in range(2):    # nor is it let through the second time
            with pytest.raises(SwitchError, match="gradient checkpointing.*without their factors.*Turn it off"):
                step(net, x, y, optimizer)
    with torch.no_grad():
        net(x)    # nothing is recomputed where nothing is learned
    small = sl.compact(net, x).model
    small.train()(x.clone().requires_grad_()).sum().backward()
    assert small.a.weight.grad is not None


def test_a_whole_network_may_be_recomputed():
    x, model = torch.randn(4, 6), networks.mlp()
    net = sl.Switched(model, x, switcher="free")
    net(x).square().sum().backward()
    expected = model.fc1.weight.grad.clone()
    model.zero_grad()
    net.train()
    torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False).square().sum().backward()
    assert torch.allclose(model.fc1.weight.grad, expected)


class Keeps(nn.Module):
    """Caches, collects, counts and averages, in plain attributes, lists, a dict and a buffer."""

    def __init__(self):
        super().__init__()
        self.a, self.out, self.place, self.seen, self.named, self.mean_ = nn.Linear(6, 5), nn.Linear(5, 2), None, [], {"h": []}, None
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.place is None:
            self.place = torch.arange(6).float() / 6
        if self.training:
            self.mean_ = x.mean(0)
        else:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        h = F.relu(self.a(x + self.place - self.mean))
        self.seen.append(h)
        self.named.setdefault("h", []).append(h)
        return self.out(h)


@pytest.mark.filterwarnings("ignore:in train mode forward")
def test_what_a_forward_keeps_is_no_stand_in_of_torch_fx():
    torch.manual_seed(0)
    x, model = torch.randn(8, 6), Keeps()
    mean = model.mean
    sl.find_sites(model, x)
    net = sl.Switched(model, x, switcher=partial(sl.RandomSwitcher, off=0.4))
    assert model.place is None and model.mean_ is None and model.seen == [] and model.named == {"h": []} and model.mean is mean
    assert isinstance(net.train()(x), torch.Tensor) and isinstance(model.place, torch.Tensor) and len(model.seen) == 1
    model.seen.clear(), model.named['h'].clear()
    small = sl.compact(net, x)
    assert small.certificate.holds and small.widths["a"] == (5, 3) and torch.equal(small.model.mean, model.mean)
    pickle.dumps(model.eval())


def test_the_last_part_of_a_sequence_in_parts_is_not_recomputed():
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(4, 6)

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint_sequential(self.body, 1, x, use_reentrant=False)

    net = sl.Switched(Parts(), x, switcher="free")
    net(x).sum().backward()
    assert model[0].weight.grad is not None
