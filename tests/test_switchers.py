"""Switchers of neurons: what they read, what they return, and what they refuse.

Their symmetries: test_properties.py. Connections: test_connections.py. Rivals and controls: test_rivals.py.
"""

from functools import partial

import networks
import pytest
import torch
from torch import nn

import switcher_lib as sl
from switcher_lib import switchers
from switcher_lib.switchers import row_statistics, weight_blocks

NAMES = ["row", "unet", "stats", "free", "scl", "hard_concrete", "random"]    # the others need more than sites


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


@pytest.fixture
def mixed():
    """Sites of every kind: pixels or flattened features, channels behind a BatchNorm, neurons; and the parameters."""
    net = nn.Sequential(networks.conv(norm=True, classes=6, side=16), nn.ReLU(), nn.Linear(6, 3))
    found, _ = sl.find_sites(net, torch.randn(2, 2, 16, 16), switch_flattened=True)
    assert [site.kind for site in found] == ["neuron", "neuron", "feature", "neuron"]
    return found, dict(net.named_parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_every_switcher_gives_one_finite_factor_for_each_neuron(name, training, mixed):
    sites, params = mixed
    factors = switchers.make(name, sites).train(training)(params)
    assert {key: tuple(s.shape) for key, s in factors.items()} == {site.key: (site.size,) for site in sites}
    assert all(s.isfinite().all() and (s >= 0).all() for s in factors.values())


@pytest.mark.parametrize("name", ["row", "unet", "stats", "free"])    # a coin needs no gate
@pytest.mark.parametrize("gate", ["relu", "relu_bn", "relu_tanh", "clamp", "step"])
def test_any_switcher_takes_any_gate(name, gate, mixed):
    sites, params = mixed
    switcher = switchers.make(name, sites, gate)
    assert all(type(g) is type(sl.gates.make(gate)) for g in switcher.gates.values()) and len(switcher.gates) == len(sites)
    if name != "free":
        switcher(params)


@pytest.mark.parametrize("name", ["row", "stats", "unet"])
def test_reading_the_weights_depends_on_them_and_reaches_every_site(name, mixed):
    sites, params = mixed
    switcher = switchers.make(name, sites)
    scores = switcher.scores(params)
    sum(s.sum() for s in scores.values()).backward()
    if name == "stats":
        assert all(p.grad is not None for p in switcher.scorer.parameters())
    other = {key: p + torch.randn_like(p) for key, p in params.items()}
    assert all(not torch.allclose(s, switcher.scores(other)[key]) for key, s in scores.items())


def test_free_gates_and_random_ones_look_at_nothing(mixed):
    sites, params = mixed
    for name in ("free", "random"):
        switcher = switchers.make(name, sites)
        one, other = switcher(params), switcher({key: torch.randn_like(p) for key, p in params.items()})
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_row_switchers_blocks_are_divided_per_layer_and_not_per_neuron():
    net = networks.mlp((6, 5, 3))
    (site,), _ = sl.find_sites(net, torch.randn(2, 6))
    params = {name: p.detach() for name, p in net.named_parameters()}
    blocks = weight_blocks(site, params, "incoming")
    assert blocks.shape == (5, 7) and blocks.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    weak = dict(params)
    for name in ("fc1.weight", "fc1.bias"):
        weak[name] = params[name] * torch.tensor([0.01, 1, 1, 1, 1]).reshape(-1, *[1] * (params[name].ndim - 1))
    ratio = weight_blocks(site, weak, "incoming")
    assert ratio[0].norm() < 0.02 * ratio[1:].norm(dim=1).max()
    both = weight_blocks(site, params, "both")
    assert torch.equal(both[:, 3:], blocks) and torch.equal(both[:, :3], weight_blocks(site, params, "outgoing"))


@pytest.mark.parametrize("reads", ["incoming", "outgoing", "both"])
def test_row_switcher_reads_what_it_is_told(reads, mixed):
    sites, params = mixed
    switcher = sl.RowSwitcher(sites, reads=reads)
    switcher(params)
    changed = dict(params)
    changed["2.weight"] = torch.randn_like(params["2.weight"])    # the readers of the last site
    last = sites[-1].key
    moved = not torch.allclose(switcher.scores(params)[last], switcher.scores(changed)[last])
    assert moved == (reads != "incoming")


def test_with_a_reach_a_step_moves_scores_alike_however_many_weights_a_neuron_has():
    def moved(width, reach):
        torch.manual_seed(0)
        (site,), _ = sl.find_sites(networks.mlp((width, 8, 3)), torch.randn(2, width))
        params = dict(networks.mlp((width, 8, 3)).named_parameters())
        switcher = sl.RowSwitcher([site], reach=reach)
        before = switcher.scores(params)[site.key].detach()
        optimizer = torch.optim.Adam(switcher.parameters(), lr=1e-4)
        switcher.scores(params)[site.key].sum().backward()
        optimizer.step()
        return before, (switcher.scores(params)[site.key] - before).abs().mean().item()

    plain, steady = moved(4000, None), moved(4000, 100)
    assert torch.allclose(plain[0], steady[0], atol=1e-5)    # where scores start is left alone
    assert plain[1] > 10 * steady[1] and steady[1] < 3 * moved(100, None)[1]
    assert torch.equal(moved(50, None)[0], moved(50, 100)[0])    # narrow layers do not notice


def test_row_switcher_with_scores_of_its_own_adds_them(mixed):
    sites, params = mixed
    torch.manual_seed(0)
    plain = sl.RowSwitcher(sites)
    torch.manual_seed(0)
    switcher = sl.RowSwitcher(sites, own=10.0)
    before = plain.scores(params)
    assert all(torch.equal(score, before[key]) for key, score in switcher.scores(params).items())    # they start at 0
    switcher.free[sites[0].key].data[1] = 0.2
    first, *others = (switcher.scores(params)[site.key] - before[site.key] for site in sites)
    assert first[1].item() == pytest.approx(2.0) and first.count_nonzero() == 1 and not any(other.any() for other in others)
    sum(score.sum() for score in switcher.scores(params).values()).backward()
    assert all((free.grad == 10).all() for free in switcher.free.values())
    assert not list(plain.free.parameters())
    with pytest.raises(ValueError, match="own=-1"):
        sl.RowSwitcher(sites, own=-1)


def test_scores_start_near_the_bias():
    net = networks.mlp((50, 40, 3))
    sites, _ = sl.find_sites(net, torch.randn(2, 50))
    params = dict(net.named_parameters())
    for make in (partial(sl.RowSwitcher, bias=4.0), partial(sl.FreeGates, bias=4.0), partial(sl.StatsSwitcher, bias=4.0)):
        assert 3 < make(sites).scores(params)["fc1"].mean() < 5
    spread = sl.FreeGates(sites, bias=0.0, spread=0.0).scores(params)["fc1"]
    assert not spread.any()


def test_statistics_are_the_documented_ones():
    net = networks.mlp((6, 5, 3))
    feature, site = sl.find_sites(net, torch.randn(2, 6), switch_inputs=True)[0]
    params = {name: p.detach() for name, p in net.named_parameters()}
    found = row_statistics(site, params)
    w = site.rows(params) / site.rows(params).std(unbiased=False)
    rms = w.square().mean(1).sqrt()
    expected = torch.stack([w.mean(1), rms, rms.log(), w.abs().mean(1), w.amax(1), w.amin(1)], 1)
    assert found.shape == (5, 15)
    torch.testing.assert_close(found[:, :6], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 12:], torch.tensor([8.0, 3.0, 1.0]).log().expand(5, 3))    # fan-in 6 + bias + 1
    features = row_statistics(feature, params)
    assert not features[:, :6].any() and (features[:, 14] == 1).all()


