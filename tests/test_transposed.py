"""Transposed convolutions: a weight whose axes are the other way round, and kernels that overlap."""

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl

pytestmark = pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")


class UNet(nn.Module):
    """One level: what comes up beside what went down."""

    def __init__(self, **up):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.deep = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(8, 6, 2, stride=2, **up), nn.BatchNorm2d(6)
        self.join, self.out = nn.Conv2d(12, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
        networks.lively(self.norm)

    def forward(self, x):
        left = F.relu(self.down(x))
        right = F.relu(self.norm(self.up(F.relu(self.deep(F.max_pool2d(left, 2))))))
        return self.out(F.relu(self.join(torch.cat([left, right], 1))))


class Decoder(nn.Module):
    """Kernels that overlap, an output padding, no bias, three in a row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
        self.c, self.norm, self.d = nn.ConvTranspose2d(6, 7, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(7), nn.ConvTranspose2d(7, 3, 1)
        networks.lively(self.norm)

    def forward(self, x):
        return self.d(F.leaky_relu(self.norm(self.c(F.relu(self.b(F.relu(self.a(x))))))))


class Residual(nn.Module):
    """A stream that a transposed convolution writes, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.t, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.ConvTranspose2d(6, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        h = F.relu(self.a(x))
        return self.c(F.relu(h + self.t(h)))


class Gated(Residual):
    """A product with what a transposed convolution writes, which goes along without a factor of its own."""

    def forward(self, x):
        h = F.relu(self.a(x))
        return self.c(h * self.t(h).sigmoid())


def images(n, side=8, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("face", ["incoming", "outgoing"])
@pytest.mark.parametrize("make, sites", [(UNet, ["down", "deep", "up", "join"]), (Decoder, ["a", "b", "c"]), (Residual, ["a"]), (Gated, ["a"])])
def test_its_neurons_are_switched_counted_and_removed(make, sites, face):
    model, x = make().double(), images(8)
    net = sl.Switched(model, x, switcher="free", tied=True, face=face).eval()
    assert [site.path for site in net.sites] == sites
    for seed in range(4):
        net.hold({key: s.double() for key, s in networks.factors(net.sites, seed, off=0.4).items()})
        small = sl.compact(net, x)
        assert small.certificate.relative_error < 1e-12
        for other in (images(3, seed=1), 100 * images(1, seed=2), images(2, side=12, seed=3)):
            torch.testing.assert_close(small.model(other), net(other), rtol=1e-9, atol=1e-9)
        assert small.parameters[1] == net.structure().parameters[1] == sl.metrics.count_parameters(small.model)
        assert sl.metrics.count_macs(small.model, x) == net.structure().macs[1]
        for path, module in small.model.named_modules():
            if isinstance(module, nn.ConvTranspose2d):
                assert module.weight.shape[:2] == (module.in_channels, module.out_channels) and module.out_channels == small.widths[path][1]


def test_a_step_of_both_kinds():
    net, x, y = sl.Switched(UNet(), images(4).float()), images(4).float(), torch.randint(2, (4, 8, 8))
    sl.task_step(net, x, y, torch.optim.SGD(net.model.parameters(), lr=0.1))
    before = net.factors()["up"].detach().clone()
    sl.switcher_step(net, x, y, torch.optim.Adam(net.switcher.parameters(), lr=0.01), cost=0.1)
    assert not torch.equal(net.factors()["up"], before)


def test_it_multiplies_at_every_place_that_it_reads():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 3, stride=2))
    assert sl.metrics.count_macs(model, torch.zeros(1, 3, 5, 7)) == 5 * 7 * (3 * 4 + 4 * 6 * 9)


def test_what_it_makes_of_zeros_is_its_bias_and_of_other_constants_unknown():
    model = Decoder().double()
    with torch.no_grad():
        for layer, j, bias in (("a", 2, 0.7), ("a", 5, -1.0), ("b", 1, 0.4), ("b", 3, -0.3)):
            conv = model.get_submodule(layer)
            conv.weight.select(1 if layer == "b" else 0, j).zero_()
            conv.bias[j] = bias
    small = sl.compact(model, images(4))
    told = [small.reasons[layer][j] for layer, j in (("a", 2), ("a", 5), ("b", 1), ("b", 3))]
    assert ["overlap" in words for words in told] == [True, False, True, False]
    assert told[1] == told[3] == "off: constant 0" and small.widths["a"] == (8, 7) and small.widths["b"] == (6, 5)


def test_constants_that_overlap_are_no_constant():
    model = Decoder().double().eval()
    nn.init.zeros_(model.a.weight)
    nn.init.constant_(model.a.bias, 0.7)
    small = sl.compact(model, images(4))
    assert small.widths["b"] == (6, 6)
    torch.testing.assert_close(small.model(images(2, side=12)), model(images(2, side=12)))


def test_a_batchnorm_is_folded_into_it():
    model = UNet().double().eval()
    folded = sl.fold_batchnorm(model, images(4))
    assert isinstance(folded.norm, nn.Identity)
    torch.testing.assert_close(folded(images(2, seed=1)), model(images(2, seed=1)))


@pytest.mark.parametrize("model, words", [
    (UNet(groups=2), "up is a transposed convolution with groups"),
    (type("Told", (UNet,), {"forward": lambda self, x: self.out(F.relu(self.join(torch.cat(
        [F.relu(self.down(x)), self.up(self.deep(F.max_pool2d(self.down(x), 2)), [8, 8])], 1))))})(), "is told its output's size"),
])
def test_what_is_not_followed_is_refused_in_words(model, words):
    net = sl.Switched(model, images(2).float(), switcher="free")
    assert words in net.refused["up"] and words in net.refused["deep"]
    net.hold({key: s for key, s in networks.factors(net.sites, 0, off=0.4).items()})
    assert sl.compact(net.eval(), images(2).float()).certificate.holds
