"""Zeros that save time: Linear layers in compressed sparse rows (CSR), where a measurement says that they are faster.

Removing neurons makes a layer smaller; switching off connections leaves holes in it, and a dense product multiplies them
all. CSR stores the surviving connections only, but walks through them less evenly: below some density it wins. Where
that is depends on the machine, the layer and the batch, so that :func:`sparsify` measures it.
"""

import copy
import warnings
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from switcher_lib.errors import SwitchError, SwitchWarning
from switcher_lib.metrics import compare_latency
from switcher_lib.layers import SelectLinear
from switcher_lib.switched import Switched

DTYPES = (torch.float32, torch.float64)    # what PyTorch's CSR product takes on a CPU


class SparseLinear(nn.Module):
    """A Linear layer that holds its surviving connections only, for inference on a CPU.

    Row j's weights are ``values[crow_indices[j]:crow_indices[j + 1]]``, at the features ``col_indices`` of the same
    range. All are buffers, with the bias: nothing to learn, and what ``state_dict()`` saves. A selection of features
    costs nothing here, for it goes into the column indices. The CSR tensor itself is made anew in each call (about 2 µs):
    one that was kept would not follow a loaded state, nor come through ``deepcopy``.

    Parameters
    ----------
    weight : Tensor of shape (out_features, features)
        The dense weight, float32 or float64; entries of exactly 0 are left out.
    bias : Tensor of shape (out_features,), optional
        The bias.
    index : Tensor of int64, shape (features,), optional
        Positions of the features among those that arrive, as in :class:`~switcher_lib.layers.SelectLinear`.
    in_features : int, optional
        How many features arrive; needed with ``index`` only.

    Raises
    ------
    ValueError
        If an argument is not as described.
    """

    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, index: Tensor | None = None,
                 in_features: int | None = None) -> None:
        super().__init__()
        if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or weight.dtype not in DTYPES:
            got = f"{tuple(weight.shape)} of {weight.dtype}" if isinstance(weight, torch.Tensor) else type(weight).__name__
            raise ValueError(f"weight={got} must be a matrix of float32 or float64.")
        n, features = weight.shape
        if bias is not None and bias.shape != (n,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}; the weight has {n} rows, so it must be ({n},).")
        weight = weight.detach()
        if index is not None:
            if not isinstance(in_features, int):
                raise ValueError(f"in_features={in_features!r} must be told with index: how many features arrive.")
            if index.shape != (features,) or bool(((index < 0) | (index >= in_features)).any()):
                raise ValueError(f"index of shape {tuple(index.shape)} must hold {features} positions, one for each column of "
                                 f"the weight, each at least 0 and below in_features={in_features}.")
            weight = weight.new_zeros(n, in_features).index_add(1, index, weight)
        elif in_features not in (None, features):
            raise ValueError(f"in_features={in_features!r}, but the weight has {features} columns and there is no index.")
        _quiet()
        csr = weight.to_sparse_csr()
        self.out_features, self.in_features = weight.shape
        for name in ("crow_indices", "col_indices"):
            self.register_buffer(name, getattr(csr, name)().to(torch.int32))    # half the bytes, and what MKL takes
        self.register_buffer("values", csr.values().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:    # named as in nn.Linear, which it stands for
        """Return the neurons' outputs, shape (..., out_features), for inputs (..., in_features)."""
        rows = input.reshape(-1, input.shape[-1])
        bias = rows.new_zeros(self.out_features) if self.bias is None else self.bias
        # CSR comes first in addmm, and F.linear refuses it in inference mode: so everything runs transposed.
        out = torch.addmm(bias[:, None].expand(-1, len(rows)), self._csr(), rows.t()).t()
        return out.reshape(*input.shape[:-1], self.out_features)

    def to_dense(self) -> Tensor:
        """Return the dense weight, shape (out_features, in_features)."""
        return self._csr().to_dense()

    def extra_repr(self) -> str:
        """Return what stands between the parentheses when the module is printed."""
        return (f"in_features={self.in_features}, out_features={self.out_features}, connections={len(self.values)}, "
                f"bias={self.bias is not None}")

    def _csr(self, check=False):
        return torch.sparse_csr_tensor(self.crow_indices, self.col_indices, self.values, (self.out_features, self.in_features),
                                       check_invariants=check)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        """Take as many connections as the state has; indices that point outside would read foreign memory."""
        parts = [state_dict.get(f"{prefix}{name}") for name in ("crow_indices", "col_indices", "values")]
        if all(isinstance(part, torch.Tensor) for part in parts):
            try:
                torch.sparse_csr_tensor(*parts, (self.out_features, self.in_features), check_invariants=True)
            except RuntimeError as error:
                error_msgs.append(f"{prefix}values and its indices are no {self.out_features} × {self.in_features} matrix in "
                                  f"CSR: {error}")
                return
            self.col_indices = self.col_indices.new_empty(parts[1].shape)
            self.values = self.values.new_empty(parts[2].shape)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


@dataclass(frozen=True)
class LayerTimes:
    """What was measured of one Linear layer.

    Attributes
    ----------
    density : float
        Weights other than 0 over all weights.
    dense, csr : float
        Milliseconds for the layer's calls in one pass: medians of passes that took turns.
    chosen : {"dense", "csr"}
        What the layer became.
    """

    density: float
    dense: float
    csr: float
    chosen: Literal["dense", "csr"]


@dataclass(frozen=True)
class Sparsified:
    """A network with some of its Linear layers in CSR, and the measurements behind the choice.

    Attributes
    ----------
    model : nn.Module
        A plain copy, in eval mode.
    layers : dict of str to LayerTimes
        One for each Linear layer that runs.
    batch, threads : int
        What it was measured with.
    relative_error : float
        max|y − ŷ| / max|y| on the example: rounding, for the sums run in another order.
    """

    model: nn.Module
    layers: dict[str, LayerTimes]
    batch: int
    threads: int
    relative_error: float

    @property
    def chosen(self) -> list[str]:
        """Return the paths of the layers that run as CSR."""
        return [path for path, times in self.layers.items() if times.chosen == "csr"]

    def __str__(self) -> str:
        width = max([len("layer"), *map(len, self.layers)])
        lines = [f"{'layer':{width}}  {'density':>8}  {'dense':>10}  {'CSR':>10}  runs as"]
        lines += [f"{path:{width}}  {t.density:>8.1%}  {t.dense:>7.3f} ms  {t.csr:>7.3f} ms  {t.chosen}"
                  for path, t in self.layers.items()]
        return "\n".join([*lines, self._conditions])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><th scope='row'>{path}</th><td>{t.density:.1%}</td><td>{t.dense:.3f}</td><td>{t.csr:.3f}</td>"
                       f"<td>{t.chosen}</td></tr>" for path, t in self.layers.items())
        return ("<table><thead><tr><th scope='col'>layer</th><th scope='col'>density</th><th scope='col'>dense, ms</th>"
                "<th scope='col'>CSR, ms</th><th scope='col'>runs as</th></tr></thead>"
                f"<tbody>{body}</tbody></table><p>{self._conditions}</p>")

    @property
    def _conditions(self):
        return (f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}, relative error "
                f"{self.relative_error:.1e}")


