"""A compacted network is a plain one: exported, compiled or quantised, it gives its own outputs.

Another network is one more line of NETWORKS.
"""

import copy
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace

import networks
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib.layers import SelectLinear


@dataclass(frozen=True)
class Network:
    """A network to compact: its factory, the shape of its images, how it is switched."""

    make: callable
    shape: tuple = (1, 28, 28)
    options: dict = field(default_factory=dict)
    selects: bool = False     # whether a SelectLinear is in what is left
    compiles: bool = True     # whether torch.compile is tried: for a deep network it takes a minute
    files: bool = True        # whether ONNX and int8 files are made: seconds each
    narrower: tuple = ()      # layers that have to have lost neurons, or the name says what the case is not
    seed: int = 0             # one whose outputs live, and depend on the last layer: small networks have others, too


class Normed(nn.Module):
    """A transformer's MLP: LayerNorm fixes the stream that it reads, ``wide`` is free."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.wide, self.narrow = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 8), nn.Linear(8, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(x + self.narrow(F.gelu(self.wide(self.norm(x))))))


tiny = partial(Network, shape=(2, 12, 12), options={"tied": True}, compiles=False, files=False, seed=4)
NETWORKS = {
    "lenet_300_100": Network(sl.models.lenet_300_100, options={"switch_inputs": True}, selects=True),
    "lenet_5": Network(sl.models.lenet_5, options={"switch_flattened": True}, selects=True),
    "conv_net": Network(lambda: sl.models.conv_net(widths=(8, 16, 16)), (3, 32, 32)),
    "residual": tiny(networks.Bottleneck, compiles=True, narrower=("stem", "inner", "outer", "short")),
    "resnet18": Network(lambda: torchvision.models.resnet18(num_classes=10), (3, 32, 32), {"tied": True}, compiles=False),
    "depthwise": tiny(networks.Inverted, narrower=("expand", "depth", "project")),
    "groups": tiny(networks.Grouped, narrower=("a", "g", "b")),
    "squeeze-and-excitation": tiny(networks.Excited, files=True, narrower=("conv", "down", "up", "out")),
    "concatenation": tiny(networks.Dense, seed=3, narrower=("stem", "one", "two")),
    "layer norm": tiny(Normed, shape=(6,), narrower=("wide",)),
}

# The same float32 sums in another order: as fractions of the largest output, errors of some 1e-7 for each layer.
ROUNDING = 1e-5


@cache
def compacted(name):
    """A network with about half of its neurons off: images, its outputs for them, compacted and only folded."""
    network = NETWORKS[name]
    model = networks.built(network.make, network.seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            networks.lively(module)
    x = networks.images(16, network.shape)
    net = networks.held(model, x, network.seed, off=0.5, **network.options)
    small = sl.compact(net, x)
    return SimpleNamespace(network=network, x=x, y=outputs(small.model, x), model=small.model, small=small,
                           folded=sl.fold(net).eval())


def outputs(model, x):
    with torch.no_grad():
        return model(x)


def error(y, y_hat):
    """max|y − ŷ| / max|y|, as in a certificate."""
    assert y.shape == y_hat.shape
    return float((y - y_hat).abs().max() / y.abs().max())


def changed(model, how):
    """A copy in which the weight of the last layer is not what it was."""
    other = copy.deepcopy(model)
    last = [module for module in other.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(how(last.weight))
    return other


def one_percent(weight):
    """One class's weights are 1% larger."""
    return weight * torch.where(torch.arange(len(weight)) == 0, 1.01, 1.0)[:, None]


def rotated(weight):
    """Every class has its neighbour's weights."""
    return weight.roll(1, 0)


def check(run, case, tolerance=ROUNDING, fault=one_percent, batches=(1, 3, 16)):
    """What was exported gives the network's outputs for batches of any size, and is told from a network with a fault."""
    for n in batches:
        assert error(case.y[:n], run(case.x[:n])) <= tolerance
    assert error(outputs(changed(case.model, fault), case.x), run(case.x)) > tolerance


every_network = pytest.mark.parametrize("name", NETWORKS)
every_file = pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.files])
BATCH = {0: torch.export.Dim.DYNAMIC}


@every_network
def test_what_is_exported_here_has_been_compacted(name):
    case = compacted(name)
    before, after = case.small.parameters
    assert after < before and case.small.certificate.holds
    assert any(isinstance(module, SelectLinear) for module in case.model.modules()) == case.network.selects
    assert not any(module.training for module in case.model.modules())
    lost = {path for path, (neurons, left) in case.small.widths.items() if left < neurons}
    assert lost >= set(case.network.narrower)


# -------- torch.export

