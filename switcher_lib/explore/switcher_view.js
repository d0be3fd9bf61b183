// SwitcherView: a layer's rows as the switcher reads them, and the factors that its perceptron answers, computed here.

// An order without chance, the same in Python: 3, 10, 17, ... modulo n where that meets all, else backwards.
const shuffled = (n) => {
  const order = Array.from({ length: n }, (_, i) => (i * 7 + 3) % n);
  return new Set(order).size === n ? order : order.map((_, i) => n - 1 - i);
};
const sizeOf = (row) => Math.sqrt(row.reduce((sum, w) => sum + w * w, 0));
const orderOf = (name, rows) => {
  const all = rows.map((_, j) => j);
  return name === "size" ? all.sort((a, b) => sizeOf(rows[b]) - sizeOf(rows[a]) || a - b) : name === "reversed" ? all.reverse() : all;
};
// Rows (w_j, b_j) -> scores and factors: divided by one number for the layer, one perceptron for all, clamp.
const answer = ({ U, u, v, c }, rows) => {
  const flat = rows.flat();
  const mean = flat.reduce((a, b) => a + b, 0) / flat.length;
  const std = Math.sqrt(flat.reduce((sum, w) => sum + (w - mean) ** 2, 0) / flat.length) + 1e-8;
  const scores = rows.map((row) => U.reduce((a, weights, k) =>
    a + v[k] * Math.max(weights.reduce((z, w, i) => z + (w * row[i]) / std, 0) + u[k], 0), 0) + c);
  return { scores, factors: scores.map((a) => Math.min(Math.max(a, 0), 1)) };
};

