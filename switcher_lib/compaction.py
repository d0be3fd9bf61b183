"""From a switched network to a smaller plain one, with a certificate that both compute the same.

Fold: store θ ⊙ s. Remove: leave out every neuron that provably does not matter, to a fixpoint. Certify: compare the two
networks in float64. The remover slices each tensor by the labels of its axes (:mod:`switcher_lib.sites`), so that no
index is ever shifted by hand. :func:`fold_batchnorm` does away with BatchNorms, before or after.
"""

import copy
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as serialized
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

from switcher_lib.errors import CertificateError, SwitchError, SwitchWarning
from switcher_lib.files import replacing
from switcher_lib.layers import (
    AFFINE_MODULES, CONV_MODULES, TRANSPOSED_MODULES, SelectLinear, affine, everywhere, neuron_dim, uniform, weight_dims,
    weights_apart,
)
from switcher_lib.metrics import count_parameters
from switcher_lib.outputs import relative_difference, tensors_in
from switcher_lib.sites import tied_sites
from switcher_lib.switched import Switched, called_with, evaluating
from switcher_lib.wiring import (
    CHANNEL_NORM_MODULES, DRAWS, INPUT, NORM_MODULES, Tracer, check_model_and_example, computed_parameter, computes_as_known,
    detached_copy, differs_in_training, draws, is_hooked, shared_parameters, trace, untouched,
)

FORMAT = "switcher_lib compact 1"
ON = "on"
REHEARSAL = 1e-9    # relative error allowed with random neurons off; faults show at 1e-3 and above


@dataclass(frozen=True)
class Certificate:
    """How far the compacted network is from the folded one, in float64.

    Attributes
    ----------
    relative_error : float
        max|y − ŷ| / max|y| over ``inputs`` inputs, both networks in float64.
    tolerance : float
        What it was held against.
    inputs : int
        Number of inputs: the example's own, and as many random ones.
    relative_error_as_stored : float
        The same between the two networks in the type they are stored in, on the example's own inputs: rounding, not structure.
    """

    relative_error: float
    tolerance: float
    inputs: int
    relative_error_as_stored: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.relative_error <= self.tolerance

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        return (f"certificate {verdict}: relative error {self.relative_error:.1e} in float64 (tolerance "
                f"{self.tolerance:.0e}), {self.relative_error_as_stored:.1e} as stored, {self.inputs} inputs")


@dataclass
class Compacted:
    """A smaller plain network and the proof that it is the same function.

    Attributes
    ----------
    model : nn.Module
        A plain module of the original class, with smaller layers and nothing of this library but, where features
        were removed singly, a :class:`~switcher_lib.layers.SelectLinear`.
    certificate : Certificate
        Against the folded network.
    reasons : dict of str to list of str
        For each layer that writes neurons, and for each ``"layer (inputs)"`` whose features were selected, why each
        neuron went or stayed.
    parameters : (int, int)
        Before and after.
    optimizer : torch.optim.Optimizer or None
        A new optimizer over ``model``'s parameters with the old one's settings and its state, sliced along and put into the
        folded coordinates: exact for the loss's gradients, not for what weight decay has mixed into a momentum.
    original : dict of str to list of int
        Shapes of the original network's parameters, for the file: loading needs a factory that makes at least these.
    """

    model: nn.Module
    certificate: Certificate
    reasons: dict[str, list[str]]
    parameters: tuple[int, int]
    optimizer: torch.optim.Optimizer | None = None
    original: dict[str, list[int]] = field(default_factory=dict)

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Return {layer: (neurons before, neurons after)}."""
        return {path: (len(why), sum(w.startswith((ON, "kept")) for w in why)) for path, why in self.reasons.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network's tensors to a ``.safetensors`` file, atomically; nothing is pickled.

        Parameters
        ----------
        path : str or Path
            The file. :func:`load_compact` reads it back.
        """
        groups = {name: module.groups for name, module in _convolutions(self.model).items() if module.groups > 1}
        meta = {"format": FORMAT, "class": type(self.model).__name__, "groups": json.dumps(groups),
                "original": json.dumps(self.original)}
        tensors = {name: t.clone(memory_format=torch.contiguous_format) for name, t in self.model.state_dict().items()}
        with replacing(path) as part:
            part.write_bytes(serialized(tensors, metadata=meta))    # save_file would leave a file that only its owner can read

    def __str__(self) -> str:
        before, after = self.parameters
        lines = [f"{before:,} -> {after:,} parameters ({before / max(after, 1):.1f}x)"]
        lines += [f"  {path}: {n} -> {kept}" for path, (n, kept) in self.widths.items() if n != kept]
        return "\n".join([*lines, str(self.certificate)])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><th scope='row'>{path}</th><td>{n:,}</td><td>{kept:,}</td></tr>"
                       for path, (n, kept) in {**self.widths, "parameters": self.parameters}.items())
        return ("<table><thead><tr><th scope='col'>layer</th><th scope='col'>before</th><th scope='col'>after</th></tr>"
                f"</thead><tbody>{body}</tbody></table><p>{self.certificate}</p>")


