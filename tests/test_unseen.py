"""Networks that nobody had thought of: each is either right, on other inputs and images of other sizes too, or refused in words.

Most were found by trying to break the promise; what they have in common is a small network, MLP or convolutions, in which
one thing is unusual.
"""

import random
import re
import threading
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import networks
import random_graphs
import switcher_lib as sl
from switcher_lib.wiring import trace

pytestmark = pytest.mark.filterwarnings("ignore::switcher_lib.SwitchWarning")


class MLP(nn.Module):
    """Three layers, 6 to 8 to 6 to 3; what is unusual is a method of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def hidden(self, x):
        return F.relu(self.a(x))

    def forward(self, x):
        return self.c(F.relu(self.b(self.hidden(x))))


def variant(**methods):
    """A network of a new class: MLP with some methods in place of its own."""
    return type("Unusual", (MLP,), methods)()


def batch(n=64, seed=1):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def partly_off(net, seed=0):
    """Hold random factors, with about a third of them 0 and never a whole site."""
    like = next(net.parameters())
    net.hold({key: s.to(like) for key, s in networks.factors(net.sites, seed, off=0.35).items()})
    return net.eval()


@torch.no_grad()
def same(net, small, x, tolerance=1e-5):
    for y, y_hat in zip(tensors(net(x.clone())), tensors(small(x.clone())), strict=True):
        torch.testing.assert_close(y_hat, y, rtol=tolerance, atol=tolerance * float(y.double().abs().max()))


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else [*output.values()] if isinstance(output, dict) else [*output]


# -------- right, all of it

class Named(dict):
    """What some libraries return."""


def with_hook(model):
    model.a.register_forward_hook(lambda module, inputs, output: torch.tanh(output + 1))
    return model


def with_own_forward(model):
    model.a.forward = types.MethodType(lambda layer, x: F.linear(x, layer.weight, layer.bias) + 1, model.a)
    return model


def parametrized(model):
    nn.utils.parametrize.register_parametrization(model.a, "bias", nn.Softplus())
    return model


def on_a_batch_of_views(self, x):
    h = self.a(x)
    return torch.cat(self.c(F.relu(self.b(torch.cat([F.relu(h), F.relu(-h)], 0)))).chunk(2, 0), 1)


def with_an_option(self, x, mask=None, scale=1.0):
    h = self.hidden(x) if mask is None else self.hidden(x) * mask
    return self.c(F.relu(self.b(h * scale)))


def remembering(self, x):
    self.last = F.relu(self.a(x))
    return self.last


def counting_calls(self, x):
    self.calls.add_(1)
    return F.relu(self.a(x))


def in_place_on_a_view(self, x):
    h = self.a(x)
    h.t().add_(1)
    return F.relu(h)


def scaled_by_a_constant(self, x):
    if not hasattr(self, "scales"):
        self.scales = torch.linspace(0.5, 2, 8)
    return F.relu(self.a(x)) * self.scales


def with_calls(model):
    model.register_buffer("calls", torch.zeros(1))
    return model


RIGHT = {
    "a hook on a layer": lambda: with_hook(MLP()),
    "a layer's own forward()": lambda: with_own_forward(MLP()),
    "a computed bias": lambda: parametrized(MLP()),
    "a bias used as a scale": lambda: variant(hidden=lambda self, x: F.relu(self.a(x)) * self.a.bias),
    "the number of neurons as a number": lambda: variant(hidden=lambda self, x: F.relu(self.a(x)) / self.a(x).size(1)),
    "its square root": lambda: variant(hidden=lambda self, x: F.relu(self.a(x)) * self.a(x).shape[-1] ** -0.5),
    "a tensor that is no parameter": lambda: variant(hidden=scaled_by_a_constant),
    "values and indices": lambda: variant(hidden=lambda self, x: F.relu(self.a(x) - self.a(x).max(1, keepdim=True).values)),
    "an input by its name": lambda: variant(hidden=lambda self, x: F.relu(self.a(input=x))),
    "slices of two signs": lambda: variant(hidden=lambda self, x: F.relu(torch.cat([self.a(x), -self.a(x)], 1))[:, 4:12]),
    "two views in one batch": lambda: variant(forward=on_a_batch_of_views),
    "an option that is None": lambda: variant(forward=with_an_option),
    "a dict": lambda: variant(forward=lambda self, x: {"y": MLP.forward(self, x), "h": self.c(x)}),
    "a dict of its own class": lambda: variant(forward=lambda self, x: Named(y=MLP.forward(self, x))),
    "two tensors": lambda: variant(forward=lambda self, x: (MLP.forward(self, x), MLP.forward(self, -x))),
    "a mask": lambda: variant(forward=lambda self, x: MLP.forward(self, x) > 0),
    "a conversion": lambda: variant(forward=lambda self, x: MLP.forward(self, x.float())),
    "another conversion": lambda: variant(forward=lambda self, x: MLP.forward(self, x.to(torch.float32))),
    "the input changed in place": lambda: variant(forward=lambda self, x: MLP.forward(self, x.sub_(0.5).mul_(2))),
    "a view changed in place": lambda: variant(hidden=in_place_on_a_view),
    "an activation kept": lambda: variant(hidden=remembering),
    "a buffer that counts": lambda: with_calls(variant(hidden=counting_calls)),
}


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
def test_an_unusual_network_is_compacted_right(make):
    x = batch()
    net = sl.Switched(make(), x.clone())
    outputs = tensors(net(x.clone()))    # training mode, with a graph
    if outputs[0].requires_grad:
        outputs[0].sum().backward()
    partly_off(net)
    small = sl.compact(net, x.clone())
    assert small.certificate.holds and small.parameters[1] < small.parameters[0]
    same(net, small.model, batch(99, seed=2))


POINTWISE = {
    "square": lambda h: F.relu(h).square(),
    "** 2": lambda h: h ** 2,
    "clamp": lambda h: h.clamp(0, 6),
    "clamp, one bound by its name": lambda h: torch.clamp(h, min=-1),
    "clamp_min": lambda h: h.clamp_min(0),
    "log1p": lambda h: torch.log1p(F.relu(h)),
    "sign": lambda h: torch.sign(h) * h,
    "detach": lambda h: h + F.relu(h).detach(),
    "softshrink": lambda h: F.softshrink(h),
}


@pytest.mark.parametrize("function", POINTWISE.values(), ids=POINTWISE)
def test_a_function_of_each_number_alone_hands_neurons_on(function):
    net = partly_off(sl.Switched(variant(hidden=lambda self, x: function(self.a(x))), batch()))
    assert [site.path for site in net.sites] == ["a", "b"]
    small = sl.compact(net, batch())
    assert small.widths["a"][1] < 8
    same(net, small.model, batch(99, seed=2))


@pytest.mark.parametrize("function, words", [
    (lambda h: h.clamp(min=0.2), "not 0 at 0"),
    (lambda h: 2 ** h, "pow.. is not known"),
    (lambda h: F.relu(h) ** 0.5, "pow.. is not known"),             # its slope at 0 is infinite: training would end in NaN
    (lambda h: torch.clamp(h, max=h.detach()), "clamp.. is not known"),
    (lambda h: h.clamp(max=h.shape[1]), "how many neurons there are"),
], ids=["not 0 at 0", "power of 2", "root", "bounds that are tensors", "a bound that counts neurons"])
def test_a_function_that_would_leave_something_of_an_off_neuron_keeps_them(function, words):
    net = sl.Switched(variant(hidden=lambda self, x: function(self.a(x))), batch())
    assert [site.path for site in net.sites] == ["b"] and re.search(words, net.refused["a"])


def test_a_hook_that_came_after_the_switches_is_found_out():
    net = partly_off(sl.Switched(MLP(), batch()))
    net.model.a.register_forward_hook(lambda module, inputs, output: torch.tanh(output + 1))
    with pytest.raises(sl.CertificateError, match="with the factors multiplied into its parameters its outputs differ"):
        sl.compact(net, batch())


@pytest.mark.parametrize("example", [torch.randn(1, 6), torch.full((1, 1), 2.0)])
def test_an_example_of_one_input_is_enough(example):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(example.shape[1], 5), nn.ReLU(), nn.Linear(5, 3))
    assert sl.compact(partly_off(sl.Switched(model, example)), example).certificate.holds


def test_tokens_are_compacted_right():
    class Words(MLP):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(11, 6)

        def forward(self, tokens):
            return super().forward(self.words(tokens).mean(1))

    tokens = torch.randint(0, 11, (16, 5), generator=torch.Generator().manual_seed(0))
    net = partly_off(sl.Switched(Words(), tokens))
    small = sl.compact(net, tokens)
    same(net, small.model, tokens.flip(0, 1))
    assert small.parameters[1] < small.parameters[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_type_is_switched_in_that(dtype):
    net = sl.Switched(MLP().to(dtype), batch().to(dtype))
    assert net(batch().to(dtype)).dtype == dtype
    partly_off(net)
    assert sl.compact(net, batch().to(dtype)).certificate.holds


def test_a_layer_that_reads_a_parameter_is_followed():
    class Query(MLP):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.randn(1, 6))

        def forward(self, x):
            return super().forward(x) + super().forward(self.query)

    net = partly_off(sl.Switched(Query(), batch()))
    small = sl.compact(net, batch())
    assert small.certificate.holds and small.parameters[1] < small.parameters[0]
    same(net, small.model, batch(9, seed=3))


def test_a_model_that_squeezes_a_single_input_away_is_switched():
    class Squeezes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = nn.Conv2d(2, 6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.c(F.relu(self.a(x)).mean((2, 3), keepdim=True).squeeze())

    x = torch.randn(8, 2, 8, 8)
    net = partly_off(sl.Switched(Squeezes(), x))
    assert net.structure().macs[0] == 6 * 2 * 9 * 36 + 18
    same(net, sl.compact(net, x).model, torch.randn(5, 2, 8, 8))


# -------- images of other sizes

class Conv(nn.Module):
    """Two padded convolutions, a mean, a Linear layer; with a constant channel whose border the second one shows."""

    def __init__(self, shrink=lambda x: x.mean((2, 3)), stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride, padding=1), nn.Linear(4, 3)
        self.shrink = shrink
        with torch.no_grad():
            self.a.weight[1], self.a.bias[1] = 0, 1
            self.b.weight[2, [0, 2, 3]], self.b.bias[2] = 0, 1

    def forward(self, x):
        return self.c(self.shrink(F.relu(self.b(F.relu(self.a(x))))))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shrink", [
    lambda x: x.mean((2, 3)), lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
    lambda x: F.max_pool2d(x, 2).mean((2, 3)), lambda x: F.interpolate(x, scale_factor=2.0).mean((2, 3)),
], ids=["mean", "average", "max", "max, mean", "upsampled"])
def test_a_constant_of_the_border_is_none_for_images_of_another_size(shrink, stride):
    small = sl.compact(Conv(shrink, stride), torch.randn(8, 2, 8, 8))
    for side in (8, 7, 4, 16):
        x = torch.randn(3, 2, side, side)
        torch.testing.assert_close(small.model(x), Conv(shrink, stride)(x), rtol=1e-4, atol=1e-5)


def test_one_pixel_does_not_hide_the_border():
    model = Conv()
    small = sl.compact(model, torch.randn(8, 2, 1, 1))
    x = torch.randn(3, 2, 9, 9)
    torch.testing.assert_close(small.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_even_image_does_not_hide_the_border_at_the_other_end():
    # with stride 2 only images of odd sizes show the padding at their end
    model = Conv(stride=2)
    with torch.no_grad():
        model.b.weight[:, :, 0], model.b.weight[:, :, :, 0] = 0, 0    # does not look at the padding in front
    small = sl.compact(model, torch.randn(8, 2, 8, 8))
    x = torch.randn(3, 2, 9, 9)
    torch.testing.assert_close(small.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_channel_that_is_the_same_all_over_still_goes_through_a_pool():
    class Plain(Conv):
        def forward(self, x):
            return self.c(F.adaptive_avg_pool2d(F.max_pool2d(F.relu(self.a(x)), 2), 1).flatten(1))

    small = sl.compact(Plain(), torch.randn(8, 2, 8, 8))
    assert small.reasons["a"][1] == "off: constant 1, absorbed into c.bias"


@pytest.mark.parametrize("made", [
    lambda x: torch.ones(1) * (x.shape[-1] / 8), lambda x: torch.ones(1) * x.size(2), lambda x: torch.arange(x.shape[3]).sum() * torch.ones(1),
])
def test_what_is_computed_from_an_images_size_is_no_constant(made):
    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.c, self.k, self.k2 = nn.Conv2d(2, 4, 3), nn.Linear(4, 3), nn.Linear(1, 6), nn.Linear(6, 4)

        def forward(self, x):
            size = x[:, :1, 0, 0] * torch.zeros(1) + made(x)
            return self.c(F.relu(self.a(x)).mean((2, 3)) * self.k2(torch.tanh(self.k(size))))

    small = sl.compact(Conditioned(), torch.randn(8, 2, 8, 8))
    x = torch.randn(3, 2, 12, 12)
    torch.testing.assert_close(small.model(x), Conditioned()(x))


def test_batchnorm_without_statistics_makes_a_constant_its_beta():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.n, self.c = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.Conv2d(6, 3, 3)
            with torch.no_grad():
                self.a.weight[2], self.n.bias[2], self.n.weight[4], self.n.bias[4] = 0, 1, 0, 2

        def forward(self, x):
            return self.c(F.relu(self.n(self.a(x)))).mean((2, 3))

    model, x = Own(), torch.randn(8, 2, 8, 8)
    small = sl.compact(model, x)
    assert small.widths["a"] == (6, 4) and [small.reasons["a"][j][:15] for j in (2, 4)] == ["off: constant 1", "off: constant 2"]
    torch.testing.assert_close(small.model(x), model(x), rtol=1e-4, atol=1e-5)


class Styled(nn.Module):
    """InstanceNorm: each channel of each image by itself."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b, self.c = nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, **options), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.n(self.a(x))))))


