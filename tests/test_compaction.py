"""Compaction: what may go, what must stay, the proof that nothing else changed, and the file."""

import copy
import json
import os
from collections import OrderedDict
from functools import partial
from pathlib import Path

import networks
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Adam, RMSprop

import switcher_lib as sl
from switcher_lib import compaction, models
from switcher_lib.layers import SelectLinear


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def lenet(kind=models.lenet_300_100, seed=0, off=0.6, **options):
    torch.manual_seed(seed)
    x = networks.images(8)
    return networks.held(kind(), x, seed, off, switch_inputs=kind is models.lenet_300_100, **options), x


def close(one, other, x, tolerance=1e-12):
    with torch.no_grad():
        y, y_hat = copy.deepcopy(one).double()(x.double()), copy.deepcopy(other).double()(x.double())
    return y.shape == y_hat.shape and bool((y - y_hat).abs().max() <= tolerance * y.abs().max())


# -------- the certificate holds

@pytest.mark.parametrize("kind, options", [
    (models.lenet_300_100, {}), (models.lenet_300_100, {"face": "outgoing"}), (models.lenet_5, {}),
    (models.lenet_5, {"switch_flattened": True}), (models.lenet_5, {"switch_flattened": True, "face": "outgoing"}),
])
def test_both_lenets_compact_within_1e_12(kind, options):
    net, x = lenet(kind, **options)
    small = sl.compact(net, x)
    assert small.certificate.relative_error <= 1e-12 and small.certificate.holds and small.certificate.inputs == 16
    assert close(sl.fold(net), small.model, x)
    before, after = small.parameters
    assert before == {models.lenet_300_100: 266_610, models.lenet_5: 431_080}[kind] and after < 0.5 * before
    assert after == sum(p.numel() for p in small.model.parameters())
    assert small.certificate.relative_error_as_stored < 1e-4


def test_a_compacted_network_is_the_one_that_one_would_have_built_by_hand():
    net, x = lenet()
    small = sl.compact(net, x)
    s = {key: v != 0 for key, v in net.held.items()}
    sizes = [int(v.sum()) for v in s.values()]
    assert small.widths == {"fc1": (300, sizes[1]), "fc2": (100, sizes[2]), "fc3": (10, 10), "fc1 (inputs)": (784, sizes[0])}
    assert isinstance(small.model.fc1, SelectLinear) and type(small.model.fc2) is nn.Linear
    assert torch.equal(small.model.fc1.index, torch.nonzero(s["input"])[:, 0])
    folded = sl.fold(net)
    assert torch.equal(small.model.fc2.weight, folded.fc2.weight[s["fc2"]][:, s["fc1"]])
    assert (small.model.fc2.in_features, small.model.fc2.out_features) == (sizes[1], sizes[2])
    assert small.parameters[1] == sizes[0] * sizes[1] + sizes[1] + sizes[1] * sizes[2] + sizes[2] + sizes[2] * 10 + 10
    assert sl.metrics.count_parameters(small.model) == net.structure().parameters[1]


def test_compacting_leaves_the_network_as_it_was():
    net, x = lenet()
    net.train()
    before = networks.state(net)
    sl.compact(net, x)
    assert networks.same(before, networks.state(net)) and all(m.training for m in net.modules())


def test_a_batch_norms_parameters_and_statistics_go_with_their_channels():
    net = networks.held(networks.conv(norm=True, padding=1), networks.images(2, (2, 12, 12)), off=0.5)
    small = sl.compact(net, networks.images(8, (2, 12, 12)))
    keep = net.held["conv1"] != 0
    n = int(keep.sum())
    bn = small.model.bn1
    assert bn.num_features == len(bn.weight) == len(bn.running_var) == n < 5
    assert torch.equal(bn.running_mean, net.model.bn1.running_mean[keep])
    assert torch.equal(bn.running_var, net.model.bn1.running_var[keep])
    assert torch.equal(bn.bias, net.held["conv1"][keep] * net.model.bn1.bias[keep])
    assert small.model.conv1.out_channels == n == small.model.conv2.in_channels
    assert small.certificate.relative_error <= 1e-12


def test_a_plain_network_with_zeros_is_compacted_too():
    model = networks.mlp((6, 5, 4, 3))
    with torch.no_grad():
        model.fc1.weight[2], model.fc1.bias[2] = 0, 0
        model.fc3.weight[:, 1] = 0
    small = sl.compact(model, networks.inputs(model))
    assert small.widths == {"fc1": (5, 4), "fc2": (4, 3), "fc3": (3, 3)}


def test_nothing_off_changes_nothing():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    net.hold_ones()
    small = sl.compact(net, torch.randn(8, 6))
    assert networks.same(networks.state(small.model), networks.state(net.model))
    assert small.parameters[0] == small.parameters[1] and small.certificate.relative_error == 0


def test_a_wrapper_around_a_switched_network_is_refused():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    with pytest.raises(TypeError, match="net is a DataParallel around a switched network; give the switched network itself"):
        sl.compact(nn.DataParallel(net), torch.randn(8, 6))


# -------- planted faults: each must make the certificate fail

def unrehearsed(monkeypatch):
    monkeypatch.setattr(compaction, "_rehearse", lambda *told: None)


def faulty(monkeypatch, fault):
    """Let the remover slice as it should, then commit a fault; and let nothing but the certificate notice."""
    unrehearsed(monkeypatch)
    original = compaction._slice

    def slice_and_spoil(model, plan):
        whole = copy.deepcopy(model)
        original(model, plan)
        with torch.no_grad():
            fault(whole, model, plan)

    monkeypatch.setattr(compaction, "_slice", slice_and_spoil)


def norm_net():
    """A network with BatchNorm and one with a single channel of each layer off: not the last, so that order matters."""
    net = sl.Switched(networks.conv(norm=True), networks.images(2, (2, 12, 12))).eval()
    net.hold({"conv1": torch.tensor([1.0, 0.0, 0.5, 1.5, 1.0]), "conv2": torch.tensor([0.0, 1.0, 1.0, 0.7])})
    return net, networks.images(8, (2, 12, 12))


def test_without_a_planted_fault_the_certificate_holds(monkeypatch):
    faulty(monkeypatch, lambda whole, small, plan: None)
    net, x = norm_net()
    assert sl.compact(net, x).widths["conv1"] == (5, 4)


