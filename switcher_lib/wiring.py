"""What is wired to what: labels and constants run through a network's graph.

Every neuron (a row of a Linear layer, a channel of a convolution) gets a number of its own, its *label*. The labels
then run through the network in place of activations: a layer that mixes its inputs reads labels and writes new ones,
everything else hands them on. Where two tensors are added or multiplied, the labels that meet are *tied*: these
neurons can only go together. Afterwards each axis of each parameter is known to belong to certain labels, so that
scaling a neuron, or removing it, is a matter of indexing and never of special cases.

Along with the labels run *constants*: float64 values that are NaN wherever the input has a say. They tell which
neurons are switched off (constant 0), which are constant otherwise, and what that constant is worth to a reader.
"""

import copy
import inspect
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from switcher_lib.errors import SwitchError
from switcher_lib.layers import (
    AFFINE_MODULES, TRANSPOSED_MODULES, SelectLinear, constant_output, lay, neuron_dim, nothing_known, nowhere_known,
    select, uniform, weight_dims,
)
from switcher_lib.outputs import relative_difference

__all__ = ["trace"]

NOBODY = 0   # label of entries that belong to no neuron: sums, unknown operations
INPUT = -1   # label of the network's own input
SAME = 1e-3  # relative difference up to which outputs count as the same, but in half precision

DROPOUT_MODULES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
POINTWISE_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Threshold, nn.Softshrink, nn.Hardshrink,
    nn.Tanhshrink, nn.Identity, *DROPOUT_MODULES,
)
DROPOUT_NAMES = {"dropout", "dropout1d", "dropout2d", "dropout3d", "stochastic_depth"}
POINTWISE_NAMES = {
    "relu", "relu_", "leaky_relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh",
    "hardsigmoid", "tanh", "sigmoid", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "square", "log1p", "sign",
    "leaky_relu_", "elu_", "tanh_", "sigmoid_", "hardtanh_", "exp", "expm1", "erf", "sin", "cos", "tan", "sinh", "cosh", "asin",
    "asinh", "atan", "contiguous", "clone", "detach", "abs", "neg",
} | DROPOUT_NAMES
CAST_NAMES = {"to", "type_as", "float", "double", "half", "bfloat16"}
BOUNDED_NAMES = {"clamp", "clamp_", "clamp_min", "clamp_max", "clip"}    # by numbers, not by tensors
POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)
POOL_NAMES = {f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)} | {"interpolate"}
LAYOUT_MODULES = (nn.Flatten, nn.Unflatten)
LAYOUT_NAMES = {"flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "cat", "concat", "t",
                "movedim", "expand"}
LIKE_NAMES = {"expand_as", "view_as", "reshape_as"}
OVER_PLACES_NAMES = {"mean", "sum", "amax", "amin", "max", "min"}
FIRST_IS_INPUT = POINTWISE_NAMES | BOUNDED_NAMES | POOL_NAMES | OVER_PLACES_NAMES | {"flatten", "chunk", "split", "unbind", "pad"}
PIECES_NAMES = {"chunk", "split", "unbind", "tensor_split"}
SUM_NAMES = {"add", "add_", "iadd", "sub", "sub_", "isub"}
PRODUCT_NAMES = {"mul", "mul_", "imul"}
NORM_MODULES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CHANNEL_NORM_MODULES = (*NORM_MODULES, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)    # each channel by itself
KNOWN_MODULES = (*AFFINE_MODULES, *CHANNEL_NORM_MODULES, *POINTWISE_MODULES, *POOL_MODULES, *LAYOUT_MODULES)


def trace(model: nn.Module, example: Tensor) -> "Wiring":
    """Run labels and constants through a model, in eval mode, and return what they tell.

    Parameters
    ----------
    model : nn.Module
        The network; its mode, parameters and buffers are left as they were.
    example : Tensor
        A batch of inputs.

    Returns
    -------
    Wiring
        Labels of every parameter axis, producers and readers of every neuron.

    Raises
    ------
    SwitchError
        If the model cannot be traced, or the example does not go through it.
    """
    check_model_and_example(model, example)
    with untouched(model, training=False) as kept:
        graph = Tracer().trace(model)
        kept.put_back_buffers()    # torch.fx carries out what forward() does to them
        with torch.no_grad():
            try:    # on the CPU, wherever the model is: constants are float64, which not every device has
                elsewhere = any(p.device.type != "cpu" for p in model.parameters())
                return Wiring(detached_copy(model).cpu() if elsewhere else model, graph, example[:2].cpu().clone())
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                if isinstance(error, SwitchError):
                    raise
                raise SwitchError(f"example of shape {tuple(example.shape)} does not go through {type(model).__name__}: {error} "
                                  f"(it is of type {example.dtype})") from error


def differs_in_training(model: nn.Module) -> str:
    """Return where a model's forward() goes another way in train mode than in eval mode, as a sentence; "" where it does not.

    Dropout and its like may differ: they act on each number alone. What layers do inside, such as BatchNorm, is not looked at.

    Parameters
    ----------
    model : nn.Module
        The network; its mode, parameters and buffers are left as they were.
    """
    with untouched(model, training=False):
        evaluating = _operations(model)
    with untouched(model, training=True):
        try:
            training = _operations(model)
        except SwitchError as error:
            return f"in train mode forward() goes a way that torch.fx cannot follow ({error.__cause__})"
    apart = (name for (name, *given), other in zip(training, evaluating) if (name, *given) != other)
    return "" if training == evaluating else f"in train mode forward() goes another way, from {next(apart, 'its end')} on"


def _operations(model):
    """[(name, what is given)] of what a model's forward() does, without dropout and its like, which hand on what they read."""
    modules, number, found = dict(model.named_modules(remove_duplicate=False)), {}, []
    for node in Tracer().trace(model).nodes:
        given = node.all_input_nodes
        name = node.target if node.op == "call_module" else _name(node) if node.op.startswith("call") else node.op
        if given and (name in DROPOUT_NAMES or isinstance(modules.get(name), DROPOUT_MODULES)):
            number[node] = number[given[0]]
            continue
        number[node] = len(found)
        options = {key: value for key, value in node.kwargs.items() if key != "training" and not key.startswith("dropout")}
        told = node.target if node.op == "get_attr" and not node.target.startswith("_tensor_constant") else ""    # fx numbers those
        found.append((name, told, repr(fx.map_arg((node.args, options), number.__getitem__))))
    return found


DRAWS = "gives other outputs for the same inputs in eval mode (F.dropout, for one, needs training=self.training)"


