"""The connection level: one factor for each weight, from what is found to what is compacted.

What has to hold for any network and any mask is in test_properties.py.
"""

from functools import partial

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam

import switcher_lib as sl
from switcher_lib import metrics, models, switchers

UNET = partial(sl.UNetSwitcher, channels=(2, 3))


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def connected(model, x=None, **options):
    return sl.Switched(model, networks.inputs(model) if x is None else x, level="connection", **options)


def ones(net):
    return {site.key: torch.ones(site.shape) for site in net.sites}


def masks(net, seed=0, off=0.5):
    """Random masks of zeros and ones."""
    return {key: (s != 0).float() for key, s in networks.factors(net.sites, seed, off).items()}


# -------- where

def test_every_linear_layer_is_a_site_and_the_last_one_too():
    sites, refused = sl.find_connections(networks.mlp((6, 5, 4, 3)))
    assert [(s.key, s.path, s.name, s.shape, s.size, s.kind) for s in sites] == [
        ("fc1", "fc1", "fc1.weight", (5, 6), 30, "connection"), ("fc2", "fc2", "fc2.weight", (4, 5), 20, "connection"),
        ("fc3", "fc3", "fc3.weight", (3, 4), 12, "connection")]
    assert refused == {} and repr(sites[0]) == "Connections('fc1', shape=(5, 6))"


def test_convolutions_are_switched_on_request_only():
    model = networks.conv(norm=True)
    assert [s.key for s in sl.find_connections(model)[0]] == ["fc"]
    sites, _ = sl.find_connections(model, convolutions=True)
    assert [(s.key, s.shape) for s in sites] == [("conv1", (5, 2, 3, 3)), ("conv2", (4, 5, 3, 3)), ("fc", (3, 4))]
    matrix = sites[0].matrix(dict(model.named_parameters()))
    assert matrix.shape == (5, 18) and torch.equal(matrix[3], model.conv1.weight[3].flatten())


def test_a_weight_that_two_modules_share_is_refused_in_both():
    model = networks.built(networks.Shared)
    net = connected(model)
    assert [site.key for site in net.sites] == ["b", "free", "out"] and set(net.refused) == {"a", "c"}
    assert "belongs to another module too" in net.refused["a"]
    tied = nn.Sequential()    # with a module that is no Linear layer
    tied.add_module("table", nn.Embedding(4, 3))
    tied.add_module("head", nn.Linear(3, 4))
    tied.head.weight = tied.table.weight
    with pytest.raises(sl.SwitchError, match="head belongs to another module too"):
        sl.find_connections(tied)


def test_a_layer_that_runs_twice_is_one_site():
    assert [site.key for site in sl.find_connections(networks.built(networks.Reused))[0]] == ["a", "b", "free", "out"]


def test_a_computed_weight_is_refused_and_the_rest_is_switched():
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model = networks.mlp()
    parametrize.register_parametrization(model.fc2, "weight", Double())
    net = connected(model, torch.randn(2, 6))
    assert [site.key for site in net.sites] == ["fc1", "fc3"]
    assert net.refused == {"fc2": "the weight of fc2 is computed, not a parameter"}
    assert torch.isfinite(net(torch.randn(2, 6))).all() and net.structure().parameters[0] == 30 + 5 + 20 + 4 + 12 + 3


def test_skipped_layers_are_left_alone_and_told():
    net = connected(networks.mlp(), skip=["fc3"])
    assert [site.key for site in net.sites] == ["fc1", "fc2"] and net.refused == {"fc3": "skipped on request"}