def test_a_surviving_beta_makes_the_certificate_fail(monkeypatch):
    # γ is scaled and β is not: the channel is a constant that the remover takes for nothing.
    net, x = norm_net()
    folded = sl.fold(net).eval()
    with torch.no_grad():
        folded.bn1.bias[1] = 3.0
    kept = sl.compact(folded, x)      # seen for what it is: constant, and conv2 has no bias to absorb it
    assert kept.reasons["conv1"][1] == "kept: constant, but conv2 has no bias to absorb it"
    original_try = compaction._Plan._try_constant

    def takes_it_for_nothing(plan, label):
        original_try(plan, label)
        if label in plan.stuck:
            del plan.stuck[label]
            plan.reason[label] = "off: constant 0"

    monkeypatch.setattr(compaction._Plan, "_try_constant", takes_it_for_nothing)
    with pytest.raises(sl.CertificateError, match="does not compute what the folded one does: certificate FAILS"):
        sl.compact(folded, x)


@pytest.mark.parametrize("buffer", ["running_mean", "running_var"])
def test_a_stale_buffer_makes_the_certificate_fail(buffer, monkeypatch):
    def first_ones(whole, small, plan):    # the right length, the wrong channels
        stale = getattr(whole.bn1, buffer)[:small.bn1.num_features]
        setattr(small.bn1, buffer, stale.clone())

    faulty(monkeypatch, first_ones)
    net, x = norm_net()
    with pytest.raises(sl.CertificateError, match="certificate FAILS"):
        sl.compact(net, x)


def test_a_buffer_that_was_not_sliced_makes_the_certificate_fail(monkeypatch):
    faulty(monkeypatch, lambda whole, small, plan: setattr(small.bn1, "running_mean", whole.bn1.running_mean))
    net, x = norm_net()
    with pytest.raises(sl.CertificateError, match="the compacted Sequential does not run"):
        sl.compact(net, x)


def test_a_buffer_that_moved_meanwhile_makes_the_certificate_fail(monkeypatch):
    def leak(whole, small, plan):
        small.bn2.running_mean += 0.01

    faulty(monkeypatch, leak)
    net, x = norm_net()
    with pytest.raises(sl.CertificateError, match="certificate FAILS"):
        sl.compact(net, x)


@pytest.mark.parametrize("fault, words", [
    # the reader keeps the first columns instead of the neurons' own
    (lambda whole, small, plan: small.conv2.weight.copy_(
        whole.conv2.weight[plan.keep["conv2.weight", 0]][:, :small.conv2.in_channels]), "certificate FAILS"),
    # the reader keeps all its columns
    (lambda whole, small, plan: setattr(small, "fc", whole.fc), "does not run"),
])
def test_a_skipped_reader_makes_the_certificate_fail(fault, words, monkeypatch):
    faulty(monkeypatch, fault)
    net, x = norm_net()
    with pytest.raises(sl.CertificateError, match=words):
        sl.compact(net, x)


def test_a_reader_that_the_plan_forgets_makes_the_certificate_fail(monkeypatch):
    unrehearsed(monkeypatch)
    net = networks.held(networks.built(networks.Cat), networks.images(2, (2, 12, 12)), off=0.5)
    original = compaction._Plan._positions

    def forgets(plan):
        original(plan)
        right = plan.wiring.modules["join"].in_channels
        plan.keep["join.weight", 1] = torch.arange(right)[:len(plan.keep["join.weight", 1])]

    monkeypatch.setattr(compaction._Plan, "_positions", forgets)
    with pytest.raises(sl.CertificateError, match="certificate FAILS"):
        sl.compact(net, networks.images(8, (2, 12, 12)))


def test_a_neuron_that_matters_cannot_be_left_out(monkeypatch):
    net, x = norm_net()
    original = compaction._Plan._look

    def too_much(plan):
        original(plan)
        label = max(plan.wiring.producers["conv1"].labels.tolist())
        plan.is_constant[label] = plan.is_zero[label] = True

    monkeypatch.setattr(compaction._Plan, "_look", too_much)
    with pytest.raises(sl.CertificateError):
        sl.compact(net, x)


def test_a_forgotten_absorption_makes_the_certificate_fail(monkeypatch):
    model = networks.mlp()
    with torch.no_grad():
        model.fc1.weight[0], model.fc1.bias[0] = 0, 2.0
    monkeypatch.setattr(compaction._Plan, "absorbed", lambda plan, exact: {})
    with pytest.raises(sl.CertificateError):
        sl.compact(model, torch.randn(8, 6))


def test_a_wrong_batch_from_a_hard_coded_reshape_is_refused(monkeypatch):
    # Tracing sees such a reshape and keeps the channels; where it could not, the certificate would.
    x = networks.images(4, (2, 12, 12))
    model = networks.built(lambda: networks.View(lambda x: x.view(-1, 256)))
    assert "conv2" in sl.Switched(model, x).refused
    with torch.no_grad():
        model.conv2.weight[:2], model.conv2.bias[:2] = 0, 0
    kept = sl.compact(model, x)
    assert kept.widths["conv2"] == (4, 4) and "fixed size 256" in kept.reasons["conv2"][0]
    monkeypatch.setattr("switcher_lib.wiring._given_sizes", lambda function, node: ())
    with pytest.raises(sl.CertificateError, match="does not run .*sizes written into its code"):
        sl.compact(model, x)


def test_a_squeeze_that_would_take_the_last_channels_axis_is_refused():
    x = networks.images(4, (2, 12, 12))
    model = networks.built(lambda: networks.View(lambda x: x.mean((2, 3), keepdim=True).squeeze(), features=4))
    assert sl.compact(model, x).widths["conv2"] == (4, 4)
    with torch.no_grad():
        model.conv2.weight[:3], model.conv2.bias[:3] = 0, 0
    with pytest.raises(sl.CertificateError, match=r"more than one channel as x\.squeeze\(\) does"):
        sl.compact(model, x)


def test_another_batch_size_is_refused_in_so_many_words():
    full, halved = nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 3)), nn.Flatten(0, 1))
    x = torch.randn(4, 6)
    with pytest.raises(sl.CertificateError, match=r"returns shape \(16, 3\) instead of \(8, 6\).*a wrong batch"):
        compaction._certify(full, halved, full, halved, x, 1e-12)


def test_a_network_that_returns_nan_is_never_certified():
    model = networks.mlp()
    with torch.no_grad():
        model.fc3.bias[0] = float("nan")
    with pytest.raises(sl.CertificateError):
        sl.compact(model, torch.randn(8, 6))


def test_the_tolerance_is_what_it_is_held_against():
    net, x = lenet()
    with pytest.raises(sl.CertificateError, match="tolerance 0e"):
        sl.compact(net, x, tolerance=0)
    certificate = sl.compact(net, x, tolerance=1e-9).certificate
    assert certificate.tolerance == 1e-9 and "certificate holds" in str(certificate) and "16 inputs" in str(certificate)
    assert "FAILS" in str(sl.Certificate(1e-3, 1e-12, 16, 0.0))