def draws(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether a model's outputs for the same inputs differ, in eval mode: something in it is random."""
    first, second = (_outputs(model, inputs) for _ in range(2))
    return relative_difference(first, second) > SAME


def _outputs(model, inputs):
    with untouched(model, training=False), torch.no_grad():
        return model(inputs.clone())


def check_traced(model: nn.Module, example: Tensor, traced: Any) -> str:
    """Hold what torch.fx's graph computes against what the model returns.

    A model on another device, or in half precision, is taken at torch.fx's word.

    Parameters
    ----------
    model : nn.Module
        The network; it is left as it was.
    example : Tensor
        A batch of inputs.
    traced : object
        :attr:`Wiring.output` for it.

    Returns
    -------
    str
        A sentence if they differ because the model draws at random, else "".

    Raises
    ------
    SwitchError
        If they differ otherwise: what was found out is not what ``forward()`` does.
    """
    inputs, types = example[:2], {p.dtype for p in model.parameters() if p.is_floating_point()}
    if any(p.device.type != "cpu" for p in model.parameters()) or types & {torch.float16, torch.bfloat16}:
        return ""    # the graph ran on the CPU, and half precision rounds by more than what tells them apart
    if not relative_difference(traced, _outputs(model, inputs)) > SAME:
        return ""
    if draws(model, inputs):
        return f"{type(model).__name__} {DRAWS}: it can be switched and trained, but compact() will not take it"
    raise SwitchError(f"what torch.fx follows of {type(model).__name__} computes something else than the model does: a hook on it, or a "
                      "forward() that asks for what its inputs are, such as isinstance(x, torch.Tensor).")


def check_model_and_example(model: nn.Module, example: Tensor) -> None:
    """Raise TypeError or ValueError if one of them is not what its name says."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"model is {what}; it must be an nn.Module, an instance of a network.")
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or len(example) == 0:
        got = tuple(example.shape) if isinstance(example, torch.Tensor) else type(example).__name__
        raise ValueError(f"example={got} must be a tensor: a batch of at least one input, as the model takes it.")


@contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Give every module of some models its own mode, train or eval, back in the end."""
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def untouched(model: nn.Module, training: bool | None = None) -> Iterator["_Kept"]:
    """Leave a model's mode, buffers and attributes as they are, whatever its forward() and torch.fx do to them in between.

    A forward() may cache, count and collect; traced, what it keeps are torch.fx's stand-ins. What a model's own ``train()`` does,
    such as merging an adapter's weights, stays done: it may have written into parameters, and knows that by an attribute.

    Parameters
    ----------
    model : nn.Module
        The model.
    training : bool, optional
        The mode it has in between; None leaves each module's.
    """
    with modes_kept(model):
        if training is not None:
            model.train(training)
        kept = _Kept(model)
        try:
            yield kept
        finally:
            kept.put_back_attributes()
            kept.put_back_buffers()


class _Kept:
    """What modules had in their attributes and buffers."""

    def __init__(self, model):
        self.attributes = [(module, type(module), dict(vars(module))) for module in model.modules()]
        self.collections = [(module, one, copy.copy(one)) for module, _, own in self.attributes for one in _collections(tuple(own.values()))]
        self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]

    def put_back_attributes(self):
        """Of all modules but those that have become another class by running once, as a lazy layer does."""
        same = {module for module, kind, _ in self.attributes if type(module) is kind}
        attributes = [(module, vars(module), own) for module, _, own in self.attributes]
        for module, now, then in (*attributes, *self.collections):
            if module in same and _entries(now) != _entries(then):
                now.clear()
                now.update(then) if isinstance(now, (dict, set)) else now.extend(then)

    def put_back_buffers(self):
        """Their numbers."""
        with torch.no_grad():
            for buffer, before in self.buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def _collections(value):
    """The dicts, lists, sets and deques in a value, whatever collections they are in; those of a module's own parts among them."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, set, tuple, deque)) else ()
    inside = [one for part in parts for one in _collections(part)]
    return [value, *inside] if isinstance(value, (dict, list, set, deque)) else inside


def _entries(collection):
    """Which objects are in a collection: tensors cannot be compared as a whole."""
    return [*map(id, collection), *map(id, collection.values() if isinstance(collection, dict) else ())]


def detached_copy(model: nn.Module, shared: Sequence[Tensor] = ()) -> nn.Module:
    """Return a deep copy of a model, also where it keeps an activation, which PyTorch refuses to copy with its graph.

    Parameters
    ----------
    model : nn.Module
        The model.
    shared : sequence of Tensor, default ()
        What both are to have: not copied.
    """
    kept = [value for module in model.modules() for value in vars(module).values()
            if isinstance(value, torch.Tensor) and value.grad_fn is not None]
    try:
        return copy.deepcopy(model, {id(t): t.detach() for t in kept} | {id(t): t for t in shared})
    except (TypeError, RuntimeError) as error:
        raise SwitchError(f"{type(model).__name__} cannot be copied ({error}): it keeps something besides parameters and buffers that "
                          "Python's deepcopy does not take.") from error


class Tracer(fx.Tracer):
    """Looks into every module but PyTorch's own, unchanged ones, whose behaviour is known."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Return whether a module is taken as a whole."""
        return super().is_leaf_module(module, path) or computes_as_known(module)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Give forward() one stand-in, for its input: every option has its default, whatever that is."""
        name = next(iter(inspect.signature(self.root.forward).parameters))
        return (lambda root, x: root.forward(x)), [self.root, self.create_proxy("placeholder", name, (), {})]

    def trace(self, root: nn.Module, concrete_args: dict[str, Any] | None = None) -> fx.Graph:    # type: ignore[override]
        """Return the graph of a model's forward() with every option at its default.

        Parameters
        ----------
        root : nn.Module
            The model.
        concrete_args : None
            Not used: whatever has a default has that.

        Raises
        ------
        SwitchError
            If forward() has no single path that torch.fx could follow.
        """
        taken = list(inspect.signature(root.forward).parameters.values())
        if many := [p for p in taken if p.kind is p.VAR_POSITIONAL]:
            raise SwitchError(f"forward() of {type(root).__name__} takes any number of inputs (*{many[0].name}); only networks of one "
                              "input can be switched. If it is a wrapper, such as torch.compile's, give the network inside.")
        if needed := [p for p in taken[1:] if p.default is p.empty and p.kind is not p.VAR_KEYWORD]:
            raise SwitchError(f"forward() takes {needed[0].name!r} besides {taken[0].name!r}; only networks of one input can be switched.")
        try:
            return super().trace(root)
        except Exception as error:
            hint = " Sizes go into torch.zeros() and its kin together: torch.zeros((n, m))." if "positional argument" in str(error) else ""
            raise SwitchError(
                f"model={type(root).__name__} cannot be traced by torch.fx ({error}).{hint} It follows one path through forward(): not "
                "through code that branches on values or sizes, nor into what torch.compile, torch.jit or DataParallel have "
                "wrapped. Give the network inside, or switch a submodule of it."
            ) from error


def _known_kind(module):
    """The known class that a module is of, or None."""
    return next((kind for kind in KNOWN_MODULES if isinstance(module, kind)), None)


def computes_as_known(module: nn.Module) -> bool:
    """Return whether a module's class has a known layer's forward(), as a layer with a name or a first weight of its own does."""
    if isinstance(module, SelectLinear):
        return True
    kind = _known_kind(module)
    return kind is not None and all(getattr(type(module), name, None) is getattr(kind, name, None)
                                    for name in ("forward", "__call__", "_conv_forward"))


# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where factors of a producer's neurons would multiply: at the last affine layer so far, if nothing since then leaks."""

    producer: str         # path of the layer that writes the neurons
    path: str             # of the Linear, Conv or BatchNorm
    leak: str = ""        # a sentence, if an operation since then does not map 0 to 0


