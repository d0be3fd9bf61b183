"""What a network computes in: float32, or bfloat16 by instructions of the processor, or bfloat16's numbers without them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from switcher_lib.errors import unknown_name

Precision = Literal["float32", "bfloat16", "auto"]
PRECISIONS = ("float32", "bfloat16")    # what a machine computes in; an experiment names one of them
IN_BFLOAT16 = ("avx512_bf16", "amx_bf16")    # instructions of x86 processors
PRODUCTS = {torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
            F.linear, torch.mm, torch.bmm, torch.matmul, torch.addmm, Tensor.mm, Tensor.bmm, Tensor.matmul,
            Tensor.__matmul__}    # what autocast rounds, and a processor is slow at


class RoundedProducts(TorchFunctionMode):
    """Do autocast's products in bfloat16 with a processor's float32 instructions.

    That is what the instructions for bfloat16 do: they round what is multiplied, add the products up in float32, and
    round the sum. So the numbers are theirs but for the order of the additions, forward and backward (where the gradients
    are rounded too), and the time is float32's. Without these instructions PyTorch's own way takes about ten times as
    long. Attention in :class:`torch.nn.MultiheadAttention` stays with PyTorch's way.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        """Compute one function."""
        kwargs = kwargs or {}
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if func not in PRODUCTS or not torch.is_autocast_enabled("cpu") or not all(
                value.device.type == "cpu" and value.dtype in (torch.float32, torch.bfloat16) for value in given):
            return func(*args, **kwargs)

        def rounded(value):
            return value.bfloat16().float() if isinstance(value, Tensor) else value

        out = kwargs.get("out")
        with torch.autocast("cpu", enabled=False):
            result = func(*map(rounded, args), **{name: rounded(value) for name, value in kwargs.items() if name != "out"}).bfloat16()
        return result if out is None else out.copy_(result)


def _quick(device):
    """Whether a device has instructions for bfloat16; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False) or None
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):    # older PyTorch doesn't tell
        return None
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in IN_BFLOAT16) or (False if has.get("architecture") in ("x86", "x86_64") else None)


def choose(asked: Precision, device: torch.device) -> Precision:
    """Return what to compute in: what was asked for; for ``"auto"`` bfloat16 where it is known to be quick.

    Parameters
    ----------
    asked : {"float32", "bfloat16", "auto"}
        ``"auto"`` is bfloat16 on x86 processors with AVX-512's or AMX's instructions for it, and on GPUs that compute in it.
    device : torch.device
        Where.

    Raises
    ------
    ValueError
        If there is no such precision.
    """
    if asked not in (*PRECISIONS, "auto"):
        raise unknown_name("precision", asked, (*PRECISIONS, "auto"), "precision")
    return asked if asked != "auto" else "bfloat16" if _quick(device) else "float32"


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute a network's layers in a precision.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "auto"}
        As :func:`choose` reads it.
    device : torch.device
        Where.

    Raises
    ------
    ValueError
        If there is no such precision.
    """
    precision = choose(precision, device)
    rounded = precision == "bfloat16" and _quick(device) is False
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        with RoundedProducts() if rounded else nullcontext():
            yield