# -------- what may go, and why

def test_a_neuron_with_nothing_but_a_bias_is_absorbed_into_the_next_bias():
    model = networks.mlp()
    with torch.no_grad():
        model.fc1.weight[3], model.fc1.bias[3] = 0, 1.5
    small = sl.compact(model, torch.randn(8, 6))
    assert small.reasons["fc1"][3] == "off: constant 1.5, absorbed into fc2.bias"
    torch.testing.assert_close(small.model.fc2.bias, model.fc2.bias + 1.5 * model.fc2.weight[:, 3])
    assert small.certificate.relative_error <= 1e-12


def test_several_constants_are_absorbed_together_and_through_layers():
    model = networks.mlp((6, 5, 4, 4, 3), act=nn.Tanh)
    with torch.no_grad():
        model.fc1.weight[:2], model.fc1.bias[:2] = 0, 1.0
        model.fc2.weight[0, 2:] = 0    # reads constants only: a constant itself
    small = sl.compact(model, torch.randn(8, 6))
    assert small.widths["fc1"] == (5, 3) and small.widths["fc2"] == (4, 3)
    assert "absorbed into fc3.bias" in small.reasons["fc2"][0] and small.certificate.relative_error <= 1e-12


def constant_channel(padding, pool=partial(nn.MaxPool2d, 2), mode="zeros", bias=True):
    model = networks.conv(padding=padding, pool=pool, padding_mode=mode)
    with torch.no_grad():
        model.conv1.weight[1], model.conv1.bias[1] = 0, 0.8
        if not bias:
            model.conv2.bias = None
    return sl.compact(model, networks.images(8, (2, 12, 12)))


def test_a_constant_channel_is_absorbed_by_an_unpadded_convolution():
    small = constant_channel(0)
    assert small.reasons["conv1"][1] == "off: constant 0.8, absorbed into conv2.bias"
    assert small.certificate.relative_error <= 1e-12


def test_a_constant_channel_in_front_of_zero_padding_stays_and_says_why():
    small = constant_channel(1)
    assert small.reasons["conv1"][1] == "kept: constant, but the zero padding of conv2 shows where the border is"
    assert small.widths["conv1"] == (5, 5) and small.certificate.relative_error <= 1e-12


@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect"])
def test_padding_that_repeats_the_image_lets_a_constant_go(mode):
    assert constant_channel(1, mode=mode).reasons["conv1"][1].startswith("off: constant 0.8")


def test_average_pooling_that_counts_its_padding_shows_the_border_too():
    counts = constant_channel(0, partial(nn.AvgPool2d, 3, 2, 1))
    assert counts.widths["conv1"] == (5, 5) and counts.reasons["conv1"][1] == "on"
    ignores = constant_channel(0, partial(nn.AvgPool2d, 3, 2, 1, count_include_pad=False))
    assert ignores.widths["conv1"] == (5, 4)


def test_a_constant_stays_where_no_bias_can_absorb_it():
    assert constant_channel(0, bias=False).reasons["conv1"][1] == "kept: constant, but conv2 has no bias to absorb it"


def test_a_constant_that_a_reused_layer_reads_twice_stays():
    model = networks.built(networks.Reused)
    with torch.no_grad():
        for layer, value in ((model.a, 1.0), (model.b, 2.0)):
            layer.weight[1], layer.bias[1] = 0, value
    small = sl.compact(model, torch.randn(8, 6))
    assert small.reasons["a"][1] == small.reasons["b"][1] == "kept: constant, but b runs more than once on the same bias"


def test_a_leak_on_a_switched_off_neuron_is_absorbed():
    model = networks.mlp((6, 5, 4, 3), act=nn.Sigmoid)
    with torch.no_grad():
        model.fc1.weight[2], model.fc1.bias[2] = 0, 0
    assert sl.compact(model, torch.randn(8, 6)).reasons["fc1"][2] == "off: constant 0.5, absorbed into fc2.bias"


def test_a_neuron_that_nobody_reads_goes_and_frees_those_that_only_it_has_read():
    model = networks.mlp((6, 5, 4, 3, 2), act=nn.Sigmoid)    # f(0) does not matter here
    with torch.no_grad():
        model.fc4.weight[:, 1] = 0        # neuron 1 of fc3 is unread
        model.fc3.weight[:, 2] = 0
        model.fc3.weight[1, 2] = 1        # neuron 2 of fc2 is read by that one only
        model.fc2.weight[:, 0] = 0
        model.fc2.weight[2, 0] = 1        # and neuron 0 of fc1 by that one
    small = sl.compact(model, torch.randn(8, 6))
    assert small.widths == {"fc1": (5, 4), "fc2": (4, 3), "fc3": (3, 2), "fc4": (2, 2)}
    for path, j in (("fc1", 0), ("fc2", 2), ("fc3", 1)):
        assert small.reasons[path][j] == "off: no reader that is on gives it a weight other than 0"
    assert small.reasons["fc4"] == ["on: its outputs are the network's own"] * 2


def test_features_that_only_switched_off_neurons_read_go_with_them():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6)).eval()
    with torch.no_grad():
        net.model.fc1.weight[:, 4] = 0
        net.model.fc1.weight[1, 4] = 1
    net.hold({"fc1": torch.tensor([1.0, 0, 1, 1, 1]), "fc2": torch.ones(4)})
    small = sl.compact(net, torch.randn(8, 6))
    assert small.widths["fc1 (inputs)"] == (6, 5)
    assert small.reasons["fc1 (inputs)"][4] == "off: no neuron gives it a weight other than 0"
    assert small.model.fc1.index.tolist() == [0, 1, 2, 3, 5]


def test_flattened_features_go_one_by_one_and_whole_channels_as_such():
    net, x = lenet(models.lenet_5, switch_flattened=True)
    small = sl.compact(net, x)
    on = (net.held["conv2"] != 0).repeat_interleave(16) & (net.held["fc1_in"] != 0)
    assert small.widths["fc1 (inputs)"] == (800, int(on.sum()))
    assert small.model.fc1.in_features == int(on.sum()) == len(small.model.fc1.index)
    assert small.model.fc1.index.max() < 16 * small.model.conv2.out_channels


