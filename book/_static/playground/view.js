// What the reader sees and touches. Everything that is computed comes from training.js and engine.js; helpers such as
// html() and tile() from the explorers' base.js.
"use strict";

const PlaygroundView = (() => {
  const { SETTINGS, defaults, format, nameOf, parse, written } = PlaygroundSettings;
  const { FEATURES, REACH, read } = PlaygroundData;
  const GRID = 48; // the decision is computed on GRID × GRID points
  const TILE = 12; // and each neuron's tile shows every fourth of them
  const percent = (share, digits = 1) => `${fixed(100 * share, digits)} %`;

  // ---------------------------------------------------------------------------------------------------- canvases

  // A canvas that is sharp on every screen: `draw(context, width, height)` works in CSS pixels.
  const picture = (height, label) => {
    const canvas = html("canvas", { role: "img", "aria-label": label });
    let size = "";
    const paint = (draw) => {
      const width = canvas.clientWidth || 300;
      const tall = typeof height === "function" ? height(width) : height;
      const sharp = window.devicePixelRatio || 1;
      const now = `${width} ${tall} ${sharp}`;
      if (now !== size) {
        size = now;
        canvas.width = Math.round(width * sharp);
        canvas.height = Math.round(tall * sharp);
        canvas.style.height = `${tall}px`;
      }
      const context = canvas.getContext("2d");
      context.setTransform(sharp, 0, 0, sharp, 0, 0);
      context.clearRect(0, 0, width, tall);
      draw(context, width, tall);
    };
    return { canvas, paint };
  };

  // The theme's colours as [r, g, b], and as text for the canvas. Blue is class 1 and positive, orange class 0 and negative.
  const readColours = (root) => {
    const style = getComputedStyle(root);
    const dot = html("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    const rgb = (text) => {
      dot.fillStyle = text;
      dot.fillRect(0, 0, 1, 1);
      return Array.from(dot.getImageData(0, 0, 1, 1).data.slice(0, 3));
    };
    const named = (name) => style.getPropertyValue(name).trim();
    const texts = {
      ink: style.color, blue: named("--sl-blue"), orange: named("--sl-orange"), green: named("--sl-green"), paper: named("--pg-paper"),
    };
    return { ...texts, rgb: Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, rgb(text)])) };
  };

  // A square picture of one number in [−1, 1] for each point of a side × side grid: orange below 0, blue above.
  const heatMap = (side) => {
    const canvas = html("canvas", { width: side, height: side });
    const context = canvas.getContext("2d");
    const image = context.createImageData(side, side);
    return (value, { rgb }, strength) => {
      for (let at = 0; at < side * side; at++) {
        const v = Math.max(-1, Math.min(1, value(at)));
        const colour = v > 0 ? rgb.blue : rgb.orange;
        const share = Math.abs(v) * strength;
        for (let c = 0; c < 3; c++) image.data[4 * at + c] = rgb.paper[c] + share * (colour[c] - rgb.paper[c]);
        image.data[4 * at + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      return canvas;
    };
  };

  // ---------------------------------------------------------------------------------------------------- controls

  // One setting as a native control with a label; `show(value)` moves it.
  const control = (setting, changed) => {
    const { name, label, short, kind, values } = setting;
    const text = html("span", { class: "sl-name" }, short ?? label);
    const chosen = (node) => values.find((value) => written(value) === node.value);
    if (kind === "select") {
      const node = html("select", { name, onchange: () => changed(name, chosen(node)) },
        ...values.map((value) => html("option", { value: written(value) }, nameOf(setting, value))));
      return { name, node: html("label", { class: "sl-field" }, text, node), show: (value) => (node.value = written(value)) };
    }
    if (kind === "check") {
      const node = html("input", { type: "checkbox", name, onchange: () => changed(name, node.checked) });
      return { name, node: html("label", { class: "pg-check" }, node, label), show: (value) => (node.checked = value) };
    }
    if (kind === "number") {
      const [low, high] = [values[0], values.at(-1)];
      const node = html("input", { type: "number", name, min: low, max: high, step: 1, inputmode: "numeric", "aria-label": label,
        onchange: () => changed(name, Math.min(high, Math.max(low, Math.round(Number(node.value)) || 0))) });
      return { name, node: html("label", { class: "sl-field" }, text, node), show: (value) => (node.value = value) };
    }
    const output = html("output", { "aria-live": "off" }); // aria-valuetext already says it
    const node = html("input", { type: "range", name, min: 0, max: values.length - 1, step: 1, "aria-label": label,
      oninput: () => changed(name, values[Number(node.value)]) });
    const show = (value) => {
      node.value = values.indexOf(value);
      output.textContent = nameOf(setting, value);
      node.setAttribute("aria-valuetext", nameOf(setting, value));
    };
    text.append(" ", output);
    return { name, node: html("label", { class: "sl-field" }, text, node), show };
  };

  // ---------------------------------------------------------------------------------------------------- the playground

  const mount = (el) => {
    let settings = defaults();
    let training = null;
    let history = [];
    let running = false;
    let frame = 0; // what requestAnimationFrame gave
    let told = {}; // what has been said once and need not be said again
    let shown = "output"; // what the large picture shows: "output" or "layer:neuron"
    let colours = null;

    const live = liveRegion();
    const notice = html("p", { class: "pg-notice", role: "status" });
    const say = (text) => (live.textContent = text);
    const notify = (text) => (notice.textContent = text);

    // The row of buttons ---------------------------------------------------------------------------------------------
    const run = html("button", { type: "button", class: "pg-run", onclick: () => (running ? pause() : start()) }, "Run");
    const one = html("button", { type: "button", onclick: () => stepOnce() }, "Step");
    const again = html("button", { type: "button", onclick: () => restart("Back at the start.") }, "Reset");
    const cut = html("button", { type: "button", onclick: () => cutOut() }, "Check the cut");
    const share = html("button", { type: "button", onclick: () => copyLink() }, "Copy link");
    const link = html("input", { type: "text", readonly: true, class: "pg-link", "aria-label": "Link to these settings", hidden: true });
    const steps = html("p", { class: "pg-steps" });

    // The settings ---------------------------------------------------------------------------------------------------
    const controls = SETTINGS.map((setting) => control(setting, (name, value) => change({ ...settings, [name]: value })));
    const group = (wanted, title = wanted) => html("fieldset", {}, html("legend", {}, title),
      ...controls.filter((_, k) => SETTINGS[k].group === wanted).map(({ node }) => node));
    const more = html("details", { class: "pg-more" }, html("summary", {}, "More settings"),
      html("div", { class: "pg-groups pg-two" }, group("More: task network", "Task network"), group("More: switcher", "Switcher")));

    // What is seen ---------------------------------------------------------------------------------------------------
    const tall = (width) => Math.round(Math.max(300, Math.min(380, width * 0.75)));
    const network = picture(tall, "Neurons and connections");
    const plane = picture((width) => width, "The plane of the data");
    const accuracy = picture(116, "Accuracy over task steps");
    const size = picture(116, "Size over task steps");
    const look = html("select", { onchange: () => ((shown = look.value), draw(true)) });
    const tiles = Object.fromEntries(["Test accuracy", "Training accuracy", "Neurons on", "Connections on", "Parameters left", "Came back"]
      .map((name) => [name, tile(name)]));
    const key = (className, text) => html("span", {}, html("i", { class: className }), text);
    const legend = (...keys) => html("div", { class: "sl-legend", "aria-hidden": "true" }, ...keys);
    const figure = (title, { canvas }, ...rest) => html("figure", {}, html("figcaption", {}, title), canvas, ...rest);

    const root = html("div", { class: "sl-widget pg", role: "group", "aria-label": "Playground: train a task network and its switcher" },
      html("div", { class: "pg-bar" }, run, one, again, controls.at(-1).node, steps, html("span", { class: "pg-grow" }), cut, share),
      link,
      notice,
      html("div", { class: "pg-groups" }, group("Data"), group("Task network"), group("Switcher")),
      more,
      html("div", { class: "pg-pictures" },
        figure("Factors and connections", network,
          legend(key("pg-plus", "weight above 0"), key("pg-minus", "below 0"), key("pg-off", "off: factor 0"))),
        figure(html("label", {}, "Plane: ", look), plane,
          legend(key("pg-square", "class 1"), key("pg-dot", "class 0"), key("pg-line", "decision")))),
      html("dl", { class: "sl-tiles" }, ...Object.values(tiles)),
      html("div", { class: "pg-charts" },
        figure("Accuracy", accuracy, legend(key("pg-solid", "test"), key("pg-dashed", "training"))),
        figure("Size, share of the whole", size, legend(key("pg-solid pg-blue", "parameters"), key("pg-dashed pg-blue", "neurons")))),
      live);
    el.append(root);

    // Training -------------------------------------------------------------------------------------------------------
    const restart = (text) => {
      pause({ silent: true });
      training = new PlaygroundTraining.Training(settings);
      history = [training.measure()];
      told = {};
      buildLook();
      if (text) say(text);
      draw(true);
    };

    // New settings from a control, from a link, or from outside: a new start if what changed asks for one.
    const change = (wanted, { fresh = false, silent = false } = {}) => {
      const restarting = fresh || SETTINGS.some(({ name, restart: asks }) => asks && settings[name] !== wanted[name]);
      settings = wanted;
      controls.forEach(({ name, show }) => show(settings[name]));
      root.classList.toggle("pg-nobody", settings.who === "nobody");
      notify("");
      if (restarting) restart(silent ? "" : "New start with the new settings.");
      else {
        training.change(settings);
        training.watch();
        draw(true);
      }
      if (silent) return;
      link.hidden = true;
      try {
        window.history.replaceState(null, "", format(settings)); // the address always shows what is set
      } catch {
        // some places forbid it; "Copy link" still works
      }
    };

    // After a step: is there anything that the reader must know, once?
    const hopeless = () => {
      if (!Number.isFinite(training.loss)) {
        return ["loss", "The loss is no longer a finite number. Lower a learning rate, or take a bounded gate, and press Reset."];
      }
      const [layer] = training.dead;
      if (layer === undefined) return null;
      const what = layer ? `All ${training.net.sizes[layer]} neurons of layer ${layer}` : "All inputs";
      return [`dead${layer}`, `${what} are off: nothing gets through, and off is absorbing. ` +
        "Try a smaller λ, a smaller η′ or a warm-up, and press Reset."];
    };
    const stopIfHopeless = () => {
      const found = hopeless();
      if (!found || told[found[0]]) return false;
      told[found[0]] = true;
      pause({ silent: true });
      notify(found[1]);
      return true;
    };

    const record = () => {
      history.push(training.measure());
      if (history.length > 600) history = history.filter((_, i) => i % 2 === 0); // half as fine from here on
    };
    const advance = (count, until = Infinity) => {
      for (let i = 0; i < count && performance.now() < until; i++) {
        training.step();
        if (stopIfHopeless()) break;
      }
      record();
    };

    // One frame: some steps, then the pictures. A frame stops stepping after 20 ms, so that a slow machine stays responsive.
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    let drawn = 0;
    let spoken = 0;
    const tick = () => {
      if (!running) return;
      advance(Number(settings.speed), performance.now() + 20);
      const now = performance.now();
      if (!running) return draw(true); // something stopped it
      if (!calm.matches || now - drawn > 500) {
        drawn = now;
        draw(false);
      }
      if (now - spoken > 20000) {
        spoken = now;
        say(describe());
      }
      frame = requestAnimationFrame(tick);
    };
    const start = () => {
      if (running) return;
      running = true;
      spoken = performance.now();
      run.textContent = "Pause";
      root.dataset.running = "yes";
      notify("");
      say("Running.");
      frame = requestAnimationFrame(tick);
    };
    const pause = ({ silent = false } = {}) => {
      const was = running;
      running = false;
      cancelAnimationFrame(frame);
      run.textContent = "Run";
      root.dataset.running = "no";
      if (!was || silent) return;
      draw(true);
      say(`Paused. ${describe()}`);
    };
    const stepOnce = () => {
      pause({ silent: true });
      notify("");
      advance(1);
      draw(true);
      say(describe());
    };

    // Cut everything out that is off, and compare the smaller network with the one that runs.
    const cutOut = () => {
      pause({ silent: true });
      const { both, data } = training;
      const { net: small, kept } = both.cut();
      const points = [...data.test.points, ...gridPoints];
      const x = read(points, settings.features);
      const d = FEATURES[settings.features].length;
      const y = Float64Array.from({ length: points.length * kept[0].length },
        (_, at) => x[Math.floor(at / kept[0].length) * d + kept[0][at % kept[0].length]]);
      const before = both.logits(x, points.length);
      const after = small.forward(y, points.length, small.ones()).logits;
      const top = before.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      const gap = before.reduce((most, v, at) => Math.max(most, Math.abs(v - after[at])), 0) / (top || 1);
      const count = small.parameters.reduce((total, { value }) => total + value.length, 0);
      root.dataset.gap = gap;
      notify(`Cut out: ${small.sizes.join("-")} with ${grouped(count)} parameters is left of ${training.net.sizes.join("-")} with ` +
        `${grouped(training.both.structure().allParameters)}. On ${grouped(points.length)} points its outputs differ by at most ` +
        `${gap === 0 ? "0" : `${gap.toExponential(0).replace("-", "\u2212")} of the largest`}: rounding.`);
    };

    const copyLink = async () => {
      const address = window.location.href.split("#")[0] + format(settings);
      set(link, { hidden: false });
      link.value = address;
      link.focus();
      link.select();
      try {
        await navigator.clipboard.writeText(address);
        notify("The link is copied.");
      } catch {
        notify("Press Ctrl+C (⌘C) to copy the link.");
      }
    };

    // Drawing --------------------------------------------------------------------------------------------------------
    const gridPoints = Array.from({ length: GRID * GRID }, (_, at) =>
      [((at % GRID) / (GRID - 1)) * 2 * REACH - REACH, REACH - (Math.floor(at / GRID) / (GRID - 1)) * 2 * REACH]);
    const grids = {};
    const large = heatMap(GRID);
    const small = heatMap(TILE);
    const coarse = Array.from({ length: TILE * TILE }, (_, at) =>
      Math.floor((Math.floor(at / TILE) + 0.5) * (GRID / TILE)) * GRID + Math.floor(((at % TILE) + 0.5) * (GRID / TILE)));

    const describe = () => {
      const { step, test, train, on, parameters, allParameters, connections, allConnections } = history.at(-1);
      const layers = on.slice(1, -1).map((n, l) => `${n} of ${training.net.sizes[l + 1]} neurons of layer ${l + 1} on`).join(", ");
      return `After ${grouped(step)} task steps and ${grouped(training.switcherSteps)} switcher steps: test accuracy ${percent(test)}, ` +
        `training accuracy ${percent(train)}; ${layers}; ${connections} of ${allConnections} connections and ` +
        `${parameters} of ${allParameters} parameters left.`;
    };

    // The choices of the large picture: the output, or any hidden neuron.
    const buildLook = () => {
      const neurons = training.net.sizes.slice(1, -1).flatMap((n, l) =>
        Array.from({ length: n }, (_, j) => [`${l + 1}:${j}`, `layer ${l + 1}, neuron ${j + 1}`]));
      const all = [["output", "probability of class 1"], ...neurons];
      if (!all.some(([value]) => value === shown)) shown = "output";
      look.replaceChildren(...all.map(([value, text]) => html("option", { value }, text)));
      look.value = shown;
    };

    // All that the pictures need of the task network, on the grid: every neuron's activation (before its factor) and p.
    const surface = () => {
      const x = (grids[settings.features] ??= read(gridPoints, settings.features));
      const { logits, z } = training.net.forward(x, GRID * GRID, training.s);
      return { x, z, lean: (at) => Math.tanh((logits[2 * at + 1] - logits[2 * at]) / 2) }; // 2 p − 1
    };

    const activation = ({ x, z }, l, j) => {
      const n = training.net.sizes[l];
      const values = l === 0 ? x : z[l];
      const value = (at) => (l === 0 ? values[at * n + j] : Math.max(values[at * n + j], 0));
      const top = coarse.reduce((most, at) => Math.max(most, Math.abs(value(at))), 1e-9);
      return (at) => value(at) / top;
    };

    const places = []; // where each hidden neuron is drawn, for the pointer
    const drawNetwork = (seen) => network.paint((pen, width, height) => {
      const { sizes, layers, face } = training.net;
      const s = training.s;
      const { on } = history.at(-1);
      const last = sizes.length - 1;
      const [top, bottom, side] = [24, 4, 26];
      const columns = sizes.map((_, l) => side + (l / last) * (width - 2 * side));
      const room = sizes.map((n) => (height - top - bottom) / n);
      const middle = (l, j) => top + (j + 0.5) * room[l];
      const alive = (l, j) => !s[l] || s[l][j] !== 0;
      const used = (l, j) => alive(l, j) && (l > 0 || !s[1].every((v) => v === 0)); // an input that nobody reads is as good as off
      places.length = 0;

      // Connections in few strokes: one for all that are off, and one for each colour and strength.
      const strokes = new Map();
      layers.forEach(({ W, inputs, outputs }, l) => {
        for (let j = 0; j < outputs; j++) {
          for (let i = 0; i < inputs; i++) {
            const row = face === "incoming" && s[l + 1] ? s[l + 1][j] : 1;
            const column = (face === "outgoing" || l === 0) && s[l] ? s[l][i] : 1;
            const w = W.value[j * inputs + i] * row * column;
            const on = alive(l, i) && (l + 1 === last || alive(l + 1, j));
            const strength = on ? Math.ceil(8 * Math.min(1, Math.abs(w) / 1.5)) : 0;
            const name = on ? `${w > 0 ? "blue" : "orange"} ${strength}` : "off";
            if (!strokes.has(name)) strokes.set(name, []);
            strokes.get(name).push([l, i, j]);
          }
        }
      });
      for (const [name, ends] of strokes) {
        const [colour, strength] = name.split(" ");
        pen.strokeStyle = colour === "off" ? colours.ink : colours[colour];
        pen.globalAlpha = colour === "off" ? 0.07 : 0.12 + 0.1 * strength;
        pen.lineWidth = colour === "off" ? 0.75 : 0.4 + 0.4 * strength;
        pen.beginPath();
        for (const [l, i, j] of ends) {
          const [x0, x1, y0, y1] = [columns[l], columns[l + 1], middle(l, i), middle(l + 1, j)];
          pen.moveTo(x0, y0);
          pen.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
        }
        pen.stroke();
      }
      pen.globalAlpha = 1;

      // Neurons: a tile of what each computes, as large as its factor; a cross where it is off.
      sizes.forEach((n, l) => {
        const full = Math.min(28, room[l] - 2);
        for (let j = 0; j < n; j++) {
          const [cx, cy] = [columns[l], middle(l, j)];
          const factor = s[l] ? s[l][j] : 1;
          if (l > 0 && l < last) places.push({ value: `${l}:${j}`, x: cx, y: cy, reach: Math.max(full, 12) / 2 });
          if (!used(l, j)) {
            const half = full * 0.22;
            pen.fillStyle = colours.paper;
            pen.fillRect(cx - half - 2, cy - half - 2, 2 * half + 4, 2 * half + 4);
            pen.strokeStyle = colours.ink;
            pen.globalAlpha = 0.6;
            pen.lineWidth = 1.25;
            pen.beginPath();
            pen.moveTo(cx - half, cy - half);
            pen.lineTo(cx + half, cy + half);
            pen.moveTo(cx - half, cy + half);
            pen.lineTo(cx + half, cy - half);
            pen.stroke();
            pen.globalAlpha = 1;
          } else {
            const edge = full * (0.4 + 0.6 * Math.min(1, factor));
            const value = l === last ? (at) => (j ? 1 : -1) * seen.lean(at) : activation(seen, l, j);
            const signed = l === last ? (at) => (value(at) > 0 ? (j ? 1 : -1) * value(at) : 0) : value;
            pen.drawImage(small((at) => signed(coarse[at]), colours, 0.9), cx - edge / 2, cy - edge / 2, edge, edge);
            pen.strokeStyle = colours.ink;
            pen.lineWidth = factor > 1 ? 2 : 1; // an unbounded gate has made it louder
            pen.strokeRect(cx - edge / 2, cy - edge / 2, edge, edge);
          }
          if (shown === `${l}:${j}`) {
            pen.strokeStyle = colours.green;
            pen.lineWidth = 2.5;
            pen.strokeRect(cx - full / 2 - 2, cy - full / 2 - 2, full + 4, full + 4);
          }
        }
        pen.fillStyle = colours.ink;
        pen.font = "12px system-ui, sans-serif";
        pen.textAlign = l === 0 ? "left" : l === last ? "right" : "center";
        const text = l === 0 ? "inputs" : l === last ? "outputs" : `${on[l]} of ${n} on`;
        pen.fillText(text, l === 0 ? 2 : l === last ? width - 2 : columns[l], 13);
      });
      const names = FEATURES[settings.features];
      pen.textAlign = "left";
      pen.font = "11px system-ui, sans-serif";
      const half = Math.min(28, room[0] - 2) / 2;
      if (room[0] > 40) names.forEach(([name], i) => pen.fillText(name, columns[0] - half, middle(0, i) + half + 13));
    });

    // The points of the training set, drawn once for each set and size.
    const points = { canvas: html("canvas"), of: null };
    const drawPoints = (side) => {
      const sharp = window.devicePixelRatio || 1;
      const of = [training.data, side, sharp, colours.ink];
      if (points.of && of.every((v, i) => v === points.of[i])) return points.canvas;
      points.of = of;
      points.canvas.width = points.canvas.height = Math.round(side * sharp);
      const pen = points.canvas.getContext("2d");
      pen.setTransform(sharp, 0, 0, sharp, 0, 0);
      pen.lineWidth = 1;
      pen.strokeStyle = colours.paper;
      const { train } = training.data;
      train.points.forEach(([u, v], r) => {
        const [x, y] = [((u + REACH) / (2 * REACH)) * side, ((REACH - v) / (2 * REACH)) * side];
        pen.fillStyle = train.labels[r] ? colours.blue : colours.orange;
        pen.beginPath();
        if (train.labels[r]) pen.rect(x - 3, y - 3, 6, 6);
        else pen.arc(x, y, 3.4, 0, 2 * Math.PI);
        pen.fill();
        pen.stroke();
      });
      return points.canvas;
    };

    // The line along which v is 0, by linear interpolation inside each cell of the grid (marching squares).
    const zeroLine = (pen, v, side) => {
      const cell = side / GRID;
      pen.beginPath();
      for (let r = 0; r + 1 < GRID; r++) {
        for (let c = 0; c + 1 < GRID; c++) {
          const at = r * GRID + c;
          const above = (v[at] > 0) + (v[at + 1] > 0) + (v[at + GRID] > 0) + (v[at + GRID + 1] > 0);
          if (above === 0 || above === 4) continue;
          const corners = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]].map(([a, b]) => [a, b, v[a * GRID + b]]);
          const crossings = [];
          corners.forEach(([a, b, p], k) => {
            const [a2, b2, q] = corners[(k + 1) % 4];
            if (p > 0 === q > 0) return;
            const t = p / (p - q);
            crossings.push([(b + t * (b2 - b) + 0.5) * cell, (a + t * (a2 - a) + 0.5) * cell]);
          });
          for (let k = 0; k + 1 < crossings.length; k += 2) {
            pen.moveTo(...crossings[k]);
            pen.lineTo(...crossings[k + 1]);
          }
        }
      }
      pen.stroke();
    };

    const drawPlane = (seen) => plane.paint((pen, side) => {
      const [l, j] = shown.split(":").map(Number);
      const value = shown === "output" ? seen.lean : activation(seen, l, j);
      pen.drawImage(large(value, colours, shown === "output" ? 0.55 : 0.75), 0, 0, side, side);
      const lean = Float64Array.from({ length: GRID * GRID }, (_, at) => seen.lean(at));
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 1.5;
      zeroLine(pen, lean, side);
      pen.drawImage(drawPoints(side), 0, 0, side, side);
    });

    const drawChart = (chart, low, lines) => chart.paint((pen, width, height) => {
      const [left, right, top, bottom] = [40, 8, 8, 20];
      const end = Math.max(history.at(-1).step, 100);
      const px = (step) => left + (step / end) * (width - left - right);
      const py = (share) => top + ((1 - share) / (1 - low)) * (height - top - bottom);
      pen.font = "11px system-ui, sans-serif";
      pen.fillStyle = colours.ink;
      for (const share of [low, (1 + low) / 2, 1]) {
        pen.globalAlpha = 0.2;
        pen.strokeStyle = colours.ink;
        pen.lineWidth = 1;
        pen.beginPath();
        pen.moveTo(left, py(share));
        pen.lineTo(width - right, py(share));
        pen.stroke();
        pen.globalAlpha = 0.8;
        pen.textAlign = "right";
        pen.fillText(`${Math.round(100 * share)} %`, left - 5, py(share) + 4);
      }
      pen.fillText(`${grouped(end)} task steps`, width - right, height - 4);
      pen.textAlign = "left";
      pen.fillText("0", left, height - 4);
      pen.globalAlpha = 1;
      for (const [value, colour, dashed] of lines) {
        pen.strokeStyle = colour;
        pen.lineWidth = dashed ? 1.5 : 2;
        pen.setLineDash(dashed ? [4, 3] : []);
        pen.beginPath();
        history.forEach((at, i) => pen[i ? "lineTo" : "moveTo"](px(at.step), Math.min(py(value(at)), py(low))));
        pen.stroke();
      }
      pen.setLineDash([]);
    });

    // `settled`: nothing is moving, so texts for assistive technology are brought up to date, too.
    let described = 0;
    const draw = (settled) => {
      colours ??= readColours(root);
      const now = history.at(-1);
      const seen = surface();
      drawNetwork(seen);
      drawPlane(seen);
      drawChart(accuracy, 0.4, [[(at) => at.train, colours.green, true], [(at) => at.test, colours.green, false]]);
      const shares = [(at) => at.neurons / at.allNeurons, (at) => at.parameters / at.allParameters];
      drawChart(size, 0, [[shares[0], colours.blue, true], [shares[1], colours.blue, false]]);
      steps.textContent = `${grouped(now.step)} task steps, ${grouped(training.switcherSteps)} switcher steps`;
      tiles["Test accuracy"].show(percent(now.test));
      tiles["Training accuracy"].show(percent(now.train));
      tiles["Neurons on"].show(`${now.neurons} of ${now.allNeurons}`);
      tiles["Connections on"].show(`${now.connections} of ${now.allConnections}`);
      tiles["Parameters left"].show(`${now.parameters} of ${now.allParameters}`);
      tiles["Came back"].show(`${training.cameBack.size} of ${training.wentOff.size} ever off`);
      if (!settled && performance.now() - described < 2000) return;
      described = performance.now();
      const text = describe();
      network.canvas.setAttribute("aria-label", `Network ${training.net.sizes.join("-")} with its factors. ${text}`);
      plane.canvas.setAttribute("aria-label", shown === "output"
        ? `The plane, coloured by the network's probability of class 1, with the training points. Test accuracy ${percent(now.test)}.`
        : `The plane, coloured by what ${look.selectedOptions[0].textContent} computes, with the training points.`);
      accuracy.canvas.setAttribute("aria-label", `Accuracy over ${grouped(now.step)} task steps: test ${percent(history[0].test)} at the start, ` +
        `${percent(now.test)} now; training ${percent(now.train)} now.`);
      size.canvas.setAttribute("aria-label", `Size over ${grouped(now.step)} task steps: ${percent(now.parameters / now.allParameters, 0)} of the ` +
        `parameters and ${percent(now.neurons / now.allNeurons, 0)} of the neurons left.`);
    };

    // A neuron that is clicked is shown in the large picture; the select beside it does the same by keyboard.
    network.canvas.addEventListener("click", (event) => {
      const found = places.find(({ x, y, reach }) => Math.abs(event.offsetX - x) <= reach + 2 && Math.abs(event.offsetY - y) <= reach);
      shown = found && found.value !== shown ? found.value : "output";
      look.value = shown;
      draw(true);
    });

    // Links ----------------------------------------------------------------------------------------------------------
    // An anchor of the page's own text is none of the playground's business: parse() returns null.
    const follow = ({ first = false } = {}) => {
      const found = parse(window.location.hash);
      if (!found) {
        if (first) change(defaults(), { fresh: true, silent: true });
        return;
      }
      change(found.settings, { fresh: true, silent: true });
      // What the link has set must be seen
      if (SETTINGS.some(({ name, group: of, start: usual }) => of.startsWith("More") && settings[name] !== usual)) more.open = true;
      if (found.complaints.length) {
        const rest = found.complaints.length > 4 ? ` and ${found.complaints.length - 4} more` : "";
        notify(`The link asks for what the playground does not have: ${found.complaints.slice(0, 4).join(", ")}${rest}. ` +
          "The defaults stand in their place.");
      } else if (!first) notify("The experiment is set up. Press Run.");
      if (first) return;
      root.scrollIntoView({ block: "start", behavior: "auto" });
      run.focus({ preventScroll: true });
    };
    window.addEventListener("hashchange", () => follow());
    document.addEventListener("click", (event) => { // a link to what the address says already changes no address
      if (event.target.closest?.('a[href^="#play:"]')?.hash === window.location.hash) follow();
    });
    keepKeys(root);
    follow({ first: true });

    // The theme, and the width, can change at any time.
    const recolour = () => {
      colours = null;
      if (!running) draw(true);
    };
    new MutationObserver(recolour).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    followWidth(root, () => running || draw(true));

    // For the console, and for the tests.
    return {
      advance: (count) => { advance(count); draw(true); }, change, describe, draw, pause, root, start,
      format: () => format(settings),
      get history() { return history; },
      get settings() { return settings; },
      get training() { return training; },
    };
  };

  return { mount };
})();

const playground = PlaygroundView.mount(document.getElementById("playground"));
