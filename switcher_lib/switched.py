"""A task network and the switcher that reads it: f(x; θ ⊙ s(θ))."""

import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import checkpoint

from switcher_lib import metrics, switchers
from switcher_lib.errors import SwitchError, SwitchWarning, unknown_name
from switcher_lib.gates import GateLike
from switcher_lib.sites import Connections, Site, count_on, find_connections, search
from switcher_lib.switchers import Switcher
from switcher_lib.layers import SelectLinear, neuron_dim
from switcher_lib.wiring import check_model_and_example, detached_copy, modes_kept


DEFAULT_SWITCHER = {"neuron": "row", "connection": "entry"}
PRICES = ("parameters", "macs")
TURNS = ("task", "switcher", "joint")
LossFn = Callable[[Tensor, Tensor], Tensor]                               # from outputs and targets to a scalar
Price = Literal["parameters", "macs"] | dict[str, int] | dict[str, float]


class Switched(nn.Module):
    """A model whose neurons, or connections, are scaled by what a switcher makes of its parameters: f(x; θ ⊙ s(θ)).

    Parameters
    ----------
    model : nn.Module
        The task network. It is used as it is, not copied.
    example : Tensor
        A batch of at least one input, as the model takes it.
    level : {"neuron", "connection"}, default "neuron"
        One factor for each neuron, or for each connection: for each weight of the Linear layers.
    switcher : str or callable, optional
        A name from :data:`switcher_lib.switchers.SWITCHERS`, or a factory of sites such as
        ``partial(RowSwitcher, hidden=64)``; default ``"row"`` for neurons and ``"entry"`` for connections.
    gate : str or callable, optional
        A name from :data:`switcher_lib.gates.GATES`, or a class; None leaves the switcher its default.
    face : {"incoming", "outgoing"}, default "incoming"
        Whether a factor multiplies the neuron's own weights and bias (γ and β where a BatchNorm follows), or its
        readers' columns. For ReLU and factors of at least 0 both compute the same.
    switch_inputs : bool, default False
        Whether to switch the input features (pixels) that a Linear layer reads.
    switch_flattened : bool, default False
        Whether to switch flattened features one by one, besides their channels.
    convolutions : bool, default False
        At the connection level: whether to switch the weights of convolutions too.
    refresh : "live" or int, default "live"
        While training: compute the factors at the current θ in every task step, or only every that many steps.
    flow : bool, default False
        Whether the task network's gradient also flows back through the switcher to θ; needs ``refresh="live"``.
    noise : float, default 0.0
        While training, every activation that a factor multiplies is also multiplied by 1 + noise · ε, with ε standard
        normal and drawn anew each time (Gaussian dropout, Srivastava et al. 2014); at least 0. At the connection
        level: every activation that a switched layer reads.
    price : {"parameters", "macs"} or dict of str to float, default "parameters"
        What the cost term charges for, and what budgets and ``stop_at`` count: parameters, or multiply-accumulates for
        one input. A dict gives the weight of each, at least 0 and not all 0: ``{"parameters": 1, "macs": 0.02}`` counts
        fifty MACs as much as one parameter.
    tied : bool, default False
        Whether neurons that can only go together are switched too, as one site: those of a residual stream, which several
        layers write, and those that several BatchNorms read.
    skip : sequence of str, default ()
        Paths of layers, or of modules with layers in them, to leave alone.

    Attributes
    ----------
    level : str
        What is switched.
    sites : list of Site or of Connections
        Where the model is switched.
    refused : dict of str to str
        Path of each layer that is not switched, and why.
    dense : int or float
        Parameters, or MACs for one input, or their weighted sum, of the whole model: what ``price`` says.

    Raises
    ------
    ValueError
        If an argument is out of its range or names something unknown.
    TypeError
        If ``model`` is no module.
    SwitchError
        If nothing in the model can be switched.

    References
    ----------
    Han et al. 2021, arXiv:2110.05954 (neurons) and arXiv:2103.15590 (connections).
    """

    model: nn.Module
    switcher: Switcher
    sites: list[Site] | list[Connections]
    held: dict[str, Tensor] | None      # factors that are fixed from outside
    _stale: dict[str, Tensor] | None    # factors of an earlier step

    def __init__(self, model: nn.Module, example: Tensor, *, level: Literal["neuron", "connection"] = "neuron",
                 switcher: str | Callable[..., Switcher] | None = None, gate: GateLike | None = None,
                 face: Literal["incoming", "outgoing"] = "incoming", switch_inputs: bool = False,
                 switch_flattened: bool = False, convolutions: bool = False, refresh: int | Literal["live"] = "live",
                 flow: bool = False, noise: float = 0.0, price: Price = "parameters", tied: bool = False,
                 skip: Collection[str] = ()) -> None:
        super().__init__()
        if level not in DEFAULT_SWITCHER:
            raise unknown_name("level", level, DEFAULT_SWITCHER, "level")
        neurons_only = {"face": face != "incoming", "switch_inputs": switch_inputs, "switch_flattened": switch_flattened,
                        "tied": tied}
        for name, given in (neurons_only if level == "connection" else {"convolutions": convolutions}).items():
            if given:
                other = "neuron" if level == "connection" else "connection"
                raise ValueError(f"{name} has no meaning at level={level!r}; it belongs to level={other!r}.")
        if refresh != "live" and not (isinstance(refresh, int) and refresh >= 1):
            raise ValueError(f"refresh={refresh!r} must be 'live' or a number of task steps of at least 1.")
        if flow and refresh != "live":
            raise ValueError(f"flow=True needs refresh='live', not {refresh!r}: stale factors carry no gradient.")
        if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < math.inf:
            raise ValueError(f"noise={noise!r} must be a number of at least 0.")
        check_model_and_example(model, example)
        self._weights = price_weights(price)
        self.model = model
        if level == "neuron":
            self.sites, self.refused = search(model, example, face, switch_inputs, switch_flattened, tied, skip)
        else:
            self.sites, self.refused = find_connections(model, convolutions=convolutions, skip=skip)
        try:    # of all but the numbers; better told now than after the training
            detached_copy(model, [*model.parameters(), *model.buffers()])
        except SwitchError as error:
            warnings.warn(f"This network can be switched and trained, but compact() will not take it: {error}", SwitchWarning,
                          stacklevel=2)
        self.level = level
        self.switcher = switchers.make(DEFAULT_SWITCHER[level] if switcher is None else switcher, self.sites, gate)
        like = next(p for p in model.parameters() if p.is_floating_point())
        self.switcher.to(like.device, like.dtype)
        self.refresh, self.flow, self.noise, self.price = refresh, flow, noise, price
        self.held = None
        self._stale, self._age = None, 0    # and task steps taken since the first
        self._looks = True
        self._macs = metrics.macs_per_weight(model, example)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        self.dense = sum(n * self._price_of(name) for name, n in sizes.items())
        self._at_activations = self._find_activations()
        self._fill_statistics()

    def _fill_statistics(self):
        """Give the switcher's BatchNorms the statistics of the first weights: evaluation would know none before its first step."""
        norms = [module for module in self.switcher.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        before, first = [module.momentum for module in norms], next(self.switcher.parameters())
        for module in norms:
            module.momentum = 1.0
        with torch.no_grad():    # the switcher may not have been moved yet to where, and to what, the model is
            self.switcher.train()({name: p.to(first) for name, p in self.params().items()})
        for module, momentum in zip(norms, before):
            module.momentum = momentum

    def params(self) -> dict[str, Tensor]:
        """Return the task network's parameters θ as {name: tensor}."""
        return dict(self.model.named_parameters())

    def factors(self) -> dict[str, Tensor]:
        """Return the factors {site.key: tensor of the site's shape} at the current θ, or the held ones; no buffer moves.

        In eval mode these are the structure; in training mode a gate that normalises uses the layer's own statistics.
        """
        if self.held is not None:
            return self.held
        buffers = _buffer_copies(self.switcher)
        with self._exact():
            return functional_call(self.switcher, buffers, (self.params(),)) if buffers else self.switcher(self.params())

    def _exact(self):
        """Context in which no autocast rounds scores: what is off must be off in evaluation, too."""
        return torch.autocast(next(self.model.parameters()).device.type, enabled=False)

    def scale(self, params: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return θ ⊙ s: the parameters {name: tensor} with every site's face multiplied by its factors."""
        scaled = dict(params)
        for site in self.sites:
            if site.key not in factors:
                raise ValueError(f"factors has no {site.key!r}; it needs one vector for each of "
                                 f"{[s.key for s in self.sites]}.")
            scaled = site.scale(scaled, factors[site.key])
        return scaled

    def forward(self, x: Tensor, y: Tensor | None = None, loss_fn: LossFn | None = None, *,
                turn: Literal["task", "switcher", "joint"] | None = None, cost: float = 0.0) -> Tensor:
        """Return the scaled network's outputs for a batch of inputs, or the loss of the one whose turn it is.

        A wrapper such as ``DistributedDataParallel`` averages the gradients of what has run through its own ``forward``,
        and of nothing else: it is asked for the losses here. Each of them reaches only one of the two networks, so
        ``DistributedDataParallel(net, find_unused_parameters=True)`` is needed. The step functions
        (:func:`~switcher_lib.task_step` and its kin) take the wrapped network as they take ``net``. A task step may also go
        on being ``loss_fn(wrapped(x), y)``, which lacks nothing but the switcher's ``penalty``, where it has one.

        What draws at random while training (``noise``, dropout, hard concrete) may draw differently in each process: the
        gradients are averaged, so that parameters, and with them the structure in eval mode, are the same in all of them.
        BatchNorm's running statistics are one process's own, as ever: compact and save in one of them.

        Parameters
        ----------
        x : Tensor
            A batch of inputs; see ``refresh``, ``flow`` and ``noise``.
        y : Tensor, optional
            Its targets, where a loss is asked for.
        loss_fn : callable, optional
            From outputs and targets to a scalar, where a loss is asked for.
        turn : {"task", "switcher", "joint"}, optional
            Whose loss: :meth:`task_loss`, :meth:`switcher_loss` or :meth:`joint_loss`. None asks for the outputs.
        cost : float, default 0.0
            Weight λ of the cost term in the switcher's and in the joint loss; the task network's has none.

        Returns
        -------
        Tensor
            The outputs, or a scalar.

        Raises
        ------
        ValueError
            If ``turn`` is unknown or does not go with the other arguments.
        """
        if turn is None:
            if y is not None or loss_fn is not None or cost:
                raise ValueError(f"turn=None asks for outputs, which need x alone; name whose loss it is: {', '.join(TURNS)}.")
            return self._run(x, self._running_factors())
        if turn not in TURNS:
            raise unknown_name("turn", turn, TURNS, "turn")
        if y is None or loss_fn is None:
            raise ValueError(f"turn={turn!r} asks for a loss, which needs y and loss_fn.")
        if turn == "task":
            return self.task_loss(x, y, loss_fn)
        return (self.switcher_loss if turn == "switcher" else self.joint_loss)(x, y, loss_fn, cost)

    def _run(self, x, factors, params=None, buffers=None):
        """Run the scaled network, with the factors of Linear layers multiplied into activations.

        (s ⊙ W) h + s ⊙ b = s ⊙ (W h + b), so both compute the same up to rounding; but a layer's batch of activations
        is much smaller than a large weight matrix. For convolutions and BatchNorm it is the weights that are small.
        """
        hooks, replaced = [], params or self.params()
        try:
            if self._looks and self.training and torch.is_grad_enabled():
                hooks = [layer.register_forward_pre_hook(_not_recomputed) for layer in self._switched_layers()]
            if self.level == "connection" and self.noise and self.training:
                hooks += [_on_input(layer, self._blurred) for layer in self._switched_layers()]
            for site in self.sites:
                s = factors[site.key]
                if site.key in self._at_activations:
                    hooks += [self._hook(site, axis, s) for axis in self._at_activations[site.key]]
                else:
                    replaced = site.scale(replaced, s)
            if params is None and len(self._at_activations) == len(self.sites):
                output = self.model(x)    # nothing is replaced: spare functional_call's work
            else:
                output = called_with(self.model, {**replaced, **(buffers or {})}, x)
            self._looks = self._looks and not (self.training and torch.is_grad_enabled())
            return output
        finally:
            for hook in hooks:
                hook.remove()

    def _switched_layers(self):
        """The layers whose parameters, or outputs, the factors multiply."""
        names = (name for site in self.sites for name in (
            [site.name] if isinstance(site, Connections) else [axis.name for axis in site.face_axes]))
        return [self.model.get_submodule(path) for path in dict.fromkeys(name.rpartition(".")[0] for name in names)]

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as any module does; the next step looks again whether ``forward()`` recomputes anything."""
        self._looks = True
        return super().train(mode)

    def _find_activations(self):
        """Return {site.key: axes} for the sites whose factors multiply activations rather than weights.

        Those whose face lies in Linear layers alone; all of them if there is noise, which is the activations' own.
        """
        found = {}
        for site in self.sites if self.level == "neuron" else ():
            axes = {axis.name.rpartition(".")[0]: axis for axis in reversed(site.face_axes)}    # weight and bias are one place
            layers, axes = [self.model.get_submodule(path) for path in axes], tuple(axes.values())
            if self.noise or all(isinstance(layer, nn.Linear) for layer in layers):
                found[site.key] = axes
        return found

    def _hook(self, site, axis, s):
        """Register a hook that multiplies a layer's output (incoming face) or input (outgoing face) by the factors."""
        layer = self.model.get_submodule(axis.name.rpartition(".")[0])
        s = axis.spread(s)
        noise = self.noise if self.training else 0.0

        def scaled(h):
            along = s if neuron_dim(layer) == -1 else s.reshape(-1, *[1] * (h.ndim - 2))
            if not noise:
                return h * along
            return h * torch.addcmul(along, along, torch.randn_like(h), value=noise)    # s (1 + noise ε), then one product

        if site.face == "incoming":
            return layer.register_forward_hook(lambda module, inputs, output: scaled(output))
        return _on_input(layer, scaled)

    def _blurred(self, h):
        return h * torch.randn_like(h).mul_(self.noise).add_(1)

    def _running_factors(self):
        if not self.training or self.flow:
            return self.factors()
        if self.refresh == "live" or self._stale is None or self._age % self.refresh == 0:
            with torch.no_grad():
                self._stale = self.factors()
        self._age += 1
        return self._stale

    # -- the two losses of alternate learning

    def task_loss(self, x: Tensor, y: Tensor, loss_fn: LossFn) -> Tensor:
        """Return the loss that the task network descends. Only θ is to be stepped; the switcher's buffers stay.

        Parameters
        ----------
        x, y : Tensor
            A batch of inputs and its targets.
        loss_fn : callable
            From outputs and targets to a scalar.
        """
        return loss_fn(self._run(x, self._running_factors()), y) + self.switcher.penalty(self.params())

    def switcher_loss(self, x: Tensor, y: Tensor, loss_fn: LossFn, cost: float = 0.0) -> Tensor:
        """Return the loss that the switcher descends: the task's own, plus ``cost`` times :meth:`cost`.

        θ gets no gradient, and the task network's buffers (BatchNorm's running statistics) stay as they were.

        Parameters
        ----------
        x, y : Tensor
            A batch of inputs and its targets.
        loss_fn : callable
            From outputs and targets to a scalar.
        cost : float, default 0.0
            Weight λ of the cost term.
        """
        params = {name: p.detach() for name, p in self.params().items()}
        with self._exact():
            factors = self.switcher(params)
        loss = loss_fn(self._run(x, factors, params, _buffer_copies(self.model)), y)
        return loss + cost * self.cost(factors) if cost else loss

    def joint_loss(self, x: Tensor, y: Tensor, loss_fn: LossFn, cost: float = 0.0) -> Tensor:
        """Return the loss that both descend at once, where they do not take turns: factors at the current θ, with gradient.

        Both networks' buffers move. The task network's gradient flows back through the switcher to θ only with ``flow``.

        Parameters
        ----------
        x, y : Tensor
            A batch of inputs and its targets.
        loss_fn : callable
            From outputs and targets to a scalar.
        cost : float, default 0.0
            Weight λ of the cost term.
        """
        params = self.params()
        with self._exact():
            factors = self.switcher(params if self.flow else {name: p.detach() for name, p in params.items()})
        loss = loss_fn(self._run(x, factors), y) + self.switcher.penalty(params)
        return loss + cost * self.cost(factors) if cost else loss

    def cost(self, factors: dict[str, Tensor] | None = None) -> Tensor:
        """Return how much of the model is on, as a fraction of its parameters, or of its MACs: of its ``price``.

        C = Σ over parameters of Π over the sites that touch it of p, over the dense count, where p is the switcher's
        ``p_on``: min(s, 1) for deterministic gates. For MACs each parameter counts as often as it is multiplied; for a
        weighted price, with the weighted sum of both.

        Parameters
        ----------
        factors : dict of str to Tensor, optional
            Factors {site.key: tensor of the site's shape}; None takes the current ones.

        Returns
        -------
        Tensor of shape ()
            In (0, 1], differentiable in the factors.
        """
        on = self.switcher.p_on(self.factors() if factors is None else factors)
        return self.size(on) / self.dense

    def size(self, on: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return what remains, in what ``price`` counts.

        Parameters
        ----------
        on : dict of str to Tensor, optional
            {site.key: tensor of the site's shape}, each in [0, 1]; None takes 1 where the current factors, in eval mode, are
            not 0.

        Returns
        -------
        Tensor of shape ()
            Parameters, MACs for one input, or their weighted sum.
        """
        return self._weigh(self._on() if on is None else on, self._price_of)

    def _price_of(self, name):
        """What one weight of a parameter costs."""
        return self._weights["parameters"] + self._weights["macs"] * self._macs.get(name, 0)

    def _on(self):
        """1 where the factors are not 0, in float64: float32 cannot count beyond 16.7 million."""
        with torch.no_grad(), evaluating(self):
            return {key: (s != 0).double() for key, s in self.factors().items()}

    def count(self, on: Mapping[str, Tensor], macs: bool = False) -> Tensor:
        """Return the number of parameters (or MACs for one input) that remain where neurons are on by ``on``.

        Parameters
        ----------
        on : dict of str to Tensor
            {site.key: tensor of the site's shape}, each in [0, 1]; 0 and 1 count exactly.
        macs : bool, default False
            Whether to count multiply-accumulates instead of parameters.

        Returns
        -------
        Tensor of shape ()
            The count.
        """
        return self._weigh(on, lambda name: self._macs.get(name, 0) if macs else 1)

    def _weigh(self, on, weight):
        counts = count_on(self.sites, on, {name: p.shape for name, p in self.model.named_parameters()})
        return torch.as_tensor(sum(weight(name) * count for name, count in counts.items()))

    # -- holding the factors

    def hold(self, factors: Mapping[str, Tensor]) -> None:
        """Fix the factors from outside, for example for a warm-up; :meth:`release` ends it.

        Parameters
        ----------
        factors : dict of str to Tensor
            {site.key: tensor of the site's shape}.

        Raises
        ------
        ValueError
            If a site has no factors, or factors of another shape or with NaN in them, or there is no such site.
        """
        if not isinstance(factors, Mapping):
            raise ValueError(f"factors is a {type(factors).__name__}; it must be {{site.key: tensor of the site's shape}}.")
        keys = [site.key for site in self.sites]
        for key, s in factors.items():
            if key not in keys:
                raise unknown_name("factors", key, keys, "site")
            if not isinstance(s, Tensor):
                raise ValueError(f"factors[{key!r}] is a {type(s).__name__}; it must be a tensor of the site's shape.")
            if s.isnan().any():
                raise ValueError(f"factors[{key!r}] has entries that are NaN; a factor is a number.")
        self.scale(self.params(), factors)    # raises where a key or a length is wrong
        self._stale, self._age = None, 0
        self.held = {site.key: factors[site.key].detach().clone() for site in self.sites}

    def hold_ones(self) -> None:
        """Fix all factors at 1: the task network as if it were alone."""
        like = next(p for p in self.model.parameters() if p.is_floating_point())
        self.hold({site.key: like.new_ones(site.shape) for site in self.sites})

    def freeze(self) -> None:
        """Fix the factors at what they are now, in eval mode: the structure is found."""
        self.release()
        with torch.no_grad(), evaluating(self):
            self.hold(self.factors())

    def release(self) -> None:
        """Let the switcher decide again."""
        self.held, self._stale, self._age = None, None, 0

    def structure(self) -> metrics.Structure:
        """Return the :class:`~switcher_lib.metrics.Structure`: neurons (connections) in all and on, parameters, MACs."""
        on = self._on()
        ones = {key: torch.ones_like(s) for key, s in on.items()}
        return metrics.Structure(
            sites={site.key: (site.size, int(on[site.key].sum())) for site in self.sites},
            parameters=(int(self.count(ones)), int(self.count(on).round())),
            macs=(int(self.count(ones, macs=True)), int(self.count(on, macs=True).round())),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        """Take factors that are held along to another device or type."""
        super()._apply(fn, *args, **kwargs)
        self.held, self._stale = (factors and {key: fn(s) for key, s in factors.items()} for factors in (self.held, self._stale))
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides parameters and buffers."""
        return {"held": self.held, "stale": self._stale, "age": self._age}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_extra_state` gave."""
        self.held, self._stale, self._age = state["held"], state["stale"], state["age"]


def price_weights(price: Price) -> dict[str, float]:
    """Return {"parameters": weight, "macs": weight} of a price, or raise a ``ValueError``; see :class:`Switched`."""
    if isinstance(price, str) or not isinstance(price, dict):
        if price not in PRICES:
            raise unknown_name("price", price, PRICES, "price")
        return {unit: int(unit == price) for unit in PRICES}
    for unit in price:
        if unit not in PRICES:
            raise unknown_name("price", unit, PRICES, "price")
    good = all(isinstance(w, (int, float)) and 0 <= w < float("inf") for w in price.values())
    if not good or not any(price.values()):
        raise ValueError(f"price={price!r} must have weights of at least 0, not all 0.")
    return {unit: price.get(unit, 0) for unit in PRICES}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in which a module is in eval mode; its modules' own modes come back afterwards.

    Parameters
    ----------
    module : nn.Module
        The module.
    """
    with modes_kept(module):
        module.eval()
        yield


def _not_recomputed(layer, inputs):
    """Refuse a layer that torch.utils.checkpoint runs: it would run once more in the backward pass, when the factors are gone."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not Switched._run.__code__:
        if frame.f_code.co_filename == checkpoint.__file__ and frame.f_code.co_name == "checkpoint":
            raise SwitchError("forward() uses gradient checkpointing, which runs layers once more in the backward pass, then without "
                              "their factors: gradients would be wrong. Turn it off while the network is switched; after compact() "
                              "it may be on again.")
        frame = frame.f_back


def called_with(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Any:
    """Run a model with other tensors in place of its parameters and buffers, which stay as they are.

    Each place is replaced once. ``torch.func.functional_call`` replaces a layer that is registered under two names twice, and
    then takes its first replacement for what was there before.

    Parameters
    ----------
    model : nn.Module
        The model.
    tensors : dict of str to Tensor
        {name: tensor}, for some of its parameters and buffers; tensors that several modules share are replaced in all of them.
    x : Tensor
        A batch of inputs.
    """
    places: dict[Tensor, list[str]] = {}
    for path, module in model.named_modules():    # each once, however many names it has
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                places.setdefault(tensor, []).append(f"{path}.{name}" if path else name)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    placed = {place: tensor for name, tensor in tensors.items() for place in places[own[name]]}
    return functional_call(model, placed, (x,), tie_weights=False)


def _on_input(layer, change):
    """Register a hook that changes what a layer reads, whether it is called as layer(x) or as layer(input=x)."""

    def hook(module, args, kwargs):
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "input": change(kwargs["input"])}

    reader = layer.chosen if isinstance(layer, SelectLinear) else layer    # more may arrive at a SelectLinear than it reads
    return reader.register_forward_pre_hook(hook, with_kwargs=True)


def _buffer_copies(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}
