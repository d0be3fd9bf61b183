"""What is tied to what in networks with groups, streams, gates and halves; and that nothing there is removed wrongly."""

import dataclasses
import math
import re
import warnings
from functools import partial

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import switcher_lib as sl
from switcher_lib import compaction, wiring
from switcher_lib.sites import find_sites


def keys(found):
    return {site.key: site.size for site in found}


def sites_of(make, **options):
    net = networks.built(make)
    found, refused = find_sites(net, networks.inputs(net), **options)
    return keys(found), refused, {site.key: site for site in found}


def names(axes):
    return [axis.name for axis in axes]


SLICED = partial(networks.Halves, divide=lambda x: (x[:, :4], x[:, 4:]))
SPLIT = partial(networks.Halves, divide=lambda x: x.split(4, dim=1))
APART = partial(networks.Halves, lambda one, other: torch.cat([other, one], 1), 8)
MAKES = [networks.Residual, networks.Bottleneck, networks.Inverted, partial(networks.Inverted, norm=False),
         partial(networks.Inverted, times=2), networks.Grouped, networks.Excited, networks.Dense, networks.Twice, networks.Halves,
         APART, SLICED, SPLIT, networks.Scaled, networks.Attended, networks.Product, networks.ByName, networks.Reused, networks.Shared, networks.Cat]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("face", ["incoming", "outgoing"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", MAKES)
def test_what_is_switched_off_is_removed_exactly(make, tied, face, seed):
    net = networks.built(make)
    try:
        held = networks.held(net, networks.inputs(net), seed, tied=tied, face=face)
    except sl.SwitchError as error:
        assert make is networks.Twice and not tied and face == "incoming" or "nothing in" in str(error)
        return
    small = sl.compact(held, networks.inputs(net, 64))
    assert small.certificate.relative_error <= 1e-12
    off = sum(int((s == 0).sum()) for s in held.held.values())
    assert (small.parameters[1] < small.parameters[0]) == (off > 0)
    assert small.parameters[1] <= held.structure().parameters[1]


# -------- residual streams

def test_a_stream_is_one_site_when_tied_and_refused_when_not():
    found, refused, _ = sites_of(networks.Bottleneck)
    assert found == {"stem": 4, "inner": 5} and set(refused) == {"outer", "short", "head"}
    assert "the neurons of outer, short are added up" in refused["outer"] and refused["outer"] == refused["short"]
    found, refused, by_key = sites_of(networks.Bottleneck, tied=True)
    assert found == {"stem": 4, "inner": 5, "outer": 6} and set(refused) == {"head"}
    stream = by_key["outer"]
    assert stream.writers == ("outer", "short")
    assert names(stream.incoming) == ["bn2.weight", "bn2.bias", "bn3.weight", "bn3.bias"]
    assert names(stream.own) == ["outer.weight", "short.weight"] and names(stream.outgoing) == ["head.weight"]


def test_a_channel_of_a_stream_goes_when_the_factor_of_all_writers_is_0():
    net = networks.built(networks.Bottleneck)
    held = sl.Switched(net, networks.inputs(net), tied=True).eval()
    held.hold({site.key: torch.ones(site.size).index_fill(0, torch.tensor([1]), 0) for site in held.sites})
    small = sl.compact(held, networks.inputs(net))
    assert {small.widths[path] for path in ("outer", "short")} == {(6, 5)} and small.model.bn3.num_features == 5


def test_skipping_one_writer_of_a_stream_leaves_all_of_it_alone():
    found, refused, _ = sites_of(networks.Bottleneck, tied=True, skip=["short"])
    assert found == {"stem": 4, "inner": 5}
    assert refused["short"] == "skipped on request" and "can only go together with short" in refused["outer"]


def test_neurons_read_behind_several_batch_norms_are_scaled_at_each():
    found, refused, _ = sites_of(networks.Dense)
    assert found == {"two": 3} and "read behind different layers (bn1, bn2, bn3)" in refused["stem"]    # two: bn3 alone
    found, refused, by_key = sites_of(networks.Dense, tied=True)
    assert found == {"stem": 4, "one": 3, "two": 3} and set(refused) == {"head"}
    assert names(by_key["one"].incoming) == ["bn2.weight", "bn2.bias", "bn3.weight", "bn3.bias"]
    assert by_key["one"].incoming[0].positions.tolist() == [[4], [5], [6]]    # behind stem's four
    assert keys(find_sites(networks.Dense(), torch.randn(2, 2, 12, 12), face="outgoing")[0]) == found


def test_two_places_on_one_path_would_scale_twice_and_are_refused():
    net = networks.built(networks.Twice)
    _, refused = find_sites(nn.Sequential(net, nn.ReLU(), nn.Linear(2, 2)), torch.randn(2, 6), tied=True)
    assert "behind different layers on one path (0.a, 0.bn), which would scale them twice" in refused["0.a"]


# -------- groups

@pytest.mark.parametrize("times", [1, 2])
def test_a_depthwise_convolution_hands_its_channels_on_and_the_last_batch_norm_takes_the_factors(times):
    found, refused, by_key = sites_of(partial(networks.Inverted, times=times))
    assert found == {"expand": 6, "project": 4} and set(refused) == {"head"}
    site = by_key["expand"]
    assert names(site.incoming) == ["bn2.weight", "bn2.bias"] and site.incoming[0].positions.shape == (6, times)
    assert {"depth.weight", "depth.bias", "bn1.weight", "bn1.bias"} <= set(names(site.passed))


def test_a_depthwise_convolution_shrinks_with_its_groups():
    net = networks.built(networks.Inverted)
    held = sl.Switched(net, networks.inputs(net), skip=["project"]).eval()
    held.hold({"expand": torch.tensor([1.0, 0, 0.5, 0, 1, 1])})
    small = sl.compact(held, networks.inputs(net)).model
    assert (small.depth.groups, small.depth.in_channels, small.depth.out_channels) == (4, 4, 4)
    assert small.depth.weight.shape == (4, 1, 3, 3) and small.project.in_channels == 4


def test_a_group_goes_as_a_whole():
    found, _, by_key = sites_of(networks.Grouped)
    assert found == {"a": 3, "b": 4}
    assert by_key["a"].own[0].positions.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert by_key["a"].incoming[0].name == "g.weight" and by_key["a"].incoming[0].positions.shape == (3, 4)
    net = networks.built(networks.Grouped)
    held = sl.Switched(net, networks.inputs(net)).eval()
    held.hold({"a": torch.tensor([1.0, 0, 1]), "b": torch.ones(4)})
    small = sl.compact(held, networks.inputs(net))
    g = small.model.g
    assert (g.groups, g.in_channels, g.out_channels, small.model.b.in_channels) == (2, 4, 8, 8)
    assert small.widths["g"] == (12, 8) and small.widths["a"] == (6, 4)


def test_a_compacted_network_with_groups_is_saved_and_loaded(tmp_path):
    for make in (networks.Grouped, networks.Inverted):
        net = networks.built(make)
        small = sl.compact(networks.held(net, networks.inputs(net)), networks.inputs(net))
        small.save(tmp_path / "net.safetensors")
        loaded = sl.load_compact(tmp_path / "net.safetensors", into=make)
        x = networks.inputs(net)
        assert torch.equal(loaded(x), small.model.eval()(x))


def test_groups_of_the_input_are_nobodys():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    found, refused = find_sites(net, torch.randn(2, 2, 8, 8))
    assert keys(found) == {"2": 3} and "reads what always arrives" in refused["0"]


# -------- products

def test_a_squeeze_and_excitation_goes_with_the_channels_that_it_scales():
    found, refused, by_key = sites_of(networks.Excited)
    assert found == {"conv": 6, "down": 4, "out": 4} and set(refused) == {"head"}
    site = by_key["conv"]
    assert names(site.incoming) == ["bn.weight", "bn.bias"] and names(site.outgoing) == ["down.weight", "out.weight"]
    assert {"up.weight", "up.bias"} <= set(names(site.passed)) and site.writers == ("conv",)


def test_where_either_factor_is_0_the_product_is_and_one_place_is_enough():
    # tanh(0) = 0: both the channel and its factor could be gated; scaling both would scale the product twice
    found, _, by_key = sites_of(partial(networks.Excited, gate=torch.tanh), tied=True)
    assert len([name for name in names(by_key["conv"].incoming) if "weight" in name]) == 1


def test_factors_that_others_read_would_scale_their_product_twice_and_are_refused():
    found, refused, _ = sites_of(networks.Product)
    assert "a" not in found and "the neurons of a, b are added up or multiplied" in refused["a"]
    found, refused, _ = sites_of(networks.Product, tied=True)
    assert "a" not in found and "different layers on one path (a, b), which would scale them twice" in refused["a"]
    assert sites_of(networks.Product, tied=True, face="outgoing")[0]["a"] == 5    # each reader's columns, once


def test_what_multiplies_all_channels_stays():
    found, refused, _ = sites_of(networks.Attended)
    assert found == {"a": 5, "b": 4} and "all neurons of another layer are multiplied by it" in refused["map"]


def test_a_scale_for_each_channel_goes_with_the_channels():
    _, _, by_key = sites_of(networks.Scaled)
    assert "scale" in names(by_key["a"].passed)
    net = networks.built(networks.Scaled)
    small = sl.compact(networks.held(net, networks.inputs(net), off=0.6), networks.inputs(net))
    assert len(small.model.scale) == small.widths["a"][1] < 5


def test_a_number_leaves_channels_apart_and_a_number_that_is_added_leaks():
    assert "a" in sites_of(partial(networks.Scaled, lambda x: 2 * x / 3))[0]
    with pytest.warns(sl.SwitchWarning, match="is not 0 at 0: a neuron switched off would leave a constant 3"):
        found, refused, _ = sites_of(partial(networks.Scaled, lambda x: x + 3))
    assert "a" not in found and "constant 3" in refused["a"]


def test_a_hard_swish_written_out_is_0_at_0():
    assert "a" in sites_of(partial(networks.Scaled, lambda x: x * F.relu6(x + 3) / 6))[0]


# -------- pieces

def test_halves_that_are_multiplied_go_by_pairs():
    found, _, by_key = sites_of(networks.Halves)
    assert found["a"] == 4 and by_key["a"].own[0].positions.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize("make, reason", [
    (APART, "divided by chunk() into pieces that are not tied to each other"), (SPLIT, "divided by split()"),
    (SLICED, "picked by a slice of fixed size"),
    (partial(networks.Scaled, lambda x: x[:, [4, 3, 2, 1, 0]]), "picked by an index"),
    (partial(networks.Scaled, lambda x: x.expand(-1, 5, -1, -1)), "fixed size 5"),
])
def test_pieces_of_fixed_size_fix_their_neurons(make, reason):
    found, refused, _ = sites_of(make)
    assert "a" not in found and "b" in found and reason in refused["a"]


def test_a_slice_that_leaves_the_neurons_alone_lets_them_go():
    found, _, _ = sites_of(partial(networks.Scaled, lambda x: x[:, :, 1:-1, ::2]))
    assert found["a"] == 5


# -------- what is read where nobody looks

@pytest.mark.parametrize("read", [lambda weight: weight, lambda weight: weight.t().contiguous().t()])
def test_a_weight_that_is_read_by_its_name_stays_whole(read):
    found, refused, _ = sites_of(partial(networks.ByName, read))
    assert found == {"free": 4} and refused["a"] == "a.weight is read by its name elsewhere"
    assert refused["b"] == "linear() is not known to keep channels apart"


def test_asking_for_a_weights_type_is_not_reading_it():
    class Asks(networks.ByName):
        def forward(self, x):
            return self.out(F.relu(self.free(F.relu(self.a(x.to(self.a.weight.dtype))))))

    net = networks.built(Asks)
    assert "unseen" not in find_sites(net, networks.inputs(net))[1]


def test_every_layer_is_a_site_or_has_a_reason():
    for make in MAKES:
        net = networks.built(make)
        for tied in (False, True):
            try:
                found, refused = find_sites(net, networks.inputs(net), tied=tied)
            except sl.SwitchError:
                continue
            told = {name.rpartition(".")[0] for site in found for axis in site.axes for name in [axis.name] if axis.dim == 0} | set(refused)
            layers = {path for path, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
            assert layers <= told, (make, layers - told)


def test_an_unseen_branch_is_named():
    class Auxiliary(networks.Residual):
        def __init__(self):
            super().__init__()
            self.aux = nn.Linear(4, 3)

        def forward(self, x):
            y = super().forward(x)
            return (y, self.aux(x.mean((2, 3)))) if self.training else y

    net = networks.built(Auxiliary)
    assert find_sites(net, networks.inputs(net))[1]["aux"] == "torch.fx does not see aux run"


def test_another_way_in_train_mode_is_told_and_dropout_is_none():
    class Other(nn.Module):
        def __init__(self, between):
            super().__init__()
            self.a, self.b, self.c, self.between = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 2), between

        def forward(self, x):
            return self.c(self.b(self.between(self.a(x).relu(), self.training)).relu())

    x = torch.randn(4, 6)
    for between, where in ((lambda h, training: h.roll(1, 1) if training else h, "from roll on"),
                           (lambda h, training: h / h.shape[1] if training else h, "from getattr on"),
                           (lambda h, training: h.roll(1, 1) if not training else h, "from b on"),
                           (lambda h, training: h[1:] if training and h.sum() > 0 else h, "that torch.fx cannot follow")):
        model = Other(between).train()
        for call in (find_sites, sl.compact):
            with pytest.warns(sl.SwitchWarning, match=f"in train mode forward\\(\\) goes .*{where}") as told:
                call(model, x)
            assert told[0].filename == __file__ and model.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for between in (lambda h, training: F.dropout(h, 0.5, training), lambda h, training: F.dropout(h, 0.5) if training else h):
            sl.compact(Other(between).train(), x)
        sl.compact(networks.built(networks.Residual).train(), networks.inputs(networks.built(networks.Residual)))


def test_a_buffer_that_a_forward_replaces_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls = self.calls + 1
            return self.b(self.a(x).relu())

    model = Counting()
    before = model.calls
    sl.Switched(model, torch.randn(2, 6))
    assert model.calls is before and before == 0


def test_pools_and_layers_that_take_a_batch_for_one_image_are_not_trusted():
    for pool in (nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1), lambda h: F.max_pool1d(h, 3, 1, 1), nn.InstanceNorm1d(4)):
        class Pooled(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c, self.pool = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 2), pool

            def forward(self, x):
                return self.c(self.b(self.pool(self.a(x)).relu()).relu())

        found, refused = find_sites(Pooled(), torch.randn(4, 6))
        assert keys(found) == {"b": 4} and "of 2 axes, for one image instead of a batch" in refused["a"]
    deep = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool3d((3, 1, 1), 1, (1, 0, 0)), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    assert keys(find_sites(deep, torch.randn(2, 3, 8, 8))[0]) == {"2": 4}


def test_a_layer_that_shares_weight_and_bias_names_both():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    assert wiring.shared_parameters(model) == {"0": ["weight", "bias"], "2": ["weight", "bias"]}
    assert find_sites(nn.Sequential(model, nn.ReLU(), nn.Linear(2, 3), nn.Linear(3, 1)), torch.randn(2, 4))[1]["0.0"] == (
        "0.0 shares weight and bias with another module")
    found, refused = sl.find_connections(model)
    assert [site.path for site in found] == ["4"] and set(refused) == {"0", "2"}


def test_a_constant_that_differs_between_two_views_in_one_batch_is_none_behind_groups_either():
    class Views(nn.Module):
        def __init__(self, groups):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=groups), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            h = self.a(x)
            return self.c(self.b(torch.cat([h, 0.5 * h], 0)).relu())

    for groups in (1, 4):
        torch.manual_seed(0)
        model = Views(groups)
        with torch.no_grad():
            model.a.weight[1], model.a.bias[1] = 0, 1.0    # constant, but worth half in the second view
        assert sl.compact(model, torch.randn(2, 3, 8, 8)).certificate.holds


