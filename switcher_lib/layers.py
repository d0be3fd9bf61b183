"""What Linear and Conv layers read, and what they make of constants: float64 values that are NaN where the input has a say."""

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SelectLinear", "constant_output"]

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONV_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_MODULES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
AFFINE_MODULES = (nn.Linear, *CONV_MODULES, *TRANSPOSED_MODULES)    # what writes neurons


def weight_dims(module: nn.Module) -> tuple[int, int]:
    """Return along which dimensions of a Linear or Conv layer's weight its neurons lie, and what it reads."""
    return (1, 0) if isinstance(module, TRANSPOSED_MODULES) else (0, 1)


def neuron_dim(module: nn.Module) -> int:
    """Return along which dimension of a Linear or Conv layer's inputs and outputs the neurons lie."""
    return -1 if isinstance(module, nn.Linear) else 1


def weights_apart(module: nn.Linear | Conv | Transposed) -> Tensor:
    """Return where a layer has a weight other than 0: bool of shape (neurons, inputs of a group)."""
    weight = module.weight.detach().movedim(weight_dims(module), (0, 1))
    return (weight != 0).flatten(2).any(2) if weight.ndim > 2 else weight != 0


def constant_output(module: nn.Linear | Conv | Transposed, const: Tensor) -> Tensor:
    """Return the constants behind a Linear or Conv layer, given those in front of it.

    An output is constant where every input that it reads with a weight other than 0 is; a channel that is unknown at one
    place counts as unknown at all. So does one that a convolution makes different from place to place, since it reads the
    border's padding: what becomes of that depends on the size of the image. A transposed convolution's kernels overlap
    in different numbers from place to place: nothing but its bias is known behind it, where all that it reads is 0.

    Parameters
    ----------
    module : nn.Linear, nn.Conv1d to Conv3d or nn.ConvTranspose1d to ConvTranspose3d
        The layer; a transposed one without groups.
    const : Tensor of float64
        A batch of the layer's inputs (after its selection, if it has one), NaN where they are not constant.

    Returns
    -------
    Tensor of float64
        A batch of the layer's outputs, NaN where they are not constant.
    """
    weight, reads = module.weight.detach().double(), weights_apart(module)
    dim, groups = neuron_dim(module), getattr(module, "groups", 1)
    transposed = isinstance(module, TRANSPOSED_MODULES)
    each = const if dim == -1 or nowhere_known(const) else uniform(const)
    parts = each.movedim(dim, 0).flatten(1)[:, :1 if nowhere_known(const) else None]
    unknown = ((parts != 0) if transposed else parts.isnan()).any(1)    # NaN is not 0 either
    depends = (reads.view(groups, -1, reads.shape[1]) & unknown.view(groups, 1, -1)).any(2).flatten()
    shape = affine(module, const.to("meta"), weight.to("meta"), None).shape
    known = (~depends).nonzero()[:, 0]
    out = nothing_known(shape)
    if not len(known):
        return out
    bias = weight.new_zeros(len(reads)) if module.bias is None else module.bias.detach().double()
    if transposed or not reads[known].any():    # nothing but the bias, everywhere
        told = lay(bias[known], dim, out.index_select(dim, known).shape)
    elif isinstance(module, nn.Linear):
        told = affine(module, const.nan_to_num(), weight[known], bias[known])
    elif isinstance(module, CONV_MODULES):
        each = each[0].flatten().nan_to_num()
        told = everywhere(module, each, weight[known], bias[known]) if groups == 1 else everywhere(module, each, weight, bias)[known]
        told = lay(told, dim, out.index_select(dim, known).shape)
    return out.index_copy(dim, known, told)


def everywhere(module: Conv, each: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a convolution makes of channels that are the same all over, in an image of any size.

    Parameters
    ----------
    module : nn.Conv1d, Conv2d, Conv3d
        The layer.
    each : Tensor of float64, shape (n_in,)
        The channels' values.
    weight, bias : Tensor, Tensor or None
        In place of the layer's own.

    Returns
    -------
    Tensor of float64, shape (n_out,)
        NaN where an output is not the same all over, because the padding shows where the border is.
    """
    kernel = [(size - 1) * apart + 1 for size, apart in zip(module.kernel_size, module.dilation)]
    padding = kernel if isinstance(module.padding, str) else module.padding
    canvas = [2 * (size + more) + 1 for size, more in zip(kernel, padding)]    # large enough for an inside and a border
    every = copy.copy(module)
    every.stride = (1,) * len(canvas)                                          # looks at every place
    return uniform(affine(every, lay(each, 1, (1, len(each), *canvas)), weight, bias)).flatten()


def uniform(const: Tensor) -> Tensor:
    """Return constants (N, C, 1, ...) of channels (N, C, ...) that are the same all over, up to rounding; NaN for others."""
    places = const.flatten(2) if const.ndim > 2 else const[..., None]
    first = places[..., :1]
    same = ((places - first).abs() <= 1e-14 * places.abs().amax(-1, keepdim=True)).all(-1, keepdim=True)
    return torch.where(same, first, math.nan).reshape(*const.shape[:2], *[1] * (const.ndim - 2))


def affine(module: nn.Linear | Conv | Transposed, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a Linear or Conv layer to ``x`` with another weight and bias; ``x`` is already selected."""
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    if isinstance(module, CONV_MODULES):
        return module._conv_forward(x, weight, bias)
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[weight.ndim - 3]
    return transpose(x, weight, bias, module.stride, cast(tuple[int, ...], module.padding), module.output_padding, module.groups,
                     module.dilation)


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

    index: Tensor

    def __init__(self, index: Tensor, out_features: int, bias: bool = True) -> None:
        super().__init__(len(index), out_features, bias)
        self.register_buffer("index", index)
        self.chosen = nn.Identity()    # does nothing: a place for hooks that want what is read, not all that arrives

    def forward(self, x: Tensor) -> Tensor:
        """Return the neurons' outputs, shape (..., out_features), for all arriving features (..., anything)."""
        return F.linear(self.chosen(select(self, x)), self.weight, self.bias)


def select(module: nn.Module, x: Tensor) -> Tensor:
    """Return those features of ``x`` that a layer reads: all of them, but for :class:`SelectLinear`."""
    return x.index_select(-1, module.index) if isinstance(module, SelectLinear) else x


def nowhere_known(const: Tensor) -> bool:
    """Return whether no entry is constant."""
    return bool((const.flatten()[:1] if not any(const.stride()) else const).isnan().all())


def nothing_known(shape: Sequence[int]) -> Tensor:
    """Constants of an activation that has none: of any shape, and of no size in memory."""
    return torch.tensor(math.nan, dtype=torch.float64).expand(shape)


def lay(vector: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Lay a vector along one axis of a tensor of the given shape."""
    view = [1] * len(shape)
    view[dim] = -1
    return vector.reshape(view).expand(shape)
