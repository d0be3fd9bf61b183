"""Where a network is switched, and what each site reads and multiplies."""

import warnings
from collections import OrderedDict

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib import models, wiring
from switcher_lib.sites import find_sites, trace
from switcher_lib.layers import SelectLinear, constant_output


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def keys(found):
    return [(site.key, site.size, site.kind) for site in found]


# -------- what is found

def test_lenet_300_100_is_switched_at_its_pixels_and_hidden_layers_and_never_at_its_outputs():
    found, refused = find_sites(models.lenet_300_100(), networks.images(2), switch_inputs=True)
    assert keys(found) == [("input", 784, "feature"), ("fc1", 300, "neuron"), ("fc2", 100, "neuron")]
    assert set(refused) == {"fc3"} and "outputs" in refused["fc3"]
    without, _ = find_sites(models.lenet_300_100(), networks.images(2))
    assert [site.key for site in without] == ["fc1", "fc2"]


def test_lenet_5_is_switched_at_channels_neurons_and_flattened_features():
    found, _ = find_sites(models.lenet_5(), networks.images(2), switch_flattened=True)
    assert keys(found) == [("conv1", 20, "neuron"), ("conv2", 50, "neuron"), ("fc1_in", 800, "feature"),
                           ("fc1", 500, "neuron")]
    conv2 = found[1]
    assert [(axis.name, axis.dim, tuple(axis.positions.shape)) for axis in conv2.outgoing] == [("fc1.weight", 1, (50, 16))]
    assert conv2.outgoing[0].positions[3].tolist() == list(range(48, 64))    # a channel is 4·4 columns in a row


def test_a_batch_norm_behind_a_convolution_takes_the_factors():
    found, _ = find_sites(models.conv_net(), networks.images(2, (3, 32, 32)))
    assert keys(found) == [("conv1", 32, "neuron"), ("conv2", 64, "neuron"), ("conv3", 128, "neuron")]
    assert [axis.name for axis in found[0].incoming] == ["bn1.weight", "bn1.bias"]
    assert [axis.name for axis in found[0].own] == ["conv1.weight"]
    assert [axis.name for axis in found[2].outgoing] == ["fc.weight"]


def test_convolutions_have_no_single_pixels_to_switch():
    _, refused = find_sites(models.lenet_5(), networks.images(2), switch_inputs=True)
    assert "no Linear layer reads the input" in refused["input"]


def test_the_input_read_twice_gives_two_sites():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 2)

        def forward(self, x):
            return self.out(torch.cat([self.a(x).relu(), self.b(x).tanh()], -1))

    found, _ = find_sites(Two(), torch.randn(2, 6), switch_inputs=True)
    assert [site.key for site in found] == ["a_in", "a", "b_in", "b"]


def test_rows_and_columns_are_the_neurons_weights():
    net = networks.mlp()
    (first, second), _ = find_sites(net, networks.inputs(net))
    params = dict(net.named_parameters())
    assert torch.equal(first.rows(params), torch.cat([net.fc1.weight, net.fc1.bias[:, None]], 1))
    assert torch.equal(first.columns(params), net.fc2.weight.T)
    assert torch.equal(second.columns(params), net.fc3.weight.T)


def test_columns_of_a_flattened_channel_and_of_two_readers():
    net = networks.built(networks.Cat)
    found = {site.key: site for site in find_sites(net, networks.inputs(net))[0]}
    params = dict(net.named_parameters())
    columns = found["left"].columns(params)
    assert torch.equal(columns, net.join.weight[:, 4:].transpose(0, 1).reshape(3, -1))    # right's four come first
    assert torch.equal(found["join"].columns(params), net.out.weight.T.reshape(5, 300))    # place by place


def test_features_have_columns_and_no_rows():
    net = networks.mlp()
    feature = find_sites(net, networks.inputs(net), switch_inputs=True)[0][0]
    params = dict(net.named_parameters())
    assert feature.rows(params).shape == (6, 0)
    assert torch.equal(feature.columns(params), net.fc1.weight.T)
    assert feature.face == "outgoing" and feature.incoming == ()