@pytest.mark.parametrize("make, path, kept", [
    (networks.mlp, "fc1", 1), (lambda: networks.conv(norm=True, padding=1), "conv1", 1), (networks.conv, "conv2", 1),
    (networks.Bottleneck, "outer", 1), (networks.Inverted, "expand", 1), (networks.Excited, "conv", 1), (networks.Dense, "stem", 1),
    (networks.Grouped, "a", 2), (networks.Halves, "a", 2),    # a group, a pair
])
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")    # of the layers that nobody reads any more
def test_an_emptied_layer_keeps_one_neuron_and_says_so(make, path, kept):
    model = networks.built(make)
    x = networks.inputs(model)
    net = sl.Switched(model, x, tied=True).eval()
    net.hold({site.key: torch.zeros(site.size) if site.key == path else torch.ones(site.size) for site in net.sites})
    with pytest.warns(sl.SwitchWarning, match=f"{path}: all . neurons are off; one is kept so that the layer exists."):
        small = sl.compact(net, x)
    assert small.widths[path][1] == kept and small.reasons[path][0] == "kept: the last neuron of its layer"
    assert small.certificate.relative_error <= 1e-12
    torch.testing.assert_close(small.model(x), net(x))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make, more", [
    *((make, {}) for make in (networks.mlp, networks.conv, networks.Residual, networks.Cat, networks.Bottleneck, networks.Inverted,
                              networks.Excited, networks.Dense)),
    (networks.Grouped, {"a": 2, "g": 4}), (networks.Halves, {"a": 2}),    # a group, a pair
])
@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_everything_off_still_runs_and_gives_the_last_bias(make, more, tied):
    model = networks.built(make)
    x = networks.inputs(model)
    net = sl.Switched(model, x, switch_inputs=True, switch_flattened=True, tied=tied).eval()
    net.hold({site.key: torch.zeros(site.size) for site in net.sites})
    small = sl.compact(net, x)
    assert small.certificate.relative_error <= 1e-12 and all(p.numel() for p in small.model.parameters())
    torch.testing.assert_close(small.model(x), net(x))
    if tied:    # else a stream that nobody switches may stay
        name, last = [(name, module) for name, module in small.model.named_modules() if isinstance(module, nn.Linear)][-1]
        assert torch.equal(small.model(x), last.bias.expand(len(x), -1))
        assert all(left == more.get(path, 1) for path, (_, left) in small.widths.items() if path != name)


@pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")
def test_a_kept_neuron_keeps_what_it_needs():
    # conv2 reads only conv1's channel 1, a constant, and has no bias to absorb it: all its own channels are constants that
    # fc absorbs. One of them is kept, and so must be the channel it reads, though it is not the first of its layer.
    model = networks.conv(pool=None)
    model.conv2.bias = None
    with torch.no_grad():
        model.conv1.weight[1], model.conv1.bias[1] = 0, 1.0
        model.conv2.weight[:, [0, 2, 3, 4]] = 0
    small = sl.compact(model, networks.images(8, (2, 12, 12)))
    assert small.reasons["conv1"][1].startswith("kept: constant") and small.widths["conv2"] == (4, 1)
    assert small.certificate.relative_error <= 1e-12


def test_every_neuron_has_a_reason():
    net, x = lenet(models.lenet_5, switch_flattened=True)
    small = sl.compact(net, x)
    assert {path: len(why) for path, why in small.reasons.items()} == {
        "conv1": 20, "conv2": 50, "fc1": 500, "fc2": 10, "fc1 (inputs)": 800}
    assert all(why == "on" or why.startswith(("on: ", "off: ", "kept: ")) for reasons in small.reasons.values() for why in reasons)
    assert all(why == "off: constant 0" for why, s in zip(small.reasons["conv1"], net.held["conv1"]) if s == 0)


def test_a_tied_stream_goes_only_where_all_that_write_to_it_are_off():
    model = networks.built(networks.Residual)
    with torch.no_grad():
        for layer in (model.stem, model.out2):
            layer.weight[2], layer.bias[2] = 0, 0
        model.stem.weight[1], model.stem.bias[1] = 0, 0    # out2 still writes channel 1
    small = sl.compact(model, networks.inputs(model))
    assert small.widths["stem"] == small.widths["out2"] == (4, 3) and small.certificate.relative_error <= 1e-12


def test_a_shared_weight_stays_one_weight(tmp_path):
    net = networks.held(networks.built(networks.Shared), torch.randn(2, 6))
    small = sl.compact(net, torch.randn(8, 6))
    assert small.model.a.weight is small.model.c.weight
    assert small.parameters[0] - small.parameters[1] == int((net.held["free"] == 0).sum()) * (5 + 1 + 3)
    small.save(tmp_path / "shared.safetensors")
    loaded = sl.load_compact(tmp_path / "shared.safetensors", into=networks.Shared)
    assert loaded.a.weight is loaded.c.weight


def test_what_it_prints():
    net, x = lenet()
    small = sl.compact(net, x)
    text = str(small)
    assert f"266,610 -> {small.parameters[1]:,} parameters" in text and f"fc1: 300 -> {small.widths['fc1'][1]}" in text
    assert "certificate holds" in text and "fc3" not in text
    page = small._repr_html_()
    assert "<th scope='row'>fc1 (inputs)</th><td>784</td>" in page and "certificate holds" in page


# -------- the optimizer