def sparsify(model: nn.Module, example: Tensor, *, threads: int = 1, runs: int = 100, margin: float = 0.1) -> Sparsified:
    """Let surviving connections run as CSR where that is faster.

    Each Linear layer is timed on what arrives at it when ``example`` goes through the model, dense and as CSR in turn.
    This comes last, after compaction and after counting: a :class:`SparseLinear` has no parameters to train or count.

    Parameters
    ----------
    model : nn.Module
        A plain network on the CPU; it is left as it is.
    example : Tensor
        Inputs of the batch size that the network will meet.
    threads : int, default 1
        CPU threads, at least 1.
    runs : int, default 100
        Timed passes of each, at least 3.
    margin : float, default 0.1
        How much of the dense time CSR must save, in [0, 1): within it, timing is noise.

    Returns
    -------
    Sparsified
        ``.model``, a copy that computes the same up to rounding, and ``.layers``, what was measured.

    Raises
    ------
    TypeError
        If ``model`` is a switched network or no module.
    ValueError
        If another argument is not as described.
    SwitchError
        If no Linear layer runs, or the result computes something else, as where a model reads a layer's weight itself.

    Warns
    -----
    SwitchWarning
        If this build of PyTorch cannot multiply CSR matrices; then all layers stay dense.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Switched):
        raise TypeError(f"model is a {type(model).__name__}; it must be a plain nn.Module: sl.compact(net, x).model or "
                        "sl.fold(net) makes one of a switched network.")
    if not isinstance(margin, Real) or not 0 <= margin < 1:
        raise ValueError(f"margin={margin!r} must be a number of at least 0 and below 1.")
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or len(example) == 0:
        got = tuple(example.shape) if isinstance(example, torch.Tensor) else type(example).__name__
        raise ValueError(f"example={got} must be a tensor: a batch of at least one input, as the model takes it.")
    devices = {t.device.type for t in (example, *model.parameters())} - {"cpu"}
    if devices:
        raise ValueError(f"model or example is on {', '.join(sorted(devices))}; CSR is measured on the CPU: call .cpu() first.")
    sparse = copy.deepcopy(model).eval()
    arriving, y = _arriving(sparse, example)
    if not arriving:
        raise SwitchError(f"no Linear layer of float32 or float64 runs in {type(model).__name__}.")
    able = _csr_works()
    if not able:
        warnings.warn("this build of PyTorch cannot multiply CSR matrices on the CPU; all layers stay dense.", SwitchWarning,
                      stacklevel=2)
    layers = {}
    for path, (layer, inputs) in arriving.items():
        density = int(torch.count_nonzero(layer.weight)) / layer.weight.numel()
        csr = SparseLinear(layer.weight, layer.bias, getattr(layer, "index", None), inputs[0].shape[-1])
        measured = [compare_latency({"dense": layer, "csr": csr} if able else {"dense": layer}, x, threads=threads, runs=runs)
                    for x in inputs]
        dense, faster = (sum(m[name].median if name in m else float("inf") for m in measured) for name in ("dense", "csr"))
        chosen = "csr" if faster < (1 - margin) * dense else "dense"
        layers[path] = LayerTimes(density, dense, faster, chosen)
        if chosen == "csr":
            sparse = _replaced(sparse, layer, csr)
    return Sparsified(sparse, layers, len(example), threads, _difference(model, sparse, example, y))


def _arriving(model, example):
    """Return {path: (Linear layer, what arrives at each of its calls)}, and the model's output."""
    found, hooks = {}, []
    for path, module in model.named_modules():
        # Subclasses do something else with the weight, or compute it; hooks would be lost.
        if type(module) in (nn.Linear, SelectLinear) and module.weight.dtype in DTYPES and not _hooked(module):
            def note(module, args, kwargs, path=path):
                found.setdefault(path, (module, []))[1].append(*args, *kwargs.values())

            hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad():
            y = model(example)
    finally:
        for handle in hooks:
            handle.remove()
    return found, y