function render({ model, el }) {
  const looks = model.get("looks"); // { step, rows, switcher, accuracy }
  const [n, d] = [looks[0].rows.length, looks[0].rows[0].length - 1];
  const c = controlsOf(model);
  const image = svg("svg", { role: "img" });
  const legend = html("div", { class: "sl-legend", "aria-hidden": "true" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Off, exactly 0"), tile("Factor of the neuron"), tile("Largest change by the edit, neuron by neuron")];

  const draw = (width) => {
    const [look, k, scale] = [looks[model.get("look")], model.get("neuron") - 1, model.get("scale")];
    const order = orderOf(model.get("own"), look.rows);
    const before = model.get("previous") === "as it is" ? Array.from({ length: d }, (_, i) => i) : shuffled(d);
    // edit one row, shuffle what all rows read, then put the rows into another order
    const edited = look.rows.map((row, j) => row.map((w) => (j === k ? w * scale : w))).map((row) => [...before.map((i) => row[i]), row[d]]);
    const rows = order.map((j) => edited[j]);
    const plain = answer(look.switcher, look.rows);
    const now = answer(look.switcher, rows);
    const change = Math.max(...order.map((j, at) => Math.abs(now.factors[at] - plain.factors[j])));
    const off = now.factors.filter((s) => s === 0).length;
    const here = order.indexOf(k);

    const [left, top, right] = [34, 22, Math.max(90, Math.min(220, width * 0.28))];
    const [cell, tall] = [(width - left - right - 12) / (d + 1), 20];
    const most = Math.max(...rows.flat().map(Math.abs));
    const height = top + n * tall + 30;
    set(image, { viewBox: `0 0 ${width} ${height}`, width, height });
    const barAt = width - right;
    image.replaceChildren(
      svg("text", { x: left + (d * cell) / 2, y: 14, "text-anchor": "middle" }, width < 480 ? "weights in" : `weights from the ${d} neurons before`),
      svg("text", { x: left + (d + 0.5) * cell, y: 14, "text-anchor": "middle" }, "b"),
      svg("text", { x: barAt, y: 14 }, "factor"),
      ...order.flatMap((j, at) => {
        const y = top + at * tall;
        const s = now.factors[at];
        return [
          svg("text", { x: left - 6, y: y + 14, "text-anchor": "end", style: j === k ? "fill:currentColor;font-weight:700" : "" }, String(j + 1)),
          ...rows[at].map((w, i) => svg("rect", { x: left + i * cell, y: y + 1, width: cell - 0.5, height: tall - 2,
            fill: w < 0 ? "var(--sl-orange)" : "var(--sl-blue)", "fill-opacity": (Math.abs(w) / most).toFixed(3) })),
          svg("rect", { x: barAt, y: y + 4, width: Math.max(s * (right - 44), s > 0 ? 1 : 0), height: tall - 8, fill: j === k ? "var(--sl-green)" : "var(--sl-quiet)" }),
          svg("path", { d: `M${barAt + plain.factors[j] * (right - 44)} ${y + 2}v${tall - 4}`, stroke: "currentColor", "stroke-width": 1.5 }),
          svg("text", { x: width - 2, y: y + 14, "text-anchor": "end" }, s === 0 ? "off" : fixed(s, 2)),
        ];
      }),
      svg("rect", { x: left - 1, y: top + here * tall, width: (d + 1) * cell + 1, height: tall, fill: "none", stroke: "var(--sl-green)", "stroke-width": 2 }),
      svg("path", { d: `M${left + d * cell} ${top}v${n * tall}`, stroke: "currentColor" }),
      svg("text", { x: left, y: height - 6 }, `step ${look.step}: validation accuracy ${fixed(look.accuracy, 1)} %`),
    );
    image.setAttribute("aria-label", `${n} rows of ${d + 1} numbers at step ${look.step}, order ${model.get("own")}, neurons before ${model.get("previous")}, row ${k + 1} times ${fixed(scale, 1)}. Factors: ` +
      order.map((j, at) => `neuron ${j + 1} ${now.factors[at] === 0 ? "off" : fixed(now.factors[at], 2)}`).join(", ") + ".");
    legend.replaceChildren(...legendOf([["above 0", { stroke: "var(--sl-blue)", "stroke-width": 8 }], ["below 0", { stroke: "var(--sl-orange)", "stroke-width": 8 }],
      ["factor before your edit", { d: "M13 0V12", stroke: "currentColor", "stroke-width": 1.5 }]]));

    const same = change < 1e-9;
    const edits = [scale !== 1 ? `row ${k + 1} times ${fixed(scale, 1)}` : "", model.get("own") !== "as they are" ? "rows in another order" : "", model.get("previous") !== "as it is" ? "the neurons before in another order" : ""].filter(Boolean);
    const text = (edits.length ? `Edited: ${edits.join(", ")}. ` + (same ? "Every neuron keeps its factor." : `Factors change by up to ${fixed(change, 2)}.`) : "Nothing is edited: the rows as training left them.") +
      ` Neuron ${k + 1} has the score ${fixed(now.scores[here], 2)} and the factor ${fixed(now.factors[here], 2)}.`;
    verdict.textContent = text;
    tiles[0].show(`${off} of ${n}`);
    tiles[1].show(now.factors[here] === 0 ? "0, off" : fixed(now.factors[here], 2));
    tiles[2].show(same ? "0" : fixed(change, 3));
    return { text, shown: { scores: now.scores, factors: now.factors, order, change, off, same } };
  };

  return board(model, el, c, { label: "Explorer: what the switcher sees and says", traits: ["look", "neuron", "scale", "own", "previous"], draw },
    html("div", { class: "sl-row" },
      c.slider("look", undefined, "Training", { min: 0, max: looks.length - 1, step: 1 }, (i) => `step ${looks[i].step}`),
      c.choice("neuron", "Neuron", Array.from({ length: n }, (_, j) => [j + 1, String(j + 1)])),
      c.slider("scale", undefined, "Multiply its row by", { min: 0, max: 3, step: 0.1 }, (v) => fixed(v, 1))),
    html("div", { class: "sl-row" },
      c.choice("own", "Order of the rows", ["as they are", "reversed", "size"].map((v) => [v, v === "size" ? "by size" : v])),
      c.choice("previous", "Order of the neurons before", ["as it is", "shuffled"].map((v) => [v, v])),
      c.button("Undo the edits", () => c.change({ scale: 1, own: "as they are", previous: "as it is" }))),
    image, legend, verdict, html("dl", { class: "sl-tiles" }, ...tiles));
}

export default { render };
