"""The task networks: their layers, their sizes, and what they refuse."""

import math
from functools import partial

import pytest
import torch
from torch import fx, nn

from switcher_lib import models


def count(model):
    return sum(p.numel() for p in model.parameters())


def names(model):
    return [name for name, _ in model.named_children()]


@pytest.mark.parametrize("make, layers, parameters", [
    (models.lenet_300_100, "flatten fc1 relu1 fc2 relu2 fc3", 266_610),
    (models.lenet_5, "conv1 pool1 conv2 pool2 flatten fc1 relu1 fc2", 431_080),
    (models.conv_net,
     "conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2 conv3 bn3 relu3 pool3 flatten fc", 113_962),
    (partial(models.lenet_300_100, batch_norm=True), "flatten fc1 bn1 relu1 fc2 bn2 relu2 fc3",
     784 * 300 + 2 * 300 + 300 * 100 + 2 * 100 + 1010),
    (partial(models.lenet_5, batch_norm=True), "conv1 bn1 pool1 conv2 bn2 pool2 flatten fc1 bn3 relu1 fc2",
     25 * 20 + 40 + 500 * 50 + 100 + 800 * 500 + 1000 + 5010),
])
def test_layers_have_their_names_and_the_known_number_of_parameters(make, layers, parameters):
    model = make()
    assert isinstance(model, nn.Sequential)
    assert names(model) == layers.split()
    assert count(model) == parameters


def test_lenet_5_is_caffes_with_one_relu_and_800_features():
    model = models.lenet_5()
    assert [name for name, m in model.named_modules() if isinstance(m, nn.ReLU)] == ["relu1"]
    assert model.fc1.in_features == 800
    assert model.conv1.kernel_size == model.conv2.kernel_size == (5, 5)


@pytest.mark.parametrize("name, options, shape", [
    ("lenet_300_100", {"in_shape": (3, 7, 5), "widths": (6, 2)}, (3, 7, 5)),
    ("lenet_300_100", {"in_shape": (3, 7, 5), "widths": (6, 2), "batch_norm": True}, (3, 7, 5)),
    ("lenet_5", {"in_shape": (2, 20, 17), "batch_norm": True}, (2, 20, 17)),
    ("lenet_5", {"in_shape": (2, 20, 17), "widths": [3, 4, 5], "kernel_size": 3}, (2, 20, 17)),
    ("conv_net", {"in_shape": (1, 28, 9), "widths": (3, 4, 5)}, (1, 28, 9)),
    ("conv_net", {"in_shape": (1, 8, 8), "widths": (1, 1, 1), "batch_norm": False}, (1, 8, 8)),
])
def test_any_shape_and_width_gives_one_logit_per_class(name, options, shape):
    model = models.make(name, num_classes=4, **options)
    assert model(torch.randn(3, *shape)).shape == (3, 4)


@pytest.mark.parametrize("name, parameters", [
    ("vgg_16_bn", 14_724_042), ("resnet_18", 11_173_962), ("resnet_34", 21_282_122), ("mobilenet", 3_217_226),
    ("resnet_20", 269_722 + 2_752), ("resnet_56", 853_018 + 2_752),    # the paper's, and two 1x1 convolutions with BatchNorm
])
def test_a_deep_network_has_the_known_number_of_parameters(name, parameters):
    with torch.device("meta"):
        model = models.make(name)
    assert isinstance(model, nn.Sequential) and count(model) == parameters
    assert f"{parameters:,} parameters" in getattr(models, name).__doc__


CONVOLUTIONS = {"vgg_16_bn": 13, "resnet_18": 20, "resnet_34": 36, "resnet_20": 21, "resnet_56": 57, "mobilenet": 27}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_deep_networks_convolutions_have_no_bias_and_a_batch_norm_each(name):
    with torch.device("meta"):
        model = models.make(name, num_classes=100)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == CONVOLUTIONS[name] and all(m.bias is None for m in convolutions)
    assert [m.out_channels for m in convolutions] == [m.num_features for m in norms]
    assert model.fc.out_features == 100 and sum(isinstance(m, nn.Linear) for m in model.modules()) == 1


