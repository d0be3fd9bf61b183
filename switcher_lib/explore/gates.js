// Gates: scores of one layer in, factors out, and what each gate passes back.

const GATE_NAMES = ["clamp", "relu", "relu_tanh", "step", "clamp_centred", "relu_bn"];
const WHOLE_LAYER = ["clamp_centred", "relu_bn"];
const EPS = 1e-5; // BatchNorm's
const TINY = 1e-12; // nearer to 0 than this is rounding

// What a gate makes of a layer: where a score lands (inner), its factor there, what the gate lets through there
// (pass), and whether the factor would really move (moves).
const inner = (gate, scores) => {
  const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
  const sd = Math.sqrt(scores.reduce((sum, a) => sum + (a - mean) ** 2, 0) / scores.length + EPS);
  return gate === "clamp_centred" ? { shift: mean - 0.5, width: 1 } : gate === "relu_bn" ? { shift: mean, width: sd } : { shift: 0, width: 1 };
};
const FACTOR = {
  clamp: (z) => Math.min(Math.max(z, 0), 1),
  relu: (z) => Math.max(z, 0),
  relu_tanh: (z) => Math.max(Math.tanh(z), 0),
  step: (z) => (z > 0 ? 1 : 0),
};
const PASS = {
  clamp: (z) => (z > 0 ? 1 : 0),
  relu: (z) => (z > 0 ? 1 : 0),
  relu_tanh: (z) => (z > 0 ? 1 - Math.tanh(z) ** 2 : 0),
  step: () => 1,
};
const MOVES = { clamp: (z) => z > TINY && z < 1 - TINY, relu: (z) => z > TINY, relu_tanh: (z) => z > TINY, step: () => false };
const KIND = { clamp_centred: "clamp", relu_bn: "relu" };

const layer = (gate, scores) => {
  const kind = KIND[gate] ?? gate;
  const { shift, width } = inner(gate, scores);
  const n = scores.length;
  const z = scores.map((a) => (a - shift) / width).map((v) => (Math.abs(v) < TINY ? 0 : v));
  const hat = gate === "relu_bn" ? z : z.map(() => 0);
  const pass = z.map(PASS[kind]);
  // jacobian[j][i]: how s_j moves with a_i, as the backward pass says
  const share = WHOLE_LAYER.includes(gate) ? 1 / n : 0;
  const jacobian = z.map((_, j) => z.map((_, i) => (pass[j] / width) * ((i === j ? 1 : 0) - share - (hat[j] * hat[i]) / n)));
  return { factors: z.map(FACTOR[kind]), jacobian, moves: z.map(MOVES[kind]), shift, width, at: (a) => FACTOR[kind]((a - shift) / width) };
};

