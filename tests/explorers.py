"""One small example of every explorer that says what it shows, for the promises that all of them keep.

A page writes beside its picture what it shows (``data-shown``) and in which state it is (``data-state``); its controls
name the trait that they set (``data-trait``, ``data-index``). So one set of functions can move any explorer's controls
through any positions, and hold what the page shows against :meth:`Explorer.shown` of the same state in Python.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from switcher_lib import models
from switcher_lib.explore import Ablations, AccuracySize, Alternation, ConvChannels, Gates, PixelMask, ResidualCompaction, SwitcherView

RESULTS = Path(__file__).resolve().parents[1] / "results"


def _a_constant_absorbed():
    """A state in which more can go wrong than in the first one."""
    block = ResidualCompaction()
    block.how, block.step = "gamma", 2
    return block


def _three_looks(n=6, d=5, hidden=4):
    """A small layer and a small perceptron, drawn; at the last look some neurons are off."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).round(4).tolist()

    switchers = [{"U": draw(hidden, d + 1), "u": draw(hidden), "v": draw(hidden), "c": 0.3} for _ in range(3)]
    return [{"step": 10 * i, "rows": draw(n, d + 1), "switcher": s, "accuracy": 90.0 + i} for i, s in enumerate(switchers)]


def a_conv_net(widths=(4, 6, 8), seed=0):
    """A small convolutional network with drawn weights and statistics, in eval mode."""
    torch.manual_seed(seed)
    net = models.conv_net((3, 16, 16), 4, widths)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.startswith("bn") and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return net.eval()


def three_pictures(n=3, side=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def _few_channels():
    """Fewer channels than all, so that the first state holds removed ones; the switcher's order is another than the norms'."""
    explorer = ConvChannels(a_conv_net(), three_pictures(), [2, 0, 3], ["cat", "dog", "frog", "ship"], [0.5, 0.4, 0.45], [0.25, 0.3, 0.2],
                            factors=[np.linspace(0, 1, n) for n in (4, 6, 8)])
    explorer.kept = (3, 6, 5)
    return explorer


MAKERS = {
    "Ablations": partial(Ablations, RESULTS), "AccuracySize": partial(AccuracySize, RESULTS), "Alternation": Alternation,
    "ConvChannels": _few_channels,
    "Gates": Gates, "PixelMask": partial(PixelMask, RESULTS / "pixel-masks.json"), "ResidualCompaction": _a_constant_absorbed,
    "SwitcherView": lambda: SwitcherView(_three_looks()),
}  # fmt: skip

# A change that makes other data, and so another id.
CHANGES = {
    "Ablations": ("b", 5), "AccuracySize": ("zoom", "all"), "Alternation": ("step", 7), "ConvChannels": ("kept", (2, 3, 8)), "Gates": ("neuron", 2),
    "PixelMask": ("look", 4), "ResidualCompaction": ("step", 3),
    "SwitcherView": ("scale", 2.5),
}  # fmt: skip

# All controls that can be moved, with their positions and where they are now. MOVE waits until the page has drawn: it
# does so in a microtask.
CONTROLS = """(root) => [...root.querySelectorAll("[data-trait]")].map((node, number) => {
  node.dataset.number = number;
  const range = () => Array.from({ length: Math.round((node.max - node.min) / node.step) + 1 },
                                 (_, i) => Number((Number(node.min) + i * Number(node.step)).toFixed(9)));
  const kind = node.type === "range" ? "range" : node.type === "checkbox" ? "checkbox" : "select";
  const now = kind === "range" ? Number(node.value) : kind === "checkbox" ? node.checked : node.value;
  return { number, kind, now, trait: node.dataset.trait, index: node.dataset.index === undefined ? null : Number(node.dataset.index),
           positions: kind === "range" ? range() : kind === "checkbox" ? [true, false] : [...node.options].map((o) => o.value) };
})"""

MOVE = """async (root, [number, value]) => {
  const node = root.querySelector(`[data-number="${number}"]`);
  if (node.disabled) return null;
  if (node.type === "checkbox") node.checked = value;
  else node.value = value;
  node.dispatchEvent(new Event(node.type === "range" ? "input" : "change", { bubbles: true }));
  await Promise.resolve(); await Promise.resolve();
}"""

READ = """(root) => ({
  shown: JSON.parse(root.dataset.shown), state: JSON.parse(root.dataset.state),
  live: root.querySelector("[aria-live=polite]").textContent,
  pictures: [...root.querySelectorAll("[role=img]")].map((node) => node.getAttribute("aria-label")),
  silent: [...root.querySelectorAll("input[type=range]")].filter((node) => !node.getAttribute("aria-valuetext")).length,
})"""

SWEEP = f"""async (root, [number, values]) => {{
  const [move, read] = [{MOVE}, {READ}];
  const seen = [];
  for (const value of values) {{
    if (await move(root, [number, value]) === null) continue;
    seen.push({{ value, ...read(root) }});
  }}
  return seen;
}}"""

# What keys did, event by event.
COLLECT = f"""(root) => {{
  const read = {READ};
  window.heard = [];
  const hear = async () => {{ await Promise.resolve(); await Promise.resolve(); window.heard.push(read(root)); }};
  for (const event of ["input", "change", "click"]) root.addEventListener(event, hear);
}}"""


def put(explorer, state):
    """Bring a Python explorer into the state that the page says it is in."""
    with explorer.hold_trait_notifications():
        for name, value in state.items():
            setattr(explorer, name, _tuples(value))


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def differences(page, python, path="shown"):
    """Where the page's numbers, words and lists are not Python's."""
    if isinstance(python, dict):
        if not isinstance(page, dict) or set(page) != set(python):
            return [f"{path}: {page!r} against {python!r}"]
        return [d for key in python for d in differences(page[key], python[key], f"{path}.{key}")]
    if isinstance(python, (list, tuple)):
        if not isinstance(page, list) or len(page) != len(python):
            return [f"{path}: {page!r} against {python!r}"]
        return [d for i, value in enumerate(python) for d in differences(page[i], value, f"{path}[{i}]")]
    if isinstance(python, (int, float)) and not isinstance(python, bool):
        close = isinstance(page, (int, float)) and abs(page - python) <= 1e-9 * max(1.0, abs(python))
        return [] if close else [f"{path}: {page!r} against {python!r}"]
    return [] if page == python else [f"{path}: {page!r} against {python!r}"]


def assert_same(explorer, seen):
    """The page shows what Python computes for the state that the page is in, and says it."""
    put(explorer, seen["state"])
    found = differences(seen["shown"], json.loads(json.dumps(explorer.shown())))
    assert not found, f"{seen['state']}: " + "; ".join(found[:5])
    assert seen["live"] and all(seen["pictures"]) and not seen["silent"]


def at(state, control):
    """The value that a control stands for, as the page's state has it."""
    value = state[control["trait"]]
    return value if control["index"] is None else value[control["index"]]


def position(control, value):
    """The value of a position of a control: an option carries its value as JSON."""
    return json.loads(value) if control["kind"] == "select" else value