@pytest.mark.parametrize("make", [
    partial(SGD, lr=0.1, momentum=0.9), partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    partial(Adam, lr=0.01), partial(Adam, lr=0.01, amsgrad=True), partial(RMSprop, lr=0.01, momentum=0.5), partial(Adagrad, lr=0.1),
])
def test_the_sliced_optimizers_next_step_is_the_old_ones_restricted_to_the_survivors(make, monkeypatch):
    plans = []
    original = compaction._Plan.__init__
    monkeypatch.setattr(compaction._Plan, "__init__", lambda self, wiring: (original(self, wiring), plans.append(self))[0])
    model = networks.conv(padding=1, norm=True).double()
    dead = {"conv1": [1, 3], "conv2": [0]}
    x, y = networks.images(16, (2, 12, 12)).double(), torch.randint(3, (16,), generator=torch.Generator().manual_seed(0))
    optimizer = make(model.parameters())

    def switch_off(model):
        with torch.no_grad():
            for path, channels in dead.items():
                bn = model.get_submodule(path.replace("conv", "bn"))
                bn.weight[channels], bn.bias[channels] = 0, 0

    def step(model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()

    for _ in range(3):
        switch_off(model)
        step(model, optimizer)
    switch_off(model)
    small = sl.compact(model, x, optimizer=optimizer)
    plan = plans[-1]    # the others were the rehearsal's
    assert type(small.optimizer) is type(optimizer) and small.widths["conv1"] == (5, 3)
    assert {id(p) for group in small.optimizer.param_groups for p in group["params"]} == {id(p) for p in small.model.parameters()}
    fresh = sl.compact(model, x).model
    step(fresh, make(fresh.parameters()))
    step(model, optimizer)
    step(small.model, small.optimizer)
    differs = False
    for (name, p), (_, q), (_, r) in zip(model.named_parameters(), small.model.named_parameters(), fresh.named_parameters()):
        expected = compaction._slice_tensor(name, p, plan)
        torch.testing.assert_close(q, expected, rtol=1e-9, atol=1e-12, msg=name)
        differs |= not torch.allclose(r, expected)
    assert differs    # a new optimizer would have done something else


def test_momentum_is_taken_into_the_folded_coordinates():
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.randint(3, (16,))
    net = sl.Switched(networks.mlp().double(), x)
    net.hold({"fc1": torch.tensor([0.5, 0, 2, 1, 0.25]).double(), "fc2": torch.tensor([1.0, 3, 0, 0.5]).double()})
    optimizer = SGD(net.model.parameters(), lr=0.0, momentum=0.9)
    by_hand = SGD((folded := sl.fold(net)).parameters(), lr=0.0, momentum=0.9)
    for batch in range(3):
        sl.task_step(net.train(), x[batch::3], y[batch::3], optimizer)
        by_hand.zero_grad()
        F.cross_entropy(folded(x[batch::3]), y[batch::3]).backward()
        by_hand.step()
    small = sl.compact(net, x, optimizer=optimizer)
    keep1, keep2 = net.held["fc1"] != 0, net.held["fc2"] != 0
    wanted = by_hand.state[folded.fc2.weight]["momentum_buffer"][keep2][:, keep1]
    torch.testing.assert_close(small.optimizer.state[small.model.fc2.weight]["momentum_buffer"], wanted)
    wanted = by_hand.state[folded.fc1.bias]["momentum_buffer"][keep1]
    torch.testing.assert_close(small.optimizer.state[small.model.fc1.bias]["momentum_buffer"], wanted)


def test_adams_second_moment_is_a_squared_gradient():
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.randint(3, (16,))
    net = sl.Switched(networks.mlp().double(), x)
    net.hold({"fc1": torch.tensor([0.5, 0, 2, 1, 0.25]).double(), "fc2": torch.ones(4).double()})
    optimizer = Adam(net.model.parameters(), lr=0.0)
    by_hand = Adam((folded := sl.fold(net)).parameters(), lr=0.0)
    sl.task_step(net.train(), x, y, optimizer)
    F.cross_entropy(folded(x), y).backward()
    by_hand.step()
    small = sl.compact(net, x, optimizer=optimizer)
    keep = net.held["fc1"] != 0
    for key in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(small.optimizer.state[small.model.fc1.weight][key], by_hand.state[folded.fc1.weight][key][keep])
    assert small.optimizer.state[small.model.fc1.weight]["step"] == 1


def test_the_old_optimizer_and_its_settings_stay_as_they_were():
    net, x = lenet()
    optimizer = SGD([{"params": [p for n, p in net.model.named_parameters() if "weight" in n], "weight_decay": 0.5},
                     {"params": [p for n, p in net.model.named_parameters() if "bias" in n]}], lr=0.3, momentum=0.9)
    sl.task_step(net.train(), x, torch.zeros(8, dtype=torch.int64), optimizer)
    before = copy.deepcopy(optimizer.state_dict())
    small = sl.compact(net, x, optimizer=optimizer)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(torch.equal(before["state"][i]["momentum_buffer"], after["state"][i]["momentum_buffer"]) for i in before["state"])
    groups = small.optimizer.param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0] and [g["lr"] for g in groups] == [0.3, 0.3]
    assert sl.compact(net, x).optimizer is None


def test_a_foreign_optimizer_is_refused():
    net, x = lenet()
    for parameters in (networks.mlp().parameters(), [*net.model.parameters(), torch.zeros(2, 3, requires_grad=True)]):
        with pytest.raises(ValueError, match="optimizer holds a tensor of shape .* that is no parameter of the task network"):
            sl.compact(net, x, optimizer=SGD(parameters, lr=0.1))


# -------- and on from there

def test_a_compacted_network_is_compacted_again():
    net, x = lenet()
    small = sl.compact(net, x)
    again = sl.compact(small.model, x)
    assert again.parameters[0] == again.parameters[1] == small.parameters[1] and again.certificate.relative_error == 0
    second = sl.Switched(small.model, x, switch_inputs=True).eval()
    assert second.sites[0].size == small.model.fc1.in_features
    second.hold(networks.factors(second.sites, seed=5))
    torch.testing.assert_close(second(x), sl.fold(second)(x))
    smaller = sl.compact(second, x)
    assert smaller.certificate.relative_error <= 1e-12 and smaller.parameters[1] < small.parameters[1]
    assert set(smaller.model.fc1.index.tolist()) < set(small.model.fc1.index.tolist())
    assert close(sl.fold(second), smaller.model, x)


def test_flattened_features_are_selected_again_after_their_channels_have_gone():
    net, x = lenet(models.lenet_5, switch_flattened=True, off=0.3)
    small = sl.compact(net, x)
    second = sl.Switched(small.model, x, switch_flattened=True).eval()
    second.hold(networks.factors(second.sites, seed=5, off=0.3))
    torch.testing.assert_close(second(x), sl.fold(second)(x))
    smaller = sl.compact(second, x)
    assert smaller.model.conv2.out_channels < small.model.conv2.out_channels
    assert smaller.certificate.relative_error <= 1e-12 and close(sl.fold(second), smaller.model, x)


def test_a_compacted_network_is_fine_tuned_and_switched_again():
    split = networks.split(60)
    net = networks.held(networks.mlp((6, 16, 8, 3)), torch.randn(2, 6), switch_inputs=True)
    small = sl.compact(net, split.images)
    assert isinstance(small.model.fc1, SelectLinear)
    shapes = {name: p.shape for name, p in small.model.named_parameters()}
    history = sl.fit(small.model, split, epochs=5, batch_size=8, progress=False)
    assert history.last["task_loss"] < history.records[0]["task_loss"]
    assert {name: p.shape for name, p in small.model.named_parameters()} == shapes
    again = sl.Switched(small.model, split.images, switch_inputs=True)
    sl.fit(again, split, epochs=1, batch_size=8, every=1, progress=False)
    assert sl.compact(again, split.images).certificate.relative_error <= 1e-12


# -------- the file

