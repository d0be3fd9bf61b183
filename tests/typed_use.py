"""What a reader writes, for mypy to read; nothing here runs. See tests/test_packaging.py.

A line that is marked as an error has to be one: mypy complains of a mark that it does not need.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import switcher_lib as sl


def readme() -> None:
    sl.seed_everything(0)
    data = sl.data.load("mnist")
    assert_type(data, sl.data.Data)
    assert_type(data.example, Tensor)
    tnn = sl.models.lenet_300_100(widths=[300, 100])
    assert_type(tnn, nn.Sequential)
    net = sl.Switched(tnn, data.example, level="neuron", switcher="row", gate="clamp", switch_inputs=True)
    history = sl.fit(net, data, epochs=20, cost=lambda t: 0.1 * t)
    assert_type(history.last, dict[str, Any])
    assert_type(net.structure().sites, dict[str, tuple[int, int]])
    small = sl.compact(net, data.example)
    assert_type(small.model, nn.Module)
    assert_type(small.certificate.relative_error, float)
    small.save("lenet.safetensors")
    assert_type(sl.load_compact("lenet.safetensors", into=sl.models.lenet_300_100), nn.Module)
    for images, labels in data.train.batches(64):
        assert_type(images, Tensor)
        assert_type(labels, Tensor)


def own_loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
    net = sl.Switched(model, x, switcher=partial(sl.RowSwitcher, hidden=64), price={"parameters": 1, "macs": 0.02})
    task = torch.optim.SGD(net.model.parameters(), lr=0.05)
    switch = torch.optim.Adam(net.switcher.parameters(), lr=0.003)
    assert_type(sl.task_step(net, x, y, task), Tensor)
    assert_type(sl.switcher_step(net, x, y, switch, F.mse_loss, cost=0.05), Tensor)
    assert_type(net.factors(), dict[str, Tensor])
    assert_type(net.cost(), Tensor)
    sl.fit(net, sl.data.load("digits").train, task_optimizer=partial(torch.optim.SGD, lr=0.1), every="epoch", augment="crop_flip")
    sites, refused = sl.find_sites(model, x, face="outgoing")
    assert_type(sites, list[sl.Site])
    assert_type(refused, dict[str, str])


class Mean(sl.Switcher):
    """A switcher of one's own: neurons by their mean weight."""

    def forward(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {site.key: site.rows(params).mean(1).sigmoid() for site in self.sites}

    def after_step(self, net: sl.Switched, t: float) -> None:
        assert_type(net.size(), Tensor)


def lazy() -> None:
    assert_type(sl.plotting.plus_minus([1.0, 2.0]), str)
    assert_type(sl.explore.Gates().html(), str)
    results, rows = sl.experiments.stored("lenet300-cost")
    assert_type(results, sl.experiments.Results | None)
    assert_type(rows, dict[str, dict[int | None, sl.experiments.Row]])
    difference = sl.experiments.paired([1.0, 2.0], [0.5, 2.5])
    assert_type(difference.mean, float)


def wrong(net: sl.Switched, data: sl.data.Data, loss: Callable[[Tensor], Tensor]) -> None:
    sl.fit(net, data, epochs="20")  # type: ignore[arg-type]
    sl.fit(net, data, precision="float16")  # type: ignore[arg-type]
    sl.fit(net, data, epoch=20)  # type: ignore[call-arg]
    sl.Switched(net.model, data.example, face="outwards")  # type: ignore[arg-type]
    sl.task_step(net, data.example, data.train.labels, torch.optim.SGD, loss)  # type: ignore[arg-type]
    sl.models.lenet_300_100(widths=300)  # type: ignore[arg-type]
    sl.compact(net, data)  # type: ignore[arg-type]
    sl.compact(net, data.example).modle  # type: ignore[attr-defined]
    sl.load_compact("lenet.safetensors", into=net.state_dict)  # type: ignore[arg-type]
    sl.comapct  # type: ignore[attr-defined]