def test_a_second_input_is_refused_and_an_option_is_left_at_its_default():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x, mask):
            return self.b(self.a(x).relu() * mask)

    with pytest.raises(sl.SwitchError, match="forward\\(\\) takes 'mask' besides 'x'; only networks of one input"):
        find_sites(Two(), torch.randn(2, 6))

    class Option(Two):
        def forward(self, x, scale=2.0):
            return self.b(self.a(x).relu() * scale)

    assert keys(find_sites(Option(), torch.randn(2, 6))[0]) == {"a": 5}


def test_where_a_neuron_has_fewer_places_than_others_the_axiss_length_stands_for_none():
    found_out = wiring.trace(networks.mlp((2, 3, 2)), torch.randn(2, 2))
    found_out.axes["w", 0] = torch.tensor([2, 3, 2, 1, 2, 0])
    assert found_out.positions("w", 0, torch.tensor([1, 2, 3])).tolist() == [[3, 6, 6], [0, 2, 4], [1, 6, 6]]


# -------- constants

def test_a_channel_that_is_0_makes_a_product_0_whatever_else_is_in_it():
    a, b = torch.tensor([0.0, 2.0, torch.nan, 0.0]).double(), torch.tensor([torch.nan, 3.0, 0.0, 5.0]).double()
    assert wiring._times(a, b, a.shape).tolist() == [0, 6, 0, 0]


