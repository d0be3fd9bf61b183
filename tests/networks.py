"""Small networks and factors for the tests of switching."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl


def mlp(widths=(6, 5, 4, 3), act=nn.ReLU, bias=True, seed=0):
    """A chain of Linear layers named fc1, fc2, ... with an activation after all but the last."""
    torch.manual_seed(seed)
    net = nn.Sequential()
    for i, (n_in, n_out) in enumerate(zip(widths, widths[1:]), start=1):
        net.add_module(f"fc{i}", nn.Linear(n_in, n_out, bias=bias or i == len(widths) - 1))
        if i < len(widths) - 1:
            net.add_module(f"act{i}", act())
    return net


def conv(channels=(2, 5, 4), act=nn.ReLU, pool=partial(nn.MaxPool2d, 2), norm=False, padding=0, side=12, seed=0,
         padding_mode="zeros", classes=3):
    """Two convolutions, each with an optional BatchNorm, an activation and a pool; one Linear layer, ``fc``."""
    torch.manual_seed(seed)
    net = nn.Sequential()
    for i, (n_in, n_out) in enumerate(zip(channels, channels[1:]), start=1):
        net.add_module(f"conv{i}", nn.Conv2d(n_in, n_out, 3, padding=padding, padding_mode=padding_mode, bias=not norm))
        if norm:
            net.add_module(f"bn{i}", lively(nn.BatchNorm2d(n_out)))
        net.add_module(f"act{i}", act())
        if pool is not None:
            net.add_module(f"pool{i}", pool())
    net.add_module("flatten", nn.Flatten())
    features = net.eval()(torch.zeros(1, channels[0], side, side)).shape[1]
    net.add_module("fc", nn.Linear(features, classes))
    return net.train()


def lively(norm):
    """A BatchNorm whose parameters and statistics are what they are after some training: not 0 and 1."""
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


class Residual(nn.Module):
    """``stem`` and ``out2`` write the same stream; ``inner`` is free."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.out2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.out2(F.relu(self.inner(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Reused(nn.Module):
    """``b`` runs twice, on what ``a`` writes and on what it writes itself; ``free`` stands alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.free, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.b(F.relu(self.b(F.relu(self.a(x))))))
        return self.out(F.relu(self.free(x)))


class Shared(nn.Module):
    """``a`` and ``c`` are two layers with one weight; ``free`` stands alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(6, 5)
        self.free, self.out = nn.Linear(5, 4), nn.Linear(4, 3)
        self.c.weight = self.a.weight

    def forward(self, x):
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.out(F.relu(self.free(x)))


class Cat(nn.Module):
    """Two branches side by side: their readers' columns follow one another."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.join, self.out = nn.Conv2d(7, 5, 3), nn.Linear(5 * 100, 3)

    def forward(self, x):
        x = torch.cat([F.relu(self.right(x)), F.relu(self.left(x))], dim=1)
        return self.out(torch.flatten(F.relu(self.join(x)), 1))


class View(nn.Module):
    """Goes from channels to features by a function: by default a view that follows its input."""

    def __init__(self, reshape=lambda x: x.view(x.size(0), -1), features=4 * 64):
        super().__init__()
        self.conv1, self.conv2, self.out = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 3), nn.Linear(features, 3)
        self.reshape = reshape

    def forward(self, x):
        return self.out(self.reshape(F.relu(self.conv2(F.relu(self.conv1(x))))))


class Bottleneck(nn.Module):
    """A residual stream with BatchNorm: ``stem``, ``short`` and ``outer`` write it, ``inner`` is free."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(2, 4, 3, padding=1, bias=False), lively(nn.BatchNorm2d(4))
        self.inner, self.bn1 = nn.Conv2d(4, 5, 3, padding=1, bias=False), lively(nn.BatchNorm2d(5))
        self.outer, self.bn2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), lively(nn.BatchNorm2d(6))
        self.short, self.bn3 = nn.Conv2d(4, 6, 1, bias=False), lively(nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.bn0(self.stem(x)))
        out = self.bn2(self.outer(F.relu(self.bn1(self.inner(x)))))
        out += self.bn3(self.short(x))
        return self.head(F.relu(out).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet's block: ``expand`` is read by a depthwise convolution, which hands its channels on to ``project``."""

    def __init__(self, norm=True, times=1):
        super().__init__()
        self.expand, self.depth = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6 * times, 3, padding=1, groups=6)
        self.bn1, self.bn2 = (lively(nn.BatchNorm2d(c)) if norm else nn.Identity() for c in (6, 6 * times))
        self.project, self.head = nn.Conv2d(6 * times, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu6(self.bn1(self.expand(x)))
        x = F.relu6(self.bn2(self.depth(x)))
        return self.head(F.adaptive_avg_pool2d(self.project(x), 1).flatten(1))


class Grouped(nn.Module):
    """``g`` reads and writes 3 groups of channels: 2 of ``a``'s and 4 of its own in each."""

    def __init__(self):
        super().__init__()
        self.a, self.g, self.b, self.out = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 12, 3, groups=3), nn.Conv2d(12, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(F.relu(self.b(F.relu(self.g(F.relu(self.a(x)))))).mean((2, 3)))


class Excited(nn.Module):
    """Squeeze-and-excitation: ``up`` writes a factor for each of ``conv``'s channels."""

    def __init__(self, gate=F.sigmoid):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 6, 3, bias=False), lively(nn.BatchNorm2d(6))
        self.down, self.up, self.out, self.head = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1), nn.Linear(4, 3)
        self.gate = gate

    def forward(self, x):
        x = F.silu(self.bn(self.conv(x)))
        s = self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(F.relu(self.out(s * x)).mean((2, 3)))


