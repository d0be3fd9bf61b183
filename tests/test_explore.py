"""The explorers: what the page computes is what Python computes, in every position of every control."""

import itertools
import json
import re

import nbformat
import numpy as np
import pytest
import torch
from browser import open_page, write_page
from explorers import CHANGES, MAKERS
from torch import nn

from switcher_lib.explore import DigitNeurons, Explorer, ScaleNeurons, strip_widget_state
from switcher_lib.layers import SelectLinear

VIEW = "application/vnd.jupyter.widget-view+json"
CLOSE = {"rtol": 0, "atol": 1e-9}  # the promise is 1e-6; both sides compute in double precision


def bumpy(x):
    return torch.sin(3 * x) + 0.4 * x


@pytest.fixture(scope="module")
def fitted():
    return ScaleNeurons.fit(bumpy)


@pytest.fixture
def scale(fitted):
    """A fresh explorer over the fitted network: tests change its state."""
    x, y = zip(*fitted.target, strict=True)
    return ScaleNeurons(fitted.W1, fitted.b1, fitted.w2, fitted.b2, target=(x, y))


def classifier(pixels=300, n1=12, n2=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(784, generator=generator)[:pixels].sort().values
    first = SelectLinear(index, n1) if pixels < 784 else nn.Linear(784, n1)
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(n1, n2), nn.ReLU(), nn.Linear(n2, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / (p.shape[-1] ** 0.5 if p.dim() > 1 else 3))
    return model


def pictures(n=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 7, 7, generator=generator).clamp(min=0.5) * 2 - 1
    return (nn.functional.interpolate(coarse, 28, mode="bilinear")[:, 0] * 255).round().to(torch.uint8)


def make_digits(**options):
    return DigitNeurons(classifier(**options), pictures(), [3, 1, 4, 1], mean=0.13, std=0.31)


@pytest.fixture
def digits():
    return make_digits()


MAKE = {"ScaleNeurons": lambda: ScaleNeurons([1, -1], [0.5, 0.2], [1, 2], 0.1), "DigitNeurons": make_digits, **MAKERS}
OTHER = {"ScaleNeurons": ("factors", (0.5, 1)), "DigitNeurons": ("image", 1), **CHANGES}
ALL = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


# The HTML ---------------------------------------------------------------------------------------------------


@ALL
def test_html_asks_for_nothing_outside_itself(make):
    text = make().html()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG; nothing is fetched by it
    assert not re.search(r"\b(src|href|import|url\()\s*[=(]?\s*[\"']?\w+[:/]", text)


@ALL
def test_html_is_the_same_for_the_same_data_and_another_for_other_data(make):
    one, two = make(), make()
    assert one.html() == two.html()
    before = two.html()
    two.set_trait(*OTHER[type(two).__name__])
    ids = [re.search(r'id="([^"]+)"', text)[1] for text in (before, two.html())]
    assert ids[0] != ids[1]


@ALL
def test_html_holds_one_script_end_for_each_script(make):
    text = make().html()
    assert text.count("<script") == text.count("</script") == 2
    assert len(text.encode()) < 100_000


def test_largest_network_allowed_stays_below_100_kilobytes():
    model = classifier(pixels=400, n1=70, n2=100, seed=3)
    explorer = DigitNeurons(model, pictures(12), range(12), 0.13, 0.31)
    assert sum(p.numel() for p in model.parameters()) > 36_000
    assert len(explorer.html().encode()) < 100_000


def test_html_larger_than_the_limit_is_an_error(scale, monkeypatch):
    monkeypatch.setattr(ScaleNeurons, "max_bytes", 1000)
    with pytest.raises(ValueError, match=r"ScaleNeurons would put .* bytes into the page; at most 1,000"):
        scale.html()


@ALL
def test_bundle_carries_the_live_view_and_the_page(make):
    explorer = make()
    data, _ = explorer._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", VIEW}
    assert data["text/plain"] == repr(make())  # no address in memory


def executed(explorer):
    """A notebook that shows the explorer, as nbclient writes it."""
    data, metadata = explorer._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("explorer", id="explorer", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata)]
    nb = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {"model": 1}}})
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nb.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    return nb


@ALL
def test_stripped_notebooks_of_two_runs_are_equal(make):
    one, two = executed(make()), executed(make())
    assert one != two  # each view has a random model id
    assert strip_widget_state(one) == strip_widget_state(two)
    assert "widgets" not in one.metadata
    assert set(one.cells[0].outputs[0].data) == {"text/plain", "text/html"}