def _hooked(module):
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replaced(model, old, new):
    """Return the model with a layer replaced under every name that it has."""
    if model is old:
        return new.train(model.training)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            owner, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(owner), attribute, new.train(old.training))
    return model


def _difference(model, sparse, example, y):
    """Return the relative error of the sparse network's output; refuse one that is more than rounding."""
    try:
        with torch.no_grad():
            y_hat = sparse(example)
    except (AttributeError, RuntimeError) as error:
        raise SwitchError(f"{type(model).__name__} does not run with a SparseLinear in it ({error}); it uses one of its Linear "
                          "layers otherwise than by calling it.") from error
    gap = float((y - y_hat).abs().max() / y.abs().max()) if bool(y.any()) else float((y - y_hat).abs().max())
    if not gap <= torch.finfo(y.dtype).eps ** 0.5:
        raise SwitchError(f"{type(model).__name__} computes something else with its weights in CSR: relative error {gap:.1e}.")
    return gap


@lru_cache(maxsize=None)
def _quiet():
    """Let PyTorch say once, to nobody, that CSR is in beta state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)


@lru_cache(maxsize=None)
def _csr_works():
    """Whether PyTorch was built with what CSR products need on a CPU."""
    try:
        with torch.no_grad():
            return bool(SparseLinear(torch.ones(1, 1))(torch.ones(1, 1)) == 1)
    except RuntimeError:
        return False
