// ConvChannels: a small convolutional network computed in the page, in double precision as in Python, with the channels kept that the reader asks for.

// One 3×3 convolution over the channels `from` of h, for the channels `to`; all maps lie one after another.
const convolve = ({ shape: [, inputs], weight, bias }, h, from, to, height, width) => {
  const size = height * width;
  const out = new Map();
  for (const o of to) {
    const z = new Float64Array(size).fill(bias[o]);
    for (const i of from) {
      const map = h.get(i);
      for (let ky = -1; ky <= 1; ky++)
        for (let kx = -1; kx <= 1; kx++) {
          const w = weight[(o * inputs + i) * 9 + (ky + 1) * 3 + kx + 1];
          const [left, right] = [Math.max(0, -kx), Math.min(width, width - kx)];
          for (let y = Math.max(0, -ky); y < Math.min(height, height - ky); y++) {
            const [to, of] = [y * width, (y + ky) * width + kx];
            for (let x = left; x < right; x++) z[to + x] += w * map[of + x];
          }
        }
    }
    out.set(o, z);
  }
  return out;
};
// ReLU, then the largest of each 2×2.
const pooled = (maps, height, width) => new Map([...maps].map(([key, z]) => {
  const half = new Float64Array((height / 2) * (width / 2));
  for (let y = 0; y < height / 2; y++)
    for (let x = 0; x < width / 2; x++) {
      const at = 2 * y * width + 2 * x;
      half[(y * width) / 2 + x] = Math.max(0, z[at], z[at + 1], z[at + width], z[at + width + 1]);
    }
  return [key, half];
}));

