"""Learn to switch on some networks, then give an unseen one its structure in one pass.

The networks of the learning set are trained already and stay as they are; what is learned, by their own loss, is one
small :class:`Judge` of neurons that depends on no width and on no order. Put on a network that it has never seen, it
reads the weights once and says which neurons stay within a budget of parameters, and at what factors.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from switcher_lib.data import Data, Split
from switcher_lib.progress import progress_bar
from switcher_lib.sites import Site, count_on
from switcher_lib.switched import LossFn, Switched
from switcher_lib.switchers.base import Switcher
from switcher_lib.switchers.row import check_scorer
from switcher_lib.switchers.stats import STATISTICS, row_statistics


class Judge(nn.Module):
    """The learned part: from a neuron's description and the budget to its score, and to its factor if it stays.

    Parameters
    ----------
    hidden : int, default 32
        Width of the MLP, at least 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        check_scorer(hidden)
        self.body = nn.Sequential(nn.Linear(DESCRIPTION + 1, hidden), nn.ReLU())
        self.score = nn.Linear(hidden, 1)
        self.gain = nn.Linear(hidden, 1)
        nn.init.zeros_(self.gain.weight)    # at first whatever stays has factor 1
        nn.init.zeros_(self.gain.bias)
        self.register_buffer("mean", torch.zeros(DESCRIPTION))
        self.register_buffer("std", torch.ones(DESCRIPTION))

    def forward(self, description: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Return scores (n,) and factors in [1/e², e²], shape (n,).

        Parameters
        ----------
        description : Tensor of shape (n, 41)
            From :func:`describe`.
        share : float
            The budget as a fraction of the network's parameters, in (0, 1].
        """
        seen = ((description - self.mean) / self.std).clamp(-5, 5)    # an unseen network may lie far outside
        h = self.body(torch.cat([seen, seen.new_full((len(seen), 1), math.log(share) + 1.5)], dim=1))
        return self.score(h).squeeze(-1), (2 * self.gain(h).squeeze(-1).tanh()).exp()

    def on(self, budget: int) -> Callable[..., "TransferSwitcher"]:
        """Return what makes this judge the switcher of a network.

        ``sl.Switched(model, example, switcher=judge.on(60_000), switch_inputs=True)``.

        Parameters
        ----------
        budget : int
            Parameters that may remain, at least 1.
        """
        return partial(TransferSwitcher, judge=self, budget=budget)


class TransferSwitcher(Switcher):
    """A judge on one network: the highest scores within a budget of parameters are on, at the judge's factors.

    s_j = r_j [a_j ≥ τ], where τ is the lowest threshold that keeps the budget. Its gradient is that of the soft gate
    σ(a_j - τ) (straight-through), and τ moves with the scores so that the soft count stays what it is: what a neuron
    is worth is thus weighed against what the same parameters are worth elsewhere.

    Parameters
    ----------
    sites : sequence of Site
        Where the task network is switched.
    judge : Judge
        Shared, not copied.
    budget : int
        Parameters that may remain, at least 1; at least one neuron of each site stays, even over budget.

    References
    ----------
    Ours. The straight-through gradient: Bengio et al. 2013, arXiv:1308.3432.
    """

    levels = ("neuron",)
    sites: tuple[Site, ...]

    def __init__(self, sites: Sequence[Site], judge: Judge, budget: int) -> None:
        super().__init__(sites)
        if not isinstance(judge, Judge):
            raise ValueError(f"judge={judge!r} must be a Judge, such as learn_across() returns.")
        if type(budget) is not int or budget < 1:
            raise ValueError(f"budget={budget!r} must be an integer of at least 1.")
        self.judge, self.budget = judge, budget

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return {site.key: factors (n,)}."""
        return self.decide(describe(self.sites, params), params, self.budget)

    def decide(self, description: Tensor, params: Mapping[str, Tensor], budget: int, noise: float = 0.0) -> dict[str, Tensor]:
        """Return {site.key: factors (n,)} for the sites' neurons, described one below the other.

        Parameters
        ----------
        description : Tensor of shape (N, 41)
            From :func:`describe`.
        params : dict of str to Tensor
            The task network's parameters; only their shapes matter.
        budget : int
            Parameters that may remain.
        noise : float, default 0.0
            Scale of logistic noise on the scores, at least 0: for learning, to try what is near.
        """
        dense = sum(p.numel() for p in params.values())
        scores, gains = self.judge(description, min(1.0, budget / dense))
        if noise:
            u = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
            scores = scores + noise * (u.log() - (-u).log1p())
        counted = partial(self._count, params)
        threshold = self._threshold(scores.detach(), counted, budget)
        hard = self._at_least(scores.detach(), threshold)
        if torch.is_grad_enabled():
            soft = torch.sigmoid(scores - threshold)
            slope, = torch.autograd.grad(counted(soft), scores, retain_graph=True)    # dC/da; dC/dτ is minus its sum
            shift = (slope * scores).sum() / slope.sum()
            soft = torch.sigmoid(scores - threshold - (shift - shift.detach()))
            hard = hard + soft - soft.detach()
        return dict(zip((site.key for site in self.sites), self._split(hard * gains)))

    def _split(self, values):
        return values.split([site.size for site in self.sites])

    def _at_least(self, scores, threshold):
        """The mask of scores of at least the threshold, and of each site's highest."""
        return torch.cat([(a >= torch.minimum(threshold, a.max())).to(a.dtype) for a in self._split(scores)])

    def _threshold(self, scores, counted, budget):
        """The lowest score that, as a threshold, keeps the budget; else the highest."""
        ordered = scores.sort().values
        low, high = 0, len(ordered) - 1
        while low < high:
            middle = (low + high) // 2
            fits = float(counted(self._at_least(scores, ordered[middle]).double())) <= budget
            low, high = (low, middle) if fits else (middle + 1, high)
        return ordered[low]

    def _count(self, params, on):
        """How many parameters remain where neurons are on by ``on``, shape (N,): differentiable, as Switched.count is."""
        on = {site.key: here for site, here in zip(self.sites, self._split(on))}
        return sum(count_on(self.sites, on, {name: p.shape for name, p in params.items()}).values())


DESCRIPTION = 2 * (STATISTICS - 3 + 2 * 2 + 3) + 3    # 41: what tells a neuron, twice, and what tells its layer


def describe(sites: Sequence[Site], params: Mapping[str, Tensor]) -> Tensor:
    """Describe neurons by what no permutation of neurons changes, in their own layer or in any other.

    Parameters
    ----------
    sites : sequence of Site
        The neurons, in the order in which the network computes them.
    params : dict of str to Tensor
        The task network's parameters.

    Returns
    -------
    Tensor of shape (N, 41)
        All sites' neurons one below the other. For each the 12 of its :func:`~switcher_lib.switchers.row_statistics`
        that are its own; how alike its incoming weights are to those of the layer's other neurons (largest cosine; root
        mean square of all), and its outgoing ones; the logarithms of the sums, over all paths, of squared products of
        weights: from the inputs to it, from it to the outputs, and of their product; all these 19 once more,
        standardised within the layer; and the layer's 3 statistics.
    """
    blocks = []
    for site, path in zip(sites, _paths(sites, params)):
        statistics = row_statistics(site, params)
        own = torch.cat([statistics[:, :-3], _likeness(site.rows(params)), _likeness(site.columns(params)), path], dim=1)
        place = (own - own.mean(0)) / (own.std(0, unbiased=False) + 1e-4)
        blocks.append(torch.cat([own, place, statistics[:, -3:]], dim=1))
    return torch.cat(blocks)


def _likeness(weights):
    """Largest and root mean square cosine between each row and the others, shape (n, 2)."""
    if len(weights) == 1 or weights.shape[1] == 0:
        return weights.new_zeros(len(weights), 2)
    unit = F.normalize(weights, dim=1)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(0.0)
    return torch.stack([cosines.amax(1), cosines.square().mean(1).sqrt()], dim=1)


def _paths(sites, params):
    """For each site (n, 3): log sums over paths of squared weights, to each neuron, from it, and their product."""
    def along(ordered, here, there):
        """Hand each site's sums on: multiply them into the weights that the next ones read."""
        squares, sums = {name: p.square() for name, p in params.items()}, {}
        for site in ordered:
            axes = getattr(site, here)
            s = sum(axis.read(squares).sum(1) for axis in axes) if axes else next(iter(squares.values())).new_ones(site.size)
            sums[site.key] = s / (s.mean() + 1e-12)
            for axis in getattr(site, there):
                squares = axis.scale(squares, sums[site.key])
        return sums

    to, on = along(sites, "own", "outgoing"), along(sites[::-1], "outgoing", "own")
    logs = [((to[site.key] + 1e-8).log(), (on[site.key] + 1e-8).log()) for site in sites]
    return [torch.stack([a, b, a + b], dim=1) for a, b in logs]


def learn_across(networks: Iterable[nn.Module], data: Data | Split, *, budgets: Sequence[float] = (0.05, 0.6), steps: int = 1500,
                 batch_size: int = 128, lr: float = 3e-3, noise: float = 0.3, hidden: int = 32, switch_inputs: bool = True,
                 loss_fn: LossFn = F.cross_entropy, seed: int = 0, progress: bool = True) -> Judge:
    """Learn one judge of neurons on trained networks, by their own loss, while they stay as they are.

    A step takes the next network, a random budget and a batch; the judge's structure for that budget scales the
    network, and the judge descends the scaled network's loss. There is no cost term: the budget is kept exactly.

    Parameters
    ----------
    networks : sequence of nn.Module
        The learning set: trained task networks, of any widths.
    data : Data or Split
        What the networks were trained on; of a :class:`~switcher_lib.data.Data` the training split.
    budgets : (float, float), default (0.05, 0.6)
        Smallest and largest budget, as fractions of a network's parameters, in (0, 1]; drawn evenly on a log scale.
    steps : int, default 1500
        At least 1.
    batch_size : int, default 128
        At least 1.
    lr : float, default 3e-3
        Adam's learning rate, above 0; it falls to 0 along a line.
    noise : float, default 0.3
        Scale of the logistic noise on the scores, at least 0.
    hidden : int, default 32
        Width of the judge's MLP.
    switch_inputs : bool, default True
        Whether the input features (pixels) are switched, too.
    loss_fn : callable, default cross entropy
        From outputs and targets to a scalar.
    seed : int, default 0
        Of all draws; PyTorch's global generator is as before afterwards.
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Judge
        Frozen. ``sl.Switched(model, example, switcher=judge.on(60_000), switch_inputs=True)`` puts it on any network.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    SwitchError
        If a network cannot be switched anywhere.

    References
    ----------
    Ours.
    """
    networks = list(networks)
    if not networks or not all(isinstance(model, nn.Module) for model in networks):
        raise ValueError(f"networks={networks!r} must be trained networks (nn.Module), one or more.")
    if not (isinstance(budgets, (tuple, list)) and len(budgets) == 2 and 0 < budgets[0] <= budgets[1] <= 1):
        raise ValueError(f"budgets={budgets!r} must be two fractions in (0, 1], the smaller first.")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer of at least 1.")
    if not lr > 0 or not noise >= 0:
        raise ValueError(f"lr={lr!r} must be above 0 and noise={noise!r} at least 0.")
    split = data.train if isinstance(data, Data) else data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(hidden)
        # the outgoing face: in front of a ReLU, a factor of 0 would pass no gradient back, and nothing could come on again
        nets = [Switched(model, split.images[:2], switcher=judge.on(1), switch_inputs=switch_inputs, face="outgoing").eval()
                for model in networks]
        params = [{name: p.detach() for name, p in net.params().items()} for net in nets]
        dense = [sum(p.numel() for p in each.values()) for each in params]
        described = [describe(net.switcher.sites, p) for net, p in zip(nets, params)]    # once: the networks do not change
        judge.mean.copy_(torch.cat(described).mean(0))
        judge.std.copy_(torch.cat(described).std(0) + 1e-3)
        optimizer = torch.optim.Adam(judge.parameters(), lr=lr)
        low, high = map(math.log, budgets)
        bar = progress_bar(steps, "learning across networks", progress)
        for step in range(steps):
            which = step % len(nets)
            net, p = nets[which], params[which]
            share = math.exp(low + (high - low) * float(torch.rand(())))
            budget = max(1, round(share * dense[which]))
            batch = torch.randint(len(split), (batch_size,))
            factors = cast(TransferSwitcher, net.switcher).decide(described[which], p, budget, noise)
            loss = loss_fn(net._run(split.images[batch], factors, p), split.labels[batch])
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
            optimizer.step()
            bar.update()
        bar.close()
    return judge.requires_grad_(False).eval()
