"""Where a network can be switched: what a factor vector acts on.

Neurons and their readers are found by running labels through the network (:mod:`switcher_lib.wiring`); here they become
sites: places in parameters that belong to each neuron, to be read, scaled and counted.
"""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from switcher_lib.errors import SwitchError, SwitchWarning
from switcher_lib.layers import AFFINE_MODULES, CONV_MODULES, weight_dims
from switcher_lib.wiring import Wiring, check_traced, differs_in_training, shared_parameters, trace

__all__ = ["Axis", "Connections", "Site", "find_connections", "find_sites", "trace"]


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
    positions: Tensor
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Size of the parameter along the axis."""
        return self.shape[self.dim]

    @property
    def width(self) -> int:
        """How many of the parameter's numbers each neuron owns: the d of :meth:`read`."""
        return self.positions.shape[1] * math.prod(self.shape) // self.length

    @cached_property
    def whole(self) -> bool:
        """Whether position j is neuron j, for all positions: then nothing needs indexing."""
        return self.positions.shape == (self.length, 1) and bool((self.positions[:, 0] == torch.arange(self.length)).all())

    @cached_property
    def ragged(self) -> bool:
        """Whether some neuron has fewer positions than others."""
        return bool((self.positions == self.length).any())

    def read(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return what each neuron owns of this parameter, shape (n, d), with 0 where it has less than others."""
        p = params[self.name].movedim(self.dim, 0)
        if not self.whole:
            p = torch.cat([p, p.new_zeros(1, *p.shape[1:])]) if self.ragged else p
            p = p[self.positions.to(p.device)]
        return p.reshape(len(self.positions), -1)

    def spread(self, s: Tensor) -> Tensor:
        """Lay factors of shape (n,) out along the axis, shape (length,), with 1 where no neuron of the site is."""
        if self.whole:
            return s
        positions = self.positions.to(s.device)
        ones = s.new_ones(self.length + 1)    # the last one takes what only fills up
        return ones.index_put((positions,), s[:, None].expand(positions.shape))[:-1]

    def scale(self, params: Mapping[str, Tensor], s: Tensor) -> dict[str, Tensor]:
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
        Path of the layer that writes the neurons, of the first one where several do; for features read singly, of the
        layer that reads them.
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
        What else belongs to the neurons on the way to their readers, such as a PReLU's slopes or a depthwise
        convolution: neither read nor multiplied, but gone when they go.
    writers : tuple of str
        Paths of all layers that write the neurons: more than one where they are tied, as in a residual stream.
    """

    key: str
    path: str
    size: int
    kind: Literal["neuron", "feature"]
    own: tuple[Axis, ...]
    incoming: tuple[Axis, ...]
    outgoing: tuple[Axis, ...]
    face: Literal["incoming", "outgoing"] = "incoming"
    passed: tuple[Axis, ...] = ()
    writers: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int]:
        """Shape of the factors: (n,)."""
        return (self.size,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every parameter axis that this site's neurons occupy, each once."""
        return tuple({(a.name, a.dim): a for a in (*self.own, *self.incoming, *self.outgoing, *self.passed)}.values())

    def rows(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the neurons' incoming weights and biases, shape (n, fan_in + 1); features have none: (n, 0)."""
        if not self.own:
            return next(iter(params.values())).new_zeros(self.size, 0)
        return torch.cat([axis.read(params) for axis in self.own], dim=1)

    def columns(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the neurons' outgoing weights in all their readers, shape (n, fan_out)."""
        return torch.cat([axis.read(params) for axis in self.outgoing], dim=1)

    def scale(self, params: Mapping[str, Tensor], s: Tensor) -> dict[str, Tensor]:
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
        scaled = dict(params)
        for axis in self.face_axes:
            scaled = axis.scale(scaled, s)
        return scaled

    @property
    def face_axes(self) -> tuple[Axis, ...]:
        """What :meth:`scale` multiplies."""
        return self.incoming if self.face == "incoming" else self.outgoing

    def __repr__(self) -> str:
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
    shape: tuple[int, ...]
    kind: Literal["connection"] = "connection"

    @property
    def size(self) -> int:
        """Number of connections."""
        return math.prod(self.shape)

    def matrix(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the weight with a row for each neuron that it leads to, shape (n, d)."""
        return params[self.name].flatten(1)

    def scale(self, params: Mapping[str, Tensor], s: Tensor) -> dict[str, Tensor]:
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

    def __repr__(self) -> str:
        return f"Connections({self.key!r}, shape={self.shape})"


def count_on(sites: Sequence[Site | Connections], on: Mapping[str, Tensor],
             shapes: Mapping[str, torch.Size]) -> dict[str, Tensor | int]:
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
    along: dict[tuple[str, int], Tensor] = {}      # (parameter, dim) -> how far each position is on
    for site in sites:
        for axis in site.axes if site.kind != "connection" else ():
            here = axis.spread(on[site.key])
            along[axis.name, axis.dim] = along[axis.name, axis.dim] * here if (axis.name, axis.dim) in along else here
    counts: dict[str, Tensor | int] = {}
    for name, shape in shapes.items():
        if name in inside:
            counts[name] = inside[name].sum()
        else:
            on_along: list[Any] = [along[name, dim].sum() if (name, dim) in along else length for dim, length in enumerate(shape)]
            counts[name] = math.prod(on_along)
    return counts


def find_connections(model: nn.Module, *, convolutions: bool = False,
                     skip: Collection[str] = ()) -> tuple[list[Connections], dict[str, str]]:
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
    sites: list[Connections] = []
    refused: dict[str, str] = {}
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, *CONV_MODULES) if convolutions else (nn.Linear,)
    shared = shared_parameters(model)
    for path, module in model.named_modules():
        if not isinstance(module, kinds):
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if _skipped(path, skip):
            refused[path] = "skipped on request"
        elif weight is None:
            refused[path] = f"the weight of {path} is computed, not a parameter"
        elif "weight" in shared.get(path, ()):
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


def find_sites(model: nn.Module, example: Tensor, *, face: Literal["incoming", "outgoing"] = "incoming",
               switch_inputs: bool = False, switch_flattened: bool = False, tied: bool = False,
               skip: Collection[str] = ()) -> tuple[list[Site], dict[str, str]]:
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
    tied : bool, default False
        Whether to switch neurons that can only go together too, as one site: what several layers write to a residual
        stream, or what several BatchNorms read.
    skip : sequence of str, default ()
        Paths of layers, or of modules with layers in them, to leave alone, without a warning.

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

    Warns
    -----
    SwitchWarning
        If neurons stay unswitched that could be with another activation, or if ``forward()`` goes another way in train mode.
    """
    return search(model, example, face, switch_inputs, switch_flattened, tied, skip)


def search(model: nn.Module, example: Tensor, face: Literal["incoming", "outgoing"], switch_inputs: bool, switch_flattened: bool,
           tied: bool, skip: Collection[str]) -> tuple[list[Site], dict[str, str]]:
    """Find where a model can be switched, as :func:`find_sites` does; warnings point at whoever called the caller."""
    if face not in ("incoming", "outgoing"):
        raise ValueError(f"face={face!r} is not a face. Known: incoming, outgoing.")
    paths = _check_skip(model, skip)
    wiring = trace(model, example)
    if random := check_traced(model, example, wiring.output):
        warnings.warn(f"{random}.", SwitchWarning, stacklevel=3)
    if difference := differs_in_training(model):
        warnings.warn(f"{difference}. Sites, and what compact() removes, are right for eval mode; make sure of train mode yourself.",
                      SwitchWarning, stacklevel=3)
    sites: list[Site] = []
    refused: dict[str, str] = {}
    for read in wiring.reads:
        if _skipped(read.path, skip) or not isinstance(paths[read.path], nn.Linear):
            continue
        if (switch_inputs and read.of_input) or (switch_flattened and read.flattened):
            sites.append(_feature_site(read, wiring))
    if switch_inputs and not any(site.kind == "feature" for site in sites):
        refused["input"] = "no Linear layer reads the input, and a convolution reads whole channels of it"
    for group in wiring.groups():
        writers = [producer.path for producer in group]
        if skipped := [path for path in writers if _skipped(path, skip)]:
            left = f"can only go together with {', '.join(skipped)}, which is skipped on request"
            refused |= {path: "skipped on request" if _skipped(path, skip) else left for path in writers}
            continue
        reason, advice = wiring.refusal(group, face, tied)
        if reason is None:
            sites.append(_neuron_site(group, wiring, face))
        else:
            refused |= dict.fromkeys(writers, reason)
            if advice:
                warnings.warn(f"{reason}: {advice} (net.refused); skip=[{writers[0]!r}] silences this.", SwitchWarning, stacklevel=3)
    order = {path: i for i, path in enumerate(paths)}
    sites.sort(key=lambda site: order[site.path] - (site.kind == "feature") * 0.5)
    for path, labels in wiring.through.items():    # a grouped convolution is switched with the neurons that it hands on
        stuck = next((wiring.fixed[root] for root in wiring.root(labels).tolist() if root in wiring.fixed), None)
        if stuck or (labels <= 0).any():
            refused[path] = stuck or f"{path} has groups, and reads what always arrives"
    refused |= {path: reason for path, reason in wiring.opaque.items() if path not in refused}
    _name_apart(sites)
    if not sites:
        why = "; ".join(f"{path}: {reason}" for path, reason in refused.items() if path)
        single = isinstance(model, AFFINE_MODULES)
        why = why or ("It is a single layer, and its outputs are its own" if single else "It has no Linear or Conv layer")
        raise SwitchError(f"nothing in {type(model).__name__} can be switched. {why}.")
    return sites, refused


def tied_sites(wiring: Wiring) -> list[Site]:
    """Return the sites of all neurons that can be switched, each with those that it can only go together with."""
    return [_neuron_site(group, wiring, "incoming") for group in wiring.groups() if wiring.refusal(group, "incoming", tied=True)[0] is None]


def _neuron_site(group, wiring, face):
    """The site of a group of producers whose neurons are tied; mostly of a single one."""
    places = set().union(*(producer.places for producer in group))
    writers = [producer for producer in group if any(place.producer == producer.path for place in places)]
    roots = wiring.root(torch.cat([producer.labels for producer in (*writers, *group)]))
    roots = torch.tensor(list(dict.fromkeys(roots.tolist())))    # each neuron once, in the order in which they are written

    def axis(name, dim):
        path, _, tensor = name.rpartition(".")
        shape = tuple(getattr(wiring.modules[path], tensor).shape)
        return Axis(name, dim, wiring.positions(name, dim, roots), shape)

    here = wiring.axes_of(roots)

    def of_layers(paths):
        at = [(f"{path}.{name}", weight_dims(wiring.modules[path])[0] if name == "weight" else 0)
              for path in paths for name in ("weight", "bias")]
        return tuple(axis(*one) for one in at if one in here)

    own = of_layers([producer.path for producer in writers])
    readers = dict.fromkeys((f"{read.path}.weight", weight_dims(wiring.modules[read.path])[1]) for read in wiring.reads)
    passed = tuple(axis(*one) for one in here if one not in readers and one[0] not in wiring.buffers)
    outgoing = tuple(axis(*one) for one in readers if one in here)
    incoming = of_layers(dict.fromkeys(place.path for place in sorted(places, key=lambda place: wiring.order[place.path])))
    first = writers[0].path
    return Site(first.replace(".", "_"), first, len(roots), "neuron", own, incoming, outgoing, face, passed,
                tuple(producer.path for producer in writers))


def _check_skip(model: nn.Module, skip: Collection[str]) -> dict[str, nn.Module]:
    """Return {path: module}, after a look at whether ``skip`` names modules only."""
    paths = dict(model.named_modules())
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise ValueError(f"skip={skip!r} must be a list of paths of modules, such as [{str(skip)!r}].")
    for path in skip:
        if not path or path not in paths:
            raise ValueError(f"skip names {path!r}, which is no module of the model. Its modules: "
                             f"{', '.join(p for p in paths if p)}.")
    return paths


def _skipped(path: str, skip: Collection[str]) -> bool:
    """Whether a module, or one that it is in, is to be left alone."""
    return any(path == other or path.startswith(f"{other}.") for other in skip)


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