def multiplying(site, net, s):
    """Hooks that multiply the neurons themselves: what scaling parameters must amount to."""
    def lay(x, dim):
        shape = [1] * x.ndim
        shape[dim] = -1
        return s.reshape(shape)

    if site.face == "incoming":
        path = site.incoming[0].name.rpartition(".")[0]
        layer = net.get_submodule(path)
        dim = -1 if isinstance(layer, nn.Linear) else 1
        return [layer.register_forward_hook(lambda module, args, y: y * lay(y, dim))]
    hooks = []
    for axis in site.outgoing:
        layer = net.get_submodule(axis.name.rpartition(".")[0])
        dim = -1 if isinstance(layer, nn.Linear) else 1

        def before(module, args, axis=axis, dim=dim):
            x = args[0]
            full = torch.ones(x.shape[dim])
            for j, positions in enumerate(axis.positions):
                full[positions] = s[j]
            shape = [1] * x.ndim
            shape[dim] = -1
            return (x * full.reshape(shape),)

        hooks.append(layer.register_forward_pre_hook(before))
    return hooks


@pytest.mark.parametrize("face", ["incoming", "outgoing"])
@pytest.mark.parametrize("make", [networks.mlp, networks.conv, lambda: networks.conv(norm=True, padding=1), networks.Residual,
                                  networks.Cat, networks.View, lambda: networks.conv(pool=None, act=nn.Tanh)])
def test_scaling_parameters_scales_the_neurons_themselves(make, face):
    net = networks.built(make).eval()
    x = networks.inputs(net)
    found, _ = find_sites(net, x, face=face, switch_inputs=True, switch_flattened=True)
    for site in found:
        s = torch.randn(site.size)    # negative ones too
        with torch.no_grad():
            scaled = torch.func.functional_call(net, site.scale(dict(net.named_parameters()), s), (x,))
            hooks = multiplying(site, net, s)
            expected = net(x)
            for hook in hooks:
                hook.remove()
        assert not torch.allclose(expected, net(x)), site
        torch.testing.assert_close(scaled, expected, msg=f"{site}")


# -------- what is refused, and how it is said

def test_an_activation_that_is_not_0_at_0_is_refused_with_one_warning_that_names_it():
    net = networks.mlp((6, 5, 4, 3), act=nn.Sigmoid)
    net.act2 = nn.ReLU()
    with pytest.warns(sl.SwitchWarning) as caught:
        found, refused = find_sites(net, networks.inputs(net))
    assert [site.key for site in found] == ["fc2"] and set(refused) == {"fc1", "fc3"}
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "act1 (Sigmoid) is not 0 at 0" in message and "constant 0.5" in message
    assert "its 5 neurons stay unswitched (net.refused); skip=['fc1'] silences this." in message


@pytest.mark.parametrize("act, constant", [(nn.Softplus, "0.693"), (nn.Hardsigmoid, "0.5"),
                                           (lambda: nn.Hardtanh(0.25, 1.0), "0.25")])
def test_every_leak_is_measured(act, constant):
    with pytest.warns(sl.SwitchWarning, match=constant), pytest.raises(sl.SwitchError, match=f"is not 0 at 0: .* a constant {constant}"):
        find_sites(networks.mlp((6, 5, 3), act=act), torch.randn(2, 6))


@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.Hardswish, nn.Mish, nn.ReLU6,
                                 nn.Identity, nn.Dropout, nn.PReLU, nn.Softsign, nn.SELU, nn.CELU])
def test_activations_that_are_0_at_0_are_switched_without_a_warning(act):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = find_sites(networks.mlp((6, 5, 3), act=act), torch.randn(2, 6))
    assert [site.key for site in found] == ["fc1"]


def test_skip_silences_the_warning_and_the_outgoing_face_needs_none():
    net = networks.mlp((6, 5, 4, 3), act=nn.Sigmoid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sl.SwitchError):
            find_sites(net, networks.inputs(net), skip=["fc1", "fc2"])
        found, _ = find_sites(net, networks.inputs(net), face="outgoing")
        found_too, refused = find_sites(networks.mlp(), torch.randn(2, 6), skip=["fc2"])
    assert [site.key for site in found] == ["fc1", "fc2"]
    assert [site.key for site in found_too] == ["fc1"] and refused["fc2"] == "skipped on request"


