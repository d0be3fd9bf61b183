"""What a network costs: parameters, multiply-accumulates, measured time."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from switcher_lib.layers import AFFINE_MODULES, TRANSPOSED_MODULES
from switcher_lib.wiring import modes_kept, untouched

Name = TypeVar("Name")


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters: biases and BatchNorm's γ and β included, buffers never; shared ones once."""
    return sum(p.numel() for p in model.parameters())


def count_nonzero_weights(model: nn.Module) -> int:
    """Return the number of weights other than 0 in Linear and Conv layers: what a pruned network's size is told in.

    Parameters
    ----------
    model : nn.Module
        A plain network; fold a switched one first. Biases, BatchNorm's γ and β, and zeros that are stored do not
        count; a weight that two layers share counts once.

    Returns
    -------
    int
        The number of connections.

    References
    ----------
    Blalock et al. 2020, arXiv:2003.03033 (compression told in non-zero weights).
    """
    return sum(int(torch.count_nonzero(w)) for w in _weights(model))


def count_nonzero_parameters(model: nn.Module) -> int:
    """Return what :func:`count_parameters` does, but of Linear and Conv layers' weights only those other than 0.

    Parameters
    ----------
    model : nn.Module
        A plain network; fold a switched one first. Biases and BatchNorm's γ and β count whole.

    Returns
    -------
    int
        The number of parameters that a network with its zeros left out has.
    """
    weights = set(_weights(model))
    return sum(int(torch.count_nonzero(p)) if p in weights else p.numel() for p in model.parameters())


def _weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of the Linear and Conv layers, each once."""
    return list(dict.fromkeys(m.weight for m in model.modules() if isinstance(m, AFFINE_MODULES)))


def macs_per_weight(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Return how often each weight of the Linear and Conv layers, and of attention's projections, is multiplied for one input.

    Parameters
    ----------
    model : nn.Module
        The network; its mode and buffers are left as they were.
    example : Tensor
        A batch of at least one input.

    Returns
    -------
    dict of str to int
        {parameter name: number of places}: 1 for a Linear layer on vectors, height × width of the output for a
        convolution, of the input for a transposed one. Times the weight's size that is the layer's multiply-accumulates (MACs); biases are not counted.
    """
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    places: dict[str, int] = {}
    for weight, here in _places(model, example):
        if weight in names:      # a computed weight is no parameter
            places[names[weight]] = places.get(names[weight], 0) + here
    return places


