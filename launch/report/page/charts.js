"use strict";
// Draws the charts as SVG, at the width of their place in the page, without a library.
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = 8;

function createNode(name, attributes = {}, parent = null, text = null) {
  const svg = ["svg", "path", "line", "text", "g", "rect", "circle"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

// A number with few characters: "12.5 k", "3.4 M", "1.0e-4".
function formatNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return (value / (size >= 1e6 ? 1e6 : 1e3)).toLocaleString("en", { maximumFractionDigits: 1 }) + (size >= 1e6 ? " M" : " k");
  return value === 0 ? "0" : size < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(4)).toString();
}

// About `count` round numbers between `low` and `high`.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const values = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at++) values.push(at * step);
  return values;
}

// Numbers 10^n and 3 x 10^n between `low` and `high`.
function logTicks(low, high) {
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const m of [1, 3]) if (m * 10 ** power >= low && m * 10 ** power <= high) values.push(m * 10 ** power);
  return values;
}

class Chart {
  constructor(spec, parent) {
    this.spec = spec;
    this.hidden = new Set();
    this.selected = null; // the index of the point that is read out
    this.figure = createNode("figure", { class: "chart" }, parent);
    const title = createNode("h4", {}, this.figure, spec.title + " ");
    if (spec.note) createNode("span", {}, title, spec.note);
    this.svg = createNode("svg", { tabindex: 0, role: "img" }, this.figure);
    this.readout = createNode("p", { class: "readout", "aria-live": "polite" }, this.figure);
    if (spec.series.length > 1) this.drawLegend();
    this.svg.addEventListener("pointermove", (event) => this.onPointer(event));
    this.svg.addEventListener("pointerleave", () => this.select(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    this.svg.addEventListener("blur", () => this.select(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  drawLegend() {
    const list = createNode("ul", { class: "legend" }, this.figure);
    this.spec.series.forEach((series, number) => {
      const button = createNode("button", { type: "button", "aria-pressed": "true" }, createNode("li", {}, list));
      createNode("i", { class: "k" + (series.colour % COLOURS) + (series.colour >= COLOURS ? " second" : "") }, button);
      button.append(series.name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(number)) this.hidden.add(number);
        button.setAttribute("aria-pressed", String(!this.hidden.has(number)));
        this.draw();
      });
    });
  }

  visibleSeries() {
    return this.spec.series.filter((_, number) => !this.hidden.has(number));
  }

  // Sets the functions that map values to pixels; single points and flat lines get a margin.
  setScales() {
    const all = this.visibleSeries();
    const xs = all.flatMap((s) => s.x);
    let ys = all.flatMap((s) => s.y);
    if (!this.spec.log) ys = ys.concat(this.spec.rules.map((rule) => rule.y));
    let [x0, x1, y0, y1] = [0, Math.max(1, ...xs), Math.min(...ys), Math.max(...ys)];
    if (!ys.length) [y0, y1] = [0, 1];
    const [forward, back] = this.spec.log ? [Math.log10, (v) => 10 ** v] : [(v) => v, (v) => v];
    let [low, high] = [forward(y0), forward(y1)];
    const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    if (!(y0 === 0 && !this.spec.log)) low -= margin;
    high += margin;
    const [left, right, top, bottom] = [46, this.width - 8, 10, this.height - 22];
    this.area = { left, right, top, bottom, low: back(low), high: back(high), x1 };
    this.x = (value) => left + ((value - x0) / (x1 - x0)) * (right - left);
    this.y = (value) => bottom - ((forward(value) - low) / (high - low)) * (bottom - top);
  }

  draw() {
    [this.width, this.height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!this.width) return;
    this.svg.replaceChildren();
    this.setScales();
    const { left, right, top, bottom, low, high, x1 } = this.area;
    const rows = this.spec.log ? logTicks(low, high) : ticks(low, high, 5);
    for (const value of rows.length > 1 ? rows : [low, high]) {
      createNode("line", { class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value) }, this.svg);
      createNode("text", { x: left - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.svg, formatNumber(value));
    }
    for (const value of ticks(0, x1, Math.max(2, this.width / 110)))
      createNode("text", { x: this.x(value), y: bottom + 16, "text-anchor": value ? "middle" : "start" }, this.svg, formatNumber(value));
    this.drawRules(left, right, top, bottom);
    for (const mark of this.spec.marks) {
      const x = this.x(mark.x);
      createNode("line", { class: "mark", x1: x, x2: x, y1: top, y2: bottom }, this.svg);
      createNode("text", { x: x + 3, y: top + 9 }, this.svg, mark.name);
    }
    for (const series of this.visibleSeries()) this.drawSeries(series);
    this.overlay = createNode("g", {}, this.svg);
    this.svg.setAttribute("aria-label", this.spec.title + " by images seen: " + this.visibleSeries().map((s) => s.name + " ends at " + formatNumber(s.y.at(-1))).join(", "));
    if (this.selected !== null) this.select(this.selected);
  }

  // Horizontal lines with names: the baselines.
  drawRules(left, right, top, bottom) {
    const labels = [];
    for (const rule of this.spec.rules) {
      const y = this.y(rule.y);
      if (!(y >= top && y <= bottom)) continue;
      createNode("line", { class: "rule", x1: left, x2: right, y1: y, y2: y }, this.svg);
      const place = labels.some((other) => Math.abs(other - y) < 12) ? y + 12 : y - 4;
      labels.push(place + 4);
      createNode("text", { x: right, y: place, "text-anchor": "end" }, this.svg, rule.name);
    }
  }

  drawSeries(series) {
    const colour = "k" + (series.colour % COLOURS);
    const path = (xs, ys) => xs.map((x, i) => (i ? "L" : "M") + this.x(x).toFixed(1) + " " + this.y(ys[i]).toFixed(1)).join("");
    if (series.low && !this.spec.log) {
      const back = [...series.x].reverse();
      createNode("path", { class: "band " + colour, d: path(series.x, series.high) + path(back, [...series.low].reverse()).replace("M", "L") + "Z" }, this.svg);
    }
    if (series.x.length < 40) for (const [i, x] of series.x.entries()) createNode("circle", { class: colour, cx: this.x(x), cy: this.y(series.y[i]), r: 2.2 }, this.svg);
    createNode("path", { class: "curve " + colour + (series.colour >= COLOURS ? " second" : ""), d: path(series.x, series.y) }, this.svg);
  }

  onPointer(event) {
    const across = event.clientX - this.svg.getBoundingClientRect().left;
    const longest = this.longestSeries();
    if (!longest) return;
    const distances = longest.x.map((x) => Math.abs(this.x(x) - across));
    this.select(distances.indexOf(Math.min(...distances)));
  }

  onKey(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 }[event.key];
    const longest = this.longestSeries();
    if (!move || !longest) return;
    event.preventDefault();
    const from = this.selected ?? longest.x.length;
    this.select(Math.max(0, Math.min(longest.x.length - 1, from + move)));
  }

  longestSeries() {
    return this.visibleSeries().reduce((best, s) => (best && best.x.length >= s.x.length ? best : s), null);
  }

  // Shows the values at the point of this index; null hides them.
  select(index) {
    this.selected = index;
    const longest = this.longestSeries();
    if (!this.overlay) return;
    this.overlay.replaceChildren();
    if (index === null || !longest) return void (this.readout.textContent = "");
    const at = longest.x[Math.min(index, longest.x.length - 1)];
    createNode("line", { class: "cursor", x1: this.x(at), x2: this.x(at), y1: this.area.top, y2: this.area.bottom }, this.overlay);
    const values = this.visibleSeries().map((series) => {
      const near = series.x.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(series.x[best] - at) ? i : best), 0);
      createNode("circle", { class: "k" + (series.colour % COLOURS), cx: this.x(series.x[near]), cy: this.y(series.y[near]), r: 3.5 }, this.overlay);
      return series.name + " " + formatNumber(series.y[near]);
    });
    this.readout.textContent = formatNumber(at) + " images: " + values.join(", ");
  }
}

for (const place of document.querySelectorAll(".charts")) {
  const charts = DATA.charts.filter((chart) => chart.group === place.dataset.group);
  for (const chart of charts) new Chart(chart, place);
  if (!charts.length) createNode("p", { class: "muted" }, place, "No values recorded yet.");
}
