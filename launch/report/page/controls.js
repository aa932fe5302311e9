// Sample grids through training, sortable tables, and the time line.
for (const film of document.querySelectorAll(".film")) {
  const [images, input, told] = [[...film.querySelectorAll("img")], film.querySelector("input"), film.querySelector("output")];
  const show = () => {
    images.forEach((image, number) => { image.hidden = number !== Number(input.value); });
    told.textContent = images[Number(input.value)].dataset.label;
    input.setAttribute("aria-valuetext", told.textContent);
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

function value(row, column) {
  const cell = row.children[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

// Cells without a value stay last, whichever way the column is sorted.
function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => compare(value(one, column), value(other, column), sign));
      table.tBodies[0].append(...rows);
    });
  });
}

function clock(seconds) {
  return new Date(seconds * 1000).toISOString().slice(5, 16).replace("T", " ");
}

function drawTimeline(place) {
  const runs = DATA.timeline.filter((run) => run.sessions.length);
  const all = runs.flatMap((run) => run.sessions);
  if (!all.length) return void place.replaceChildren("No starts written down.");
  const width = place.clientWidth, row = 40, height = runs.length * row + 22;
  const [first, last] = [Math.min(...all.map((s) => s.began)), Math.max(...all.map((s) => s.ended))];
  const x = (time) => 6 + ((time - first) / Math.max(last - first, 1)) * (width - 12);
  const svg = make("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Starts and ends on the clock; the tables below say the same" });
  runs.forEach((run, number) => {
    const y = number * row;
    make("text", { class: "name", x: 6, y: y + 12 }, svg, run.name);
    make("line", { class: "grid", x1: 6, x2: width - 6, y1: y + 23, y2: y + 23 }, svg);
    for (const session of run.sessions) {
      const bar = make("rect", { class: "session " + session.how, x: x(session.began), y: y + 18, height: 10, width: Math.max(2, x(session.ended) - x(session.began)), rx: 2 }, svg);
      make("title", {}, bar, clock(session.began) + " to " + clock(session.ended) + " UTC: " + session.told);
      make("circle", { class: "end " + session.how, cx: x(session.ended), cy: y + 23, r: 4 }, svg);
    }
  });
  make("text", { x: 6, y: height - 4 }, svg, clock(first) + " UTC");
  make("text", { x: width - 6, y: height - 4, "text-anchor": "end" }, svg, clock(last) + " UTC");
  place.replaceChildren(svg);
}

const timeline = document.getElementById("timeline");
new ResizeObserver(() => drawTimeline(timeline)).observe(timeline);
