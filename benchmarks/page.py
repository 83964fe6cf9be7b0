"""The report's page: what is around the tables and plots. It loads nothing, so that it works offline."""

from __future__ import annotations

# Okabe & Ito (2008), told apart by colour-blind readers; without black and yellow, so that they show on dark and white
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4")  # of another number than the colours, so that a pair returns late only

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #d0d0d0; --soft: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616; --line: #444; --soft: #222; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap }
td:last-child { white-space: normal }
th { background: var(--soft) }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid #0072B2 }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1rem }
svg { width: 100%; height: auto; touch-action: none; user-select: none; cursor: crosshair }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif } .grid { stroke: var(--line); stroke-width: .6 }
.curve { fill: none; stroke-width: 2 } .drag { fill: #0072B2; opacity: .15 }
.legend { font-size: .82rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem } .legend svg { width: 34px; height: 10px }
"""

SCRIPT = r"""
"use strict";
const NS = "http://www.w3.org/2000/svg", W = 560, H = 330, L = 48, R = 12, T = 10, B = 40;
const add = (parent, name, attributes, text) => {
  const node = parent.appendChild(document.createElementNS(NS, name));
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
};
// nice numbers between two positive ones: 1, 2, 5 (or 1, 3) times powers of ten, more of them where the range is narrow
const ticks = (low, high) => {
  const found = [], wide = high / low, steps = wide > 1e4 ? [1] : wide > 300 ? [1, 3] : wide > 3 ? [1, 2, 5] : null;
  if (!steps) {
    const step = Math.pow(10, Math.floor(Math.log10((high - low) / 3)));
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(+v.toPrecision(6));
    return found.filter((_, place) => place % Math.ceil(found.length / 7) === 0);
  }
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
    for (const s of steps) { const v = s * Math.pow(10, e); if (v >= low && v <= high) found.push(+v.toPrecision(3)); }
  return found;
};
function plot(box) {
  const curves = JSON.parse(box.querySelector("script").textContent);
  const svg = add(box, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": box.dataset.title });
  const values = curves.flatMap(curve => curve.points.map(point => point[0]));
  const whole = { low: Math.min(...values) * 0.95, high: Math.max(...values) * 1.05, from: 0, to: 1 };
  let view = { ...whole };
  const x = v => L + (W - L - R) * Math.log(v / view.low) / Math.log(view.high / view.low);
  const y = p => H - B - (H - T - B) * (p - view.from) / (view.to - view.from);
  const unx = px => view.low * Math.pow(view.high / view.low, (px - L) / (W - L - R));
  const uny = py => view.from + (view.to - view.from) * (H - B - py) / (H - T - B);
  const id = "clip" + Math.random().toString(36).slice(2);
  function draw() {
    svg.replaceChildren();
    add(add(svg, "clipPath", { id }), "rect", { x: L, y: T, width: W - L - R, height: H - T - B });
    for (const v of ticks(view.low, view.high)) {
      add(svg, "line", { x1: x(v), x2: x(v), y1: T, y2: H - B, class: "grid" });
      add(svg, "text", { x: x(v), y: H - B + 15, "text-anchor": "middle" }, v);
    }
    for (let i = 0; i <= 5; i++) {
      const p = view.from + (view.to - view.from) * i / 5;
      add(svg, "line", { x1: L, x2: W - R, y1: y(p), y2: y(p), class: "grid" });
      add(svg, "text", { x: L - 6, y: y(p) + 4, "text-anchor": "end" }, +(100 * p).toFixed(1) + "%");
    }
    add(svg, "text", { x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle" }, "latency, ms (log scale)");
    const inside = add(svg, "g", { "clip-path": `url(#${id})` });
    curves.forEach(curve => {
      let path = "";  // a step for every order statistic: the share of queries that took no longer
      curve.points.forEach(([v, p], i) => { path += i ? `H${x(v)}V${y(p)}` : `M${x(v)} ${y(0)}V${y(p)}`; });
      const line = add(inside, "path",
        { d: path, class: "curve", stroke: curve.colour, "stroke-dasharray": curve.dash });
      add(line, "title", {}, curve.name);
    });
  }
  let start = null, mark = null;
  const within = (value, low, high) => Math.min(high, Math.max(low, value));  // what is dragged ends with the drawing
  const at = event => { const r = svg.getBoundingClientRect();
    return [within((event.clientX - r.left) * W / r.width, L, W - R),
      within((event.clientY - r.top) * H / r.height, T, H - B)]; };
  svg.addEventListener("pointerdown", event => { start = at(event); svg.setPointerCapture(event.pointerId);
    mark = add(svg, "rect", { class: "drag" }); });
  svg.addEventListener("pointermove", event => { if (!start) return; const now = at(event);
    const attributes = { x: Math.min(start[0], now[0]), y: Math.min(start[1], now[1]),
      width: Math.abs(now[0] - start[0]), height: Math.abs(now[1] - start[1]) };
    for (const key in attributes) mark.setAttribute(key, attributes[key]); });
  svg.addEventListener("pointerup", event => { if (!start) return;  // pressed beside the plot
    const [a, b] = start, [c, d] = at(event); start = null; mark.remove();
    if (Math.abs(c - a) <= 8 || Math.abs(d - b) <= 8) return;  // not drawn anew: a double click needs its target
    const next = { low: unx(Math.min(a, c)), high: unx(Math.max(a, c)),
      from: uny(Math.max(b, d)), to: uny(Math.min(b, d)) };
    if (next.high / next.low < 1.0001 || next.to - next.from < 0.005) return;  // finer than the axes' numbers tell
    view = next; draw(); });
  svg.addEventListener("dblclick", () => { view = { ...whole }; draw(); });
  draw();
}
function sortable(table) {
  table.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent; head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
      const key = row => { const text = row.cells[column].textContent, n = parseFloat(text);
        return Number.isNaN(n) ? text : n; };
      const rows = [...body.rows].sort((a, b) => { const p = key(a), q = key(b);
        return typeof p === typeof q ? (p > q) - (p < q) : typeof p === "number" ? -1 : 1; });
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}
document.querySelectorAll(".plot").forEach(plot);
document.querySelectorAll("table").forEach(sortable);
"""
