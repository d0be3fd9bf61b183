"""What has to hold for any network, any factors, any order of the neurons."""

import copy
from functools import partial

import networks
import pytest
import torch
from hypothesis import assume, given, register_random, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

import switcher_lib as sl
from switcher_lib import metrics
from switcher_lib.switchers import keep_within


class TorchsGenerator:
    """PyTorch's global generator, for hypothesis to set before each example."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


GENERATOR = TorchsGenerator()    # hypothesis holds it weakly
register_random(GENERATOR)

few, some, many = settings(max_examples=10), settings(max_examples=25), settings(max_examples=40)
seeds = st.integers(0, 10_000)
homogeneous = st.sampled_from([nn.ReLU, partial(nn.LeakyReLU, 0.2), nn.PReLU])
zero_at_zero = st.sampled_from([nn.ReLU, partial(nn.LeakyReLU, 0.2), nn.GELU, nn.Tanh, nn.SiLU, nn.Identity])
widths = st.lists(st.integers(1, 9), min_size=3, max_size=5).map(tuple)


@st.composite
def mlps(draw, act=zero_at_zero):
    return networks.mlp(draw(widths), draw(act), draw(st.booleans()), draw(seeds))


@st.composite
def convs(draw, act=zero_at_zero):
    pools = [None, partial(nn.MaxPool2d, 2), partial(nn.AvgPool2d, 2), partial(nn.AvgPool2d, 3, 2, 1),
             partial(nn.MaxPool2d, 3, 2, 1), partial(nn.AdaptiveAvgPool2d, 3)]
    return networks.conv((draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 5))), draw(act),
                         draw(st.sampled_from(pools)), draw(st.booleans()), draw(st.integers(0, 1)), seed=draw(seeds),
                         padding_mode=draw(st.sampled_from(["zeros", "circular"])))


@st.composite
def others(draw):
    make = draw(st.sampled_from([networks.Residual, networks.Reused, networks.Shared, networks.Cat, networks.View]))
    return networks.built(make, draw(seeds))


anything = st.one_of(mlps(), convs(), others())


def outputs(net, x):
    with torch.no_grad():
        return net(x)


def switch(net, x, **options):
    try:
        return sl.Switched(net, x, **options)
    except sl.SwitchError as nothing:
        assert "nothing in" in str(nothing)
        assume(False)


# -------- symmetry

def permuted(model, site, order):
    """The same function with a site's neurons in another order: own rows, BatchNorm and readers' columns move along."""
    model = copy.deepcopy(model)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for axis in site.axes:
            p = tensors[axis.name]
            index = torch.arange(axis.length)
            index[axis.positions] = axis.positions[order]
            p.copy_(p.index_select(axis.dim, index))
        path = site.incoming[0].name.rpartition(".")[0] if site.incoming else ""
        norm = model.get_submodule(path)
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(norm.running_mean[order])
            norm.running_var.copy_(norm.running_var[order])
    return model


@st.composite
def networks_with_an_order(draw, nets):
    net = draw(nets)
    x = networks.inputs(net)
    switched = switch(net, x, switch_inputs=draw(st.booleans()), switch_flattened=draw(st.booleans()))
    site = draw(st.sampled_from([site for site in switched.sites if site.kind == "neuron"]))
    return net.eval(), x, switched.sites, site, torch.tensor(draw(st.permutations(range(site.size))))


@many
@given(networks_with_an_order(st.one_of(mlps(), convs(), st.builds(networks.built, st.just(networks.Cat), seeds))))
def test_permuting_a_layers_neurons_leaves_the_function_alone(case):
    model, x, _, site, order = case
    torch.testing.assert_close(outputs(permuted(model, site, order), x), outputs(model, x))


@some
@given(networks_with_an_order(st.one_of(mlps(), convs())), st.sampled_from(["incoming", "outgoing", "both"]), seeds)
def test_permuting_neurons_permutes_the_row_switchers_factors_of_that_layer(case, reads, seed):
    model, _, sites, site, order = case
    torch.manual_seed(seed)
    switcher = sl.RowSwitcher(sites, reads=reads, gate="relu_bn").double().eval()    # smooth where it is on
    before = switcher.scores({name: p.double() for name, p in model.named_parameters()})
    after = switcher.scores({name: p.double() for name, p in permuted(model, site, order).named_parameters()})
    torch.testing.assert_close(after[site.key], before[site.key][order])


@some
@given(networks_with_an_order(st.one_of(mlps(), convs(), st.builds(networks.built, st.just(networks.Cat), seeds))), seeds)
def test_permuting_any_layer_permutes_the_statistics_switchers_factors_and_no_others(case, seed):
    model, _, sites, site, order = case
    torch.manual_seed(seed)
    switcher = sl.StatsSwitcher(sites).double()
    before = switcher({name: p.double() for name, p in model.named_parameters()})
    after = switcher({name: p.double() for name, p in permuted(model, site, order).named_parameters()})
    for other in sites:
        if other is site:
            torch.testing.assert_close(after[site.key], before[site.key][order])
        elif other.kind == "neuron" or other.path == sites[0].path:
            torch.testing.assert_close(after[other.key], before[other.key])
        else:    # flattened features move in blocks with their channels
            torch.testing.assert_close(after[other.key].sort().values, before[other.key].sort().values)


def test_permuting_the_layer_before_changes_the_row_switchers_factors_and_a_unet_follows_no_order():
    model = networks.mlp((6, 7, 8, 3))
    sites, _ = sl.find_sites(model, torch.randn(2, 6))
    order = torch.tensor([3, 1, 0, 2, 6, 5, 4])
    shuffled = permuted(model, sites[0], order)
    torch.manual_seed(0)
    unet = sl.UNetSwitcher(sites, channels=(8, 16), reads="incoming").train()
    for switcher, keeps_own in ((sl.RowSwitcher(sites), True), (unet, False)):
        before, after = switcher.scores(dict(model.named_parameters())), switcher.scores(dict(shuffled.named_parameters()))
        assert torch.allclose(after["fc1"], before["fc1"][order], atol=1e-6) == keeps_own
        assert not torch.allclose(after["fc2"], before["fc2"])


# -------- scaling, folding, compaction

@many
@given(anything, st.sampled_from(["incoming", "outgoing"]), st.booleans())
def test_factors_of_1_change_nothing(model, face, more):
    x = networks.inputs(model)
    net = switch(model.eval(), x, face=face, switch_inputs=more, switch_flattened=more).eval()
    net.hold_ones()
    assert torch.equal(outputs(net, x), outputs(model, x))


@many
@given(anything, st.sampled_from(["incoming", "outgoing"]), st.booleans(), seeds)
def test_folding_equals_scaling(model, face, more, seed):
    x = networks.inputs(model).double()
    net = switch(model.double(), x, face=face, switch_inputs=more, switch_flattened=more).double().eval()
    net.hold(networks.factors(net.sites, seed))
    folded = sl.fold(net)
    torch.testing.assert_close(outputs(folded.eval(), x), outputs(net, x), rtol=1e-9, atol=1e-12)
    assert type(folded) is type(model) and folded is not model
    net.release()
    torch.testing.assert_close(outputs(sl.fold(net).eval(), x), outputs(net, x), rtol=1e-9, atol=1e-12)    # live ones


@settings(max_examples=80)
@given(anything, st.sampled_from(["incoming", "outgoing"]), st.booleans(), seeds, st.sampled_from([0.2, 0.5, 0.9]))
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_compaction_equals_folding_for_random_factors_with_random_zeros(model, face, more, seed, off):
    x = networks.inputs(model)
    net = switch(model, x, face=face, switch_inputs=more, switch_flattened=more).eval()
    net.hold(networks.factors(net.sites, seed, off))
    small = sl.compact(net, x)
    folded, fresh = sl.fold(net).eval().double(), networks.inputs(model, batch=3, seed=seed).double()
    y, y_hat = outputs(folded, fresh), outputs(small.model.double(), fresh)
    assert y.shape == y_hat.shape and (y - y_hat).abs().max() <= 1e-12 * y.abs().max()
    assert metrics.count_parameters(small.model) == small.parameters[1] <= small.parameters[0]
    for site in net.sites:    # every neuron that is off has gone, but for a layer's last and what padding shows
        if site.kind == "neuron" and face == "incoming":
            why = small.reasons[site.path]
            assert all(w.startswith(("off", "kept")) for w, s in zip(why, net.held[site.key]) if s == 0)


@some
@given(st.one_of(mlps(), convs()), seeds)
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_zeros_anywhere_in_the_weights_compact_exactly(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():    # whole rows, whole columns, single weights
            p *= torch.rand(p.shape, generator=generator) > 0.3
            if p.ndim > 1:
                p *= (torch.rand(p.shape[0], generator=generator) > 0.3).reshape(-1, *[1] * (p.ndim - 1))
                p *= (torch.rand(p.shape[1], generator=generator) > 0.3).reshape(1, -1, *[1] * (p.ndim - 2))
    x = networks.inputs(model)
    assert sl.compact(model, x).certificate.relative_error <= 1e-12


@few
@given(st.one_of(mlps(), convs()), seeds)
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_compacting_twice_removes_no_more(model, seed):
    x = networks.inputs(model)
    net = switch(model, x, switch_inputs=True, switch_flattened=True).eval()
    net.hold(networks.factors(net.sites, seed))
    small = sl.compact(net, x)
    again = sl.compact(small.model, x)
    assert again.parameters[1] == small.parameters[1] and again.certificate.relative_error <= 1e-12


@some
@given(widths, seeds, st.booleans())
def test_the_count_of_0_and_1_factors_is_the_compacted_networks(widths, seed, switch_inputs):
    model = networks.mlp((max(widths), *widths, 3), seed=seed)    # dense weights: nothing cascades
    x = networks.inputs(model)
    net = sl.Switched(model, x, switch_inputs=switch_inputs).eval()
    on = {key: (s != 0).float() for key, s in networks.factors(net.sites, seed).items()}
    net.hold(on)
    small = sl.compact(net, x)
    assert net.count(on).item() == metrics.count_parameters(small.model) == net.structure().parameters[1]
    assert net.count(on, macs=True).item() == metrics.count_macs(small.model, x) == net.structure().macs[1]


@some
@given(convs(act=st.just(nn.ReLU)), seeds, st.booleans())
def test_the_count_of_0_and_1_factors_is_the_compacted_convolutional_networks(model, seed, flattened):
    x = networks.inputs(model)
    net = sl.Switched(model, x, switch_flattened=flattened).eval()
    on = {key: (s != 0).float() for key, s in networks.factors(net.sites, seed).items()}
    features = next((site for site in net.sites if site.kind == "feature"), None)
    if features is not None:    # at least one feature of each channel, so that nothing cascades
        on[features.key][::features.size // model.conv2.out_channels] = 1
    net.hold(on)
    small = sl.compact(net, x)
    assert round(net.count(on).item()) == metrics.count_parameters(small.model)
    assert round(net.count(on, macs=True).item()) == metrics.count_macs(small.model, x)


def test_a_sigmoid_is_refused_and_the_rest_compacts():
    model = networks.mlp((6, 5, 4, 3))
    model.act1 = nn.Sigmoid()
    with pytest.warns(sl.SwitchWarning, match=r"act1 \(Sigmoid\) is not 0 at 0.*skip=\['fc1'\]"):
        net = networks.held(model, torch.randn(2, 6))
    assert [site.key for site in net.sites] == ["fc2"] and "Sigmoid" in net.refused["fc1"]
    assert sl.compact(net, torch.randn(8, 6)).certificate.relative_error <= 1e-12


# -------- connections

@st.composite
def connected(draw, nets=anything):
    """A network switched at the connection level, with or without its convolutions, and random inputs."""
    model = draw(nets)
    x = networks.inputs(model)
    has_linear = any(isinstance(m, nn.Linear) for m in model.modules())
    net = sl.Switched(model, x, level="connection", convolutions=draw(st.booleans()) or not has_linear, switcher="free")
    return net.eval(), x


@many
@given(connected())
def test_connection_factors_of_1_change_nothing(case):
    net, x = case
    net.hold_ones()
    assert torch.equal(outputs(net, x), outputs(net.model, x))


@many
@given(connected(), seeds)
def test_folding_equals_scaling_at_the_connection_level(case, seed):
    net, x = case
    net, x = net.double(), x.double()
    for factors in (networks.factors(net.sites, seed), None):
        net.hold(factors) if factors else net.release()
        folded = sl.fold(net)
        torch.testing.assert_close(outputs(folded.eval(), x), outputs(net, x), rtol=1e-9, atol=1e-12)
        shown = net.factors()
        for site in net.sites:
            assert torch.equal(folded.get_parameter(site.name), net.model.get_parameter(site.name) * shown[site.key])


@many
@given(connected(), seeds, st.sampled_from([0.3, 0.7, 0.95]))
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_compaction_equals_folding_for_random_connections_off(case, seed, off):
    net, x = case
    net, x = net.double(), x.double()    # what is absorbed into a bias is rounded as the bias is stored
    net.hold(networks.factors(net.sites, seed, off))
    small = sl.compact(net, x)
    fresh = networks.inputs(net.model, batch=3, seed=seed).double()
    y, y_hat = outputs(sl.fold(net).eval(), fresh), outputs(small.model, fresh)
    assert small.certificate.holds and y.shape == y_hat.shape and (y - y_hat).abs().max() <= 1e-12 * y.abs().max()
    assert metrics.count_parameters(small.model) == small.parameters[1] <= small.parameters[0]


@some
@given(connected(), seeds)
def test_the_count_of_connections_on_is_that_of_weights_which_are_not_0(case, seed):
    net, _ = case
    on = {key: (s != 0).float() for key, s in networks.factors(net.sites, seed).items()}
    net.hold(on)
    folded, zeros = sl.fold(net), 0
    for site in net.sites:
        zeros += int((folded.get_parameter(site.name) == 0).sum())
    left = metrics.count_parameters(net.model) - zeros
    assert net.count(on).item() == left == net.structure().parameters[1]
    assert net.cost(on).item() == pytest.approx(left / metrics.count_parameters(net.model))
    assert {key: n for key, (_, n) in net.structure().sites.items()} == {key: int(s.sum()) for key, s in on.items()}


@some
@given(st.integers(1, 9), st.integers(1, 9), seeds, st.data())
def test_permuting_both_sides_of_a_layer_permutes_the_entry_switchers_factors(n, d, seed, data):
    model = nn.Sequential(nn.Linear(d, n)).double()
    torch.manual_seed(seed)
    switcher = sl.EntrySwitcher(sl.find_connections(model)[0]).double()
    rows, columns = (torch.tensor(data.draw(st.permutations(range(k)))) for k in (n, d))
    weight = model[0].weight.detach()
    before = switcher({"0.weight": weight})["0"]
    after = switcher({"0.weight": weight[rows][:, columns]})["0"]
    assert before.shape == (n, d)
    torch.testing.assert_close(after, before[rows][:, columns])


def test_a_unet_follows_no_order_of_connections():
    model = networks.mlp((6, 7, 3))
    torch.manual_seed(0)
    unet = sl.UNetSwitcher(sl.find_connections(model)[0], channels=(4, 8)).eval()
    params, order = dict(model.named_parameters()), torch.tensor([3, 1, 0, 2, 6, 5, 4])
    before = unet.scores(params)["fc1"]
    after = unet.scores({**params, "fc1.weight": params["fc1.weight"][order]})["fc1"]
    assert not torch.allclose(after, before[order], atol=1e-4)


# -------- budgets

@st.composite
def scored(draw):
    """A switched network, random scores (with ties or without) and a budget anywhere from nothing to everything."""
    model = draw(st.one_of(mlps(), convs()))
    level = draw(st.sampled_from(["neuron", "connection"]))
    x = networks.inputs(model)
    net = (switch(model, x, switch_inputs=draw(st.booleans()), switcher="free") if level == "neuron" else
           sl.Switched(model, x, level=level, convolutions=draw(st.booleans()), switcher="free"))
    generator = torch.Generator().manual_seed(draw(seeds))
    scores = {site.key: torch.rand(site.shape, generator=generator) for site in net.sites}
    if draw(st.booleans()):
        scores = {key: (3 * s).round() for key, s in scores.items()}
    return net, scores, draw(st.integers(1, metrics.count_parameters(model) + 5)), draw(st.sampled_from(["global", "layer"]))


@many
@given(scored())
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_a_budget_keeps_the_highest_scores_and_one_more_would_exceed_it(case):
    net, scores, budget, scope = case
    masks = keep_within(net, scores, budget, scope)
    assert all(mask.shape == scores[key].shape and set(mask.unique().tolist()) <= {0.0, 1.0} for key, mask in masks.items())
    assert all(mask.sum() >= 1 for mask in masks.values())
    assert all(scores[key][mask == 1].min() >= scores[key][mask == 0].max() for key, mask in masks.items() if not mask.all())
    count = net.count(masks).item()
    if count > budget:
        assert all(mask.sum() == 1 for mask in masks.values())    # nothing more can go
    left_out = {key: torch.where(mask == 0, scores[key], -1.0) for key, mask in masks.items() if not mask.all()}
    if not left_out or count > budget:
        return
    if scope == "global":
        highest = max(float(s.max()) for s in left_out.values())
        for key, mask in masks.items():    # what a site keeps besides its last one beats everything that went
            assert mask.sum() == 1 or scores[key][mask == 1].min() >= highest
        nexts = [key for key, s in left_out.items() if float(s.max()) == highest]
    else:
        fractions = {key: (float(mask.sum()), mask.numel()) for key, mask in masks.items()}
        for (a, n), (b, m) in [(one, two) for one in fractions.values() for two in fractions.values()]:
            assert a == 1 or a / n <= b / m + 1 / m + 1e-9    # the same fraction of each, to within one
        nexts = []
    more = {key: mask.clone() for key, mask in masks.items()}
    for key in nexts:    # with ties, any of them may be the next
        more[key].view(-1)[left_out[key].argmax()] = 1
    if len(nexts) == 1:
        assert net.count(more).item() > budget
    elif scope == "layer":
        for key, s in left_out.items():
            more[key].view(-1)[s.argmax()] = 1
        assert net.count(more).item() > budget


# -------- both faces

@many
@given(st.one_of(mlps(act=homogeneous), convs(act=homogeneous)), seeds)
def test_both_faces_agree_for_homogeneous_activations_and_factors_of_at_least_0(model, seed):
    x = networks.inputs(model)
    incoming, outgoing = (switch(model.eval(), x, face=face).eval() for face in ("incoming", "outgoing"))
    s = networks.factors(incoming.sites, seed)
    incoming.hold(s), outgoing.hold(s)
    torch.testing.assert_close(outputs(incoming, x), outputs(outgoing, x))


@few
@given(seeds, st.sampled_from([nn.Tanh, nn.GELU, nn.ReLU6]))
def test_both_faces_differ_for_other_activations(seed, act):
    model = networks.mlp((6, 8, 3), act, seed=seed)
    x = 10 * networks.inputs(model)
    incoming, outgoing = (sl.Switched(model, x, face=face).eval() for face in ("incoming", "outgoing"))
    s = {"fc1": torch.full((8,), 0.5)}
    incoming.hold(s), outgoing.hold(s)
    assert not torch.allclose(outputs(incoming, x), outputs(outgoing, x))


@few
@given(seeds)
def test_both_faces_differ_for_negative_factors(seed):
    model = networks.mlp((6, 8, 3), seed=seed)
    x = networks.inputs(model)
    incoming, outgoing = (sl.Switched(model, x, face=face).eval() for face in ("incoming", "outgoing"))
    s = {"fc1": torch.full((8,), -1.0)}
    incoming.hold(s), outgoing.hold(s)
    assert not torch.allclose(outputs(incoming, x), outputs(outgoing, x))


# -------- gradients

def finite_differences(loss, parameter, places, step=1e-6):
    """Central differences of a loss at some of a parameter's entries."""
    found = []
    with torch.no_grad():
        flat = parameter.view(-1)
        for i in places:
            middle = flat[i].item()
            values = []
            for moved in (middle + step, middle - step):
                flat[i] = moved
                values.append(loss().item())
            flat[i] = middle
            found.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(found, dtype=parameter.dtype)