def fold(net: Switched) -> nn.Module:
    """Store θ ⊙ s: return a plain copy of a switched network's model, with the factors multiplied in.

    Parameters
    ----------
    net : Switched
        The network; its factors are taken in eval mode at the current θ, in training precision.

    Returns
    -------
    nn.Module
        A copy of ``net.model`` that computes what ``net`` computes in eval mode.
    """
    folded = detached_copy(net.model)
    with torch.no_grad(), evaluating(net):
        scaled = net.scale(net.params(), net.factors())
        for name, p in folded.named_parameters():
            p.copy_(scaled[name])
    return folded


def fold_batchnorm(model: nn.Module, example: Tensor | None = None, *, tolerance: float = 1e-12) -> nn.Module:
    """Multiply every BatchNorm into the layer in front of it: γ (Wx + b - μ) / σ + β is one affine layer too.

    Fold before compaction, and a switched-off channel's constant has a bias to go into; or after it. Either way the
    network is finished: statistics no longer follow the data. What a Linear layer in front of a BatchNorm reads must be
    vectors (N, features): over a sequence, BatchNorm runs along the other axis. ``example`` makes sure.

    Parameters
    ----------
    model : nn.Module
        A plain network that ``torch.fx`` can trace; :func:`fold` a switched one first. It is left as it is.
    example : Tensor, optional
        Real inputs, to hold the two networks against each other in float64 as :func:`compact` does.
    tolerance : float, default 1e-12
        Largest relative error allowed then.

    Returns
    -------
    nn.Module
        A copy in eval mode. Where a BatchNorm was, a plain ``nn.Sequential`` has nothing (its other layers keep their
        names) and any other module an ``nn.Identity``. Layers without a bias have one now.

    Raises
    ------
    TypeError
        If ``model`` is a switched network or no module.
    SwitchError
        If the model cannot be traced.
    CertificateError
        If the folded network computes something else on ``example``.

    Warns
    -----
    SwitchWarning
        For each BatchNorm that stays, with the reason.

    References
    ----------
    The formulas are those of ``torch.nn.utils.fusion``, here in float64 and rounded once.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Switched):
        raise TypeError(f"model is a {type(model).__name__}; it must be a plain nn.Module: sl.fold(net) makes one of a "
                        "switched network.")
    folded, stay = _without_norms(model)
    for path, reason in stay.items():
        warnings.warn(f"{path or type(model).__name__} stays a BatchNorm: {reason}.", SwitchWarning, stacklevel=2)
    if example is not None:
        check_model_and_example(model, example)
        whole = detached_copy(model).eval()
        exact = detached_copy(whole).double()
        certificate = _certify(exact, _without_norms(exact)[0], whole, folded, example, tolerance)
        if not certificate.holds:
            raise CertificateError(f"{type(model).__name__} with its BatchNorms folded computes something else: {certificate}. "
                                   "Does a BatchNorm follow a Linear layer over sequences? It runs along another axis.")
    return folded


def _without_norms(model):
    """Return a copy of a model with its BatchNorms folded, and {path: why} of those that stay."""
    folded, tracer = detached_copy(model).eval(), _NotingTracer()
    with untouched(folded):
        graph = tracer.trace(folded)
    modules, shared = dict(folded.named_modules(remove_duplicate=False)), shared_parameters(folded)
    stay = {path: "torch.fx does not see it run" for path, module in folded.named_modules() if isinstance(module, NORM_MODULES)}
    pairs = []
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], NORM_MODULES):
            before = next(iter(node.all_input_nodes))
            stay[node.target] = _unfoldable(node, before, graph, modules, shared)
            if stay[node.target] is None:
                pairs.append((before.target, node.target))
                node.replace_all_uses_with(before)    # what follows it, maybe another BatchNorm, follows the layer now
                graph.erase_node(node)
    for layer_path, norm_path in pairs:
        layer, norm = folded.get_submodule(layer_path), modules[norm_path]
        _replace(folded, layer, _fused(layer, norm))
        _replace(folded, norm, nn.Identity())
        owner, attribute = _owner(folded, norm_path)
        if type(owner) is nn.Sequential and (owner is folded or owner in tracer.called):
            del owner._modules[attribute]             # del owner[i] would number the other layers anew
    return folded, {path: reason for path, reason in stay.items() if reason}


class _NotingTracer(Tracer):
    """Notes which containers run as such: where a forward() picks out their parts, none may be missing."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def call_module(self, m, forward, args, kwargs):
        self.called.add(m)
        return super().call_module(m, forward, args, kwargs)


