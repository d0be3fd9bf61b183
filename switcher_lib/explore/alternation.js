// Alternation: a task network of two neurons and a linear switcher, trained in the page under the reader's schedule.
//   f(x) = V1 relu(s1 (W1 x + b1)) + V2 relu(s2 (W2 x + b2)) + d,   s_j = clamp(v1 W_j + v2 b_j + c),   L = mean (f - y)^2

const SCHEDULES = [["turns", "by turns"], ["joint", "jointly"], ["task", "task network alone"]];
const COUNTED = 7; // W, b, V of two neurons, and d

const scoresOf = ({ W, b, v, c }) => W.map((w, j) => v[0] * w + v[1] * b[j] + c);
const clamp = (a) => Math.min(Math.max(a, 0), 1);
const output = ({ W, b, V, d }, s, x) => W.reduce((f, w, j) => f + V[j] * Math.max(s[j] * (w * x + b[j]), 0), 0) + d;

// The loss at factors s, and its gradients by hand: G is that of the scaled row, u that of the factor (chapter 4).
const gradients = (net, s, xs, ys) => {
  const g = { loss: 0, W: [0, 0], b: [0, 0], V: [0, 0], d: 0, u: [0, 0] };
  xs.forEach((x, i) => {
    const error = output(net, s, x) - ys[i];
    const r = (2 * error) / xs.length;
    g.loss += error ** 2 / xs.length;
    g.d += r;
    net.W.forEach((w, j) => {
      const z = s[j] * (w * x + net.b[j]);
      if (z <= 0) return; // ReLU's derivative at 0 is 0: what is off hears nothing
      g.V[j] += r * z;
      g.W[j] += r * net.V[j] * x;
      g.b[j] += r * net.V[j];
    });
  });
  g.u = net.W.map((w, j) => w * g.W[j] + net.b[j] * g.b[j]);
  return g;
};
const cost = (s) => (3 * s.reduce((sum, v) => sum + Math.min(v, 1), 0) + 1) / COUNTED;

const taskMoves = (net, g, s, a, rate, flow) => {
  const answer = net.W.map((_, j) => (flow && a[j] > 0 ? g.u[j] : 0)); // what flow adds, times v
  return {
    ...net,
    W: net.W.map((w, j) => w - rate * (s[j] * g.W[j] + answer[j] * net.v[0])),
    b: net.b.map((b, j) => b - rate * (s[j] * g.b[j] + answer[j] * net.v[1])),
    V: net.V.map((v, j) => v - rate * g.V[j]),
    d: net.d - rate * g.d,
  };
};
const switcherMoves = (net, u, s, a, rate, lambda) => {
  const push = u.map((v, j) => (a[j] > 0 ? v + lambda * (s[j] < 1 ? 3 / COUNTED : 0) : 0));
  const sum = (values) => push.reduce((total, p, j) => total + p * values[j], 0);
  return { ...net, v: [net.v[0] - rate * sum(net.W), net.v[1] - rate * sum(net.b)], c: net.c - rate * sum([1, 1]) };
};

// The whole run: at every step the parameters, the live factors, and the factors that the task step uses.
const train = (first, xs, ys, steps, { schedule, every, refresh, rate, weight, flow }) => {
  const run = [];
  let net = first;
  let stale = null;
  for (let t = 0; t <= steps; t++) {
    const a = scoresOf(net);
    const s = a.map(clamp);
    if (schedule === "joint" || t % refresh === 0) stale = s;
    run.push({ net, s, stale, loss: gradients(net, s, xs, ys).loss, seen: gradients(net, stale, xs, ys).loss, cost: cost(s) });
    if (schedule === "joint") {
      // one loss for both, nothing held: the price of a factor reaches the weights, too
      const g = gradients(net, s, xs, ys);
      const priced = { ...g, u: g.u.map((u, j) => u + weight * (s[j] < 1 ? 3 / COUNTED : 0)) };
      net = { ...switcherMoves(net, g.u, s, a, rate / 2, weight), ...pick(taskMoves(net, priced, s, a, rate, true)) };
      continue;
    }
    net = taskMoves(net, gradients(net, stale, xs, ys), stale, a, rate, flow && refresh === 1);
    if (schedule === "turns" && (t + 1) % every === 0) {
      const now = scoresOf(net);
      const live = now.map(clamp);
      net = switcherMoves(net, gradients(net, live, xs, ys).u, live, now, rate / 2, weight);
    }
  }
  return run;
};
const pick = ({ W, b, V, d }) => ({ W, b, V, d });

