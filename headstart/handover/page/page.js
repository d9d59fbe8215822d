// The page: what is chosen or dropped goes to the worker, its answers come back.
const $ = id => document.getElementById(id);
const SAID = {
  unreadable: "This browser cannot read the file as a picture. Pictures that end in .jpg, .png, .webp, .gif or .bmp can be read.",
  deep: "This file has 16 bits a channel, of which a browser reads only 8. The model needs all of them.",
  large: "This picture is too large for this browser. If later ones fail too, load the page again.",
  broken: "There is no answer. Load the page again; if that does not help, this browser cannot run the model.",
};
const PICTURE = /\.(jpe?g|jpe|jfif|png|webp|bmp|tiff?|gif)$/i;
const N_BARS = 5;
const BACKENDS = {wasm: "WebAssembly", webgpu: "this device's graphics processor (WebGPU)"};
const percent = value => `${(100 * value).toFixed(1)}%`;
const made = (tag, text, name = "") => Object.assign(document.createElement(tag), {textContent: text, className: name});
const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

const worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"});
const waiting = new Map();
let n_asked = 0;
function asked(kind, request = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++n_asked, {resolve, reject});
    worker.postMessage({id: n_asked, kind, ...request});
  });
}
worker.onmessage = ({data: {id, found, failure}}) => {
  const {resolve, reject} = waiting.get(id);
  waiting.delete(id);
  if (failure) reject(new Error(failure)); else resolve(found);
};
worker.onerror = event => { event.preventDefault(); for (const {reject} of waiting.values()) reject(new Error("broken")); };

let model, site;
const rows = [];  // of the file that "Save the answers" writes
let n_files = 0;

async function begin() {
  const wanted = new URLSearchParams(location.search).get("runtime");
  try {
    const started = await asked("start", {wanted});
    ({model, site} = started);
    $("runs").textContent = `It runs by onnxruntime-web ${started.version}, in ${BACKENDS[started.backend]}.`;
  } catch {
    $("state").textContent = "The model cannot be loaded. Load the page again; if that does not help, this browser cannot run it.";
    $("state").className = "warn";
    return;
  }
  const some = model.classes.slice(0, 12).join(", ");
  $("classes").textContent = `It tells ${model.classes.length} classes apart: ${some}${model.classes.length > 12 ? ", …" : ""}`;
  $("state").textContent = "The model is ready.";
  for (const id of ["files", "folder"]) $(id).disabled = false;
  $("check").hidden = !site.conformance;
}

// Files

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) {  // a reader gives some entries at a time, and none at the end
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    for (const each of some) found.push(...await filesOf(each));
  }
  return found.sort((a, b) => a.name.localeCompare(b.name));
}

async function dropped(transfer) {
  const items = [...transfer.items].filter(item => item.kind === "file");
  const entries = items.map(item => item.webkitGetAsEntry?.());  // before anything is awaited: the list is then gone
  const files = items.map(item => item.getAsFile());
  const found = [];
  for (const [index, entry] of entries.entries()) {
    if (entry?.isDirectory) found.push(...ofFolder(await filesOf(entry)));
    else if (files[index]) found.push(files[index]);
  }
  return found;
}

function ofFolder(files) {
  const pictures = files.filter(file => PICTURE.test(file.name));
  const n_others = files.length - pictures.length;
  $("state").textContent = n_others ? `${count(n_others, "file")} of the folder skipped: no picture.` : "The model is ready.";
  return pictures;
}

// Answers

async function askAll(files) {
  const first = $("answers").firstChild, queue = [...files];
  if (!queue.length) return;
  n_files += queue.length;
  told();
  for (const file of queue) await ask(file, first);
}

function told() {
  $("progress").hidden = false;
  $("done").textContent = rows.length < n_files ? `${rows.length} of ${n_files} pictures answered …` : `${count(n_files, "picture")} answered`;
}

async function ask(file, before) {
  const item = document.createElement("li"), image = document.createElement("img"), said = made("div", "…");
  const name = file.webkitRelativePath || file.name;
  image.loading = "lazy";
  image.src = URL.createObjectURL(file);
  image.alt = name;
  const icon = () => image.replaceWith($("no-preview").content.cloneNode(true));
  image.onerror = icon;
  item.append(image, said);
  $("answers").insertBefore(item, before);
  try {
    const answer = await asked("ask", {file});
    rows.push([name, answer.label, answer.probability, answer.abstains, answer.novelty ?? ""]);
    said.replaceChildren(...wordsOf(answer, name));
  } catch (error) {
    if (error.message !== "deep") icon();
    rows.push([name, "", "", "", ""]);
    said.replaceChildren(made("div", SAID[error.message] ?? SAID.broken, "warn"), made("div", name, "soft"));
  }
  told();
}

function wordsOf(answer, name) {
  const words = [made("div", `${answer.label} · ${percent(answer.probability)}`, "label"), made("div", name, "soft")];
  if (answer.abstains) words.push(made("div", "Not sure enough: better ask a person.", "warn"));
  if (answer.novelty > site.novel_above) words.push(made("div", "Unlike all pictures that the model has learned from: the answer may mean nothing.", "warn"));
  const bars = made("div", "", "bars");
  const ranked = answer.probabilities.map((value, index) => [model.classes[index], value]).sort((a, b) => b[1] - a[1]);
  for (const [label, value] of ranked.slice(0, N_BARS)) {
    const bar = made("i", "");
    bar.style.width = percent(value);
    bars.append(made("span", label), bar, made("b", percent(value)));
  }
  if (answer.novelty !== null) bars.append(made("span", "novelty"), made("span", ""), made("b", answer.novelty.toFixed(2)));
  return [...words, bars];
}

function save() {
  const quoted = value => /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
  const lines = [["path", "label", "probability", "abstains", "novelty"], ...rows].map(row => row.map(quoted).join(","));
  const link = Object.assign(document.createElement("a"), {download: "answers.csv"});
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
  link.click();
}

async function check() {
  $("replay").disabled = true;
  $("verdict").className = "soft";
  $("verdict").textContent = "The pictures are being looked at …";
  try {
    const {n_images, wrong, unread, furthest, image_ms} = await asked("replay");
    const n_read = n_images - unread.length;
    const others = unread.length ? ` ${count(unread.length, "picture")} ${unread.length === 1 ? "has" : "have"} a form that this browser does not read.` : "";
    const figures = `Largest difference of a probability: ${furthest.toExponential(1)}. Time a picture: ${image_ms.toFixed(0)} ms.`;
    const isWrong = wrong.length || !n_read;
    $("verdict").className = isWrong ? "warn" : "good";
    $("verdict").textContent = isWrong
      ? `This browser answers otherwise on ${wrong.length} of ${n_read} pictures: do not trust its answers.`
      : `This browser answers alike on all ${n_read} pictures.`;
    $("verdict").append(made("div", figures + others, "soft"));
  } catch {
    $("verdict").className = "warn";
    $("verdict").textContent = SAID.broken;
  }
  $("replay").disabled = false;
}

$("files").addEventListener("change", ({target}) => { askAll(target.files); target.value = ""; });
$("folder").addEventListener("change", ({target}) => { askAll(ofFolder([...target.files])); target.value = ""; });
$("folder-button").hidden = !("webkitdirectory" in $("folder"));
$("save").addEventListener("click", save);
$("replay").addEventListener("click", check);
const drop = document.documentElement;  // a file that misses the field would else replace the page
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, event => { event.preventDefault(); $("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, event => { event.preventDefault(); $("drop").classList.remove("over"); });
drop.addEventListener("drop", async event => { if (model) askAll(await dropped(event.dataTransfer)); });
begin();
