"""What a network costs, against numbers worked out by hand."""

import re

import networks
import pytest
import torch
from torch import nn

import switcher_lib as sl
from switcher_lib import metrics, models


@pytest.mark.parametrize("make, shape, parameters, macs", [
    (models.lenet_300_100, (1, 28, 28), 266_610, 266_200),
    (models.lenet_5, (1, 28, 28), 431_080, 2_293_000),     # 288,000 + 1,600,000 + 400,000 + 5,000
    (models.conv_net, (3, 32, 32), 113_962, 864 * 1024 + 18_432 * 256 + 73_728 * 64 + 20_480),
])
def test_parameters_and_macs_are_the_numbers_worked_out_by_hand(make, shape, parameters, macs):
    model = make()
    assert metrics.count_parameters(model) == parameters
    for batch in (1, 5):
        assert metrics.count_macs(model, torch.zeros(batch, *shape)) == macs


def test_batch_norms_parameters_count_and_its_buffers_do_not():
    assert metrics.count_parameters(nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3))) == 54 + 6


def test_a_shared_weight_is_one_set_of_parameters_and_two_of_macs():
    net = networks.built(networks.Shared)
    assert metrics.count_parameters(net) == (30 + 5) + (30 + 6) + 5 + (20 + 4) + (12 + 3)
    assert metrics.count_macs(net, torch.randn(2, 6)) == 30 + 30 + 30 + 20 + 12


def test_a_layer_that_runs_twice_costs_twice():
    assert metrics.count_macs(networks.Reused(), torch.randn(2, 6)) == 30 + 2 * 25 + 20 + 12
    assert metrics.macs_per_weight(networks.Reused(), torch.randn(2, 6))["b.weight"] == 2


def test_strides_groups_sequences_and_computed_weights_are_counted():
    assert metrics.count_macs(nn.Conv2d(4, 6, 3, stride=2, groups=2), torch.zeros(1, 4, 9, 9)) == 6 * 2 * 9 * 16
    assert metrics.count_macs(nn.Linear(4, 6), torch.zeros(1, 7, 4)) == 7 * 24
    assert metrics.count_macs(nn.Conv1d(2, 3, 5), torch.zeros(1, 2, 9)) == 3 * 2 * 5 * 5
    assert metrics.count_macs(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), torch.zeros(1, 4)) == 24


@pytest.mark.parametrize("kdim, vdim", [(None, None), (5, 7)])
def test_attentions_four_projections_are_counted(kdim, vdim):
    attention = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=vdim, batch_first=True)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):    # 3 queries, 4 keys
            return self.attention(x[:, :3], key=x[:, :, :kdim or 8], value=x[:, :, :vdim or 8])[0]

    places = metrics.macs_per_weight(Reads(), torch.randn(2, 4, 8))
    assert places["attention.out_proj.weight"] == 3
    if kdim is None:    # one matrix for the three: 3, 4 and 4 places, of which it can tell one number
        assert places["attention.in_proj_weight"] == 4
    else:
        assert [places[f"attention.{name}_proj_weight"] for name in "qkv"] == [3, 4, 4]
        assert metrics.count_macs(Reads(), torch.randn(2, 4, 8)) == 3 * 64 + 4 * 8 * 5 + 4 * 8 * 7 + 3 * 64


def test_an_attention_that_is_called_otherwise_is_left_out():
    class Self(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x, need_weights=False)[0]

    assert metrics.count_macs(nn.Sequential(Self(6, 2, batch_first=True), nn.Linear(6, 3)), torch.randn(2, 4, 6)) == 4 * 18


def test_an_encoders_layer_counts_what_its_projections_do():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    assert metrics.count_macs(encoder, torch.randn(2, 5, 16)) == 5 * (4 * 16 * 16 + 2 * 16 * 32)


def test_the_layout_of_a_measured_input_is_told_as_it_is():
    x = torch.zeros(2, 3, 4, 4)
    for given, layout in ((x, "contiguous"), (x.to(memory_format=torch.channels_last), "channels-last"), (x[..., ::2], "strided")):
        assert metrics.latency(nn.Identity(), given, runs=3, warmup=0).layout == layout


def test_counting_leaves_the_model_as_it_was():
    net = networks.conv(norm=True)
    net.bn2.eval()
    before, modes = networks.state(net), [m.training for m in net.modules()]
    metrics.count_macs(net, networks.inputs(net))
    assert networks.same(before, networks.state(net)) and modes == [m.training for m in net.modules()]
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(RuntimeError):
        metrics.count_macs(net, torch.zeros(1, 9, 12, 12))
    assert not any(m._forward_hooks for m in net.modules()) and modes == [m.training for m in net.modules()]


