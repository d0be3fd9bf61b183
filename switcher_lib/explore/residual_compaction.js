// ResidualCompaction: fold, absorb, cut and certify a residual block of 63 parameters, in the page.
//   h = relu(stem x),  z = relu(gamma (inner h) + beta),  y = head relu(h + block z)

const relu = (v) => Math.max(v, 0);
const affine = ({ W, b }, x) => W.map((row, k) => row.reduce((sum, w, i) => sum + w * x[i], 0) + b[k]);
const runBlock = (net, x) => {
  const h = affine(net.stem, x).map(relu);
  const z = affine(net.inner, h).map((v, j) => relu(net.gamma[j] * v + net.beta[j]));
  const inside = affine(net.block, z);
  return affine(net.head, h.map((v, i) => relu(v + inside[i])));
};
const copyOf = (net) => JSON.parse(JSON.stringify(net));
const offRows = ({ W, b }, on) => ({ W: W.map((row, k) => row.map((w) => (on[k] ? w : 0))), b: b.map((v, k) => (on[k] ? v : 0)) });

// 1. Store the parameters times the factors, here 1 and 0.
const folded = (net, on, how) => ({
  ...copyOf(net), stem: offRows(net.stem, on.stem), block: offRows(net.block, on.block),
  gamma: net.gamma.map((g, j) => (on.inner[j] ? g : 0)),
  beta: net.beta.map((v, j) => (on.inner[j] || how === "gamma" || how === "forgotten" ? v : 0)),
});
// 2. A neuron with gamma = 0 sends relu(beta) for every input: what reads it takes that into its bias.
const absorbed = (net, on, how) => {
  const next = copyOf(net);
  on.inner.forEach((is, j) => {
    if (is || net.beta[j] === 0) return;
    next.block.W.forEach((row, k) => {
      if (how !== "forgotten") next.block.b[k] += row[j] * relu(net.beta[j]);
      row[j] = 0;
    });
    next.beta[j] = 0;
  });
  return next;
};
// 3. Leave out rows and columns. A channel of the stream has two writers, the stem and the block.
const staying = (on, how) => ({
  inner: on.inner.flatMap((is, j) => (is ? [j] : [])),
  stream: on.stem.flatMap((is, i) => ((how === "one side" ? is && on.block[i] : is || on.block[i]) ? [i] : [])),
});
const cut = (net, { inner, stream }) => {
  const take = ({ W, b }, rows, columns) => ({ W: rows.map((k) => columns.map((i) => W[k][i])), b: rows.map((k) => b[k]) });
  const all = (list) => list.map((_, i) => i);
  return {
    stem: take(net.stem, stream, all(net.stem.W[0])), inner: take(net.inner, inner, stream), block: take(net.block, stream, inner),
    head: take(net.head, all(net.head.b), stream), gamma: inner.map((j) => net.gamma[j]), beta: inner.map((j) => net.beta[j]),
  };
};
const stages = (net, on, how) => {
  const one = folded(net, on, how);
  const two = absorbed(one, on, how);
  return [net, one, two, cut(two, staying(on, how))];
};
// 4. max|y - y'| / max|y|, the folded network against the one at hand.
const certificate = (one, other, inputs) => {
  const pairs = inputs.map((x) => [runBlock(one, x), runBlock(other, x)]);
  const most = Math.max(...pairs.flatMap(([y]) => y.map(Math.abs)));
  return Math.max(...pairs.flatMap(([y, z]) => y.map((v, k) => Math.abs(v - z[k])))) / most;
};
const countOf = (net) => ["stem", "inner", "block", "head"].reduce((sum, name) => sum + net[name].W.flat().length + net[name].b.length, 0) + net.gamma.length + net.beta.length;

const TOLERANCE = 1e-12;
const HOW = [["together", "\u03b3 and \u03b2 scaled together"], ["gamma", "\u03b3 alone, \u03b2 absorbed"],
  ["forgotten", "\u03b3 alone, \u03b2 forgotten (wrong)"], ["one side", "a channel cut when one writer is off (wrong)"]];