@pytest.mark.parametrize("statistics", [False, True])
def test_instancenorm_hands_channels_on(statistics):
    model, x = Styled(affine=True, track_running_stats=statistics), torch.randn(8, 2, 9, 9)
    with torch.no_grad():
        model.n.weight.uniform_(0.5, 1.5), model.n.bias.uniform_(-1, 1)
        model.a.weight[2], model.n.bias[2] = 0, -1.0      # always below 0 behind it
        if statistics:
            model.n.running_mean.uniform_(-1, 1), model.n.running_var.uniform_(0.5, 1.5)
            model.n.running_mean[2], model.a.bias[2] = 0.3, 0.3
    assert sl.compact(model, x).widths["a"] == (6, 5)
    net = partly_off(sl.Switched(model, x))
    assert [axis.name for axis in net.sites[0].incoming] == ["n.weight", "n.bias"]
    small = sl.compact(net, x)
    assert small.model.n.num_features == small.widths["a"][1] < 6
    same(net, small.model, torch.randn(3, 2, 12, 11))


def test_instancenorm_without_a_scale_of_its_own_undoes_any():
    assert "n (InstanceNorm without γ and β)" in sl.Switched(Styled(), torch.randn(8, 2, 9, 9)).refused["a"]


# -------- right, or refused: what happens between two layers