function render({ model, el }) {
  const first = model.get("start");
  const [xs, ys, steps] = [model.get("x"), model.get("y"), model.get("steps")];
  const c = controlsOf(model);
  const names = ["schedule", "every", "refresh", "rate", "weight", "flow", "step"];
  const plots = ["loss", "factors", "curve"].map(() => svg("svg", { role: "img" }));
  const legends = plots.map(() => html("div", { class: "sl-legend", "aria-hidden": "true" }));
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Loss at this step"), tile("Factors at this step"), tile("Steps at which the loss went up")];
  const colour = ["var(--sl-blue)", "var(--sl-orange)"];
  const look = { stroke: "var(--sl-blue)", "stroke-width": 3 };
  let cached = "";
  let run;

  const draw = (width) => {
    const state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    const settings = JSON.stringify({ ...state, step: 0 });
    if (settings !== cached) [cached, run] = [settings, train(first, xs, ys, steps, state)];
    const t = state.step;
    const { net, s, stale, loss } = run[t];
    const losses = run.map((r) => r.loss);
    const ups = losses.filter((v, i) => i && v > losses[i - 1] + 1e-12).length;
    const lost = [0, 1].map((j) => run.findIndex((r, i) => r.s[j] === 0 && run.slice(i).every((q) => q.s[j] === 0)));
    const mini = width <= 544 ? width : Math.floor((width - 32) / 3);
    const height = 220;
    const floor = 1e-5;
    const level = (v) => Math.min(Math.max(v, floor), 9.9);
    const across = { low: 0, high: steps, name: "task step" };
    const isStale = state.schedule !== "joint" && state.refresh > 1;

    const A = axes(plots[0], mini, height, across, { low: floor, high: Math.max(1, Math.min(10, 2 * Math.max(...losses))), name: "loss L", log: true, text: (v) => (v < 0.001 ? v.toExponential(0).replace("-", "\u2212") : String(v)) }, [58, 10, 10, 38]);
    A.inside(
      svg("path", { d: through(run.map((r, i) => [i, level(r.loss)]), A.px, A.py), fill: "none", ...look }),
      ...(isStale ? [svg("path", { d: through(run.map((r, i) => [i, level(r.seen)]), A.px, A.py), fill: "none", stroke: "var(--sl-orange)", "stroke-width": 1.5, "stroke-dasharray": "4 3" })] : []),
      svg("path", { d: `M${A.px(t)} ${A.top}V${A.bottom}`, stroke: "var(--sl-quiet)" }),
      svg("circle", { cx: A.px(t), cy: A.py(level(loss)), r: 5, fill: "var(--sl-blue)" }));
    const settings_ = `${SCHEDULES.find(([v]) => v === state.schedule)[1]}, a switcher step for every ${state.every} task steps, factors ${state.refresh > 1 ? `held for ${state.refresh} steps` : "live"}${state.flow ? ", gradient flowing through them" : ""}, learning rate ${state.rate}, price ${state.weight}`;
    plots[0].setAttribute("aria-label", `They learn ${settings_}. Loss over ${steps} steps: ${fixed(losses[0], 4)} at first, ${fixed(loss, 5)} at step ${t}, ${fixed(losses[steps], 5)} at the end. It goes up at ${ups} steps.`);
    legends[0].replaceChildren(...legendOf([["with live factors", look], ...(isStale ? [["as the task step sees it", { stroke: "var(--sl-orange)", "stroke-dasharray": "4 3", "stroke-width": 2 }]] : [])]));

    const B = axes(plots[1], mini, height, across, { low: -0.05, high: 1.08, name: "factor", at: [0, 0.5, 1] }, [58, 10, 10, 38]);
    B.inside(
      ...[0, 1].flatMap((j) => [
        ...(isStale ? [svg("path", { d: through(run.map((r, i) => [i, r.stale[j]]), B.px, B.py), fill: "none", stroke: colour[j], "stroke-width": 1.5, "stroke-dasharray": "4 3" })] : []),
        svg("path", { d: through(run.map((r, i) => [i, r.s[j]]), B.px, B.py), fill: "none", stroke: colour[j], "stroke-width": 3 }),
        svg("circle", { cx: B.px(t), cy: B.py(s[j]), r: 5, fill: colour[j] })]),
      svg("path", { d: `M${B.px(t)} ${B.top}V${B.bottom}`, stroke: "var(--sl-quiet)" }));
    plots[1].setAttribute("aria-label", `Factors at step ${t}: ${s.map((v) => fixed(v, 3)).join(" and ")}; the task step uses ${stale.map((v) => fixed(v, 3)).join(" and ")}.`);
    legends[1].replaceChildren(...legendOf([["s1", { stroke: colour[0], "stroke-width": 3 }], ["s2", { stroke: colour[1], "stroke-width": 3 }],
      ...(isStale ? [["held", { stroke: "var(--sl-quiet)", "stroke-dasharray": "4 3", "stroke-width": 2 }]] : [])]));

    const grid = Array.from({ length: 81 }, (_, i) => -1.2 + (2.4 * i) / 80);
    const C = axes(plots[2], mini, height, { low: -1.2, high: 1.2, name: "input x" }, { low: -0.5, high: 1.6, name: "output" }, [58, 10, 10, 38]);
    C.inside(
      ...(isStale ? [svg("path", { d: through(grid.map((x) => [x, output(net, stale, x)]), C.px, C.py), fill: "none", stroke: "var(--sl-orange)", "stroke-width": 1.5, "stroke-dasharray": "4 3" })] : []),
      svg("path", { d: through(grid.map((x) => [x, output(net, s, x)]), C.px, C.py), fill: "none", ...look }),
      ...xs.map((x, i) => svg("circle", { cx: C.px(x), cy: C.py(ys[i]), r: 3, fill: "none", stroke: "currentColor" })));
    plots[2].setAttribute("aria-label", `The network's curve at step ${t}, from ${fixed(output(net, s, -1), 2)} at x = \u22121 over ${fixed(output(net, s, 0), 2)} at 0 to ${fixed(output(net, s, 1), 2)} at 1; wanted: 1, 0, 1.`);
    legends[2].replaceChildren(...legendOf([["it computes", look], ["wanted", { r: 3, stroke: "currentColor" }]]));

    const last = losses[steps];
    const gone = [0, 1].filter((j) => lost[j] >= 0);
    const text = (gone.length ? `Neuron ${gone.map((j) => `${j + 1} goes off at step ${lost[j]}`).join(", neuron ")} and never comes back; the loss ends at ${fixed(last, 4)}.` :
      `Both neurons are on at the end; the loss ends at ${last < 0.0001 ? "less than 0.0001" : fixed(last, 4)}.`) +
      (isStale ? ` Factors are held for ${state.refresh} steps, and jump by up to ${fixed(Math.max(...run.slice(1).map((r, i) => Math.max(...[0, 1].map((j) => Math.abs(r.stale[j] - run[i].stale[j]))))), 2)} when they are computed again.` : "");
    verdict.textContent = text;
    tiles[0].show(fixed(loss, 5));
    tiles[1].show(s.map((v) => (v === 0 ? "off" : fixed(v, 2))).join(", "));
    tiles[2].show(`${ups} of ${steps}`);
    return {
      text: `Step ${t}: loss ${fixed(loss, 5)}, factors ${s.map((v) => fixed(v, 2)).join(" and ")}. ${text}`,
      shown: { losses, seen: run.map((r) => r.seen), factors: run.map((r) => r.s), stale: run.map((r) => r.stale), lost,
        parameters: [...net.W, ...net.b, ...net.V, net.d], switcher: [...net.v, net.c], cost: run[t].cost },
    };
  };

  const by = (values, say) => values.map((v) => [v, say(v)]);
  return board(model, el, c, { label: "Explorer: schedules of alternate learning", traits: names, draw },
    html("div", { class: "sl-row" },
      c.choice("schedule", "They learn", SCHEDULES),
      c.choice("every", "A switcher step after", by([1, 2, 4, 8, 16], (k) => (k === 1 ? "each task step" : `every ${k}th`))),
      c.choice("refresh", "Factors are", by([1, 4, 8, 16, 32], (k) => (k === 1 ? "live" : `held for ${k} steps`))),
      c.choice("rate", "Learning rate \u03b7", by([0.1, 0.2, 0.4], String)),
      c.choice("weight", "Price \u03bb", by([0, 0.1, 0.3], String)),
      c.check("flow", undefined, "gradient flows through s", { blocked: () => model.get("schedule") === "joint" || model.get("refresh") > 1 })),
    html("div", { class: "sl-row" },
      c.slider("step", undefined, "Step", { min: 0, max: steps, step: 1 }, (t) => `${t} of ${steps}`),
      c.button("One step", () => c.change({ step: Math.min(steps, model.get("step") + 1) })),
      c.button("Back to 0", () => c.change({ step: 0 }))),
    html("div", { class: "sl-thirds" }, ...plots.map((plot, i) => html("div", {}, plot, legends[i]))),
    verdict,
    html("dl", { class: "sl-tiles" }, ...tiles));
}

export default { render };
