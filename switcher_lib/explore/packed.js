// Beside base.js, for explorers that compute from a network's weights: what packed.py packs, in double precision as in Python.

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
// One byte for each weight times one scale for each row.
const unpacked = ({ shape, weight, scale, bias }) => {
  const q = new Int8Array(bytesOf(weight).buffer);
  const row = q.length / shape[0];
  return { shape, bias, weight: Float64Array.from(q, (v, i) => v * scale[Math.floor(i / row)]) };
};
const softmaxOf = (z) => {
  const top = Math.max(...z);
  const e = [...z].map((v) => Math.exp(v - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
};
