// Sends each photograph to each network, and shows the original over the result, divided by a slider.
"use strict";

const $ = (query, inside = document) => inside.querySelector(query);
const networks = [...document.querySelectorAll("#networks li")].map((item) => item.dataset.name);
const maxBytes = Number(document.body.dataset.maxBytes);
const form = $("#form");
const input = $("#photo");
// All addresses are relative, so that the page also works below a prefix, behind a proxy.
let queue = Promise.resolve(); // photographs are sent one after the other

function setStatus(text) {
  $("#status").textContent = text;
}

function cloneTemplate(selector) {
  return $(selector).content.firstElementChild.cloneNode(true);
}

function showError(article, text) {
  const line = document.createElement("p");
  line.className = "error";
  line.setAttribute("role", "alert");
  line.textContent = text;
  $(".results", article).replaceWith(line);
  $(".original", article).remove();
}

// All results of one photograph are divided at the same position, in percent of the width.
function divide(article, percent) {
  for (const result of article.querySelectorAll(".result")) {
    $(".before", result).style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    $(".line", result).style.left = `${percent}%`;
    $("input", result).value = percent;
  }
}

function showResult(article, result, name, fileName, blob) {
  const url = URL.createObjectURL(blob);
  const after = $(".after", result);
  after.src = url;
  after.alt = `${fileName}, colorized by ${name}`;
  const before = $(".before", result);
  before.addEventListener("error", () => { before.src = url; }, { once: true }); // a format that the browser cannot show
  if (before.complete && before.naturalWidth === 0) before.src = url;
  const slider = $("input", result);
  slider.setAttribute("aria-label", `Position of the line between original and result, ${fileName}, ${name}`);
  slider.addEventListener("input", () => divide(article, Number(slider.value)));
  const download = $(".download", result);
  download.href = url;
  download.download = `${fileName.replace(/\.[^.]*$/, "")}-${name}.png`;
  for (const part of [slider, download, $(".line", result)]) part.hidden = false;
  result.setAttribute("aria-busy", "false");
}

async function requestColours(file, number) {
  const body = new FormData();
  body.append("photo", file);
  let response;
  try {
    response = await fetch(`colorize/${number}`, { method: "POST", body });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!response.ok) throw new Error(response.status === 503 ? "The server is busy. Try again in a moment." : await response.text());
  return response.blob();
}

function addArticle(file) {
  const article = cloneTemplate("#photo-template");
  $("h2", article).textContent = file.name;
  $(".original input", article).addEventListener("change", (event) => article.classList.toggle("in-colour", event.target.checked));
  const url = URL.createObjectURL(file);
  for (const name of networks) {
    const result = cloneTemplate("#result-template");
    $(".name", result).textContent = name;
    $(".before", result).src = url;
    $(".before", result).alt = `${file.name}, original`;
    $(".results", article).append(result);
  }
  $("#photos").prepend(article);
  return article;
}

async function colorize(file) {
  const article = addArticle(file);
  if (file.size > maxBytes) {
    showError(article, `This file is too large. The maximum is ${document.body.dataset.maxMb} MB.`);
    return;
  }
  const results = [...article.querySelectorAll(".result")];
  for (const [number, name] of networks.entries()) {
    setStatus(`Colorizing ${file.name} …`);
    try {
      showResult(article, results[number], name, file.name, await requestColours(file, number));
    } catch (error) {
      setStatus("");
      showError(article, error.message);
      return;
    }
  }
  setStatus(`${file.name} is colorized. Move the slider to compare.`);
}

function colorizeAll(files) {
  for (const file of files) queue = queue.then(() => colorize(file));
}

input.addEventListener("change", () => {
  colorizeAll(input.files);
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
  colorizeAll(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => colorizeAll(event.clipboardData.files));
