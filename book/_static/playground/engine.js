// The two networks of the playground and how they learn, in plain JavaScript and double precision.
//
// It computes what switcher_lib computes with PyTorch, with every gradient written out by hand; tests/test_playground.py
// holds the two side by side. Read it from top to bottom: a layer, the gates, the task network, the switchers, the
// optimizers, and at the end the three kinds of step.
//
// A matrix is one Float64Array, row after row: entry (r, c) of an n × d matrix is at r * d + c. A parameter is
// {value, grad}, and backward passes add to grad, as PyTorch's do.
"use strict";

const PlaygroundEngine = (() => {
  const parameter = (size) => ({ value: new Float64Array(size), grad: new Float64Array(size) });
  const sum = (values) => {
    let total = 0;
    for (let i = 0; i < values.length; i++) total += values[i];
    return total;
  };

  // ---------------------------------------------------------------------------------------------------- a layer

  // z = W h + b for each of the n rows of h.
  class Linear {
    constructor(inputs, outputs) {
      Object.assign(this, { inputs, outputs, W: parameter(outputs * inputs), b: parameter(outputs) });
    }

    get parameters() {
      return [this.W, this.b];
    }

    // As PyTorch does: weights and biases uniform within ± 1 / √inputs.
    initialize(random) {
      const bound = 1 / Math.sqrt(this.inputs);
      for (const { value } of this.parameters) value.forEach((_, i) => (value[i] = bound * (2 * random() - 1)));
    }

    forward(h, n) {
      const { inputs, outputs } = this;
      const [W, b] = [this.W.value, this.b.value];
      const z = new Float64Array(n * outputs);
      for (let r = 0; r < n; r++) {
        for (let j = 0; j < outputs; j++) {
          const [row, example] = [j * inputs, r * inputs];
          let total = b[j];
          for (let i = 0; i < inputs; i++) total += W[row + i] * h[example + i];
          z[r * outputs + j] = total;
        }
      }
      return z;
    }

    // From ∂L/∂z: adds ∂L/∂W = Σ dz hᵀ and ∂L/∂b = Σ dz over the rows, and returns ∂L/∂h = Wᵀ dz.
    backward(h, dz, n) {
      const { inputs, outputs } = this;
      const W = this.W.value;
      const [dW, db] = [this.W.grad, this.b.grad];
      const dh = new Float64Array(n * inputs);
      for (let r = 0; r < n; r++) {
        for (let j = 0; j < outputs; j++) {
          const d = dz[r * outputs + j];
          if (d === 0) continue; // a ReLU that is off sends nothing back
          db[j] += d;
          for (let i = 0; i < inputs; i++) {
            dW[j * inputs + i] += d * h[r * inputs + i];
            dh[r * inputs + i] += d * W[j * inputs + i];
          }
        }
      }
      return dh;
    }
  }

  const relu = (z) => z.map((v) => (v > 0 ? v : 0));

  // Mean cross-entropy of softmax(logits) and the labels, and its gradient (softmax − one-hot) / n.
  const crossEntropy = (logits, labels) => {
    const n = labels.length;
    const classes = logits.length / n;
    const gradient = new Float64Array(logits.length);
    let loss = 0;
    for (let r = 0; r < n; r++) {
      const row = logits.subarray(r * classes, (r + 1) * classes);
      const top = Math.max(...row); // subtracted, so that exp cannot overflow
      const total = sum(row.map((v) => Math.exp(v - top)));
      loss += (Math.log(total) + top - row[labels[r]]) / n;
      for (let c = 0; c < classes; c++) {
        gradient[r * classes + c] = (Math.exp(row[c] - top) / total - (c === labels[r] ? 1 : 0)) / n;
      }
    }
    return { loss, gradient };
  };

  // ---------------------------------------------------------------------------------------------------- gates

  // From a site's scores a to its factors s, and back from ∂L/∂s to ∂L/∂a. Names and gradients are the library's.
  class Gate {
    constructor(factor, slope) {
      Object.assign(this, { factor, slope, parameters: [] });
    }

    forward(a) {
      this.a = a;
      return a.map(this.factor);
    }

    backward(ds) {
      return ds.map((d, j) => d * this.slope(this.a[j]));
    }
  }

  const clampGate = () => new Gate((a) => Math.min(Math.max(a, 0), 1), (a) => (a > 0 ? 1 : 0)); // straight through above 1

  // A clamp in which neurons compete: around the mean of the layer's scores. The mean's own gradient is taken off again.
  class CentredClamp {
    constructor() {
      Object.assign(this, { clamp: clampGate(), parameters: [] });
    }

    forward(a) {
      const mean = sum(a) / a.length;
      return this.clamp.forward(a.map((v) => v - mean + 0.5));
    }

    backward(ds) {
      const da = this.clamp.backward(ds);
      const mean = sum(da) / da.length;
      return da.map((d) => d - mean);
    }
  }

  // ReLU(BatchNorm(a)) over the layer's own scores: the original's gate. While training it uses their mean and variance
  // and, in the switcher's steps, lets running statistics follow; evaluation uses those.
  class ReLUBatchNorm {
    constructor() {
      this.scale = parameter(1);
      this.shift = parameter(1);
      this.scale.value[0] = 1;
      Object.assign(this, { parameters: [this.scale, this.shift], runningMean: 0, runningVar: 1 });
    }

    forward(a, { training = false, moving = 0 } = {}) {
      const n = a.length;
      const mean = sum(a) / n;
      const variance = sum(a.map((v) => (v - mean) ** 2)) / n;
      if (moving) {
        this.runningMean += moving * (mean - this.runningMean);
        this.runningVar += moving * ((variance * n) / Math.max(n - 1, 1) - this.runningVar);
      }
      const [centre, spread] = training ? [mean, variance] : [this.runningMean, this.runningVar];
      this.width = Math.sqrt(spread + 1e-5);
      this.normal = a.map((v) => (v - centre) / this.width);
      this.s = relu(this.normal.map((v) => this.scale.value[0] * v + this.shift.value[0]));
      return this.s;
    }

    backward(ds) {
      const dy = ds.map((d, j) => (this.s[j] > 0 ? d : 0));
      const along = dy.map((d, j) => d * this.normal[j]);
      this.shift.grad[0] += sum(dy);
      this.scale.grad[0] += sum(along);
      const [dyMean, alongMean] = [sum(dy) / dy.length, sum(along) / dy.length];
      return dy.map((d, j) => (this.scale.value[0] / this.width) * (d - dyMean - this.normal[j] * alongMean));
    }
  }

  const GATES = {
    clamp: clampGate,
    clamp_centred: () => new CentredClamp(),
    relu: () => new Gate((a) => Math.max(a, 0), (a) => (a > 0 ? 1 : 0)),
    relu_tanh: () => new Gate((a) => Math.max(Math.tanh(a), 0), (a) => (a > 0 ? 1 - Math.tanh(a) ** 2 : 0)),
    relu_bn: () => new ReLUBatchNorm(),
    step: () => new Gate((a) => (a > 0 ? 1 : 0), () => 1), // straight through everywhere
  };

  // ---------------------------------------------------------------------------------------------------- the task network

  // f(x; θ ⊙ s): Linear, ReLU, Linear, ..., Linear. s[0] holds the factors of the input features, or null where they are
  // not switched; s[l] those of hidden layer l. A hidden neuron is scaled at its incoming face, its row and bias, or at
  // its outgoing face, its readers' columns; a feature has an outgoing face only. Instead of the weights, what they
  // make is multiplied: s (W h + b) = (s W) h + s b, and (W s) h = W (s h).
  class TaskNetwork {
    constructor(sizes, { face = "incoming", switchInputs = false } = {}) {
      Object.assign(this, { sizes, face, switchInputs });
      this.layers = sizes.slice(1).map((outputs, l) => new Linear(sizes[l], outputs));
      this.sites = sizes.slice(0, -1).map((_, l) => l).slice(switchInputs ? 0 : 1); // what is switched: 0, 1, 2 or 1, 2
    }

    get parameters() {
      return this.layers.flatMap((layer) => layer.parameters);
    }

    ones() {
      return this.sizes.slice(0, -1).map((size, l) => (this.sites.includes(l) ? new Float64Array(size).fill(1) : null));
    }

    // Returns the logits, and all that backward() and the pictures need: z[l] is the pre-activation of hidden layer l
    // and h[l] what layer l + 1 reads.
    forward(x, n, s) {
      const h = [s[0] ? times(x, s[0]) : x];
      const z = [x];
      this.layers.forEach((layer, l) => {
        const made = layer.forward(h[l], n);
        z.push(made);
        if (l + 1 === this.layers.length) return;
        h.push(this.face === "incoming" ? relu(times(made, s[l + 1])) : times(relu(made), s[l + 1]));
      });
      return { logits: z.at(-1), z, h, n };
    }

    // From ∂L/∂logits: adds the gradients of θ with s held, and returns ∂L/∂s, one vector for each site.
    backward({ z, h, n }, dlogits, s) {
      const ds = s.map((factors) => factors && new Float64Array(factors.length));
      let dz = dlogits;
      for (let l = this.layers.length - 1; l >= 0; l--) {
        const dh = this.layers[l].backward(h[l], dz, n);
        if (!s[l]) break; // input features that are not switched
        const size = this.sizes[l];
        dz = new Float64Array(dh.length);
        for (let r = 0; r < n; r++) {
          for (let j = 0; j < size; j++) {
            const at = r * size + j;
            if (l === 0) {
              ds[l][j] += dh[at] * z[l][at]; // h = s x
            } else if (this.face === "incoming") {
              if (s[l][j] * z[l][at] <= 0) continue; // h = ReLU(s z): at s = 0 the ReLU lets nothing through
              ds[l][j] += dh[at] * z[l][at];
              dz[at] = dh[at] * s[l][j];
            } else if (z[l][at] > 0) {
              ds[l][j] += dh[at] * z[l][at]; // h = s ReLU(z)
              dz[at] = dh[at] * s[l][j];
            }
          }
        }
      }
      return ds;
    }

    // How many parameters are left if `on[l]` of layer l's neurons are on, and the derivatives with respect to on[l].
    count(on) {
      let count = 0;
      const slopes = on.map(() => 0);
      for (let l = 0; l + 1 < on.length; l++) {
        count += (on[l] + 1) * on[l + 1]; // weights and biases
        slopes[l] += on[l + 1];
        slopes[l + 1] += on[l] + 1;
      }
      return { count, slopes };
    }
  }

  // Every row of h (any number of rows) times the factors s.
  const times = (h, s) => h.map((v, at) => v * s[at % s.length]);

  // ---------------------------------------------------------------------------------------------------- who decides s

  // What all switchers share: scores go through one gate for each site, and the cost term is made of the factors.
  class Switcher {
    constructor(net, gate) {
      Object.assign(this, { net, gate });
      this.gates = net.ones().map((ones) => ones && GATES[gate]());
    }

    get parameters() {
      return this.gates.flatMap((gate) => (gate ? gate.parameters : []));
    }

    // s = s_ψ(θ). `mode` says whether a gate that normalises is training.
    forward(mode) {
      return this.scores().map((a, l) => a && this.gates[l].forward(a, mode));
    }

    // From ∂L/∂s: adds the gradients of ψ; with `flow` also those that reach θ through what was read.
    backward(ds, flow = false) {
      this.scoresBackward(ds.map((d, l) => d && this.gates[l].backward(d)), flow);
    }

    // C: the share of the task network's parameters that is in use, where a neuron counts as min(s, 1); and ∂C/∂s.
    cost(s) {
      const { sizes } = this.net;
      const capped = this.gate !== "step"; // a factor at its bound feels the loss alone; 0 and 1 count as they are
      const on = sizes.map((size, l) => (s[l] ? sum(s[l].map((v) => Math.min(v, 1))) : size));
      const { count, slopes } = this.net.count(on);
      const dense = this.net.count(sizes).count;
      const ds = s.map((factors, l) => factors && factors.map((v) => (capped && v >= 1 ? 0 : slopes[l] / dense)));
      return { cost: count / dense, ds };
    }
  }

  // s_j = g(MLP(w_j)): one MLP for each site, shared by its neurons. Each block that is read is divided by its standard
  // deviation over the whole layer. `order` gives, for each parameter, whose numbers are shown in place of its own:
  // a control that sees every weight, but each in the wrong place.
  class RowSwitcher extends Switcher {
    constructor(net, { gate = "clamp", reads = "incoming", hidden = 32, order = new Map() } = {}) {
      super(net, gate);
      this.hidden = hidden;
      this.blocks = net.sizes.map((_, l) => (net.sites.includes(l) ? readBlocks(net, l, reads, order) : null));
      this.scorers = this.blocks.map((blocks) => blocks && {
        first: new Linear(sum(blocks.map((block) => block.width)), hidden),
        last: new Linear(hidden, 1),
      });
    }

    get parameters() {
      const own = this.scorers.flatMap((scorer) => (scorer ? [...scorer.first.parameters, ...scorer.last.parameters] : []));
      return [...own, ...super.parameters];
    }

    initialize(random) {
      for (const scorer of this.scorers.filter(Boolean)) {
        scorer.first.initialize(random);
        scorer.last.initialize(random);
        scorer.last.b.value[0] = 0.5; // the middle of the clamp's slope
      }
    }

    scores() {
      return this.net.sizes.slice(0, -1).map((n, l) => {
        const scorer = this.scorers[l];
        if (!scorer) return null;
        scorer.rows = standardize(this.blocks[l], n, scorer.first.inputs);
        scorer.inside = relu(scorer.first.forward(scorer.rows, n));
        return scorer.last.forward(scorer.inside, n);
      });
    }

    scoresBackward(da, flow) {
      da.forEach((d, l) => {
        if (!d) return;
        const { first, last, rows, inside } = this.scorers[l];
        const n = d.length;
        const dInside = last.backward(inside, d, n).map((v, at) => (inside[at] > 0 ? v : 0));
        const dRows = first.backward(rows, dInside, n);
        if (flow) standardizeBackward(this.blocks[l], dRows, n, first.inputs);
      });
    }
  }

  // The numbers that a site's neurons are judged by: their own rows and biases, their readers' columns, or both, columns
  // first; features have columns only. A block is a list of places, `width` of them for each neuron in turn.
  const readBlocks = (net, l, reads, order) => {
    const size = net.sizes[l];
    const [own, reader] = [net.layers[l - 1], net.layers[l]];
    const place = (p, index) => ({ p, index: order.has(p) ? order.get(p)[index] : index });
    const block = (width, at) => ({
      width,
      places: Array.from({ length: size * width }, (_, e) => at(Math.floor(e / width), e % width)),
    });
    const incoming = () => block(own.inputs + 1, (j, i) =>
      i < own.inputs ? place(own.W, j * own.inputs + i) : place(own.b, j));
    const outgoing = () => block(reader.outputs, (j, k) => place(reader.W, k * size + j));
    if (l === 0 || reads === "outgoing") return [outgoing()];
    return reads === "both" ? [outgoing(), incoming()] : [incoming()];
  };

  const EPSILON = 1e-8; // keeps a layer whose weights are all equal from a division by 0

  // The blocks side by side as an (n, width) matrix, each divided by its standard deviation σ. The mean stays in.
  const standardize = (blocks, n, width) => {
    const rows = new Float64Array(n * width);
    let from = 0;
    for (const block of blocks) {
      block.values = new Float64Array(block.places.length);
      block.places.forEach(({ p, index }, e) => (block.values[e] = p.value[index]));
      block.mean = sum(block.values) / block.values.length;
      block.sigma = Math.sqrt(Math.max(sum(block.values.map((v) => v * v)) / block.values.length - block.mean ** 2, 0));
      block.values.forEach((v, e) => {
        rows[Math.floor(e / block.width) * width + from + (e % block.width)] = v / (block.sigma + EPSILON);
      });
      from += block.width;
    }
    return rows;
  };

  // Back to θ: v / (σ + ε) depends on v itself, and on every v through ∂σ/∂v = (v − mean) / (count σ).
  const standardizeBackward = (blocks, dRows, n, width) => {
    let from = 0;
    for (const { places, values, mean, sigma, width: wide } of blocks) {
      const d = values.map((_, e) => dRows[Math.floor(e / wide) * width + from + (e % wide)]);
      const dSigma = -sum(d.map((v, e) => v * values[e])) / (sigma + EPSILON) ** 2;
      places.forEach(({ p, index }, e) => {
        const throughSigma = sigma > 0 ? (dSigma * (values[e] - mean)) / (values.length * sigma) : 0;
        p.grad[index] += d[e] / (sigma + EPSILON) + throughSigma;
      });
      from += wide;
    }
  };

  // The control: one free score for each neuron, s_j = g(a_j). Same gate, same steps, same loss; nothing is read.
  class FreeGates extends Switcher {
    constructor(net, { gate = "clamp" } = {}) {
      super(net, gate);
      this.free = net.ones().map((ones) => ones && parameter(ones.length));
    }

    get parameters() {
      return [...this.free.filter(Boolean), ...super.parameters];
    }

    initialize(random) {
      for (const { value } of this.free.filter(Boolean)) value.forEach((_, j) => (value[j] = 0.5 + 0.1 * normal(random)));
    }

    scores() {
      return this.free.map((scores) => scores && scores.value);
    }

    scoresBackward(da) {
      da.forEach((d, l) => d && d.forEach((v, j) => (this.free[l].grad[j] += v)));
    }
  }

  // ---------------------------------------------------------------------------------------------------- optimizers

  // As torch.optim.SGD: weight decay joins the gradient, and the velocity starts with the first gradient.
  class SGD {
    constructor(parameters, { lr, momentum = 0, weightDecay = 0 }) {
      Object.assign(this, { parameters, lr, momentum, weightDecay, velocities: null });
    }

    step() {
      const first = !this.velocities;
      this.velocities ??= this.parameters.map(({ value }) => new Float64Array(value.length));
      this.parameters.forEach(({ value, grad }, k) => {
        const velocity = this.velocities[k];
        for (let i = 0; i < value.length; i++) {
          const g = grad[i] + this.weightDecay * value[i];
          velocity[i] = first ? g : this.momentum * velocity[i] + g;
          value[i] -= this.lr * velocity[i];
        }
      });
    }
  }

  // As torch.optim.Adam: running means of g and g², corrected for having started at 0.
  class Adam {
    constructor(parameters, { lr }) {
      Object.assign(this, { parameters, lr, t: 0 });
      this.means = parameters.map(({ value }) => new Float64Array(value.length));
      this.squares = parameters.map(({ value }) => new Float64Array(value.length));
    }

    step() {
      this.t += 1;
      const [meanShare, squareShare] = [1 - 0.9 ** this.t, 1 - 0.999 ** this.t];
      this.parameters.forEach(({ value, grad }, k) => {
        const [mean, square] = [this.means[k], this.squares[k]];
        for (let i = 0; i < value.length; i++) {
          mean[i] += 0.1 * (grad[i] - mean[i]);
          square[i] = 0.999 * square[i] + 0.001 * grad[i] * grad[i];
          value[i] -= ((this.lr / meanShare) * mean[i]) / (Math.sqrt(square[i] / squareShare) + 1e-8);
        }
      });
    }
  }

  const clear = (parameters) => parameters.forEach(({ grad }) => grad.fill(0));

  // ---------------------------------------------------------------------------------------------------- both, by turns

  // A task network and its switcher. `held` fixes the factors from outside, for a warm-up or where nobody switches.
  class Switched {
    constructor(net, switcher, { flow = false } = {}) {
      Object.assign(this, { net, switcher, flow, held: null });
      this.switcher.forward({ training: true, moving: 1 }); // a BatchNorm starts from the first scores' statistics
    }

    // The factors: as they are while training, or with mode {} as the finished network has them.
    factors(mode = {}) {
      return this.held ?? this.switcher.forward(mode);
    }

    logits(x, n, s = this.factors()) {
      return this.net.forward(x, n, s).logits;
    }

    // θ ← θ − η ∇_θ L(θ ⊙ s̄): s is computed, then held. With flow its dependence on θ counts, too.
    taskStep(x, labels, optimizer) {
      const s = this.factors({ training: true });
      clear(this.net.parameters);
      clear(this.switcher.parameters); // flow fills these, and nobody steps on them
      const { loss, ds } = this.lossBackward(x, labels, s);
      if (this.flow && !this.held) this.switcher.backward(ds, true);
      optimizer.step();
      return loss;
    }

    // ψ ← ψ − η′ ∇_ψ [L(θ̄ ⊙ s) + λ C(s)]: θ is held.
    switcherStep(x, labels, optimizer, lambda) {
      const s = this.switcher.forward({ training: true, moving: 0.1 });
      clear(this.switcher.parameters);
      const { loss, ds } = this.lossBackward(x, labels, s);
      const { cost, ds: dCost } = this.switcher.cost(s);
      this.switcher.backward(ds.map((d, l) => d && d.map((v, j) => v + lambda * dCost[l][j])));
      optimizer.step();
      return loss + lambda * cost;
    }

    // No turns: both step on one loss, L + λ C. Without flow θ gets the gradient of L alone.
    jointStep(x, labels, taskOptimizer, switcherOptimizer, lambda) {
      const s = this.switcher.forward({ training: true, moving: 0.1 });
      clear(this.net.parameters);
      clear(this.switcher.parameters);
      const { loss, ds } = this.lossBackward(x, labels, s);
      const { cost, ds: dCost } = this.switcher.cost(s);
      this.switcher.backward(ds.map((d, l) => d && d.map((v, j) => v + lambda * dCost[l][j])), this.flow);
      taskOptimizer.step();
      switcherOptimizer.step();
      return loss + lambda * cost;
    }

    // One forward and one backward pass: both gradients come from it, ∂L/∂θ with s held and ∂L/∂s with θ held.
    lossBackward(x, labels, s) {
      const trace = this.net.forward(x, labels.length, s);
      const { loss, gradient } = crossEntropy(trace.logits, labels);
      return { loss, ds: this.net.backward(trace, gradient, s) };
    }

    // What is left if everything with a factor of exactly 0 is removed.
    structure(s = this.factors()) {
      const { sizes } = this.net;
      const on = sizes.map((size, l) => (s[l] ? s[l].filter((v) => v !== 0).length : size));
      let connections = 0;
      let allConnections = 0;
      for (let l = 0; l + 1 < sizes.length; l++) {
        connections += on[l] * on[l + 1];
        allConnections += sizes[l] * sizes[l + 1];
      }
      return {
        on, connections, allConnections,
        neurons: sum(on.slice(1, -1)), allNeurons: sum(sizes.slice(1, -1)),
        parameters: this.net.count(on).count, allParameters: this.net.count(sizes).count,
      };
    }

    // The smaller network: rows, biases and columns of what is off are gone, the factors are multiplied in. A layer with
    // nothing left keeps one neuron, whose factor is 0, so that there is a network at all.
    cut() {
      const s = this.factors();
      const { net } = this;
      const kept = net.sizes.map((size, l) => {
        const on = [...Array(size).keys()].filter((j) => !s[l] || s[l][j] !== 0);
        return on.length ? on : [0];
      });
      const small = new TaskNetwork(kept.map((on) => on.length), { face: net.face });
      small.layers.forEach((layer, l) => {
        const from = net.layers[l];
        const row = (j) => (net.face === "incoming" && s[l + 1] ? s[l + 1][j] : 1);
        const column = (i) => ((net.face === "outgoing" || l === 0) && s[l] ? s[l][i] : 1);
        kept[l + 1].forEach((j, a) => {
          layer.b.value[a] = row(j) * from.b.value[j];
          kept[l].forEach((i, b) => {
            layer.W.value[a * layer.inputs + b] = row(j) * column(i) * from.W.value[j * from.inputs + i];
          });
        });
      });
      return { net: small, kept };
    }
  }

  // ---------------------------------------------------------------------------------------------------- chance

  // Numbers in [0, 1) that look random and are the same for the same seed (mulberry32).
  const generator = (seed) => {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  };
  const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()); // Box and Muller
  const shuffled = (n, random) => {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  };

  return {
    Adam, FreeGates, GATES, Linear, RowSwitcher, SGD, Switched, TaskNetwork, crossEntropy, generator, normal, relu, shuffled, times,
  };
})();
