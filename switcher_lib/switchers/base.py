"""What every switcher is: a module from the task network's parameters to factors."""

import torch
from torch import nn

from switcher_lib import gates


class Switcher(nn.Module):
    """From the parameters θ to one factor for each neuron: s = s_ψ(θ).

    A subclass writes :meth:`scores`, or :meth:`forward` where it has no gate; every other hook has a default.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    gate : str or callable, default "clamp"
        Maps scores in (-inf, inf) to factors; see :mod:`switcher_lib.gates`.
    """

    def __init__(self, sites, gate="clamp"):
        super().__init__()
        self.sites = tuple(sites)
        self.gates = nn.ModuleDict({site.key: gates.make(gate) for site in self.sites})

    def scores(self, params):
        """Return {site.key: scores (n,)} for the parameters {name: tensor}."""
        raise NotImplementedError(f"{type(self).__name__} must write scores() or forward().")

    def forward(self, params):
        """Return {site.key: factors (n,)} for the parameters {name: tensor}."""
        return {key: self.gates[key](a) for key, a in self.scores(params).items()}

    def p_on(self, factors):
        """Return {site.key: how far each neuron counts as on, in [0, 1]}, for the cost term."""
        return {key: s.clamp(max=1) for key, s in factors.items()}

    def penalty(self, params):
        """Return what the switcher adds to the task network's loss; 0 by default."""
        return 0.0

    def after_step(self, params, t):
        """Do what a schedule asks for after a step, at progress ``t`` in [0, 1]; nothing by default."""

    @property
    def learns(self):
        """Whether there is anything to learn, so that switcher steps make sense."""
        return any(p.requires_grad for p in self.parameters())


def weight_blocks(site, params, reads):
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
    blocks = {"incoming": [site.rows], "outgoing": [site.columns], "both": [site.columns, site.rows]}[reads]
    if not site.own:
        blocks = [site.columns]
    seen = [block(params) for block in blocks]
    return torch.cat([block / (block.std(unbiased=False) + 1e-8) for block in seen], dim=1)
