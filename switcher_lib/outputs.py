"""What networks return, held against each other."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def tensors_in(output: Any) -> list[Tensor]:
    """Return the tensors in what a network returns, whatever tuples, lists, dicts and dataclasses they are in.

    Parameters
    ----------
    output : object
        What it returns.
    """
    if isinstance(output, torch.Tensor):
        return [output]
    if is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, field.name) for field in fields(output)]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def relative_difference(output: Any, other: Any) -> float:
    """Return max|y − ŷ| / max|y| of what two networks return; the largest, if they return several tensors.

    Parameters
    ----------
    output, other : object
        With tensors in them. Where both are infinite alike, as masked scores are, they do not differ.

    Returns
    -------
    float
        At least 0; infinite if shapes or the number of tensors differ; NaN if one of them has NaN.
    """
    found, others = tensors_in(output), tensors_in(other)
    if [y.shape for y in found] != [y.shape for y in others]:
        return math.inf
    worst = 0.0
    for y, y_hat in zip(found, others):
        y, y_hat = y.detach().cpu(), y_hat.detach().cpu()
        if not y.is_complex():    # labels and masks are compared as numbers
            y, y_hat = y.double(), y_hat.double()
        apart = torch.where(y.isinf() & (y == y_hat), 0, y - y_hat)
        scale, difference = (float(t.abs().max()) if t.numel() else 0.0 for t in (torch.where(y.isinf(), 0, y), apart))
        if math.isnan(scale) or math.isnan(difference):
            return math.nan
        worst = max(worst, difference / scale if scale > 0 else (0.0 if difference == 0 else math.inf))
    return worst
