// What the explorers share. One file with each explorer's own: no imports, so it runs from file:// as it stands.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === false || value == null) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
};
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const set = (node, attributes) => fill(node, attributes, []);

// Numbers for people: a true minus sign, and no "-0.00".
const fixed = (value, digits) => {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "\u2212" : "") + text;
};
const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");

// A text that assistive technology reads out when it changes, beside what the eye sees.
const liveRegion = () => html("p", { class: "sl-unseen", role: "status", "aria-live": "polite" });

// One number with its name; `tile.show(text)` changes the number.
const tile = (name) => {
  const value = html("dd");
  const node = html("div", { class: "sl-tile" }, html("dt", {}, name), value);
  node.show = (text) => (value.textContent = text);
  return node;
};

// JupyterLab moves cells and the book turns pages on arrow keys: what is typed in an explorer stays in it.
const keepKeys = (el) => {
  const stop = (event) => event.stopPropagation();
  el.addEventListener("keydown", stop);
  return () => el.removeEventListener("keydown", stop);
};

// Calls draw() when one of the model's names changes; returns what undoes that.
const follow = (model, names, draw) => {
  for (const name of names) model.on(`change:${name}`, draw);
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
};

// Calls draw(width) when the element's width changes. In the next frame: drawing changes the height, and a size
// that changes while sizes are being reported is an error in the console.
const followWidth = (el, draw) => {
  let width = 0;
  const observer = new ResizeObserver(() => {
    const now = Math.round(el.clientWidth);
    if (!now || now === width) return;
    width = now;
    requestAnimationFrame(() => draw(width));
  });
  observer.observe(el);
  return () => observer.disconnect();
};

// At most about `count` round numbers between low and high.
const ticks = (low, high, count) => {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
};
