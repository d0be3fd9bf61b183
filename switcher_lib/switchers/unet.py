"""The switcher of the papers, as far as it is known: a U-Net that sees a layer's weights as an image."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections, Site
from switcher_lib.switchers.base import Switcher


class UNetSwitcher(Switcher):
    """Factors from the weight matrix read as a one-channel image, by one U-Net for each site.

    For connections, the output is an image of the weight's own shape; for neurons, a last convolution collapses each row
    to one number. The image has a row for each neuron and a column for each of its weights. Convolutions see neighbours, so the
    factors depend on the order of the neurons, which means nothing: a property to be put to the test.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    channels : sequence of int, default (8, 16, 32, 64, 128)
        Channels at each level, going down; a max-pooling between two levels.
    reads : {"incoming", "outgoing"}, optional
        Which weights make a neuron's row; None reads the outgoing ones. Features have outgoing weights only; connections
        are the image themselves and take no such choice.
    gate : str or callable, default "relu_bn"
        Maps scores to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        How the cost term counts; see :class:`Switcher`.

    References
    ----------
    Han et al. 2021, arXiv:2110.05954 (neurons) and arXiv:2103.15590 (connections); Ronneberger et al. 2015, arXiv:1505.04597. Known of the original: one U-Net for
    each layer, the weight matrix as a one-channel image, 3×3 convolutions with BatchNorm and ReLU, 8, 16, 32, …
    channels, a last convolution as long as the fan-out that leaves one number for each neuron, ReLU(BatchNorm) as
    gate. Not known, and chosen here: two convolutions a level, transposed convolutions going up, the depth.
    """

    def __init__(self, sites: Sequence[Site | Connections], channels: Sequence[int] = (8, 16, 32, 64, 128),
                 reads: Literal["incoming", "outgoing"] | None = None, gate: GateLike = "relu_bn",
                 saturation: float | None = None) -> None:
        super().__init__(sites, gate, saturation)
        if len(channels) < 1 or any(not isinstance(c, int) or c < 1 for c in channels):
            raise ValueError(f"channels={channels!r} must be positive integers, at least one.")
        if reads not in (None, "incoming", "outgoing"):
            raise ValueError(f"reads={reads!r} is not a weight image. Known: incoming, outgoing.")
        if reads is not None and any(site.kind == "connection" for site in self.sites):
            raise ValueError(f"reads={reads!r} must be None for connections: their image is the weight itself.")
        self.reads = reads or "outgoing"
        self.unets = nn.ModuleDict({site.key: _UNet(channels) for site in self.sites})
        self.collapse = nn.ModuleDict({site.key: nn.Conv2d(channels[0], 1, (1, self._collapsed(site))) for site in self.sites})

    def _axis(self, site):
        """The weight whose matrix is a neuron site's image: the neurons' own, or their first reader's."""
        return site.own[0] if site.own and self.reads == "incoming" else site.outgoing[0]

    def _collapsed(self, site):
        """How many columns the last convolution reads: all of them for neurons, one for connections."""
        return 1 if site.kind == "connection" else self._axis(site).width

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores of the site's shape}."""
        scores = {}
        for site in self.sites:
            image = site.matrix(params) if site.kind == "connection" else self._axis(site).read(params)    # (n, d)
            scores[site.key] = self.collapse[site.key](self.unets[site.key](image[None, None])).reshape(site.shape)
        return scores


class _UNet(nn.Module):
    """(1, 1, n, d) -> (1, channels[0], n, d): down with max-pooling, up with skips; any n and d, padded inside."""

    def __init__(self, channels):
        super().__init__()
        self.down = nn.ModuleList(_two_convolutions(i, o) for i, o in zip((1, *channels), channels))
        pairs = list(zip(channels[1:], channels))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.merge = nn.ModuleList(_two_convolutions(2 * shallow, shallow) for _, shallow in pairs)

    def forward(self, image):
        n, d = image.shape[-2:]
        unit = 2 ** (len(self.down) - 1)
        wide, high = -d % unit, -n % unit
        if n + high == d + wide == unit:    # BatchNorm needs more than one number a channel at the bottom
            high += unit
        x = F.pad(image, (0, wide, 0, high))
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return x[..., :n, :d]


def _two_convolutions(channels_in, channels_out):
    layers = []
    for c in (channels_in, channels_out):
        layers += [nn.Conv2d(c, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers)
