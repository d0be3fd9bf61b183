// The page's stand-in for the model that anywidget hands to render() in Jupyter: the same four methods, no kernel.
const pageModel = (state) => {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) return; // a change that changes nothing is silent
      state[name] = value;
      for (const listener of [...(listeners[`change:${name}`] ?? [])]) listener();
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((l) => l !== listener)),
    save_changes() {},
  };
};

// By attribute and not by id: the same explorer may stand on a page twice, and each copy runs this script.
const mount = (key, render) => {
  for (const host of document.querySelectorAll(`[data-explorer="${key}"]`)) {
    if (host.dataset.ready) continue;
    host.dataset.ready = "yes";
    const state = JSON.parse(host.querySelector('script[type="application/json"]').textContent);
    const stage = host.querySelector(".sl-stage");
    const el = document.createElement("div");
    stage.append(el); // in the document before it is drawn, so that it knows its width
    render({ model: pageModel(state), el });
    stage.querySelector(".sl-first").remove(); // last, so that the first frame stays if anything above fails
  }
};