def test_a_bare_layer_and_layers_of_colliding_names_get_keys_of_their_own():
    bare = nn.Linear(4, 3)
    net, x = connected(bare), torch.randn(2, 4)
    assert [(s.key, s.name) for s in net.sites] == [("weight", "weight")]
    net.hold({"weight": torch.full((3, 4), 2.0)})
    torch.testing.assert_close(net.eval()(x), F.linear(x, 2 * bare.weight, bare.bias))
    model = nn.Sequential()
    model.add_module("l", nn.Sequential())
    model.l.add_module("a", nn.Linear(4, 5))
    model.add_module("l_a", nn.Linear(5, 4))
    model.add_module("values", nn.Linear(4, 3))
    keys = [site.key for site in sl.find_connections(model)[0]]
    assert len(set(keys)) == 3 and "values" not in keys
    assert connected(model, torch.randn(2, 4), switcher="free")(torch.randn(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("make, options, words", [
    (nn.ReLU, {}, "no connection in ReLU can be switched. It has no Linear layer."),
    (lambda: nn.Sequential(nn.Conv2d(2, 3, 1)), {}, "It has no Linear layer."),
    (nn.ReLU, {"convolutions": True}, "It has no Linear or Conv layer."),
    (lambda: networks.mlp((6, 3)), {"skip": ["fc1"]}, "can be switched. fc1: skipped on request."),
])
def test_a_model_without_connections_to_switch_is_refused(make, options, words):
    with pytest.raises(sl.SwitchError) as caught:
        sl.find_connections(make(), **options)
    assert words in str(caught.value)


# -------- what runs

def test_the_network_that_runs_has_each_weight_multiplied_by_its_factor():
    model = networks.mlp((6, 5, 3))
    net, x = connected(model, switcher="entry").eval(), networks.inputs(model)
    s = net.factors()
    by_hand = F.linear(F.relu(F.linear(x, s["fc1"] * model.fc1.weight, model.fc1.bias)), s["fc2"] * model.fc2.weight,
                       model.fc2.bias)
    torch.testing.assert_close(net(x), by_hand)
    assert not torch.allclose(by_hand, model(x))


def test_convolutions_weights_are_multiplied_too():
    model = networks.conv().eval()
    net, x = connected(model, convolutions=True).eval(), networks.inputs(model)
    net.hold(networks.factors(net.sites))
    whole = model(x)
    with torch.no_grad():
        for site in net.sites:
            model.get_parameter(site.name).mul_(net.held[site.key])
    expected = model(x)
    net.hold_ones()
    torch.testing.assert_close(net(x), expected)
    assert not torch.allclose(whole, expected)


def test_a_connection_that_is_off_gets_no_gradient_and_biases_are_left_alone():
    net = connected(networks.mlp()).train()
    s = masks(net)
    net.hold(s)
    net(torch.randn(50, 6)).square().sum().backward()
    for site in net.sites:
        grad = net.model.get_parameter(site.name).grad
        assert not grad[s[site.key] == 0].any() and grad.any()
    scaled = net.scale(net.params(), s)
    assert all(scaled[name] is p for name, p in net.params().items() if name.endswith("bias"))


@pytest.mark.parametrize("change, words", [
    (lambda s: s.update(fc1=torch.ones(30)), "factors of 'fc1' have shape (30,); the weight has (5, 6)"),
    (lambda s: s.update(fc1=torch.ones(6, 5)), "factors of 'fc1' have shape (6, 5)"),
    (lambda s: s.update(fc2=torch.tensor(1.0)), "factors of 'fc2' have shape ()"),
    (lambda s: s.pop("fc3"), "factors has no 'fc3'"),
])
def test_holding_factors_of_another_shape_is_an_error_and_changes_nothing(change, words):
    net = connected(networks.mlp())
    s = ones(net)
    change(s)
    with pytest.raises(ValueError) as caught:
        net.hold(s)
    assert words in str(caught.value) and net.held is None


@pytest.mark.parametrize("options, words", [
    (dict(level="conection"), "level='conection' is not a level; did you mean 'connection'? Known: connection, neuron."),
    (dict(level="connection", face="outgoing"), "face has no meaning at level='connection'; it belongs to level='neuron'."),
    (dict(level="connection", switch_inputs=True), "switch_inputs has no meaning at level='connection'"),
    (dict(level="connection", switch_flattened=True), "switch_flattened has no meaning at level='connection'"),
    (dict(convolutions=True), "convolutions has no meaning at level='neuron'; it belongs to level='connection'."),
    (dict(level="connection", skip=["fc7"]), "skip names 'fc7', which is no module of the model. Its modules: fc1,"),
    (dict(level="connection", switcher="row"), "RowSwitcher cannot be used at level='connection': it reads neurons only"),
    (dict(level="connection", switcher="stats"), "StatsSwitcher cannot be used at level='connection'"),
    (dict(level="connection", switcher=partial(sl.SlimmingSwitcher, budget=9)), "SlimmingSwitcher cannot be used at level="),
    (dict(level="connection", switcher=partial(sl.ShuffledSwitcher, switcher=sl.RowSwitcher)), "RowSwitcher cannot be used"),
    (dict(level="connection", switcher=partial(sl.UNetSwitcher, reads="incoming")), "reads='incoming' must be None for connections"),
    (dict(switcher="entry"), "EntrySwitcher cannot be used at level='neuron': it reads connections only"),
    (dict(level="connection", switcher=partial(sl.EntrySwitcher, hidden=0)), "hidden=0 must be an integer of at least 1"),
    (dict(level="connection", switcher=partial(sl.EntrySwitcher, hidden=2.0)), "hidden=2.0"),
    (dict(level="connection", switcher=partial(sl.EntrySwitcher, spread=0.0)), "spread=0.0 must be above 0"),
    (dict(level="connection", gate="clmp"), "gate='clmp' is not a gate; did you mean 'clamp'?"),
])
def test_an_argument_of_the_other_level_or_out_of_range_is_named(options, words):
    with pytest.raises(ValueError) as caught:
        sl.Switched(networks.mlp(), torch.randn(2, 6), **options)
    assert words in str(caught.value)


# -------- noise

def test_noise_is_on_every_activation_that_a_switched_layer_reads():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    for layer in model:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.ones(4000, 5)
    net = connected(model, x, noise=0.5, skip=["1"]).train()
    net.hold_ones()
    seen = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda module, inputs, output, name=name: seen.__setitem__(name, (inputs[0], output)))
    net(x)
    assert torch.equal(seen["1"][0], seen["0"][1]) and torch.equal(seen["1"][1], seen["1"][0])    # skipped: no noise
    factor = {"0": seen["0"][1], "2": seen["2"][1] / seen["1"][1]}    # layers are the identity: what noise multiplied
    for noisy in factor.values():
        assert noisy.median().item() == pytest.approx(1, abs=0.02)
        inner = noisy.flatten().sort().values
        low, high = inner[int(0.1587 * len(inner))], inner[int(0.8413 * len(inner))]
        assert (high - low).item() / 2 == pytest.approx(0.5, abs=0.03)
    assert not torch.allclose(factor["0"][:, :1], factor["0"][:, 1:2])    # each its own


def test_noise_is_for_training_only_and_leaves_no_hook_behind():
    net, x = connected(networks.mlp(), noise=0.5), torch.randn(4, 6)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x)) and not any(m._forward_pre_hooks for m in net.modules())
    quiet = connected(networks.mlp()).train()
    assert torch.equal(quiet(x), quiet(x))
    sums = torch.stack([net.train().switcher_loss(x, torch.arange(4) % 3, F.cross_entropy) for _ in range(2)])
    assert sums[0] != sums[1]


