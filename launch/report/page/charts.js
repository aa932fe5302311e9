"use strict";
// Curves and the time line, drawn as SVG at the width they have; no library, no request.
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = 8;

function make(name, attributes = {}, parent = null, text = null) {
  const svg = ["svg", "path", "line", "text", "g", "rect", "circle"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return (value / (size >= 1e6 ? 1e6 : 1e3)).toLocaleString("en", { maximumFractionDigits: 1 }) + (size >= 1e6 ? " M" : " k");
  return value === 0 ? "0" : size < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(4)).toString();
}

// Round numbers that cover a stretch, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const m of [1, 3]) if (m * 10 ** power >= low && m * 10 ** power <= high) found.push(m * 10 ** power);
  return found;
}

class Chart {
  constructor(spec, parent) {
    this.spec = spec;
    this.hidden = new Set();
    this.at = null;
    this.figure = make("figure", { class: "chart" }, parent);
    const title = make("h4", {}, this.figure, spec.title + " ");
    if (spec.note) make("span", {}, title, spec.note);
    this.svg = make("svg", { tabindex: 0, role: "img" }, this.figure);
    this.reading = make("p", { class: "reading", "aria-live": "polite" }, this.figure);
    if (spec.series.length > 1) this.legend();
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => this.read(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  legend() {
    const list = make("ul", { class: "legend" }, this.figure);
    this.spec.series.forEach((series, number) => {
      const button = make("button", { type: "button", "aria-pressed": "true" }, make("li", {}, list));
      make("i", { class: "k" + (series.colour % COLOURS) + (series.colour >= COLOURS ? " second" : "") }, button);
      button.append(series.name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(number)) this.hidden.add(number);
        button.setAttribute("aria-pressed", String(!this.hidden.has(number)));
        this.draw();
      });
    });
  }

  shown() {
    return this.spec.series.filter((_, number) => !this.hidden.has(number));
  }

  // Where numbers lie on the drawing; lone points and flat lines get room around them.
  scales() {
    const all = this.shown();
    const xs = all.flatMap((s) => s.x);
    let ys = all.flatMap((s) => s.y);
    if (!this.spec.log) ys = ys.concat(this.spec.rules.map((rule) => rule.y));
    let [x0, x1, y0, y1] = [0, Math.max(1, ...xs), Math.min(...ys), Math.max(...ys)];
    if (!ys.length) [y0, y1] = [0, 1];
    const [forward, back] = this.spec.log ? [Math.log10, (v) => 10 ** v] : [(v) => v, (v) => v];
    let [low, high] = [forward(y0), forward(y1)];
    const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    if (!(y0 === 0 && !this.spec.log)) low -= air;
    high += air;
    const [left, right, top, bottom] = [46, this.width - 8, 10, this.height - 22];
    this.area = { left, right, top, bottom, low: back(low), high: back(high), x1 };
    this.x = (value) => left + ((value - x0) / (x1 - x0)) * (right - left);
    this.y = (value) => bottom - ((forward(value) - low) / (high - low)) * (bottom - top);
  }

  draw() {
    [this.width, this.height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!this.width) return;
    this.svg.replaceChildren();
    this.scales();
    const { left, right, top, bottom, low, high, x1 } = this.area;
    const rows = this.spec.log ? logTicks(low, high) : ticks(low, high, 5);
    for (const value of rows.length > 1 ? rows : [low, high]) {
      make("line", { class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value) }, this.svg);
      make("text", { x: left - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.svg, short(value));
    }
    for (const value of ticks(0, x1, Math.max(2, this.width / 110)))
      make("text", { x: this.x(value), y: bottom + 16, "text-anchor": value ? "middle" : "start" }, this.svg, short(value));
    this.rules(left, right, top, bottom);
    for (const mark of this.spec.marks) {
      const x = this.x(mark.x);
      make("line", { class: "mark", x1: x, x2: x, y1: top, y2: bottom }, this.svg);
      make("text", { x: x + 3, y: top + 9 }, this.svg, mark.name);
    }
    for (const series of this.shown()) this.line(series);
    this.top = make("g", {}, this.svg);
    this.svg.setAttribute("aria-label", this.spec.title + " by images seen: " + this.shown().map((s) => s.name + " ends at " + short(s.y.at(-1))).join(", "));
    if (this.at !== null) this.read(this.at);
  }

  rules(left, right, top, bottom) {
    const written = [];
    for (const rule of this.spec.rules) {
      const y = this.y(rule.y);
      if (!(y >= top && y <= bottom)) continue;
      make("line", { class: "rule", x1: left, x2: right, y1: y, y2: y }, this.svg);
      const place = written.some((other) => Math.abs(other - y) < 12) ? y + 12 : y - 4;
      written.push(place + 4);
      make("text", { x: right, y: place, "text-anchor": "end" }, this.svg, rule.name);
    }
  }

  line(series) {
    const kind = "k" + (series.colour % COLOURS);
    const path = (xs, ys) => xs.map((x, i) => (i ? "L" : "M") + this.x(x).toFixed(1) + " " + this.y(ys[i]).toFixed(1)).join("");
    if (series.low && !this.spec.log) {
      const back = [...series.x].reverse();
      make("path", { class: "band " + kind, d: path(series.x, series.high) + path(back, [...series.low].reverse()).replace("M", "L") + "Z" }, this.svg);
    }
    if (series.x.length < 40) for (const [i, x] of series.x.entries()) make("circle", { class: kind, cx: this.x(x), cy: this.y(series.y[i]), r: 2.2 }, this.svg);
    make("path", { class: "curve " + kind + (series.colour >= COLOURS ? " second" : ""), d: path(series.x, series.y) }, this.svg);
  }

  point(event) {
    const across = event.clientX - this.svg.getBoundingClientRect().left;
    const longest = this.longest();
    if (!longest) return;
    const distances = longest.x.map((x) => Math.abs(this.x(x) - across));
    this.read(distances.indexOf(Math.min(...distances)));
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 }[event.key];
    const longest = this.longest();
    if (!move || !longest) return;
    event.preventDefault();
    const from = this.at ?? longest.x.length;
    this.read(Math.max(0, Math.min(longest.x.length - 1, from + move)));
  }

  longest() {
    return this.shown().reduce((best, s) => (best && best.x.length >= s.x.length ? best : s), null);
  }

  read(place) {
    this.at = place;
    const longest = this.longest();
    if (!this.top) return;
    this.top.replaceChildren();
    if (place === null || !longest) return void (this.reading.textContent = "");
    const at = longest.x[Math.min(place, longest.x.length - 1)];
    make("line", { class: "cursor", x1: this.x(at), x2: this.x(at), y1: this.area.top, y2: this.area.bottom }, this.top);
    const values = this.shown().map((series) => {
      const near = series.x.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(series.x[best] - at) ? i : best), 0);
      make("circle", { class: "k" + (series.colour % COLOURS), cx: this.x(series.x[near]), cy: this.y(series.y[near]), r: 3.5 }, this.top);
      return series.name + " " + short(series.y[near]);
    });
    this.reading.textContent = short(at) + " images: " + values.join(", ");
  }
}

for (const place of document.querySelectorAll(".charts")) {
  const charts = DATA.charts.filter((chart) => chart.group === place.dataset.group);
  for (const chart of charts) new Chart(chart, place);
  if (!charts.length) make("p", { class: "quiet" }, place, "Nothing written down yet.");
}