FACTORIES = {
    "lenet_300_100": (models.lenet_300_100, (1, 28, 28), dict(switch_inputs=True)),
    "lenet_5": (models.lenet_5, (1, 28, 28), dict(switch_flattened=True)),
    "conv_net": (models.conv_net, (3, 32, 32), {}),
    "residual": (networks.Residual, (2, 12, 12), {}),
    "cat": (networks.Cat, (2, 12, 12), {}),
    "prelu": (lambda: networks.mlp((6, 9, 3), act=partial(nn.PReLU, 9)), (6,), {}),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_saving_and_loading_gives_the_same_outputs(name, tmp_path):
    make, shape, options = FACTORIES[name]
    x = networks.images(4, shape)
    net = networks.held(networks.built(make), x, **options)
    small = sl.compact(net, x)
    path = tmp_path / "small.safetensors"
    small.save(path)
    model = sl.load_compact(str(path), into=make)
    assert torch.equal(model(x), small.model(x)) and not model.training
    assert networks.same(networks.state(model), networks.state(small.model))
    assert [p.name for p in tmp_path.iterdir()] == ["small.safetensors"]
    assert repr(model) == repr(small.model)    # sizes and all
    assert close(sl.fold(net), model, x)


def test_what_was_loaded_lies_in_memory_of_its_own(tmp_path):
    """At addresses as PyTorch chooses them: at others some kernels sum in another order, on some processors."""
    net, x = lenet()
    small = sl.compact(net, x)
    small.save(path := tmp_path / "small.safetensors")
    model = sl.load_compact(path, into=models.lenet_300_100)
    assert {t.data_ptr() % 64 for t in model.state_dict().values()} == {0}
    with open(path, "r+b") as file:            # the same file, written over
        file.write(bytes(path.stat().st_size))
    assert torch.equal(model(x), small.model(x))


def test_the_file_is_plain_safetensors_and_holds_nothing_else(tmp_path):
    net, x = lenet()
    small = sl.compact(net, x)
    small.save(tmp_path / "lenet.safetensors")
    tensors = load_file(tmp_path / "lenet.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        name: tuple(t.shape) for name, t in small.model.state_dict().items()}
    raw = (tmp_path / "lenet.safetensors").read_bytes()
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    original = {name: list(p.shape) for name, p in models.lenet_300_100().named_parameters()}
    assert header["__metadata__"] == {"format": "switcher_lib compact 1", "class": "Sequential", "groups": "{}",
                                      "original": json.dumps(original)}
    data = 4 * sum(p.numel() for p in small.model.parameters()) + 8 * len(small.model.fc1.index)
    assert len(raw) == 8 + int.from_bytes(raw[:8], "little") + data


def saved(tmp_path, name="lenet_300_100"):
    make, shape, options = FACTORIES[name]
    x = networks.images(4, shape)
    path = tmp_path / f"{name}.safetensors"
    sl.compact(networks.held(networks.built(make), x, **options), x).save(path)
    return path


@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b[:-1], lambda b: b[:5], lambda b: b"",
                                    lambda b: b"{}" * 50])
def test_a_truncated_file_is_named(damage, tmp_path):
    path = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        sl.load_compact(path, into=models.lenet_300_100)
    assert f"path={str(path)!r} is not a whole safetensors file" in str(caught.value)


def test_a_pickle_is_never_read(tmp_path):
    path, sprung = tmp_path / "model.safetensors", tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return open, (str(sprung), "w")

    torch.save({"fc1.weight": Trap()}, path)
    with pytest.raises(ValueError, match="pickles are never read"):
        sl.load_compact(path, into=models.lenet_300_100)
    assert not sprung.exists()


def test_a_safetensors_file_of_somebody_elses_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(models.lenet_300_100().state_dict(), path)
    with pytest.raises(ValueError, match="has format None; this version reads 'switcher_lib compact 1'"):
        sl.load_compact(path, into=models.lenet_300_100)


@pytest.mark.parametrize("name, into, words", [
    ("lenet_300_100", models.lenet_5, "these tensors do not fit: conv1.bias"),
    ("lenet_5", models.lenet_300_100, "these tensors do not fit: conv1.bias"),
    ("lenet_300_100", partial(models.lenet_300_100, widths=(10, 5)), "these tensors do not fit"),
    ("residual", networks.Cat, "(a Residual; into() made a Cat)"),
    ("lenet_300_100", lambda: nn.Sequential(OrderedDict(fc1=nn.Linear(784, 300), fc2=nn.Linear(300, 100))), "fc3."),
])
def test_a_file_of_another_model_is_refused(name, into, words, tmp_path):
    path = saved(tmp_path, name)
    with pytest.raises(ValueError) as caught:
        sl.load_compact(path, into=into)
    assert "belongs to another model" in str(caught.value) and str(path) in str(caught.value) and words in str(caught.value)


def test_a_file_of_a_wider_model_of_the_same_name_is_refused(tmp_path):
    path = saved(tmp_path)      # its own layers are far smaller than either factory's
    shape = load_file(path)["fc1.weight"].shape
    narrower = partial(models.lenet_300_100, widths=(299, 100))
    assert shape[0] < 299
    with pytest.raises(ValueError) as caught:
        sl.load_compact(path, into=narrower)
    assert str(caught.value) == (f"path={str(path)!r} was compacted from a model whose fc1.weight has shape (300, 784); into() "
                                 "made one with (299, 784). Give the factory of the original network.")
    assert sl.load_compact(path, into=models.lenet_300_100).fc1.weight.shape == shape


def test_a_file_without_the_originals_shapes_still_loads(tmp_path):
    net, x = lenet()
    small = sl.compact(net, x)
    save_file({name: t.clone() for name, t in small.model.state_dict().items()}, tmp_path / "old.safetensors",
              metadata={"format": "switcher_lib compact 1", "class": "Sequential", "groups": "{}"})
    assert torch.equal(sl.load_compact(tmp_path / "old.safetensors", into=models.lenet_300_100)(x), small.model(x))


def test_a_network_that_was_compacted_twice_loads_into_the_first_original(tmp_path):
    net, x = lenet()
    second = networks.held(sl.compact(net, x).model, x, seed=3, switch_inputs=True)
    small = sl.compact(second, x)
    small.save(tmp_path / "twice.safetensors")
    assert torch.equal(sl.load_compact(tmp_path / "twice.safetensors", into=models.lenet_300_100)(x), small.model(x))


def test_a_depthwise_convolution_with_one_channel_left_is_loaded(tmp_path):
    def make():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    x = torch.randn(2, 1, 8, 8)
    net = sl.Switched(make(), x)
    net.hold({"0": torch.tensor([1.0, 0, 0, 0])})
    small = sl.compact(net, x)
    small.save(tmp_path / "one.safetensors")
    loaded = sl.load_compact(tmp_path / "one.safetensors", into=make)
    assert torch.equal(loaded(x), small.model(x)) and loaded[2].groups == 1


