// Beside base.js, for explorers with named controls and charts: controls that set one trait each, axes, and the frame
// that draws again when a trait or the width changes.

// A control says which trait it sets, and which place of a list, in data-trait and data-index; show() takes the value
// from the model, so that a change from the kernel moves the control as well.
const controlsOf = (model) => {
  const all = [];
  const at = (trait, index) => (index === undefined ? model.get(trait) : model.get(trait)[index]);
  const change = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const put = (trait, index, value) =>
    change({ [trait]: index === undefined ? value : model.get(trait).map((old, i) => (i === index ? value : old)) });
  const keep = (node, show) => (all.push(show), node);
  const named = (name, ...children) => html("label", { class: "sl-field" }, html("span", { class: "sl-name" }, ...name), ...children);

  return {
    change,
    show: () => all.forEach((show) => show()),
    // One of several: options is a list of [value, text].
    choice(trait, name, options) {
      const select = html("select", { "data-trait": trait, onchange: () => put(trait, undefined, options[select.selectedIndex][0]) },
        ...options.map(([value, text]) => html("option", { value: JSON.stringify(value) }, text)));
      return keep(named([name], select), () =>
        (select.selectedIndex = options.findIndex(([value]) => JSON.stringify(value) === JSON.stringify(model.get(trait)))));
    },
    // A number; say(value) is the text beside it and what is read out.
    slider(trait, index, name, { min, max, step }, say, more = {}) {
      const text = html("output", { "aria-live": "off" }); // the input's own aria-valuetext says it
      const input = html("input", {
        type: "range", min, max, step, "data-trait": trait, "data-index": index, "aria-label": name,
        oninput: () => (put(trait, index, Number(input.value)), more.after?.()),
      });
      const node = html("label", { class: `sl-field sl-grow ${more.class ?? ""}` },
        html("span", { class: "sl-name sl-said" }, name, text), input);
      return keep(node, () => {
        if (more.max) input.max = more.max();
        input.value = at(trait, index);
        text.textContent = say(at(trait, index));
        input.setAttribute("aria-valuetext", text.textContent);
      });
    },
    // Yes or no; blocked() says when it can't be changed.
    check(trait, index, name, { mark, blocked, label } = {}) {
      const box = html("input", { type: "checkbox", "data-trait": trait, "data-index": index, "aria-label": label,
        onchange: () => put(trait, index, box.checked) });
      const node = html("label", { class: "sl-check" }, box, ...(mark ? [mark] : []), name);
      return keep(node, () => {
        box.checked = at(trait, index);
        box.disabled = blocked?.() ?? false;
      });
    },
    button: (text, act) => html("button", { type: "button", onclick: act }, text),
  };
};

// The frame: draw(width) returns the sentence that is read out and the numbers that are shown. They stand in data-shown,
// beside the traits in data-state, so that a test can hold them against Python's.
const board = (model, el, controls, { label, traits, draw }, ...children) => {
  const live = liveRegion();
  const root = html("div", { class: "sl-widget", role: "group", "aria-label": label }, ...children, live);
  el.append(root);
  let waiting = false;
  let alive = true;
  const now = () => {
    if (!alive) return;
    controls.show();
    const { text, shown } = draw(Math.round(root.clientWidth) || 640); // 0 in a closed tab; followWidth draws again
    live.textContent = text;
    root.dataset.shown = JSON.stringify(shown);
    root.dataset.state = JSON.stringify(Object.fromEntries(traits.map((name) => [name, model.get(name)])));
  };
  const soon = () => {
    if (waiting) return; // several traits may change at once: one drawing
    waiting = true;
    queueMicrotask(() => { waiting = false; now(); });
  };
  const undo = [keepKeys(root), follow(model, traits, soon), followWidth(root, now), () => (alive = false)];
  now();
  return () => undo.forEach((step) => step());
};

// Round numbers on a logarithmic axis: 1, 2, 5, 10, 20, ... or only the powers of ten where there are many.
const logTicks = (low, high) => {
  const found = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++)
    for (const m of [1, 2, 5]) if (m * 10 ** k >= low * 0.999 && m * 10 ** k <= high * 1.001) found.push(m * 10 ** k);
  return found.length > 9 ? found.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9) : found;
};