function render({ model, el }) {
  const n = model.get("scores").length;
  const [low, high] = [-1.5, 2.5];
  const c = controlsOf(model);
  const plot = svg("svg", { role: "img" });
  const bars = svg("svg", { role: "img" });
  const legend = html("div", { class: "sl-legend", "aria-hidden": "true" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Off, exactly 0"), tile("Gradient of its own score"), tile("Gradients of the others, summed")];
  const sliders = Array.from({ length: n }, (_, j) =>
    c.slider("scores", j, `Score of neuron ${j + 1}`, { min: low, max: high, step: 0.05 }, (a) => fixed(a, 2)));

  const draw = (width) => {
    const [gate, scores, k] = [model.get("gate"), model.get("scores"), model.get("neuron") - 1];
    const { factors, jacobian, moves, shift, width: spread, at } = layer(gate, scores);
    const pulls = jacobian.map((row) => row[k]);
    const off = factors.filter((s) => s === 0).length;
    const own = pulls[k];
    const others = pulls.reduce((a, b) => a + b, 0) - own;
    const top = Math.max(1.25, ...factors) * 1.08;

    const xs = Array.from({ length: 401 }, (_, i) => low + ((high - low) * i) / 400);
    const { px, py, bottom, top: roof, add, inside } = axes(plot, width, Math.min(320, Math.max(230, width * 0.45)),
      { low, high, name: "score a" }, { low: -0.12, high: top, name: "factor s" });
    const edge = gate === "clamp_centred" || gate === "relu_bn" ? shift : 0; // off at and left of it
    const [a, s] = [scores[k], factors[k]];
    const reach = 0.42;
    inside(
      svg("rect", { x: px(low), y: roof, width: Math.max(0, px(Math.min(Math.max(edge, low), high)) - px(low)), height: bottom - roof, fill: "var(--sl-faint)" }),
      ...(WHOLE_LAYER.includes(gate) ? [svg("path", { d: `M${px(edge + (gate === "clamp_centred" ? 0.5 : 0))} ${roof}V${bottom}`, stroke: "var(--sl-quiet)", "stroke-dasharray": "2 4" })] : []),
      ...(gate === "step" ? [[low, 0], [0, high]] : [[low, high]]).map(([from, to], i) =>
        svg("path", { d: through(xs.filter((x) => x >= from && x <= to).map((x) => [x, gate === "step" ? i : at(x)]), px, py),
          fill: "none", stroke: "var(--sl-blue)", "stroke-width": 3 })),
      svg("path", { d: through([[a - reach, s - reach * own], [a + reach, s + reach * own]], px, py), stroke: "var(--sl-orange)", "stroke-width": 3, "stroke-linecap": "round" }),
    );
    add(
      ...scores.flatMap((v, j) => {
        const here = { cx: px(v), cy: py(factors[j]) };
        return [
          svg("circle", { ...here, r: j === k ? 11 : 9, fill: factors[j] === 0 ? "var(--sl-paper)" : "var(--sl-blue)",
            stroke: j === k ? "var(--sl-orange)" : "var(--sl-blue)", "stroke-width": j === k ? 3.5 : 2 }),
          svg("text", { x: here.cx, y: here.cy + 4, "text-anchor": "middle", "data-on": factors[j] === 0 ? null : "var(--sl-blue)", style: factors[j] === 0 ? "fill:currentColor" : "fill:var(--sl-on-blue)" }, String(j + 1)),
        ];
      }),
    );
    plot.setAttribute("aria-label", `Gate ${gate}. ` + scores.map((v, j) => `Neuron ${j + 1}: score ${fixed(v, 2)}, factor ${fixed(factors[j], 2)}`).join("; ") + ".");
    legend.replaceChildren(...legendOf([
      ["factor", { stroke: "var(--sl-blue)", "stroke-width": 3 }],
      [`slope that training sees, neuron ${k + 1}`, { stroke: "var(--sl-orange)", "stroke-width": 3 }],
      ["exactly 0: off", { r: 5, stroke: "var(--sl-blue)", "stroke-width": 2 }],
      ...(WHOLE_LAYER.includes(gate) ? [["the layer\u2019s mean score", { stroke: "var(--sl-quiet)", "stroke-dasharray": "2 4" }]] : []),
    ]));

    const most = Math.max(1, ...pulls.map(Math.abs));
    const chart = axes(bars, width, 26 * n + 44, { low: -most * 1.12, high: most * 1.12, name: `change of each factor per unit of score ${k + 1}` }, { low: n, high: 0, at: [], name: "" }, [76, 14, 4, 38]);
    chart.add(
      svg("path", { d: `M${chart.px(0)} ${chart.top}V${chart.bottom}`, stroke: "var(--sl-quiet)" }),
      ...pulls.flatMap((v, j) => [
        svg("text", { x: 70, y: chart.py(j + 0.5) + 4, "text-anchor": "end" }, `neuron ${j + 1}`),
        svg("rect", { x: chart.px(Math.min(0, v)), y: chart.py(j) + 4, width: Math.max(1, Math.abs(chart.px(v) - chart.px(0))), height: 18,
          fill: j === k ? "var(--sl-orange)" : "var(--sl-blue)", "fill-opacity": v === 0 ? 0.35 : 1 }),
      ]),
    );
    bars.setAttribute("aria-label", `Gradients of the factors with respect to score ${k + 1}: ` + pulls.map((v, j) => `neuron ${j + 1} ${fixed(v, 2)}`).join(", ") + ".");

    const state = s === 0 ? (own === 0 ? "shut" : "open") : moves[k] ? "slope" : own === 0 ? "flat" : "through";
    const others_ = others < -TINY ? ` Raising its score lowers the others by ${fixed(-others, 2)} in all: they compete.` :
      others > TINY ? ` Raising its score raises the others by ${fixed(others, 2)} in all.` : "";
    const text = `Neuron ${k + 1} ` + {
      shut: "is off, and its gradient is 0: no loss can call it back through its own score.",
      open: "is off, and the gate passes a gradient all the same, straight through: the loss can call it back.",
      slope: `is on at ${fixed(s, 2)}, and its factor moves with its score: gradient ${fixed(own, 2)}.`,
      flat: "is on, on a flat piece: its gradient is 0.",
      through: `is on at ${fixed(s, 2)}, where a small step does not move the factor; the gate passes ${fixed(own, 2)} all the same, so that it can come down.`,
    }[state] + others_;
    verdict.textContent = text;
    tiles[0].show(`${off} of ${n}`);
    tiles[1].show(fixed(own, 2));
    tiles[2].show(fixed(others, 2));
    return { text: `${text} ${off} of ${n} neurons are off.`, shown: { factors, jacobian, off, state, own, others, spread } };
  };

  return board(model, el, c, { label: "Explorer: gates and their gradients", traits: ["gate", "scores", "neuron"], draw },
    html("div", { class: "sl-row" },
      c.choice("gate", "Gate", GATE_NAMES.map((name) => [name, name])),
      c.choice("neuron", "Ask about", Array.from({ length: n }, (_, j) => [j + 1, `neuron ${j + 1}`])),
      c.button("Scores as at first", () => c.change({ scores: model.get("first") }))),
    plot, legend, verdict,
    html("dl", { class: "sl-tiles" }, ...tiles),
    html("div", { class: "sl-sliders" }, ...sliders),
    html("div", { class: "sl-name" }, "Push one score: what training expects every factor to do"),
    bars);
}

export default { render };