def test_stripping_leaves_an_output_that_is_nothing_but_a_view():
    nb = executed(make_digits())
    nb.cells[0].outputs[0].data = {VIEW: {"model_id": "a"}}
    assert VIEW in strip_widget_state(nb).cells[0].outputs[0].data


def test_sphinx_shows_the_html_and_no_widget_view(tmp_path, digits):
    pytest.importorskip("myst_nb")
    from sphinx.cmd.build import build_main

    nb = executed(digits)  # not stripped: the settings alone have to do
    del nb.metadata["widgets"]
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("# Title", id="title"))
    nbformat.write(nb, tmp_path / "index.ipynb")
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb"]\nnb_execution_mode = "off"\nnb_ipywidgets_js = {}\n'
        f'nb_mime_priority_overrides = [["*", "{VIEW}", None]]\n'
    )
    assert build_main(["-q", "-W", "-b", "html", str(tmp_path), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert 'data-explorer="' in text and "widget-view" not in text


# Python -----------------------------------------------------------------------------------------------------


def test_values_are_torch_s(scale):
    scale.factors = np.linspace(0, 2, 8).tolist()
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)
    W1, b1, w2, s = (torch.tensor(v, dtype=torch.float64) for v in (scale.W1, scale.b1, scale.w2, scale.factors))
    for name, phi in {"relu": torch.relu, "leaky_relu": nn.LeakyReLU(0.1), "tanh": torch.tanh}.items():
        scale.activation = name
        z = x[:, None] * (s * W1) + s * b1
        np.testing.assert_allclose(scale.values(x, "incoming"), phi(z) @ w2 + scale.b2, **CLOSE)
        z = x[:, None] * W1 + b1
        np.testing.assert_allclose(scale.values(x, "outgoing"), phi(z) @ (s * w2) + scale.b2, **CLOSE)


@pytest.mark.parametrize("activation, agree", [("relu", True), ("leaky_relu", True), ("tanh", False)])
def test_faces_agree_for_homogeneous_activations_only(scale, activation, agree):
    scale.activation = activation
    scale.factors = np.linspace(0.1, 2, 8).tolist()
    assert (scale.gap() < 1e-12) is agree
    scale.factors = (0, 1, 0, 1, 1, 0, 1, 1)  # on or off: every activation with f(0) = 0 agrees
    assert scale.gap() < 1e-12
    assert scale.parameters_left() == 3 * 5 + 1


def test_fitting_is_the_same_twice_and_follows_the_curve(fitted):
    again = ScaleNeurons.fit(bumpy)
    assert again.page_state() == fitted.page_state()
    x, y = np.array(fitted.target).T
    assert np.abs(fitted.values(x) - y).mean() < 0.05


def test_probabilities_are_close_to_the_model_s(digits):
    model, images = classifier(), pictures()
    x = (images[:, None] / 255 - 0.13) / 0.31
    p = model(x).softmax(1).detach().numpy()
    mine = np.array([digits.probabilities(i, ()) for i in range(4)])
    assert 0 < digits.rounding < 0.05
    np.testing.assert_allclose(mine, p, atol=digits.rounding + 1e-5)


def test_switching_off_is_removing(digits):
    off = [0, 3, 11, 12, 20]
    keep1 = [j for j in range(12) if j not in off]
    keep2 = [j for j in range(9) if j + 12 not in off]
    (W1, b1), (W2, b2), (W3, b3) = digits._weights
    h = np.maximum(W1[keep1] @ digits._input(2) + b1[keep1], 0)
    h = np.maximum(W2[np.ix_(keep2, keep1)] @ h + b2[keep2], 0)
    z = W3[:, keep2] @ h + b3
    np.testing.assert_allclose(digits.probabilities(2, off), np.exp(z) / np.exp(z).sum(), **CLOSE)
    assert digits.parameters_left(off) == 9 * 301 + 7 * 10 + 10 * 8


def test_share_switches_the_smallest_off(digits):
    digits.share = 50
    assert len(digits.off) == 6 + 5  # half of 9, rounded up
    W1, b1 = digits._weights[0]
    size = np.sqrt((W1**2).sum(1) + b1**2) * np.linalg.norm(digits._weights[1][0], axis=0)
    on = [j for j in range(12) if j not in digits.off]
    assert max(size[[j for j in digits.off if j < 12]]) <= min(size[on])
    digits.share = 100
    assert digits.parameters_left() == 10
    digits.share = 0
    assert digits.off == ()


def test_standardised_floats_are_taken_back_to_bytes(digits):
    images = pictures()
    standard = (images[:, None] / 255 - 0.13) / 0.31
    same = DigitNeurons(classifier(), standard, [3, 1, 4, 1], (0.13,), torch.tensor([0.31]))
    np.testing.assert_allclose(same.probabilities(1), digits.probabilities(1), atol=1e-6)
    assert same.images == digits.images


def test_bias_free_layers_and_one_hidden_layer_work():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 5, bias=False), nn.ReLU(), nn.Linear(5, 10))
    explorer = DigitNeurons(model, pictures(), [0, 1, 2, 3], 0.0, 1.0)
    assert explorer.rounding < 0.02
    assert len(explorer.index) == 784


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: setattr(e, "activation", "tan"), r"activation='tan' .*did you mean 'tanh'\?"),
        (lambda e: setattr(e, "face", "incomming"), r"face='incomming' .*did you mean 'incoming'\?"),
        (lambda e: setattr(e, "factors", [1, 2]), r"factors has 2 values; this network has 8"),
        (lambda e: setattr(e, "factors", [3] * 8), r"factors holds 3.0; a factor lies between 0 and 2"),
        (lambda e: ScaleNeurons([1, 2], [1], [1, 2], 0), r"b1 has shape \(1,\); .*2 values"),
        (lambda e: ScaleNeurons([[1, 2], [3, 4]], [1], [1], 0), r"W1 has shape \(2, 2\)"),
        (lambda e: ScaleNeurons([1, np.nan], [1, 1], [1, 2], 0), r"W1 holds a value that is not finite"),
        (lambda e: ScaleNeurons([1], [1], [1], 0, x_range=(1, 1)), r"x_range=\(1.0, 1.0\)"),
        (lambda e: ScaleNeurons.fit(bumpy, neurons=40), r"neurons=40 has to lie between 2 and 12"),
    ],
)
def test_scale_neurons_says_what_is_wrong(scale, change, message):
    with pytest.raises(ValueError, match=message):
        change(scale)


