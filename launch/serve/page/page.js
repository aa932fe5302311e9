// Sends each photograph to each network, and shows the grey one over the coloured one behind a slider.
"use strict";

const $ = (query, inside = document) => inside.querySelector(query);
const networks = [...document.querySelectorAll("#networks li")].map((item) => item.dataset.name);
const mostBytes = Number(document.body.dataset.mostBytes);
const form = $("#form");
const input = $("#photo");
let waiting = Promise.resolve(); // photographs go one after the other

function say(text) {
  $("#status").textContent = text;
}

function copyOf(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

function refuse(article, text) {
  const line = document.createElement("p");
  line.className = "refusal";
  line.setAttribute("role", "alert");
  line.textContent = text;
  $(".results", article).replaceWith(line);
  $(".own", article).remove();
}

// All results of one photograph are divided at the same place.
function divide(article, share) {
  for (const result of article.querySelectorAll(".result")) {
    $(".before", result).style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    $(".line", result).style.left = `${share}%`;
    $("input", result).value = share;
  }
}

function show(article, result, name, fileName, blob) {
  const address = URL.createObjectURL(blob);
  const after = $(".after", result);
  after.src = address;
  after.alt = `${fileName}, coloured by ${name}`;
  const before = $(".before", result);
  before.addEventListener("error", () => { before.src = address; }, { once: true }); // a format that browsers lack
  if (before.complete && before.naturalWidth === 0) before.src = address;
  const slider = $("input", result);
  slider.setAttribute("aria-label", `How much of ${fileName} is shown as before, ${name}`);
  slider.addEventListener("input", () => divide(article, Number(slider.value)));
  const download = $(".download", result);
  download.href = address;
  download.download = `${fileName.replace(/\.[^.]*$/, "")}-${name}.png`;
  for (const part of [slider, download, $(".line", result)]) part.hidden = false;
  result.setAttribute("aria-busy", "false");
}

async function colour(file, number) {
  const body = new FormData();
  body.append("photo", file);
  let answer;
  try {
    answer = await fetch(`/colorize/${number}`, { method: "POST", body });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!answer.ok) throw new Error(answer.status === 503 ? "The server is busy. Try again in a moment." : await answer.text());
  return answer.blob();
}

function begin(file) {
  const article = copyOf("#photo-template");
  $("h2", article).textContent = file.name;
  $(".own input", article).addEventListener("change", (event) => article.classList.toggle("coloured", event.target.checked));
  const address = URL.createObjectURL(file);
  for (const name of networks) {
    const result = copyOf("#result-template");
    $(".name", result).textContent = name;
    $(".before", result).src = address;
    $(".before", result).alt = `${file.name}, before`;
    $(".results", article).append(result);
  }
  $("#photos").prepend(article);
  return article;
}

async function take(file) {
  const article = begin(file);
  if (file.size > mostBytes) {
    refuse(article, `This file is larger than ${document.body.dataset.mostMb} MB, the most taken here.`);
    return;
  }
  const results = [...article.querySelectorAll(".result")];
  for (const [number, name] of networks.entries()) {
    say(`Colouring ${file.name} …`);
    try {
      show(article, results[number], name, file.name, await colour(file, number));
    } catch (error) {
      say("");
      refuse(article, error.message);
      return;
    }
  }
  say(`${file.name} is coloured. Move the slider to compare.`);
}

function takeAll(files) {
  for (const file of files) waiting = waiting.then(() => take(file));
}

input.addEventListener("change", () => {
  takeAll(input.files);
  input.value = "";
});
form.addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, () => document.body.classList.remove("over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  takeAll(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => takeAll(event.clipboardData.files));
