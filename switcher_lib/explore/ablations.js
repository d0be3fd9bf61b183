// Ablations: every run of the ablation table; two variants compared seed by seed; in Jupyter, a short run of one's own.

const VERDICTS = { higher: "higher", lower: "lower", open: "not settled" };

// The mean of the differences and half its 95 % interval, by Student's t (chapter 10).
const pairedDifference = (pairs, quantiles) => {
  const [mean, sd] = meanStd(pairs.map(([a, b]) => a - b));
  const half = sd === 0 ? null : (quantiles[pairs.length - 2] * sd) / Math.sqrt(pairs.length);
  return { mean, half, verdict: half === null || Math.abs(mean) <= half ? "open" : mean > 0 ? "higher" : "lower" };
};

function render({ model, el }) {
  const variants = model.get("variants"); // { name, group, runs: [[seed, value of each metric, ...]], stopped: [seeds] }
  const metrics = model.get("metrics"); // { name, digits, unit }
  const groups = [...new Set(variants.slice(1).map((v) => v.group))];
  const quantiles = model.get("quantiles");
  const c = controlsOf(model);
  const plot = svg("svg", { role: "img" });
  const gap = svg("svg", { role: "img" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Mean difference"), tile("95 % interval"), tile("This comparison by itself")];
  const table = html("div");
  const short = (v) => (v.group ? v.name.slice(v.group.length + 2) : v.name);

  const draw = (width) => {
    const metric = model.get("metric");
    const { digits, unit, name } = metrics[metric];
    const say = (v) => (digits ? fixed(v, digits) : (v < 0 ? "\u2212" : "") + grouped(Math.round(Math.abs(v))));
    const rows = [variants[0], ...variants.filter((v) => v.group === model.get("group"))];
    const [A, B] = [variants[model.get("a")], variants[model.get("b")]];
    const stats = rows.map((v) => (v.runs.length ? meanStd(v.runs.map((r) => r[metric + 1])) : [null, null]));

    const values = rows.flatMap((v) => v.runs.map((r) => r[metric + 1]));
    const most = Math.max(...values);
    const least = metric === 0 ? Math.max(Math.min(...values), most - 4) : Math.min(...values);
    const edge = (most - least || 1) * 0.06;
    const tall = 46;
    const frame = axes(plot, width, rows.length * tall + 46, { low: least - edge, high: most + edge, name: `${name}${unit ? ` (${unit})` : ""}`, text: digits ? undefined : say }, { low: rows.length, high: 0, at: [], name: "" }, [14, 14, 4, 38]);
    rows.forEach((v, i) => {
      const y = frame.py(i) + 31;
      const colour = v === A ? "var(--sl-blue)" : v === B ? "var(--sl-orange)" : "var(--sl-quiet)";
      const [mean] = stats[i];
      frame.add(
        svg("text", { x: 14, y: y - 14, style: "fill:currentColor" }, `${short(v)}${v === A ? " (A)" : ""}${v === B ? " (B)" : ""}` +
          (v.stopped.length ? `: ${v.stopped.length} of ${v.stopped.length + v.runs.length} runs stopped` : "")),
        svg("path", { d: `M${frame.left} ${y}H${frame.right}`, stroke: "var(--sl-line)" }),
        ...v.runs.map((r) => (r[metric + 1] < least ? svg("path", { d: `M${frame.left} ${y}l9 -5v10z`, fill: colour })
          : svg("circle", { cx: frame.px(r[metric + 1]), cy: y, r: 4.5, fill: colour, "fill-opacity": 0.75 }))),
        ...(mean !== null && mean >= least ? [svg("path", { d: `M${frame.px(mean)} ${y - 10}v20`, stroke: colour, "stroke-width": 3 })] : []));
    });
    plot.setAttribute("aria-label", `${name}, one dot for each seed: ` + rows.map((v, i) => `${v.name} ${stats[i][0] === null ? "no run finished" : `${say(stats[i][0])} \u00b1 ${say(stats[i][1])}`}`).join("; ") + ".");

    const pairs = A.runs.flatMap((r) => B.runs.filter((q) => q[0] === r[0]).map((q) => [r[metric + 1], q[metric + 1], r[0]]));
    const d = pairs.length > 1 && A !== B ? pairedDifference(pairs, quantiles) : null;
    const differences = d ? pairs.map(([a, b]) => a - b) : [];
    const reach = Math.max(...differences.map(Math.abs), d?.half == null ? 0 : Math.abs(d.mean) + d.half) || 1;
    const g = axes(gap, width, 92, { low: -reach * 1.1, high: reach * 1.1, name: `A minus B, seed by seed${unit ? " (points)" : ""}`, text: digits ? undefined : say }, { low: 0, high: 1, at: [], name: "" }, [14, 14, 4, 38]);
    g.add(svg("path", { d: `M${g.px(0)} ${g.top}V${g.bottom}`, stroke: "currentColor", "stroke-width": 1.5 }));
    if (d) {
      if (d.half !== null) g.inside(svg("path", { d: `M${g.px(d.mean - d.half)} ${g.py(0.5)}H${g.px(d.mean + d.half)}`, stroke: "var(--sl-green)", "stroke-width": 10, "stroke-opacity": 0.45 }));
      g.inside(svg("path", { d: `M${g.px(d.mean)} ${g.py(0.15)}V${g.py(0.85)}`, stroke: "var(--sl-green)", "stroke-width": 3 }),
        ...differences.map((v) => svg("circle", { cx: g.px(v), cy: g.py(0.5), r: 4.5, fill: "currentColor", "fill-opacity": 0.75 })));
    }
    const signed = (v) => (v > 0 ? "+" : "") + say(v);
    const interval = d ? (d.half === null ? "no spread" : `${signed(d.mean - d.half)} to ${signed(d.mean + d.half)}`) : "\u2013";
    const size = [A, B].map((v) => (v.runs.length ? meanStd(v.runs.map((r) => r[2]))[0] : null));
    const apart = metric !== 1 && size[0] && size[1] && Math.max(...size) / Math.min(...size) > 1.1;
    const text = A === B ? "A and B are the same variant: choose two." : !d ? `${A.name} and ${B.name} have ${pairs.length} seeds in common: too few for a difference.` :
      `${A.name} minus ${B.name}, ${pairs.length} seeds: ${signed(d.mean)}, interval ${interval}. ` +
      (d.verdict === "open" ? "It holds 0: not settled." : `It leaves 0 out: A is ${VERDICTS[d.verdict]}, as one comparison by itself.`) +
      (apart ? ` But their sizes differ, ${grouped(Math.round(size[0]))} and ${grouped(Math.round(size[1]))} parameters: that is not the change alone.` : "");
    verdict.textContent = text;
    gap.setAttribute("aria-label", text + (d ? ` Differences: ${differences.map(signed).join(", ")}.` : ""));
    tiles[0].show(d ? signed(d.mean) : "\u2013");
    tiles[1].show(interval);
    tiles[2].show(d ? VERDICTS[d.verdict] : "\u2013");
    table.replaceChildren(tableOf(["variant", "mean", "std", "seeds", "parameters"], rows.map((v, i) => [v.name, ...(stats[i][0] === null ? ["\u2013", "\u2013"] : stats[i].map(say)),
      v.runs.map((r) => r[0]).join(", ") || "none", v.runs.length ? grouped(Math.round(meanStd(v.runs.map((r) => r[2]))[0])) : "\u2013"]), `${name}: mean over the seeds`));
    showTraining();
    return { text: `${name}. ${text}`, shown: { rows: rows.map((v, i) => [v.name, ...stats[i]]), pairs: pairs.length, difference: d, apart: Boolean(apart) } };
  };

  // With a kernel behind it, an ablation can be trained: a page has no send().
  const live = typeof model.send === "function";
  const bar = html("progress", { max: 1, value: 0, "aria-label": "Progress of the training" });
  const state = html("span", { role: "status" });
  const own = html("div");
  const go = html("button", { type: "button", onclick: () => model.send({ train: [model.get("a"), model.get("b")] }) }, "Train A and B here, one seed");
  const training = live ? html("div", {}, html("div", { class: "sl-row" }, go, bar, state), own)
    : html("p", { class: "sl-name" }, "Opened in Jupyter, Colab or Binder, this explorer also trains A and B: a short run with a progress bar.");
  const showTraining = () => {
    if (!live) return;
    const busy = model.get("progress") > 0 && model.get("progress") < 1;
    go.disabled = busy;
    bar.value = model.get("progress");
    state.textContent = model.get("training");
    own.replaceChildren(...(model.get("trained").length ? [tableOf(["trained here", "seed", "validation, %", "parameters"],
      model.get("trained").map((t) => [t.name, String(t.seed), fixed(t.accuracy, 2), grouped(t.parameters)]), "Short searches on 8,000 images, nothing trained after compaction: not the table\u2019s numbers")] : []));
  };

  const options = variants.map((v, i) => [i, v.name]);
  const undo = board(model, el, c, { label: "Explorer: the ablation table", traits: ["group", "metric", "a", "b"], draw },
    html("div", { class: "sl-row" },
      c.choice("group", "What is changed", groups.map((g) => [g, g])),
      c.choice("metric", "Measured by", metrics.map((m, i) => [i, m.name]))),
    plot,
    html("div", { class: "sl-row" }, c.choice("a", "Compare A", options), c.choice("b", "with B", options)),
    gap, verdict, html("dl", { class: "sl-tiles" }, ...tiles), table, training);
  const stop = follow(model, ["progress", "training", "trained"], showTraining);
  return () => (stop(), undo());
}

export default { render };
