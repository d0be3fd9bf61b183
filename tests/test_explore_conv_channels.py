"""The channels' explorer: it computes the model's own outputs, and a removed channel is one that compaction removes."""

from functools import partial

import numpy as np
import pytest
import torch
from explorers import MAKERS, a_conv_net, three_pictures
from torch import nn

import switcher_lib as sl
from switcher_lib.explore import ConvChannels

MEAN, STD, CLASSES = [0.5, 0.4, 0.45], [0.25, 0.3, 0.2], ["cat", "dog", "frog", "ship"]


def make(model=None, images=None, labels=(2, 0, 3), factors=None, classes=CLASSES, mean=MEAN):
    return ConvChannels(a_conv_net() if model is None else model, three_pictures() if images is None else images, labels, classes, mean, STD, factors)


def inputs():
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (torch.from_numpy(three_pictures()) / 255 - mean) / std


def not_finite():
    net = sl.fold_batchnorm(a_conv_net())
    net.conv2.weight.data[0, 0, 0, 0] = float("nan")
    return net


def test_probabilities_are_the_model_s_but_for_a_byte_s_rounding():
    explorer = make()
    with torch.no_grad():
        expected = a_conv_net()(inputs()).softmax(1)
    assert explorer.probabilities().argmax(1).tolist() == expected.argmax(1).tolist()
    assert (explorer.probabilities() - expected).abs().max() < 0.03


def test_removed_channels_are_what_compaction_removes():
    factors = [np.arange(n) % 3 / 2 for n in (4, 6, 8)]    # 0, 0.5 or 1
    explorer = make(factors=factors)
    explorer.order, explorer.kept = "the switcher's", tuple(int((f > 0).sum()) for f in factors)
    net = sl.Switched(a_conv_net(), inputs(), switcher=partial(sl.FixedSwitcher, factors={
        f"conv{i + 1}": torch.tensor(f > 0).float() for i, f in enumerate(factors)}))
    small = sl.compact(net, inputs()).model.eval()
    with torch.no_grad():
        assert (explorer.probabilities() - small(inputs()).softmax(1)).abs().max() < 0.03
    parameters, macs = map(sum, zip(*explorer.costs()))
    assert parameters == sl.metrics.count_parameters(small) - sum(explorer.kept)    # γ and β are one bias when folded
    assert macs == sl.metrics.count_macs(small, inputs()[:1])


def test_orders_are_by_length_and_by_factor():
    explorer = make(factors=[np.linspace(0, 1, n) for n in (4, 6, 8)])
    norms = sl.fold_batchnorm(a_conv_net()).conv1.weight.detach().flatten(1).norm(dim=1)
    assert explorer.orders["the largest"][0] == norms.argsort(descending=True).tolist() == explorer.orders["the smallest"][0][::-1]
    assert explorer.orders["the switcher's"][2] == list(range(8))[::-1]


def test_standardised_images_are_the_same_as_their_bytes():
    assert make(images=inputs()).pixels == make().pixels


def test_the_largest_network_of_the_book_fits_and_is_the_same_twice():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    one, two = (ConvChannels(sl.models.conv_net(), images, range(8), list("abcdefghij"), MEAN, STD).html() for _ in range(2))
    assert one != two and len(one.encode()) < ConvChannels.max_bytes    # other weights
    assert make().html() == make().html()


@pytest.mark.parametrize("wrong, message", [
    (lambda: make(sl.models.lenet_300_100()), "model is Flatten, Linear, ReLU"),
    (lambda: make("conv_net"), "model has to be an nn.Module"),
    (lambda: make(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 4))), "not a 3×3 conv"),
    (lambda: make(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 4))), "does not halve"),
    (lambda: make(images=three_pictures().astype(float)), r"leaves \[0, 1\]; give uint8 images"),
    (lambda: make(images=three_pictures()[:, :1]), r"shape \(3, 1, 16, 16\); allowed: \(N, 3, H, W\)"),
    (lambda: make(images=three_pictures(13)), "N from 1 to 12"),
    (lambda: make(images=three_pictures(side=24)), "24×24 pixels do not fit"),
    (lambda: make(images=three_pictures(side=12)), "12×12 pixels do not fit"),
    (lambda: make(labels=(1, 2)), "3 images, 2 labels and 4 names"),
    (lambda: make(labels=(1, 2, 4)), "3 images, 3 labels and 4 names"),
    (lambda: make(not_finite()), "a weight of layer 2 is not finite"),
    (lambda: make(mean=[0.5]), "need a number for each of 3 channels"),
    (lambda: make(factors=[[1, 2]]), r"factors have lengths \[2\]; the convolutions have \[4, 6, 8\]"),
    (lambda: setattr(make(), "kept", (4, 7, 8)), "must be 3 integers, from 1 to 4, 6, 8"),
    (lambda: setattr(make(), "kept", (4, 6)), "must be 3 integers"),
    (lambda: setattr(make(), "image", 3), "image=3 has to lie between 0 and 2"),
    (lambda: setattr(make(), "order", "the switcher's"), "order=.the switcher's. is not"),
])
def test_it_says_what_is_wrong(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        wrong()


def test_its_example_keeps_fewer_channels():
    assert MAKERS["ConvChannels"]().shown()["macs"] < make().shown()["macs"]
