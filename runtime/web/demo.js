/**
 * A television's page over one bundle: shelves that follow what is watched, driven by a remote control's five keys.
 * `?bundle=URL` names the bundle (demo.edgerec if not), `?engine=plain` the engine.
 */

const { Recommender } = globalThis.edgerec;
const SHELF = 12; // titles
const BECAUSE = 2; // shelves of what is like the last watched
const BACK_KEYS = [461, 10009]; // of webOS and Tizen
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const element = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const watched = []; // {item, title}, oldest first
const latest = {}; // kind of request -> ms
let recommender;
let turn = 0; // of what is shown: an older answer that comes late is dropped

async function start() {
  const engine = asked.get("engine") || "auto";
  try {
    await open(asked.get("bundle") || "demo.edgerec", engine);
  } catch (error) {
    const embedded = await embeddedBundle();
    if (embedded) await open(embedded, engine).catch(fail);
    else askForFile(error, engine);
  }
}

async function open(source, engine) {
  recommender = await Recommender.load(source, { engine });
  element("open").hidden = true;
  element("query").hidden = false;
  await show();
  focusAt(1, 0);
}

/** Return the bytes that `npm run embed` put beside the page, for pages that may not read files; null without. */
function embeddedBundle() {
  return new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = "demo.edgerec.js";
    script.onload = () => resolve(Uint8Array.from(atob(globalThis.EDGEREC_BUNDLE), (letter) => letter.charCodeAt(0)));
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
}

function askForFile(error, engine) {
  fail(error);
  element("watched").textContent = "";
  element("open").hidden = false;
  element("file").onchange = (event) => open(event.target.files[0], engine).catch(fail);
  element("file").focus();
}

function fail(error) {
  element("status").className = "fault";
  element("status").textContent = error.message;
}

/** Answer everything that is on the screen, then show it. */
async function show() {
  const own = ++turn;
  const [row, column] = place();
  const shelves = await answers();
  if (own !== turn) return;
  element("shelves").replaceChildren(...shelves.map(shelf));
  element("watched").textContent = watched.length ? `Watched: ${watched.map(({ title }) => title).reverse().join(" · ")}`
    : "Choose something to watch";
  element("status").className = "";
  element("status").textContent = [recommender.engine === "plain" ? `plain JS (${recommender.reason})` : "onnxruntime-web",
    ...Object.keys(latest).map((kind) => `${kind} ${latest[kind].toFixed(1)} ms`)].join(" · ");
  if (row > 0) focusAt(row, column);
}

async function answers() {
  const session = recommender.session();
  session.observe(...watched.map(({ item }) => item));
  const query = element("query").value.trim();
  const shelves = [];
  if (query) shelves.push([`“${query}”`, "by meaning", await timed("search", () => recommender.search(query, { k: SHELF }))]);
  shelves.push(["For you", watched.length ? "" : "popular with everybody",
    await timed("recommend", () => session.recommend({ k: SHELF }))]);
  for (const { item, title } of watched.slice(-BECAUSE).reverse()) {
    const near = await timed("similar", () => recommender.similar(item, { k: SHELF + watched.length }));
    shelves.push([`Because you watched ${title}`, "", unwatched(near)]);
  }
  return shelves;
}

function unwatched(found) {
  const seen = new Set(watched.map(({ item }) => item));
  return found.filter(({ item }) => !seen.has(item)).slice(0, SHELF);
}

async function timed(kind, ask) {
  const begun = performance.now();
  const answer = await ask();
  latest[kind] = performance.now() - begun;
  return answer;
}

function shelf([name, remark, found]) {
  const section = document.createElement("section");
  section.setAttribute("aria-label", name);
  const heading = document.createElement("h2");
  const small = document.createElement("small");
  small.textContent = remark;
  heading.append(name, small);
  const row = document.createElement("div");
  row.className = "row";
  row.append(...found.map(card));
  section.append(heading, row);
  return section;
}

function card({ item, title }) {
  const button = document.createElement("button");
  const span = document.createElement("span");
  span.textContent = title;
  button.className = "card";
  button.append(span);
  button.style.setProperty("--hue", [...title].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7));
  button.onclick = () => {
    watched.push({ item, title });
    show().catch(fail);
  };
  return button;
}

/** Return what can have the focus, row by row; the first row is the search. */
function grid() {
  const shelves = Array.from(document.querySelectorAll(".row"), (row) => [...row.children]);
  return [[element("query")], ...shelves.filter((cards) => cards.length)];
}

/** Return [row, column] of the focus; [-1, 0] where nothing has it. */
function place() {
  const rows = grid();
  const row = rows.findIndex((cells) => cells.includes(document.activeElement));
  return [row, row < 0 ? 0 : rows[row].indexOf(document.activeElement)];
}

function focusAt(row, column) {
  const rows = grid();
  const cells = rows[Math.min(Math.max(row, 0), rows.length - 1)];
  const target = cells[Math.min(column, cells.length - 1)];
  target.focus({ preventScroll: true });
  const section = target.closest("section");
  if (section) section.scrollIntoView({ block: "nearest" });
  target.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function move([down, right]) {
  const [row, column] = place();
  if (row < 0) focusAt(1, 0);
  else if (!down) focusAt(row, Math.max(column + right, 0));
  else if (grid()[row + down]) focusAt(row + down, nearest(row, column, row + down));
}

/** Return the column of another row that is nearest on the screen. */
function nearest(row, column, other) {
  const rows = grid();
  if (row < 1 || other < 1) return 0;
  const x = (cell) => cell.getBoundingClientRect().left;
  const distances = rows[other].map((cell) => Math.abs(x(cell) - x(rows[row][column])));
  return distances.indexOf(Math.min(...distances));
}

/** Take back what was done last: the query, then the last title; else leave the key to the set. */
function back() {
  const query = element("query");
  if (!query.value && !watched.length) return false;
  if (query.value) query.value = "";
  else watched.pop();
  show().then(() => focusAt(1, 0)).catch(fail);
  return true;
}

function onKey(event) {
  const typing = event.target === element("query");
  const step = STEPS[event.key];
  if (!recommender || event.isComposing) return;
  if (step && !(typing && step[1] && event.target.value)) move(step);
  else if (event.key === "Enter" && typing) focusAt(1, 0);
  else if (event.key === "Escape" || event.key === "GoBack" || BACK_KEYS.includes(event.keyCode) ||
    (event.key === "Backspace" && !typing)) {
    if (!back()) return;
  } else return;
  event.preventDefault();
}

document.addEventListener("keydown", onKey);
element("query").addEventListener("input", () => show().catch(fail));
start().catch(fail);