@every_network
def test_an_exported_program_gives_the_compacted_networks_outputs(name):
    case = compacted(name)
    program = torch.export.export(case.model, (case.x,), dynamic_shapes=(BATCH,))
    check(lambda x: outputs(program.module(), x), case)


# -------- ONNX

ABSENT = "is not installed: nothing to run an ONNX file with, or to make one"


@cache
def session(data):
    """An onnxruntime session on one thread, from a file's bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(data, x):
    return torch.from_numpy(session(data).run(None, {"x": x.numpy()})[0])


@cache
def onnx_bytes(name, which="model"):
    """A compacted network, or the folded one, as an ONNX file with a batch of any size."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} {ABSENT}")
    model, x = getattr(compacted(name), which), compacted(name).x
    program = torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=(BATCH,), input_names=["x"], verbose=False)
    return program.model_proto.SerializeToString()


@every_file
def test_an_onnx_file_gives_the_compacted_networks_outputs(name):
    data, case = onnx_bytes(name), compacted(name)
    (given,) = session(data).get_inputs()
    assert isinstance(given.shape[0], str) and tuple(given.shape[1:]) == case.network.shape    # a name: any size will do
    check(lambda x: run_onnx(data, x), case)


def test_the_lines_in_the_book_write_such_a_file(root, tmp_path, monkeypatch):
    chapter = root / "book" / "14-your-network.ipynb"
    texts = ["".join(cell["source"]) for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]]
    (lines,) = [code for text in texts for code in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
                if "onnx" in code]
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} {ABSENT}")
    case = compacted("residual")
    monkeypatch.chdir(tmp_path)
    exec(lines, {"torch": torch, "small": case.small, "x": case.x[:5]})
    check(lambda x: run_onnx((tmp_path / "small.onnx").read_bytes(), x), case)


# -------- int8

# What goes in compaction is 0 or is not read: every tensor that stays has the values it had, and no larger range to be
# rounded over. So int8 may cost the compacted network what it costs the folded one, and twice that for chance: 1.2 times was
# the most in three seeds.
CHANCE = 2
MOST = 0.1    # of the largest output, whatever it costs the folded one: 0.053 was the most here (resnet18)


def quantised(data, x, folder):
    """An ONNX file whose layers compute in int8, calibrated on the images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": x.numpy()}])

        def get_next(self):
            return next(self.batches, None)

    plain, whole = folder / "plain.onnx", folder / "int8.onnx"
    plain.write_bytes(data)
    quantize_static(plain, whole, Images(), quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8, reduce_range=True)    # else sums overflow on processors without VNNI
    return whole.read_bytes()


def int8_weights(data):
    """How many weights of Linear and Conv layers an ONNX file holds in int8."""
    import onnx

    return sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1 for t in onnx.load_from_string(data).graph.initializer)


def count(model, *kinds):
    return sum(type(module) in kinds for module in model.modules())


@every_file
def test_int8_costs_a_compacted_network_about_what_it_costs_the_folded_one(name, tmp_path):
    case = compacted(name)
    whole, data = (quantised(onnx_bytes(name, which), case.x, tmp_path) for which in ("folded", "model"))
    assert int8_weights(data) == count(case.model, nn.Linear, SelectLinear, nn.Conv2d)
    cost = error(outputs(case.folded, case.x), run_onnx(whole, case.x))
    assert 1e-3 < cost <= MOST    # it has been rounded
    check(lambda x: run_onnx(data, x), case, tolerance=min(CHANCE * cost, MOST), fault=rotated)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
@every_network
def test_linear_layers_in_int8_by_pytorch_itself_cost_about_as_much_too(name):
    ao = pytest.importorskip("torch.ao.quantization", reason="this PyTorch has no torch.ao.quantization any more; torchao has")
    case = compacted(name)
    whole, model = (ao.quantize_dynamic(copy.deepcopy(m), {nn.Linear}, dtype=torch.qint8) for m in (case.folded, case.model))
    cost = error(outputs(case.folded, case.x), outputs(whole, case.x))
    assert 1e-3 < cost <= MOST
    check(lambda x: outputs(model, x), case, tolerance=min(CHANCE * cost, MOST), fault=rotated)
    assert count(model, nn.Linear) == 0
    assert count(model, SelectLinear) == case.network.selects    # PyTorch goes by exact types: this one stays in float32


# -------- torch.compile

@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.compiles])
def test_compiled_it_gives_the_compacted_networks_outputs(name):
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no C++ compiler here ({compiler}): torch.compile makes C++ of a network for the CPU")
    case = compacted(name)
    compiled = torch.compile(case.model, fullgraph=True, options={"compile_threads": 1})    # no process stays behind
    check(lambda x: outputs(compiled, x), case, batches=(16,))
