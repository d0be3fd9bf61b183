"""Weights and pictures as text: what an explorer that computes from a network carries into the page (unpacked by ``packed.js``)."""

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from ..layers import Conv


def as_text(array: ArrayLike) -> str:
    """Return an array's bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def packed(layer: nn.Linear | Conv, name: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return a layer as the page carries it, and the weights and biases that the page so computes with.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv1d, Conv2d, Conv3d
        With a ``weight`` (n, ...) and maybe a ``bias`` (n,).
    name : str
        What to call it in an error.

    Returns
    -------
    dict
        ``shape``; ``weight``, one byte each; ``scale``, one for each of n rows; ``bias``. Rounded before use, here and in the
        page alike: seven digits keep the text short.
    ndarray of float64, (n, ...)
        Bytes times scales.
    ndarray of float64, (n,)
        Biases.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    whole = layer.weight.detach().double().cpu().numpy()
    W = whole.reshape(len(whole), -1)
    b = np.zeros(len(W)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise ValueError(f"model: a weight of {name} is not finite.")
    scale = np.array([float(f"{v:.7g}") for v in np.abs(W).max(1, initial=0) / 127])
    b = np.array([float(f"{v:.7g}") for v in b])
    q = np.rint(W / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    carried = {"shape": list(whole.shape), "weight": as_text(q), "scale": scale.tolist(), "bias": b.tolist()}
    return carried, (q * scale[:, None]).reshape(whole.shape), b