def _unfoldable(node, before, graph, modules, shared):
    """Return why a BatchNorm cannot go into the layer in front of it; None if it can."""
    calls = Counter(id(modules[n.target]) for n in graph.nodes if n.op == "call_module")
    norm, layer = modules[node.target], modules[before.target] if before.op == "call_module" else None
    if calls[id(norm)] > 1:
        return "it runs more than once"
    if norm.running_mean is None:
        return "it has no running statistics"
    if not isinstance(layer, AFFINE_MODULES):
        return "it does not follow a Linear or Conv layer directly"
    if isinstance(layer, TRANSPOSED_MODULES) and layer.groups > 1:
        return f"{before.target} is a transposed convolution with groups"
    if calls[id(layer)] > 1:
        return f"{before.target} runs more than once"
    if len(before.users) > 1:
        return f"something else reads what {before.target} writes"
    for path, module in ((before.target, layer), (node.target, norm)):
        if computed := computed_parameter(module):
            return f"the {computed} of {path} is computed, not a parameter"
        if is_hooked(module):
            return f"{path} has a hook, or a forward() of its own"
    if before.target in shared:
        return f"{before.target} shares its {' and '.join(shared[before.target])} with another module"
    read = {n.target.rpartition(".")[0] for n in graph.nodes if n.op == "get_attr"}
    if before.target in read or node.target in read:
        return f"the parameters of {before.target} or its own are read elsewhere"
    neurons = layer.weight.shape[weight_dims(layer)[0]]
    if len(norm.running_mean) != neurons:
        return f"it has {len(norm.running_mean)} channels and {before.target} {neurons} neurons"
    return None


def _fused(layer, norm):
    """Return a copy of a layer with a BatchNorm multiplied in."""
    norm, exact = copy.deepcopy(norm).double(), copy.deepcopy(layer).double()
    if norm.weight is None:
        norm.weight, norm.bias = nn.Parameter(torch.ones_like(norm.running_var)), nn.Parameter(torch.zeros_like(norm.running_var))
    if isinstance(layer, nn.Linear):
        fused = fuse_linear_bn_eval(exact, norm)
    else:
        fused = fuse_conv_bn_eval(exact, norm, transpose=isinstance(layer, TRANSPOSED_MODULES))
    fused = fused.to(layer.weight.dtype)
    if layer.bias is None:                            # PyTorch would leave the new bias without a gradient
        fused.bias.requires_grad_(layer.weight.requires_grad)
    return fused


def _replace(model, old, new):
    """Put a module in the place of another one, under every name that it has."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            owner, attribute = _owner(model, path)
            setattr(owner, attribute, new)


def compact(net: nn.Module, example: Tensor, *, optimizer: torch.optim.Optimizer | None = None,
            tolerance: float = 1e-12) -> Compacted:
    """Fold a switched network and remove every neuron that provably does not matter.

    A neuron goes if (a) what its readers see of it is always 0, or (b) every reader multiplies it by 0, or (c) it is
    constant and each reader's bias can absorb it. One removal can free another: this runs to a fixpoint. Before that,
    random neurons are removed from a copy, wherever the network could be switched, and then others, so that each has gone
    once: a network never seen before is not trusted until it has come through that. ``forward()`` is followed with all of its
    options at their defaults: with others, a constant that was absorbed may be another one.

    Parameters
    ----------
    net : Switched or nn.Module
        A switched network, or a plain one with zeros in its weights. It is left as it is.
    example : Tensor
        Real inputs for the certificate, which uses up to 256 of them and as many random ones of the same mean and
        standard deviation.
    optimizer : torch.optim.Optimizer, optional
        The task network's optimizer, whose state is sliced along; see :attr:`Compacted.optimizer`.
    tolerance : float, default 1e-12
        Largest relative error allowed in float64.

    Returns
    -------
    Compacted
        The smaller network, its certificate, and a reason for each neuron.

    Raises
    ------
    TypeError
        If ``net`` is no module, or a wrapper around a switched network, such as ``DistributedDataParallel``; or ``optimizer``
        is none.
    ValueError
        If ``example`` is no batch of finite numbers, or ``tolerance`` is below 0.
    SwitchError
        If the model cannot be traced, or does not run in float64.
    CertificateError
        If the compacted network does not compute what the folded one does, for example because the model reshapes by
        sizes that are written into its code; or the folded one not what the switched one did.

    Warns
    -----
    SwitchWarning
        If a layer has no neuron left, one is kept. If a plain network's ``forward()`` goes another way in train mode: what is
        removed, and the certificate, are about eval mode (for a switched network this was said when it was switched).
    """
    _check_arguments(net, example, optimizer, tolerance)
    if not isinstance(net, Switched) and (difference := differs_in_training(net)):
        warnings.warn(f"{difference}. What is removed, and the certificate, are about eval mode.", SwitchWarning, stacklevel=2)
    folded = (fold(net) if isinstance(net, Switched) else detached_copy(net)).eval()
    exact, here = detached_copy(folded).cpu().double(), example.cpu()    # not every device has float64
    try:
        wiring = _traced(exact, _doubled(here))
        _rehearse(exact, wiring, here)
        exact_small, plan, biases = _removed(exact, wiring)
    except SwitchError:
        _check_double(exact, folded, example)
        raise
    if isinstance(net, Switched):
        _check_folded(net, here)
    small = _carry_out(folded, plan, biases)
    certificate = _certify(exact, exact_small, folded, small, example, tolerance, wiring.output)
    if not certificate.holds:
        raise CertificateError(f"the compacted {type(folded).__name__} does not compute what the folded one does: {certificate}. "
                               "Nothing was changed.")
    new_optimizer = _slice_optimizer(optimizer, net, small, plan) if optimizer is not None else None
    original = {name: list(p.shape) for name, p in folded.named_parameters()}
    return Compacted(small, certificate, plan.reasons, (count_parameters(folded), count_parameters(small)), new_optimizer,
                     original)


def _check_arguments(net, example, optimizer, tolerance):
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a {type(net).__name__}; it must be a switched network, or a plain nn.Module with zeros in its weights.")
    if not isinstance(net, Switched) and any(isinstance(module, Switched) for module in net.modules()):
        raise TypeError(f"net is a {type(net).__name__} around a switched network; give the switched network itself.")
    check_model_and_example(net, example)
    if example.is_floating_point() and not example.isfinite().all():
        raise ValueError("example has entries that are NaN or infinite; the certificate compares numbers.")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be the task network's torch.optim.Optimizer, or None.")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance!r} must be a number of at least 0.")


class _InDouble(TorchFunctionMode):
    """Where a forward() converts to another floating-point type, it gets float64: for networks that are compared in that."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            return args[0].double()
        if function is torch.Tensor.to:
            args, kwargs = tuple(map(self._double, args)), {name: self._double(value) for name, value in (kwargs or {}).items()}
        return function(*args, **kwargs or {})

    @staticmethod
    def _double(value):
        return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _doubled(example):
    """An example in float64, where it is not made of integers."""
    return example.double() if example.is_floating_point() else example


