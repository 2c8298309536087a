"use strict";
// Shows the network that is chosen, in the figure or in the table of the front, with its genes and its energy.
(() => {
  const data = JSON.parse(document.getElementById("points").textContent);
  const figure = document.getElementById("front");
  const panel = document.getElementById("panel");
  const rows = Array.from(document.querySelectorAll("#members tbody tr"));
  let chosen = null;
  let model = data.models[0];

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const number = (value) => {
    if (typeof value !== "number") return String(value);
    return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  };
  const table = (lines, head) => {
    const made = element("table", null);
    if (head) {
      const top = made.appendChild(element("thead", null)).appendChild(element("tr", null));
      head.forEach((cell) => top.append(element("th", cell, { scope: "col" })));
    }
    const body = made.appendChild(element("tbody", null));
    for (const line of lines) {
      const row = body.appendChild(element("tr", null));
      line.forEach((cell) => row.append(cell instanceof Node ? cell : element("td", cell)));
    }
    return made;
  };

  function genes(point) {
    const whole = [];
    const byLayer = new Map();
    data.genes.forEach((gene, index) => {
      const value = point.genes[index];
      if (value === null) return;
      if (gene.layer === null) whole.push([gene.name, number(value)]);
      else byLayer.set(gene.name, [...(byLayer.get(gene.name) || []), number(value)]);
    });
    const found = [element("h3", "Genes"), table(whole)];
    if (byLayer.size) {
      const lines = [...byLayer].map(([name, values]) => [name, ...values]);
      found.push(table(lines, ["by layer", ...lines[0].slice(1).map((_, layer) => String(layer))]));
    }
    return found;
  }

  function scores(point) {
    const tested = point.test && point.test.some((value) => value !== null);
    const lines = data.metrics.map((name, index) => {
      const test = tested ? point.test[index] : null;
      const line = [name, number(point.metrics[index])];
      return tested ? [...line, test === null ? "" : number(test)] : line;
    });
    const found = [table(lines, tested ? ["", data.split, "test"] : null)];
    if (point.interval) found.push(element("p", `test accuracy, 95 %: ${point.interval}`, { class: "note" }));
    return found;
  }

  function energy(key) {
    if (!data.models.length) return [];
    const heading = element("h3", "Energy per image");
    const counted = data.energy[key];
    if (!counted) {
      return [heading, element("p", "Not counted by layer here; this does it:", { class: "note" }),
        element("pre", `nas energy ${data.folder} ${key}`)];
    }
    const chooser = element("select", null, { id: "model", "aria-label": "energy model" });
    for (const name of data.models) {
      const option = element("option", name, { value: name });
      option.selected = name === model;
      chooser.append(option);
    }
    const shown = element("div", null);
    const draw = () => {
      const kinds = counted[data.models.indexOf(model)].kinds;
      const layers = counted[data.models.indexOf(model)].layers;
      const total = kinds.reduce((sum, value) => sum + value, 0);
      const stack = element("div", null, { class: "stack", "aria-hidden": "true" });
      const lines = data.kinds.map(([name, colour], index) => {
        const part = element("span", null);
        part.style.cssText = `background:${colour};width:${total ? (100 * kinds[index]) / total : 0}%`;
        stack.append(part);
        const label = element("td", null);
        label.append(element("span", null, { class: "swatch", style: `background:${colour}` }), name);
        return [label, `${number(kinds[index])} mJ`, `${(total ? (100 * kinds[index]) / total : 0).toFixed(1)} %`];
      });
      lines.push(["all", `${number(total)} mJ`, ""]);
      const most = Math.max(...layers.map(([, value]) => value)) || 1;
      const details = element("details", null, { open: "" });
      const spending = layers.filter(([, value]) => value > 0);
      details.append(element("summary", "by layer, those that take any"), table(spending.map(([name, value, kind]) => {
        const cell = element("td", null, { class: "bars" });
        const bar = cell.appendChild(element("span", null, { class: "bar" }));
        bar.style.cssText = `background:${data.kinds[kind][1]};width:${(100 * value) / most}%`;
        return [name, `${(1000 * value).toPrecision(3)} \u00b5J`, cell];
      })));
      shown.replaceChildren(stack, table(lines), details);
    };
    chooser.addEventListener("change", () => { model = chooser.value; draw(); });
    draw();
    return [heading, chooser, shown];
  }

  function select(key) {
    const point = data.points[key];
    if (!point) return;
    chosen = key;
    const what = element("p", point.what, { class: "note" });
    panel.replaceChildren(element("h3", key), what, ...scores(point), ...genes(point), ...energy(key));
    rows.forEach((row) => {
      const here = row.dataset.key === key;
      row.setAttribute("aria-selected", String(here));
    });
    const reached = rows.find((row) => row.dataset.key === key) || rows[0];
    rows.forEach((row) => { row.tabIndex = row === reached ? 0 : -1; });
    const trace = figure.data.findIndex((each) => each.name === "selected");
    Plotly.restyle(figure, { x: [[point.x]], y: [[point.y]] }, [trace]);
  }

  figure.on("plotly_click", (event) => select(event.points[0].customdata));
  rows.forEach((row, index) => {
    row.addEventListener("click", () => { select(row.dataset.key); row.focus(); });
    row.addEventListener("focus", () => { if (chosen !== row.dataset.key) select(row.dataset.key); });
    row.addEventListener("keydown", (event) => {
      const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1 };
      if (event.key === "Enter" || event.key === " ") select(row.dataset.key);
      else if (!(event.key in moves)) return;
      else if (rows[moves[event.key]]) rows[moves[event.key]].focus();
      event.preventDefault();
    });
  });
  if (rows.length) select(rows[0].dataset.key);
  const resize = () => document.querySelectorAll(".js-plotly-plot").forEach((each) => Plotly.Plots.resize(each));
  window.addEventListener("beforeprint", resize);
  window.addEventListener("afterprint", resize);
})();
