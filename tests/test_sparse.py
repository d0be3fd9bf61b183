"""Zeros that save time: the same numbers from CSR, in every mode, and only where the measurement says so."""

import copy
import subprocess
import sys
from functools import partial

import networks
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib import models, sparse
from switcher_lib.metrics import Latency
from switcher_lib.layers import SelectLinear


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before, and in whatever order."""
    torch.manual_seed(0)


def holed(model, density=0.2, seed=0):
    """The model, with most weights of its Linear layers 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight[torch.rand(module.weight.shape, generator=generator) >= density] = 0
    return model.eval()


def measured(monkeypatch, times):
    """Give the measurements: {(out, in): (dense ms, CSR ms)}, and note what was asked."""
    asked = []

    def compare(layers, x, **options):
        asked.append((set(layers), tuple(x.shape), options))
        found = times[tuple(layers["dense"].weight.shape)]
        return {name: Latency(ms, ms, ms, len(x), 1, 3, "contiguous", "float32") for name, ms in zip(("dense", "csr"), found)
                if name in layers}

    monkeypatch.setattr(sparse, "compare_latency", compare)
    return asked


CSR, DENSE = (1.0, 0.5), (1.0, 2.0)
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


# -------- the layer

@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (2, 1, 4), (0,)])
def test_it_computes_what_the_dense_layer_does(mode, dtype, tolerance, bias, lead):
    layer = holed(nn.Linear(9, 6, bias=bias)).to(dtype)
    with torch.no_grad():
        layer.weight[2] = 0      # a row with no connection at all
    csr = sl.SparseLinear(layer.weight, layer.bias)
    x = torch.randn(*lead, 9, dtype=dtype)
    with MODES[mode]():
        for _ in range(2):
            y = csr(x)
            assert y.shape == (*lead, 6) and y.dtype == dtype
            torch.testing.assert_close(y, layer(x), rtol=tolerance, atol=tolerance)


def test_what_arrives_in_another_layout_comes_out_the_same():
    layer = holed(nn.Linear(9, 6))
    csr = sl.SparseLinear(layer.weight, layer.bias)
    for x in (torch.randn(9, 5).t(), torch.randn(5, 18)[:, ::2], torch.randn(4, 9, 5).transpose(1, 2), torch.randn(1, 9).expand(5, 9)):
        torch.testing.assert_close(csr(x), layer(x))


def test_a_layer_made_in_one_mode_runs_in_every_other():
    layer = holed(nn.Linear(9, 6))
    x = torch.randn(3, 9)
    for made in MODES.values():
        with made():
            csr = sl.SparseLinear(layer.weight, layer.bias)
        for run in MODES.values():
            with run():
                torch.testing.assert_close(csr(x), layer(x))


def test_no_connection_at_all_leaves_the_bias():
    csr = sl.SparseLinear(torch.zeros(4, 3), torch.arange(4.0))
    assert torch.equal(csr(torch.randn(2, 3)), torch.arange(4.0).expand(2, 4)) and len(csr.values) == 0


@pytest.mark.parametrize("index", [[0, 2, 3, 7], [7, 3, 2, 0], [5, 1, 5, 5]])
def test_a_selection_of_features_goes_into_the_column_indices(index):
    layer = SelectLinear(torch.tensor(index), 6)
    csr = sl.SparseLinear(layer.weight, layer.bias, layer.index, 8)
    x = torch.randn(3, 2, 8)
    torch.testing.assert_close(csr(x), layer(x))
    assert csr.in_features == 8 and len(csr.values) == 6 * len(set(index))


def test_it_holds_the_surviving_connections_only():
    layer = holed(nn.Linear(9, 6))
    csr = sl.SparseLinear(layer.weight, layer.bias)
    assert len(csr.values) == len(csr.col_indices) == int(torch.count_nonzero(layer.weight)) == csr.crow_indices[-1]
    assert torch.equal(csr.to_dense(), layer.weight) and not list(csr.parameters())
    assert csr.col_indices.dtype == csr.crow_indices.dtype == torch.int32
    assert str(csr) == f"SparseLinear(in_features=9, out_features=6, connections={len(csr.values)}, bias=True)"
    layer.bias.data.zero_(), layer.weight.data.zero_()     # a copy, not a view
    assert csr.bias.any() and csr.values.any()