def _traced(exact, inputs):
    with _InDouble():
        return trace(exact, inputs)


def _exact_error(exact, other, inputs, output=None):
    with _InDouble():
        return _error(exact, other, inputs, output)


def _check_double(exact, folded, example):
    """Networks are compared in float64: say so if that is what a network does not do, although it runs."""
    try:
        with torch.no_grad(), _InDouble():
            exact(_doubled(example[:2].cpu().clone()))
    except (RuntimeError, TypeError, ValueError) as error:
        with torch.no_grad():
            try:
                folded(example[:2].clone())
            except Exception:    # it does not run at all, and what found that out has told why
                return
        raise SwitchError(f"{type(exact).__name__} does not run in float64 ({error}), and that is how compact() makes sure of what it "
                          "does. Leave types and autocast to whoever calls the network.") from error


def _check_folded(net, example):
    """Multiplying factors into parameters must be what the switched network did: hooks may see to it that it is not."""
    if not net._at_activations:    # then that is what it did
        return
    exact = detached_copy(net).cpu().double().eval()
    with torch.no_grad(), evaluating(net):
        exact.held = {key: s.cpu().double() for key, s in net.factors().items()}

    def error_on(x):
        with torch.no_grad(), _InDouble():
            with untouched(exact):
                folded = called_with(exact.model, exact.scale(exact.params(), exact.held), x.clone())
            with untouched(exact):
                return relative_difference(exact(x.clone()), folded)

    error = _on_few(error_on, _doubled(_inputs(example, 1)))
    if not error <= REHEARSAL:
        _check_that_it_repeats(exact.model, _doubled(_inputs(example, 1)))
        raise CertificateError(f"{type(net.model).__name__} cannot be compacted: with the factors multiplied into its parameters its "
                               f"outputs differ by {error:.1e} of their size. Does a hook or a patch of a layer do more than the layer "
                               "itself? Nothing was changed.")


def _check_that_it_repeats(exact, inputs):
    """Say so if a network gives other outputs for the same inputs: no two networks like that can be compared."""
    with torch.no_grad(), _InDouble():
        if draws(exact, inputs):
            raise SwitchError(f"{type(exact).__name__} {DRAWS}: what it computes cannot be compared. Nothing was changed.")


def _removed(exact, wiring):
    """Return a float64 network without what does not matter in it, the plan of that, and the biases that absorb constants."""
    plan = _Plan(wiring)
    biases = plan.absorbed(exact)
    return _carry_out(exact, plan, biases), plan, biases


def _carry_out(model, plan, biases):
    """Return a smaller copy of a model; what stays whole is not copied but shared."""
    small = _over_the_same_tensors(model)
    for name, bias in biases.items():
        _set_parameter(small, name, bias.to(model.get_parameter(name)))
    _slice(small, plan)
    return small


def _over_the_same_tensors(model):
    """Return a copy of a model's modules over the very same parameters and buffers: large weights are not copied in vain."""
    return detached_copy(model, [*model.parameters(), *model.buffers()])


def _set_parameter(model, name, tensor):
    """Give a model a new parameter; whoever shares the old one keeps it."""
    owner, attribute = _owner(model, name)
    setattr(owner, attribute, nn.Parameter(tensor, getattr(owner, attribute).requires_grad))