def linear_stack(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    "model, options, message",
    [
        (nn.Conv2d(1, 2, 3), {}, r"\(Conv2d\) is not a Linear layer"),
        (linear_stack(nn.Linear(784, 5), nn.Tanh(), nn.Linear(5, 10)), {}, r"\(Tanh\) is not a ReLU"),
        (linear_stack(nn.Linear(784, 10)), {}, r"model has 1 Linear layers"),
        (linear_stack(nn.Linear(700, 5), nn.ReLU(), nn.Linear(5, 10)), {}, r"reads 700 inputs, .* names 784"),
        (linear_stack(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10)), {}, r"238,510 .*Compact it, or"),
        (classifier(), {"images": pictures()[:, :20]}, r"images has shape \(4, 20, 28\)"),
        (classifier(), {"images": pictures(13)}, r"images holds 13 images"),
        (classifier(), {"images": pictures().float()}, r"images times std=.* leaves \[0, 1\]"),
        (classifier(), {"labels": [1]}, r"labels has 1 values for 4 images"),
        (classifier(), {"std": 0}, r"std=0 has to be one number, above 0"),
    ],
)
def test_digit_neurons_says_what_is_wrong(model, options, message):
    given = {"images": pictures(), "labels": [3, 1, 4, 1], "mean": 0.13, "std": 0.31, **options}
    with pytest.raises(ValueError, match=message):
        DigitNeurons(model, **given)


def test_digit_neurons_refuses_what_is_not_there(digits):
    for name, value in {"image": 4, "share": 101, "off": [21]}.items():
        with pytest.raises(ValueError, match=name):
            setattr(digits, name, value)


# The page ---------------------------------------------------------------------------------------------------

# What the page says it shows, once it has drawn: it draws right after the event, in a microtask.
SHOWN = "async (node) => (await Promise.resolve(), { ...node.dataset })"