@pytest.mark.parametrize("name, sides", [("vgg_16_bn", [32, 16, 8, 4, 2, 1]), ("resnet_18", [32, 16, 8, 4, 1]),
                                         ("resnet_34", [32, 16, 8, 4, 1]), ("resnet_20", [32, 16, 8, 1]),
                                         ("resnet_56", [32, 16, 8, 1]), ("mobilenet", [32, 16, 8, 4, 2, 1])])
def test_a_deep_network_halves_a_cifar_image_where_its_paper_does(name, sides):
    with torch.device("meta"):
        x, seen = torch.zeros(2, 3, 32, 32), []
        for layer in models.make(name):
            x = layer(x)
            seen += [x.shape[-1]] if x.ndim == 4 else []
    assert list(dict.fromkeys(seen)) == sides and x.shape == (2, 10)


@pytest.mark.parametrize("name, options, shape", [
    ("vgg_16_bn", {"in_shape": (1, 32, 70), "widths": range(2, 15)}, (1, 32, 70)),
    ("resnet_18", {"in_shape": (1, 9, 12), "widths": [3, 4, 5, 6], "inner": range(1, 9)}, (1, 9, 12)),
    ("resnet_34", {"in_shape": (2, 9, 12), "widths": [3, 4, 5, 6]}, (2, 9, 12)),
    ("resnet_20", {"in_shape": (1, 1, 5), "widths": (3, 4, 5), "inner": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, (1, 1, 5)),
    ("resnet_56", {"widths": (1, 1, 1)}, (3, 32, 32)),
    ("mobilenet", {"in_shape": (1, 28, 28), "widths": range(1, 15)}, (1, 28, 28)),
])
def test_a_deep_network_takes_any_shape_and_width_and_can_be_traced(name, options, shape):
    model = models.make(name, num_classes=4, **options)
    x = torch.randn(3, *shape)
    assert model(x).shape == (3, 4)
    traced = fx.symbolic_trace(model.eval())
    assert torch.equal(traced(x), model(x))
    assert traced(x[:2]).shape == (2, 4), "no size is written into the code"


def test_a_deep_networks_widths_are_its_layers():
    widths = list(range(2, 15))
    model = models.vgg_16_bn(widths=widths)
    assert [model.get_submodule(f"conv{i}").out_channels for i in range(1, 14)] == widths
    model = models.mobilenet(widths=[*widths, 15])
    mixing = [model.conv, *(model.get_submodule(f"block{i}.pointwise") for i in range(1, 14))]
    assert [layer.out_channels for layer in mixing] == [*widths, 15]
    assert all(m.groups == m.in_channels == m.out_channels for name, m in model.named_modules() if name.endswith("depthwise"))
    model = models.resnet_20(widths=(3, 4, 5), inner=range(6, 15))
    blocks = [model.get_submodule(f"block{i}") for i in range(1, 10)]
    assert [block.conv1.out_channels for block in blocks] == list(range(6, 15))
    assert [block.conv2.out_channels for block in blocks] == [3] * 3 + [4] * 3 + [5] * 3
    assert [i for i, block in enumerate(blocks, start=1) if not isinstance(block.shortcut, nn.Identity)] == [4, 7]
    assert model.fc.in_features == 5


def test_a_block_adds_what_it_reads_to_what_it_makes():
    block = models.resnet.Block(4, 2, 4)
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(3, 4, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("name", ["vgg_16_bn", "resnet_18", "mobilenet"])
def test_the_first_weights_of_a_deep_networks_convolutions_are_he_et_als(name):
    torch.manual_seed(0)
    for module in models.make(name).modules():
        if isinstance(module, nn.Conv2d):
            weight, deviation = module.weight.detach(), math.sqrt(2 / module.weight[0].numel())
            assert weight.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(2 * weight.numel()))
            assert weight.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(weight.numel()))
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()


def test_widths_are_the_layers_widths():
    model = models.lenet_300_100(widths=(97, 33))
    assert (model.fc1.out_features, model.fc2.out_features) == (97, 33)
    model = models.lenet_5(widths=(5, 10, 76))
    assert (model.conv1.out_channels, model.conv2.out_channels, model.fc1.out_features) == (5, 10, 76)
    model = models.conv_net(widths=(3, 4, 5))
    assert [model.get_submodule(f"conv{i}").out_channels for i in (1, 2, 3)] == [3, 4, 5]