def test_copies_types_and_in_place_changes_are_followed():
    layer = holed(nn.Linear(9, 6))
    csr = sl.SparseLinear(layer.weight, layer.bias)
    x = torch.randn(3, 9)
    before = csr(x)
    twin = copy.deepcopy(csr)
    twin.values.mul_(2)
    twin.bias.mul_(2)
    torch.testing.assert_close(twin(x), 2 * before)
    assert torch.equal(csr(x), before)
    torch.testing.assert_close(csr.double()(x.double()).float(), before)


def test_gradients_reach_the_input():
    layer = holed(nn.Linear(9, 6))
    x = torch.randn(3, 9, requires_grad=True)
    (wanted,) = torch.autograd.grad(layer(x).square().sum(), x)
    (found,) = torch.autograd.grad(sl.SparseLinear(layer.weight, layer.bias)(x).square().sum(), x)
    torch.testing.assert_close(found, wanted)


def test_another_number_of_features_is_refused_even_a_multiple():
    csr = sl.SparseLinear(torch.ones(4, 3))
    for n in (2, 6):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            csr(torch.ones(2, n))


@pytest.mark.parametrize("arguments, words", [
    ((torch.ones(3),), "weight=(3,) of torch.float32 must be a matrix"),
    ((torch.ones(3, 2, dtype=torch.bfloat16),), "weight=(3, 2) of torch.bfloat16 must be a matrix of float32 or float64"),
    ((nn.Linear(2, 3),), "weight=Linear must be a matrix"),
    ((torch.ones(3, 2), torch.ones(2)), "bias has shape (2,); the weight has 3 rows, so it must be (3,)"),
    ((torch.ones(3, 2), None, torch.tensor([0, 4])), "in_features=None must be told with index"),
    ((torch.ones(3, 2), None, torch.tensor([0, 4]), 4), "index of shape (2,) must hold 2 positions"),
    ((torch.ones(3, 2), None, torch.tensor([-1, 0]), 4), "at least 0 and below in_features=4"),
    ((torch.ones(3, 2), None, torch.tensor([0]), 4), "index of shape (1,)"),
    ((torch.ones(3, 2), None, None, 4), "in_features=4, but the weight has 2 columns and there is no index"),
])
def test_a_wrong_argument_is_named(arguments, words):
    with pytest.raises(ValueError) as caught:
        sl.SparseLinear(*arguments)
    assert words in str(caught.value)


# -------- its file

def test_it_is_saved_and_loaded_as_safetensors(tmp_path):
    layer = holed(nn.Linear(9, 6))
    csr = sl.SparseLinear(layer.weight, layer.bias)
    save_file(csr.state_dict(), tmp_path / "csr.safetensors")
    loaded = sl.SparseLinear(torch.zeros(6, 9), torch.zeros(6))
    assert loaded.load_state_dict(load_file(tmp_path / "csr.safetensors")) == ([], [])
    x = torch.randn(3, 9)
    assert torch.equal(loaded(x), csr(x)) and networks.same(networks.state(loaded), networks.state(csr))
    inside = nn.Sequential(sl.SparseLinear(torch.ones(6, 9), torch.zeros(6)))     # under a prefix, from another size
    inside.load_state_dict({f"0.{name}": t for name, t in csr.state_dict().items()})
    assert torch.equal(inside(x), csr(x))