const STEPS = ["0 as trained", "1 fold", "2 absorb constants", "3 cut"];

// A small matrix with its numbers in it; marks says how a cell looks.
const grid = (columns, names, rows, values, look) => {
  const [cell, left, top] = [40, 28, 18];
  const node = svg("svg", { viewBox: `0 0 ${left + Math.max(1, columns.length) * cell} ${top + rows.length * 26 + 2}`, width: left + Math.max(1, columns.length) * cell, height: top + rows.length * 26 + 2, "aria-hidden": "true" });
  node.append(
    ...names.map((name, i) => svg("text", { x: left + (i + 0.5) * cell, y: 12, "text-anchor": "middle" }, name)),
    ...rows.map((name, k) => svg("text", { x: left - 5, y: top + k * 26 + 17, "text-anchor": "end" }, name)),
    ...values.flatMap((row, k) => row.flatMap((v, i) => {
      const { fill = "none", ink = "currentColor", edge = "var(--sl-line)" } = look(k, i, v);
      return [
        svg("rect", { x: left + i * cell + 1, y: top + k * 26 + 1, width: cell - 2, height: 24, rx: 3, fill, stroke: edge, "stroke-width": edge === "var(--sl-line)" ? 1 : 2 }),
        svg("text", { x: left + (i + 0.5) * cell, y: top + k * 26 + 17, "text-anchor": "middle", style: `fill:${v === 0 ? "var(--sl-quiet)" : ink}` }, v === 0 ? "0" : fixed(v, Math.abs(v * 10 - Math.round(v * 10)) < 1e-9 ? 1 : 2)),
      ];
    })),
  );
  return node;
};