def test_a_buffer_may_be_called_index(tmp_path):
    class Indexed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.part = nn.Linear(6, 5), nn.Linear(5, 2), nn.Module()
            self.part.register_buffer("index", torch.arange(3))

        def forward(self, x):
            return self.b(self.a(x).relu())

    model, x = Indexed(), torch.randn(2, 6)
    with torch.no_grad():
        model.a.weight[1], model.a.bias[1] = 0, 0
    small = sl.compact(model, x)
    small.save(tmp_path / "indexed.safetensors")
    loaded = sl.load_compact(tmp_path / "indexed.safetensors", into=Indexed)
    assert torch.equal(loaded(x), small.model(x)) and torch.equal(loaded.part.index, torch.arange(3))


def test_the_warning_of_an_emptied_layer_points_at_the_call():
    net = sl.Switched(networks.mlp(), torch.randn(2, 6))
    net.hold({site.key: torch.zeros(site.shape) for site in net.sites})
    with pytest.warns(sl.SwitchWarning, match="one is kept so that the layer exists") as told:
        sl.compact(net, torch.randn(2, 6))
    assert {one.filename for one in told} == {__file__}


def test_a_missing_file_and_something_that_is_no_factory_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        sl.load_compact(tmp_path / "none.safetensors", into=models.lenet_300_100)
    path = saved(tmp_path)
    for into in (models.lenet_300_100(), 3, lambda: 3):
        with pytest.raises(TypeError, match="into is a .*; it must be a factory"):
            sl.load_compact(path, into=into)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()
    net, x = lenet(seed=4)
    small = sl.compact(net, x)

    def half(part, content, write=Path.write_bytes):
        write(part, content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError):
        small.save(path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()    # readable for whom any new file is
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


# -------- BatchNorm, folded away

def lived(model, seed=0):
    """The model with BatchNorms as they are after training."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine and module.track_running_stats:
            networks.lively(module)
    return model.eval()


def norms(model):
    return [path for path, m in model.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.mark.parametrize("make, shape, names, saved", [
    (partial(models.lenet_300_100, batch_norm=True), (1, 28, 28), "flatten fc1 relu1 fc2 relu2 fc3", 400),
    (partial(models.lenet_5, batch_norm=True), (1, 28, 28), "conv1 pool1 conv2 pool2 flatten fc1 relu1 fc2", 570),
    (models.conv_net, (3, 32, 32), "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 pool3 flatten fc", 224),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_batch_norms_leaves_the_function_and_takes_gamma_and_beta(make, shape, names, saved, dtype):
    model, x = lived(make()).to(dtype), networks.images(4, shape).to(dtype)
    before = networks.state(model)
    plain = sl.fold_batchnorm(model.train(), x)
    assert networks.same(before, networks.state(model)) and model.training and not plain.training
    assert [name for name, _ in plain.named_children()] == names.split() and not norms(plain)
    # one β became the layer's bias, γ is gone
    assert sl.metrics.count_parameters(plain) == sl.metrics.count_parameters(model) - saved
    assert all(p.requires_grad and p.dtype == dtype for p in plain.parameters())
    assert close(model.eval(), plain, x, 1e-12 if dtype == torch.float64 else 1e-5)
    assert len(list(plain.state_dict())) == len(list(plain.parameters()))


def test_a_folded_layer_is_rounded_once():
    model = lived(models.lenet_300_100(batch_norm=True))
    exact, rounded = sl.fold_batchnorm(copy.deepcopy(model).double()), sl.fold_batchnorm(model)
    for one, other in zip(exact.parameters(), rounded.parameters()):
        assert torch.equal(one.float(), other)


def test_a_layer_with_a_bias_keeps_one_and_both_of_gamma_and_beta_go():
    model = lived(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv3d(3, 4, 1))[:3]).double()
    plain = sl.fold_batchnorm(model)
    x = torch.randn(4, 2, 9, dtype=torch.float64)
    assert close(model, plain, x) and sl.metrics.count_parameters(model) - sl.metrics.count_parameters(plain) == 6


@pytest.mark.parametrize("options", [dict(affine=False), dict(eps=0.3), dict(eps=0.3, affine=False)])
@pytest.mark.parametrize("layer", [nn.Linear(6, 5, bias=False), nn.Conv2d(6, 5, 1, bias=False), nn.Conv2d(6, 5, 3, padding=1)])
def test_a_batch_norm_without_gamma_or_with_its_own_epsilon_is_folded_too(layer, options):
    norm = (nn.BatchNorm1d if isinstance(layer, nn.Linear) else nn.BatchNorm2d)(5, **options)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(layer, norm, nn.ReLU()).double().eval()
    plain = sl.fold_batchnorm(model)
    assert close(model, plain, torch.randn(7, 6, *[4] * (layer.weight.ndim - 2))) and not norms(plain)


def test_two_batch_norms_in_a_row_go_into_one_layer():
    model = lived(nn.Sequential(OrderedDict(fc=nn.Linear(6, 5), one=nn.BatchNorm1d(5), two=nn.BatchNorm1d(5))))
    plain = sl.fold_batchnorm(model.double(), torch.randn(8, 6).double())
    assert [name for name, _ in plain.named_children()] == ["fc"] and close(model, plain, torch.randn(8, 6))


def test_a_frozen_layer_stays_frozen():
    model = nn.Sequential(nn.Linear(6, 5, bias=False).requires_grad_(False), nn.BatchNorm1d(5), nn.Linear(5, 2))
    plain = sl.fold_batchnorm(model)
    assert [p.requires_grad for p in plain.parameters()] == [False, False, True, True]


class Blocks(nn.Module):
    """BatchNorms in every position: attributes, parts of containers that run and of one that is walked through."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.runs = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.picked = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        x = self.runs(F.relu(self.bn(self.conv(x))))
        x = self.picked[2](self.picked[1](self.picked[0](x)))
        return self.out(x.mean((2, 3)))


def test_what_a_forward_names_or_picks_stays_as_an_identity():
    model = lived(Blocks()).double()
    plain = sl.fold_batchnorm(model)
    assert close(model, plain, networks.images(4, (2, 12, 12))) and not norms(plain)
    assert isinstance(plain.bn, nn.Identity) and isinstance(plain.picked[1], nn.Identity)
    assert [name for name, _ in plain.runs.named_children()] == ["0", "2"]


class Twice(nn.Module):
    """What runs twice, or is read twice: ``a`` and its norm, ``shared``'s norm, and what follows ``read``."""

    def __init__(self):
        super().__init__()
        self.a, self.bn_a = nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.b, self.c, self.bn_bc = nn.Linear(5, 5), nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.read, self.bn_read = nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.first, self.again = nn.Linear(5, 5), nn.Linear(5, 5)
        self.again.weight = self.first.weight
        self.bn_again, self.behind_relu, self.unused = nn.BatchNorm1d(5), nn.BatchNorm1d(5), nn.BatchNorm1d(5)
        self.normed, self.bn_normed = nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), nn.BatchNorm1d(5)
        self.batch, self.bn_batch = nn.Linear(5, 5), nn.BatchNorm1d(5, track_running_stats=False)
        self.free, self.bn_free = nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.seen, self.bn_seen = nn.Linear(5, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.bn_a(self.a(self.a(x)))
        x = self.bn_bc(self.c(self.bn_bc(self.b(x))))
        y = self.read(x)
        x = y + self.bn_read(y)
        x = self.behind_relu(F.relu(self.bn_again(self.again(self.first(x)))))
        x = self.bn_batch(self.batch(self.bn_normed(self.normed(x))))
        return self.bn_seen(self.seen(self.bn_free(self.free(x)))) @ self.seen.weight


def test_a_batch_norm_that_cannot_be_folded_stays_and_says_why():
    model = lived(Twice()).double()
    with pytest.warns(sl.SwitchWarning) as caught:
        plain = sl.fold_batchnorm(model)
    told = dict(str(w.message).split(" stays a BatchNorm: ") for w in caught)
    assert told == {
        "bn_a": "a runs more than once.", "bn_bc": "it runs more than once.",
        "bn_read": "something else reads what read writes.", "bn_again": "again shares its weight with another module.",
        "behind_relu": "it does not follow a Linear or Conv layer directly.", "unused": "torch.fx does not see it run.",
        "bn_normed": "the weight of normed is computed, not a parameter.", "bn_batch": "it has no running statistics.",
        "bn_seen": "the parameters of seen or its own are read elsewhere.",
    }
    assert norms(plain) == [path for path in norms(model) if path != "bn_free"] and isinstance(plain.bn_free, nn.Identity)
    assert plain.again.weight is plain.first.weight
    assert close(model, plain, torch.randn(8, 5))


class TwoNames(nn.Module):
    """A layer and its norm with two names each; the second ones run."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Linear(5, 4)
        self.bn_a = self.bn_b = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.bn_b(self.b(x))


def test_a_layer_with_two_names_is_folded_under_both():
    model = lived(TwoNames()).double()
    plain = sl.fold_batchnorm(model)
    assert plain.a is plain.b and close(model, plain, torch.randn(8, 5)) and not norms(plain)


def test_a_batch_norm_over_a_sequence_is_not_taken_for_one_over_features():
    other_length = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(3)))
    with pytest.warns(sl.SwitchWarning, match="1 stays a BatchNorm: it has 3 channels and 0 5 neurons."):
        assert norms(sl.fold_batchnorm(other_length)) == ["1"]
    same_length = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)))
    with pytest.raises(sl.CertificateError, match="computes something else: certificate FAILS.*over sequences"):
        sl.fold_batchnorm(same_length, torch.randn(8, 5, 6))
    assert not norms(sl.fold_batchnorm(same_length, torch.randn(8, 6)))


def slimmed(kind=models.lenet_300_100, off=0.6, **options):
    """A LeNet with BatchNorm, held at random factors."""
    x = networks.images(8)
    return networks.held(lived(kind(batch_norm=True)), x, 0, off, **options), x


def test_a_compacted_lenet_with_batch_norm_is_folded():
    net, x = slimmed(switch_inputs=True)
    small = sl.compact(net, x)
    assert isinstance(small.model.fc1, SelectLinear) and small.model.bn1.num_features < 150
    plain = sl.fold_batchnorm(small.model, x)
    assert type(plain.fc1) is SelectLinear and torch.equal(plain.fc1.index, small.model.fc1.index)
    assert close(sl.fold(net), plain, x, 1e-5) and not norms(plain)
    assert close(small.model.double(), sl.fold_batchnorm(small.model), x)
    widths = small.model.bn1.num_features + small.model.bn2.num_features
    assert small.parameters[1] - sl.metrics.count_parameters(plain) == widths
    again = sl.compact(plain, x)
    assert again.parameters[0] == again.parameters[1]


@pytest.mark.parametrize("kind, options", [(models.lenet_300_100, {"switch_inputs": True}),
                                           (models.lenet_5, {"switch_flattened": True})])
def test_folded_then_compacted_it_is_smaller_by_as_much_and_loads_from_its_file(kind, options, tmp_path):
    net, x = slimmed(kind, **options)
    first = sl.fold_batchnorm(sl.compact(net, x).model)
    small = sl.compact(sl.fold_batchnorm(sl.fold(net)), x)
    assert small.certificate.holds and close(first, small.model, x, 1e-5)
    assert small.parameters[1] == sl.metrics.count_parameters(first)
    small.save(tmp_path / "small.safetensors")
    loaded = sl.load_compact(tmp_path / "small.safetensors", into=lambda: sl.fold_batchnorm(kind(batch_norm=True)))
    assert networks.same(networks.state(loaded), networks.state(small.model)) and torch.equal(loaded(x), small.model(x))
    assert sl.load_compact(tmp_path / "small.safetensors", into=kind)(x).equal(loaded(x))    # the same layers by then
    with pytest.raises(ValueError, match="belongs to another model"):
        sl.load_compact(tmp_path / "small.safetensors", into=partial(kind, batch_norm=True))


def test_a_compacted_lenet_with_batch_norm_loads_from_its_file(tmp_path):
    net, x = slimmed()
    small = sl.compact(net, x)
    small.save(tmp_path / "small.safetensors")
    loaded = sl.load_compact(tmp_path / "small.safetensors", into=partial(models.lenet_300_100, batch_norm=True))
    assert torch.equal(loaded(x), small.model(x))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_folding_refuses_what_it_cannot_look_into():
    net, _ = slimmed()
    for model in (net, 3, None):
        with pytest.raises(TypeError, match=f"model is a {type(model).__name__}; it must be a plain nn.Module: sl.fold"):
            sl.fold_batchnorm(model)
    with pytest.raises(sl.SwitchError, match="model=Branching cannot be traced by torch.fx"):
        sl.fold_batchnorm(Branching())


def test_a_network_without_batch_norm_comes_back_as_a_copy():
    model = networks.mlp()
    plain = sl.fold_batchnorm(model)
    assert plain is not model and networks.same(networks.state(model), networks.state(plain))
    plain.fc1.weight.data.zero_()
    assert model.fc1.weight.any()
