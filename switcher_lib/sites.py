"""Where a network can be switched: found by running labels through its graph.

Every neuron (a row of a Linear layer, a channel of a convolution) gets a number of its own, its *label*. The labels
then run through the network in place of activations: a layer that mixes its inputs reads labels and writes new ones,
everything else hands them on. Afterwards each axis of each parameter is known to belong to certain labels, so that
scaling a neuron, or removing it, is a matter of indexing and never of special cases.

Along with the labels run *constants*: float64 values that are NaN wherever the input has a say. They tell which
neurons are switched off (constant 0), which are constant otherwise, and what that constant is worth to a reader.
"""

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import fx, nn
from torch.nn import functional as F

from switcher_lib.errors import SwitchError, SwitchWarning

__all__ = ["Axis", "Connections", "SelectLinear", "Site", "constant_output", "find_connections", "find_sites", "trace"]

NOBODY = 0   # label of entries that belong to no neuron: sums, unknown operations
INPUT = -1   # label of the network's own input

POINTWISE_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Identity, nn.Dropout,
    nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)
POINTWISE_NAMES = {
    "relu", "relu_", "leaky_relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh",
    "hardsigmoid", "tanh", "sigmoid", "softplus", "softsign", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "contiguous", "clone", "abs", "neg",
}
POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)
POOL_NAMES = {f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)}
LAYOUT_MODULES = (nn.Flatten, nn.Unflatten)
LAYOUT_NAMES = {"flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "cat",
                "concat", "t", "movedim"}
SUM_NAMES = {"add", "add_", "iadd", "sub"}
CONV_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM_MODULES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one parameter, and which of its positions belong to which neuron.

    Parameters
    ----------
    name : str
        Name of the parameter, as in ``model.named_parameters()``.
    dim : int
        The axis along which the neurons lie.
    positions : Tensor of int64, shape (n, k)
        Row j holds the k positions of neuron j (k > 1 where a channel was flattened), filled up with the axis's length
        where it has fewer than others (where some of its flattened features were left out).
    shape : tuple of int
        Shape of the parameter.
    """

    name: str
    dim: int
    positions: torch.Tensor
    shape: tuple

    @property
    def length(self):
        """Size of the parameter along the axis."""
        return self.shape[self.dim]

    @property
    def width(self):
        """How many of the parameter's numbers each neuron owns: the d of :meth:`read`."""
        return self.positions.shape[1] * math.prod(self.shape) // self.length

    @cached_property
    def whole(self):
        """Whether position j is neuron j, for all positions: then nothing needs indexing."""
        return self.positions.shape == (self.length, 1) and bool((self.positions[:, 0] == torch.arange(self.length)).all())

    @cached_property
    def ragged(self):
        """Whether some neuron has fewer positions than others."""
        return bool((self.positions == self.length).any())

    def read(self, params):
        """Return what each neuron owns of this parameter, shape (n, d), with 0 where it has less than others."""
        p = params[self.name].movedim(self.dim, 0)
        if not self.whole:
            p = torch.cat([p, p.new_zeros(1, *p.shape[1:])]) if self.ragged else p
            p = p[self.positions.to(p.device)]
        return p.reshape(len(self.positions), -1)

    def spread(self, s):
        """Lay factors of shape (n,) out along the axis, shape (length,), with 1 where no neuron of the site is."""
        if self.whole:
            return s
        positions = self.positions.to(s.device)
        ones = s.new_ones(self.length + 1)    # the last one takes what only fills up
        return ones.index_put((positions,), s[:, None].expand(positions.shape))[:-1]

    def scale(self, params, s):
        """Return ``params`` with this axis multiplied by the factors ``s`` of shape (n,); the rest is shared."""
        p = params[self.name]
        shape = [1] * p.ndim
        shape[self.dim] = -1
        return {**params, self.name: p * self.spread(s).reshape(shape)}