ANYTHING = {
    "einsum": lambda s, h, x: torch.einsum("bi,i->bi", h, s.a.bias),
    "where": lambda s, h, x: torch.where(h > 0.1, h, 0.3 * h),
    "where, by a constant": lambda s, h, x: torch.where(torch.arange(8) % 3 > 0, h, torch.ones(())),
    "masked_fill": lambda s, h, x: h.masked_fill(torch.arange(8) % 3 == 0, 0.5),
    "roll": lambda s, h, x: h.roll(1, 1),
    "flip": lambda s, h, x: h.flip(1),
    "cumsum": lambda s, h, x: h.cumsum(1),
    "softmax": lambda s, h, x: h.softmax(1),
    "softmax over the batch": lambda s, h, x: h.softmax(0),
    "normalize": lambda s, h, x: F.normalize(h),
    "mean": lambda s, h, x: h - h.mean(1, keepdim=True),
    "sum": lambda s, h, x: h + h.sum(1, keepdim=True),
    "standard deviation": lambda s, h, x: h / (1 + h.std(1, keepdim=True)),
    "largest": lambda s, h, x: h * h.amax(1, keepdim=True),
    "product": lambda s, h, x: h * (1 + h).prod(1, keepdim=True),
    "top 3": lambda s, h, x: h * (h >= h.topk(3, 1).values[:, -1:]),
    "sort": lambda s, h, x: h.sort(1).values,
    "take_along_dim": lambda s, h, x: torch.take_along_dim(h, h.argsort(1), 1),
    "one-hot": lambda s, h, x: F.one_hot(h.argmax(1), 8).to(h),
    "maxout": lambda s, h, x: h.unflatten(1, (4, 2)).amax(2).repeat(1, 2),
    "GLU": lambda s, h, x: F.glu(h).repeat(1, 2),
    "uneven pieces": lambda s, h, x: torch.cat(h.split([3, 5], 1)[::-1], 1),
    "stack and sum": lambda s, h, x: torch.stack([h, F.relu(s.a(-x))]).sum(0),
    "maximum": lambda s, h, x: torch.maximum(h, s.a(-x)),
    "lerp": lambda s, h, x: torch.lerp(h, s.a(-x), 0.3),
    "addcmul": lambda s, h, x: torch.addcmul(h, s.a(-x), h),
    "quotient": lambda s, h, x: h / (1 + F.relu(s.a(-x))),
    "1 - h": lambda s, h, x: 1 - h,
    "Gram matrix": lambda s, h, x: torch.bmm(h.unsqueeze(2), s.a(-x).unsqueeze(1)).sum(1),
    "picked": lambda s, h, x: h[:, [7, 6, 5, 4, 3, 2, 1, 0]],
    "index_select": lambda s, h, x: h.index_select(1, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])),
    "index_add": lambda s, h, x: torch.zeros_like(h).index_add(1, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), h),
    "expand": lambda s, h, x: h.unsqueeze(1).expand(-1, 2, -1).sum(1),
    "repeat": lambda s, h, x: h.repeat(1, 2)[:, ::2],
    "padded": lambda s, h, x: F.pad(h[:, :6], (1, 1), value=1.0),
    "the input, padded and added": lambda s, h, x: h + F.pad(x, (0, 2)),
    "neighbours' differences": lambda s, h, x: F.pad(h.diff(dim=1), (0, 1)),
    "its own weight": lambda s, h, x: h * s.a.weight.norm(dim=1),
    "all of its own weights": lambda s, h, x: h * s.a.weight.norm(),
    "its own weight, transposed": lambda s, h, x: F.relu(F.linear(h, s.a.weight.t())) @ s.a.weight.t(),
    "how many": lambda s, h, x: h / h.numel(),
    "one by one": lambda s, h, x: torch.stack([h[:, j] for j in range(8)], 1),
    "unbind": lambda s, h, x: torch.stack(h.unbind(1)[::-1], 1),
    "heads": lambda s, h, x: F.scaled_dot_product_attention(*3 * [h.view(-1, 1, 2, 4)]).reshape(-1, 8),
    "two sigmoids": lambda s, h, x: torch.sigmoid(h) * torch.sigmoid(s.a(-x)),
    "reciprocal": lambda s, h, x: 1 / (h + 1),
    "0 / 0": lambda s, h, x: torch.nan_to_num(h / h),
}


