// DigitNeurons: a small digit classifier computed in the page, its hidden neurons switched on and off by the reader.

const SIDE = 28;
const linear = ({ shape: [rows, columns], weight, bias }, h) =>
  Float64Array.from({ length: rows }, (_, r) => {
    let z = 0;
    for (let c = 0; c < columns; c++) z += weight[r * columns + c] * h[c];
    return z + bias[r];
  });

// A picture in currentColor, so that it is ink on paper in light mode and chalk on slate in dark mode.
const picture = (pixels, attributes, ...under) =>
  svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "shape-rendering": "crispEdges", fill: "currentColor", ...attributes },
    ...under,
    ...[...pixels].flatMap((v, i) =>
      v ? [svg("rect", { x: i % SIDE, y: Math.floor(i / SIDE), width: 1, height: 1,
                         "fill-opacity": (v / 255).toFixed(2) })] : []));

function render({ model, el }) {
  const layers = model.get("layers").map(unpacked);
  const hidden = layers.slice(0, -1).map((layer) => layer.shape[0]);
  const starts = hidden.map((_, i) => hidden.slice(0, i).reduce((a, b) => a + b, 0));
  const neurons = hidden.reduce((a, b) => a + b, 0);
  const classes = layers.at(-1).shape[0];
  const index = model.get("index");
  const labels = model.get("labels");
  const all = bytesOf(model.get("images"));
  const images = labels.map((_, i) => all.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE));
  const inputs = images.map((image) => index.map((p) => (image[p] / 255 - model.get("mean")) / model.get("std")));
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  const forward = (input, off) => {
    const activations = [];
    let h = input;
    layers.slice(0, -1).forEach((layer, i) => {
      h = linear(layer, h).map((z, j) => (z > 0 && !off.has(starts[i] + j) ? z : 0));
      activations.push(h);
    });
    return { activations, p: softmaxOf(linear(layers.at(-1), h)) };
  };
  const parametersLeft = (off) => {
    const alive = hidden.map((n, i) => n - [...off].filter((j) => j >= starts[i] && j < starts[i] + n).length);
    const widths = [index.length, ...alive, classes];
    return widths.slice(1).reduce((sum, n, i) => sum + n * (widths[i] + 1), 0);
  };
  const smallest = (share) =>
    model.get("order").flatMap((order, i) =>
      order.slice(0, Math.floor((share * hidden[i]) / 100 + 0.5)).map((j) => starts[i] + j)).sort((a, b) => a - b);

  // Controls -------------------------------------------------------------------------------------------------------
  const picks = images.map((image, i) =>
    html("button", { type: "button", "aria-label": `Image ${i + 1} of ${images.length}: a ${labels[i]}`,
                     onclick: () => change({ image: i }) }, picture(image, { "aria-hidden": "true" })));

  const share = html("input", {
    type: "range", min: 0, max: 100, step: 5, "aria-label": "Share of each layer's neurons switched off, smallest first",
    oninput: () => change({ share: Number(share.value), off: smallest(Number(share.value)) }),
  });
  const shareText = html("output", { "aria-live": "off" });
  const reset = html("button", { type: "button", onclick: () => change({ share: 0, off: [] }) }, "All on");

  // A hundred neurons are one stop of the tab key, not a hundred: arrows move within a layer.
  const toggle = (j) => {
    const off = new Set(model.get("off"));
    off.has(j) ? off.delete(j) : off.add(j);
    change({ off: [...off].sort((a, b) => a - b) });
  };
  const groups = hidden.map((n, i) => {
    const buttons = Array.from({ length: n }, (_, j) =>
      html("button", { type: "button", tabindex: j ? -1 : 0, "data-neuron": starts[i] + j,
                       onclick: () => toggle(starts[i] + j) }));
    const move = (event) => {
      const at = buttons.indexOf(event.target);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: n - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault(); // or the page scrolls
      buttons[(to + n) % n].focus();
    };
    const rove = (event) => buttons.forEach((b) => (b.tabIndex = b === event.target ? 0 : -1));
    const count = html("div", { class: "sl-name" });
    const node = html("div", {}, count,
      html("div", { class: "sl-neurons", role: "group", onkeydown: move, onfocusin: rove,
                    "aria-label": `Neurons of hidden layer ${i + 1}; arrow keys move, space switches` }, ...buttons));
    return { node, buttons, count };
  });

  // What is seen ---------------------------------------------------------------------------------------------------
  const read = new Set(index);
  const unread = [...Array(SIDE * SIDE).keys()].filter((p) => !read.has(p));
  const shade = () =>
    svg("path", { d: unread.map((p) => `M${p % SIDE} ${Math.floor(p / SIDE)}h1v1h-1z`).join(""),
                  fill: "var(--sl-orange)", "fill-opacity": 0.28 });
  const digit = html("div");
  const bars = Array.from({ length: classes }, (_, k) => {
    const [bar, text] = [html("i"), html("b")];
    return { bar, text, node: html("div", { class: "sl-bar" }, html("span", {}, String(k)), html("span", {}, bar), text) };
  });
  const chart = html("div", { class: "sl-bars", role: "img" }, ...bars.map((b) => b.node));
  const verdict = html("p");
  const tiles = [tile("Neurons off"), tile("Parameters left"), tile("Right on these images")];
  const live = liveRegion();
  const root = html(
    "div",
    { class: "sl-widget", role: "group", "aria-label": "Explorer: switch off the neurons of a digit classifier" },
    html("div", { role: "group", "aria-label": "Image" },
      html("span", { class: "sl-name" }, "Pick an image"), html("div", { class: "sl-picks" }, ...picks)),
    html("div", { class: "sl-panels" },
      html("div", { class: "sl-panel" }, html("div", { class: "sl-name" }, "What the network reads"), digit,
        html("p", {}, unread.length ? `Shaded: ${unread.length} of ${SIDE * SIDE} pixels it does not read` : "It reads every pixel")),
      html("div", { class: "sl-panel sl-wide" }, ...groups.map((g) => g.node)),
      html("div", { class: "sl-panel" }, html("div", { class: "sl-name" }, "Probability of each digit"), chart, verdict)),
    html("div", { class: "sl-row" },
      html("label", { class: "sl-field sl-grow" },
        html("span", { class: "sl-name" }, "Switch off the smallest neurons of each layer: ", shareText), share),
      reset),
    html("dl", { class: "sl-tiles" }, ...tiles),
    live,
  );
  el.append(root);

  // Drawing --------------------------------------------------------------------------------------------------------
  const full = parametersLeft(new Set());
  const draw = () => {
    const at = model.get("image");
    const off = new Set(model.get("off"));
    const { activations, p } = forward(inputs[at], off);
    const best = p.indexOf(Math.max(...p));
    const correct = best === labels[at];
    const left = parametersLeft(off);
    const right = inputs.filter((input, i) => {
      const q = i === at ? p : forward(input, off).p;
      return q.indexOf(Math.max(...q)) === labels[i];
    }).length;
    const percent = (v) => (v > 0 && v < 0.005 ? "<1 %" : v < 1 && v >= 0.995 ? ">99 %" : `${Math.round(100 * v)} %`);

    picks.forEach((button, i) => button.setAttribute("aria-pressed", String(i === at)));
    digit.replaceChildren(picture(images[at], { class: "sl-digit", role: "img",
      "aria-label": `Image ${at + 1}: a ${labels[at]}. The network reads ${index.length} of ${SIDE * SIDE} pixels.` }, shade()));
    groups.forEach(({ buttons, count }, i) => {
      const top = Math.max(...activations[i]) || 1;
      const on = buttons.filter((_, j) => !off.has(starts[i] + j)).length;
      count.textContent = `Hidden layer ${i + 1}: ${on} of ${hidden[i]} on (click to switch)`;
      buttons.forEach((button, j) => {
        const isOn = !off.has(starts[i] + j);
        const a = activations[i][j];
        button.setAttribute("aria-pressed", String(isOn));
        button.style.setProperty("--level", `${((100 * a) / top).toFixed(1)}%`);
        const text = `Layer ${i + 1}, neuron ${j + 1}: ${isOn ? `activation ${fixed(a, 2)}` : "off"}`;
        button.setAttribute("aria-label", text);
        button.title = text;
      });
    });
    bars.forEach(({ bar, text, node }, k) => {
      bar.style.width = `${(100 * p[k]).toFixed(2)}%`;
      text.textContent = percent(p[k]);
      node.classList.toggle("sl-top", k === best);
      node.classList.toggle("sl-wrong", k === best && !correct);
    });
    chart.setAttribute("aria-label", "Probabilities: " + p.map((v, k) => [v, k]).sort((a, b) => b[0] - a[0]).slice(0, 3)
      .map(([v, k]) => `${k}: ${percent(v)}`).join(", ") + ", the rest less.");
    verdict.textContent = correct ? `\u2713 It says ${best}: right.` : `\u2717 It says ${best}, and it is a ${labels[at]}.`;

    const value = model.get("share");
    share.value = value;
    // After a click on a neuron the slider still stands where it was: say so instead of claiming its share.
    const byHand = JSON.stringify(smallest(value)) !== JSON.stringify([...off].sort((a, b) => a - b));
    shareText.textContent = `${value} %${byHand ? ", then changed by hand" : ""}`;
    share.setAttribute("aria-valuetext", shareText.textContent);
    tiles[0].show(`${off.size} of ${neurons}`);
    tiles[1].show(`${grouped(left)} of ${grouped(full)}`);
    tiles[2].show(`${right} of ${images.length}`);
    live.textContent = `${verdict.textContent.slice(2)} Probability ${percent(p[best])}. ${off.size} of ${neurons} neurons ` +
      `off, ${grouped(left)} of ${grouped(full)} parameters left, right on ${right} of ${images.length} images.`;
    Object.assign(root.dataset, { probabilities: JSON.stringify(p), left, off: off.size, right,
                                  activations: JSON.stringify(activations.map((a) => [...a])) });
  };

  // One change of the slider sets two names: draw once, after both.
  let waiting = false;
  let alive = true;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; if (alive) draw(); });
  };
  const undo = [keepKeys(root), follow(model, ["image", "share", "off"], soon), () => (alive = false)];
  draw();
  return () => undo.forEach((step) => step());
}

export default { render };
