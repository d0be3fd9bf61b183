// AccuracySize: every method's runs, accuracy against size; means and spreads are computed here, from the runs.

function render({ model, el }) {
  const sets = model.get("sets");
  const names = model.get("methods");
  const colours = model.get("colours");
  const c = controlsOf(model);
  const plot = svg("svg", { role: "img" });
  const legend = html("div", { class: "sl-legend", "aria-hidden": "true" });
  const verdict = html("p", { class: "sl-verdict" });
  const table = html("div");
  const look = (name) => ({ shape: SHAPES[names.indexOf(name) % SHAPES.length], colour: name === "dense" ? "currentColor" : inked(colours[names.indexOf(name)]) });
  const here = () => sets[model.get("set")].methods;
  const shownMethods = () => here().filter(({ name }) => model.get("on")[names.indexOf(name)]);
  const summary = ({ name, points }) => ({
    name,
    points: points.map(({ point, runs, stopped }) => ({ point, stopped, size: meanStd(runs.map((r) => r[1])), accuracy: meanStd(runs.map((r) => r[2])), runs })),
  });
  const readable = () => shownMethods().map(summary).flatMap(({ name, points }) => points.map((p) => ({ name, ...p })));
  const marks = names.map((name) => {
    const { shape, colour } = look(name);
    return svg("svg", { width: 18, height: 14, "aria-hidden": "true" }, markAt(shape, 9, 7, 4.5, { fill: colour, stroke: colour }));
  });

  const draw = (width) => {
    const { title, unit, top: least } = sets[model.get("set")];
    const [show, zoom] = [model.get("show"), model.get("zoom")];
    const all = shownMethods().map(summary);
    const points = readable();
    const at = points[Math.min(model.get("point"), points.length) - 1];
    const cut = all.filter((m) => m.name !== "dense");
    const hits = points.flatMap((p) => p.runs.map((r) => r[2]));
    const top = Math.max(least, ...hits) + 0.08;
    const bottom = zoom === "top" ? Math.max(top - 2.2, Math.min(top - 0.5, ...hits) - 0.1) : Math.max(0, Math.min(97, ...hits.filter((a) => a > 50)) - 0.2);
    const sizes = cut.flatMap((m) => m.points.flatMap((p) => p.runs.filter((r) => r[2] >= bottom).map((r) => r[1])));    // what collapsed would stretch the axis
    const [low, high] = sizes.length ? [Math.min(...sizes) * 0.9, Math.max(...sizes) * 1.1] : [1e3, 3e5];
    const { px, py, left, right, top: roof, bottom: floor, inside, add } = axes(plot, width, Math.min(420, Math.max(280, width * 0.55)),
      { low, high, log: true, name: unit, text: (t) => grouped(Math.round(t)) }, { low: bottom, high: top, name: "test accuracy (%)" }, [50, 16, 10, 38]);
    let below = 0;
    for (const { name, points } of all) {
      const { shape, colour } = look(name);
      if (name === "dense") {
        inside(svg("path", { d: `M${left} ${py(points[0].accuracy[0])}H${right}`, stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "6 4" }));
        continue;
      }
      if (show !== "seeds")
        inside(svg("path", { d: through(points.map((p) => [p.size[0], p.accuracy[0]]), px, py), fill: "none", stroke: colour, "stroke-width": 2 }),
          ...points.flatMap(({ size: [x], accuracy: [m, s] }) => [
            svg("path", { d: `M${px(x)} ${py(m - s)}V${py(m + s)}`, stroke: colour, "stroke-width": 1.5 }),
            markAt(shape, px(x), py(m), 4.5, { fill: colour, stroke: colour })]));
      if (show !== "mean")
        inside(...points.flatMap((p) => p.runs.map((r) => markAt(shape, px(r[1]), py(r[2]), show === "seeds" ? 4 : 2, { fill: colour, stroke: colour, "stroke-width": 1, "fill-opacity": 0.65 }))));
      below += points.flatMap((p) => p.runs).filter((r) => r[2] < bottom).length;
    }
    if (at && at.name !== "dense") add(svg("circle", { cx: Math.max(left, px(at.size[0])), cy: Math.min(floor, Math.max(roof, py(at.accuracy[0]))), r: 11, fill: "none", stroke: "var(--sl-orange)", "stroke-width": 2.5 }));
    plot.onpointermove = (event) => {
      const box = plot.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const far = points.map((p) => (p.name === "dense" ? Infinity : Math.hypot(px(p.size[0]) - x, py(p.accuracy[0]) - y)));
      const best = far.indexOf(Math.min(...far));
      if (far[best] < 24 && best + 1 !== model.get("point")) c.change({ point: best + 1 });
    };

    const said = at ? `${at.name}${at.point ? `, aimed at ${grouped(at.point)}` : ""}: ${fixed(at.accuracy[0], 2)} \u00b1 ${fixed(at.accuracy[1], 2)} % at ${grouped(Math.round(at.size[0]))} \u00b1 ${grouped(Math.round(at.size[1]))} (${at.runs.length} seeds${at.stopped.length ? `, ${at.stopped.length} stopped` : ""})` : "No method is chosen";
    const text = `${said}.${below ? ` ${below} runs lie below the picture.` : ""}`;
    verdict.textContent = text;
    plot.setAttribute("aria-label", `Test accuracy against size, ${title}; ${all.map((m) => m.name).join(", ") || "no method"} shown, ${{ both: "seeds and means", seeds: "seeds", mean: "means \u00b1 std" }[show]}, ${zoom === "top" ? "the upper two points" : "all"}. ${text}`);
    const chosen = at && all.find((m) => m.name === at.name);
    const seeds = chosen ? [...new Set(chosen.points.flatMap((p) => [...p.runs.map((r) => r[0]), ...p.stopped]))].sort((a, b) => a - b) : [];
    const ofSeed = (p, seed) => (p.stopped.includes(seed) ? "stopped" : fixed(p.runs.find((r) => r[0] === seed)[2], 2));
    table.replaceChildren(...(chosen ? [tableOf(["aimed at", unit, "mean accuracy, %", "std", ...seeds.map((s) => `seed ${s}`)],
      chosen.points.map((p) => [p.point ? grouped(p.point) : "\u2013", grouped(Math.round(p.size[0])), fixed(p.accuracy[0], 2), fixed(p.accuracy[1], 2), ...seeds.map((s) => ofSeed(p, s))]),
      `${chosen.name}, ${title}`)] : []));
    legend.replaceChildren(...legendOf([...(all.some((m) => m.name === "dense") ? [["dense, its mean", { stroke: "currentColor", "stroke-dasharray": "6 4", "stroke-width": 1.5 }]] : []),
      ...(show === "seeds" ? [] : [["bars: \u00b1 1 std over the seeds", { d: "M13 0V12", stroke: "currentColor", "stroke-width": 1.5 }]]),
      ...(at ? [["read below", { r: 5.5, stroke: "var(--sl-orange)", "stroke-width": 2.5 }]] : [])]));
    return {
      text,
      shown: { title, below, methods: all.map(({ name, points }) => ({ name, points: points.map(({ point, size, accuracy }) => ({ point, size, accuracy })) })),
        reading: at ? [at.name, at.point, at.accuracy[0], at.size[0]] : null },
    };
  };

  return board(model, el, c, { label: "Explorer: accuracy against size", traits: ["set", "on", "show", "zoom", "point"], draw },
    html("div", { class: "sl-row" },
      c.choice("set", "Network and level", sets.map((s, i) => [i, s.title])),
      c.choice("show", "Show", [["both", "seeds and mean \u00b1 std"], ["mean", "mean \u00b1 std"], ["seeds", "seeds"]]),
      c.choice("zoom", "Accuracy", [["top", "the upper two points"], ["all", "all"]])),
    html("fieldset", { class: "sl-checks" }, html("legend", { class: "sl-name" }, "Methods"),
      ...names.map((name, i) => c.check("on", i, name, { mark: marks[i], blocked: () => !here().some((m) => m.name === name) }))),
    plot, legend, verdict,
    html("div", { class: "sl-row" },
      c.slider("point", undefined, "Read a point", { min: 1, max: 1, step: 1 }, (p) => {
        const all = readable();
        const at = all[Math.min(p, all.length) - 1];
        return at ? `${at.name}, ${grouped(Math.round(at.size[0]))}` : "none";
      }, { max: () => Math.max(1, readable().length) })),
    table);
}

export default { render };