def _rehearse(exact, wiring, example):
    """Remove random neurons from a float64 copy first, everywhere where the network could be switched; then others.

    Which neurons are off now need not show every fault in what was found out about a network that was never seen before.
    """
    sites, inputs, generator = tied_sites(wiring), _doubled(_inputs(example, 1)), torch.Generator().manual_seed(0)
    drawn = [_two_choices(site.size, generator) for site in sites]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SwitchWarning)    # of the network itself they have been, or will be, said once
        for choice in zip(*drawn):
            trial = _over_the_same_tensors(exact)
            params = whole = {name: p.detach() for name, p in exact.named_parameters()}
            for site, on in zip(sites, choice):
                params = site.scale(params, on * (0.5 + torch.rand(site.size, generator=generator, dtype=torch.float64)))
            for name in [name for name in params if params[name] is not whole[name]]:
                _set_parameter(trial, name, params[name])

            def error_on(x, trial=trial):
                told = _traced(trial, x)
                return _exact_error(trial, _removed(trial, told)[0], x, told.output)

            error = _on_few(error_on, inputs)
            if not error <= REHEARSAL:
                _check_that_it_repeats(exact, inputs)
                raise CertificateError(
                    f"{type(exact).__name__} cannot be compacted: with random neurons off, removing them changed the outputs by "
                    f"{error:.1e} of their size. What its forward() does is not what was found out about it. Nothing was changed.")


def _on_few(error_on, inputs):
    """An error on one input, and on all where that is too large: float64 takes its time, and some networks squeeze a single input away."""
    try:
        error = error_on(inputs[:1])
    except (CertificateError, SwitchError, RuntimeError, IndexError, ValueError):
        error = math.inf
    return error if error <= REHEARSAL else error_on(inputs)