@dataclass(eq=False)
class Site:
    """A set of neurons that one factor vector acts on.

    Attributes
    ----------
    key : str
        Name without dots, unique in the model: the key of factor dictionaries.
    path : str
        Path of the layer that writes the neurons; for features read singly, of the layer that reads them.
    size : int
        Number of neurons n.
    kind : {"neuron", "feature"}
        ``"feature"``: pixels or flattened features, which have an outgoing face only.
    own : tuple of Axis
        The neurons' own weight rows and biases: what :meth:`rows` reads.
    incoming : tuple of Axis
        What scaling at the incoming face multiplies: weight and bias, or γ and β where a BatchNorm follows.
    outgoing : tuple of Axis
        The readers' columns.
    face : {"incoming", "outgoing"}
        Where :meth:`scale` multiplies.
    passed : tuple of Axis
        What else belongs to the neurons on the way to their readers, such as a PReLU's slopes: neither read nor
        multiplied, but gone when they go.
    """

    key: str
    path: str
    size: int
    kind: str
    own: tuple
    incoming: tuple
    outgoing: tuple
    face: str = "incoming"
    passed: tuple = ()

    @property
    def shape(self):
        """Shape of the factors: (n,)."""
        return (self.size,)

    @property
    def axes(self):
        """Every parameter axis that this site's neurons occupy, each once."""
        return tuple({(a.name, a.dim): a for a in (*self.own, *self.incoming, *self.outgoing, *self.passed)}.values())

    def rows(self, params):
        """Return the neurons' incoming weights and biases, shape (n, fan_in + 1); features have none: (n, 0)."""
        if not self.own:
            return next(iter(params.values())).new_zeros(self.size, 0)
        return torch.cat([axis.read(params) for axis in self.own], dim=1)

    def columns(self, params):
        """Return the neurons' outgoing weights in all their readers, shape (n, fan_out)."""
        return torch.cat([axis.read(params) for axis in self.outgoing], dim=1)

    def scale(self, params, s):
        """Return ``params`` with this site's face multiplied by the factors ``s``.

        Parameters
        ----------
        params : dict of str to Tensor
            The task network's parameters θ; left as they are.
        s : Tensor of shape (n,)
            The factors.

        Returns
        -------
        dict of str to Tensor
            θ ⊙ s for this site.

        Raises
        ------
        ValueError
            If ``s`` does not have one factor for each neuron.
        """
        if s.shape != (self.size,):
            raise ValueError(f"factors of {self.key!r} have shape {tuple(s.shape)}; this site has {self.size} neurons,"
                             f" so the shape must be ({self.size},).")
        for axis in self.incoming if self.face == "incoming" else self.outgoing:
            params = axis.scale(params, s)
        return params

    def __repr__(self):
        return f"Site({self.key!r}, size={self.size}, kind={self.kind!r}, face={self.face!r})"


@dataclass(eq=False)
class Connections:
    """The weights of one layer as a site: one factor for each connection.

    Attributes
    ----------
    key : str
        Name without dots, unique in the model: the key of factor dictionaries.
    path : str
        Path of the layer.
    name : str
        Name of the weight, as in ``model.named_parameters()``.
    shape : tuple of int
        Shape of the weight, and so of the factors.
    kind : str
        ``"connection"``.
    """

    key: str
    path: str
    name: str
    shape: tuple
    kind: str = "connection"

    @property
    def size(self):
        """Number of connections."""
        return math.prod(self.shape)

    def matrix(self, params):
        """Return the weight with a row for each neuron that it leads to, shape (n, d)."""
        return params[self.name].flatten(1)

    def scale(self, params, s):
        """Return ``params`` with this layer's weight multiplied by the factors ``s``, entry by entry.

        Parameters
        ----------
        params : dict of str to Tensor
            The task network's parameters θ; left as they are.
        s : Tensor
            The factors, of the weight's shape.

        Returns
        -------
        dict of str to Tensor
            θ ⊙ s for this site.

        Raises
        ------
        ValueError
            If ``s`` does not have the weight's shape.
        """
        if s.shape != self.shape:
            raise ValueError(f"factors of {self.key!r} have shape {tuple(s.shape)}; the weight has {self.shape}, and there "
                             "is one factor for each of its connections.")
        return {**params, self.name: params[self.name] * s}

    def __repr__(self):
        return f"Connections({self.key!r}, shape={self.shape})"