# -------- cost and structure

def by_counting(net, on):
    """Parameters and MACs that remain, weight by weight."""
    of_site = {site.name: on[site.key] for site in net.sites}
    parameters = macs = 0
    for name, p in net.model.named_parameters():
        for place in range(p.numel()):
            alive = of_site[name].flatten()[place].item() if name in of_site else 1
            parameters += alive
            macs += alive * net._macs.get(name, 0)
    return parameters, macs


@pytest.mark.parametrize("make, options", [
    (networks.mlp, {}), (networks.mlp, {"skip": ["fc2"]}), (partial(networks.conv, norm=True), {}),
    (partial(networks.conv, norm=True), {"convolutions": True}), (partial(networks.built, networks.Shared), {}),
])
def test_count_cost_and_structure_are_those_of_counting_weight_by_weight(make, options):
    model = make()
    net = connected(model, **options)
    on = masks(net, 3)
    parameters, macs = by_counting(net, on)
    dense = metrics.count_parameters(model)
    assert net.count(on).item() == parameters < dense and net.count(on, macs=True).item() == macs
    assert net.cost(on).item() == pytest.approx(parameters / dense) and net.cost(ones(net)).item() == 1
    net.hold(on)
    structure = net.structure()
    assert structure.sites == {site.key: (site.size, int(on[site.key].sum())) for site in net.sites}
    assert structure.parameters == (dense, parameters)
    assert structure.macs == (metrics.count_macs(model, networks.inputs(model)), macs)