class Dense(nn.Module):
    """DenseNet's block: what ``stem`` and ``one`` write is read behind several BatchNorms, side by side."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(7, 3, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = (lively(nn.BatchNorm2d(c)) for c in (4, 7, 10))
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in ((self.bn1, self.one), (self.bn2, self.two)):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(F.relu(self.bn3(torch.cat(features, 1))).mean((2, 3)))


class Twice(nn.Module):
    """``a`` is read by itself and behind a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b, self.out = nn.Linear(6, 5), lively(nn.BatchNorm1d(5)), nn.Linear(5, 4), nn.Linear(4, 2)
        self.c = nn.Linear(5, 4)

    def forward(self, x):
        a = self.a(x)
        return self.out(torch.relu(self.b(a) + self.c(self.bn(a))))


class Halves(nn.Module):
    """``a`` is divided into two halves: multiplied with each other, or read one by one."""

    def __init__(self, join=lambda one, other: one * other.tanh(), width=4, divide=lambda x: x.chunk(2, dim=1)):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(width, 5), nn.Linear(5, 3)
        self.join, self.divide = join, divide

    def forward(self, x):
        one, other = self.divide(self.a(x).relu())
        return self.out(F.relu(self.b(self.join(one, other))))


class Scaled(nn.Module):
    """A scale for each channel behind ``a``, as layer scale has it, then ``other``, whatever that is."""

    def __init__(self, other=lambda x: x, shape=(5, 1, 1)):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 1), nn.Linear(4, 3)
        self.scale, self.other = nn.Parameter(torch.rand(shape) + 0.5), other

    def forward(self, x):
        x = F.gelu(self.a(x)) * self.scale
        return self.out(F.relu(self.b(self.other(x))).mean((2, 3)))


class Attended(nn.Module):
    """All channels of ``a`` are multiplied by the one channel of ``map``."""

    def __init__(self):
        super().__init__()
        self.a, self.map, self.b, self.out = nn.Conv2d(2, 5, 1), nn.Conv2d(2, 1, 1), nn.Conv2d(5, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(F.relu(self.b(F.relu(self.a(x)) * self.map(x).sigmoid())).mean((2, 3)))


class Product(nn.Module):
    """``a`` and ``b`` are multiplied with each other, and each is read by itself, too."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)
        self.read_a, self.read_b, self.read_both, self.out = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(12, 3)

    def forward(self, x):
        a, b = F.relu(self.a(x)), F.relu(self.b(x))
        return self.out(torch.cat([self.read_a(a), self.read_b(b), self.read_both(a * b)], 1).relu())


class ByName(nn.Module):
    """The weight of ``a`` is also read by its name, as a decoder's is."""

    def __init__(self, read=lambda weight: weight):
        super().__init__()
        self.read = read
        self.a, self.b, self.free, self.out = nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.b(F.relu(self.a(x))).relu()
        return self.out(F.relu(self.free(F.linear(x, self.read(self.a.weight)))))


def built(make, seed=0):
    """Make a network from a seed."""
    torch.manual_seed(seed)
    return make()


def inputs(net, batch=4, side=12, seed=1):
    """Random inputs in the shape that the network takes."""
    generator = torch.Generator().manual_seed(seed)
    first = next(m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    if isinstance(first, nn.Linear):
        return torch.randn(batch, first.in_features, generator=generator)
    return torch.randn(batch, first.in_channels, side, side, generator=generator)


def images(batch=4, shape=(1, 28, 28), seed=1):
    """Random images."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def factors(sites, seed=0, off=0.4):
    """Random factors in [0.25, 2], a fraction of them exactly 0, at least one neuron (connection) of each site on."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for site in sites:
        s = 0.25 + 1.75 * torch.rand(site.size, generator=generator)
        dead = torch.rand(site.size, generator=generator) < off
        dead[torch.randint(site.size, (1,), generator=generator)] = False
        drawn[site.key] = torch.where(dead, 0.0, s).reshape(site.shape)
    return drawn


def held(net, example, seed=0, off=0.4, **options):
    """A switched network, in eval mode, with such factors."""
    switched = sl.Switched(net, example, **options).eval()
    switched.hold(factors(switched.sites, seed, off))
    return switched


def state(module):
    """A copy of all parameters and buffers, to see later whether any has moved."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: t.detach().clone() for name, t in tensors.items()}


def same(one, other):
    """Whether two such copies are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def split(n=40, shape=(6,), classes=3, seed=0):
    """A Split of random inputs whose labels depend on them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator)
    y = (x.flatten(1) @ torch.randn(x[0].numel(), classes, generator=generator)).argmax(1)
    return sl.data.Split(x, y)