def _two_choices(size, generator):
    """Draw which half of some neurons stays, and then the other half: each neuron goes once, unless it is alone.

    The later one stands, the likelier it goes first: so a forward() that halves its channels loses different numbers of them.
    """
    order = (torch.rand(size, generator=generator) + torch.linspace(0, 1, size)).argsort()
    first, second = order[:(size + 1) // 2], order[(size + 1) // 2:] if size > 1 else order
    return [torch.zeros(size).index_fill(0, on, 1).double() for on in (first, second)]


class _Plan:
    """What goes and what stays: for each axis of each tensor, the positions that are kept."""

    def __init__(self, wiring):
        self.wiring = wiring
        self.modules = wiring.modules
        self.reads = {read.path: read for read in wiring.reads}
        self.roots = {read: wiring.root(read.labels) for read in wiring.reads}
        self.reason = {}         # label of a neuron -> why it goes
        self.constant = {}       # label -> {reader: what the neuron contributes to the reader's outputs}
        self._nonzero = {}       # reader -> which outputs have a weight other than 0 for which inputs
        self._look()
        self._decide()
        self.keep = {}           # (tensor name, dim) -> positions kept
        self.index = {}          # Linear path -> positions of the features it reads, where some are left out
        self._positions()

    def _look(self):
        """Which neurons are constant wherever they are read, and which of them are 0."""
        count = 1 + max((int(p.labels.max()) for p in self.wiring.producers.values()), default=0)
        seen, varies, not_zero = torch.zeros(3, count, dtype=torch.bool)
        for read, roots in self.roots.items():
            const = read.const[:1].movedim(neuron_dim(self.modules[read.path]), 0).flatten(1)
            for which, true in ((seen, roots > 0), (varies, const.isnan().any(1)), (not_zero, (const != 0).any(1))):
                which[roots[true & (roots > 0)]] = True
        self.is_constant, self.is_zero = seen & ~varies, seen & ~not_zero

    def _decide(self):
        self.stuck = {}          # label -> why it stays although it is constant
        candidates = torch.zeros_like(self.is_zero)
        for producer in self.wiring.producers.values():
            candidates[self.wiring.root(producer.labels)] = True
        candidates[list(self.wiring.fixed)] = False
        for label in (candidates & self.is_constant).nonzero()[:, 0].tolist():
            self._try_constant(label)
        constant = dict(self.reason)
        while True:              # a neuron kept for its layer's sake may need what it reads: then again without it
            self.reason = {label: why for label, why in constant.items() if candidates[label]}
            self._leave_out_unread(candidates)
            kept = self._keep_one_each()
            if not kept:
                return
            candidates[list(kept)] = False

    def _leave_out_unread(self, candidates):
        while True:              # an unread neuron frees what only it has read
            off, used = self._off(), torch.zeros_like(candidates)
            for read, roots in self.roots.items():
                used[roots[self._used(read, off) & (roots > 0)]] = True
            unread = candidates & ~off & ~used
            if not unread.any():
                return
            why = "off: no reader that is on gives it a weight other than 0"
            self.reason |= dict.fromkeys(unread.nonzero()[:, 0].tolist(), why)

    def _off(self):
        """For each label, whether its neuron goes."""
        off = torch.zeros_like(self.is_zero)
        off[list(self.reason)] = True
        return off

    def _on(self, labels, off):
        return ~off[self.wiring.root(labels).clamp(min=0)]    # nobody, label 0, never goes, and neither does the input

    def _used(self, read, off):
        """Rule (b): which features of a layer's input have a weight other than 0 in an output that is itself on."""
        if read.path not in self._nonzero:
            self._nonzero[read.path] = weights_apart(self.modules[read.path])
        rows = weight_dims(self.modules[read.path])[0]
        return self._nonzero[read.path][self._on(self.wiring.axes[f"{read.path}.weight", rows], off)].any(0)

    def _try_constant(self, label):
        """Rules (a) and (c): the neuron is constant wherever it is read, and worth the same everywhere there."""
        if self.is_zero[label]:
            self.reason[label] = "off: constant 0"
            return
        contributions, values = {}, []
        places = [(read, at) for read, roots in self.roots.items() if len(at := torch.nonzero(roots == label)[:, 0])]
        for read, at in places:
            module = self.modules[read.path]
            dim = neuron_dim(module)
            const = read.const[:1].index_select(dim, at)
            values.append(const)
            if (const == 0).all():
                continue
            if isinstance(module, TRANSPOSED_MODULES):
                self.stuck[label] = f"kept: constant, but the kernels of {read.path} overlap in different numbers from place to place"
                return
            alone, weight = torch.zeros_like(read.const[:1]).index_copy(dim, at, const), module.weight.detach().double()
            if isinstance(module, nn.Linear):
                worth = affine(module, alone, weight, None).flatten(0, -2)
            else:
                worth = everywhere(module, uniform(alone).flatten(), weight, None)[None]
            if worth.isnan().any() or not torch.allclose(worth, worth[:1], rtol=0, atol=1e-14 * float(worth.abs().max())):
                self.stuck[label] = f"kept: constant, but the zero padding of {read.path} shows where the border is"
                return
            if module.bias is None:
                self.stuck[label] = f"kept: constant, but {read.path} has no bias to absorb it"
                return
            if sum(other.path == read.path for other, _ in places) > 1:
                self.stuck[label] = f"kept: constant, but {read.path} runs more than once on the same bias"
                return
            contributions[read.path] = worth[0]
        value = float(values[0].flatten()[0])
        self.constant[label] = contributions
        self.reason[label] = f"off: constant {value:.4g}, absorbed into {', '.join(f'{p}.bias' for p in contributions)}"

    def _keep_one_each(self):
        """Keep the first neuron of every layer that has none left, and return the labels kept."""
        kept, off = set(), self._off()
        for path, producer in self.wiring.producers.items():
            if not self._on(producer.labels, off).any():
                first = int(self.wiring.root(producer.labels)[0])
                warnings.warn(f"{path}: all {len(producer.labels)} neurons are off; one is kept so that the layer exists.",
                              SwitchWarning, stacklevel=6)
                self.stuck[first] = "kept: the last neuron of its layer"
                self.reason.pop(first)
                self.constant.pop(first, None)
                off[first] = False
                kept.add(first)
        return kept

    def _positions(self):
        off = self._off()
        for (name, dim), labels in self.wiring.axes.items():
            self.keep[name, dim] = torch.nonzero(self._on(labels, off))[:, 0]
        for path, read in self.reads.items():
            module = self.modules[path]
            single = read.of_input or read.flattened or isinstance(module, SelectLinear)
            if isinstance(module, nn.Linear) and single:
                self._select_features(path, read, module, off)

    def _select_features(self, path, read, module, off):
        """Leave out features that no neuron of a Linear layer reads, although what they come from stays."""
        arriving = self.keep[f"{path}.weight", 1]
        used = self._used(read, off)[arriving]
        if not used.any():
            used[0] = True
        if isinstance(module, SelectLinear):
            sources = self._on(read.arriving, off).cumsum(0) - 1    # where each feature will arrive, once its source has shrunk
            self.index[path] = sources[module.index][arriving[used]]
        elif not used.all():
            self.index[path] = torch.nonzero(used)[:, 0]
        self.keep[f"{path}.weight", 1] = arriving[used]

    @property
    def reasons(self):
        """For each layer, and each layer's selected features, why each neuron went or stayed."""
        why, layers = {}, {**{path: producer.labels for path, producer in self.wiring.producers.items()}, **self.wiring.through}
        for path in sorted(layers, key=self.wiring.order.get):
            roots = self.wiring.root(layers[path]).tolist()
            fixed = {root: f"{ON}: {self.wiring.fixed[root]}" for root in roots if root in self.wiring.fixed}
            why[path] = [self.reason.get(root) or self.stuck.get(root) or fixed.get(root, ON) for root in roots]
        for path in self.index:
            kept = set(self.keep[f"{path}.weight", 1].tolist())
            why[f"{path} (inputs)"] = [ON if i in kept else "off: no neuron gives it a weight other than 0"
                                       for i in range(len(self.reads[path].labels))]
        return why

    def absorbed(self, exact):
        """Return {bias name: its float64 value with the contributions of absorbed neurons}."""
        biases = {}
        for contributions in self.constant.values():
            for path, worth in contributions.items():
                name = f"{path}.bias"
                biases[name] = biases.get(name, exact.get_parameter(name).detach().clone()) + worth
        return biases


def _slice_tensor(name, tensor, plan):
    for dim in range(tensor.ndim):
        keep = plan.keep.get((name, dim))
        if keep is not None and len(keep) < tensor.shape[dim]:
            tensor = tensor.index_select(dim, keep.to(tensor.device))
    return tensor.contiguous()


def _slice(model, plan):
    """Slice every parameter and buffer of a model in place and set the layers' sizes."""
    new = {}    # a parameter with two owners stays one parameter
    for name, p in list(model.named_parameters(remove_duplicate=False)):
        owner, attribute = _owner(model, name)
        if p not in new:
            new[p] = nn.Parameter(_slice_tensor(name, p.data, plan), p.requires_grad)
        setattr(owner, attribute, new[p])
    for name, b in list(model.named_buffers()):
        owner, attribute = _owner(model, name)
        setattr(owner, attribute, _slice_tensor(name, b, plan))
    for path, index in plan.index.items():
        _set_index(model, path, index)
    for path, labels in plan.wiring.through.items():
        module = model.get_submodule(path)
        module.groups = module.groups * len(module.weight) // len(labels)    # groups go whole
    for module in model.modules():
        _set_sizes(module)


def _owner(model, name):
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def _set_index(model, path, index):
    """Make the Linear layer at ``path`` read only the features at ``index``."""
    linear = model.get_submodule(path)
    index = index.to(linear.weight.device)
    if isinstance(linear, SelectLinear):
        linear.index = index
        return
    chosen = SelectLinear(index, linear.out_features, linear.bias is not None)
    chosen.weight, chosen.bias = linear.weight, linear.bias
    chosen.train(linear.training)
    _replace(model, linear, chosen)


def _set_sizes(module):
    """Set the size attributes of a layer from the shapes of its tensors."""
    if not computes_as_known(module):    # it may have other weights than its class, and is never cut
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, CONV_MODULES):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, TRANSPOSED_MODULES):
        module.in_channels, module.out_channels = module.weight.shape[:2]
    elif isinstance(module, CHANNEL_NORM_MODULES):
        sizes = [t.shape[0] for t in (module.weight, module.running_mean) if t is not None]
        module.num_features = sizes[0] if sizes else module.num_features
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