def count_on(sites, on, shapes):
    """Return how many entries of each parameter remain where its sites are on by ``on``.

    Parameters
    ----------
    sites : sequence of Site or of Connections
        The sites of a model.
    on : dict of str to Tensor
        {site.key: tensor of the site's shape}, each in [0, 1].
    shapes : dict of str to torch.Size
        {name: shape} of the model's parameters.

    Returns
    -------
    dict of str to number or Tensor of shape ()
        For each parameter the product, over its dimensions, of how many positions are on; for connections, how many of
        them are. Differentiable in ``on``.
    """
    inside = {site.name: on[site.key] for site in sites if site.kind == "connection"}
    along = {}      # (parameter, dim) -> how far each position is on
    for site in sites:
        for axis in site.axes if site.kind != "connection" else ():
            here = axis.spread(on[site.key])
            along[axis.name, axis.dim] = along[axis.name, axis.dim] * here if (axis.name, axis.dim) in along else here
    counts = {}
    for name, shape in shapes.items():
        if name in inside:
            counts[name] = inside[name].sum()
        else:
            counts[name] = math.prod(along[name, dim].sum() if (name, dim) in along else length for dim, length in enumerate(shape))
    return counts


def find_connections(model, *, convolutions=False, skip=()):
    """Find the layers whose connections can be switched one by one: all Linear layers, the last one too.

    Parameters
    ----------
    model : nn.Module
        Any network; nothing has to be traced, for a weight is scaled wherever it is used.
    convolutions : bool, default False
        Whether to switch the weights of convolutions too: then every weight of all Linear and Conv layers.
    skip : sequence of str, default ()
        Paths of layers to leave alone.

    Returns
    -------
    sites : list of Connections
        In the order of the network.
    refused : dict of str to str
        Path of each layer whose connections cannot be switched, and the reason.

    Raises
    ------
    ValueError
        If ``skip`` names something that is not there.
    SwitchError
        If nothing can be switched.

    References
    ----------
    Han et al. 2021, arXiv:2103.15590 (connections of fully connected layers).
    """
    _check_skip(model, skip)
    sites, refused, shared = [], {}, _shared_parameters(model)
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, *(CONV_MODULES if convolutions else ()))):
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if path in skip:
            refused[path] = "skipped on request"
        elif weight is None:
            refused[path] = f"the weight of {path} is computed, not a parameter"
        elif shared.get(path) == "weight":
            refused[path] = f"the weight of {path} belongs to another module too, where it would be scaled as well"
        else:
            name = f"{path}.weight" if path else "weight"
            sites.append(Connections(path.replace(".", "_") or "weight", path, name, tuple(weight.shape)))
    _name_apart(sites)
    if not sites:
        why = "; ".join(f"{path}: {reason}" for path, reason in refused.items())
        layers = "Linear or Conv" if convolutions else "Linear"
        raise SwitchError(f"no connection in {type(model).__name__} can be switched. {why or f'It has no {layers} layer'}.")
    return sites, refused


def find_sites(model, example, *, face="incoming", switch_inputs=False, switch_flattened=False, skip=()):
    """Find where a model can be switched.

    Parameters
    ----------
    model : nn.Module
        A feed-forward network that ``torch.fx`` can trace.
    example : Tensor
        A batch of inputs, at least one.
    face : {"incoming", "outgoing"}, default "incoming"
        Where the factors multiply. Features always use their outgoing face.
    switch_inputs : bool, default False
        Whether to switch the input features (pixels) that a Linear layer reads, one by one.
    switch_flattened : bool, default False
        Whether to switch flattened features one by one, besides the channels they come from.
    skip : sequence of str, default ()
        Paths of layers to leave alone, without a warning.

    Returns
    -------
    sites : list of Site
        In the order of the network.
    refused : dict of str to str
        Path of each layer whose neurons cannot be switched, and the reason.

    Raises
    ------
    ValueError
        If ``face`` or ``skip`` names something that is not there.
    SwitchError
        If the model cannot be traced, or nothing in it can be switched.
    """
    if face not in ("incoming", "outgoing"):
        raise ValueError(f"face={face!r} is not a face. Known: incoming, outgoing.")
    paths = _check_skip(model, skip)
    wiring = trace(model, example)
    sites, refused = [], {}
    for read in wiring.reads:
        if read.path in skip or not isinstance(paths[read.path], nn.Linear):
            continue
        if (switch_inputs and read.of_input) or (switch_flattened and read.flattened):
            sites.append(_feature_site(read, wiring))
    if switch_inputs and not any(site.kind == "feature" for site in sites):
        refused["input"] = "no Linear layer reads the input, and a convolution reads whole channels of it"
    for producer in wiring.producers.values():
        if producer.path in skip:
            refused[producer.path] = "skipped on request"
            continue
        reason, advice = wiring.refusal(producer, face)
        if reason is None:
            sites.append(_neuron_site(producer, wiring, face))
        else:
            refused[producer.path] = reason
            if advice:
                warnings.warn(f"{reason}: {advice} (net.refused); skip=[{producer.path!r}] silences this.", SwitchWarning,
                              stacklevel=3)
    sites.sort(key=lambda site: list(paths).index(site.path) - (site.kind == "feature") * 0.5)
    refused |= {path: reason for path, reason in wiring.opaque.items() if path not in refused}
    _name_apart(sites)
    if not sites:
        why = "; ".join(f"{path}: {reason}" for path, reason in refused.items() if path)
        single = isinstance(model, (nn.Linear, *CONV_MODULES))
        why = why or ("It is a single layer, and its outputs are its own" if single else "It has no Linear or Conv layer")
        raise SwitchError(f"nothing in {type(model).__name__} can be switched. {why}.")
    return sites, refused