# Moves a control through positions as a reader does, and returns what the page says it shows in each.
MOVE = """async ([selector, values, event]) => {
  const node = document.querySelector(selector);
  const root = node.closest(".sl-widget");
  const seen = [];
  for (const value of values) {
    node.value = value;
    node.dispatchEvent(new Event(event, { bubbles: true }));
    await Promise.resolve(); await Promise.resolve();
    seen.push({ shown: { ...root.dataset }, heard: node.getAttribute("aria-valuetext"), value: node.value,
                live: root.querySelector("[aria-live=polite]").textContent,
                picture: root.querySelector("svg[role=img]").getAttribute("aria-label"),
                unnamed: root.querySelectorAll("[role=img]:not([aria-label])").length });
  }
  return seen;
}"""


def assert_scale_shown(explorer, shown):
    other = "outgoing" if explorer.face == "incoming" else "incoming"
    np.testing.assert_allclose(json.loads(shown["curve"]), explorer.values(explorer.grid()), **CLOSE)
    np.testing.assert_allclose(json.loads(shown["beside"]), explorer.values(explorer.grid(), other), **CLOSE)
    assert float(shown["gap"]) == pytest.approx(explorer.gap(), abs=1e-9)
    assert int(shown["off"]) == sum(s == 0 for s in explorer.factors)
    assert int(shown["left"]) == explorer.parameters_left()


@pytest.mark.browser
@pytest.mark.slow
def test_scale_neurons_in_every_position(browser, tmp_path, scale):
    path = write_page(tmp_path / "page.html", scale.html())
    with open_page(browser, path) as page:
        options = page.locator("select option").evaluate_all("nodes => nodes.map((node) => node.value)")
        assert options == ["relu", "leaky_relu", "tanh"]
        steps = np.arange(41) / 20
        rng = np.random.default_rng(0)
        for face, activation in itertools.product(["incoming", "outgoing"], options):
            page.locator(f"[data-face={face}]").click()
            page.evaluate(MOVE, ["select", [activation], "change"])
            scale.face, scale.activation = face, activation
            for j in range(8):
                pictures_heard, said = set(), set()
                # Every position once; under the other faces and activations a draw that holds 0, 1 and 2. Each
                # slider ends somewhere else, so that all are mixed.
                first = (face, activation) == ("incoming", "relu")
                some = steps if first else np.union1d(steps[[0, 20, 40]], rng.choice(steps, 5, replace=False))
                order = rng.permutation(some).tolist()
                slider = f".sl-card:nth-of-type({j + 1}) input"
                for s, got in zip(order, page.evaluate(MOVE, [slider, order, "input"]), strict=True):
                    scale.factors = [*scale.factors[:j], float(got["value"]), *scale.factors[j + 1 :]]
                    assert float(got["value"]) == pytest.approx(s)
                    assert_scale_shown(scale, got["shown"])
                    assert got["heard"] == ("0, neuron off" if s == 0 else f"{s:.2f}")
                    assert f"{scale.parameters_left()} of 25 parameters left" in got["live"]
                    assert ("Both faces give the same curve" in got["live"]) == (scale.gap() < 1e-9)
                    assert got["unnamed"] == 0
                    pictures_heard.add(got["picture"])
                    said.add(got["heard"])
                assert len(pictures_heard) == len(said) == len(order)  # a text for every state
        page.get_by_role("button", name="All factors 1").click()
        scale.factors = [1] * 8
        assert_scale_shown(scale, page.locator(".sl-widget").evaluate(SHOWN))


def assert_digits_shown(explorer, shown):
    np.testing.assert_allclose(json.loads(shown["probabilities"]), explorer.probabilities(), **CLOSE)
    for mine, theirs in zip(explorer.activations(), json.loads(shown["activations"]), strict=True):
        np.testing.assert_allclose(theirs, mine, **CLOSE)
    assert int(shown["left"]) == explorer.parameters_left()
    assert int(shown["off"]) == len(explorer.off)
    assert int(shown["right"]) == explorer.right()