def test_a_statistics_switcher_fits_a_network_of_other_widths():
    small, large = networks.mlp((6, 5, 3)), networks.mlp((9, 8, 7, 4), seed=1)
    switcher = sl.StatsSwitcher(sl.find_sites(small, torch.randn(2, 6))[0])
    other = sl.StatsSwitcher(sl.find_sites(large, torch.randn(2, 9))[0])
    other.load_state_dict(switcher.state_dict())
    assert other(dict(large.named_parameters()))["fc2"].shape == (7,)


@pytest.mark.parametrize("n, d", [(1, 1), (2, 3), (8, 3), (16, 16), (17, 5), (33, 10)])
def test_the_unet_takes_images_of_any_size_in_training_too(n, d):
    net = networks.mlp((4, n, d))
    net.add_module("act2", nn.ReLU())
    sites, _ = sl.find_sites(net, torch.randn(2, 4), skip=["fc2"])
    switcher = sl.UNetSwitcher(sites, gate="relu").train()
    scores = switcher.scores(dict(net.named_parameters()))
    assert scores["fc1"].shape == (n,)
    scores["fc1"].sum().backward()
    assert all(p.grad is not None for p in switcher.unets.parameters())


def test_the_unet_sees_the_readers_weights_or_the_neurons_own():
    net = networks.mlp((6, 5, 3))
    sites, _ = sl.find_sites(net, torch.randn(2, 6))
    params = dict(net.named_parameters())
    for reads, name in (("outgoing", "fc2.weight"), ("incoming", "fc1.weight")):
        switcher = sl.UNetSwitcher(sites, channels=(2, 3), reads=reads).eval()
        before = switcher.scores(params)["fc1"]
        for other in ("fc1.weight", "fc2.weight"):
            changed = {**params, other: torch.randn_like(params[other])}
            assert torch.allclose(before, switcher.scores(changed)["fc1"]) == (other != name)