def trace(model, example):
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
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or len(example) == 0:
        got = tuple(example.shape) if isinstance(example, torch.Tensor) else type(example).__name__
        raise ValueError(f"example={got} must be a tensor: a batch of at least one input, as the model takes it.")
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        try:
            graph = _Tracer().trace(model)
        except Exception as error:
            raise SwitchError(
                f"model={type(model).__name__} cannot be traced by torch.fx ({error}). A forward() that branches on "
                "its data has no fixed structure to switch; switch a submodule of it instead."
            ) from error
        with torch.no_grad():
            try:
                return Wiring(model, graph, example[:2])
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                if isinstance(error, SwitchError):
                    raise
                raise SwitchError(f"example of shape {tuple(example.shape)} does not go through "
                                  f"{type(model).__name__}: {error}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Tracer(fx.Tracer):
    """Looks into every module but PyTorch's own, unchanged ones, whose behaviour is known."""

    def is_leaf_module(self, module, path):
        return isinstance(module, SelectLinear) or super().is_leaf_module(module, path)


# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Flow:
    """What runs along an edge of the graph: an activation, its labels and its constants, all of one shape."""

    value: torch.Tensor
    label: torch.Tensor                          # int64
    const: torch.Tensor                          # float64, NaN where the value depends on the input
    gates: dict = field(default_factory=dict)    # {producer path: Gate}

    def __post_init__(self):    # expanded tensors, which view() refuses although it takes the value
        self.label, self.const = self.label.contiguous(), self.const.contiguous()


@dataclass(frozen=True)
class Gate:
    """The nearest affine layer behind a producer's neurons, and what has happened since."""

    path: str             # of the Linear, Conv or BatchNorm
    leak: str = ""        # a sentence, if an operation since then does not map 0 to 0


@dataclass(eq=False)
class Producer:
    """A layer that writes neurons."""

    path: str
    labels: torch.Tensor                          # (n,)
    gates: set = field(default_factory=set)       # of Gate, as found at the readers


@dataclass(eq=False)
class Read:
    """A layer that reads neurons: the labels of its input axis, and the constants that arrive there."""

    path: str
    labels: torch.Tensor      # (fan_in,)
    const: torch.Tensor       # as the layer's input
    arriving: torch.Tensor    # the labels before a SelectLinear's choice

    @property
    def of_input(self):
        return bool((self.labels == INPUT).all())

    @property
    def flattened(self):
        """Whether a neuron occupies more than one position here."""
        real = self.labels[self.labels > 0]
        return len(real) > len(real.unique())


class Wiring:
    """What the labels found out about a model: see :func:`trace`."""

    def __init__(self, model, graph, example):
        self.modules = dict(model.named_modules())
        self.producers = {}       # path -> Producer
        self.reads = []           # of Read, one for each call of a Linear or Conv
        self.axes = {}            # (tensor name, dim) -> labels along it
        self.fixed = {}           # label -> why its neuron can neither be switched nor removed
        self.opaque = {}          # path of a Linear or Conv layer that is not looked into -> why
        self._parent = [NOBODY]   # union-find over labels: neurons that can only go together
        self._shared = _shared_parameters(model)
        self._run(graph, example)

    # -- questions that others ask

    def root(self, labels):
        """Return the labels with every group of tied neurons named by its lowest label."""
        return torch.where(labels > 0, self._roots[labels.clamp(min=0)], labels)

    def refusal(self, producer, face):
        """Return (reason, advice) why a producer's neurons cannot be switched; (None, "") if they can."""
        roots = self.root(producer.labels)
        for root in roots.tolist():
            if root in self.fixed:
                return self.fixed[root], ""
        partners = [p.path for p in self.producers.values()
                    if p is not producer and torch.isin(self.root(p.labels), roots).any()]
        if partners:
            return f"its neurons are added to those of {', '.join(partners)} and could only go with them", ""
        if not producer.gates:
            return "nothing reads its neurons", ""
        gates = {gate.path for gate in producer.gates}
        if len(gates) > 1:
            return f"its neurons are read behind different layers ({', '.join(sorted(gates))})", ""
        (gate_path,) = gates
        norm = self.modules[gate_path]
        if isinstance(norm, NORM_MODULES) and not norm.affine and face == "incoming":
            return f"{gate_path} (BatchNorm without γ and β) would undo any scaling", ""
        leaks = sorted({gate.leak for gate in producer.gates if gate.leak})
        if leaks and face == "incoming":
            return leaks[0], f"its {len(roots)} neurons stay unswitched"
        return None, ""

    def axis(self, name, dim, labels):
        """Return the :class:`Axis` along which the given labels (n,) lie in a parameter."""
        along = self.root(self.axes[name, dim])
        places = [torch.nonzero(along == label)[:, 0] for label in self.root(labels)]
        positions = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=len(along))
        return Axis(name, dim, positions, self._shape(name))

    def _shape(self, name):
        path, _, tensor = name.rpartition(".")
        return tuple(getattr(self.modules[path], tensor).shape)

    # -- the run

    def _run(self, graph, example):
        results = {}
        for node in graph.nodes:
            args = fx.map_arg(node.args, results.__getitem__)
            kwargs = fx.map_arg(node.kwargs, results.__getitem__)
            results[node] = self._step(node, args, kwargs, example)
        self._roots = torch.tensor([self._find(label) for label in range(len(self._parent))])

    def _step(self, node, args, kwargs, example):
        if node.op == "placeholder":
            return Flow(example, torch.full(example.shape, INPUT), torch.full(example.shape, math.nan, dtype=torch.float64))
        if node.op == "output":
            self._fix(args, "its outputs are the network's own")
            return None
        if node.op == "get_attr":
            owner, _, attribute = node.target.rpartition(".")
            return getattr(self.modules[owner], attribute)
        if node.op == "call_module":
            module, path = self.modules[node.target], node.target
            shared = self._shared.get(path)
            if shared:
                return self._unknown(module, args, kwargs, f"{path} shares {shared} with another module", path)
            if getattr(module, "return_indices", False):
                return self._unknown(module, args, kwargs, f"{path} returns indices")
            for kinds, rule in (((nn.Linear,), self._affine), (CONV_MODULES, self._affine), (NORM_MODULES, self._norm),
                                (POINTWISE_MODULES, self._pointwise), (POOL_MODULES, self._pool),
                                (LAYOUT_MODULES, self._layout)):
                if isinstance(module, kinds):
                    return rule(module, args, kwargs, path)
            return self._unknown(module, args, kwargs, f"{path} ({type(module).__name__}) is not known to keep channels apart")
        name = _name(node)
        function = _method(name) if node.op == "call_method" else node.target
        if not any(isinstance(a, Flow) for a in _flat((args, kwargs))):
            return function(*args, **kwargs)
        if name in ("size", "dim", "getattr") or (name == "getitem" and not isinstance(args[0], Flow)):
            return function(*map_flow(args, "value"), **map_flow(kwargs, "value"))
        if name in POINTWISE_NAMES:
            return self._pointwise(function, args, kwargs, name)
        if name in POOL_NAMES and not kwargs.get("return_indices"):
            return self._pool(function, args, kwargs, name)
        if name in LAYOUT_NAMES:
            return self._layout(function, args, kwargs, name, node)
        if name in SUM_NAMES and len(args) == 2 and all(isinstance(a, Flow) and a.value.shape == args[0].value.shape for a in args):
            return self._sum(function, args, kwargs)
        return self._unknown(function, args, kwargs, f"{name}() is not known to keep channels apart")

    def _affine(self, module, args, kwargs, path):
        if getattr(module, "groups", 1) > 1:
            return self._unknown(module, args, kwargs, f"{path} is a grouped convolution", path)
        if "weight" not in dict(module.named_parameters(recurse=False)):
            return self._unknown(module, args, kwargs, f"the weight of {path} is computed, not a parameter", path)
        x = args[0]
        dim = -1 if isinstance(module, nn.Linear) else 1
        const = select(module, x.const)
        arriving = self._along(x, dim, path)
        incoming = select(module, arriving)
        self._put(f"{path}.weight", 1, incoming)
        self.reads.append(Read(path, incoming, const, arriving))
        for producer_path, gate in x.gates.items():
            self.producers[producer_path].gates.add(gate)
        if path not in self.producers:
            n = module.weight.shape[0]
            self.producers[path] = Producer(path, torch.arange(len(self._parent), len(self._parent) + n))
            self._parent.extend(range(len(self._parent), len(self._parent) + n))
        labels = self.producers[path].labels
        self._put(f"{path}.weight", 0, labels)
        if module.bias is not None:
            self._put(f"{path}.bias", 0, labels)
        value = module(x.value)
        return Flow(value, _lay(labels, dim, value.shape), constant_output(module, const), {path: Gate(path)})

    def _norm(self, module, args, kwargs, path):
        x = args[0]
        labels = self._along(x, 1, path)
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, name, None) is not None:
                self._put(f"{path}.{name}", 0, labels)
        double = {k: v.double() for k, v in dict(mean=module.running_mean, var=module.running_var, weight=module.weight,
                                                 bias=module.bias).items() if v is not None}
        const = x.const
        if "mean" in double:
            const = F.batch_norm(const, double["mean"], double["var"], double.get("weight"), double.get("bias"), False, 0.0,
                                 module.eps)
            if "weight" in double:    # γ = 0 leaves β, whatever comes in
                stuck = _lay(double["weight"] == 0, 1, const.shape)
                const = torch.where(stuck, _lay(double["bias"], 1, const.shape), const)
        return Flow(module(x.value), x.label, const, {producer: Gate(path) for producer in x.gates})

    def _pointwise(self, function, args, kwargs, path):
        x = args[0]
        if isinstance(function, nn.PReLU) and function.num_parameters > 1:
            self._put(f"{path}.weight", 0, self._along(x, 1, path))
        known = ~x.const.isnan()
        at_zero = float(_double_call(function, torch.zeros_like(x.const), args[1:], kwargs).flatten()[0])
        const = _double_call(function, torch.where(known, x.const, 0.0), args[1:], kwargs)
        gates = x.gates
        if at_zero != 0:
            name = type(function).__name__ if isinstance(function, nn.Module) else "function"
            leak = f"{path} ({name}) is not 0 at 0: a neuron switched off would leave a constant {at_zero:.3g}"
            gates = {producer: Gate(gate.path, leak) for producer, gate in gates.items()}
        const = torch.where(known, const, math.nan)
        value = function(x.value, *args[1:], **kwargs)
        if value is x.value:    # in place: whoever else reads x gets the result
            x.const, x.gates = const, gates
        return Flow(value, x.label, const, gates)

    def _pool(self, function, args, kwargs, path):
        x = args[0]
        labels = self._along(x, 1, path)
        value = function(x.value, *args[1:], **kwargs)
        const = _double_call(function, x.const, args[1:], kwargs)
        return Flow(value, _lay(labels, 1, value.shape), const, x.gates)

    def _layout(self, function, args, kwargs, path, node=None):
        parts = {name: function(*map_flow(args, name), **map_flow(kwargs, name)) for name in ("value", "label", "const")}
        flows = [a for a in _flat((args, kwargs)) if isinstance(a, Flow)]
        for dim, size in _sizes(function, node):
            if isinstance(size, int) and size > 1 and _varies(parts["label"], dim):
                self._fix(flows, f"its neurons run through {path}{'()' * (node is not None)} with the fixed size {size}; "
                                 "torch.flatten(x, 1) would let them go")
        return Flow(**parts, gates={k: v for flow in flows for k, v in flow.gates.items()})

    def _sum(self, function, args, kwargs):
        a, b = args
        pairs = torch.stack([a.label.flatten(), b.label.flatten()], 1).unique(dim=0)
        for left, right in pairs.tolist():
            self._unite(left, right)
        label = torch.where(a.label > 0, a.label, b.label)
        gates = {**a.gates, **b.gates}
        const = function(a.const.clone(), b.const, **kwargs)
        value = function(a.value, b.value, **kwargs)
        if value is a.value:    # in place: whoever else reads a gets the sum
            a.label, a.const, a.gates = label, const, gates
        return Flow(value, label, const, gates)

    def _unknown(self, function, args, kwargs, reason, path=None):
        if isinstance(function, (nn.Linear, *CONV_MODULES)):
            self.opaque[path] = reason
        flows = [a for a in _flat((args, kwargs)) if isinstance(a, Flow)]
        self._fix(flows, reason)
        value = function(*map_flow(args, "value"), **map_flow(kwargs, "value"))

        def wrap(v):
            return Flow(v, torch.zeros(v.shape, dtype=torch.int64), torch.full(v.shape, math.nan, dtype=torch.float64))

        if isinstance(value, (tuple, list)):
            return type(value)(wrap(v) if isinstance(v, torch.Tensor) else v for v in value)
        return wrap(value) if isinstance(value, torch.Tensor) else value

    # -- labels

    def _along(self, x, dim, path):
        """Return the labels along one axis; whatever varies across the other axes is fixed."""
        rows = x.label.movedim(dim, 0).flatten(1)
        if bool((rows != rows[:, :1]).any()):
            self._fix(x, f"{path} reads different neurons at different places of one channel")
            return torch.full(rows.shape[:1], NOBODY)
        return rows[:, 0].clone()

    def _put(self, name, dim, labels):
        if (name, dim) in self.axes:      # a module that is called twice ties what it reads
            for old, new in zip(self.axes[name, dim].tolist(), labels.tolist()):
                self._unite(old, new)
        self.axes[name, dim] = labels

    def _fix(self, what, reason):
        for x in _flat(what):
            if isinstance(x, Flow):
                for label in x.label.unique().tolist():
                    self._fix_label(label, reason)

    def _fix_label(self, label, reason):
        if label > 0:
            self.fixed.setdefault(self._find(label), reason)

    def _find(self, label):
        while self._parent[label] != label:
            label = self._parent[label]
        return label

    def _unite(self, a, b):
        if a <= 0 or b <= 0:       # joined with something that is always there
            for label in (a, b):
                self._fix_label(label, "its neurons are added to what cannot be switched")
            return
        a, b = sorted((self._find(a), self._find(b)))
        if a != b:
            self._parent[b] = a
            if b in self.fixed:
                self.fixed.setdefault(a, self.fixed[b])


