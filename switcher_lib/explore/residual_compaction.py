"""Cut a residual block step by step, rightly and wrongly, and read the certificate's number."""

from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from ..compaction import compact
from .base import Explorer, between, module_source, one_of, source

HOW = ("together", "gamma", "forgotten", "one side")
TOLERANCE = 1e-12

# Numbers with one decimal, so that a reader can check them by hand.
NETWORK: dict[str, Any] = {
    "stem": {"W": [[0.8, -0.5, 0.3], [-0.4, 0.9, 0.2], [0.6, 0.1, -0.7], [0.3, 0.4, 0.5]], "b": [0.1, 0.2, -0.1, 0.3]},
    "inner": {"W": [[0.7, -0.3, 0.4, 0.2], [-0.5, 0.6, 0.3, -0.4], [0.2, 0.5, -0.6, 0.8]], "b": [0.1, -0.2, 0.3]},
    "gamma": [1.2, 0.9, 0.7],
    "beta": [0.3, 0.6, 0.4],
    "block": {"W": [[0.6, -0.4, 0.5], [-0.7, 0.8, 0.2], [0.3, 0.5, -0.6], [0.4, -0.2, 0.9]], "b": [0.2, -0.1, 0.1, 0.3]},
    "head": {"W": [[0.9, -0.6, 0.4, 0.7], [-0.5, 0.8, 0.6, -0.3]], "b": [0.2, -0.4]},
}  # fmt: skip
INPUTS = np.random.default_rng(0).normal(size=(16, 3)).round(1)


class ResidualBlock(nn.Module):
    """h = ReLU(stem x), z = ReLU(BatchNorm(inner h)), y = head ReLU(h + block z): a residual block for one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.norm = nn.Linear(3, 4), nn.Linear(4, 3), nn.BatchNorm1d(3, eps=0.0)
        self.block, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2) for ``x`` of shape (N, 3)."""
        h = self.stem(x).relu()
        return self.head((h + self.block(self.norm(self.inner(h)).relu())).relu())