def test_a_channel_that_is_0_at_some_places_stays():
    model = networks.built(partial(networks.Scaled, shape=(10, 10)))    # a factor for each pixel, the same for all channels
    with torch.no_grad():
        model.scale[:5] = 0
    assert sites_of(partial(networks.Scaled, shape=(10, 10)))[0] == {"a": 5, "b": 4}
    assert sl.compact(model, networks.inputs(model)).widths["a"] == (5, 5)


def test_a_dead_excitation_is_seen():
    model = networks.built(networks.Excited)
    with torch.no_grad():
        model.bn.weight[[1, 4]], model.bn.bias[[1, 4]] = 0, 0
    small = sl.compact(model, networks.inputs(model))
    assert small.widths["conv"] == (6, 4) and small.widths["up"] == (6, 4)


# -------- the rehearsal

def test_a_fault_in_what_was_found_out_is_seen_before_anything_is_removed(monkeypatch):
    # Nothing that is off shows the fault: channel 0 of the halves is removed from the first half only.
    model = networks.built(APART)
    with torch.no_grad():
        model.a.weight[[1, 5]], model.a.bias[[1, 5]] = 0, 0
    kept = sl.compact(model, networks.inputs(model))
    assert kept.widths["a"] == (8, 8)
    monkeypatch.setattr(wiring.Wiring, "_found", lambda self, labels: [])    # any two halves count as tied
    with pytest.raises(sl.CertificateError, match="cannot be compacted: with random neurons off|does not run"):
        sl.compact(model, networks.inputs(model))
    monkeypatch.setattr(compaction, "_rehearse", lambda *told: None)
    assert sl.compact(model, networks.inputs(model)).widths["a"] == (8, 6)    # and the certificate of this removal holds