function render({ model, el }) {
  const layers = model.get("layers").map(unpacked);
  const full = layers.slice(0, -1).map((layer) => layer.shape[0]);
  const [depth, tall, wide] = model.get("shape");
  const [labels, classes, orders] = [model.get("labels"), model.get("classes"), model.get("orders")];
  const raw = bytesOf(model.get("pixels"));
  const imageOf = (n) => raw.subarray(n * depth * tall * wide, (n + 1) * depth * tall * wide);
  const every = (n) => Array.from({ length: n }, (_, i) => i);
  const c = controlsOf(model);

  const forward = (n, order, kept) => {
    const pixels = imageOf(n);
    const [mean, std] = [model.get("mean"), model.get("std")];
    let h = new Map(every(depth).map((i) =>
      [i, Float64Array.from(pixels.subarray(i * tall * wide, (i + 1) * tall * wide), (v) => (v / 255 - mean[i]) / std[i])]));
    let [from, height, width] = [every(depth), tall, wide];
    const maps = kept.map((keep, k) => {
      const to = orders[order][k].slice(0, keep);
      h = pooled(convolve(layers[k], h, from, to, height, width), height, width);
      [from, height, width] = [to, height / 2, width / 2];
      return { maps: h, height, width };
    });
    const { shape: [outputs, inputs], weight, bias } = layers.at(-1);
    const size = height * width;
    const z = every(outputs).map((o) => {
      let sum = bias[o];
      for (const [i, map] of h) for (let t = 0; t < size; t++) sum += weight[o * inputs + i * size + t] * map[t];
      return sum;
    });
    return { maps, p: softmaxOf(z) };
  };
  const costsOf = (kept) => {
    let [inputs, size] = [depth, tall * wide];
    const found = kept.map((keep) => {
      const cost = [keep * (9 * inputs + 1), keep * 9 * inputs * size];
      [inputs, size] = [keep, size / 4];
      return cost;
    });
    return [...found, [classes.length * (inputs * size + 1), classes.length * inputs * size]];
  };
  // All images under one choice: another image alone changes none of it.
  let [last, results] = [null, null];
  const all = (order, kept) => {
    const key = JSON.stringify([order, kept]);
    if (key !== last) [last, results] = [key, labels.map((_, n) => forward(n, order, kept))];
    return results;
  };
  const best = (p) => p.indexOf(Math.max(...p));

  const photo = html("canvas", { width: wide, height: tall, role: "img", style: "width:128px;image-rendering:pixelated" });
  const mosaics = full.map(() => html("canvas", { role: "img", style: "width:100%;image-rendering:pixelated" }));
  const names = mosaics.map(() => html("div", { class: "sl-name" }));
  const bars = classes.map((name) => {
    const [bar, text] = [html("i"), html("b")];
    return { bar, text, node: html("div", { class: "sl-bar", style: "grid-template-columns:6rem 1fr 5ch" }, html("span", {}, name), html("span", {}, bar), text) };
  });
  const chances = html("div", { class: "sl-bars", role: "img" }, ...bars.map((b) => b.node));
  const price = svg("svg", { role: "img" });
  const verdict = html("p", { class: "sl-verdict" });
  const tiles = [tile("Parameters"), tile("MACs of one image"), tile("Right on these images")];

  // Maps side by side, a pixel apart; each is as dark as its share of the layer's largest value. Removed ones are crossed out.
  const mosaic = (canvas, { maps, height, width }, n) => {
    const down = Math.ceil(n / Math.floor(264 / (width + 1)));
    const across = Math.ceil(n / down); // rows of one length, where that can be
    set(canvas, { width: across * (width + 1), height: down * (height + 1) });
    const ink = canvas.getContext("2d");
    const picture = ink.createImageData(canvas.width, canvas.height);
    let most = 1e-12;
    for (const map of maps.values()) for (const v of map) most = Math.max(most, v);
    const put = (at, r, g, b, a) => picture.data.set([r, g, b, a], 4 * at);
    for (let o = 0; o < n; o++) {
      const [x0, y0] = [(o % across) * (width + 1), Math.floor(o / across) * (height + 1)];
      const map = maps.get(o);
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          const at = (y0 + y) * canvas.width + x0 + x;
          if (map) put(at, 58, 147, 207, 24 + Math.round((231 * map[y * width + x]) / most));
          else if (x === y || x === width - 1 - y) put(at, 128, 128, 128, 90);
        }
    }
    ink.putImageData(picture, 0, 0);
  };
  const show = (n) => {
    const pixels = imageOf(n);
    const ink = photo.getContext("2d");
    const picture = ink.createImageData(wide, tall);
    for (let t = 0; t < tall * wide; t++)
      picture.data.set([0, 1, 2].map((k) => pixels[(k % depth) * tall * wide + t]).concat(255), 4 * t);
    ink.putImageData(picture, 0, 0);
  };

  const dense = costsOf(full);
  const sumOf = (costs, k) => costs.reduce((sum, cost) => sum + cost[k], 0);
  const layerNames = [...full.map((_, k) => `conv${k + 1}`), "last layer"];
  const percent = (v) => `${fixed(100 * v, 0)} %`;

  const draw = (width) => {
    const [n, order, kept] = [model.get("image"), model.get("order"), model.get("kept")];
    const found = all(order, kept);
    const { maps, p } = found[n];
    const top = best(p);
    const right = found.filter(({ p }, i) => best(p) === labels[i]).length;
    const costs = costsOf(kept);
    const [parameters, macs] = [sumOf(costs, 0), sumOf(costs, 1)];

    show(n);
    set(photo, { "aria-label": `Image ${n + 1}: ${classes[labels[n]]}.` });
    maps.forEach((layer, k) => {
      mosaic(mosaics[k], layer, full[k]);
      names[k].textContent = `conv${k + 1}: ${kept[k]} of ${full[k]} channels, maps of ${layer.height}×${layer.width}`;
      set(mosaics[k], { "aria-label": `What ${names[k].textContent} hand on.` });
    });
    bars.forEach(({ bar, text }, k) => {
      bar.style.width = `${(100 * p[k]).toFixed(2)}%`;
      text.textContent = percent(p[k]);
    });
    bars.forEach(({ node }, k) => {
      node.classList.toggle("sl-top", k === top);
      node.classList.toggle("sl-wrong", k === top && top !== labels[n]);
    });
    set(chances, { "aria-label": "Probabilities: " + p.map((v, k) => `${classes[k]} ${percent(v)}`).join(", ") + "." });

    // Each layer's share of the whole network, in both currencies: an outline for all channels, filled for those that are kept.
    const narrow = width < 480;
    const [left, gap] = [74, 16];
    const room = narrow ? width - left - 50 : (width - left - gap - 100) / 2;
    const block = 22 * layerNames.length + 24;
    set(price, { viewBox: `0 0 ${width} ${narrow ? 2 * block : block}`, width, height: narrow ? 2 * block : block });
    price.replaceChildren(...["parameters", "MACs"].flatMap((unit, k) => {
      const [x, y] = narrow ? [left, k * block] : [left + k * (room + gap + 50), 0];
      const colour = k ? "var(--sl-orange)" : "var(--sl-blue)";
      const most = Math.max(...dense.map((cost) => cost[k])) / sumOf(dense, k);
      return [
        svg("text", { x, y: y + 14 }, narrow ? `${unit}, share of all` : `${unit}: share of the whole network`),
        ...layerNames.flatMap((name, i) => {
          const [was, now] = [dense[i][k] / sumOf(dense, k), costs[i][k] / sumOf(dense, k)];
          const line = y + 22 + 22 * i;
          return [
            ...(narrow || !k ? [svg("text", { x: 0, y: line + 13 }, name)] : []),
            svg("rect", { x, y: line + 2, width: Math.max(1, (room * was) / most), height: 14, fill: "none", stroke: colour }),
            svg("rect", { x, y: line + 2, width: (room * now) / most, height: 14, fill: colour }),
            svg("text", { x: x + (room * was) / most + 6, y: line + 13 }, percent(now)),
          ];
        }),
      ];
    }));
    set(price, { "aria-label": layerNames.map((name, i) => `${name}: ${grouped(costs[i][0])} of ${grouped(dense[i][0])} parameters, ${grouped(costs[i][1])} of ${grouped(dense[i][1])} MACs`).join("; ") + "." });

    const text = `With ${kept.join(", ")} channels (${order} first), ${percent(parameters / sumOf(dense, 0))} of the parameters and ${percent(macs / sumOf(dense, 1))} of the MACs are left. ` +
      `Image ${n + 1} is labelled ${classes[labels[n]]}; the network says ${classes[top]} (${percent(p[top])})${top === labels[n] ? "" : ", which is wrong"}.`;
    verdict.textContent = text;
    tiles[0].show(`${grouped(parameters)} of ${grouped(sumOf(dense, 0))}`);
    tiles[1].show(`${grouped(macs)} of ${grouped(sumOf(dense, 1))}`);
    tiles[2].show(`${right} of ${labels.length}`);
    const sums = maps.map(({ maps }) => [...maps.values()].reduce((sum, map) => sum + map.reduce((a, b) => a + b, 0), 0));
    return { text, shown: { p, costs, parameters, macs, right, sums } };
  };

  const steps = full.map((n) => (n % 16 ? 1 : n / 16));
  return board(model, el, c, { label: "Explorer: channels of a convolutional network", traits: ["image", "kept", "order"], draw },
    html("div", { class: "sl-row" },
      c.choice("image", "Image", labels.map((label, i) => [i, `${i + 1}: ${classes[label]}`])),
      c.choice("order", "Keep first", Object.keys(orders).map((name) => [name, name]))),
    html("div", { class: "sl-row" },
      ...full.map((n, k) => c.slider("kept", k, `Channels of conv${k + 1}`, { min: steps[k], max: n, step: steps[k] }, (v) => `${v} of ${n}`)),
      c.button("Keep all", () => c.change({ kept: full }))),
    html("div", { class: "sl-masks", style: "grid-template-columns:128px minmax(0,1fr)" }, photo, chances),
    verdict,
    html("dl", { class: "sl-tiles" }, ...tiles), price,
    ...mosaics.flatMap((canvas, k) => [names[k], canvas]));
}

export default { render };
