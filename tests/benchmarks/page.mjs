/** The report's page under a mouse: `node page.mjs PAGE` prints, as JSON, what it asked for, said and showed. */

import { pathToFileURL } from "node:url";

import { launch } from "../../runtime/web/browser.mjs";

const address = pathToFileURL(process.argv[2]).href;
const browser = await launch();
const page = await (await browser.newContext({ offline: true })).newPage();
const asked = [];
const faults = [];
page.on("request", (request) => asked.push(request.url()));
page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(message.text()); });
page.on("pageerror", (error) => faults.push(String(error)));
await page.goto(address);

const table = page.locator("table").first(); // of speed
const shown = () => table.evaluate((one) => ({
  rows: Array.from(one.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => cell.textContent)),
  marks: Array.from(one.querySelectorAll("th"), (head) => head.getAttribute("aria-sort")),
}));

async function clicked(head) {
  await table.locator(`th button:text-is("${head}")`).click();
  return shown();
}

const plots = page.locator(".plot > svg");
const labels = () => plots.evaluateAll((all) => all.map((one) => {
  const texts = (anchor) => Array.from(one.querySelectorAll(`text[text-anchor=${anchor}]`), (text) => text.textContent);
  return { x: texts("middle").slice(0, -1), y: texts("end") }; // the last in the middle is the axis's name
}));

/** Return a point of the first plot's drawing, of which `across` and `down` are shares. */
async function point(across, down) {
  const { x, y, width, height } = await plots.first().boundingBox();
  return [x + across * width, y + down * height];
}

async function drag(from, to) {
  await page.mouse.move(...await point(...from));
  await page.mouse.down();
  await page.mouse.move(...await point(...to), { steps: 4 });
  const meanwhile = await page.evaluate(() => ({
    marked: document.querySelectorAll("rect.drag").length, selected: getSelection().toString(),
  }));
  await page.mouse.up();
  return { ...meanwhile, labels: await labels() };
}

/** Return a point of the first plot where the mouse is over a curve, or null. */
const onCurve = () => plots.first().evaluate((one) => {
  for (const path of one.querySelectorAll("path.curve")) {
    for (let share = 0; share < 1; share += 0.001) {
      const { x, y } = path.getPointAtLength(share * path.getTotalLength()).matrixTransform(path.getScreenCTM());
      if (document.elementFromPoint(x, y) === path) return [x, y];
    }
  }
  return null;
});

async function back() {
  const curve = await onCurve();
  await page.mouse.dblclick(...curve ?? await point(0.5, 0.5));
  return { onCurve: curve !== null, labels: await labels() };
}

async function zoomed() {
  await plots.first().scrollIntoViewIfNeeded();
  const found = { before: await labels() };
  found.slip = await drag([0.4, 0.4], [0.405, 0.405]);
  found.first = await drag([0.3, 0.3], [0.7, 0.6]);
  found.second = await drag([0.8, 0.8], [0.4, 0.2]); // to the left and up
  found.back = await back();
  found.margin = await drag([0.3, 0.9], [0.6, 0.98]); // among the numbers below the drawing
  await back();
  found.over = await drag([0.5, 0.3], [-0.05, 0.6]); // over the edge
  await back();
  for (let times = 0; times < 12; times++) found.deep = await drag([0.45, 0.45], [0.6, 0.6]);
  await back();
  found.beside = await drag([-0.05, 0.3], [0.5, 0.6]); // begun beside the plot, as one that selects text
  return found;
}

async function colours(colorScheme) {
  await page.emulateMedia({ colorScheme });
  return page.evaluate(() => {
    const { backgroundColor, color } = getComputedStyle(document.body);
    return { paper: backgroundColor, ink: color, labels: getComputedStyle(document.querySelector("svg text")).fill };
  });
}

const heads = await table.locator("th").allTextContents();
const tables = { unsorted: await shown() };
for (const head of ["p50 ms", "p99.9 ms", "subject"]) tables[head] = [await clicked(head), await clicked(head)];
const zoom = await zoomed();
const schemes = { light: await colours("light"), dark: await colours("dark") };
await browser.close();
process.stdout.write(`${JSON.stringify({ address, asked, faults, heads, tables, zoom, schemes })}\n`);
