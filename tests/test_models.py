"""The task networks: their layers, their sizes, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn

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
])
def test_a_wrong_argument_is_named_with_its_value(make, options, argument):
    with pytest.raises(ValueError) as caught:
        make(**options)
    assert f"{argument}={options[argument]!r}" in str(caught.value)


def test_the_smallest_image_that_lenet_5_takes_is_16_pixels():
    assert models.lenet_5(in_shape=(1, 16, 16))(torch.zeros(1, 1, 16, 16)).shape == (1, 10)


def test_an_unknown_model_is_answered_with_the_nearest():
    assert set(models.known()) == {"lenet_300_100", "lenet_5", "conv_net"}
    with pytest.raises(ValueError, match="name='lenet5' is not a model; did you mean 'lenet_5'"):
        models.make("lenet5")
