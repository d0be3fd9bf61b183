// ScaleNeurons: f(x) of a network 1 -> n -> 1, with a factor for each neuron at the incoming or the outgoing face.

const ACTIVATIONS = {
  relu: ["ReLU", (z) => Math.max(z, 0)],
  leaky_relu: ["leaky ReLU (0.1)", (z) => (z > 0 ? z : 0.1 * z)],
  tanh: ["tanh", Math.tanh],
};
const FACES = { incoming: "incoming: row and bias", outgoing: "outgoing: column" };
const POINTS = 201;

// What each neuron adds to the output, at every x: n lists of numbers.
const contributions = (net, xs, factors, phi, face) =>
  net.W1.map((w, j) => {
    const [b, v, s] = [net.b1[j], net.w2[j], factors[j]];
    return xs.map((x) => (face === "incoming" ? v * phi(s * (w * x + b)) : s * v * phi(w * x + b)));
  });
const total = (parts, b2) => parts[0].map((_, i) => parts.reduce((sum, part) => sum + part[i], 0) + b2);
const line = (xs, ys, px, py) => "M" + xs.map((x, i) => `${px(x).toFixed(1)} ${py(ys[i]).toFixed(1)}`).join("L");

function render({ model, el }) {
  const net = Object.fromEntries(["W1", "b1", "w2", "b2"].map((name) => [name, model.get(name)]));
  const target = model.get("target");
  const [low, high] = model.get("x_range");
  const n = net.W1.length;
  const xs = Array.from({ length: POINTS }, (_, i) => low + ((high - low) * i) / (POINTS - 1));
  const change = (name, value) => (model.set(name, value), model.save_changes());

  // Controls -------------------------------------------------------------------------------------------------------
  const activation = html(
    "select",
    { onchange: () => change("activation", activation.value) },
    ...Object.entries(ACTIVATIONS).map(([value, [name]]) => html("option", { value }, name)),
  );
  const faces = Object.entries(FACES).map(([value, name]) =>
    html("button", { type: "button", "data-face": value, onclick: () => change("face", value) }, name),
  );
  const reset = html("button", { type: "button", onclick: () => change("factors", Array(n).fill(1)) }, "All factors 1");

  const cards = net.W1.map((_, j) => {
    const value = html("output", {});
    const zero = svg("path", { d: "M0 20H100", stroke: "var(--sl-line)", "vector-effect": "non-scaling-stroke" });
    const curve = svg("path", { fill: "none", "stroke-width": 2, "vector-effect": "non-scaling-stroke" });
    const slider = html("input", {
      type: "range", min: 0, max: 2, step: 0.05, "aria-label": `Factor of neuron ${j + 1}`,
      oninput: () => change("factors", model.get("factors").map((s, k) => (k === j ? Number(slider.value) : s))),
    });
    const node = html(
      "label",
      { class: "sl-card" },
      html("header", {}, `Neuron ${j + 1}`, value),
      svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" }, zero, curve),
      slider,
    );
    value.setAttribute("aria-live", "off"); // the slider's own aria-valuetext already says it
    return { node, value, curve, slider };
  });

  // What is seen ---------------------------------------------------------------------------------------------------
  const plot = svg("svg", { role: "img" });
  const legend = html("div", { class: "sl-legend", "aria-hidden": "true" });
  const tiles = [tile("Neurons off"), tile("Parameters left"), tile("Largest gap between the faces")];
  const live = liveRegion();
  const root = html(
    "div",
    { class: "sl-widget", role: "group", "aria-label": "Explorer: scale the neurons of a small network" },
    html(
      "div",
      { class: "sl-row" },
      html("div", { class: "sl-field", role: "group", "aria-label": "Face that is scaled" },
        html("span", { class: "sl-name" }, "Scale each neuron's face"), html("div", { class: "sl-pair" }, ...faces)),
      html("label", { class: "sl-field" }, html("span", { class: "sl-name" }, "Activation"), activation),
      reset,
    ),
    plot,
    legend,
    html("dl", { class: "sl-tiles" }, ...tiles),
    html("div", { class: "sl-cards" }, ...cards.map((card) => card.node)),
    live,
  );
  el.append(root);

  // Drawing --------------------------------------------------------------------------------------------------------
  const key = (name, attributes) =>
    html("span", {}, svg("svg", { width: 26, height: 10 }, svg(attributes.r ? "circle" : "path",
      { d: "M0 5H26", cx: 13, cy: 5, fill: "none", ...attributes })), name);

  const drawPlot = (curves, width) => {
    const height = Math.round(Math.min(300, Math.max(200, width * 0.45)));
    const [left, right, top, bottom] = [40, 14, 8, 36];
    const everything = [...curves.flatMap((curve) => curve.ys), ...target.map((point) => point[1])];
    const [min, max] = [Math.min(...everything), Math.max(...everything)];
    const pad = (max - min || 1) * 0.06;
    const px = (x) => left + ((x - low) / (high - low)) * (width - left - right);
    const py = (y) => top + ((max + pad - y) / (max - min + 2 * pad || 1)) * (height - top - bottom);
    const xTicks = ticks(low, high, width < 480 ? 4 : 8);
    const yTicks = ticks(min - pad, max + pad, 5);
    const digits = (all) => (all.every((t) => Math.abs(t - Math.round(t)) < 1e-9) ? 0 : 1);
    set(plot, { viewBox: `0 0 ${width} ${height}`, width, height });
    plot.replaceChildren(
      ...yTicks.map((y) => svg("path", { d: `M${left} ${py(y)}H${width - right}`, stroke: "var(--sl-line)" })),
      ...yTicks.map((y) => svg("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, fixed(y, digits(yTicks)))),
      ...xTicks.map((x) =>
        svg("text", { x: px(x), y: height - bottom + 17, "text-anchor": "middle" }, fixed(x, digits(xTicks)))),
      svg("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "input x"),
      svg("text", { transform: `translate(10 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        "output"),
      ...target.map(([x, y]) => svg("circle", { cx: px(x), cy: py(y), r: 2.5, fill: "none", stroke: "var(--sl-quiet)" })),
      ...curves.map(({ ys, ...look }) => svg("path", { d: line(xs, ys, px, py), fill: "none", ...look })),
    );
  };

  const draw = () => {
    const factors = model.get("factors");
    const [face, kind] = [model.get("face"), model.get("activation")];
    const other = face === "incoming" ? "outgoing" : "incoming";
    const [phiName, phi] = ACTIVATIONS[kind];
    const parts = contributions(net, xs, factors, phi, face);
    const shown = total(parts, net.b2);
    const beside = total(contributions(net, xs, factors, phi, other), net.b2);
    const unscaled = total(contributions(net, xs, Array(n).fill(1), phi, face), net.b2);
    const gap = Math.max(...shown.map((y, i) => Math.abs(y - beside[i])));
    const off = factors.filter((s) => s === 0).length;
    const left = 3 * (n - off) + 1;
    const colour = { incoming: "var(--sl-blue)", outgoing: "var(--sl-orange)" };

    const looks = {
      unscaled: { stroke: "var(--sl-quiet)", "stroke-width": 1.25 },
      shown: { stroke: colour[face], "stroke-width": 4, "stroke-linejoin": "round" },
      beside: { stroke: colour[other], "stroke-width": 2, "stroke-dasharray": "7 7" },
      casing: { stroke: "var(--sl-paper)", "stroke-width": 4, "stroke-dasharray": "7 7" }, // or orange drowns in blue
    };
    drawPlot(
      [
        { ys: unscaled, ...looks.unscaled },
        { ys: shown, ...looks.shown },
        { ys: beside, ...looks.casing },
        { ys: beside, ...looks.beside },
      ],
      Math.round(root.clientWidth) || 640, // 0 while it stands in a closed tab; followWidth draws again when it opens
    );
    legend.replaceChildren(
      key(`${face} face scaled`, looks.shown),
      key(`${other} face scaled`, looks.beside),
      key("all factors 1", looks.unscaled),
      ...(target.length
        ? [key(`fitted to, with ${ACTIVATIONS[model.get("fitted_with")][0]}`, { r: 2.5, stroke: "var(--sl-quiet)" })]
        : []),
    );

    const reach = Math.max(...parts.flat().map(Math.abs)) || 1;
    cards.forEach(({ node, value, curve, slider }, j) => {
      const s = factors[j];
      node.classList.toggle("sl-off", s === 0);
      slider.value = s;
      value.textContent = s === 0 ? "off" : `s = ${fixed(s, 2)}`;
      slider.setAttribute("aria-valuetext", s === 0 ? "0, neuron off" : fixed(s, 2));
      set(curve, {
        d: line(xs, parts[j], (x) => ((x - low) / (high - low)) * 100, (y) => 20 - (y / reach) * 18),
        stroke: s === 0 ? "var(--sl-line)" : colour[face],
      });
    });
    activation.value = kind;
    faces.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.face === face)));

    // Rounding alone leaves about 1e-15: shown as what it means, kept as it is in data-gap.
    const same = gap < 1e-9;
    tiles[0].show(`${off} of ${n}`);
    tiles[1].show(`${left} of ${3 * n + 1}`);
    tiles[2].show(same ? "0" : gap < 0.001 ? "below 0.001" : fixed(gap, 3));
    const text =
      `${off} of ${n} neurons off, ${left} of ${3 * n + 1} parameters left. ` +
      (same ? "Both faces give the same curve." : `The two faces differ by up to ${fixed(gap, 3)}.`);
    live.textContent = text;
    plot.setAttribute(
      "aria-label",
      `Curve of a network with ${n} ${phiName} neurons, ${face} face scaled, from ${fixed(Math.min(...shown), 2)} to ` +
        `${fixed(Math.max(...shown), 2)}. Factors ${factors.map((s) => fixed(s, 2)).join(", ")}. ${text}`,
    );
    Object.assign(root.dataset, { curve: JSON.stringify(shown), beside: JSON.stringify(beside), gap, off, left });
  };

  const undo = [
    keepKeys(root),
    follow(model, ["factors", "activation", "face"], draw),
    followWidth(root, draw),
  ];
  draw();
  return () => undo.forEach((step) => step());
}

export default { render };