def test_a_residual_stream_is_refused_and_a_blocks_inner_channels_are_free():
    net = networks.built(networks.Residual)
    found, refused = find_sites(net, networks.inputs(net))
    assert [site.key for site in found] == ["inner"]
    assert refused["stem"] == refused["out2"] and "the neurons of out2, stem are added up" in refused["stem"]
    assert "tied=True switches them together" in refused["stem"]


def test_a_reused_module_ties_its_neurons_and_shared_weights_are_refused_by_name():
    found, refused = find_sites(networks.Reused(), torch.randn(2, 6))
    assert [site.key for site in found] == ["free"] and {"a", "b", "out"} == set(refused)
    found, refused = find_sites(networks.Shared(), torch.randn(2, 6))
    assert [site.key for site in found] == ["free"]
    assert refused["a"] == "a shares weight with another module" and refused["c"] == "c shares weight with another module"
    assert "shares weight" in refused["b"]


def test_a_module_that_runs_on_two_inputs_is_one_site():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.a(x).relu()) + self.out(self.a(-x).relu())

    net = networks.built(Twice)
    (site,), _ = find_sites(net, torch.randn(2, 6))
    x, s = torch.randn(3, 6), torch.rand(4)
    scaled = torch.func.functional_call(net, site.scale(dict(net.named_parameters()), s), (x,))
    torch.testing.assert_close(scaled, net.out(s * net.a(x).relu()) + net.out(s * net.a(-x).relu()))


@pytest.mark.parametrize("reshape", [
    lambda x: x.view(-1, 256), lambda x: x.reshape(-1, 256), lambda x: torch.reshape(x, (-1, 256)),
    lambda x: torch.reshape(x, shape=(-1, 256)), lambda x: x.view((-1, 256)), lambda x: x.view(x.size(0), 256),
    lambda x: x.view(x.size(0), 4, 8, 8).flatten(1), lambda x: x.flatten(1).unflatten(1, (4, 64)).flatten(1),
])
def test_a_reshape_by_a_size_written_into_the_code_is_refused(reshape):
    net = networks.built(lambda: networks.View(reshape))
    found, refused = find_sites(net, networks.inputs(net))
    assert [site.key for site in found] == ["conv1"]
    assert "fixed size" in refused["conv2"] and "torch.flatten(x, 1)" in refused["conv2"]


@pytest.mark.parametrize("reshape", [
    lambda x: x.view(x.size(0), -1), lambda x: x.view(x.shape[0], -1), lambda x: x.flatten(1),
    lambda x: torch.flatten(x, start_dim=1), lambda x: x.reshape(x.size()[0], -1),
    lambda x: x.permute(0, 2, 3, 1).flatten(1), lambda x: x.unsqueeze(1).squeeze(1).flatten(1),
    lambda x: x.contiguous().transpose(1, 2).flatten(1),
])
def test_a_reshape_that_follows_its_input_is_switched_and_compacts(reshape):
    net = networks.built(lambda: networks.View(reshape))
    found, _ = find_sites(net, networks.inputs(net))
    assert [site.key for site in found] == ["conv1", "conv2"]
    small = sl.compact(networks.held(net, networks.inputs(net)), networks.inputs(net))
    assert small.certificate.relative_error <= 1e-12 and small.parameters[1] < small.parameters[0]


def test_an_unflatten_with_its_sizes_is_refused():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(),
                        nn.Linear(12, 2))
    found, refused = find_sites(net, torch.randn(2, 6))
    assert [site.key for site in found] == ["3"]
    assert "0" in refused


@pytest.mark.parametrize("layer, reason", [
    (nn.LayerNorm(5), "act1 (LayerNorm) is not known to keep channels apart"),
    (nn.GroupNorm(1, 5), "act1 (GroupNorm) is not known to keep channels apart"),
    (nn.GroupNorm(5, 5), "act1 (GroupNorm) is not known to keep channels apart"),    # each by itself: the groups are not looked at
    (nn.Softmax(-1), "act1 (Softmax) is not known to keep channels apart"),
])
def test_what_mixes_neurons_fixes_them_and_the_rest_works(layer, reason):
    net = networks.mlp()
    net.act1 = layer
    found, refused = find_sites(net, networks.inputs(net))
    assert [site.key for site in found] == ["fc2"] and reason in refused["fc1"]