@pytest.mark.parametrize("between", ANYTHING.values(), ids=ANYTHING)
def test_whatever_happens_between_two_layers_is_right_or_refused(between):
    x = batch()
    model = variant(hidden=lambda self, x: between(self, F.relu(self.a(x)), x)).double()
    expected = model.eval()(x.double())
    try:
        net = partly_off(sl.Switched(model, x.double(), switcher="free", tied=True))
        small = sl.compact(net, x.double())
    except (sl.SwitchError, sl.CertificateError):
        assert torch.equal(model(x.double()), expected)
        return
    for other in (batch(99, seed=2), 30 * batch(3, seed=3), torch.zeros(1, 6)):
        same(net, small.model, other.double(), tolerance=1e-9)


# -------- refused, in words

def locked(model):
    model.lock = threading.Lock()
    return model


REFUSED = {
    "any number of inputs": (lambda: variant(forward=lambda self, *xs: MLP.forward(self, xs[0])), r"any number of inputs \(\*xs\)"),
    "torch.compile": (lambda: torch.compile(MLP()), "If it is a wrapper.*give the network inside"),
    "a branch": (lambda: variant(forward=lambda self, x: MLP.forward(self, x if x.sum() > 0 else -x)),
                 "cannot be traced by torch.fx.*branches on values or sizes"),
    "two inputs": (lambda: variant(forward=lambda self, x, z: MLP.forward(self, x + z)), "takes 'z' besides 'x'"),
}