@pytest.mark.parametrize("place", range(8))
def test_a_fault_about_a_single_neuron_is_seen_whichever_it_is(monkeypatch, place):
    class Leaking(nn.Module):    # behind torch.fx's back, one neuron leaves something when it is off
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(self.a(x).relu())

    def leak(module, given, h):
        if isinstance(module, nn.Linear) and h.shape[-1] > 2:
            gone = torch.arange(h.shape[-1]) == place if h.shape[-1] == 8 else torch.zeros(h.shape[-1], dtype=torch.bool)
            return torch.where(gone & (h == 0), 1.0, h)

    model = Leaking()
    hook = nn.modules.module.register_module_forward_hook(leak)
    try:
        with pytest.raises(sl.CertificateError, match="with random neurons off"):
            sl.compact(model, torch.randn(2, 6))
    finally:
        hook.remove()


# -------- what keeps channels apart, between two layers

class Between(nn.Module):
    """conv, something, conv, the mean over places, a linear layer."""

    def __init__(self, what):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1), nn.Linear(4, 3)
        self.v = nn.Parameter(torch.rand(6, 1, 1))
        self.register_buffer("tau", torch.tensor(2.5))
        self.what = what    # a module, or a function of this network and an activation

    def forward(self, x):
        h = self.a(x)
        h = self.what(h) if isinstance(self.what, nn.Module) else self.what(self, h)
        return self.out(F.relu(self.b(h)).mean((2, 3)))