def test_only_weights_of_linear_and_conv_layers_are_left_out_where_they_are_0():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.PReLU(3), nn.Flatten(), nn.Linear(48, 5))
    assert metrics.count_nonzero_weights(net) == 54 + 240
    assert metrics.count_nonzero_parameters(net) == metrics.count_parameters(net) == 54 + 6 + 3 + 240 + 5
    with torch.no_grad():
        net[0].weight[1], net[4].weight[:, :10] = 0, -0.0
        for p in (net[1].weight, net[1].bias, net[2].weight, net[4].bias):
            p.zero_()      # stored zeros: neither counted as connections nor left out as parameters
    assert metrics.count_nonzero_weights(net) == 36 + 190
    assert metrics.count_nonzero_parameters(net) == 36 + 6 + 3 + 190 + 5
    assert metrics.count_parameters(net) == 54 + 6 + 3 + 240 + 5


def test_a_shared_weights_connections_count_once_and_a_computed_ones_do():
    net = networks.built(networks.Shared)
    with torch.no_grad():
        net.a.weight[0] = 0
    assert metrics.count_nonzero_weights(net) == 24 + 30 + 20 + 12
    assert metrics.count_nonzero_parameters(net) == metrics.count_parameters(net) - 6
    assert metrics.count_nonzero_weights(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))) == 24


def test_a_network_with_masked_connections_counts_what_survives():
    model = models.lenet_300_100()
    with torch.no_grad():
        for layer in (model.fc1, model.fc2, model.fc3):
            layer.weight.flatten()[::2] = 0
    assert metrics.count_nonzero_weights(model) == 266_200 // 2
    assert metrics.count_nonzero_parameters(model) == 266_200 // 2 + 410


# -------- time

def test_latency_tells_its_conditions():
    x = networks.images(3)
    threads = torch.get_num_threads()
    model = models.lenet_300_100(widths=(4, 3)).train()
    found = metrics.latency(model, x, threads=1, runs=9, warmup=1)
    assert (found.batch, found.threads, found.runs, found.layout, found.dtype) == (3, 1, 9, "contiguous", "float32")
    assert 0 < found.low <= found.median <= found.high
    assert re.fullmatch(r"[\d.]+ ms \(quartiles [\d.]+ to [\d.]+; batch 3, 1 thread, contiguous, float32, 9 runs\)", str(found))
    assert torch.get_num_threads() == threads and model.training
    last = metrics.latency(nn.Conv2d(2, 3, 3), networks.images(1, (2, 6, 6)).to(memory_format=torch.channels_last), runs=3)
    assert last.layout == "channels-last"


def test_compared_models_run_in_turn_in_eval_mode_without_gradients():
    order = []

    class Noting(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            order.append(self.name)
            assert not self.training and torch.is_inference_mode_enabled() and torch.get_num_threads() == 1
            return x

    found = metrics.compare_latency({"a": Noting("a"), "b": Noting("b")}, torch.zeros(2, 3), runs=4, warmup=2)
    assert order == ["a", "b"] * 6 and set(found) == {"a", "b"} and found["a"].runs == 4


@pytest.mark.parametrize("options, words", [
    (dict(threads=0), "threads=0 must be an integer of at least 1"), (dict(runs=2), "runs=2 must be an integer of at least 3"),
    (dict(warmup=-1), "warmup=-1 must be an integer of at least 0"), (dict(runs=10.5), "runs=10.5"),
])
def test_a_wrong_argument_is_named_with_its_value(options, words):
    with pytest.raises(ValueError) as caught:
        metrics.latency(nn.Identity(), torch.zeros(1, 1), **options)
    assert words in str(caught.value)


# -------- the table

def test_the_structure_prints_as_a_table_and_as_html():
    net = sl.Switched(models.lenet_300_100(), networks.images(2), switch_inputs=True)
    net.hold({"input": (torch.arange(784) < 400).float(), "fc1": (torch.arange(300) < 30).float(), "fc2": torch.ones(100)})
    structure = net.structure()
    left = 400 * 30 + 30 + 30 * 100 + 100 + 1010
    assert structure.rows == [("input", 784, 400, 400 / 784), ("fc1", 300, 30, 0.1), ("fc2", 100, 100, 1.0),
                              ("parameters", 266_610, left, left / 266_610), ("MACs", 266_200, 16_000, 16_000 / 266_200)]
    assert structure.compression == 266_610 / left
    lines = str(structure).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[0].split() == ["dense", "on", "on/dense"]
    assert lines[2].split() == ["fc1", "300", "30", "10.0%"]
    assert lines[4].split() == ["parameters", "266,610", f"{left:,}", f"{left / 266_610:.1%}"]
    page = structure._repr_html_()
    assert "<tr><th scope='row'>fc1</th><td>300</td><td>30</td><td>10.0%</td></tr>" in page and page.count("<tr>") == 6
