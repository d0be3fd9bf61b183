"""bfloat16's numbers on a processor without instructions for them."""

import time
from contextlib import nullcontext
from statistics import median

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import switcher_lib as sl
from switcher_lib import precision
from switcher_lib.precision import RoundedProducts

CPU = torch.device("cpu")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PRODUCTS = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), (4, 3, 9), (5, 3, 3), (5,)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (4, 6, 9, 9), (8, 6, 3, 3), (8,)),
    "transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (4, 6, 5, 5), (6, 8, 3, 3), (8,)),
    "grouped": (lambda x, w, b: F.conv2d(x, w, bias=b, groups=6), (4, 6, 9, 9), (6, 1, 3, 3), (6,)),
    "linear": (F.linear, (7, 33), (5, 33), (5,)),
    "@": (lambda x, w, b: x @ w.T, (7, 33), (5, 33), (5,)),
    "matmul": (lambda x, w, b: x.matmul(w.T), (7, 33), (5, 33), (5,)),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w.T), (7, 33), (5, 33), (5,)),
    "bmm": (lambda x, w, b: torch.bmm(x, w), (3, 7, 33), (3, 33, 5), (5,)),
}


def computed(what, context, prepare=lambda x: x):
    """A product and its gradients, of random numbers that are prepared first."""
    function, *shapes = PRODUCTS[what]
    given = [prepare(drawn(*shape, seed=seed)).requires_grad_() for seed, shape in enumerate(shapes)]
    with context:
        out = function(*given)
    upstream = drawn(*out.shape, seed=9).bfloat16().to(out.dtype)
    return out, torch.autograd.grad(out, given, upstream, allow_unused=True)


@pytest.mark.parametrize("what", PRODUCTS)
def test_products_are_those_of_rounded_numbers_rounded(what, monkeypatch):
    """Against float64, which makes products of 8 bits without an error: forward and backward, to half a step of bfloat16."""
    monkeypatch.setattr(precision, "_quick", lambda device: False)
    out, gradients = computed(what, precision.computing_in("bfloat16", CPU))
    exact, wanted = computed(what, nullcontext(), lambda x: x.bfloat16().double())
    assert out.dtype == torch.bfloat16
    for ours, theirs in zip((out, *gradients), (exact, *wanted)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.equal(ours.float(), ours.bfloat16().float()), "rounded"
            # half a step, and float32's own errors where a sum is close to 0 or to the middle of a step
            assert ((ours.double() - theirs).abs() <= 2 ** -8 * theirs.abs() * 1.001 + 1e-5).all()


@pytest.mark.parametrize("what", PRODUCTS)
def test_products_are_pytorchs_own(what):
    """To two steps: by some processors PyTorch rounds in between, too."""
    out, gradients = computed(what, torch.autocast("cpu", torch.bfloat16))
    with RoundedProducts():
        ours, our_gradients = computed(what, torch.autocast("cpu", torch.bfloat16))
    assert ours.dtype == out.dtype
    for one, other in zip((ours, *our_gradients), (out, *gradients)):
        if other is not None:
            torch.testing.assert_close(one.float(), other.float(), rtol=2 ** -6, atol=2 ** -6 * float(other.detach().abs().max()))


def test_nothing_else_is_touched(monkeypatch):
    monkeypatch.setattr(precision, "_quick", lambda device: False)
    x, w = drawn(7, 33), drawn(5, 33)
    with RoundedProducts():
        assert torch.equal(F.linear(x, w), x @ w.T) and F.linear(x, w).dtype == torch.float32, "without autocast"
    with precision.computing_in("bfloat16", CPU):
        with torch.autocast("cpu", enabled=False):
            assert F.linear(x, w).dtype == torch.float32, "as scores are made"
        assert F.linear(x.double(), w.double()).dtype == torch.float64, "as autocast does"
        assert (x + x).dtype == torch.float32 and torch.ones(2, 2, dtype=torch.int64).matmul(
            torch.ones(2, 2, dtype=torch.int64)).dtype == torch.int64
    with precision.computing_in("float32", CPU):
        assert F.linear(x, w).dtype == torch.float32
    with precision.computing_in("auto", CPU):
        assert F.linear(x, w).dtype == torch.float32, "auto is float32 without instructions"


def test_the_mode_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(precision, "_quick", lambda device: False)
    with pytest.raises(RuntimeError), precision.computing_in("bfloat16", CPU):
        F.linear(drawn(7, 33), drawn(5, 34))
    assert not torch.is_autocast_enabled("cpu") and F.linear(drawn(7, 33), drawn(5, 33)).dtype == torch.float32


def learned(**fit):
    sl.seed_everything(0)
    net = sl.Switched(networks.conv(norm=True), torch.zeros(2, 2, 12, 12), switcher="row")
    data = sl.data.Split(drawn(64, 2, 12, 12, seed=1), torch.randint(3, (64,), generator=torch.Generator().manual_seed(2)))
    sl.fit(net, data, epochs=1, batch_size=16, every=2, cost=0.5, progress=False, **fit)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_a_search_learns_the_same_with_and_without_instructions(monkeypatch):
    monkeypatch.setattr(precision, "_quick", lambda device: None)
    theirs = learned(precision="bfloat16")
    monkeypatch.setattr(precision, "_quick", lambda device: False)
    ours, float32 = learned(precision="bfloat16"), learned(precision="float32")
    assert (ours - theirs).norm() < (float32 - theirs).norm(), "closer to bfloat16 than float32 is"
    assert not torch.equal(ours, float32), "it did round"


@pytest.mark.parametrize("lacking", [False, True], ids=["as this processor is", "without instructions"])
def test_any_processor_is_about_as_quick_as_with_float32(lacking, monkeypatch):
    """Without :class:`RoundedProducts` this network takes five to ten times as long where the instructions are missing."""
    if lacking:
        monkeypatch.setattr(precision, "_quick", lambda device: False)
    sl.seed_everything(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)).to(
        memory_format=torch.channels_last)
    x = drawn(32, 16, 32, 32).contiguous(memory_format=torch.channels_last)

    def seconds(how):
        taken = []
        for _ in range(7):
            begin = time.perf_counter()
            with precision.computing_in(how, CPU):
                loss = model(x).float().square().mean()
            loss.backward()
            taken.append(time.perf_counter() - begin)
        return median(taken[2:])

    assert seconds("bfloat16") < 2.5 * seconds("float32")


def test_a_product_goes_where_it_is_sent():
    p, q, out = drawn(3, 4), drawn(4, 2, seed=1), torch.zeros(3, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), RoundedProducts():
        assert torch.matmul(p, q, out=out) is out and torch.equal(out, torch.matmul(p, q)) and out.any()


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(ValueError, match="precision='bf16' is not a precision; did you mean 'bfloat16'?"):
        with precision.computing_in("bf16", CPU):
            pass