def test_macs_of_a_convolutions_connection_are_its_places():
    net = connected(networks.conv(), convolutions=True)    # 12 -> 10 -> 5 -> 3 -> 1
    on = {key: torch.zeros_like(s) for key, s in ones(net).items()}
    on["conv1"][0, 1, 2, 2] = on["conv2"][1, 0, 0, 0] = on["fc"][2, 3] = 1
    assert net.count(on, macs=True).item() == 100 + 9 + 1


def test_every_connection_costs_the_same_and_fractions_count_as_such():
    net = connected(networks.mlp())
    s = {key: (0.5 * one).requires_grad_() for key, one in ones(net).items()}
    cost = net.cost(s)
    cost.backward()
    assert cost.item() == pytest.approx((62 / 2 + 12) / 74)
    assert all(torch.allclose(v.grad, torch.tensor(1 / 74)) for v in s.values())


# -------- switchers

EVERY = {
    "entry": sl.EntrySwitcher, "unet": UNET, "free": sl.FreeGates, "scl": sl.SCLSwitcher, "random": sl.RandomSwitcher,
    "hard_concrete": sl.HardConcreteSwitcher, "magnitude": partial(sl.MagnitudeSwitcher, budget=50),
    "row": sl.RowSwitcher, "stats": sl.StatsSwitcher, "slimming": partial(sl.SlimmingSwitcher, budget=50),
    "fixed": lambda sites: sl.FixedSwitcher(sites, networks.factors(sites)),
    "shuffled": lambda sites: sl.ShuffledSwitcher(sites, UNET, seed=0),
}


def levels_of(name):
    return getattr(switchers.SWITCHERS[name], "levels")


@pytest.mark.parametrize("level", ["neuron", "connection"])
@pytest.mark.parametrize("name", EVERY)
def test_every_switcher_gives_finite_factors_of_at_least_0_at_its_levels_and_refuses_the_other(name, level):
    assert set(EVERY) == set(switchers.SWITCHERS)
    model = networks.conv(norm=True, classes=4)
    options = dict(convolutions=True) if level == "connection" else {}
    if level not in levels_of(name):
        with pytest.raises(ValueError, match=f"cannot be used at level='{level}': it reads {levels_of(name)[0]}s only"):
            sl.Switched(model, networks.inputs(model), level=level, switcher=EVERY[name], **options)
        return
    net = sl.Switched(model, networks.inputs(model), level=level, switcher=EVERY[name], **options)
    for mode in (True, False):
        factors = net.train(mode).factors()
        assert {key: tuple(s.shape) for key, s in factors.items()} == {site.key: tuple(site.shape) for site in net.sites}
        assert all(s.isfinite().all() and (s >= 0).all() for s in factors.values())
        assert 0 < net.cost().item() <= 1 and net(networks.inputs(model)).isfinite().all()
        on = net.switcher.p_on(factors)
        assert all(on[key].shape == s.shape and (on[key] >= 0).all() and (on[key] <= 1).all() for key, s in factors.items())


