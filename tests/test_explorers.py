"""Every explorer, every control, every position: what the page shows is what Python computes.

Two explorers are older than this scheme and have their own sweeps in test_explore.py.
"""

import json

import explorers
import numpy as np
import pytest
from browser import open_page, write_page
from explorers import COLLECT, CONTROLS, MAKERS, MOVE, READ, SWEEP, assert_same, at, position

EVERY = pytest.mark.parametrize("name", MAKERS)
KEYS = {"range": ("Home", "ArrowRight"), "select": ("Home", "ArrowDown"), "checkbox": (None, "Space")}


@pytest.fixture
def opened(browser, tmp_path):
    """The page of an explorer, its root and its Python half."""
    stack = []

    def one(name, **options):
        explorer = MAKERS[name]()
        path = write_page(tmp_path / "page.html", explorer.html(), theme=options.pop("theme", "light"))
        context = open_page(browser, path, **options)
        page = context.__enter__()
        page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        stack.append(context)
        return page, page.locator(".sl-widget"), explorer

    yield one
    for context in stack:
        context.__exit__(None, None, None)


@pytest.mark.browser
@pytest.mark.slow
@EVERY
def test_every_position_of_every_control_shows_what_python_computes(opened, name):
    page, root, explorer = opened(name)
    controls = root.evaluate(CONTROLS)
    assert controls
    assert_same(explorer, root.evaluate(READ))
    for control in controls:
        seen = root.evaluate(SWEEP, [control["number"], control["positions"]])
        root.evaluate(MOVE, [control["number"], control["now"]])  # each alone: the others stand where they stood
        assert seen, control
        for got in seen:
            assert at(got["state"], control) == position(control, got["value"])
            assert_same(explorer, got)
        said = {got["live"] + str(got["pictures"]) for got in seen}
        states = {json.dumps([got["shown"], got["state"]]) for got in seen}
        assert len(said) == len(states), control  # a text for every state


@pytest.mark.browser
@pytest.mark.slow
@EVERY
def test_fifty_seeded_combinations_show_what_python_computes(opened, name):
    page, root, explorer = opened(name)
    rng = np.random.default_rng(0)
    for _ in range(50):
        controls = root.evaluate(CONTROLS)
        for i in rng.permutation(len(controls)):
            value = controls[i]["positions"][rng.integers(len(controls[i]["positions"]))]
            root.evaluate(MOVE, [controls[i]["number"], value])
        assert_same(explorer, root.evaluate(READ))


@pytest.mark.browser
@pytest.mark.slow
@EVERY
def test_every_position_can_be_reached_by_keyboard(opened, name):
    """Tab comes to every control; keys go through its positions; buttons answer; the page around hears no key."""
    page, root, explorer = opened(name)
    root.evaluate(CONTROLS)
    root.evaluate(COLLECT)
    focus = "document.activeElement.dataset.number ?? document.activeElement.tagName"
    page.keyboard.press("Tab")  # into the explorer; from here on the page around must hear no key
    page.evaluate("document.addEventListener('keydown', () => (document.body.dataset.leaked = 'yes'))")
    met = set()
    for _ in range(200):
        here = page.evaluate(focus)
        if here == "BODY":
            break
        control = next((c for c in root.evaluate(CONTROLS) if str(c["number"]) == here), None)
        page.evaluate("window.heard = []")
        if control is None:  # a button
            page.keyboard.press("Space")
        else:
            met.add(control["number"])
            first, then = KEYS[control["kind"]]
            for key in [first] * (first is not None) + [then] * len(control["positions"]):
                page.keyboard.press(key)
        page.wait_for_timeout(30)
        heard = page.evaluate("window.heard")
        for got in {json.dumps(got["state"]): got for got in heard}.values():
            assert_same(explorer, got)
        if control is not None:
            start = at(explorer.page_state() if not heard else heard[-1]["state"], control)
            reached = {json.dumps(at(got["state"], control)) for got in heard} | {json.dumps(start)}
            wanted = {json.dumps(position(control, v)) for v in control["positions"]}
            assert len(wanted - reached) <= 1, (control, wanted - reached)  # where it stood already makes no event
        page.keyboard.press("Tab")
    enabled = root.evaluate("(root) => root.querySelectorAll('[data-trait]:not([disabled])').length")
    assert len(met) >= enabled
    assert page.locator("body").get_attribute("data-leaked") is None


# Text against what lies behind it: colours are painted on a canvas, since color-mix() has no simple form.
CONTRAST = """(root) => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (node) => {
    const all = [];
    for (let up = node; up; up = up.parentElement) all.push(rgba(getComputedStyle(up).backgroundColor));
    return all.reverse().reduce((under, colour) => over(colour, under), [255, 255, 255, 1]);
  };
  const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  for (const node of root.querySelectorAll("*")) {
    const words = [...node.childNodes].filter((c) => c.nodeType === 3 && c.textContent.trim()).length;
    if (!words || node.tagName === "OPTION" || node.closest(":disabled")) continue;
    const style = getComputedStyle(node);
    let ground = behind(node);
    if (node.dataset.on) { // a text on a shape says which colour the shape has
      const probe = root.appendChild(document.createElement("i"));
      probe.style.color = node.dataset.on;
      ground = over(rgba(getComputedStyle(probe).color), ground);
      probe.remove();
    }
    const ink = over(rgba(node instanceof SVGElement ? style.fill : style.color), ground);
    const [a, b] = [light(ink), light(ground)].sort((p, q) => q - p);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([node.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return poor;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@EVERY
def test_fits_a_phone_and_can_be_read_and_touched(opened, name, theme):
    page, root, _ = opened(name, theme=theme, width=360)
    page.wait_for_timeout(200)  # it is drawn again once it knows its width
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = root.locator("button, select, input").evaluate_all(
        """nodes => nodes.map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
                        .filter(([, box]) => Math.min(box.width, box.height) < 24)"""
    )
    assert small == []
    assert root.evaluate(CONTRAST) == []
    heights = root.locator("svg text").evaluate_all(
        "nodes => nodes.filter((node) => node.textContent).map((node) => node.getBoundingClientRect().height)"
    )
    assert all(height > 9 for height in heights)  # not scaled down with the picture


@pytest.mark.browser
@EVERY
def test_what_the_reader_does_reaches_the_kernel_and_back(browser, tmp_path, name):
    """The module runs under anywidget's model; a control sets the trait; the kernel's change moves the control."""
    from test_explore import LIVE

    explorer = MAKERS[name]()
    with open_page(browser, write_page(tmp_path / "page.html", f"<style>{explorer._css}</style>")) as page:
        page.evaluate(LIVE, [explorer._esm, explorer.page_state()])
        root = page.locator(".sl-widget")
        control = root.evaluate(CONTROLS)[0]
        root.evaluate(MOVE, [control["number"], control["positions"][-1]])
        saved = page.evaluate("window.saved")[-1]
        explorer.set_state(saved)  # what the kernel does with what the page sends
        assert_same(explorer, root.evaluate(READ))
        other = explorers.CHANGES[name]
        setattr(explorer, *other)
        page.evaluate("([name, value]) => window.model.set(name, value)", list(other))
        assert_same(explorer, root.evaluate(READ))
        page.evaluate("window.undo()")
        assert page.evaluate("window.listening()") == 0