@torch.no_grad()
def mix(net):
    """Shift and stretch each site's scores: a third of its neurons off, the others on, inside the clamp's slope."""
    for key, a in net.switcher.scores(net.params()).items():
        ordered = a.sort().values
        zero = ordered[len(a) // 3 - 1: len(a) // 3 + 1].mean()
        stretch = 0.9 / (ordered[-1] - zero)
        last = net.switcher.scorers[key][2]
        last.weight.mul_(stretch)
        last.bias.copy_((last.bias - zero) * stretch)
    scores = torch.cat(list(net.switcher.scores(net.params()).values()))
    assume(float(scores.abs().min()) > 1e-4)
    assert all(((s == 0).any() and ((s > 0) & (s < 1)).any()) for s in net.factors().values())


@st.composite
def double_networks(draw, flow):
    """A float64 network with alive and off neurons; smooth activations, so that the gates' kinks are the only ones."""
    seed = draw(seeds)
    norm = draw(st.booleans())
    model = networks.conv((1, 5, 6), nn.Tanh, partial(nn.AvgPool2d, 2), norm, 0, seed=seed) if norm else networks.mlp(
        (6, 7, 8, 3), nn.Tanh, seed=seed)
    torch.manual_seed(seed)
    net = sl.Switched(model, networks.inputs(model), switcher=partial(sl.RowSwitcher, hidden=6, bias=0.3), flow=flow,
                      switch_inputs=not norm)
    net = net.double().train()
    mix(net)
    return net, networks.inputs(model, batch=7, seed=seed).double(), torch.arange(7) % 3


@few
@given(double_networks(flow=False), st.sampled_from([0.0, 2.0]))
def test_the_switcher_steps_gradient_agrees_with_finite_differences(case, cost):
    net, x, y = case

    def loss():
        return net.switcher_loss(x, y, F.cross_entropy, cost)

    loss().backward()
    assert all(p.grad is None for p in net.model.parameters())
    slopes = 0.0
    for p in net.switcher.parameters():
        places = range(0, p.numel(), max(1, p.numel() // 5))
        torch.testing.assert_close(p.grad.view(-1)[list(places)], finite_differences(loss, p, places), rtol=1e-4, atol=1e-7)
        slopes += p.grad.abs().sum()
    assert slopes > 0


@few
@given(st.booleans(), st.data())
def test_the_task_steps_gradient_agrees_with_finite_differences(flow, data):
    net, x, y = data.draw(double_networks(flow=flow))
    fixed = {key: s.detach() for key, s in net.factors().items()}

    def loss():
        if flow:    # θ moves the factors too
            return net.task_loss(x, y, F.cross_entropy)
        return F.cross_entropy(torch.func.functional_call(net.model, net.scale(net.params(), fixed), (x,)), y)

    torch.testing.assert_close(loss(), net.task_loss(x, y, F.cross_entropy), rtol=1e-12, atol=1e-12)
    net.zero_grad()
    net.task_loss(x, y, F.cross_entropy).backward()
    for name, p in net.model.named_parameters():
        places = range(0, p.numel(), max(1, p.numel() // 5))
        torch.testing.assert_close(p.grad.view(-1)[list(places)], finite_differences(loss, p, places), rtol=1e-4, atol=1e-7,
                                   msg=lambda text, name=name: f"{name}: {text}")
    for site in net.sites:    # off is absorbing for the weights, unless the switcher lets the gradient through
        if site.own and not flow:
            dead = fixed[site.key] == 0
            grads = {name: p.grad for name, p in net.model.named_parameters()}
            assert all(not axis.read(grads)[dead].any() for axis in site.incoming)


@st.composite
def double_connections(draw, flow):
    """A float64 network at the connection level whose entry switcher has some connections off and some on the slope."""
    seed = draw(seeds)
    norm = draw(st.booleans())
    model = networks.conv((1, 3, 4), nn.Tanh, partial(nn.AvgPool2d, 2), norm, 0, seed=seed) if norm else networks.mlp(
        (4, 5, 3), nn.Tanh, seed=seed)
    torch.manual_seed(seed)
    net = sl.Switched(model, networks.inputs(model), level="connection", convolutions=norm, flow=flow,
                      switcher=partial(sl.EntrySwitcher, hidden=4)).double().train()
    with torch.no_grad():
        for key, a in net.switcher.scores(net.params()).items():
            ordered, out = a.flatten().sort().values, net.switcher.scorers[key].out
            cut = len(ordered) // 3
            zero, stretch = ordered[cut - 1: cut + 1].mean(), 0.9 / (ordered[-1] - ordered[cut - 1: cut + 1].mean())
            out.weight.mul_(stretch)
            out.bias.copy_((out.bias - zero) * stretch)
    assume(min(float(a.detach().abs().min()) for a in net.switcher.scores(net.params()).values()) > 1e-4)
    assert all((s == 0).any() and ((s > 0) & (s < 1)).any() for s in net.factors().values())
    return net, networks.inputs(model, batch=7, seed=seed).double(), torch.arange(7) % 3


def agrees(loss, named, rtol=1e-4):
    """Whether backward's gradients of a loss are the finite differences, at some entries of each parameter."""
    for name, p in named:
        places = range(0, p.numel(), max(1, p.numel() // 2))
        torch.testing.assert_close(p.grad.view(-1)[list(places)], finite_differences(loss, p, places), rtol=rtol, atol=1e-7,
                                   msg=lambda text, name=name: f"{name}: {text}")


@few
@given(st.booleans(), st.data())
def test_gradients_of_task_switcher_and_joint_steps_on_connections_agree_with_finite_differences(flow, data):
    net, x, y = data.draw(double_connections(flow=flow))

    def switcher_loss():
        return net.switcher_loss(x, y, F.cross_entropy, 2.0)

    switcher_loss().backward()
    assert all(p.grad is None for p in net.model.parameters())
    agrees(switcher_loss, net.switcher.named_parameters())
    fixed = {key: s.detach() for key, s in net.factors().items()}

    def held():
        return F.cross_entropy(torch.func.functional_call(net.model, net.scale(net.params(), fixed), (x,)), y)

    net.zero_grad()
    net.task_loss(x, y, F.cross_entropy).backward()
    agrees((lambda: net.task_loss(x, y, F.cross_entropy)) if flow else held, net.model.named_parameters())
    for site in net.sites:    # off is absorbing for a weight, unless the switcher lets the gradient through
        if not flow:
            assert not net.model.get_parameter(site.name).grad[fixed[site.key] == 0].any()

    def joint():
        return net.joint_loss(x, y, F.cross_entropy, 2.0)

    net.zero_grad()
    joint().backward()
    agrees(joint, net.switcher.named_parameters())
    agrees(joint if flow else held, net.model.named_parameters())


# -------- whose parameters move

@few
@given(seeds, st.sampled_from(["row", "stats", "free", "unet"]), st.sampled_from(["relu", "clamp", "relu_bn", "step", "relu_tanh"]),
       st.sampled_from(["live", 3]), st.booleans())
def test_each_step_moves_one_network_and_leaves_the_other_bit_for_bit(seed, switcher, gate, refresh, norm):
    model = networks.conv(norm=norm, seed=seed)
    torch.manual_seed(seed)
    net = sl.Switched(model, networks.inputs(model), switcher=partial(sl.UNetSwitcher, channels=(2, 3)) if switcher == "unet"
                      else switcher, gate=gate, refresh=refresh).train()
    x, y = networks.inputs(model, batch=6), torch.arange(6) % 3
    task, switch = SGD(net.model.parameters(), lr=0.1, momentum=0.9), SGD(net.switcher.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        before = networks.state(net)
        sl.task_step(net, x, y, task)
        middle = networks.state(net)
        sl.switcher_step(net, x, y, switch)
        after = networks.state(net)
        assert all(torch.equal(before[name], middle[name]) for name in before if name.startswith("switcher."))
        assert all(torch.equal(middle[name], after[name]) for name in before if name.startswith("model."))
        assert any(not torch.equal(before[name], middle[name]) for name in before if name.startswith("model."))


@few
@given(st.one_of(mlps(), convs()), seeds)
def test_switching_leaves_the_model_as_it_was(model, seed):
    before, modes = networks.state(model), [m.training for m in model.modules()]
    net = switch(model, networks.inputs(model))
    net.structure(), net.factors(), net.cost()
    assert networks.same(before, networks.state(model)) and modes == [m.training for m in model.modules()]