@pytest.mark.parametrize("spoil", [
    lambda s: s["col_indices"].fill_(9), lambda s: s["col_indices"].fill_(-1), lambda s: s["crow_indices"].fill_(99),
    lambda s: s.update(values=s["values"][:-1]), lambda s: s.update(crow_indices=s["crow_indices"][:-1]),
])
def test_indices_that_point_outside_are_never_loaded(spoil):
    layer = holed(nn.Linear(9, 6))
    csr = sl.SparseLinear(layer.weight, layer.bias)
    state = {name: t.clone() for name, t in csr.state_dict().items()}
    spoil(state)
    before = networks.state(csr)
    with pytest.raises(RuntimeError, match="values and its indices are no 6 × 9 matrix in CSR"):
        csr.load_state_dict(state)
    assert networks.same(before, networks.state(csr))
    with pytest.raises(RuntimeError, match="Missing key.*values"):
        csr.load_state_dict({name: t for name, t in before.items() if name != "values"})


# -------- the choice

def test_each_layer_becomes_what_was_faster(monkeypatch):
    model, x = holed(models.lenet_300_100(widths=(30, 20))), networks.images(16)
    before, kind = networks.state(model), type(model.fc1)
    asked = measured(monkeypatch, {(30, 784): CSR, (20, 30): DENSE, (10, 20): CSR})
    result = sl.sparsify(model.train(), x, threads=2, runs=7)
    assert result.chosen == ["fc1", "fc3"] and [type(m).__name__ for m in result.model] == [
        "Flatten", "SparseLinear", "ReLU", "Linear", "ReLU", "SparseLinear"]
    assert result.layers["fc1"] == sparse.LayerTimes(int((model.fc1.weight != 0).sum()) / 23_520, 1.0, 0.5, "csr")
    assert result.layers["fc2"].chosen == "dense" and result.layers["fc2"].csr == 2.0
    assert asked == [({"dense", "csr"}, (16, n), dict(threads=2, runs=7)) for n in (784, 30, 20)]
    assert type(model.fc1) is kind and model.training and networks.same(before, networks.state(model))
    assert not any(m.training for m in result.model.modules())
    assert not any(m._forward_pre_hooks for m in (*model.modules(), *result.model.modules()))
    for mode in MODES.values():
        with mode():
            torch.testing.assert_close(result.model(x), model(x))
    assert 0 < result.relative_error < 1e-5 and (result.batch, result.threads) == (16, 2)


@pytest.mark.parametrize("dense, csr, margin, chosen", [
    (1.0, 0.89, 0.1, "csr"), (1.0, 0.91, 0.1, "dense"), (1.0, 0.99, 0.0, "csr"), (1.0, 1.0, 0.0, "dense"), (1.0, 0.6, 0.5, "dense"),
])
def test_csr_must_be_faster_by_the_margin(dense, csr, margin, chosen, monkeypatch):
    measured(monkeypatch, {(3, 6): (dense, csr)})
    assert sl.sparsify(nn.Linear(6, 3), torch.randn(2, 6), margin=margin).layers[""].chosen == chosen


def test_a_very_sparse_layer_is_faster_and_a_full_one_is_not():
    # A factor of several in both directions: what no busy machine turns round.
    model = nn.Sequential(nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 1200))
    with torch.no_grad():
        model[0].weight[torch.rand(1200, 1200) > 0.002] = 0
    x = torch.randn(128, 1200)
    result = sl.sparsify(model, x, runs=5)
    assert result.chosen == ["0"] and result.layers["0"].csr < 0.5 * result.layers["0"].dense
    assert result.layers["1" if "1" in result.layers else "2"].csr > result.layers["2"].dense
    found = sl.metrics.compare_latency({"dense": model, "csr": result.model}, x, runs=5, warmup=2)
    assert found["csr"].median < found["dense"].median


def test_a_bare_layer_is_replaced_itself(monkeypatch):
    measured(monkeypatch, {(3, 6): CSR})
    layer, x = nn.Linear(6, 3), torch.randn(2, 6)
    result = sl.sparsify(layer, x)
    assert isinstance(result.model, sl.SparseLinear) and not result.model.training
    torch.testing.assert_close(result.model(x), layer(x))