class Frozen(nn.Conv2d):
    """A convolution with a first weight of its own, and PyTorch's forward()."""

    def __init__(self):
        super().__init__(6, 6, 3, padding=1, groups=6, bias=False)
        nn.init.constant_(self.weight, 0.1)


def unpacked(h):
    values, _ = h.max(3, keepdim=True)
    return h * values


KEEP_APART = {
    "expand_as": lambda m, h: h * h.mean((2, 3), keepdim=True).sigmoid().expand_as(h),
    "view_as": lambda m, h: h.relu().view_as(h), "to": lambda m, h: h.to(h.dtype), "type_as": lambda m, h: h.tanh().type_as(h),
    "float": lambda m, h: h.float(), "divided": lambda m, h: h / m.tau,
    "tanh_": lambda m, h: (h * 1.0).tanh_(), "sin": lambda m, h: h.sin(), "erf": lambda m, h: torch.erf(h),
    "atan": lambda m, h: h.atan(), "input=": lambda m, h: h * torch.mean(input=h, dim=(2, 3), keepdim=True),
    "F.pad": lambda m, h: F.pad(h, (1, 2, 0, 1)), "F.pad, reflected": lambda m, h: F.pad(h, (1, 1, 1, 1), mode="reflect"),
    "F.pad, only places": lambda m, h: F.pad(h, (1, 1, 1, 1, 0, 0)),
    "ReflectionPad2d": nn.ReflectionPad2d(1), "ZeroPad2d": nn.ZeroPad2d(1), "SyncBatchNorm": nn.SyncBatchNorm(6).eval(),
    "a subclass": Frozen(), "amax": lambda m, h: h + h.amax((2, 3), keepdim=True),
    "max": lambda m, h: h * torch.max(h.flatten(2), 2)[0][:, :, None, None], "unpacked": lambda m, h: unpacked(h), "values": lambda m, h: h * h.max(3, keepdim=True).values,
    "sum": lambda m, h: h * h.sum((2, 3), keepdim=True), "a scale's own": lambda m, h: h * m.v,
}


