// Every table, list and picture can be read without this script; it adds sorting, searching, and a closer look.

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// The contents: beside the page where there is room, else a bar at the top that opens.
const contents = document.querySelector(".contents"), links = [...document.querySelectorAll(".contents a")];
const wide = matchMedia("(min-width: 78rem)");
const unfold = () => { contents.open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();
for (const link of links) link.addEventListener("click", () => { contents.open = wide.matches; });
const heads = links.map(link => document.getElementById(link.hash.slice(1)));
const mark = () => {
  const above = heads.filter(head => head.getBoundingClientRect().top < innerHeight / 4).length;
  links.forEach((link, number) => link.toggleAttribute("aria-current", number === Math.max(above - 1, 0)));
};
addEventListener("scroll", mark, {passive: true});
mark();

// A table that is wider than its place says so, and fades where it goes on.
for (const box of document.querySelectorAll(".scroll")) {
  const hint = made("p", {className: "soft hint", textContent: "This table goes on: scroll it sideways →"});
  box.before(hint);
  const look = () => {
    const beyond = box.scrollWidth - box.clientWidth;
    hint.hidden = beyond < 2;
    if (beyond < 2) box.removeAttribute("tabindex"); else box.tabIndex = 0;
    box.toggleAttribute("data-left", box.scrollLeft > 1);
    box.toggleAttribute("data-right", beyond - box.scrollLeft > 1);
  };
  const watch = new ResizeObserver(look);
  watch.observe(box);
  watch.observe(box.firstElementChild);
  box.addEventListener("scroll", look, {passive: true});
}

// Of long lists the first entries are shown; the others are found by name, or behind a button.
for (const list of document.querySelectorAll("[data-first]")) {
  const body = list.tBodies?.[0] ?? list, first = Number(list.dataset.first) / (innerWidth < 480 ? 2 : 1), what = list.dataset.what;
  if (body.children.length <= first) continue;
  const nameOf = item => [...(item.cells ? item.querySelectorAll("th, .text") : [item])].map(each => each.textContent).join(" ");
  const names = new Map([...body.children].map(item => [item, nameOf(item).toLowerCase()]));
  const search = made("input", {type: "search", placeholder: `Search ${names.size} ${what}`, ariaLabel: `search ${what}`});
  const found = made("span", {className: "soft", ariaLive: "polite"});
  const button = made("button", {type: "button", className: "plain"});
  const place = list.closest(".scroll") ?? list;
  (place.previousElementSibling?.matches(".hint") ? place.previousElementSibling : place).before(made("p", {className: "search"}, search, " ", found));
  place.after(made("p", {className: "more"}, button));
  let all = false;
  const update = () => {
    const wanted = search.value.trim().toLowerCase();
    let fitting = 0;
    for (const item of body.children) {
      const fits = names.get(item).includes(wanted);
      item.hidden = !fits || !all && fitting >= first;
      fitting += fits;
    }
    found.textContent = wanted ? `${fitting} found` : "";
    button.hidden = fitting <= first;
    button.textContent = all ? `Show the first ${first} ${what}` : `Show all ${fitting} ${what}`;
  };
  search.addEventListener("input", update);
  button.addEventListener("click", () => { all = !all; update(); });
  list.addEventListener("sorted", update);
  update();
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const cells = [...table.tHead.rows[0].cells];
  cells.forEach((th, column) => {
    const button = made("button", {textContent: th.textContent});
    th.replaceChildren(button);
    let sign = -1;
    button.addEventListener("click", () => {
      sign = -sign;
      cells.forEach(each => each.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => Number(a) - Number(b) || a.localeCompare(b, undefined, {numeric: true});
      body.replaceChildren(...[...body.rows].sort((a, b) => sign * order(value(a), value(b))));
      table.dispatchEvent(new Event("sorted"));
    });
  });
}

// The viewer shows one of several things, as large as the window. A thing is a function that returns an element.
const viewer = document.getElementById("viewer"), stage = viewer.querySelector(".stage");
const [back, before, after, place] = [".back", ".before", ".after", ".place"].map(name => viewer.querySelector(name));
const looks = [], borrowed = [];  // what is looked at, and what it was opened from; parts of the page that are in the viewer
function giveBack() {
  for (const [part, home] of borrowed.splice(0)) home.replaceWith(part);
}
function display() {
  giveBack();
  const {things, number} = looks.at(-1);
  stage.replaceChildren(things[number]());
  back.hidden = looks.length < 2;
  before.hidden = after.hidden = things.length < 2;
  place.textContent = things.length < 2 ? "" : `${number + 1} of ${things.length}`;
  if (!viewer.open) viewer.showModal();
}
function open(things, number = 0) { looks.push({things, number}); display(); }
function step(by) {
  const look = looks.at(-1);
  if (look.things.length < 2) return;
  look.number = (look.number + by + look.things.length) % look.things.length;
  display();
}
before.addEventListener("click", () => step(-1));
after.addEventListener("click", () => step(1));
back.addEventListener("click", () => { looks.pop(); display(); });
viewer.addEventListener("keydown", event => step({ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0));
viewer.addEventListener("close", () => { giveBack(); stage.replaceChildren(); looks.length = 0; });

function enlarged(pictures, words, alike = []) {
  const large = made("div", {className: "large"}, ...pictures);
  return made("div", {className: "enlarged"}, large, made("div", {className: "words"}, made("p", {}, ...words), ...alike));
}
function bare(picture) {  // the picture as a button
  const button = made("button", {type: "button", className: "bare"});
  picture.replaceWith(button);
  button.append(picture);
  return button;
}
const copyOf = picture => made("img", {src: picture.src, alt: picture.alt});

for (const list of document.querySelectorAll(".sheets")) {
  const sheets = [...list.querySelectorAll("img")];
  const things = sheets.map(sheet => () => enlarged([copyOf(sheet)], [sheet.alt]));
  sheets.forEach((sheet, number) => bare(sheet).addEventListener("click", () => open(things, number)));
}

for (const figure of document.querySelectorAll("main figure:has(> svg)")) {
  const button = made("button", {type: "button", className: "plain enlarge", textContent: "⤢", ariaLabel: "enlarge this plot", title: "enlarge"});
  figure.append(button);
  button.addEventListener("click", () => open([() => {
    const svg = figure.querySelector("svg"), home = made("span");
    svg.replaceWith(home);
    borrowed.push([svg, home]);
    return enlarged([svg], [figure.querySelector("figcaption")?.textContent ?? ""]);
  }]));
}

const mistakes = [...document.querySelectorAll(".gallery:not(.findings) li")].map(item => () => {
  const pictures = [...item.querySelectorAll("button > img, .heat")].map(copyOf);
  const others = [...item.querySelectorAll(".alike figure")];
  const alike = others.length ? [made("p", {className: "soft", textContent: "Training images with the most similar features:"}), made("div", {className: "alike"})] : [];
  const near = others.map(other => () => enlarged([copyOf(other.querySelector("img"))], [other.querySelector("figcaption").textContent]));
  others.forEach((other, number) => {
    const copy = other.cloneNode(true);
    alike[1].append(copy);
    bare(copy.querySelector("img")).addEventListener("click", () => open(near, number));
  });
  return enlarged(pictures, item.querySelector(".what").cloneNode(true).childNodes, alike);
});
document.querySelectorAll(".gallery button").forEach((button, number) => button.addEventListener("click", () => open(mistakes, number)));

const findings = [...document.querySelectorAll(".findings li")];
const doubts = findings.map(item => () =>
  enlarged([...item.querySelectorAll(".pair img")].map(copyOf), item.querySelector(".what").cloneNode(true).childNodes));
findings.forEach((item, number) => {
  for (const picture of item.querySelectorAll(".pair img")) bare(picture).addEventListener("click", () => open(doubts, number));
});

// Held-out images, all in one picture: [path, true class, predicted class] of each.
const tiles = document.getElementById("tiles"), images = JSON.parse(tiles?.dataset.images ?? "[]");
const side = Number(tiles?.dataset.side), columns = Number(tiles?.dataset.columns);
function tile(number) {
  const canvas = made("canvas", {width: side, height: side, role: "img", ariaLabel: images[number][0]});
  canvas.getContext("2d").drawImage(tiles, side * (number % columns), side * Math.floor(number / columns), side, side, 0, 0, side, side);
  return canvas;
}
function told(number) {
  const [path, label, called] = images[number];
  return `${label === called ? label : `${label}, predicted as ${called}`} · ${path}`;
}
const larger = new Map([...document.querySelectorAll(".gallery:not(.findings) li")].map((item, number) => [item.querySelector("button > img").alt, mistakes[number]]));
const things = images.map(([path], number) => larger.get(path) ?? (() => enlarged([tile(number)], [told(number)])));

// A count of images opens the images.
function opens(cell, label, called) {
  const numbers = images.flatMap((image, number) => image[1] === label && image[2] === called ? [number] : []);
  if (!numbers.length) return;
  const count = Number(cell.textContent);
  const button = made("button", {type: "button", className: "bare", textContent: cell.textContent, ariaLabel: `${count} of ${label}, predicted as ${called}`});
  cell.replaceChildren(button);
  const own = numbers.map(number => things[number]);
  button.addEventListener("click", () => open([() => {
    const shown = numbers.length < count ? `${numbers.length} of ${count} images` : count === 1 ? "1 image" : `${count} images`;
    const grid = made("div", {className: "tiles"}, ...numbers.map((number, at) => {
      const each = made("button", {type: "button", className: "bare", title: images[number][0]}, tile(number));
      each.addEventListener("click", () => open(own, at));
      return each;
    }));
    return made("div", {}, made("h3", {textContent: `${shown} of ${label}, predicted as ${called}`}), grid);
  }]));
}
for (const row of document.querySelectorAll("#pairs tbody tr")) opens(row.cells[2], row.cells[0].textContent, row.cells[1].textContent);

const confusion = document.getElementById("confusion");
if (confusion) {
  const counts = [...confusion.tBodies[0].rows].map(row => [...row.cells].slice(1).map(cell => Number(cell.textContent) || 0));
  const totals = counts.map(row => row.reduce((a, b) => a + b, 0));
  const errors = counts.map((row, index) => totals[index] - row[index]);
  const rows = [...confusion.tBodies[0].rows], lines = [...confusion.rows].map(row => [...row.cells]);
  const of = {name: () => 0, errors: index => -errors[index], images: index => -totals[index]};
  const buttons = [...document.querySelectorAll(".orders[data-for=confusion] button")];
  for (const button of buttons) button.addEventListener("click", () => {
    buttons.forEach(each => each.setAttribute("aria-pressed", each === button));
    const order = rows.map((_, index) => index).sort((a, b) => of[button.dataset.order](a) - of[button.dataset.order](b) || a - b);
    [confusion.tHead.rows[0], ...rows].forEach((row, number) => row.replaceChildren(lines[number][0], ...order.map(index => lines[number][index + 1])));
    confusion.tBodies[0].replaceChildren(...order.map(index => rows[index]));
  });
  const names = rows.map(row => row.cells[0].textContent);
  counts.forEach((row, at) => row.forEach((count, column) => { if (count) opens(lines[at + 1][column + 1], names[at], names[column]); }));
}

const tip = made("div", {className: "tip", hidden: true});
for (const map of document.querySelectorAll(".map")) {
  map.querySelectorAll("[id$=-points] use").forEach((dot, number) => { dot.dataset.point = number; });
  const show = event => {
    const number = event.target.dataset?.point;
    tip.hidden = number === undefined;
    if (tip.hidden) return;
    tip.replaceChildren(tile(Number(number)), told(number));
    (viewer.open ? viewer : document.body).append(tip);  // above the viewer too
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 170)}px`;
    tip.style.top = `${Math.min(event.clientY + 12, innerHeight - 150)}px`;
  };
  const svg = map.querySelector("svg");
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("click", event => { if (event.target.dataset?.point) { tip.hidden = true; open(things, Number(event.target.dataset.point)); } });
}