def _inputs(example, most):
    """Some of the example's own inputs, and as many random ones of the same mean and standard deviation."""
    real, like, generator = example[:most], example[:256], torch.Generator().manual_seed(0)
    if real.is_floating_point():
        noise = torch.randn(real.shape, generator=generator).to(real) * like.std(correction=int(like.numel() > 1)) + like.mean()
    else:    # such as the numbers of words: drawn from those that occur
        noise = real.flatten()[torch.randint(real.numel(), real.shape, generator=generator).to(real.device)]
    return torch.cat([real, noise])


def _certify(exact, exact_small, folded, small, example, tolerance, known=None):
    """Hold two networks against each other; ``known`` is what the first one makes of the first two inputs, where that is known."""
    real, x = example[:256], _inputs(example, 256)
    apart = len(real[:2]) if known is not None else 0
    error = _exact_error(exact, exact_small, _doubled(x[apart:].cpu()))
    if apart:
        error = max(error, _exact_error(exact, exact_small, _doubled(x[:apart].cpu()), known), key=lambda e: (e != e, e))    # NaN is the worst
    return Certificate(error, tolerance, len(x), _error(folded, small, real))


def _error(one, other, inputs, output=None):
    """max|y − ŷ| / max|y| of two networks; ``output`` is what the first one returns, where that is known already."""
    with torch.no_grad():
        with untouched(one):    # a forward() may count or collect, and write into what it is given
            outputs = tensors_in(one(inputs.clone()) if output is None else output)
        try:
            with untouched(other):
                others = tensors_in(other(inputs.clone()))
        except RuntimeError as failure:
            raise CertificateError(f"the compacted {type(one).__name__} does not run ({failure}); a forward() that "
                                   "counts on sizes written into its code, or on more than one channel as x.squeeze() does, "
                                   "cannot be compacted.") from failure
    if not outputs:
        raise SwitchError(f"{type(one).__name__} returns no tensor: there is nothing to compare.")
    shapes, other_shapes = ([tuple(y.shape) for y in found] for found in (outputs, others))
    if shapes != other_shapes:
        raise CertificateError(f"the compacted {type(one).__name__} returns shape {', '.join(map(str, other_shapes))} instead of "
                               f"{', '.join(map(str, shapes))}: its forward() reshapes by sizes written into its code, so a wrong "
                               "batch would come out. Use torch.flatten(x, 1).")
    return relative_difference(outputs, others)


# Optimizers' state, by the power of the gradient that it accumulates: θ' = θ s turns a gradient g into g / s.
GRADIENT_POWER = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2,
                  "grad_avg": 1, "exp_inf": 1}