@pytest.mark.parametrize("name", KEEP_APART)
def test_channels_are_followed_through(name):
    model, x = Between(KEEP_APART[name]).eval(), networks.images(4, (2, 8, 8))
    sites, refused = sl.find_sites(model, x)
    assert [site.key for site in sites] == ["a", "b"] and "a" not in refused
    with torch.no_grad():
        model.a.weight[:2], model.a.bias[:2] = 0, 0
    small = sl.compact(model, x)
    assert small.widths["a"] == (6, 4) and small.certificate.holds
    for shape in ((3, 2, 8, 8), (1, 2, 11, 9)):
        other = torch.randn(shape)
        torch.testing.assert_close(small.model(other), model(other), rtol=1e-4, atol=1e-5)


REFUSED = {
    "exp": (lambda m, h: h.exp(), r"exp \(function\) is not 0 at 0"), "cos": (lambda m, h: torch.cos(h), r"cos \(function\) is not 0 at 0"),
    "ones around": (lambda m, h: F.pad(h, (1, 1, 1, 1), value=1.0), r"pad\(\) brings in what is no neuron"),
    "more channels": (lambda m, h: F.pad(h, (0, 0, 0, 0, 1, 1))[:, 1:-1], r"pad\(\) brings in"),
    "as often as there are channels": (lambda m, h: h + h.mean(1, keepdim=True).expand_as(h).sum(1, keepdim=True),
                                       r"mixes its neurons|how often expand_as\(\) repeats"),
    "over nothing named": (lambda m, h: h * h.sum(dim=()), r"sum\(\) mixes its neurons"),
    "a sum of integers": (lambda m, h: h * h.sum((2, 3), keepdim=True, dtype=torch.float32), r"sum\(\) mixes"),
    "rounded": (lambda m, h: torch.div(h, m.tau, rounding_mode="floor"), r"div\(\) is not known"),
    "other=": (lambda m, h: h.div(other=2.0), r"div\(\) is not known"), "expand_as(other=)": (lambda m, h: h.expand_as(other=h), r"expand_as\(\) is not known"),
    "where": (lambda m, h: torch.where(condition=h > 0.1, input=h, other=torch.zeros_like(h)), r"is not known"),
    "the largest channel": (lambda m, h: h * h.amax(1, keepdim=True), r"amax\(\) mixes its neurons"),
    "where the largest are": (lambda m, h: h * h.max(3, keepdim=True)[1], r"max\(\) is not known"),
    "integers": (lambda m, h: h * h.to(torch.int64), "become integers"), "a gate of its own": (lambda m, h: h * torch.sigmoid(m.v),
                                                                                         "are multiplied by what cannot be switched"),
    "a bias of its own": (lambda m, h: h + torch.sigmoid(m.v), "are added to what cannot be switched"),
    "divided by each its own": (lambda m, h: h / (m.v + 1), r"truediv\(\) is not known"),
}


