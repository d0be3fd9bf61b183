// PixelMask: the pixels a switcher keeps, over the price and over training; a replay of recorded masks.

const WIDE = 28;
const fromText = (text) => Uint8Array.from(atob(text), (ch) => ch.charCodeAt(0));
// Four bits a pixel: 0 is exactly off, 1 to 15 are fifteenths of the factor, rounded up.
const levelsOf = (text) => [...fromText(text)].flatMap((b) => [b >> 4, b & 15]);
const inCentre = (p) => p % WIDE >= 4 && p % WIDE < 24 && p >= 4 * WIDE && p < 24 * WIDE;

// The pixels of one shade in one path, so that a picture is at most sixteen nodes.
const shades = (levels, colour, most) => {
  const paths = {};
  levels.forEach((v, p) => { if (v) paths[v] = (paths[v] ?? "") + `M${p % WIDE} ${Math.floor(p / WIDE)}h1v1h-1z`; });
  return Object.entries(paths).map(([v, d]) => svg("path", { d, fill: colour, "fill-opacity": (0.25 + (0.75 * v) / most).toFixed(2) }));
};
const imageOf = (children, attributes) => svg("svg", { viewBox: `0 0 ${WIDE} ${WIDE}`, class: "sl-digit", "shape-rendering": "crispEdges", role: "img", ...attributes }, ...children);

function render({ model, el }) {
  const runs = model.get("runs").map((run) => ({ ...run, looks: run.looks.map((l) => ({ ...l, levels: levelsOf(l.pixels) })) }));
  const mean = [...fromText(model.get("mean"))];
  const empty = mean.map((v, p) => (v === 0 ? p : -1)).filter((p) => p >= 0);
  const c = controlsOf(model);
  const [left, right] = [html("div"), html("div")];
  const plot = svg("svg", { role: "img" });
  const legend = html("div", { class: "sl-legend", "aria-hidden": "true" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Pixels on"), tile("Neurons on, both layers"), tile("Parameters left")];
  let timer = 0;

  const draw = (width) => {
    const [r, t] = [model.get("price"), model.get("look")];
    const { weight, looks } = runs[r];
    const now = looks[t];
    const before = looks[Math.max(0, t - 1)];
    const on = now.levels.filter((v) => v > 0).length;
    const centre = now.levels.filter((v, p) => v > 0 && inCentre(p)).length;
    const back = now.levels.filter((v, p) => v > 0 && before.levels[p] === 0).length;
    const gone = now.levels.filter((v, p) => v === 0 && before.levels[p] > 0).length;
    const dark = empty.filter((p) => now.levels[p] > 0).length;
    const frame = svg("rect", { x: 4, y: 4, width: 20, height: 20, fill: "none", stroke: "var(--sl-orange)", "stroke-width": 0.25 });
    const percent = on ? (100 * centre) / on : 0;
    left.replaceChildren(imageOf([...shades(now.levels, "var(--sl-blue)", 15), frame],
      { "aria-label": `Price ${weight}, step ${now.step}: ${on} of 784 pixels are on, ${Math.round(percent)} % of them in the central 20 by 20; since the look before, ${gone} went off and ${back} came back.` }));
    right.replaceChildren(imageOf([...shades(mean, "currentColor", 255), frame.cloneNode()], { "aria-label": `The mean training image of ${model.get("data")}: bright in the middle, ${empty.length} pixels are the same in nearly every image.` }));

    const steps = looks.at(-1).step;
    const f = axes(plot, Math.min(width, width > 544 ? width - 440 : width), 230, { low: 0, high: steps, name: "task step" }, { low: 0, high: 800, name: "pixels on" }, [50, 12, 10, 38]);
    f.inside(...runs.map((run, i) => svg("path", { d: through(run.looks.map((l) => [l.step, l.on.input]), f.px, f.py), fill: "none", stroke: i === r ? "var(--sl-blue)" : "var(--sl-quiet)", "stroke-width": i === r ? 3 : 1, "stroke-opacity": i === r ? 1 : 0.6 })),
      svg("path", { d: `M${f.px(now.step)} ${f.top}V${f.bottom}`, stroke: "var(--sl-orange)" }), svg("circle", { cx: f.px(now.step), cy: f.py(on), r: 5, fill: "var(--sl-blue)" }));
    plot.setAttribute("aria-label", `Pixels on over the steps, price ${weight}: ${looks.map((l) => `${l.on.input} at ${l.step}`).join(", ")}.`);
    legend.replaceChildren(...legendOf([[`price up to ${weight}`, { stroke: "var(--sl-blue)", "stroke-width": 3 }], ["the other prices", { stroke: "var(--sl-quiet)" }]]));

    const text = `\u03bb is ${fixed(now.weight, 2)} at step ${now.step}: ${on} pixels on, ${Math.round(percent)} % of them inside the frame, where 51 % of all pixels lie; ${dark} of the ${empty.length} that are empty in the mean image are still read. ` +
      (t ? `Since the look before, ${gone} went off and ${back} came back. ` : "") + `Validation accuracy ${fixed(now.accuracy, 1)} %.`;
    verdict.textContent = text;
    tiles[0].show(`${on} of 784`);
    tiles[1].show(`${now.on.fc1} of 300, ${now.on.fc2} of 100`);
    tiles[2].show(`${grouped(now.parameters)} of 266,610`);
    return { text, shown: { on, percent, back, gone, dark, step: now.step, weight: now.weight, accuracy: now.accuracy, parameters: now.parameters, levels: now.levels.reduce((a, b) => a + b, 0) } };
  };

  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const play = c.button("Play", () => {
    if (timer) return stop();
    const last = runs[model.get("price")].looks.length - 1;
    if (model.get("look") === last) c.change({ look: 0 });
    play.textContent = "Stop";
    timer = setInterval(() => (model.get("look") >= last ? stop() : c.change({ look: model.get("look") + 1 })), 600);
  });
  const undo = board(model, el, c, { label: "Explorer: the pixels that a switcher keeps", traits: ["price", "look"], draw },
    html("div", { class: "sl-row" },
      c.slider("price", undefined, "Price: \u03bb grows to", { min: 0, max: runs.length - 1, step: 1 }, (i) => String(runs[i].weight)),
      c.slider("look", undefined, "Training", { min: 0, max: runs[0].looks.length - 1, step: 1 }, (i) => `step ${runs[model.get("price")].looks[i].step}`), play),
    html("div", { class: "sl-masks" },
      html("div", {}, html("div", { class: "sl-name" }, "Pixels that are on"), left),
      html("div", {}, html("div", { class: "sl-name" }, `Mean image of ${model.get("data")}`), right),
      html("div", { class: "sl-wide" }, plot, legend)),
    verdict, html("dl", { class: "sl-tiles" }, ...tiles));
  return () => (stop(), undo());
}

export default { render };