def test_a_layer_that_runs_twice_is_timed_twice(monkeypatch):
    times = {(5, 6): DENSE, (5, 5): (1.0, 0.75), (4, 5): DENSE, (3, 4): DENSE}
    asked = measured(monkeypatch, times)
    model, x = networks.built(networks.Reused), torch.randn(2, 6)
    result = sl.sparsify(model, x)
    assert (result.layers["b"].dense, result.layers["b"].csr) == (2.0, 1.5) and len(asked) == 5
    torch.testing.assert_close(result.model(x), model(x))


class TwoNames(nn.Module):
    """A layer with two names, called by keyword, under the second."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Linear(6, 3)

    def forward(self, x):
        return self.b(input=x)


def test_a_layer_with_two_names_is_replaced_under_both(monkeypatch):
    measured(monkeypatch, {(3, 6): CSR})
    result = sl.sparsify(TwoNames(), torch.randn(2, 6))
    assert result.model.a is result.model.b and isinstance(result.model.b, sl.SparseLinear) and result.chosen == ["a"]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_compacted_network_with_a_choice_of_pixels_is_sparsified(batch_norm, monkeypatch):
    x = networks.images(8)
    model = models.lenet_300_100(batch_norm=batch_norm)
    small = sl.compact(networks.held(model, x, off=0.6, switch_inputs=True), x).model
    small = holed(sl.fold_batchnorm(small))
    assert isinstance(small.fc1, SelectLinear)
    monkeypatch.setattr(sparse, "compare_latency", lambda layers, x, **options: {
        name: Latency(ms, ms, ms, len(x), 1, 3, "", "") for name, ms in (("dense", 1.0), ("csr", 0.1))})
    result = sl.sparsify(small, x)
    assert result.chosen == ["fc1", "fc2", "fc3"] and result.model.fc1.in_features == 784
    torch.testing.assert_close(result.model(x), small(x))


def test_a_sparse_network_is_saved_and_loaded(tmp_path, monkeypatch):
    model, x = holed(models.lenet_300_100(widths=(30, 20))), networks.images(4)
    measured(monkeypatch, {(30, 784): CSR, (20, 30): DENSE, (10, 20): CSR})
    result = sl.sparsify(model, x).model
    save_file({name: t.contiguous() for name, t in result.state_dict().items()}, tmp_path / "net.safetensors")
    other = sl.sparsify(holed(models.lenet_300_100(widths=(30, 20)), seed=5), x).model
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(other(x), result(x))


class Reads(nn.Module):
    """Runs a layer, and reads its weight besides."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return F.linear(self.fc(x), self.fc.weight)


def test_a_model_that_reads_a_layers_weight_itself_is_refused(monkeypatch):
    measured(monkeypatch, {(6, 6): CSR})
    with pytest.raises(sl.SwitchError, match="Reads does not run with a SparseLinear in it .*otherwise than by calling it"):
        sl.sparsify(Reads(), torch.randn(2, 6))


def test_a_difference_that_is_more_than_rounding_is_refused(monkeypatch):
    measured(monkeypatch, {(3, 6): CSR})
    original = sparse.SparseLinear.__init__

    def spoiled(self, *args):
        original(self, *args)
        self.values[0] += 0.1

    monkeypatch.setattr(sparse.SparseLinear, "__init__", spoiled)
    with pytest.raises(sl.SwitchError, match="Linear computes something else with its weights in CSR: relative error"):
        sl.sparsify(nn.Linear(6, 3), torch.randn(2, 6))


def test_layers_that_do_more_than_multiply_stay_as_they_are(monkeypatch):
    hooked = nn.Linear(6, 6)
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    model = nn.Sequential(hooked, nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 3)).eval()
    measured(monkeypatch, {(3, 6): CSR})
    x = torch.randn(2, 6)
    result = sl.sparsify(model, x)
    assert result.chosen == ["2"] == list(result.layers)
    torch.testing.assert_close(result.model(x), model(x))