@pytest.mark.parametrize("name, layers", [("lenet_300_100", {"bn1": ("fc1", 6), "bn2": ("fc2", 4)}),
                                          ("lenet_5", {"bn1": ("conv1", 6), "bn2": ("conv2", 4), "bn3": ("fc1", 5)})])
def test_a_lenets_hidden_layers_have_a_batch_norm_in_place_of_the_bias(name, layers):
    model = models.make(name, batch_norm=True, widths=[width for _, width in layers.values()])
    order = names(model)
    for norm, (layer, width) in layers.items():
        assert order.index(norm) == order.index(layer) + 1
        assert model.get_submodule(norm).num_features == width and model.get_submodule(layer).bias is None
    assert model[-1].bias is not None
    assert not any("bn" in name for name in names(models.make(name))) and models.make(name).fc1.bias is not None


def test_convolutions_have_a_bias_only_without_batch_norm():
    assert models.conv_net().conv1.bias is None
    plain = models.conv_net(batch_norm=False)
    assert plain.conv1.bias is not None and "bn1" not in names(plain)


@pytest.mark.parametrize("make, options, argument", [
    (models.lenet_300_100, {"widths": (300,)}, "widths"),
    (models.lenet_300_100, {"widths": (300, 0)}, "widths"),
    (models.lenet_300_100, {"widths": (300, 100, 0)}, "widths"),
    (models.lenet_300_100, {"widths": (300, 10.0)}, "widths"),
    (models.lenet_300_100, {"widths": (300, True)}, "widths"),
    (models.lenet_300_100, {"widths": 300}, "widths"),
    (models.lenet_300_100, {"in_shape": (28, 28)}, "in_shape"),
    (models.lenet_300_100, {"num_classes": 0}, "num_classes"),
    (models.lenet_5, {"widths": (20, 50)}, "widths"),
    (models.lenet_5, {"kernel_size": 0}, "kernel_size"),
    (models.lenet_5, {"in_shape": (1, 15, 28)}, "in_shape"),
    (models.lenet_5, {"num_classes": "10"}, "num_classes"),
    (models.conv_net, {"widths": (32, 64)}, "widths"),
    (models.conv_net, {"in_shape": (3, 32, 7)}, "in_shape"),
    (models.conv_net, {"num_classes": -1}, "num_classes"),
    (models.vgg_16_bn, {"widths": (64,) * 12}, "widths"),
    (models.vgg_16_bn, {"in_shape": (3, 31, 32)}, "in_shape"),
    (models.vgg_16_bn, {"num_classes": 0}, "num_classes"),
    (models.resnet_18, {"widths": (64, 128, 256)}, "widths"),
    (models.resnet_18, {"inner": (8,) * 7}, "inner"),
    (models.resnet_34, {"inner": (8,) * 15 + (0,)}, "inner"),
    (models.resnet_20, {"inner": 8}, "inner"),
    (models.resnet_20, {"in_shape": (3, 0, 32)}, "in_shape"),
    (models.resnet_56, {"num_classes": 1.5}, "num_classes"),
    (models.mobilenet, {"widths": (32,) * 13}, "widths"),
    (models.mobilenet, {"in_shape": 32}, "in_shape"),
])
def test_a_wrong_argument_is_named_with_its_value(make, options, argument):
    with pytest.raises(ValueError) as caught:
        make(**options)
    assert f"{argument}={options[argument]!r}" in str(caught.value)


def test_the_smallest_image_that_lenet_5_takes_is_16_pixels():
    assert models.lenet_5(in_shape=(1, 16, 16))(torch.zeros(1, 1, 16, 16)).shape == (1, 10)


def test_an_unknown_model_is_answered_with_the_nearest():
    assert set(models.known()) == {*CONVOLUTIONS, "lenet_300_100", "lenet_5", "conv_net"}
    assert set(models.__all__) == {*models.known(), "known", "make"}
    with pytest.raises(ValueError, match="name='lenet5' is not a model; did you mean 'lenet_5'"):
        models.make("lenet5")
