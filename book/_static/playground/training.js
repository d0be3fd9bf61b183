// Alternate learning as the playground runs it: which batch comes next, whose turn it is, and what is measured.
"use strict";

const PlaygroundTraining = (() => {
  const { Adam, FreeGates, RowSwitcher, SGD, Switched, TaskNetwork, generator, shuffled } = PlaygroundEngine;

  // A stream of its own for everything that is drawn, so that changing a width does not change the points.
  const STREAMS = { weights: 2, switcher: 3, batches: 4, places: 5 };

  class Training {
    constructor(settings) {
      const { seed, features, width1, width2, face, inputs, who, gate, reads } = settings;
      const random = (stream) => generator(1000003 * seed + STREAMS[stream]);
      this.settings = settings;
      this.data = PlaygroundData.make(settings);

      const sizes = [PlaygroundData.FEATURES[features].length, width1, ...(width2 ? [width2] : []), 2];
      this.net = new TaskNetwork(sizes, { face, switchInputs: inputs });
      const draw = random("weights");
      for (const layer of this.net.layers) layer.initialize(draw);

      const places = random("places");
      const order = new Map(who === "shuffled" ? this.net.parameters.map((p) => [p, shuffled(p.value.length, places)]) : []);
      this.switcher = who === "free" ? new FreeGates(this.net, { gate }) : new RowSwitcher(this.net, { gate, reads, order });
      this.switcher.initialize(random("switcher"));
      this.both = new Switched(this.net, this.switcher);

      this.batches = random("batches");
      Object.assign(this, { taskSteps: 0, switcherSteps: 0, queue: [], turn: "task", loss: NaN });
      Object.assign(this, { off: new Set(), wentOff: new Set(), cameBack: new Set() });
      this.change(settings);
      this.watch();
      this.begun = this.both.structure();
    }

    // Learning rates, λ and turns can change while training goes on; what the optimizers remember stays.
    change(settings) {
      const { lr, momentum, decay, switcherLr, optimizer, flow } = settings;
      this.settings = settings;
      this.both.flow = flow;
      const task = { lr, momentum, weightDecay: decay };
      this.task = Object.assign(this.task ?? new SGD(this.net.parameters, task), task);
      if (this.optimizer !== optimizer) {
        this.optimizer = optimizer;
        this.turns = new (optimizer === "sgd" ? SGD : Adam)(this.switcher.parameters, { lr: switcherLr });
      }
      this.turns.lr = switcherLr;
      this.both.held = this.warm ? this.net.ones() : null;
    }

    // Whether all factors are held at 1: for a while at the start, or because nobody switches.
    get warm() {
      return this.settings.who === "nobody" || this.taskSteps < this.settings.warmup;
    }

    // The next batch: all training points in a new order, then again.
    next() {
      const { train } = this.data;
      const d = this.net.sizes[0];
      if (!this.queue.length) this.queue = shuffled(train.labels.length, this.batches);
      const rows = this.queue.splice(0, this.settings.batch);
      const x = new Float64Array(rows.length * d);
      rows.forEach((row, r) => x.set(train.x.subarray(row * d, (row + 1) * d), r * d));
      return { x, labels: rows.map((row) => train.labels[row]), ends: !this.queue.length };
    }

    // One step: of the task network, followed by one of the switcher where it is due; of both at once; or, where turns
    // are whole epochs, of the one whose turn it is.
    step() {
      const { every, lambda } = this.settings;
      const { both, task, turns } = this;
      const { x, labels, ends } = this.next();
      const learns = !this.warm;
      both.held = learns ? null : this.net.ones();
      if (learns && every === "joint") {
        this.loss = both.jointStep(x, labels, task, turns, lambda);
        this.taskSteps += 1;
        this.switcherSteps += 1;
      } else if (learns && every === "epoch" && this.turn === "switcher") {
        both.switcherStep(x, labels, turns, lambda);
        this.switcherSteps += 1;
      } else {
        this.loss = both.taskStep(x, labels, task);
        this.taskSteps += 1;
        if (learns && this.taskSteps % Number(every) === 0) { // never where `every` is a word
          both.switcherStep(x, labels, turns, lambda);
          this.switcherSteps += 1;
        }
      }
      if (ends) this.turn = this.turn === "task" && learns && every === "epoch" ? "switcher" : "task";
      both.held = this.warm ? this.net.ones() : null;
      this.watch();
    }

    // Who is off now, who has been, and who came back.
    watch() {
      const s = this.both.factors();
      const off = new Set();
      s.forEach((factors, l) => factors?.forEach((v, j) => {
        const name = `${l}:${j}`;
        if (v === 0) off.add(name);
        else if (this.off.has(name)) this.cameBack.add(name);
        if (v === 0) this.wentOff.add(name);
      }));
      this.off = off;
      this.s = s;
    }

    // The hidden layers of which nothing is on: nothing can get through them any more.
    get dead() {
      return this.s.map((factors, l) => (factors && factors.every((v) => v === 0) ? l : -1)).filter((l) => l >= 0);
    }

    accuracy({ x, labels }) {
      const logits = this.both.logits(x, labels.length, this.s);
      return labels.filter((label, r) => (logits[2 * r + 1] > logits[2 * r] ? 1 : 0) === label).length / labels.length;
    }

    measure() {
      const { train, test } = this.data;
      return { step: this.taskSteps, train: this.accuracy(train), test: this.accuracy(test), ...this.both.structure(this.s) };
    }
  }

  return { Training };
})();