def constant_output(module, const):
    """Return the constants behind a Linear or Conv layer, given those in front of it.

    An output is constant where every input that it reads with a weight other than 0 is.

    Parameters
    ----------
    module : nn.Linear or nn.Conv1d, Conv2d, Conv3d
        The layer.
    const : Tensor of float64
        A batch of the layer's inputs (after its selection, if it has one), NaN where they are not constant.

    Returns
    -------
    Tensor of float64
        A batch of the layer's outputs, NaN where they are not constant.
    """
    weight = module.weight.detach().double()
    bias = None if module.bias is None else module.bias.detach().double()
    unknown = const.isnan()
    out = affine(module, torch.where(unknown, 0.0, const), weight, bias)
    depends = affine(module, unknown.double(), (weight != 0).double(), None)
    return torch.where(depends > 0, math.nan, out)


def affine(module, x, weight, bias):
    """Apply a Linear or Conv layer to ``x`` with another weight and bias; ``x`` is already selected."""
    return F.linear(x, weight, bias) if isinstance(module, nn.Linear) else module._conv_forward(x, weight, bias)


class SelectLinear(nn.Linear):
    """A Linear layer that reads only some of the features that arrive.

    Compaction puts it where features (pixels, or flattened ones) were switched off one by one: what arrives has a
    fixed length, so the choice has to be made inside. The indices are a buffer: bytes in the file, not parameters.

    Parameters
    ----------
    index : Tensor of int64, shape (in_features,)
        Positions of the features that are read.
    out_features : int
        Number of neurons.
    bias : bool, default True
        Whether the neurons have a bias.
    """

    def __init__(self, index, out_features, bias=True):
        super().__init__(len(index), out_features, bias)
        self.register_buffer("index", index)
        self.chosen = nn.Identity()    # does nothing: a place for hooks that want what is read, not all that arrives

    def forward(self, x):
        """Return the neurons' outputs, shape (..., out_features), for all arriving features (..., anything)."""
        return F.linear(self.chosen(select(self, x)), self.weight, self.bias)


