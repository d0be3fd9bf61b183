// Points in the plane with two labels, drawn from a seed: the playground's data sets.
"use strict";

const PlaygroundData = (() => {
  const { generator, normal } = PlaygroundEngine;
  const TRAIN = 200;
  const TEST = 500;
  const REACH = 2.5; // points lie in about [−REACH, REACH]²: what the picture shows

  // Each shape puts one point of class 0 or 1 into the plane; noise is added afterwards.
  const SHAPES = {
    moons(label, random) {
      const angle = Math.PI * random();
      return label ? [1 - Math.cos(angle) - 0.5, 0.5 - Math.sin(angle) - 0.25].map((v) => 1.4 * v)
        : [Math.cos(angle) - 0.5, Math.sin(angle) - 0.25].map((v) => 1.4 * v);
    },
    circles(label, random) {
      const angle = 2 * Math.PI * random();
      const radius = label ? 0.8 : 1.8;
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    },
    spirals(label, random) {
      const along = Math.sqrt(0.03 + 0.97 * random()); // closer together further out, so that the arm is evenly filled
      const angle = 1.25 * 2 * Math.PI * along + (label ? Math.PI : 0);
      return [2 * along * Math.cos(angle), 2 * along * Math.sin(angle)];
    },
    xor(label, random) {
      const sign = random() < 0.5 ? 1 : -1;
      const [u, v] = [0.15 + 1.85 * random(), 0.15 + 1.85 * random()];
      return [sign * u, (label ? sign : -sign) * v];
    },
  };

  // What the task network reads of a point.
  const FEATURES = {
    xy: [["x₁", (u) => u], ["x₂", (_, v) => v]],
    seven: [
      ["x₁", (u) => u], ["x₂", (_, v) => v],
      ["x₁²", (u) => (u * u) / 2], ["x₂²", (_, v) => (v * v) / 2], // halved: all of about the same size
      ["x₁x₂", (u, v) => u * v], ["sin 2x₁", (u) => Math.sin(2 * u)], ["sin 2x₂", (_, v) => Math.sin(2 * v)],
    ],
  };

  // (n, 2) points to the (n, d) matrix of their features.
  const read = (points, features) => {
    const functions = FEATURES[features].map(([, f]) => f);
    const x = new Float64Array(points.length * functions.length);
    points.forEach(([u, v], r) => functions.forEach((f, i) => (x[r * functions.length + i] = f(u, v))));
    return x;
  };

  const draw = (shape, count, noise, random) => {
    const labels = Uint8Array.from({ length: count }, (_, r) => r % 2);
    const points = Array.from(labels, (label) => SHAPES[shape](label, random).map((v) => v + noise * normal(random)));
    return { points, labels };
  };
  // The same seed gives the same points.
  const make = ({ data, noise, seed, features }) => {
    const sets = [TRAIN, TEST].map((count, k) => draw(data, count, noise, generator(1000003 * seed + k)));
    const [train, test] = sets.map((set) => ({ ...set, x: read(set.points, features) }));
    return { train, test };
  };

  return { FEATURES, REACH, SHAPES, make, read };
})();