def test_the_unet_of_the_papers_size_has_about_1_57_million_parameters():
    net = sl.models.lenet_300_100()
    sites, _ = sl.find_sites(net, networks.images(2), switch_inputs=True)
    count = sum(p.numel() for p in sl.UNetSwitcher(sites).parameters())
    assert 1.3e6 < count < 1.8e6


# -------- the coin

def test_random_switches_off_exactly_as_many_as_asked_and_never_changes_its_mind(mixed):
    sites, params = mixed
    switcher = sl.RandomSwitcher(sites, off=0.4, seed=3)
    for site in sites:
        s = switcher(params)[site.key]
        assert int((s == 0).sum()) == int(0.4 * site.size) and set(s.tolist()) <= {0.0, 1.0}
    again, other = sl.RandomSwitcher(sites, off=0.4, seed=3), sl.RandomSwitcher(sites, off=0.4, seed=4)
    assert networks.same(networks.state(switcher), networks.state(again))
    assert not networks.same(networks.state(switcher), networks.state(other))
    assert not switcher.learns


def test_random_takes_a_number_for_each_site(mixed):
    sites, params = mixed
    wanted = {site.key: i % site.size for i, site in enumerate(sites, start=1)}
    factors = sl.RandomSwitcher(sites, off=wanted)(params)
    assert {key: int((s == 0).sum()) for key, s in factors.items()} == wanted


# -------- bad input