function render({ model, el }) {
  const net = model.get("network");
  const inputs = model.get("inputs");
  const c = controlsOf(model);
  const names = ["inner", "stem", "block", "how", "step"];
  const pictures = html("div", { class: "sl-flow", role: "img" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Parameters"), tile("Relative error, float64"), tile("Certificate (at most 1e\u221212)")];
  const onOf = () => ({ inner: model.get("inner"), stem: model.get("stem"), block: model.get("block") });
  const label = { inner: "n", stem: "c", block: "c" };
  const group = (trait, title) =>
    html("fieldset", { class: "sl-checks" }, html("legend", { class: "sl-name" }, title),
      ...model.get(trait).map((_, i) => c.check(trait, i, `${label[trait]}${i + 1}`,
        { label: `${title}: ${label[trait]}${i + 1} on`, blocked: () => model.get(trait).every((is, k) => is === (k === i)) })));

  const draw = () => {
    const [on, how, step] = [onOf(), model.get("how"), model.get("step")];
    const all = stages(net, on, how);
    const [dense, one] = all;
    const now = all[step];
    const stay = step === 3 ? staying(on, how) : { inner: on.inner.map((_, j) => j), stream: on.stem.map((_, i) => i) };
    const goes = staying(on, how);
    const error = step === 0 ? 0 : certificate(one, now, inputs);
    const holds = error <= TOLERANCE;
    const c_ = stay.stream.map((i) => `c${i + 1}`);
    const n_ = stay.inner.map((j) => `n${j + 1}`);
    const leaving = (list, all_) => (i) => step < 3 && !list.includes(all_[i]);
    const [streamGoes, innerGoes] = [leaving(goes.stream, stay.stream), leaving(goes.inner, stay.inner)];
    const tint = (rowGoes, columnGoes, before, shift) => (k, i, v) => ({
      fill: rowGoes(k) || columnGoes(i) ? "color-mix(in srgb, var(--sl-orange) 22%, transparent)" : "none",
      edge: step === 2 && before && Math.abs(before[k][i] - v) > TOLERANCE ? "var(--sl-green)" : "var(--sl-line)",
    });
    const never = () => false;
    const join = ({ W, b }) => W.map((row, k) => [...row, b[k]]);
    const panel = (title, node) => html("div", {}, html("div", { class: "sl-name" }, title), node);
    pictures.replaceChildren(
      panel("stem: writes the stream", grid([1, 2, 3, 4], ["x1", "x2", "x3", "bias"], c_, join(now.stem), tint(streamGoes, never))),
      panel("inner: reads the stream", grid([...c_, "b"], [...c_, "bias"], n_, join(now.inner), tint(innerGoes, (i) => i < c_.length && streamGoes(i)))),
      panel("BatchNorm", grid([1, 2], ["\u03b3", "\u03b2"], n_, now.gamma.map((g, j) => [g, now.beta[j]]), tint(innerGoes, never))),
      panel("block: adds to the stream", grid([...n_, "b"], [...n_, "bias"], c_, join(now.block),
        tint(streamGoes, (i) => i < n_.length && innerGoes(i), step === 2 ? join(one.block) : null))),
      panel("head: reads the sum", grid([...c_, "b"], [...c_, "bias"], ["y1", "y2"], join(now.head), tint(never, (i) => i < c_.length && streamGoes(i)))),
    );
    const [before, after] = [countOf(dense), countOf(now)];
    const shown_ = error === 0 ? "0" : error < 1e-3 ? error.toExponential(0).replace("-", "\u2212") : fixed(error, 3);
    const constants = on.inner.flatMap((is, j) => (!is && one.beta[j] !== 0 ? [`n${j + 1} sends ${fixed(relu(one.beta[j]), 1)}`] : []));
    const halfOff = on.stem.flatMap((is, i) => (is !== on.block[i] ? [`c${i + 1}`] : []));
    const text = [
      "The network as it was trained; orange is what will go.",
      `Folded: what is off has become zeros.${constants.length ? ` But with \u03b2 left, ${constants.join(", ")} for every input.` : ""}`,
      how === "forgotten" ? `The constants were dropped instead of absorbed${constants.length ? `: ${constants.join(", ")}` : ", and there are none"}.` :
        constants.length ? `The block\u2019s biases have taken up that ${constants.join(", ")} (green).` : "There is no constant to absorb: what is off sends 0.",
      `Cut: ${stay.stream.length} channels and ${stay.inner.length} inner neurons are left.${halfOff.length ? (how === "one side" ? ` ${halfOff.join(", ")} went although one writer was still on.` : ` ${halfOff.join(", ")} stays: one of its two writers is on.`) : ""}`,
    ][step] + (step === 0 ? "" : holds ? " The same function." : ` Not the same function: the error is ${shown_}.`);
    verdict.textContent = text;
    tiles[0].show(after === before ? String(before) : `${after} of ${before}`);
    tiles[1].show(shown_);
    tiles[2].show(step === 0 ? "nothing done yet" : holds ? "\u2713 holds" : "\u2717 FAILS");
    const say = (name, list, on_) => `${name} ${list.filter((_, i) => on_[i]).join(", ")} on`;
    pictures.setAttribute("aria-label", `Step ${STEPS[step]}, ${HOW.find(([v]) => v === how)[1]}. ` +
      `${say("Inner neurons", ["n1", "n2", "n3"], on.inner)}; ${say("at the stem", ["c1", "c2", "c3", "c4"], on.stem)}; ${say("at the block", ["c1", "c2", "c3", "c4"], on.block)}. ` +
      `Matrices: stem ${now.stem.W.length} by 3, inner ${n_.length} by ${c_.length}, block ${c_.length} by ${n_.length}, head 2 by ${c_.length}. The block\u2019s biases: ${now.block.b.map((v) => fixed(v, 2)).join(", ")}.`);
    return { text: `${text} ${after} of ${before} parameters.`, shown: { network: now, parameters: [before, after], error, holds, constants: constants.length } };
  };

  return board(model, el, c, { label: "Explorer: compaction of a residual block, step by step", traits: names, draw },
    html("div", { class: "sl-row" }, c.choice("how", "How it is done", HOW),
      c.slider("step", undefined, "Step", { min: 0, max: 3, step: 1 }, (t) => STEPS[t])),
    html("div", { class: "sl-row" },
      group("inner", "Inner neurons on"), group("stem", "Channels on at the stem"), group("block", "Channels on at the block")),
    pictures, verdict,
    html("dl", { class: "sl-tiles" }, ...tiles));
}

export default { render };
