// Sliders for sample grids and photographs, sortable tables, and the time line.
for (const samples of document.querySelectorAll(".samples")) {
  const images = [...samples.querySelectorAll("img")];
  const [input, output] = [samples.querySelector("input"), samples.querySelector("output")];
  const show = () => {
    images.forEach((image, number) => { image.hidden = number !== Number(input.value); });
    output.textContent = images[Number(input.value)].dataset.label;
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", show);
  show();
}

for (const stack of document.querySelectorAll(".stack")) {
  const input = stack.querySelector("input");
  const show = () => {
    stack.style.setProperty("--cut", String(input.value / 100));
    input.setAttribute("aria-valuetext", `${100 - input.value} % generated`);
  };
  input.addEventListener("input", show);
  show();
}

for (const radio of document.querySelectorAll(".sides input"))
  radio.addEventListener("change", () => {
    for (const image of document.querySelectorAll(".stack .over")) image.hidden = !image.classList.contains(radio.value);
  });

// The value by which a cell is sorted: a number, a text, or null.
function sortValue(row, column) {
  const cell = row.children[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

// Cells without a value come last in both orders.
function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = createNode("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => compare(sortValue(one, column), sortValue(other, column), sign));
      table.tBodies[0].append(...rows);
    });
  });
}

function formatTime(seconds) {
  return new Date(seconds * 1000).toISOString().slice(5, 16).replace("T", " ");
}

function drawTimeline(place) {
  const runs = DATA.timeline.filter((run) => run.sessions.length);
  const all = runs.flatMap((run) => run.sessions);
  if (!all.length) return void place.replaceChildren("No starts recorded.");
  const width = place.clientWidth, row = 40, height = runs.length * row + 22;
  const [first, last] = [Math.min(...all.map((s) => s.started)), Math.max(...all.map((s) => s.ended))];
  const x = (time) => 6 + ((time - first) / Math.max(last - first, 1)) * (width - 12);
  const svg = createNode("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Time line of starts and ends; the tables below contain the same data" });
  runs.forEach((run, number) => {
    const y = number * row;
    createNode("text", { class: "name", x: 6, y: y + 12 }, svg, run.name);
    createNode("line", { class: "grid", x1: 6, x2: width - 6, y1: y + 23, y2: y + 23 }, svg);
    for (const session of run.sessions) {
      const bar = createNode("rect", { class: "session " + session.end, x: x(session.started), y: y + 18, height: 10, width: Math.max(2, x(session.ended) - x(session.started)), rx: 2 }, svg);
      createNode("title", {}, bar, formatTime(session.started) + " to " + formatTime(session.ended) + " UTC: " + session.label);
      createNode("circle", { class: "end " + session.end, cx: x(session.ended), cy: y + 23, r: 4 }, svg);
    }
  });
  createNode("text", { x: 6, y: height - 4 }, svg, formatTime(first) + " UTC");
  createNode("text", { x: width - 6, y: height - 4, "text-anchor": "end" }, svg, formatTime(last) + " UTC");
  place.replaceChildren(svg);
}

const timeline = document.getElementById("timeline");
new ResizeObserver(() => drawTimeline(timeline)).observe(timeline);
