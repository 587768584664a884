"use strict";
const at = (id) => document.getElementById(id);
let info = null;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function fail(message, hint) {
  at("error").textContent = hint ? `${message}\n${hint}` : message;
  at("error").hidden = false;
}

async function ask(path, row) {
  let reply;
  try {
    reply = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify([row])});
  } catch {
    throw {message: "The server does not answer.", hint: "Is hubtune serve still running?"};
  }
  const document = await reply.json().catch(() => ({error: `The server answered with ${reply.status}.`}));
  if (!reply.ok) throw {message: document.error, hint: document.hint};
  return document;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject({message: "The file cannot be read."});
    reader.readAsDataURL(file);
  });
}

async function row() {
  const made = {};
  for (const column of info.columns) {
    const field = at(`field-${column.role}`);
    if (!field) continue;
    if (field.type === "file") {
      if (!field.files.length) continue;
      if (field.files[0].size * 1.34 > info.limits.body) throw {message: `The file is larger than ${Math.floor(info.limits.body / 1.34 / 1048576)} MiB.`};
      made[column.role] = {base64: await base64(field.files[0])};
    } else if (field.value.trim()) {
      made[column.role] = column.kind === "texts" ? field.value.split("\n").map((line) => line.trim()).filter(Boolean) : field.value;
    }
  }
  return made;
}

function fieldOf(column) {
  const id = `field-${column.role}`;
  const label = element("label", {for: id}, column.role.replaceAll("_", " "));
  if (column.needed !== "always" && column.role !== info.input) label.append(element("span", {class: "optional"}, " (optional)"));
  if (column.kind === "texts") label.append(element("span", {class: "optional"}, " (one per line)"));
  const box = element("div", {class: "field"}, label);
  if (column.kind === "image" || column.kind === "audio") {
    const field = element("input", {type: "file", id, accept: column.kind === "image" ? "image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff" : "audio/*"});
    const preview = element("div");
    field.addEventListener("change", () => {
      preview.replaceChildren();
      if (!field.files.length) return;
      const source = URL.createObjectURL(field.files[0]);
      preview.append(column.kind === "image" ? element("img", {class: "preview", alt: "The chosen image", src: source}) : element("audio", {controls: "", "aria-label": "The chosen sound", src: source}));
    });
    box.append(field, preview);
  } else {
    const field = element("textarea", {id});
    if (column.needed !== "always" && column.role !== info.input) field.className = "short";
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
    });
    box.append(field);
  }
  return box;
}

function bar(part) {
  const name = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(name, "svg");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS(name, "rect");
  rect.setAttribute("width", `${Math.max(0, Math.min(1, part)) * 100}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return element("span", {class: "track"}, svg);
}

function shown(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : value.toFixed(4);
  return typeof value === "string" ? value : JSON.stringify(value);
}

function show(prediction) {
  const parts = [];
  const {row: number, probabilities, ...rest} = prediction;
  const isLabelled = probabilities && typeof probabilities === "object" && !Array.isArray(probabilities);
  if (isLabelled) {
    const sorted = Object.entries(probabilities).sort((one, other) => other[1] - one[1]).slice(0, 20);
    parts.push(element("ul", {class: "probabilities"}, ...sorted.map(([label, part]) => element("li", {},
      element("span", {class: "name"}, label), bar(part), element("span", {class: "number"}, `${(part * 100).toFixed(1)}%`)))));
    if (rest.abstained) parts.unshift(element("p", {}, "The model abstains: no label is probable enough."));
    delete rest.probability;
    if (Object.keys(rest).every((key) => ["label", "labels", "abstained"].includes(key))) rest.label = undefined;
  }
  const entries = Object.entries(rest).filter(([key, value]) => value !== undefined && !(isLabelled && ["labels", "abstained"].includes(key)));
  if (entries.length) parts.push(element("dl", {}, ...entries.flatMap(([key, value]) => [element("dt", {}, key.replaceAll("_", " ")), element("dd", {}, short(shown(value)))])));
  at("shown").replaceChildren(...parts);
  at("json").textContent = JSON.stringify(prediction, null, 2);
  at("answer").hidden = false;
}

function short(text) {
  return text.length > 4000 ? `${text.slice(0, 4000)} ...` : text;
}

function showWords(found, text) {
  const most = Math.max(...found.words.map((one) => Math.abs(one.weight)), 1e-9);
  const parts = [];
  let place = 0;
  const points = [...text];
  for (const one of found.words) {
    parts.push(points.slice(place, one.start).join(""));
    const strength = Math.abs(one.weight) < Math.max(0.002, most * 0.1) ? 0 : Math.ceil(Math.abs(one.weight) / most * 3);
    const said = `${one.weight > 0 ? "-" : "+"}${Math.abs(one.weight * 100).toFixed(1)} points without it`;
    parts.push(strength ? element("mark", {class: `${one.weight > 0 ? "for" : "against"}${strength}`, title: said}, one.word) : one.word);
    place = one.end;
  }
  const lead = `${found.label}: ${(found.probability * 100).toFixed(1)}%`;
  at("words-lead").textContent = most < 0.002 ? `${lead}. No single word changes that by 0.2 points or more.` : lead;
  at("words-shown").replaceChildren(...parts);
  at("words").hidden = false;
}

async function run(button, work) {
  at("error").hidden = true;
  const label = button.textContent;
  button.disabled = true;
  button.textContent = "Computing ...";
  try {
    await work();
  } catch (error) {
    fail(error.message || "Something failed on this page.", error.hint);
  } finally {
    button.disabled = false;
    button.textContent = label;
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(at("ask"), async () => {
    at("words").hidden = true;
    show((await ask("/predict", await row())).predictions[0]);
  });
});
at("weigh").addEventListener("click", () => run(at("weigh"), async () => {
  const made = await row();
  showWords(await ask("/explain", made), made[info.columns[0].role] || "");
}));

fetch("/info").then((reply) => reply.json()).then((found) => {
  info = found;
  document.title = `${info.model}: try it`;
  at("model").textContent = info.model;
  at("task").textContent = info.labels.length && info.labels.length <= 12 ? `${info.task}: ${info.labels.join(", ")}` : `${info.task}: ${info.summary}`;
  at("fields").replaceChildren(...info.columns.map(fieldOf));
  at("weigh").hidden = !info.weighs;
  at("ask").disabled = false;
  const query = new URLSearchParams(location.search);
  for (const column of info.columns) if (query.has(column.role) && at(`field-${column.role}`).type !== "file") at(`field-${column.role}`).value = query.get(column.role);
}).catch(() => fail("The server does not answer.", "Is hubtune serve still running?"));