@pytest.mark.parametrize("gate", ["relu", "relu_bn", "relu_tanh", "clamp", "clamp_centred", "step"])
@pytest.mark.parametrize("name", ["entry", "free", "unet"])
def test_any_gate_takes_scores_of_the_weights_shape(name, gate):
    model = networks.conv()
    net = connected(model, convolutions=True, switcher=UNET if name == "unet" else name, gate=gate).train()
    scores = net.switcher.scores(net.params())
    assert all(type(g) is sl.gates.GATES[gate] for g in net.switcher.gates.values())
    for key, s in net.factors().items():
        assert s.shape == scores[key].shape and (name == "unet" or s.shape == dict(net.params())[f"{key}.weight"].shape)


def test_the_default_switcher_reads_entries():
    assert isinstance(connected(networks.mlp()).switcher, sl.EntrySwitcher)
    assert isinstance(sl.Switched(networks.mlp(), torch.randn(2, 6)).switcher, sl.RowSwitcher)


def test_the_entry_switchers_score_is_the_documented_formula():
    model = networks.mlp((4, 3, 2))
    net = connected(model, switcher=partial(sl.EntrySwitcher, hidden=5))
    scorer, w = net.switcher.scorers["fc1"], model.fc1.weight.detach()
    w = w / w.std(unbiased=False)

    def summary(v):
        return torch.stack([v.mean(), v.square().mean().sqrt(), v.abs().max()])

    for i, j in ((0, 0), (1, 3), (2, 1)):
        row = summary(w[i]) - torch.stack([summary(v) for v in w]).mean(0)
        column = summary(w[:, j]) - torch.stack([summary(v) for v in w.T]).mean(0)
        hidden = (scorer.entry.weight @ torch.stack([w[i, j], w[i, j].abs() - w.abs().mean()]) + scorer.entry.bias
                  + scorer.row.weight @ row + scorer.column.weight @ column).relu()
        score = scorer.out.weight[0] @ hidden + scorer.out.bias[0]
        assert net.switcher.scores(net.params())["fc1"][i, j].item() == pytest.approx(score.item(), abs=1e-5)


def test_the_entry_switcher_starts_around_its_bias_as_widely_as_told():
    model = networks.mlp((30, 20, 3))
    spreads = []
    for spread in (1.0, 0.1):
        torch.manual_seed(0)
        scores = connected(model, switcher=partial(sl.EntrySwitcher, bias=3.0, spread=spread)).switcher.scores(
            dict(model.named_parameters()))["fc1"]
        spreads.append((scores - 3).abs().max().item())
    assert spreads[1] == pytest.approx(0.1 * spreads[0], rel=1e-3) and spreads[0] > 0.05


def test_an_entry_switcher_hardly_ever_starts_with_a_layer_that_is_off():
    model, off = sl.models.lenet_300_100(), 0
    params = {name: p.detach() for name, p in model.named_parameters()}
    for seed in range(20):    # with raw instead of centred features 2 of these 20 do
        torch.manual_seed(seed)
        net = sl.Switched(model, torch.randn(2, 1, 28, 28), level="connection")
        off += any(not s.any() for s in net.switcher(params).values())
    assert off == 0


def test_the_entry_switcher_standardises_a_layer_and_not_a_row():
    model = networks.mlp((6, 5, 3))
    net = connected(model)
    params = {name: p.detach() for name, p in net.params().items()}
    before = net.switcher.scores(params)["fc1"]
    larger = net.switcher.scores({**params, "fc1.weight": 7 * params["fc1.weight"]})["fc1"]
    torch.testing.assert_close(larger, before, rtol=1e-4, atol=1e-5)
    weak = params["fc1.weight"] * torch.tensor([0.01, 1, 1, 1, 1])[:, None]
    assert not torch.allclose(net.switcher.scores({**params, "fc1.weight": weak})["fc1"][0], before[0], atol=1e-3)