@pytest.mark.parametrize("make, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_words(make, words):
    with pytest.raises(sl.SwitchError, match=f"(?s){words}"):
        sl.Switched(make(), batch())


def test_what_cannot_be_copied_is_refused_in_words():
    with pytest.warns(sl.SwitchWarning, match=r"can be switched and trained, but compact\(\) will not take it: MLP .*lock") as caught:
        net = sl.Switched(locked(MLP()), batch())
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(sl.SwitchError, match="MLP cannot be copied .*lock"):
        sl.compact(net, batch())


def test_what_can_be_copied_is_switched_without_a_warning():
    model = variant(hidden=remembering)
    model(batch())                             # it keeps an activation, with its graph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sl.Switched(model, batch()).sites


def test_what_does_not_run_in_float64_is_refused_in_words():
    net = sl.Switched(variant(hidden=lambda self, x: F.relu(self.a(x.double().type(torch.float32)))), batch())
    with pytest.raises(sl.SwitchError, match="does not run in float64"):
        sl.compact(net, batch())


def test_complex_layers_are_left_alone():
    class Complex(MLP):
        def __init__(self):
            super().__init__()
            self.k = nn.Linear(6, 6, dtype=torch.complex64)

        def forward(self, x):
            return self.c(torch.relu(self.b(self.hidden(x)))) + self.k(x.to(torch.complex64)).abs().sum(1, keepdim=True)

    net = sl.Switched(Complex(), batch())
    assert [site.key for site in net.sites] == ["a", "b"] and net.refused["k"] == "k has complex parameters"
    assert net(batch()).shape == (64, 3)


@pytest.mark.parametrize("arguments, error, words", [
    (dict(net={}), TypeError, "net is a dict; it must be a switched network, or a plain nn.Module"),
    (dict(example=None), ValueError, "example=NoneType must be a tensor"),
    (dict(example=torch.full((4, 6), torch.nan)), ValueError, "example has entries that are NaN or infinite"),
    (dict(tolerance="a"), ValueError, "tolerance='a' must be a number of at least 0"),
    (dict(tolerance=-1e-3), ValueError, "tolerance=-0.001 must be a number of at least 0"),
    (dict(optimizer="sgd"), TypeError, "optimizer is a str; it must be"),
])
def test_compact_names_a_wrong_argument(arguments, error, words):
    good = dict(net=sl.Switched(MLP(), batch()), example=batch())
    with pytest.raises(error, match=words):
        sl.compact(**{**good, **arguments})


@pytest.mark.parametrize("arguments, error, words", [
    (dict(model=MLP), TypeError, "model is the class MLP; it must be an nn.Module, an instance"),
    (dict(model="mlp"), TypeError, "model is a str"),
    (dict(noise=float("nan")), ValueError, "noise=nan must be a number of at least 0"),
    (dict(noise="a"), ValueError, "noise='a' must be a number"),
    (dict(skip="a"), ValueError, r"skip='a' must be a list of paths of modules, such as \['a'\]"),
    (dict(skip=None), ValueError, "skip=None must be a list of paths"),
    (dict(skip="a", level="connection"), ValueError, "skip='a' must be a list of paths"),
])
def test_switched_names_a_wrong_argument(arguments, error, words):
    with pytest.raises(error, match=words):
        sl.Switched(**{**dict(model=MLP(), example=batch()), **arguments})


@pytest.mark.parametrize("factors, words", [
    (lambda ones: list(ones.values()), "factors is a list; it must be"),
    (lambda ones: {**ones, "bb": torch.ones(6)}, "factors='bb' is not a site; did you mean 'b'"),
    (lambda ones: {**ones, "b": torch.full((6,), torch.nan)}, r"factors\['b'\] has entries that are NaN"),
])
def test_hold_names_wrong_factors_and_holds_nothing(factors, words):
    net = sl.Switched(MLP(), batch())
    with pytest.raises(ValueError, match=words):
        net.hold(factors({site.key: torch.ones(site.size) for site in net.sites}))
    assert net.held is None


def test_a_module_is_skipped_with_all_that_is_in_it():
    net = sl.Switched(nn.Sequential(MLP(), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), batch(), skip=["0"])
    assert [site.key for site in net.sites] == ["2"]
    assert {path: why for path, why in net.refused.items() if path.startswith("0")} == {
        path: "skipped on request" for path in ("0.a", "0.b", "0.c")}


def test_a_hook_keeps_a_batchnorm_where_it_is():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model[0].register_forward_hook(lambda module, inputs, output: output.tanh())
    with pytest.warns(sl.SwitchWarning, match="1 stays a BatchNorm: 0 has a hook"):
        folded = sl.fold_batchnorm(model)
    torch.testing.assert_close(folded(batch()), model(batch()))


# -------- nothing else is changed

def test_the_model_and_the_batch_are_left_as_they_were():
    def everything(self, x):
        self.calls.add_(1)
        return F.relu(self.a(x.sub_(0.5) * torch.ones(6)))

    model, x = with_calls(variant(hidden=everything)), batch()
    before = {name: t.clone() for name, t in model.state_dict().items()}, set(vars(model)), x.clone()
    trace(model, x)
    net = sl.Switched(model, x)
    partly_off(net)
    sl.compact(net, x)
    assert set(vars(model)) == before[1] and torch.equal(x, before[2]) and not model.training
    assert all(torch.equal(t, before[0][name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.Adafactor])
def test_a_state_that_cannot_be_sliced_starts_anew(optimizer):
    net = sl.Switched(MLP(), batch())
    old = optimizer(net.model.parameters(), lr=0.01)

    def closure():
        old.zero_grad()
        loss = net(batch()).square().mean()
        loss.backward()
        return loss

    old.step(closure)
    partly_off(net)
    with pytest.warns(sl.SwitchWarning, match="has another shape than the parameter.*starts anew"):
        small = sl.compact(net, batch(), optimizer=old)

    def again():
        small.optimizer.zero_grad()
        loss = small.model(batch()).square().mean()
        loss.backward()
        return loss

    small.optimizer.step(again)
    assert all(p.isfinite().all() for p in small.model.parameters())


def test_a_network_without_parameters_has_a_text():
    assert "0 -> 0 parameters" in str(sl.compact(nn.Flatten(), torch.randn(4, 2, 3)))


# -------- graphs that are drawn

@pytest.mark.parametrize("seed", range(60))
def test_a_random_graph_is_compacted_right_for_images_of_every_size(seed):
    draw = random.Random(seed)
    model = random_graphs.RandomGraph(seed, draw.choice((4, 7, 10))).double().eval()
    if seed % 3 == 0:
        random_graphs.with_zeros(model, seed)
    x = torch.randn(12, *random_graphs.IMAGE, dtype=torch.float64)
    try:
        net = sl.Switched(model, x, **draw.choice(({}, {"tied": True}, {"tied": True, "face": "outgoing"}, {"tied": True, "noise": 0.1})))
    except sl.SwitchError as error:
        assert "nothing in RandomGraph can be switched" in str(error)
        return
    small = sl.compact(partly_off(net, seed), x).model
    for side in (6, 9, 4):
        same(net, small, torch.randn(5, random_graphs.IMAGE[0], side, side, dtype=torch.float64), tolerance=1e-10)
