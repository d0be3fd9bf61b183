"""What every switcher is: a module from the task network's parameters to factors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from switcher_lib import gates
from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections, Site

if TYPE_CHECKING:
    from switcher_lib.switched import Switched

Reads = Literal["incoming", "outgoing", "both"]


class Switcher(nn.Module):
    """From the parameters θ to one factor for each neuron, or each connection: s = s_ψ(θ).

    A subclass writes :meth:`scores`, or :meth:`forward` where it has no gate; every other hook has a default.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        Where the task network is switched.
    gate : str or callable, default "clamp"
        Maps scores in (-inf, inf) to factors; see :mod:`switcher_lib.gates`.
    saturation : float, optional
        Above 0. How the cost term counts a neuron with factor s; see :meth:`p_on`.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the sites are of a level that this switcher cannot read.
    """

    levels: tuple[str, ...] = ("neuron", "connection")    # what it can switch
    sites: tuple[Any, ...]    # of Site or of Connections; a subclass for one of them may say which
    end: float = 0.0    # progress of training at which after_step() has changed the structure for the last time

    def __init__(self, sites: Sequence[Site | Connections], gate: GateLike = "clamp", saturation: float | None = None) -> None:
        super().__init__()
        level = "connection" if any(site.kind == "connection" for site in sites) else "neuron"
        if level not in self.levels:
            raise ValueError(f"switcher={type(self).__name__} cannot be used at level={level!r}: it reads "
                             f"{' and '.join(f'{one}s' for one in self.levels)} only.")
        if saturation is not None and not saturation > 0:
            raise ValueError(f"saturation={saturation!r} must be None or above 0.")
        self.saturation = saturation
        self.sites = tuple(sites)
        self.gates = nn.ModuleDict({site.key: gates.make(gate) for site in self.sites})

    def scores(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: scores of the site's shape} for the parameters {name: tensor}."""
        raise NotImplementedError(f"{type(self).__name__} must write scores() or forward().")

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors of the site's shape} for the parameters {name: tensor}."""
        return {key: self.gates[key](a) for key, a in self.scores(params).items()}

    def p_on(self, factors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: how far each neuron counts as on, in [0, 1]}, for the cost term.

        By min(s, 1), shrinking all factors pays, although the task network can undo it by growing its weights and
        nothing is switched off. With ``saturation`` τ a neuron counts 1 unless its factor is 0, so that the cost is what
        compaction leaves; its gradient is that of (1 + τ²) s² / (s² + τ²), a curve from 0 to 1 that is steep only where
        s is near τ or below (straight-through; ours).

        Parameters
        ----------
        factors : dict of str to Tensor
            {site.key: (n,)}.
        """
        if self.saturation is None:
            if all(isinstance(gate, gates.Step) for gate in self.gates.values()):
                return factors    # 0 and 1 count as they are, and the cost's gradient goes straight through, too
            # not clamp(max=1), whose gradient at exactly 1 differs between versions of PyTorch: here it is 0, so that a
            # factor that has reached its bound is the loss's alone
            return {key: torch.where(s < 1, s, 1.0) for key, s in factors.items()}
        tau = self.saturation**2
        curves = {key: (1 + tau) * s.square() / (s.square() + tau) for key, s in factors.items()}
        return {key: curve + ((factors[key] != 0).to(curve.dtype) - curve).detach() for key, curve in curves.items()}

    def penalty(self, params: dict[str, Tensor]) -> Tensor | float:
        """Return what the switcher adds to the task network's loss; 0 by default."""
        return 0.0

    def after_step(self, net: "Switched", t: float) -> None:
        """Do what a schedule asks for after a task step of ``net``, at progress ``t`` in (0, 1]; nothing by default."""

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn, so that switcher steps make sense."""
        return any(p.requires_grad for p in self.parameters())


def weight_blocks(site: Site, params: Mapping[str, Tensor], reads: Reads) -> Tensor:
    """Return what a switcher sees of a site's neurons, each block divided by its standard deviation.

    One division for a whole layer's block, so that a neuron whose weights are small still looks small.

    Parameters
    ----------
    site : Site
        The neurons.
    params : dict of str to Tensor
        The task network's parameters.
    reads : {"incoming", "outgoing", "both"}
        Which weights: the neurons' own rows and biases, their readers' columns, or both, columns first. Features
        have no rows: their columns are read whatever is asked.

    Returns
    -------
    Tensor of shape (n, d)
        d depends on the site and on ``reads``.
    """
    return torch.cat([piece / scale for pieces, scale in _blocks(site, params, reads) for piece in pieces], dim=1)


def read_linear(linear: nn.Linear, site: Site, params: Mapping[str, Tensor], reads: Reads, scale: float = 1.0) -> Tensor:
    """Return ``linear(scale * weight_blocks(site, params, reads))`` without building the blocks.

    A layer's weights are many and the linear layer is narrow: multiplying first and dividing afterwards spares two
    copies of the weights in every step.

    Parameters
    ----------
    linear : nn.Linear
        From d to m.
    site, params, reads
        As for :func:`weight_blocks`.
    scale : float, default 1.0
        Multiplies what is read.

    Returns
    -------
    Tensor of shape (n, m)
        The linear layer's outputs for the site's n neurons.
    """
    out, column = linear.bias, 0
    for pieces, std in _blocks(site, params, reads):
        for piece in pieces:
            part = linear.weight[:, column:column + piece.shape[1]]
            out = out + piece @ part.T / (std / scale)
            column += piece.shape[1]
    return out


def _blocks(site, params, reads):
    """Return [(pieces, standard deviation)]: the axes that make up each block, (n, d_i) each, and their joint std."""
    faces = {"incoming": [site.own], "outgoing": [site.outgoing], "both": [site.outgoing, site.own]}[reads]
    blocks = [[axis.read(params) for axis in axes] for axes in (faces if site.own else [site.outgoing])]
    return [(pieces, _std(pieces)) for pieces in blocks]


def _std(pieces):
    count = sum(piece.numel() for piece in pieces)
    mean = sum(piece.sum() for piece in pieces) / count
    square = sum(torch.linalg.vector_norm(piece).square() for piece in pieces) / count
    return (square - mean.square()).clamp(min=0).sqrt() + 1e-8