def _slice_optimizer(optimizer, net, small, plan):
    """Return a new optimizer of the same class over ``small``, its state sliced and in the folded coordinates."""
    model = net.model if isinstance(net, Switched) else net
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if id(p) not in names:
                raise ValueError(f"optimizer holds a tensor of shape {tuple(p.shape)} that is no parameter of the task "
                                 "network; give the task network's own optimizer.")
    scales = {}
    if isinstance(net, Switched):
        with torch.no_grad(), evaluating(net):
            scales = net.scale({name: torch.ones_like(p) for name, p in model.named_parameters()}, net.factors())
    new = dict(small.named_parameters())
    groups = [{**{k: v for k, v in group.items() if k != "params"}, "params": [new[names[id(p)]] for p in group["params"]]}
              for group in optimizer.param_groups]
    sliced = type(optimizer)(groups)
    for group in optimizer.param_groups:
        for p in group["params"]:
            name, state = names[id(p)], optimizer.state.get(p, {})
            if strange := [key for key, value in state.items() if not _sliceable(value, p)]:
                warnings.warn(f"the state of {type(optimizer).__name__} for {name} ({', '.join(strange)}) has another shape than the "
                              "parameter and is left behind: it starts anew.", SwitchWarning, stacklevel=3)
                continue
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == p.shape:
                    if name in scales and key in GRADIENT_POWER:
                        s = scales[name]
                        value = torch.where(s == 0, 0.0, value / torch.where(s == 0, 1.0, s) ** GRADIENT_POWER[key])
                    value = _slice_tensor(name, value, plan)
                sliced.state[new[name]][key] = copy.deepcopy(value)
    return sliced


def _sliceable(value, parameter):
    """Whether an entry of an optimizer's state is as large as its parameter, or has nothing to do with its size."""
    if isinstance(value, torch.Tensor):
        return value.shape == parameter.shape or value.numel() == 1
    return not isinstance(value, (list, tuple, dict))


def load_compact(path: str | os.PathLike[str], into: Callable[[], nn.Module]) -> nn.Module:
    """Load a compacted network.

    Parameters
    ----------
    path : str or Path
        A file written by :meth:`Compacted.save`.
    into : callable
        A factory of the original network, such as ``switcher_lib.models.lenet_300_100``; called without arguments.

    Returns
    -------
    nn.Module
        The compacted network, in eval mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, pickled, or not ours, or belongs to another model or to a larger one.
    TypeError
        If ``into`` is not a factory of modules.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file.")
    model = into() if callable(into) and not isinstance(into, nn.Module) else None
    if not isinstance(model, nn.Module):
        raise TypeError(f"into is a {type(into).__name__}; it must be a factory: a function or class that makes the original nn.Module.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            # copied: in the file they lie at odd addresses, where some kernels sum in another order, and the file may change
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except Exception as error:
        raise ValueError(f"path={str(path)!r} is not a whole safetensors file ({error}). It may be truncated, or a "
                         "pickle; pickles are never read.") from error
    if meta.get("format") != FORMAT:
        raise ValueError(f"path={str(path)!r} has format {meta.get('format')!r}; this version reads {FORMAT!r}.")
    shapes = {name: p.shape for name, p in model.named_parameters()}
    _fill(model, tensors, str(path), meta.get("class"))
    _check_original(shapes, json.loads(meta.get("original", "{}")), str(path))
    groups = json.loads(meta["groups"])
    for name, module in _convolutions(model).items():
        module.groups = groups.get(name, 1)    # one group is what is left of a depthwise convolution that lost all but one channel
    for module in model.modules():
        _set_sizes(module)
    return model.eval()


def _convolutions(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, (*CONV_MODULES, *TRANSPOSED_MODULES))}


def _check_original(shapes, original, path):
    """Refuse a model that is smaller than the one that was compacted; files without its shapes are taken as they are.

    A larger one passes: a network that was compacted twice knows the shapes in between only.
    """
    for name, here in shapes.items():
        shape = original.get(name, [])
        if len(shape) == len(here) and any(a > b for a, b in zip(shape, here)):
            raise ValueError(f"path={path!r} was compacted from a model whose {name} has shape {tuple(shape)}; into() made "
                             f"one with {tuple(here)}. Give the factory of the original network.")


def _fill(model, tensors, path, kind):
    """Put tensors into a freshly made model, letting its layers shrink; nothing is changed where they do not fit."""
    wanted = dict(model.state_dict())
    index = {name.removesuffix(".index"): t for name, t in tensors.items() if name.endswith(".index") and name not in wanted}
    rest = {name: t for name, t in tensors.items() if name.removesuffix(".index") not in index or not name.endswith(".index")}
    wrong = sorted(set(wanted) ^ set(rest))
    wrong += [name for name in set(wanted) & set(rest) if rest[name].ndim != wanted[name].ndim
              or any(a > b for a, b in zip(rest[name].shape, wanted[name].shape))]
    wrong += [f"{name}.index" for name in index if not isinstance(dict(model.named_modules()).get(name), nn.Linear)]
    if wrong:
        raise ValueError(f"path={path!r} belongs to another model (a {kind}; into() made a {type(model).__name__}): these "
                         f"tensors do not fit: {', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}.")
    new = {}    # a parameter with two owners stays one parameter
    for name, old in model.state_dict(keep_vars=True).items():
        owner, attribute = _owner(model, name)
        is_parameter = isinstance(old, nn.Parameter)
        setattr(owner, attribute, new.setdefault(old, nn.Parameter(rest[name], old.requires_grad)) if is_parameter else rest[name])
    for name, t in index.items():
        _set_index(model, name, t)