@pytest.mark.parametrize("make, error, words", [
    (lambda s: switchers.make("rwo", s), ValueError, "switcher='rwo' is not a switcher; did you mean 'row'? "
                                                     "Known: entry, fixed, free, hard_concrete, magnitude, "
                                                     "random, row, scl, shuffled, slimming, stats, unet."),
    (lambda s: switchers.make("row", s, "clmp"), ValueError, "gate='clmp' is not a gate; did you mean 'clamp'?"),
    (lambda s: switchers.make(7, s), TypeError, "switcher=7 must be a name or a factory of sites"),
    (lambda s: switchers.make(sl.RowSwitcher(s), s), TypeError, "must be a name or a factory of sites"),
    (lambda s: switchers.make(lambda sites: nn.Linear(2, 2), s), TypeError, "made a Linear; it must make a Switcher"),
    (lambda s: sl.RowSwitcher(s, hidden=0), ValueError, "hidden=0 must be an integer of at least 1"),
    (lambda s: sl.RowSwitcher(s, hidden=2.5), ValueError, "hidden=2.5"),
    (lambda s: sl.RowSwitcher(s, reach=0), ValueError, "reach=0 must be None or an integer of at least 1"),
    (lambda s: sl.RowSwitcher(s, reads="incomming"), ValueError, "reads='incomming' is not a set of weights; did you mean "
                                                                 "'incoming'?"),
    (lambda s: sl.StatsSwitcher(s, hidden=-1), ValueError, "hidden=-1"),
    (lambda s: sl.UNetSwitcher(s, channels=()), ValueError, "channels=() must be positive integers"),
    (lambda s: sl.UNetSwitcher(s, channels=(8, 0)), ValueError, "channels=(8, 0)"),
    (lambda s: sl.UNetSwitcher(s, reads="both"), ValueError, "reads='both' is not a weight image. Known: incoming, outgoing."),
    (lambda s: sl.UNetSwitcher(s, saturation=0.0), ValueError, "saturation=0.0 must be None or above 0"),
    (lambda s: sl.RowSwitcher(s, saturation=0.0), ValueError, "saturation=0.0 must be None or above 0"),
    (lambda s: sl.FreeGates(s, spread=-0.1), ValueError, "spread=-0.1 must be at least 0"),
    (lambda s: sl.RandomSwitcher(s, off=1.0), ValueError, "off=1.0 must be a fraction in [0, 1)"),
    (lambda s: sl.RandomSwitcher(s, off=-0.1), ValueError, "off=-0.1"),
    (lambda s: sl.RandomSwitcher(s, off={"fc1": 5}), ValueError, "'fc1' has 5 neurons"),
    (lambda s: sl.RandomSwitcher(s, off={"fc2": 1}), ValueError, "off='fc2' is not a site; did you mean 'fc1'?"),
])
def test_a_wrong_argument_is_named_with_its_value(make, error, words):
    net = networks.mlp((6, 5, 3))
    sites, _ = sl.find_sites(net, torch.randn(2, 6))
    with pytest.raises(error) as caught:
        make(sites)
    assert words in str(caught.value)


def test_a_switcher_of_ones_own_needs_scores_or_forward_and_inherits_the_rest():
    net = networks.mlp((6, 5, 3))

    class Bare(sl.Switcher):
        pass

    class Norms(sl.Switcher):
        def scores(self, params):
            return {site.key: site.rows(params).norm(dim=1) - 1 for site in self.sites}

    with pytest.raises(NotImplementedError, match="Bare must write scores"):
        sl.Switched(net, torch.randn(2, 6), switcher=Bare).factors()
    own = sl.Switched(net, torch.randn(2, 6), switcher=Norms, gate="relu")
    torch.testing.assert_close(own.factors()["fc1"], (own.sites[0].rows(own.params()).norm(dim=1) - 1).relu())
    assert own.switcher.penalty(own.params()) == 0.0 and not own.switcher.learns
    assert own.switcher.p_on({"fc1": torch.tensor([0.0, 0.5, 2.0])})["fc1"].tolist() == [0.0, 0.5, 1.0]


def test_saturation_counts_what_compaction_leaves_and_slopes_where_factors_are_small():
    net = networks.mlp((6, 5, 3))
    sites, _ = sl.find_sites(net, torch.randn(2, 6))
    s = torch.tensor([0.0, 0.05, 0.3, 1.0, 2.0], requires_grad=True)
    on = sl.FreeGates(sites, saturation=0.3).p_on({"fc1": s})["fc1"]
    assert on.tolist() == [0, 1, 1, 1, 1]
    on.sum().backward()
    tau = 0.09
    expected = [(1 + tau) * 2 * v * tau / (v * v + tau) ** 2 for v in s.tolist()]
    assert s.grad.tolist() == pytest.approx(expected, rel=1e-4) and s.grad[2] > 10 * s.grad[4]