def _places(model: nn.Module, example: Tensor) -> list[tuple[Tensor, int]]:
    """Return (weight, places for one input) for each use of a layer's weight while the model runs on two inputs.

    Two, for some models squeeze a single one away.
    """
    calls, hooks, batch = [], [], example[:2].clone()

    def count(module, args, kwargs, output):
        inputs = args[0] if args else kwargs["input"]
        numbers = inputs if isinstance(module, TRANSPOSED_MODULES) else output    # each of these is one kernel's, or row's
        calls.append((module.weight, -(-numbers.numel() // (module.weight.shape[0] * len(batch)))))

    def count_attention(module, args, kwargs, output):    # which uses its output projection's weight without calling that layer
        given = dict(zip(("query", "key", "value"), args)) | kwargs
        query, key, value = (given[name].numel() / (given[name].shape[-1] * len(batch)) for name in ("query", "key", "value"))
        if module.in_proj_weight is not None:    # one matrix for the three, a third of it for each
            calls.append((module.in_proj_weight, math.ceil((query + key + value) / 3)))
        else:
            calls.extend([(module.q_proj_weight, math.ceil(query)), (module.k_proj_weight, math.ceil(key)),
                          (module.v_proj_weight, math.ceil(value))])
        calls.append((module.out_proj.weight, math.ceil(query)))

    for module in model.modules():
        if isinstance(module, AFFINE_MODULES):
            hooks.append(module.register_forward_hook(count, with_kwargs=True))
        elif isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward:
            hooks.append(module.register_forward_hook(count_attention, with_kwargs=True))
    try:
        with untouched(model, training=False), torch.no_grad():
            model(batch)
    finally:
        for handle in hooks:
            handle.remove()
    return calls


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Return the multiply-accumulates (MACs, not FLOP) of Linear and Conv layers, and of attention's projections, for one input.

    What has no weights, such as attention's products of queries and keys, is not counted.

    Parameters
    ----------
    model : nn.Module
        The network.
    example : Tensor
        A batch of at least one input.

    Returns
    -------
    int
        MACs for one input.
    """
    return sum(places * weight.numel() for weight, places in _places(model, example))


@dataclass(frozen=True)
class Latency:
    """Measured time of one forward pass, with the conditions it was measured under.

    Attributes
    ----------
    median, low, high : float
        Milliseconds: median, first and third quartile of the runs.
    batch, threads, runs : int
        Inputs a pass, CPU threads, timed passes.
    layout, dtype : str
        Memory layout and number type of the input.
    """

    median: float
    low: float
    high: float
    batch: int
    threads: int
    runs: int
    layout: str
    dtype: str

    def __str__(self) -> str:
        return (f"{self.median:.3f} ms (quartiles {self.low:.3f} to {self.high:.3f}; batch {self.batch}, "
                f"{self.threads} thread{'s' * (self.threads > 1)}, {self.layout}, {self.dtype}, {self.runs} runs)")


def compare_latency(models: Mapping[Name, nn.Module], x: Tensor, *, threads: int = 1, runs: int = 200,
                    warmup: int = 20) -> dict[Name, Latency]:
    """Time several models on the same input, in turn, so that a drift of the machine meets all of them.

    Parameters
    ----------
    models : dict of str to nn.Module
        The networks, on the CPU; they are timed in eval mode without gradients.
    x : Tensor
        The batch of inputs to time with.
    threads : int, default 1
        CPU threads, at least 1.
    runs : int, default 200
        Timed passes of each model, at least 3.
    warmup : int, default 20
        Passes of each model before that.

    Returns
    -------
    dict of str to Latency
        One for each model.
    """
    for argument, value, least in (("threads", threads, 1), ("runs", runs, 3), ("warmup", warmup, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{argument}={value!r} must be an integer of at least {least}.")
    times: dict[Name, list[float]] = {name: [] for name in models}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with modes_kept(*models.values()), torch.inference_mode():
            for model in models.values():
                model.eval()
            for run in range(warmup + runs):
                for name, model in models.items():
                    start = time.perf_counter()
                    model(x)
                    if run >= warmup:
                        times[name].append(1e3 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(before)
    layouts = {"contiguous": x.is_contiguous(), "channels-last": x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)}
    layout = next((name for name, so in layouts.items() if so), "strided")
    result: dict[Name, Latency] = {}
    for name, spent in times.items():
        low, median, high = statistics.quantiles(spent, n=4)
        result[name] = Latency(median, low, high, len(x), threads, runs, layout, str(x.dtype).removeprefix("torch."))
    return result


def latency(model: nn.Module, x: Tensor, *, threads: int = 1, runs: int = 200, warmup: int = 20) -> Latency:
    """Time one model; see :func:`compare_latency`, which is the one to use for a ratio.

    Parameters
    ----------
    model : nn.Module
        The network, on the CPU; it is timed in eval mode without gradients.
    x : Tensor
        The batch of inputs to time with.
    threads : int, default 1
        CPU threads, at least 1.
    runs : int, default 200
        Timed passes, at least 3.
    warmup : int, default 20
        Passes before that.

    Returns
    -------
    Latency
        Median and quartiles in milliseconds, with the conditions.
    """
    return compare_latency({"model": model}, x, threads=threads, runs=runs, warmup=warmup)["model"]


@dataclass(frozen=True)
class Structure:
    """How much of a network is on: prints as a table, also in a notebook.

    Attributes
    ----------
    sites : dict of str to (int, int)
        {site key: (neurons in all, neurons on)}.
    parameters, macs : (int, int)
        Dense, and with what is off left out.
    """

    sites: dict[str, tuple[int, int]]
    parameters: tuple[int, int]
    macs: tuple[int, int]

    @property
    def rows(self) -> list[tuple[str, int, int, float]]:
        """Return the table's rows: (name, dense, on, fraction on)."""
        lines = [*self.sites.items(), ("parameters", self.parameters), ("MACs", self.macs)]
        return [(name, dense, on, on / dense) for name, (dense, on) in lines]

    @property
    def compression(self) -> float:
        """Dense parameters over those that remain, at least 1."""
        return self.parameters[0] / self.parameters[1]

    def __str__(self) -> str:
        width = max(len(name) for name, *_ in self.rows)
        head = f"{'':{width}}  {'dense':>10}  {'on':>10}  {'on/dense':>8}"
        return "\n".join([head, *(f"{name:{width}}  {dense:>10,}  {on:>10,}  {part:>8.1%}" for name, dense, on, part in self.rows)])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><th scope='row'>{name}</th><td>{dense:,}</td><td>{on:,}</td><td>{part:.1%}</td></tr>"
                       for name, dense, on, part in self.rows)
        return ("<table><thead><tr><th scope='col'>site</th><th scope='col'>dense</th><th scope='col'>on</th>"
                f"<th scope='col'>on / dense</th></tr></thead><tbody>{body}</tbody></table>")