def select(module, x):
    """Return those features of ``x`` that a layer reads: all of them, but for :class:`SelectLinear`."""
    return x.index_select(-1, module.index) if isinstance(module, SelectLinear) else x


def map_flow(args, name):
    """Return nested arguments with every :class:`Flow` replaced by one of its tensors."""
    if isinstance(args, Flow):
        return getattr(args, name)
    if isinstance(args, (tuple, list)):
        return type(args)(map_flow(a, name) for a in args)
    if isinstance(args, dict):
        return {k: map_flow(v, name) for k, v in args.items()}
    return args


def _method(name):
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def _flat(what):
    if isinstance(what, dict):
        what = list(what.values())
    if isinstance(what, (tuple, list)):
        return [leaf for part in what for leaf in _flat(part)]
    return [what]


def _lay(vector, dim, shape):
    """Lay a vector along one axis of a tensor of the given shape."""
    view = [1] * len(shape)
    view[dim] = -1
    return vector.reshape(view).expand(shape)


def _varies(label, dim):
    return label.shape[dim] > 1 and bool((label != label.select(dim, 0).unsqueeze(dim)).any())


def _sizes(function, node):
    """Return (dim, size) for the sizes that a reshaping call or an Unflatten was given."""
    if isinstance(function, nn.Unflatten):
        sizes = function.unflattened_size
        return enumerate(sizes, function.dim) if isinstance(function.dim, int) else ()
    if node is None or _name(node) not in ("view", "reshape", "unflatten"):
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


