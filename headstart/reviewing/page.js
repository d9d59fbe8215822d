// The page of `headstart review`. Everything that it shows comes as text, never as HTML.

const at = id => document.getElementById(id);
const PAIRS = ["leak", "conflict", "copy"];
const NAMES = {leak: "Two splits", conflict: "Two labels", label: "Labels", odd: "Odd", copy: "Copies", next: "To label"};
const QUESTIONS = {
  leak: "Nearly the same picture in two splits",
  conflict: "Nearly the same picture under two labels",
  label: "Is the label right?",
  odd: "Does this picture show its class?",
  copy: "Nearly the same picture twice",
  next: "What does it show?",
};
const SAID = {accept: "accepted", keep: "kept as it is", drop: "dropped", label: "given another label",
  "drop other": "the other picture dropped", "label other": "the other picture given another label", forget: "open again"};

let state, kind = "all", current = 0, labelled = "label", confirmed = "";

const element = (name, text = "", className = "") => Object.assign(document.createElement(name), {textContent: text, className});

async function ask(path, body) {
  const options = body === undefined ? {} : {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("`headstart review` has ended: nothing is written any more. Start it again, and open its new address.");
  }
  const type = answer.headers.get("content-type") ?? "";
  const found = type.includes("json") ? await answer.json() : {error: await answer.text()};
  if (!answer.ok) throw Object.assign(new Error(found.error), {isStale: found.is_stale});
  return found;
}

// The same rules as headstart/reviewing/answers.py, `answered`.
function answerOf({kind, image_id, other_image_id, label, suggested}) {
  const own = state.decisions[image_id], other = state.decisions[other_image_id], isPair = PAIRS.includes(kind);
  if (own?.decision === "drop" || own?.decision === "keep") return own.decision === "drop" ? "dropped" : "kept";
  if (isPair && own?.group) return own.group === image_id ? "kept" : "put together";
  if (own?.label && !isPair) return own.label === label ? "kept" : `is ${own.label}`;
  if (kind === "conflict" && own?.label && own.label !== label) return `is ${own.label}`;
  if (isPair && other?.decision === "drop") return "the other is dropped";
  if (kind === "conflict" && other?.label && other.label !== suggested) return `the other is ${other.label}`;
  return "";
}

const isOpen = number => !answerOf(state.cases[number]);
const isWanted = number => kind === "all" || state.cases[number].kind === kind;
const shown = () => state.cases.keys().filter(number => isWanted(number) && (at("decided").checked || isOpen(number))).toArray();

function actions(found) {
  const list = [];
  if (found.kind === "next") {
    list.push(["keep", `It is ${found.label}`, "Enter"], ["accept", `It is ${found.suggested}`, "a"]);
    list.push(["label", "Another label", "l"], ["drop", "None of them: leave it out", "d"]);
    if (answerOf(found)) list.push(["forget", "Ask again", "Backspace"]);
    return list;
  }
  if (found.kind === "label") list.push(["accept", `It is ${found.suggested}`, "a"]);
  else if (found.kind === "odd") list.push(["drop", "Drop it", "d"]);
  else list.push(["accept", found.kind === "leak" ? "Put together, in one split" : "Put in one group", "a"]);
  list.push(["keep", PAIRS.includes(found.kind) ? "Leave both as they are" : "Right as it is", "k"]);
  if (found.kind === "conflict" || (found.kind === "leak" && found.suggested)) {
    list.push(["suggested", `The first is ${found.suggested}`, "s"], ["suggested other", `The second is ${found.label}`, "S"]);
  }
  if (found.kind !== "odd") list.push(["drop", found.other_image_id && PAIRS.includes(found.kind) ? "Drop the first" : "Drop it", "d"]);
  if (PAIRS.includes(found.kind)) list.push(["drop other", "Drop the second", "D"]);
  list.push(["label", PAIRS.includes(found.kind) ? "Label the first" : "Another label", "l"]);
  if (PAIRS.includes(found.kind)) list.push(["label other", "Label the second", "L"]);
  if (answerOf(found)) list.push(["forget", "Ask again", "Backspace"]);
  return list;
}

function figure(id, title) {
  const {path, label, split} = state.images[id];
  const box = element("figure"), image = element("img"), caption = element("figcaption");
  image.alt = `${title}: ${path}`;
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 100));
  image.addEventListener("error", () => caption.append(element("div", "cannot be shown: its file is missing or has changed", "bad")));
  image.src = `image/${id}`;
  if (split) caption.append(element("b", label), ` ${split}`);
  caption.append(element("div", `${title} · ${path}`, "soft"));
  const decision = state.decisions[id];
  if (decision) caption.append(element("div", told(decision), "good"));
  box.append(image, caption);
  return box;
}