class ResidualCompaction(Explorer):
    """A residual block of 63 parameters, compacted in the page: fold, absorb constants, cut, certify.

    The reader says which inner neurons are on, and which channels of the stream each of its two writers has on, and may
    choose one of two wrong ways: a β that is forgotten, a channel that is cut while one of its writers still
    writes. BatchNorm has running mean 0 and variance 1; 1×1 convolutions on one pixel are the same as these layers.

    Attributes
    ----------
    inner, stem, block : tuple of bool
        Which of the 3 inner neurons are on, and of the 4 channels at the stem and at the block; at least one
        each. Synced with the page.
    how : {"together", "gamma", "forgotten", "one side"}
        γ and β scaled together; γ alone, the constant absorbed; the same, forgotten; channels cut as soon as one
        writer is off. Synced.
    step : int
        0 as trained, 1 folded, 2 constants absorbed, 3 cut. Synced.
    """

    _esm = module_source("board.js", "residual_compaction.js")
    _css = source("base.css")

    network = traitlets.Dict().tag(sync=True)
    inputs = traitlets.Tuple().tag(sync=True)
    inner = traitlets.Tuple((True, False, True)).tag(sync=True)
    stem = traitlets.Tuple((True, False, True, False)).tag(sync=True)
    block = traitlets.Tuple((True, False, True, True)).tag(sync=True)
    how = traitlets.Unicode("together").tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)

    def __init__(self) -> None:
        super().__init__(network=NETWORK, inputs=tuple(map(tuple, INPUTS.tolist())))

    @traitlets.validate("inner", "stem", "block")
    def _check_on(self, proposal):
        name, on = proposal["trait"].name, tuple(map(bool, proposal["value"]))
        wanted = 3 if name == "inner" else 4
        if len(on) != wanted or not any(on):
            raise ValueError(f"{name}={proposal['value']!r} has to hold {wanted} values, at least one of them true.")
        return on

    @traitlets.validate("how")
    def _check_how(self, proposal):
        return one_of("how", proposal["value"], HOW, "way of this explorer")

    @traitlets.validate("step")
    def _check_step(self, proposal):
        return between("step", proposal["value"], 0, 3)

    def dense(self) -> ResidualBlock:
        """The block as trained: a plain module in float64."""
        model = ResidualBlock().double().eval()
        with torch.no_grad():
            for name in ("stem", "inner", "block", "head"):
                layer: Any = model.get_submodule(name)
                layer.weight.copy_(torch.tensor(NETWORK[name]["W"], dtype=torch.float64))
                layer.bias.copy_(torch.tensor(NETWORK[name]["b"], dtype=torch.float64))
            model.norm.weight.copy_(torch.tensor(NETWORK["gamma"], dtype=torch.float64))
            model.norm.bias.copy_(torch.tensor(NETWORK["beta"], dtype=torch.float64))
        return model

    def folded(self) -> ResidualBlock:
        """The block with what is off stored as zeros; β stays unless it is scaled together with γ."""
        model = self.dense()
        with torch.no_grad():
            for layer, on in ((model.stem, self.stem), (model.block, self.block)):
                layer.weight[~torch.tensor(on)] = 0
                layer.bias[~torch.tensor(on)] = 0
            model.norm.weight[~torch.tensor(self.inner)] = 0
            if self.how not in ("gamma", "forgotten"):
                model.norm.bias[~torch.tensor(self.inner)] = 0
        return model

    def now(self) -> tuple[nn.Module, float]:
        """The network of the present step, and the certificate's relative error against the folded one.

        Returns
        -------
        torch.nn.Module
            After the last step of a right way, what :func:`~switcher_lib.compact` makes.
        float
            max|y − ŷ| / max|y|, for that step as :func:`~switcher_lib.compact` measured it, else on the 16 inputs.
        """
        whole, x = self.folded(), torch.tensor(self.inputs, dtype=torch.float64)
        if self.step < 2:
            return (whole if self.step else self.dense()), 0.0
        if self.step == 3 and self.how in ("together", "gamma"):
            small = compact(whole, x)
            return small.model, small.certificate.relative_error
        wrong = self.folded()
        with torch.no_grad():
            for j in (j for j, on in enumerate(self.inner) if not on and wrong.norm.bias[j] != 0):
                if self.how != "forgotten":
                    wrong.block.bias.add_(wrong.block.weight[:, j] * wrong.norm.bias[j].relu())
                wrong.block.weight[:, j], wrong.norm.bias[j] = 0, 0
            if self.step == 3:
                one_side = self.how == "one side"
                stream = [i for i, on in enumerate(zip(self.stem, self.block, strict=True)) if (all if one_side else any)(on)]
                cut_by_hand(wrong, [j for j, on in enumerate(self.inner) if on], stream)
            y, y_hat = whole(x), wrong.eval()(x)
        return wrong, float((y - y_hat).abs().max() / y.abs().max())

    def shown(self) -> dict[str, Any]:
        model: Any
        model, error = self.now()
        layers: dict[str, Any] = {name: model.get_submodule(name) for name in ("stem", "inner", "block", "head")}
        network: dict[str, Any] = {name: {"W": layer.weight.tolist(), "b": layer.bias.tolist()} for name, layer in layers.items()}
        network |= {"gamma": model.norm.weight.tolist(), "beta": model.norm.bias.tolist()}
        count = [sum(p.numel() for p in m.parameters()) for m in (self.dense(), model)]
        beta = self.folded().norm.bias
        constants = sum(not on and bool(beta[j] != 0) for j, on in enumerate(self.inner))
        return {"network": network, "parameters": count, "error": error, "holds": error <= TOLERANCE, "constants": constants}

    def describe(self) -> str:
        found = self.shown()
        return (
            f"A residual block of {found['parameters'][0]} parameters, {sum(self.inner)} of 3 inner neurons on; at step "
            f"{self.step} it has {found['parameters'][1]}."
        )

    def first_frame(self) -> str:
        rows = ""
        for i, on in enumerate(zip(self.stem, self.block, strict=True)):
            for k, is_on in enumerate(on):
                rows += (
                    f'<rect x="{20 + 110 * k}" y="{14 + 34 * i}" width="90" height="26" rx="4" fill="#0072B2" '
                    f'fill-opacity="{0.9 if is_on else 0.15}"/>'
                )
        return f'<svg viewBox="0 0 240 160" width="240" height="160" role="img" aria-label="{self.describe()}">{rows}</svg>'


def cut_by_hand(model: ResidualBlock, inner: list[int], stream: list[int]) -> None:
    """Keep some inner neurons and channels of a :class:`ResidualBlock`: slices, with no question whether that is right.

    Parameters
    ----------
    model : ResidualBlock
        Changed in place.
    inner, stream : list of int
        The neurons and the channels that stay.
    """
    for layer, rows, columns in (
        (model.stem, stream, slice(None)), (model.inner, inner, stream), (model.block, stream, inner), (model.head, slice(None), stream)
    ):  # fmt: skip
        layer.weight.data = layer.weight.data[rows][:, columns]
        layer.bias.data = layer.bias.data[rows]
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(model.norm, name).data = getattr(model.norm, name).data[inner]