def test_an_entry_switcher_fits_a_layer_of_another_shape_and_all_its_weights_learn():
    small, large = connected(networks.mlp((6, 5, 3))), connected(networks.mlp((9, 8, 4)))
    large.switcher.load_state_dict(small.switcher.state_dict())
    scores = large.switcher.scores(large.params())
    assert scores["fc1"].shape == (8, 9)
    sum(s.square().sum() for s in scores.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in large.switcher.parameters())


@pytest.mark.parametrize("n, d", [(1, 1), (1, 7), (2, 3), (8, 3), (16, 16), (17, 5), (3, 33)])
def test_the_unets_image_has_the_weights_shape_whatever_it_is(n, d):
    model = nn.Sequential(nn.Linear(d, n), nn.ReLU(), nn.Linear(n, 3))
    switcher = sl.UNetSwitcher(sl.find_connections(model)[0], gate="relu").train()
    scores = switcher.scores(dict(model.named_parameters()))
    assert scores["0"].shape == (n, d) and scores["2"].shape == (3, n)
    sum(s.sum() for s in scores.values()).backward()
    assert all(p.grad is not None for p in switcher.parameters())


def test_the_unets_image_of_a_convolution_has_a_row_for_each_channel_and_keeps_its_places():
    model = networks.conv((2, 5, 3))
    sites, _ = sl.find_connections(model, convolutions=True)
    switcher = sl.UNetSwitcher(sites, channels=(2,), gate="relu").eval()
    params = {name: p.detach() for name, p in model.named_parameters()}
    before = switcher.scores(params)
    assert {key: tuple(s.shape) for key, s in before.items()} == {"conv1": (5, 2, 3, 3), "conv2": (3, 5, 3, 3), "fc": (3, 3)}
    moved = params["conv1.weight"].clone()
    moved[3, 0, 0, 0] += 1    # row 3, column 0: two 3 × 3 convolutions see two rows and columns around it
    changed = (switcher.scores({**params, "conv1.weight": moved})["conv1"] - before["conv1"]).abs().flatten(1) > 0
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert changed.any() and rows.min() >= 1 and columns.max() <= 2


# -------- learning and compacting

@pytest.mark.parametrize("switcher", ["entry", UNET, "free", "scl", "hard_concrete"])
def test_each_step_moves_its_own_network_only(switcher):
    model = networks.conv(norm=True)
    net = connected(model, convolutions=True, switcher=switcher).train()
    x, y = networks.inputs(model, batch=8), torch.arange(8) % 3
    before = networks.state(net)
    sl.task_step(net, x, y, SGD(net.model.parameters(), lr=0.1))
    middle = networks.state(net)
    sl.switcher_step(net, x, y, SGD(net.switcher.parameters(), lr=0.1), cost=1.0)
    after = networks.state(net)

    def moved(one, other, part):
        return [name for name in one if name.startswith(part) and not torch.equal(one[name], other[name])]

    assert moved(before, middle, "model.") and not moved(before, middle, "switcher.")
    assert moved(middle, after, "switcher.") and not moved(middle, after, "model.")


@pytest.mark.parametrize("options", [{}, {"refresh": 3}, {"flow": True}, {"noise": 0.2}, {"switcher": "hard_concrete"}])
def test_a_run_at_the_connection_level_is_reproducible_and_compacts(options):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        net = connected(networks.mlp((6, 8, 5, 3)), torch.randn(2, 6), **options)
        history = sl.fit(net, networks.split(60), epochs=2, batch_size=8, every=2, cost=0.05, progress=False,
                         switcher_optimizer=partial(Adam, lr=0.01))
        states.append(networks.state(net))
    assert networks.same(*states) and history.last["parameters"] == net.structure().parameters[1] <= 8 * 7 + 9 * 5 + 6 * 3
    assert sl.compact(net, torch.randn(8, 6)).certificate.holds