def test_computed_weights_are_refused_by_name():
    normed = networks.mlp((6, 5, 4, 4, 3))
    nn.utils.parametrizations.weight_norm(normed.fc2)
    found, refused = find_sites(normed, torch.randn(2, 6))
    assert [site.key for site in found] == ["fc3"]
    assert refused["fc2"] == refused["fc1"] == "the weight of fc2 is computed, not a parameter"


def test_a_batch_norm_without_gamma_undoes_the_incoming_face_only():
    net = nn.Sequential(OrderedDict(a=nn.Linear(6, 5), bn=nn.BatchNorm1d(5, affine=False), r=nn.ReLU(), b=nn.Linear(5, 4),
                                    r2=nn.ReLU(), c=nn.Linear(4, 2)))
    found, refused = find_sites(net, torch.randn(2, 6))
    assert [site.key for site in found] == ["b"] and "bn (BatchNorm without γ and β)" in refused["a"]
    assert [site.key for site in find_sites(net, torch.randn(2, 6), face="outgoing")[0]] == ["a", "b"]


def test_a_dead_end_and_a_neuron_read_behind_two_layers_are_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.bn, self.b, self.out = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Linear(4, 2)
            self.c = nn.Linear(5, 4)

        def forward(self, x):
            a = self.a(x)
            return self.out(torch.relu(self.b(a) + self.c(self.bn(a))))

    with pytest.raises(sl.SwitchError, match=r"a: its neurons are read behind different layers \(a, bn\)"):
        find_sites(Net(), torch.randn(2, 6))


def test_keys_are_unique_and_can_name_modules():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_b, self.a, self.values = nn.Linear(6, 5), nn.ModuleDict({"b": nn.Linear(5, 5)}), nn.Linear(5, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.values(self.a["b"](self.a_b(x).relu()).relu()).relu())

    for switcher in ("row", "free", "random", "stats", "unet"):
        net = sl.Switched(networks.built(Net), torch.randn(2, 6), switcher=switcher)
        assert len({site.key for site in net.sites}) == 3 == len(net.factors())


# -------- what cannot be traced


@pytest.mark.parametrize("make, words", [
    (lambda: nn.Linear(6, 3), "nothing in Linear can be switched. It is a single layer"),
    (lambda: nn.Sequential(nn.ReLU()), "nothing in Sequential can be switched. It has no Linear or Conv layer"),
    (lambda: nn.Sequential(nn.Linear(6, 3)), "nothing in Sequential can be switched. 0: its outputs"),
])
def test_a_model_with_nothing_to_switch_is_an_error_that_says_why(make, words):
    with pytest.raises(sl.SwitchError) as caught:
        find_sites(make(), torch.randn(2, 6))
    assert words in str(caught.value)


def test_a_forward_that_branches_on_its_data_is_an_error():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.b(self.a(x)) if x.sum() > 0 else self.b(self.a(x).relu())

    with pytest.raises(sl.SwitchError, match="model=Branches cannot be traced by torch.fx"):
        find_sites(Branches(), torch.randn(2, 6))


@pytest.mark.parametrize("example, error, words", [
    (torch.randn(2, 7), sl.SwitchError, r"example of shape \(2, 7\) does not go through Sequential"),
    (torch.randn(2, 1, 5, 28), sl.SwitchError, r"example of shape \(2, 1, 5, 28\)"),
    (torch.randn(6), ValueError, r"example=\(6,\) must be a tensor: a batch"),
    (torch.randn(0, 6), ValueError, r"example=\(0, 6\) must be a tensor: a batch of at least one input"),
    ([1, 2], ValueError, "example=list must be a tensor"),
    (None, ValueError, "example=NoneType must be a tensor"),
])
def test_a_wrong_example_is_named_with_its_shape(example, error, words):
    with pytest.raises(error, match=words):
        find_sites(networks.mlp(), example)