// Draws axes into an svg and returns px, py (where a number lies), add (draws on top) and inside (the same, cut off at the frame). x and y are
// { low, high, name, log, text }, text(tick) being the tick's label.
const axes = (plot, width, height, x, y, [left, right, top, bottom] = [46, 14, 10, 38]) => {
  const scale = ({ low, high, log }, from, to) => {
    const f = log ? Math.log10 : (v) => v;
    return (v) => from + ((f(v) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
  };
  const marks = ({ low, high, log, at }, room, each) => at ?? (log ? logTicks(low, high) : ticks(low, high, Math.max(2, Math.floor(room / each))));
  const label = (axis, all) => {
    const digits = Math.min(3, Math.max(...all.map((t) => [0, 1, 2, 3].find((d) => Math.abs(t - Number(t.toFixed(d))) < 1e-9) ?? 3)));
    return axis.text ?? (axis.log ? (t) => String(Number(t.toPrecision(2))) : (t) => fixed(t, digits));
  };
  const [px, py] = [scale(x, left, width - right), scale(y, height - bottom, top)];
  const [xs, ys] = [marks(x, width - left - right, 64), marks(y, height - top - bottom, 40)];
  const [xText, yText] = [label(x, xs), label(y, ys)];
  set(plot, { viewBox: `0 0 ${width} ${height}`, width, height });
  plot.replaceChildren(
    ...ys.map((t) => svg("path", { d: `M${left} ${py(t)}H${width - right}`, stroke: "var(--sl-line)" })),
    svg("path", { d: `M${left} ${height - bottom}H${width - right}`, stroke: "var(--sl-quiet)" }),
    ...ys.map((t) => svg("text", { x: left - 6, y: py(t) + 4, "text-anchor": "end" }, yText(t))),
    ...xs.map((t) => svg("text", { x: px(t), y: height - bottom + 16, "text-anchor": "middle" }, xText(t))),
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, x.name ?? ""),
    svg("text", { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.name ?? ""),
  );
  const [inner, tall] = [width - left - right, height - top - bottom];
  return {
    px, py, left, top, right: width - right, bottom: height - bottom,
    add: (...nodes) => plot.append(...nodes),
    // what may leave the frame is cut off at it
    inside: (...nodes) => plot.append(svg("svg", { x: left, y: top, width: inner, height: tall, viewBox: `${left} ${top} ${inner} ${tall}` }, ...nodes)),
  };
};

// A line through points, as the d of a path; a point that is null breaks it.
const through = (points, px, py) => {
  let pen = "M";
  return points.map(([x, y]) => {
    if (y == null) return (pen = "M"), "";
    const step = `${pen}${px(x).toFixed(1)} ${py(y).toFixed(1)}`;
    pen = "L";
    return step;
  }).join("");
};

// A legend: entries are [text, attributes of the mark]; a mark with r is a dot, else a line.
const legendOf = (entries) => entries.map(([name, look]) =>
  html("span", {}, svg("svg", { width: 26, height: 12 }, svg(look.r ? "circle" : "path",
    { d: "M0 6H26", cx: 13, cy: 6, fill: "none", ...look })), name));

// Marks that can be told apart without colour.
const SHAPES = ["circle", "square", "triangle", "diamond", "plus", "cross", "down", "bar", "star", "ring"];
const markAt = (shape, x, y, r, look) => {
  const path = {
    square: `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`, triangle: `M0 ${-1.2 * r}L${1.15 * r} ${r}H${-1.15 * r}z`,
    down: `M0 ${1.2 * r}L${1.15 * r} ${-r}H${-1.15 * r}z`, diamond: `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
    plus: `M${-r} 0H${r}M0 ${-r}V${r}`, cross: `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}`, bar: `M${-1.3 * r} 0H${1.3 * r}`,
    star: `M${-r} 0H${r}M${-r / 2} ${-r}L${r / 2} ${r}M${r / 2} ${-r}L${-r / 2} ${r}`,
  }[shape];
  return path ? svg("path", { d: path, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "stroke-width": 2, ...look })
    : svg("circle", { cx: x, cy: y, r, "stroke-width": 2, ...look, ...(shape === "ring" ? { fill: "none" } : {}) });
};
// A method's colour is the same in every chapter; mixed with the ink it can be seen on light and on dark ground.
const inked = (colour) => `color-mix(in srgb, ${colour} 72%, currentColor)`;

const meanStd = (values) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return [mean, values.length > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (values.length - 1)) : 0];
};

// A table that scrolls inside the page where it is too wide for it; the first cell of a row is its heading.
const tableOf = (head, rows, caption) =>
  html("div", { class: "sl-scroll", tabindex: 0, role: "region", "aria-label": caption },
    html("table", { class: "sl-table" }, html("caption", {}, caption),
      html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows.map(([first, ...rest]) => html("tr", {}, html("th", { scope: "row" }, first), ...rest.map((text) => html("td", {}, text)))))));