@pytest.mark.browser
@pytest.mark.parametrize("options", [{}, {"pixels": 784, "n1": 7, "n2": 5, "seed": 2}], ids=["index", "all pixels"])
def test_digit_neurons_in_every_position(browser, tmp_path, options):
    digits = make_digits(**options)
    path = write_page(tmp_path / "page.html", digits.html())
    with open_page(browser, path) as page:
        root = page.locator(".sl-widget")

        def dataset():
            return root.evaluate(SHOWN)

        assert_digits_shown(digits, dataset())
        for i in range(4):
            page.get_by_role("button", name=f"Image {i + 1} of 4").click()
            digits.image = i
            heard = set()
            shares = list(range(0, 101, 5))
            seen = page.evaluate(MOVE, ["input[type=range]", shares, "input"])
            for share, got in zip(shares, seen, strict=True):
                digits.share = share
                assert_digits_shown(digits, got["shown"])
                assert got["heard"] == f"{share} %" and got["unnamed"] == 0
                assert f"a {digits.labels[i]}" in got["picture"]
                heard.add(got["live"])
            assert len(heard) > 5
        page.get_by_role("button", name="All on").click()
        digits.share = 0
        for j in range(sum(digits.hidden)):  # off one after the other, then on again
            button = page.locator(f"[data-neuron='{j}']")
            button.click()
            digits.off = [*digits.off, j]
            assert_digits_shown(digits, dataset())
            assert button.get_attribute("aria-pressed") == "false"
            assert button.get_attribute("aria-label").endswith(": off")
        assert "by hand" in page.locator("input[type=range]").get_attribute("aria-valuetext")
        for j in range(sum(digits.hidden)):
            page.locator(f"[data-neuron='{j}']").click()
            digits.off = digits.off[1:]
            assert_digits_shown(digits, dataset())
        assert json.loads(dataset()["off"]) == 0


@pytest.mark.browser
def test_scale_neurons_by_keyboard_alone(browser, tmp_path, scale):
    path = write_page(tmp_path / "page.html", scale.html())
    with open_page(browser, path) as page:
        page.keyboard.press("Tab")
        page.evaluate("document.addEventListener('keydown', () => document.body.dataset.leaked = 'yes')")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the second face
        assert page.locator("[data-face=outgoing]").get_attribute("aria-pressed") == "true"
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")  # the second activation
        assert page.locator("select").input_value() == "leaky_relu"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")  # past the button, on the first slider
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        scale.face, scale.activation, scale.factors = "outgoing", "leaky_relu", (0.05, 0, *[1] * 6)
        assert_scale_shown(scale, page.locator(".sl-widget").evaluate(SHOWN))
        assert page.locator("body").get_attribute("data-leaked") is None  # the page around hears no key


@pytest.mark.browser
def test_digit_neurons_by_keyboard_alone(browser, tmp_path, digits):
    path = write_page(tmp_path / "page.html", digits.html())
    with open_page(browser, path) as page:
        page.keyboard.press("Tab")
        page.evaluate("document.addEventListener('keydown', () => document.body.dataset.leaked = 'yes')")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # the second image
        for _ in range(3):
            page.keyboard.press("Tab")  # past the images: the first layer is one stop
        page.keyboard.press("ArrowLeft")  # around to its last neuron
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        digits.image, digits.off = 1, (11, 19)
        assert_digits_shown(digits, page.locator(".sl-widget").evaluate(SHOWN))
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        digits.share = 5
        assert_digits_shown(digits, page.locator(".sl-widget").evaluate(SHOWN))
        assert page.locator("body").get_attribute("data-leaked") is None


@pytest.mark.browser
def test_several_explorers_on_a_page_do_not_touch_each_other(browser, tmp_path, scale, digits):
    path = write_page(tmp_path / "page.html", scale.html(), digits.html(), scale.html())
    with open_page(browser, path) as page:
        assert page.locator(".sl-widget").count() == 3 and page.locator(".sl-first").count() == 0
        page.evaluate(MOVE, [".sl-explorer:last-of-type .sl-card:nth-of-type(2) input", [0], "input"])
        off = page.locator(".sl-widget").evaluate_all("nodes => nodes.map((node) => node.dataset.off)")
        assert off == ["0", "0", "1"]