def test_where_csr_cannot_run_everything_stays_dense(monkeypatch):
    monkeypatch.setattr(sparse, "_csr_works", lambda: False)
    model, x = holed(nn.Linear(6, 3)), torch.randn(2, 6)
    with pytest.warns(sl.SwitchWarning, match="this build of PyTorch cannot multiply CSR matrices"):
        result = sl.sparsify(model, x, runs=3)
    assert result.chosen == [] and result.layers[""].csr == float("inf") and result.layers[""].dense > 0
    assert torch.equal(result.model(x), model(x)) and result.relative_error == 0


def test_this_build_can_and_says_nothing_of_a_beta_state():
    # PyTorch says it once a process: so in one of its own.
    code = ("import torch, switcher_lib as sl\n"
            "assert sl.sparse._csr_works() and sl.SparseLinear(torch.ones(2, 3))(torch.ones(1, 3)).tolist() == [[3, 3]]")
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "beta" not in done.stderr and "invariant" not in done.stderr, done.stderr


def bad(**options):
    return lambda: sl.sparsify(**{"model": networks.mlp(), "example": torch.randn(2, 6), "runs": 3} | options)


@pytest.mark.parametrize("call, error, words", [
    (bad(model=3), TypeError, "model is a int; it must be a plain nn.Module"),
    (lambda: sl.sparsify(sl.Switched(networks.mlp(), torch.randn(2, 6)), torch.randn(2, 6)), TypeError,
     "model is a Switched; it must be a plain nn.Module: sl.compact"),
    (bad(margin=1), ValueError, "margin=1 must be a number of at least 0 and below 1"),
    (bad(margin=-0.1), ValueError, "margin=-0.1"), (bad(margin="0"), ValueError, "margin='0'"),
    (bad(example=torch.randn(6)), ValueError, "example=(6,) must be a tensor: a batch"),
    (bad(example=torch.randn(0, 6)), ValueError, "example=(0, 6)"), (bad(example=[1]), ValueError, "example=list"),
    (bad(example=torch.randn(2, 6, device="meta")), ValueError, "is on meta; CSR is measured on the CPU"),
    (bad(threads=0), ValueError, "threads=0 must be an integer of at least 1"),
    (bad(runs=2), ValueError, "runs=2 must be an integer of at least 3"),
    (bad(model=nn.ReLU()), sl.SwitchError, "no Linear layer of float32 or float64 runs in ReLU"),
])
def test_a_wrong_argument_of_sparsify_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_half_precision_is_left_dense():
    with pytest.raises(sl.SwitchError, match="no Linear layer of float32 or float64"):
        sl.sparsify(nn.Linear(6, 3).bfloat16(), torch.randn(2, 6).bfloat16())


# -------- the report

def test_what_it_prints(monkeypatch):
    measured(monkeypatch, {(30, 784): CSR, (20, 30): DENSE, (10, 20): CSR})
    model = models.lenet_300_100(widths=(30, 20))
    with torch.no_grad():
        model.fc1.weight[:, 196:] = 0
    result = sl.sparsify(model, networks.images(4))
    lines = str(result).splitlines()
    assert lines[0].split() == ["layer", "density", "dense", "CSR", "runs", "as"]
    assert lines[1].split() == ["fc1", "25.0%", "1.000", "ms", "0.500", "ms", "csr"] and lines[2].split()[-1] == "dense"
    assert lines[-1].startswith("batch 4, 1 thread, relative error ")
    page = result._repr_html_()
    assert "<tr><th scope='row'>fc1</th><td>25.0%</td><td>1.000</td><td>0.500</td><td>csr</td></tr>" in page
    assert page.count("<tr>") == 4 and "batch 4, 1 thread" in page


def test_sparse_networks_are_timed_beside_dense_ones():
    layer, x = holed(nn.Linear(20, 10)), torch.randn(4, 20)
    found = sl.metrics.compare_latency({"dense": layer, "csr": sl.SparseLinear(layer.weight, layer.bias)}, x, runs=3, warmup=0)
    assert found["csr"].median > 0 and partial(sl.metrics.latency, runs=3)(sl.SparseLinear(layer.weight), x).batch == 4
