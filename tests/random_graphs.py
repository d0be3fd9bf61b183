"""Convolutional networks with a random graph: layers, sums, products, slices and views in an order that nobody would choose."""

import random

import torch
from torch import nn
from torch.nn import functional as F

IMAGE = (2, 6, 6)
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Hardswish, nn.PReLU, nn.GELU, nn.Sigmoid, nn.Softplus, lambda: nn.LeakyReLU(0.1),
               lambda: nn.ReLU(inplace=True), lambda: nn.Dropout2d(0.2))
POOLS = (lambda: nn.MaxPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False))

# of one activation h, or of two of one shape: what a line of a forward() may do; each keeps the image's size
ONE = {
    "half": lambda h: h * 0.5,
    "one minus": lambda h: 1 - h,
    "a third": lambda h: h / 3,
    "negative": lambda h: -h,
    "square": lambda h: h * h,
    "both signs": lambda h: F.relu(torch.cat([h, -h], 1)),
    "in place": lambda h: h.clone().relu_(),
    "in place, by a number": lambda h: h.clone().mul_(0.7),
    "channels last and back": lambda h: h.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "flat and back": lambda h: h.flatten(2).unflatten(2, (h.shape[2], h.shape[3])),
    "viewed": lambda h: h.view(h.size(0), -1, h.size(2) * h.size(3)).view(h.shape),
    "without its mean": lambda h: h - h.mean((2, 3), keepdim=True),
    "with the channels' mean": lambda h: h + h.mean(1, keepdim=True),
    "by its width": lambda h: h / h.size(1),
    "by the image's size": lambda h: h * h.size(2) / 8,
    "a part": lambda h: h[:, 1:],
}
HALVES = {
    "gated": lambda a, b: a * b.sigmoid(),
    "summed": lambda a, b: a + b,
    "swapped": lambda a, b: torch.cat([b, a], 1),
}


def halves(h):
    a, b = h.chunk(2, 1)    # torch.fx wants to see them unpacked
    return a, b


TWO = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "sum in place": lambda a, b: a.clone().add_(b),
    "both orders": lambda a, b: torch.cat([a, b], 1) + torch.cat([b, a], 1),
}


class RandomGraph(nn.Module):
    """A network whose graph is drawn.

    Parameters
    ----------
    seed : int
        Of the graph and of the weights.
    steps : int
        How many, besides the first convolution and the heads.
    """

    def __init__(self, seed, steps):
        super().__init__()
        torch.manual_seed(seed)
        self.draw = draw = random.Random(seed)
        self.layers, self.scales = nn.ModuleList(), nn.ParameterList()
        self.program = []                      # (function of the layers, registers that it reads)
        self.channels = [IMAGE[0]]             # of each register; 0 is the input
        self._layer(self._conv(IMAGE[0], 6), 0, 6)
        for _ in range(steps):
            self._step(draw.choice(range(max(1, len(self.channels) - 4), len(self.channels))))
        read = {at for _, inputs in self.program for at in inputs}
        self.ends = [at for at in range(1, len(self.channels)) if at not in read]
        self.heads = nn.ModuleList(nn.Conv2d(self.channels[at], 5, 1) for at in self.ends)
        self.out = nn.Linear(5, 3)
        del self.draw                          # torch.fx and deepcopy have no use for it

    def _conv(self, n_in, n_out):
        kernel = self.draw.choice((1, 3))
        return nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=self.draw.random() < 0.7,
                         padding_mode=self.draw.choice(("zeros", "zeros", "circular")))

    def _write(self, function, inputs, channels):
        self.program.append((function, inputs))
        self.channels.append(channels)

    def _keep(self, layer):
        self.layers.append(layer)
        return len(self.layers) - 1

    def _layer(self, layer, at, channels):
        i = self._keep(layer)
        self._write(lambda net, h: net.layers[i](h), (at,), channels)

    def _step(self, at):
        draw, n = self.draw, self.channels[at]
        alike = [other for other in range(1, len(self.channels)) if self.channels[other] == n]
        kind = draw.choice(("conv", "conv", "conv", "norm", "act", "act", "pool", "grouped", "two", "two", "one", "one", "halves", "cat",
                            "scale", "gate", "linear", "again"))
        if kind == "conv":
            wide = draw.choice((4, 6, 8))
            self._layer(self._conv(n, wide), at, wide)
        elif kind == "norm":
            norm = nn.BatchNorm2d(n, affine=draw.random() < 0.9)
            for t in (norm.running_mean, *norm.parameters()):
                nn.init.normal_(t, 0.5)
            self._layer(norm, at, n)
        elif kind == "act":
            self._layer(draw.choice(ACTIVATIONS)(), at, n)
        elif kind == "pool":
            self._layer(draw.choice(POOLS)(), at, n)
        elif kind == "grouped":
            groups = draw.choice([g for g in (2, 3, n) if n % g == 0])
            wide = n * draw.choice((1, 2))
            self._layer(nn.Conv2d(n, wide, 3, padding=1, groups=groups), at, wide)
        elif kind == "two":
            function = TWO[name := draw.choice(sorted(TWO))]
            self._write(lambda net, a, b: function(a, b), (at, draw.choice(alike)), 2 * n if name == "both orders" else n)
        elif kind == "one":
            function = ONE[name := draw.choice(sorted(ONE))]
            self._write(lambda net, h: function(h), (at,), {"both signs": 2 * n, "a part": n - 1}.get(name, n))
        elif kind == "halves" and n % 2 == 0:
            function = HALVES[name := draw.choice(sorted(HALVES))]
            self._write(lambda net, h: function(*halves(h)), (at,), n if name == "swapped" else n // 2)
        elif kind == "cat":
            other = draw.choice(range(1, len(self.channels)))
            self._write(lambda net, a, b: torch.cat([a, b], 1), (at, other), n + self.channels[other])
        elif kind == "scale":
            self.scales.append(nn.Parameter(torch.rand(n, 1, 1) + 0.5))
            i = len(self.scales) - 1
            self._write(lambda net, h: h * net.scales[i], (at,), n)
        elif kind == "gate":
            i = self._keep(nn.Conv2d(n, n, 1))
            self._write(lambda net, h: h * torch.sigmoid(net.layers[i](h.mean((2, 3), keepdim=True))), (at,), n)
        elif kind == "linear":
            i = self._keep(nn.Linear(n, 6))
            self._write(lambda net, h: net.layers[i](h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), (at,), 6)
        elif kind == "again" and (made := [(f, where) for f, where in self.program if len(where) == 1 and self.channels[where[0]] == n]):
            function, where = draw.choice(made)    # a layer that runs once more, on something else
            self._write(function, (at,), self.channels[1 + self.program.index((function, where))])

    def forward(self, x):
        registers = [x]
        for function, inputs in self.program:
            registers.append(function(self, *(registers[at] for at in inputs)))
        total = sum(head(registers[at]) for head, at in zip(self.heads, self.ends))
        return self.out(F.relu(total).mean((2, 3)))


def with_zeros(net, seed, share=0.25):
    """Set a share of the rows, and of the biases, of all layers to 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight[torch.rand(len(layer.weight), generator=generator) < share] = 0
                if layer.bias is not None:
                    layer.bias[torch.rand(len(layer.bias), generator=generator) < share] = 0
    return net