def test_neurons_that_masks_cut_off_are_removed_and_constants_absorbed():
    model = networks.mlp((6, 5, 4, 3))
    with torch.no_grad():
        model.fc1.bias.copy_(torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0]))
    net = connected(model).eval()
    s = {key: torch.where(torch.rand(one.shape) < 0.5, 0.5, one) for key, one in ones(net).items()}
    s["fc1"][0] = 0         # nothing arrives: neuron 0 is the constant relu(1), rule (c)
    s["fc1"][3] = 0         # nothing arrives: neuron 3 is the constant relu(-1) = 0, rule (a)
    s["fc2"][:, 1] = 0      # nobody reads neuron 1, rule (b)
    s["fc3"][:, 2] = 0      # nobody reads neuron 2 of fc2
    net.hold(s)
    small = sl.compact(net, networks.inputs(model))
    assert small.widths["fc1"] == (5, 2) and small.widths["fc2"] == (4, 3)
    why = small.reasons["fc1"]
    assert why[0] == "off: constant 1, absorbed into fc2.bias" and why[3] == "off: constant 0"
    assert why[1].startswith("off: no reader") and small.reasons["fc2"][2].startswith("off: no reader")
    assert why[2] == why[4] == "on" and small.certificate.relative_error <= 1e-12
    x = torch.randn(9, 6)
    torch.testing.assert_close(small.model.eval()(x), net(x))


def test_a_cut_cascades_through_the_layers():
    model = networks.mlp((6, 5, 4, 3), bias=False)
    net = connected(model).eval()
    s = ones(net)
    s["fc3"][:, 1:] = 0
    s["fc2"][0, 2:] = 0     # the only neuron of fc2 that is read reads two neurons of fc1
    net.hold(s)
    small = sl.compact(net, networks.inputs(model))
    assert small.widths["fc1"] == (5, 2) and small.widths["fc2"] == (4, 1) and small.certificate.holds


# -------- the fully connected layer of deep networks, as in arXiv 2103.15590

DEEP = {    # as narrow as leaves the last layer something to choose from; the layer whose neurons only that one reads
    "vgg_16_bn": (partial(models.vgg_16_bn, widths=[2] * 12 + [16]), "conv13"),
    "resnet_18": (partial(models.resnet_18, (3, 8, 8), widths=[2, 2, 2, 16]), None),    # a stream, which its blocks read
    "resnet_34": (partial(models.resnet_34, (3, 8, 8), widths=[2, 2, 2, 16]), None),
    "resnet_56": (partial(models.resnet_56, (3, 8, 8), widths=[2, 2, 16]), None),
    "mobilenet": (partial(models.mobilenet, (3, 8, 8), widths=[2] * 13 + [16]), "block13.pointwise"),
}


@pytest.mark.parametrize("make, before", DEEP.values(), ids=DEEP)
def test_half_the_weights_of_a_deep_networks_linear_layer_are_removed_exactly(make, before):
    model = networks.built(make).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            networks.lively(module)
    x = networks.images(4, (3, 32, 32) if before == "conv13" else (3, 8, 8))
    net = connected(model, x, switcher="random").eval()
    assert [(site.key, site.shape) for site in net.sites] == [("fc", (10, 16))]
    mask = net.factors()["fc"].clone()
    assert mask.sum() == 80
    mask[:, 3] = 0    # nobody reads feature 3 now
    net.hold({"fc": mask})
    dense = metrics.count_parameters(model)
    assert net.structure().parameters == (dense, dense - int((mask == 0).sum()))
    small = sl.compact(net, x)
    assert small.certificate.relative_error <= 1e-12
    assert {path: left for path, (n, left) in small.widths.items() if n != left} == ({before: 15} if before else {})
    with torch.no_grad():
        whole, given = model(x), [net(x), sl.fold(net).eval()(x), small.model(x)]
        model.fc.weight.mul_(mask)
        expected = model(x)
    for y in given:
        torch.testing.assert_close(y, expected)
    assert not torch.allclose(whole, expected)