@pytest.mark.parametrize("options, words", [
    ({"face": "inside"}, "face='inside' is not a face. Known: incoming, outgoing."),
    ({"skip": ["fc9"]}, "skip names 'fc9', which is no module of the model. Its modules: fc1, act1, fc2"),
])
def test_a_wrong_face_or_path_is_named(options, words):
    with pytest.raises(ValueError) as caught:
        find_sites(networks.mlp(), torch.randn(2, 6), **options)
    assert words in str(caught.value)


def test_tracing_leaves_mode_parameters_and_buffers_alone():
    net = networks.conv(norm=True)
    net.bn1.eval()
    before, modes = networks.state(net), [m.training for m in net.modules()]
    trace(net, networks.inputs(net))
    assert networks.same(before, networks.state(net)) and modes == [m.training for m in net.modules()]
    with pytest.raises(sl.SwitchError):
        trace(net, torch.randn(2, 9, 3, 3))
    assert modes == [m.training for m in net.modules()]


def test_a_factor_vector_of_the_wrong_length_is_an_error():
    net = networks.mlp()
    site = find_sites(net, networks.inputs(net))[0][0]
    with pytest.raises(ValueError, match=r"factors of 'fc1' have shape \(4,\); this site has 5 neurons"):
        site.scale(dict(net.named_parameters()), torch.ones(4))
    with pytest.raises(ValueError, match=r"shape must be \(5,\)"):
        site.scale(dict(net.named_parameters()), torch.ones(1))    # which would broadcast unseen


def test_scaling_leaves_the_given_parameters_as_they_are():
    net = networks.mlp()
    site = find_sites(net, networks.inputs(net))[0][0]
    before, params = networks.state(net), dict(net.named_parameters())
    scaled = site.scale(params, torch.zeros(5))
    assert networks.same(before, networks.state(net)) and params["fc1.weight"] is net.fc1.weight
    assert not scaled["fc1.weight"].any() and not scaled["fc1.bias"].any()
    assert scaled["fc2.weight"] is net.fc2.weight


def test_a_site_owns_every_parameter_on_the_way_to_its_readers():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                        nn.Linear(4 * 36, 3))
    (site,), _ = find_sites(net, torch.randn(2, 1, 8, 8))
    assert {(axis.name, axis.dim) for axis in site.axes} == {
        ("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("2.weight", 0), ("3.weight", 0), ("3.bias", 0),
        ("6.weight", 1)}
    assert [axis.name for axis in site.incoming] == ["3.weight", "3.bias"]


# -------- constants

def test_constants_run_through_layers_and_stop_at_the_input():
    linear = networks.built(lambda: nn.Linear(4, 3)).double()
    with torch.no_grad():
        linear.weight[0] = 0
        linear.weight[1] = torch.tensor([0.0, 2.0, 0.0, 0.0])
    const = torch.tensor([[float("nan"), 3.0, float("nan"), 0.0]], dtype=torch.float64)
    out = constant_output(linear, const)
    assert out[0, 0] == linear.bias[0] and out[0, 1] == linear.bias[1] + 6 and out[0, 2].isnan()


def test_an_in_place_activation_changes_what_others_read():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            with torch.no_grad():
                self.a.weight[0], self.a.bias[0], self.b.weight[0], self.b.bias[0] = 0, -1.0, 0, 0.5

        def forward(self, x):
            h = self.a(x)
            r = F.relu_(h)
            return self.c(F.relu(self.b(r) + h))

    small = sl.compact(networks.built(InPlace), torch.randn(4, 3))    # the certificate would not hold
    assert small.widths["a"] == (4, 3)


def test_select_linear_reads_what_its_index_says():
    layer = SelectLinear(torch.tensor([4, 1]), 3)
    x = torch.randn(5, 6)
    torch.testing.assert_close(layer(x), F.linear(x[:, [4, 1]], layer.weight, layer.bias))
    assert wiring.select(layer, x).shape == (5, 2) and wiring.select(nn.Linear(6, 2), x) is x
    assert "index" in layer.state_dict() and sum(p.numel() for p in layer.parameters()) == 9