@dataclass
class Flow:
    """What runs along an edge of the graph: an activation, its labels and its constants, all of one shape."""

    value: torch.Tensor
    label: torch.Tensor                # int64
    const: torch.Tensor                # float64, NaN where the value depends on the input
    places: frozenset[Place] = frozenset()

    def __post_init__(self) -> None:    # expanded tensors, which view() refuses although it takes the value
        self.label = self.label.contiguous()
        self.const = nothing_known(self.const.shape) if nowhere_known(self.const) else self.const.contiguous()


@dataclass(frozen=True, eq=False)
class Named:
    """A parameter or buffer that a forward() reads by its name, not through its module."""

    name: str
    value: torch.Tensor


@dataclass(eq=False)
class Producer:
    """A layer that writes neurons."""

    path: str
    labels: torch.Tensor                          # (n,)
    places: set[Place] = field(default_factory=set)    # as found at the readers


@dataclass(eq=False)
class Read:
    """A layer that reads neurons: the labels of its input axis, and the constants that arrive there."""

    path: str
    labels: torch.Tensor      # (fan_in,)
    const: torch.Tensor       # as the layer's input
    arriving: torch.Tensor    # the labels before a SelectLinear's choice

    @property
    def of_input(self) -> bool:
        """Whether it reads the network's input."""
        return bool((self.labels == INPUT).all())

    @property
    def flattened(self) -> bool:
        """Whether a neuron occupies more than one position here."""
        real = self.labels[self.labels > 0]
        return len(real) > len(real.unique())