@pytest.mark.browser
@ALL
def test_first_frame_stands_where_no_script_runs(browser, tmp_path, make):
    explorer = make()
    path = write_page(tmp_path / "page.html", explorer.html())
    with open_page(browser, path, scripts=False) as page:
        picture = page.locator(".sl-first svg[role=img]")
        assert picture.is_visible() and picture.get_attribute("aria-label") == explorer.describe()
        assert page.locator(".sl-widget").count() == 0
    with open_page(browser, path) as page:
        assert page.locator(".sl-first").count() == 0 and page.locator(".sl-widget").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_page_fits_its_width_in_both_themes(browser, tmp_path, scale, digits, width, theme):
    path = write_page(tmp_path / "page.html", scale.html(), digits.html(), theme=theme)
    with open_page(browser, path, width=width) as page:
        page.wait_for_timeout(100)  # the plot is drawn again once it knows its width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.locator("button, select, input").evaluate_all(
            """nodes => nodes.map((node) => node.getBoundingClientRect())
                            .filter((box) => Math.min(box.width, box.height) < 24).length"""
        )
        assert small == 0  # 24 pixels: what a finger needs at least
        text = page.locator(".sl-widget svg text").first
        assert text.evaluate("node => node.getBoundingClientRect().height") > 10  # not scaled down with the plot
        read = "node => getComputedStyle(node).getPropertyValue('--sl-blue')"
        colour = page.locator(".sl-widget").first.evaluate(read)
        assert colour == {"light": "#0072b2", "dark": "#56b4e9"}[theme]
        (tmp_path / "shot.png").write_bytes(page.screenshot(full_page=True))


@pytest.mark.browser
def test_closed_details_draw_when_opened(browser, tmp_path, scale):
    path = write_page(tmp_path / "page.html", f"<details><summary>Open</summary>{scale.html()}</details>")
    with open_page(browser, path, width=500) as page:
        page.locator("summary").click()
        page.wait_for_timeout(100)
        plot = page.locator(".sl-widget > svg")
        assert int(plot.get_attribute("width")) == round(page.locator(".sl-widget").bounding_box()["width"])


# A kernel's model: what render() sets is collected, and what the kernel sends fires the same events.
LIVE = """async ([source, state]) => {
  const { default: explorer } = await import("data:text/javascript;charset=utf-8," + encodeURIComponent(source));
  const listeners = {};
  window.saved = [];
  const pending = {};
  window.model = {
    get: (name) => state[name],
    set(name, value) {
      state[name] = pending[name] = value;
      (listeners["change:" + name] ?? []).forEach((f) => f());
    },
    on: (event, f) => (listeners[event] ??= []).push(f),
    off: (event, f) => (listeners[event] = listeners[event].filter((g) => g !== f)),
    save_changes() { window.saved.push({ ...pending }); for (const name in pending) delete pending[name]; },
  };
  const el = document.createElement("div");
  document.body.append(el);
  window.undo = explorer.render({ model: window.model, el });
  window.listening = () => Object.values(listeners).flat().length;
}"""


@pytest.mark.browser
def test_live_module_syncs_both_ways(browser, tmp_path, scale):
    with open_page(browser, write_page(tmp_path / "page.html", f"<style>{scale._css}</style>")) as page:
        page.evaluate(LIVE, [scale._esm, scale.page_state()])
        page.evaluate(MOVE, [".sl-card:nth-of-type(3) input", [0.5], "input"])
        saved = page.evaluate("window.saved")
        scale.set_state(saved[-1])  # what the kernel does with what the page sends
        assert scale.factors == (1, 1, 0.5, 1, 1, 1, 1, 1)
        scale.face = "outgoing"
        page.evaluate("window.model.set('face', 'outgoing')")
        assert_scale_shown(scale, page.locator(".sl-widget").evaluate(SHOWN))
        assert page.locator("[data-face=outgoing]").get_attribute("aria-pressed") == "true"
        page.evaluate("window.undo()")
        assert page.evaluate("window.listening()") == 0


@pytest.mark.browser
def test_live_slider_of_digit_neurons_sets_share_and_off(browser, tmp_path, digits):
    with open_page(browser, write_page(tmp_path / "page.html")) as page:
        page.evaluate(LIVE, [digits._esm, digits.page_state()])
        [got] = page.evaluate(MOVE, ["input[type=range]", [35], "input"])
        digits.set_state(page.evaluate("window.saved")[-1])
        assert digits.share == 35 and len(digits.off) == 4 + 3
        assert_digits_shown(digits, got["shown"])


def test_live_traits_sync_to_a_kernel(scale, digits):
    assert isinstance(scale, Explorer)
    for explorer, names in ((scale, {"factors", "activation", "face"}), (digits, {"image", "share", "off"})):
        assert names <= set(explorer.page_state()) <= set(explorer.get_state())
        assert explorer.get_state()["_esm"].rstrip().endswith("export default { render };")
