// What can be set, in which positions, and how a link carries it.
"use strict";

const PlaygroundSettings = (() => {
  const whole = (low, high) => Array.from({ length: high - low + 1 }, (_, i) => low + i);
  const words = (pairs) => ({ values: Object.keys(pairs), names: pairs });

  // kind: how it is shown. A slider runs over its values, whatever they are. `restart`: a new value is a new start; all
  // others can be changed while training goes on.
  const SETTINGS = [
    { name: "data", group: "Data", label: "Data set", kind: "select", restart: true, start: "moons",
      ...words({ moons: "two moons", circles: "two circles", spirals: "two spirals", xor: "chessboard (XOR)" }) },
    { name: "noise", group: "Data", label: "Noise", kind: "slider", restart: true, start: 0.2,
      values: whole(0, 10).map((i) => i / 20) },
    { name: "seed", group: "Data", label: "Seed of points and weights", short: "Seed", kind: "number", restart: true, start: 1,
      values: whole(0, 999) },
    { name: "features", group: "Task network", label: "Inputs", kind: "select", restart: true, start: "xy",
      ...words({ xy: "x₁, x₂", seven: "seven features" }) },
    { name: "width1", group: "Task network", label: "Neurons in layer 1", short: "Layer 1", kind: "slider", restart: true, start: 16,
      values: whole(1, 32) },
    { name: "width2", group: "Task network", label: "Neurons in layer 2", short: "Layer 2", kind: "slider", restart: true, start: 16,
      values: whole(0, 32), names: { 0: "none" } },
    { name: "lr", group: "Task network", label: "Learning rate η", kind: "slider", start: 0.05,
      values: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5] },
    { name: "who", group: "Switcher", label: "Who decides s", kind: "select", restart: true, start: "row",
      ...words({ row: "row switcher", shuffled: "shuffled weights", free: "free gates", nobody: "nobody: all 1" }) },
    { name: "gate", group: "Switcher", label: "Gate", kind: "select", restart: true, start: "clamp",
      ...words(Object.fromEntries(["clamp", "clamp_centred", "relu", "relu_tanh", "relu_bn", "step"].map((gate) => [gate, gate]))) },
    { name: "every", group: "Switcher", label: "Switcher steps", kind: "select", start: "4",
      ...words({ 1: "after every task step", 2: "after every 2", 4: "after every 4", 8: "after every 8", 16: "after every 16",
        epoch: "whole epochs by turns", joint: "joint: no turns" }) },
    { name: "lambda", group: "Switcher", label: "Cost λ", kind: "slider", start: 0.1,
      values: [0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5] },
    { name: "momentum", group: "More: task network", label: "Momentum", kind: "slider", start: 0.9, values: [0, 0.5, 0.9, 0.95] },
    { name: "decay", group: "More: task network", label: "Weight decay", kind: "slider", start: 0.0001,
      values: [0, 0.0001, 0.001, 0.01] },
    { name: "batch", group: "More: task network", label: "Batch size", kind: "slider", start: 20, values: [5, 10, 20, 50, 100, 200] },
    { name: "inputs", group: "More: task network", label: "Switch the inputs too", kind: "check", restart: true, start: false,
      values: [false, true] },
    { name: "reads", group: "More: switcher", label: "Reads", kind: "select", restart: true, start: "incoming",
      ...words({ incoming: "incoming weights", outgoing: "outgoing weights", both: "both" }) },
    { name: "face", group: "More: switcher", label: "Scales", kind: "select", restart: true, start: "incoming",
      ...words({ incoming: "incoming face", outgoing: "outgoing face" }) },
    { name: "switcherLr", group: "More: switcher", label: "Learning rate η′", kind: "slider", start: 0.003,
      values: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1] },
    { name: "optimizer", group: "More: switcher", label: "Optimiser", kind: "select", start: "adam",
      ...words({ adam: "Adam", sgd: "SGD" }) },
    { name: "flow", group: "More: switcher", label: "θ's gradient flows through s", kind: "check", start: false, values: [false, true] },
    { name: "warmup", group: "More: switcher", label: "Warm-up, task steps", kind: "slider", restart: true, start: 0,
      values: [0, 100, 200, 500, 1000, 2000] },
    { name: "speed", group: "Speed", label: "Steps per frame", kind: "select", start: "5",
      ...words({ 1: "1", 2: "2", 5: "5", 10: "10", 20: "20" }) },
  ];

  const defaults = () => Object.fromEntries(SETTINGS.map(({ name, start }) => [name, start]));
  const written = (value) => (value === true ? "1" : value === false ? "0" : String(value));
  const nameOf = (setting, value) => setting.names?.[value] ?? String(value);

  // A link's part behind "#": every setting by its name, so that it means the same when a default changes.
  const PREFIX = "#play:";
  const format = (settings) => PREFIX + SETTINGS.map(({ name }) => `${name}=${written(settings[name])}`).join("&");

  // The settings that a link asks for; what it leaves out has its default. What is unknown or not allowed is left out
  // too, and named. Returns null for a link that is not the playground's.
  const parse = (hash) => {
    if (!hash.startsWith(PREFIX)) return null;
    const settings = defaults();
    const complaints = [];
    for (const [name, text] of new URLSearchParams(hash.slice(PREFIX.length))) {
      const setting = SETTINGS.find((one) => one.name === name);
      const value = setting?.values.find((one) => written(one) === text);
      if (value === undefined) complaints.push(`${name.slice(0, 20)}=${text.slice(0, 20)}`);
      else settings[name] = value;
    }
    return { settings, complaints };
  };

  return { SETTINGS, defaults, format, nameOf, parse, written };
})();