def _shared_parameters(model):
    """Return {module path: parameter name} for modules whose parameter also belongs to another module."""
    owners = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((path, name))
    return {path: name for group in owners.values() if len(group) > 1 for path, name in group}


def _neuron_site(producer, wiring, face):
    labels, path = producer.labels, producer.path
    (gate,) = {gate.path for gate in producer.gates}

    def axes(module_path):
        return tuple(wiring.axis(f"{module_path}.{name}", 0, labels) for name in ("weight", "bias")
                     if (f"{module_path}.{name}", 0) in wiring.axes)

    def belongs(along):
        return torch.isin(wiring.root(along), wiring.root(labels)).any()

    parameters = {f"{path}.{name}" for path, module in wiring.modules.items()
                  for name, _ in module.named_parameters(recurse=False)}
    passed = tuple(wiring.axis(name, dim, labels) for (name, dim), along in wiring.axes.items()
                   if dim == 0 and name in parameters and belongs(along))
    outgoing = {read.path: wiring.axis(f"{read.path}.weight", 1, labels) for read in wiring.reads
                if belongs(read.labels)}
    return Site(path.replace(".", "_"), path, len(labels), "neuron", axes(path), axes(gate), tuple(outgoing.values()), face,
                passed)


def _check_skip(model, skip):
    """Return {path: module}, after a look at whether ``skip`` names modules only."""
    paths = dict(model.named_modules())
    for path in skip:
        if path not in paths:
            raise ValueError(f"skip names {path!r}, which is no module of the model. Its modules: "
                             f"{', '.join(p for p in paths if p)}.")
    return paths


def _name_apart(sites):
    """Make keys unique, and none a name that torch's containers use for themselves (``values``, ``type``)."""
    taken = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
    for site in sites:
        while site.key in taken:
            site.key += "_"
        taken.add(site.key)


def _feature_site(read, wiring):
    n = len(read.labels)
    axis = Axis(f"{read.path}.weight", 1, torch.arange(n)[:, None], tuple(wiring.modules[read.path].weight.shape))
    readers = sum(other.of_input for other in wiring.reads)
    key = "input" if read.of_input and readers == 1 else f"{read.path.replace('.', '_')}_in"
    return Site(key, read.path, n, "feature", (), (), (axis,), "outgoing")