class Wiring:
    """What the labels found out about a model: see :func:`trace`.

    Attributes
    ----------
    modules : dict of str to nn.Module
        Path to module.
    order : dict of str to int
        Path to its place among the modules.
    buffers : set of str
        Names of all buffers.
    producers : dict of str to Producer
        The Linear and Conv layers that write neurons.
    reads : list of Read
        One for each call of a Linear or Conv layer.
    axes : dict of (str, int) to Tensor
        Name of a parameter or buffer, and dimension, to the labels along it.
    fixed : dict of int to str
        Label to the reason why its neuron can neither be switched nor removed.
    through : dict of str to Tensor
        Grouped convolutions, which hand their groups on, to the labels of their channels.
    opaque : dict of str to str
        Path of a layer with parameters that is not looked into, and why.
    output : Tensor
        What the model returned for the first two inputs of the example.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, example: Tensor) -> None:
        self.modules = dict(model.named_modules())
        self.order = {path: i for i, path in enumerate(self.modules)}
        self.buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        self._tensors = {*self.buffers, *(name for name, _ in model.named_parameters())}
        self.producers: dict[str, Producer] = {}
        self.reads: list[Read] = []
        self.axes: dict[tuple[str, int], Tensor] = {}
        self.fixed: dict[int, str] = {}
        self.through: dict[str, Tensor] = {}
        self.opaque: dict[str, str] = {}
        self._parent = [NOBODY]            # union-find over labels: neurons that can only go together
        self._shared = shared_parameters(model)
        self._behind: dict[str, set[str]] = defaultdict(set)    # path of a place -> places in front of it, on the same neurons
        self._meet: set[frozenset[str]] = set()                 # pairs of places whose neurons are multiplied with each other
        self._cut: list[tuple[tuple[Flow, ...], int, str]] = []
        self._read_by_name: dict[str, str] = {}
        self._sizes: dict[fx.Node, list[set[int]]] = {}    # what is computed from sizes, to the labels along each axis it tells of
        self._run(graph, example)

    # -- questions that others ask

    def root(self, labels: Tensor) -> Tensor:
        """Return the labels with every group of tied neurons named by its lowest label."""
        return torch.where(labels > 0, self._roots[labels.clamp(min=0)], labels)

    def groups(self) -> list[list[Producer]]:
        """Return lists of producers whose neurons are tied to each other: most are alone."""
        found: list[list[Producer]] = []
        owner: dict[int, list[Producer]] = {}
        for producer in self.producers.values():
            roots = self.root(producer.labels).unique().tolist()
            mine = {id(owner[root]): owner[root] for root in roots if root in owner}
            group = [p for other in mine.values() for p in other] + [producer]
            found = [other for other in found if id(other) not in mine] + [group]
            for p in group:
                owner.update(dict.fromkeys(self.root(p.labels).unique().tolist(), group))
        order = {path: i for i, path in enumerate(self.producers)}
        return [sorted(group, key=lambda p: order[p.path]) for group in found]

    def refusal(self, group: Sequence[Producer], face: str, tied: bool = False) -> tuple[str | None, str]:
        """Return (reason, advice) why the neurons of a group of producers cannot be switched; (None, "") if they can."""
        for root in self.root(torch.cat([p.labels for p in group])).unique().tolist():
            if root in self.fixed:
                return self.fixed[root], ""
        places = set().union(*(p.places for p in group))
        if not places:
            return "nothing reads its neurons", ""
        writers, paths = sorted({place.producer for place in places}), sorted({place.path for place in places})
        if len(writers) > 1 and not tied:
            return (f"the neurons of {', '.join(writers)} are added up or multiplied and can only go together; tied=True switches "
                    "them together"), ""
        if face == "incoming":
            if len(paths) > 1 and not tied:
                return f"its neurons are read behind different layers ({', '.join(paths)}); tied=True scales all of them", ""
            for path in paths:
                above = self._in_front_of(path) & set(paths)
                if above or any(frozenset((path, other)) in self._meet for other in paths if other != path):
                    both = ", ".join(sorted({path, *above}) if above else paths)
                    return f"its neurons are read behind different layers on one path ({both}), which would scale them twice", ""
                norm = self.modules[path]
                if isinstance(norm, CHANNEL_NORM_MODULES) and not norm.affine:
                    kind = "BatchNorm" if isinstance(norm, NORM_MODULES) else "InstanceNorm"
                    return f"{path} ({kind} without γ and β) would undo any scaling", ""
            leaks = sorted({place.leak for place in places if place.leak})
            if leaks:
                return leaks[0], f"its {len(group[0].labels)} neurons stay unswitched"
        return None, ""

    def _in_front_of(self, path):
        """Paths of all places in front of one, on the same neurons."""
        found, waiting = set(), [path]
        while waiting:
            new = self._behind[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    def positions(self, name: str, dim: int, roots: Tensor) -> Tensor:
        """Return where neurons lie along an axis of a parameter.

        Parameters
        ----------
        name : str
            Name of the parameter.
        dim : int
            The axis.
        roots : Tensor of int64, shape (n,)
            The neurons, by their :meth:`root`.

        Returns
        -------
        Tensor of int64, shape (n, k)
            Row j holds the positions of neuron j, filled up with the axis's length where it has fewer than others.
        """
        along = self.root(self.axes[name, dim])
        order = along.argsort(stable=True)
        ordered = along[order]
        first, behind = torch.searchsorted(ordered, roots), torch.searchsorted(ordered, roots, right=True)
        steps = torch.arange(max(1, int((behind - first).max())))
        at = first[:, None] + steps
        return torch.where(at < behind[:, None], order[at.clamp(max=len(along) - 1)], len(along))

    def axes_of(self, roots: Tensor) -> list[tuple[str, int]]:
        """Return [(name, dim)] of all axes along which one of these neurons lies, in the order of the network."""
        found = {axis for root in roots.tolist() for axis in self._axes_by_root[root]}
        return sorted(found, key=self._axis_order.__getitem__)

    # -- the run

    def _run(self, graph, example):
        results, left = {}, {node: len(node.users) for node in graph.nodes}
        for node in graph.nodes:
            args = fx.map_arg(node.args, results.__getitem__)
            kwargs = fx.map_arg(node.kwargs, results.__getitem__)
            before = {id(f): f.value._version for f in _flows((args, kwargs))}
            results[node] = self._step(node, args, kwargs, example)
            if changed := [f for f in _flows((args, kwargs)) if f.value._version != before[id(f)]]:
                live = [flow for other, found in results.items() if other is not node for flow in _flows(found)]
                self._changed_in_place(changed, live, results[node])
            results[node] = self._sized(node, args, results[node])
            for used in node.all_input_nodes:    # an activation that nobody needs any more is large
                left[used] -= 1
                if not left[used]:
                    del results[used]
        for pieces, dim, reason in self._cut:    # only now is known what is tied to what
            found = [self._found(_across(piece.label, dim)) for piece in pieces]
            if found[0] is None or any(one != found[0] for one in found):
                self._fix(pieces, reason)
        for (name, _), labels in self.axes.items():
            if name in self._read_by_name:
                for label in labels.unique().tolist():
                    self._fix_label(label, self._read_by_name[name])
        seen = {*self.producers, *self.through, *(read.path for read in self.reads), *self.opaque}
        named = {node.target.rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
        self.opaque |= {path: _why_unseen(path, module, path in named) for path, module in self.modules.items()
                        if isinstance(module, AFFINE_MODULES) and path not in seen and not self._inside_opaque(path)}
        self._roots = torch.tensor([self._find(label) for label in range(len(self._parent))])
        self._axes_by_root, self._axis_order = defaultdict(list), {axis: i for i, axis in enumerate(self.axes)}
        for axis, labels in self.axes.items():
            for root in self.root(labels).unique().tolist():
                self._axes_by_root[root].append(axis)

    def _changed_in_place(self, changed, live, result):
        """An operation has written into what it was given: whoever else reads that gets the new numbers."""
        for x in changed:
            if isinstance(result, Flow) and result.value is x.value:
                x.label, x.const, x.places = result.label, result.const, result.places
            place = x.value.untyped_storage().data_ptr()
            for other in live:
                if not any(other is one for one in (*changed, *_flows(result))) and other.value.untyped_storage().data_ptr() == place:
                    self._fix([x, other], "its neurons are changed in place while something else still reads them")
                    x.const, other.const = nothing_known(x.const.shape), nothing_known(other.const.shape)

    def _sized(self, node, args, result):
        """Follow what is computed from sizes: a number of neurons is to change, and the size of an image may.

        Where a size only says how to lay out, pool or cut, it is asked for anew whenever the network runs.
        """
        name = _name(node) if node.op in ("call_function", "call_method") else ""
        if name in ("size", "len") or name == "getattr" and args[1] == "shape":
            if args and isinstance(args[0], Flow):
                at = 0 if name == "len" else node.kwargs.get("dim", *args[1:2]) if name == "size" else None
                axes = [self._neurons_along(args[0], dim) for dim in range(args[0].value.ndim)]
                self._sizes[node] = axes if at is None else [axes[at]]
            return result
        told = [self._sizes[used] for used in node.all_input_nodes if used in self._sizes]
        if not told:
            return result
        if name == "getitem" and node.args[0] in self._sizes and isinstance(node.args[1], (int, slice)):
            found = told[0][node.args[1]] if len(told[0]) > 1 else told[0]
            self._sizes[node] = found if isinstance(found, list) else [found]
            return result
        flows, neurons = _flows(result), set().union(*(axis for axes in told for axis in axes))
        if name == "expand" and isinstance(result, Flow):
            for label in set().union(*self._repeats(node, map_flow(args[0], "value"), result.value)):
                self._fix_label(label, "how many neurons there are is how often expand() repeats something")
        if isinstance(result, torch.Tensor):
            flows = [result := Flow(result, torch.full(result.shape, NOBODY), nothing_known(result.shape))]
        if not flows:
            self._sizes[node] = [neurons]
        elif name not in LAYOUT_NAMES | POOL_NAMES | PIECES_NAMES | {"getitem"}:
            for label in neurons:
                self._fix_label(label, "how many neurons there are is a number that forward() computes with")
            for flow in flows:
                keeps_zero = name in PRODUCT_NAMES | {"truediv", "div"}
                flow.const = torch.where((flow.const == 0) & keeps_zero, flow.const, math.nan)
        return result

    def _repeats(self, node, x, result):
        """For each axis along which expand() repeats, the labels whose number says how often."""
        sizes = node.kwargs.get("size", node.args[1:])
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        own = (1,) * (result.ndim - x.ndim) + tuple(x.shape)
        return [set().union(*self._sizes[size]) for size, before in zip(sizes, own)
                if before == 1 and isinstance(size, fx.Node) and size in self._sizes]

    def _neurons_along(self, x, dim):
        return {label for label in self._labels_in(x) if label > 0} if _varies(x.label, dim) else set()

    def _inside_opaque(self, path):
        return any(path.startswith(f"{other}.") for other in self.opaque)

    def _step(self, node, args, kwargs, example):
        if node.op == "placeholder":
            return Flow(example, torch.full(example.shape, INPUT), nothing_known(example.shape))
        if node.op == "output":
            self._fix(args, "its outputs are the network's own")
            self.output = map_flow(args[0], "value")
            return None
        if node.op == "get_attr":
            owner, _, attribute = node.target.rpartition(".")
            found = getattr(self.modules[owner], attribute)
            return Named(node.target, found) if isinstance(found, torch.Tensor) else found
        if node.op == "call_module":
            return self._module(self.modules[node.target], args, kwargs, node.target)
        return self._function(node, args, kwargs)

    def _module(self, module, args, kwargs, path):
        shared = self._shared.get(path)
        if shared:
            return self._unknown(module, args, kwargs, f"{path} shares {' and '.join(shared)} with another module", path)
        if is_hooked(module):
            return self._unknown(module, args, kwargs, _what_hooks(module, path), path)
        if computed := computed_parameter(module):
            return self._unknown(module, args, kwargs, f"the {computed} of {path} is computed, not a parameter", path)
        if any(p.is_complex() for p in module.parameters()):
            return self._unknown(module, args, kwargs, f"{path} has complex parameters", path)
        if not args and len(kwargs) == 1:    # layer(input=x)
            args, kwargs = tuple(kwargs.values()), {}
        args = tuple(map(self._lift, args))
        kind = getattr(_known_kind(module), "__name__", "")
        if not isinstance(module, (*NORM_MODULES, *POINTWISE_MODULES)) and (misread := _misread(kind, args)):    # BatchNorm looks itself
            return self._unknown(module, args, kwargs, f"{path} {misread}", path)
        if getattr(module, "return_indices", False):
            return self._unknown(module, args, kwargs, f"{path} returns indices", path)
        for kinds, rule in ((AFFINE_MODULES, self._affine), (CHANNEL_NORM_MODULES, self._norm),
                            (POINTWISE_MODULES, self._pointwise), (POOL_MODULES, self._pool), (LAYOUT_MODULES, self._layout)):
            if isinstance(module, kinds):
                return rule(module, args, kwargs, path)
        why = "is not known to keep channels apart" if not any(isinstance(part, AFFINE_MODULES) for part in module.modules()) else (
            "is one of PyTorch's own modules that torch.fx does not look into")
        return self._unknown(module, args, kwargs, f"{path} ({type(module).__name__}) {why}", path)

    def _function(self, node, args, kwargs):
        name = _name(node)
        function = _method(name) if node.op == "call_method" else node.target
        if not args and "input" in kwargs and name in FIRST_IS_INPUT:    # torch.mean(input=h, dim=1)
            args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
        leaves = _flat((args, kwargs))
        flows = _flows(leaves)
        if not flows:
            told = function(*map_flow(args, "value"), **map_flow(kwargs, "value"))
            if any(isinstance(leaf, torch.Tensor) for leaf in _flat(told)):    # not a shape or a type
                self._note_names(leaves)
            return told
        if name == "getitem" and isinstance(args[0], (tuple, list)):
            return args[0][args[1]]
        if name == "getattr" and isinstance(args[0], tuple):    # the values of x.max(1), which has indices too
            return getattr(*args)
        if name in ("size", "dim", "getattr", "len"):
            told = function(*map_flow(args, "value"), **map_flow(kwargs, "value"))
            if not isinstance(told, torch.Tensor):
                return told
        if name == "getitem":
            return self._item(function, args, kwargs)
        by_numbers = isinstance(leaves[0], Flow) and all(a is None or isinstance(a, Number) for a in leaves[1:])
        if name in POINTWISE_NAMES or name in BOUNDED_NAMES and by_numbers:
            return self._pointwise(function, args, kwargs, name)
        if name == "pow" and by_numbers and len(args) == 2 and args[1] >= 1:    # below 1 the slope at 0 is infinite
            return self._pointwise(function, args, kwargs, name)
        if name in POOL_NAMES and (misread := _misread(name, args)):
            return self._unknown(function, args, kwargs, f"{name}() {misread}")
        if name in POOL_NAMES and not kwargs.get("return_indices"):
            return self._pool(function, args, kwargs, name)
        if name in CAST_NAMES and isinstance(args[0], Flow):
            return self._cast(function, args, kwargs)
        if name == "pad" and isinstance(args[0], Flow):
            return self._pad(function, args, kwargs)
        if name in LIKE_NAMES and len(args) == 2 and isinstance(args[0], Flow) and isinstance(args[1], Flow):
            return self._as_large_as(*args[:2], name)
        if name in LAYOUT_NAMES:
            return self._layout(function, args, kwargs, name, node)
        if name in PIECES_NAMES:
            return self._pieces(function, args, kwargs, name)
        if name in OVER_PLACES_NAMES and isinstance(args[0], Flow) and (name not in ("max", "min") or _values_only(node)):
            return self._over_places(function, args, kwargs, name)
        if name in ("truediv", "div") and len(args) == 2 and not kwargs and isinstance(args[0], Flow) and isinstance(
                args[1], (Named, torch.Tensor)):
            return self._divided(function, *args, name)
        if name in SUM_NAMES | PRODUCT_NAMES | {"truediv", "div"} and len(args) == 2:
            numbers = [a for a in args if isinstance(a, Number)]
            if numbers and name in SUM_NAMES | PRODUCT_NAMES or isinstance(args[1], Number):
                return self._with_a_number(function, args, kwargs, name)
            if not numbers and name in SUM_NAMES:
                return self._sum(function, *args, **kwargs)
            if not numbers and name in PRODUCT_NAMES:
                return self._product(function, *args)
        return self._unknown(function, args, kwargs, f"{name}() is not known to keep channels apart")

    # -- layers

    def _affine(self, module, args, kwargs, path):
        if isinstance(module, TRANSPOSED_MODULES) and (module.groups > 1 or len(args) > 1):
            what = "transposed convolution with groups" if module.groups > 1 else "transposed convolution that is told its output's size"
            return self._unknown(module, args, kwargs, f"{path} is a {what}", path)
        if getattr(module, "groups", 1) > 1:
            return self._grouped(module, args[0], path)
        x, (rows, columns) = args[0], weight_dims(module)
        dim = neuron_dim(module)
        const = _same_in_all(select(module, x.const))
        arriving = self._along(x, dim, path)
        incoming = select(module, arriving)
        self._put(f"{path}.weight", columns, incoming)
        self.reads.append(Read(path, incoming, const, arriving))
        for place in x.places:
            self.producers[place.producer].places.add(place)
        if path not in self.producers:
            n = module.weight.shape[rows]
            self.producers[path] = Producer(path, torch.arange(len(self._parent), len(self._parent) + n))
            self._parent.extend(range(len(self._parent), len(self._parent) + n))
        labels = self.producers[path].labels
        self._put(f"{path}.weight", rows, labels)
        if module.bias is not None:
            self._put(f"{path}.bias", 0, labels)
        value = module(x.value)
        return Flow(value, lay(labels, dim, value.shape), constant_output(module, const), frozenset({Place(path, path)}))

    def _grouped(self, module, x, path):
        """Groups are handed on whole, so what a group reads and what it writes can only go together."""
        arriving = self._along(x, 1, path)
        per_group = arriving.reshape(module.groups, -1)
        for group in per_group.tolist():
            for label in group[1:]:
                self._unite(group[0], label)
        labels = per_group[:, 0].repeat_interleave(module.weight.shape[0] // module.groups).clamp(min=NOBODY)
        self._put(f"{path}.weight", 0, labels)
        if module.bias is not None:
            self._put(f"{path}.bias", 0, labels)
        self.through[path] = labels
        value = module(x.value)
        return Flow(value, lay(labels, 1, value.shape), constant_output(module, _same_in_all(x.const)), self._placed_here(x, path))

    def _norm(self, module, args, kwargs, path):
        x = args[0]
        labels = self._along(x, 1, path)
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, name, None) is not None:
                self._put(f"{path}.{name}", 0, labels)
        channels = torch.ones(x.value.shape[1], dtype=torch.float64)
        gamma = channels if module.weight is None else module.weight.detach().double()
        beta = 0 * channels if module.bias is None else module.bias.detach().double()
        if module.running_mean is not None:
            const = _where_known(lambda c: F.batch_norm(c, module.running_mean.double(), module.running_var.double(), gamma, beta,
                                                        False, 0.0, module.eps), x.const, x.const.shape)
        else:    # the batch's own mean, or the image's, takes a constant away
            const = _where_known(lambda c: torch.where(uniform(c).isnan(), math.nan, lay(beta, 1, c.shape)), x.const, x.const.shape)
        if (gamma == 0).any():    # γ = 0 leaves β, whatever comes in
            const = torch.where(lay(gamma == 0, 1, const.shape), lay(beta, 1, const.shape), const)
        return Flow(module(x.value), x.label, const, self._placed_here(x, path))

    def _placed_here(self, x, path):
        """The places behind an affine layer that hands neurons on: itself, in place of those in front of it."""
        self._behind[path] |= {place.path for place in x.places} - {path}
        return frozenset(Place(place.producer, path) for place in x.places)

    def _pointwise(self, function, args, kwargs, path):
        x = args[0]
        if isinstance(function, nn.PReLU) and function.num_parameters > 1:
            self._put(f"{path}.weight", 0, self._along(x, 1, path))
        zeros = torch.zeros(1, *x.const.shape[1:], dtype=torch.float64)
        at_zero = float(_double_call(function, zeros, args[1:], kwargs).flatten()[0])
        const = _where_known(lambda c: torch.where(c.isnan(), math.nan, _double_call(function, c.nan_to_num(), args[1:], kwargs)),
                             x.const, x.const.shape)
        places = x.places
        if at_zero != 0:
            name = type(function).__name__ if isinstance(function, nn.Module) else "function"
            leak = f"{path} ({name}) is not 0 at 0: a neuron switched off would leave a constant {at_zero:.3g}"
            places = frozenset(Place(place.producer, place.path, leak) for place in places)
        value = function(x.value, *args[1:], **kwargs)
        return Flow(value, x.label, const, places)

    def _with_a_number(self, function, args, kwargs, name):
        """x + 3, 2 * x, x / 6: a pointwise operation."""
        at = next(i for i, a in enumerate(args) if isinstance(a, Flow))
        others = [*args[:at], *args[at + 1:]]
        return self._pointwise(lambda v, **k: function(*others[:at], v, *others[at:], **k), (args[at],), kwargs, name)

    def _pool(self, function, args, kwargs, path):
        x = args[0]
        labels = self._along(x, 1, path)
        value = function(x.value, *args[1:], **kwargs)
        const = _where_known(lambda c: self._pooled(function, args[1:], kwargs, c, value.shape), x.const, value.shape)
        return Flow(value, lay(labels, 1, value.shape), const, x.places)

    def _pooled(self, function, args, kwargs, const, shape):
        """Constants behind a pool: what is the same all over an image stays that, unless the pool counts padding in.

        Only what would be true for images of any size is: the pool is tried on a larger one.
        """
        each = uniform(const).flatten(1)
        ones = const.new_ones(1, 1, *(size + 7 for size in const.shape[2:]))
        keeps = [bool((_double_call(function, v * ones, args, kwargs) == v).all()) for v in (0, 1)]
        each = torch.where((each == 0) & keeps[0] | all(keeps), each, math.nan)
        return each.reshape(*each.shape, *[1] * (len(shape) - 2)).expand(shape)

    def _over_places(self, function, args, kwargs, name):
        """The mean, the sum or the largest over an image's places."""
        x = args[0]
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        if not isinstance(dims, (list, tuple)) or not dims or "dtype" in kwargs or any(_varies(x.label, dim) for dim in dims):
            return self._unknown(function, args, kwargs, f"{name}() mixes its neurons")
        result, label = function(x.value, *args[1:], **kwargs), x.label
        value, *where = _flat(result)    # max(x, 1) tells where the largest were, too
        for dim in dims:
            label = label.narrow(dim, 0, 1)
        known = torch.where(x.const == 0, 0.0, math.nan) if name == "sum" else x.const    # others add up by the image's size
        const = _where_known(lambda c: _flat(function(c, *args[1:], **kwargs))[0], known, value.shape)
        flow = Flow(value, label.reshape(value.shape), const, x.places)
        return _like(result, [flow, *where]) if where else flow

    def _cast(self, function, args, kwargs):
        """To another number type, or device: the same numbers, up to rounding."""
        x = args[0]
        value = function(*map_flow(args, "value"), **map_flow(kwargs, "value"))
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return self._unknown(function, args, kwargs, "its neurons become integers")
        return Flow(value, x.label, x.const, x.places)

    def _pad(self, function, args, kwargs):
        """A border around an image, unless it is another number than 0, or more channels."""
        x = args[0]
        widths, mode, value = (kwargs.get(name, *args[at:at + 1] or [None]) for at, name in enumerate(("pad", "mode", "value"), 1))
        if not isinstance(widths, (tuple, list)) or len(widths) > 2 * (x.value.ndim - 2) and any(widths[2 * (x.value.ndim - 2):]) or (
                mode in (None, "constant") and value):
            return self._unknown(function, args, kwargs, "pad() brings in what is no neuron")
        return self._pool(function, args, kwargs, "pad()")

    def _as_large_as(self, x, other, name):
        """x.expand_as(other): what meets there goes together, as in a product."""
        if name != "expand_as" and x.value.shape != other.value.shape:
            return self._unknown(_method(name), (x, other), {}, f"{name}() is not known to keep channels apart")
        shape = other.value.shape
        own = (1,) * (len(shape) - x.value.ndim) + tuple(x.value.shape)
        if any(size == 1 and _varies(other.label, dim) for dim, size in enumerate(own)):
            self._fix(other, f"how many neurons there are is how often {name}() repeats something")
        self._tie(x, other, shape, product=True)
        return Flow(x.value.expand(shape), x.label.expand(shape), x.const.expand(shape), x.places)

    def _divided(self, function, x, divisor, name):
        """x / τ: by one number, a parameter, a buffer or a constant."""
        value = function(x.value, *map_flow([divisor], "value"))
        each = divisor.value if isinstance(divisor, Named) else divisor
        if each.numel() != 1 or value.shape != x.value.shape or not bool(each != 0):
            return self._unknown(function, (x, divisor), {}, f"{name}() is not known to keep channels apart")
        self._note_names([divisor])
        return Flow(value, x.label, _where_known(lambda c: c / each.double(), x.const, value.shape), x.places)

    # -- what only moves things

    def _layout(self, function, args, kwargs, path, node=None):
        args, kwargs = tuple(map(self._lift, args)), {name: self._lift(value) for name, value in kwargs.items()}
        parts = {name: function(*map_flow(args, name), **map_flow(kwargs, name)) for name in ("value", "label", "const")}
        flows = _flows((args, kwargs))
        for dim, size in _given_sizes(function, node):
            if isinstance(size, int) and size > 1 and _varies(parts["label"], dim):
                self._fix(flows, f"its neurons run through {path}{'()' * (node is not None)} with the fixed size {size}; "
                                 "torch.flatten(x, 1) would let them go")
        return Flow(**parts, places=frozenset().union(*(flow.places for flow in flows)))

    def _item(self, function, args, kwargs):
        """x[...]: what is picked along the axis of the neurons is picked by fixed numbers."""
        x, index = args
        if any(isinstance(part, (torch.Tensor, list, Flow, Named)) for part in (index if isinstance(index, tuple) else (index,))):
            return self._unknown(function, args, kwargs, "its neurons are picked by an index")
        picked = Flow(*(getattr(x, name)[index] for name in ("value", "label", "const")), x.places)
        if any(_varies(x.label, dim) for dim in _cut_axes(index, x.value.ndim)):
            self._fix(x, "its neurons are picked by a slice of fixed size")
        return picked

    def _pieces(self, function, args, kwargs, name):
        """chunk, split, unbind: two halves can lose neurons only if both lose the same ones."""
        x = args[0]
        dim = kwargs.get("dim", args[2] if len(args) > 2 else (args[1] if name == "unbind" and len(args) > 1 else 0))
        parts = zip(*(function(*map_flow(args, part), **map_flow(kwargs, part)) for part in ("value", "label", "const")))
        pieces = tuple(Flow(value, label, const, x.places) for value, label, const in parts)
        if _varies(x.label, dim):
            reason = f"its neurons are divided by {name}()"
            if name == "chunk" and len({piece.value.shape for piece in pieces}) == 1:
                self._cut.append((pieces, dim, f"{reason} into pieces that are not tied to each other"))
            else:
                self._fix(x, reason)
        return pieces

    # -- where two tensors meet

    def _sum(self, function, a, b, **kwargs):
        a, b = self._lift(a), self._lift(b)
        value = function(a.value, b.value, **kwargs)
        label = self._tie(a, b, value.shape)
        if label is None:
            self._fix([a, b], "its neurons are added to something of another shape")
            label = torch.zeros(value.shape, dtype=torch.int64)
        const = _where_known(lambda c: function(c.clone(), b.const, **kwargs), a.const, value.shape)
        places = a.places | b.places
        return Flow(value, label, const, places)

    def _product(self, function, a, b):
        for x, named in ((a, b), (b, a)):
            if isinstance(named, Named) and isinstance(x, Flow):
                return self._per_channel(function, a, b, x, named)
        a, b = self._lift(a), self._lift(b)
        value = function(a.value, b.value)
        label = self._tie(a, b, value.shape, product=True)
        if label is None:
            self._fix([a, b], "its neurons are multiplied by something of another shape")
            label = torch.zeros(value.shape, dtype=torch.int64)
        const = _times(a.const, b.const, value.shape)
        # One factor that is switched off is enough, and scaling both would scale the product twice: the one that others read.
        clean = [x for x in (a, b) if x.places and not any(place.leak for place in x.places)]
        places = max(clean, key=self._is_read).places if clean else a.places | b.places
        self._meet |= {frozenset((one.path, other.path)) for one in a.places for other in b.places if one.path != other.path}
        return Flow(value, label, const, places)

    def _is_read(self, x):
        return any(self.producers[place.producer].places for place in x.places)

    def _per_channel(self, function, a, b, x, named):
        """A parameter times x: a scale for each channel goes with the channels."""
        owner = self.modules.get(named.name.rpartition(".")[0])
        if named.name not in self._tensors or named.value.is_complex() or isinstance(owner, (nn.PReLU, *AFFINE_MODULES, *CHANNEL_NORM_MODULES)):
            return self._product(function, self._lift(a), self._lift(b))
        value = function(*(part.value for part in (a, b)))
        real = [dim for dim, size in enumerate(named.value.shape) if size > 1]
        at = real[0] - named.value.ndim + x.value.ndim if real else None
        if len(real) > 1 or value.shape != x.value.shape:
            return self._product(function, self._lift(a), self._lift(b))
        if real:
            self._put(named.name, real[0], self._along(x, at, named.name))
        return Flow(value, x.label, _times(x.const, named.value.double(), value.shape), x.places)

    def _tie(self, a, b, shape, product=False):
        """Unite the labels that meet and return those of the result; None where one side has no such axis to go with."""
        for one, other in ((a, b), (b, a)):
            lacking = shape[:len(shape) - one.value.ndim] + torch.Size(
                [size if own == 1 else 1 for own, size in zip(one.value.shape, shape[len(shape) - one.value.ndim:])])
            if any(size > 1 and _varies(other.label, dim - len(shape)) for dim, size in enumerate(lacking)):
                if not product:
                    return None
                self._fix(one, "all neurons of another layer are multiplied by it")
                return other.label.expand(shape)
        left, right = a.label.expand(shape), b.label.expand(shape)
        along = ((_across(left, dim), _across(right, dim)) for dim in _usual_axes(left))
        one, other = next((found for found in along if found[0] is not None and found[1] is not None), (left, right))
        many = len(self._parent) - INPUT
        met = "multiplied by" if product else "added to"
        for pair in ((one - INPUT) * many + other - INPUT).unique().tolist():
            self._unite(pair // many + INPUT, pair % many + INPUT, f"its neurons are {met} what cannot be switched")
        return torch.where(left > 0, left, right)

    def _lift(self, x):
        """A tensor that the input has no say in: constant, and nobody's neurons."""
        if isinstance(x, (tuple, list)):
            return _like(x, [self._lift(part) for part in x])
        if isinstance(x, Named):
            self._note_names([x])
            x = x.value
        if isinstance(x, torch.Tensor):
            return Flow(x, torch.full(x.shape, NOBODY), nothing_known(x.shape) if x.is_complex() else x.double())
        return x

    def _unknown(self, function, args, kwargs, reason, path=None):
        if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
            self.opaque[path] = reason
        leaves = _flat((args, kwargs))
        self._note_names(leaves)
        self._fix(leaves, reason)
        value = function(*map_flow(args, "value"), **map_flow(kwargs, "value"))

        def wrap(v):
            if isinstance(v, (tuple, list)):
                return _like(v, [wrap(part) for part in v])
            if isinstance(v, dict):
                return {key: wrap(part) for key, part in v.items()}
            if not isinstance(v, torch.Tensor):
                return v
            return Flow(v, torch.zeros(v.shape, dtype=torch.int64), nothing_known(v.shape))

        return wrap(value)

    def _note_names(self, leaves):
        """Remember what is read by its name: a layer whose weight is also used elsewhere cannot lose neurons."""
        for leaf in leaves:
            if isinstance(leaf, Named):
                self._read_by_name[leaf.name] = f"{leaf.name} is read by its name elsewhere"

    # -- labels

    def _along(self, x, dim, path):
        """Return the labels along one axis; whatever varies across the other axes is fixed."""
        labels = _across(x.label, dim)
        if labels is None:
            self._fix(x, f"{path} reads different neurons at different places of one channel")
            return torch.full((x.label.shape[dim],), NOBODY)
        return labels.clone()

    def _found(self, labels):
        return None if labels is None else [self._find(label) if label > 0 else label for label in labels.tolist()]

    def _put(self, name, dim, labels):
        if (name, dim) in self.axes:      # a module that is called twice ties what it reads
            for old, new in zip(self.axes[name, dim].tolist(), labels.tolist()):
                self._unite(old, new)
        self.axes[name, dim] = labels

    def _labels_in(self, x):
        """All labels that occur, sorted; quickly where they follow one of the usual axes."""
        for dim in _usual_axes(x.label):
            if (along := _across(x.label, dim)) is not None:
                return along.unique().tolist()
        return x.label.unique().tolist()

    def _fix(self, what, reason):
        for x in _flat(what):
            if isinstance(x, Flow):
                for label in self._labels_in(x):
                    self._fix_label(label, reason)

    def _fix_label(self, label, reason):
        if label > 0:
            self.fixed.setdefault(self._find(label), reason)

    def _find(self, label):
        while self._parent[label] != label:
            label = self._parent[label]
        return label

    def _unite(self, a, b, reason="its neurons go together with what cannot be switched"):
        if a == b:
            return
        if a <= 0 or b <= 0:       # joined with something that is always there
            for label in (a, b):
                self._fix_label(label, reason)
            return
        a, b = sorted((self._find(a), self._find(b)))
        if a != b:
            self._parent[b] = a
            if b in self.fixed:
                self.fixed.setdefault(a, self.fixed[b])


# ---------------------------------------------------------------------------------------------------------------------


def map_flow(args: Any, name: str) -> Any:
    """Return nested arguments with every :class:`Flow` replaced by one of its tensors, and what is named by its value."""
    if isinstance(args, Flow):
        return getattr(args, name)
    if isinstance(args, Named):
        return args.value
    if isinstance(args, (tuple, list)):
        return _like(args, [map_flow(a, name) for a in args])
    if isinstance(args, dict):
        return {k: map_flow(v, name) for k, v in args.items()}
    return args


def shared_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Return {module path: names of its parameters} for modules whose parameters also belong to another module."""
    owners: dict[int, list[tuple[str, str]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((path, name))
    shared = defaultdict(list)
    for group in owners.values():
        for path, name in group if len(group) > 1 else ():
            shared[path].append(name)
    return dict(shared)


def is_hooked(module: nn.Module) -> bool:
    """Return whether a module does more than its class: it has a forward hook, or a forward() put on it alone."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _why_unseen(path, module, named):
    """Say why a Linear or Conv layer is nowhere called in the graph."""
    if not computes_as_known(module):
        return f"{path} ({type(module).__name__}) has a forward() of its own: what that does with its weight is not known"
    return f"forward() uses the weight of {path} by itself, not the layer" if named else f"torch.fx does not see {path} run"


def _what_hooks(module, path):
    """Say what a hooked module does besides its class, and how to undo it where PyTorch has done it."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if made := [type(hook).__name__ for hook in hooks if type(hook).__module__.startswith("torch.nn.utils")]:
        return (f"{path} has a hook of torch.nn.utils ({made[0]}) that computes a parameter anew; prune.remove(), remove_weight_norm() "
                "and remove_spectral_norm() make it plain")
    return f"{path} has a hook, or a forward() of its own: what that does is not known"


def _values_only(node):
    """Whether of max(x, dim) or min(x, dim) only the values are used, not where they were."""
    return all(_name(user) in ("getitem", "getattr") and (user.args[1] in (0, "values") or not user.users) for user in node.users)


def computed_parameter(module: nn.Module) -> str | None:
    """Return the name of a layer's weight or bias that is no parameter but made of others, as after ``weight_norm``; else None."""
    if not isinstance(module, (nn.PReLU, *AFFINE_MODULES, *CHANNEL_NORM_MODULES)):
        return None
    own = dict(module.named_parameters(recurse=False))
    return next((name for name in ("weight", "bias") if getattr(module, name, None) is not None and name not in own), None)


def _misread(name, args):
    """How a layer for images (Conv2d, MaxPool1d) takes what it is given, if not as a batch of them: then its channels lie elsewhere."""
    if name[-2:] not in ("1d", "2d", "3d") or not args or not isinstance(args[0], Flow):
        return ""
    axes, wanted = args[0].value.ndim, int(name[-2]) + 2
    return "" if axes == wanted else f"takes what it reads, of {axes} axes, for one image instead of a batch"


def _like(sequence, parts):
    """Parts as a list or a tuple, with the names that it had."""
    if isinstance(sequence, list):
        return list(parts)
    if hasattr(sequence, "_fields"):
        return type(sequence)(*parts)
    return type(sequence)(parts) if hasattr(sequence, "n_sequence_fields") else tuple(parts)


def _flows(what):
    return [leaf for leaf in _flat(what) if isinstance(leaf, Flow)]


def _same_in_all(const):
    """Constants that differ between the inputs of a batch are none: of two views in one batch, only one may be constant."""
    return const if nowhere_known(const) else torch.where((const == const[:1]).all(0), const, math.nan)


def _cut_axes(index, ndim):
    """Return the axes along which x[index] takes a part only."""
    index = index if isinstance(index, tuple) else (index,)
    named = sum(part is not None and part is not Ellipsis for part in index)
    dim, cut = 0, []
    for part in index:
        if part is None:
            continue
        if part is Ellipsis:
            dim += ndim - named
            continue
        if part != slice(None):
            cut.append(dim)
        dim += 1
    return cut


def _method(name):
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def _flat(what):
    if isinstance(what, dict):
        what = list(what.values())
    if isinstance(what, (tuple, list)):
        return [leaf for part in what for leaf in _flat(part)]
    return [what]


def _across(label, dim):
    """Labels along one axis, or None where they vary across the others."""
    dim = dim % label.ndim
    first = label[tuple(slice(None) if d == dim else 0 for d in range(label.ndim))]
    return None if bool((label != lay(first, dim, label.shape)).any()) else first


def _usual_axes(label):
    """Where neurons mostly lie: along the second axis, or the last."""
    return {1 % label.ndim, label.ndim - 1} if label.numel() and label.ndim else set()


def _varies(label, dim):
    if not -label.ndim <= dim < label.ndim:    # an axis that broadcasting has put in front
        return False
    return label.shape[dim] > 1 and bool((label != label.select(dim, 0).unsqueeze(dim)).any())


def _where_known(function, const, shape):
    """Constants behind a function: most activations have none, and then there is nothing to compute."""
    return nothing_known(shape) if nowhere_known(const) else function(const)


def _times(a, b, shape):
    """The product of constants: 0 wherever one of them is, whatever the other."""
    zero = (a == 0) | (b == 0)
    return torch.where(zero, 0.0, a * b) if zero.any() or not nowhere_known(a) and not nowhere_known(b) else nothing_known(shape)


def _given_sizes(function, node):
    """Return (dim, size) for the sizes that a reshaping call or an Unflatten was given."""
    if isinstance(function, nn.Unflatten):
        sizes = function.unflattened_size
        return enumerate(sizes, function.dim) if isinstance(function.dim, int) else ()
    if node is None or _name(node) not in ("view", "reshape", "unflatten", "expand"):
        return ()
    first = 0
    if _name(node) == "unflatten":
        first, sizes = node.kwargs.get("dim", *node.args[1:2]), node.kwargs.get("sizes", *node.args[2:3])
    else:
        sizes = node.kwargs.get("shape") or node.kwargs.get("size") or node.args[1:]
        sizes = sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes
    return enumerate(sizes, first)


def _name(node):
    return node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))


def _double_call(function, x, args, kwargs):
    """Call a parameter-free function, or a module in a float64 copy, on float64 values."""
    if isinstance(function, nn.PReLU):
        return F.prelu(x, function.weight.double())
    return function(x, *args, **kwargs)