@pytest.mark.filterwarnings("ignore:.*is not 0 at 0")
@pytest.mark.parametrize("name", REFUSED)
def test_what_channels_are_not_followed_through_is_named(name):
    what, words = REFUSED[name]
    _, refused = sl.find_sites(Between(what).eval(), networks.images(4, (2, 8, 8)))
    assert re.search(words, refused["a"]), refused["a"]


def hooked(layer, how):
    how(layer)
    return layer


UNSEEN = {
    "its own forward": (lambda: type("Odd", (nn.Linear,), {"forward": lambda self, x: F.linear(x, self.weight - self.weight.mean())})(5, 5),
                        lambda m, h: m.layer(h), r"layer \(Odd\) has a forward\(\) of its own"),
    "by its weight": (lambda: nn.Linear(5, 5), lambda m, h: F.linear(h, m.layer.weight), "uses the weight of layer by itself"),
    "not run": (lambda: nn.Linear(5, 5), lambda m, h: h, "torch.fx does not see layer run"),
    "pruned": (lambda: hooked(nn.Linear(5, 5), lambda l: prune.random_unstructured(l, "weight", 0.5)), lambda m, h: m.layer(h),
               r"hook of torch.nn.utils \(RandomUnstructured\).*prune.remove\(\)"),
    "an encoder": (lambda: nn.TransformerEncoderLayer(5, 1, 7, batch_first=True), lambda m, h: m.layer(h[:, None]).mean(1),
                   r"layer \(TransformerEncoderLayer\) is one of PyTorch's own modules that torch.fx does not look into"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_why_a_layer_is_not_switched_is_told_as_it_is(name):
    make, use, words = UNSEEN[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer, self.mid, self.out = nn.Linear(6, 5), make(), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(F.relu(self.mid(F.relu(use(self, self.first(x))))))

    model, x = Net().eval(), torch.randn(4, 6)
    sites, refused = sl.find_sites(model, x)
    assert "mid" in [site.key for site in sites] and re.search(words, refused["layer"]), refused
    with torch.no_grad():
        model.mid.weight[0], model.mid.bias[0] = 0, 0
    assert sl.compact(model, x).widths["mid"] == (4, 3)    # sizes of what is cut are set, others' stay


@pytest.mark.parametrize("default", [(2, 2), [1], {"a": 1}, None, 3], ids=str)
def test_an_option_has_its_default_whatever_that_is(default):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x, size=default, **more):
            assert size == default and not more
            return self.out(F.relu(self.a(x)))

    assert [site.key for site in sl.find_sites(Net(), torch.randn(4, 6))[0]] == ["a"]


def test_a_trace_that_is_not_what_the_model_computes_is_refused_at_once():
    class Asks(networks.View):
        def forward(self, x):
            h = super().forward(x)
            return h if isinstance(x, torch.Tensor) else h.sigmoid()

    x = networks.images(4, (2, 12, 12))
    with pytest.raises(sl.SwitchError, match="what torch.fx follows of Asks computes something else"):
        sl.Switched(Asks(), x)
    model = networks.View()
    model.register_forward_hook(lambda module, inputs, output: output.flip(1))
    with pytest.raises(sl.SwitchError, match="computes something else than the model does: a hook on it"):
        sl.find_sites(model, x)
    model = networks.View()
    model.forward = lambda x: networks.View.forward(model, x).flip(1)    # this is followed
    assert sl.find_sites(model, x)[0]


def test_a_network_that_draws_in_eval_mode_is_told():
    class Draws(networks.View):
        def forward(self, x):
            return super().forward(F.dropout(x))    # training=True is its default

    x, model = networks.images(4, (2, 12, 12)), Draws()
    with pytest.warns(sl.SwitchWarning, match="Draws gives other outputs for the same inputs in eval mode .F.dropout.*compact.. will not"):
        net = sl.Switched(model, x)
    for one in (net, model):
        with pytest.raises(sl.SwitchError, match="Draws gives other outputs for the same inputs.*Nothing was changed"):
            sl.compact(one, x)


def test_masked_scores_and_dataclasses_are_compared():
    @dataclasses.dataclass
    class Told:
        scores: torch.Tensor
        size: int

    class Masked(networks.View):
        def forward(self, x):
            y = super().forward(x)
            return Told(y.masked_fill(torch.tensor([False, True, False]), -math.inf), 3)

    x, model = networks.images(4, (2, 12, 12)), Masked().eval()
    small = sl.compact(sl.Switched(model, x, switcher=partial(sl.RandomSwitcher, off=0.4)), x)
    assert small.certificate.holds and small.widths["conv1"] == (5, 3)


def test_a_size_as_a_number_of_its_own_is_told():
    class Starts(networks.View):
        def forward(self, x):
            return super().forward(x) + torch.zeros(x.size(0), 3)

    with pytest.raises(sl.SwitchError, match=r"cannot be traced.*Sizes go into torch.zeros\(\) and its kin together"):
        sl.find_sites(Starts(), networks.images(4, (2, 12, 12)))


def test_counting_leaves_a_spectral_norm_as_it_was():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    net = sl.Switched(model, torch.randn(4, 6))
    assert [site.key for site in net.sites] == ["2"] and before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("repeat", [lambda g, h: g.expand_as(h).sum(1, keepdim=True), lambda g, h: g.expand(-1, h.shape[1]).sum(1, keepdim=True),
                                    lambda g, h: g.expand_as(h)])
def test_how_often_something_is_repeated_is_a_number_of_neurons(repeat):
    model, x = Wide(repeat), torch.randn(8, 6)
    sites, refused = sl.find_sites(model, x)
    assert "a" in refused and "repeats something" in refused["a"]
    with torch.no_grad():
        model.a.weight[:3], model.a.bias[:3] = 0, 0
    assert sl.compact(model, x).widths["a"] == (8, 8)


class Wide(nn.Module):
    """Something of one column, repeated as often as there are neurons, beside them."""

    def __init__(self, repeat):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.gate, self.repeat = nn.Linear(6, 8), nn.Linear(6, 1), repeat
        nn.init.constant_(self.gate.bias, -9.0)    # 0 for all inputs that are looked at
        self.mid, self.out = nn.Linear(8 + repeat(torch.zeros(1, 1), torch.zeros(1, 8)).size(1), 5), nn.Linear(5, 3)

    def forward(self, x):
        h, g = F.relu(self.a(x)), F.relu(self.gate(x))
        return self.out(F.relu(self.mid(torch.cat([h, self.repeat(g, h)], 1))))


class Adapter(nn.Linear):
    """Merges its second weight in eval mode, as loralib's layers do."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.one, self.other, self.merged = nn.Parameter(torch.randn(n_out, 2)), nn.Parameter(torch.randn(2, n_in)), False

    def train(self, mode=True):
        if mode == self.merged:
            self.weight.data += (self.one @ self.other) * (-1 if self.merged else 1)
            self.merged = not self.merged
        return super().train(mode)

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return y if self.merged else y + x @ self.other.T @ self.one.T


def test_an_adapter_that_merges_in_eval_mode_stays_what_it_is():
    torch.manual_seed(0)
    x = torch.randn(8, 6)
    model = nn.Sequential(Adapter(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    y = model(x)
    sl.find_sites(model, x)
    assert torch.allclose(model(x), y, atol=1e-5)
    net = sl.Switched(model, x)
    net.hold_ones()
    assert torch.allclose(net(x), y, atol=1e-5) and torch.allclose(net.eval()(x), y, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_layer_that_has_not_run_yet_is_no_worse_for_it():
    model, x = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 6)
    assert "2" in [site.key for site in sl.find_sites(model, x)[0]]
    assert model(x).shape == (4, 3)


def test_a_buffer_that_counts_is_followed_from_where_it_is():
    class Counts(networks.View):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", torch.ones(()))

        def forward(self, x):
            y = super().forward(x) * self.n
            self.n += 1
            return y

    model = Counts()
    assert sl.find_sites(model, networks.images(4, (2, 12, 12)))[0] and model.n == 1


def test_another_shape_of_outputs_is_another_network():
    model = networks.View()
    model.register_forward_hook(lambda module, inputs, output: output.sum(1, keepdim=True))
    with pytest.raises(sl.SwitchError, match="computes something else"):
        sl.find_sites(model, networks.images(4, (2, 12, 12)))