function told({decision, label, group, split}) {
  const parts = [label && `label ${label}`, group && `group ${group}`, split && `split ${split}`].filter(Boolean);
  return `decided: ${{keep: "keep", drop: "drop", change: parts.join(", ")}[decision]}`;
}

function show() {
  const list = shown();
  if (!list.includes(current)) current = list.find(number => number > current) ?? list[0] ?? -1;
  const found = state.cases[current];
  at("finding").hidden = !found;
  at("done").hidden = !!found;
  close();
  showKinds();
  at("undo").disabled = !state.n_steps;
  at("back").disabled = at("skip").disabled = list.length < 2;
  if (!found) {
    const n = state.cases.length;
    at("done").textContent = n ? `Nothing is open here. ${state.cases.filter(answerOf).length} of ${n} findings are decided.` : "The audit has found nothing to decide.";
    return;
  }
  at("place").textContent = `${list.indexOf(current) + 1} of ${list.length}`;
  at("severity").hidden = found.kind === "next";
  at("severity").textContent = found.severity;
  at("severity").className = `chip ${found.severity}`;
  at("answer").textContent = answerOf(found);
  at("answer").hidden = !answerOf(found);
  const more = found.cluster > 2 ? ` The picture is there ${found.cluster} times; what is put together are all of them.` : "";
  at("question").textContent = found.kind === "label" ? `Is it ${found.label}, or ${found.suggested}?` : QUESTIONS[found.kind];
  at("question").append(element("div", `${found.reason}.${more}`, "soft"));
  const ids = [found.image_id, found.other_image_id, found.same_image_id];
  at("held-out").hidden = !ids.slice(0, PAIRS.includes(found.kind) ? 2 : 1).some(id => state.images[id]?.split === "test");
  const titles = PAIRS.includes(found.kind) ? ["the first", "the second"] : ["this picture", `the nearest ${found.suggested}`, `the nearest ${found.label}`];
  at("pictures").replaceChildren(...ids.flatMap((id, place) => id ? [figure(id, titles[place])] : []));
  const others = state.cases.filter((each, number) => number !== current && each.image_id === found.image_id);
  at("others").replaceChildren(...others.map(each => element("li", `Also found: ${each.reason}${answerOf(each) && ` (${answerOf(each)})`}`)));
  at("buttons").replaceChildren(...actions(found).map(([action, words, key], place) => {
    const button = element("button", words, place ? "" : "first");
    button.type = "button";
    button.dataset.action = action;
    button.append(element("kbd", key === "Backspace" ? "⌫" : key));
    button.addEventListener("click", () => act(action));
    return button;
  }));
  const next = list[list.indexOf(current) + 1];
  if (next !== undefined) new Image().src = `image/${state.cases[next].image_id}`;
}

function showKinds() {
  const kinds = ["all", ...Object.keys(NAMES).filter(name => state.cases.some(each => each.kind === name))];
  at("kinds").replaceChildren(...kinds.map((name, place) => {
    const n = state.cases.filter(each => (name === "all" || each.kind === name) && !answerOf(each)).length;
    const button = element("button", `${NAMES[name] ?? "All"} ${n}`);
    button.type = "button";
    button.dataset.kind = name;
    button.setAttribute("aria-pressed", name === kind);
    button.append(element("kbd", place));
    button.addEventListener("click", () => choose(name));
    return button;
  }));
}

function choose(name) {
  kind = name;
  current = -1;
  show();
}

function move(step) {
  const list = shown(), place = list.indexOf(current);
  if (list.length) current = list[(place + step + list.length) % list.length];
  show();
}

function say(text, isBad = false) {
  at("said").textContent = text;
  at("said").className = isBad ? "bad" : "good";
}

// One request after another. While a decision is being written no other is taken: its finding has not been seen yet.
let queue = Promise.resolve(), isWriting = false;
const inTurn = work => (queue = queue.then(work).catch(failed));

function write(work) {
  if (isWriting) return;
  isWriting = true;
  inTurn(work).finally(() => { isWriting = false; });
}

async function failed(error) {
  say(error.message, true);
  if (error.isStale) await refresh();
}

function take(answer) {
  for (const [id, decision] of Object.entries(answer.changed)) {
    if (decision) state.decisions[id] = decision;
    else delete state.decisions[id];
  }
  state.n_steps = answer.n_steps;
}

function act(action) {
  const found = state.cases[current];
  if (!found) return;
  if (action === "label" || action === "label other") open(action);
  else if (action === "suggested") decide("label", found.suggested);
  else if (action === "suggested other") decide("label other", found.label);
  else decide(action);
}

function decide(action, label = "", mayBeNew = false) {
  const number = current, list = shown();
  const {image_id, other_image_id, path} = state.cases[number];
  const ids = [image_id, other_image_id].filter(Boolean);
  const seen = Object.fromEntries(ids.map(id => [id, state.decisions[id] ?? null]));
  write(async () => {
    take(await ask("decide", {number, action, label, may_be_new: mayBeNew, shown: seen}));
    if (mayBeNew && !state.classes.includes(label)) state.classes.push(label);
    const guess = {keep: state.cases[number].label, accept: state.cases[number].suggested}[action];
    say(`${path}: ${state.cases[number].kind === "next" && guess ? `it is ${guess}` : `${SAID[action]}${label && `, ${label}`}`}`);
    const later = [...list.slice(list.indexOf(number) + 1), ...list];
    if (action !== "forget" && !isOpen(number)) current = later.find(each => each !== number && (at("decided").checked || isOpen(each))) ?? number;
    show();
  });
}

function undo() {
  write(async () => {
    const answer = await ask("undo", {});
    take(answer);
    if (answer.number !== null) {
      current = answer.number;
      if (!isWanted(current)) kind = "all";
      say(`${state.cases[current].path}: undone`);
    }
    show();
  });
}

async function refresh() {
  Object.assign(state, await ask("decisions"));
  if (at("labelling").hidden) show();  // else what is typed would be lost
}

function open(action) {
  const found = state.cases[current];
  labelled = action;
  confirmed = "";
  const id = action === "label" ? found.image_id : found.other_image_id;
  at("labelling-of").textContent = `${state.images[id].path} is`;
  at("classes").replaceChildren(...state.classes.map(name => Object.assign(element("option"), {value: name})));
  at("label").value = "";
  at("new-class").hidden = true;
  at("labelling").hidden = false;
  at("label").focus();
}

function close() {
  at("label").blur();  // the browser does so too, but later, and the next key would be lost
  at("labelling").hidden = true;
}

at("labelling").addEventListener("submit", event => {
  event.preventDefault();
  const label = at("label").value;
  const isNew = !state.classes.includes(label);
  if (isNew && label !== confirmed) {
    const begun = state.classes.filter(name => name.toLowerCase().startsWith(label.toLowerCase()));
    if (label && begun.length === 1) {
      at("label").value = begun[0];
      return;
    }
    at("new-class").textContent = label.trim() ? `'${label}' is no class so far. Give it once more to make it one.` : "The name of a class is expected.";
    at("new-class").hidden = false;
    confirmed = label;
    return;
  }
  decide(labelled, label, isNew);
});
at("cancel").addEventListener("click", close);
at("decided").addEventListener("change", show);
at("back").addEventListener("click", () => move(-1));
at("skip").addEventListener("click", () => move(1));
at("undo").addEventListener("click", undo);

document.addEventListener("keydown", event => {
  if (!state || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return close();
  if (event.target.matches("#label")) return;
  const found = state.cases[current] ?? {};
  const pressed = found.kind === "odd" && event.key === "a" ? "d" : event.key;  // what the audit suggests
  const wanted = actions(found).find(([, , key]) => key === pressed);
  const kinds = [...at("kinds").children];
  const other = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), u: undo,
    v: () => at("decided").click(),
  }[event.key] ?? (kinds[event.key] && (() => kinds[event.key].click()));
  if (!other && (!wanted || !state.cases[current])) return;
  event.preventDefault();
  if (other) other();
  else if (!event.repeat) act(wanted[0]);
});
// Another page or a command may have decided meanwhile.
window.addEventListener("focus", () => state && inTurn(refresh));

inTurn(async () => {
  state = await ask("state");
  at("project").textContent = state.project;
  document.title = `Review: ${state.project}`;
  at("file").textContent = state.file;
  if (state.cases.some(({kind}) => kind === "next")) at("after").textContent = "Ctrl-C in the terminal writes labelled.csv.";
  at("gone").textContent = `${state.n_gone} findings concern images that are no longer there, and are left out.`;
  at("gone").hidden = !state.n_gone;
  show();
});
