/** The demo page under a remote control's keys: `node demo_check.mjs BUNDLE FOLDER`; FOLDER is for a packaged copy. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { DIST, launch, serve } from "../../runtime/web/browser.mjs";

const [bundle, folder] = process.argv.slice(2);
const BUILD = fileURLToPath(new URL("../../runtime/web/build.mjs", import.meta.url));

const focused = (page) => page.evaluate(() => {
  const { left, right, top, bottom } = document.activeElement.getBoundingClientRect();
  return {
    text: document.activeElement.textContent || document.activeElement.id,
    outlined: getComputedStyle(document.activeElement).outlineStyle === "solid",
    visible: left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight,
  };
});
const headings = (page) => page.$$eval("h2", (found) => found.map((one) => one.firstChild.textContent));
const row = (page, at) => page.$$eval(".row", (rows, index) =>
  Array.from(rows[index].children, (card) => card.textContent), at);
const until = (page, count) => page.waitForFunction((wanted) => document.querySelectorAll(".row").length === wanted, count);

async function press(page, ...keys) {
  for (const key of keys) {
    await page.keyboard.press(key);
    const { text, outlined, visible } = await focused(page);
    assert.ok(outlined && visible, `${text} has the focus after ${key}, and cannot be seen`);
  }
}

async function keys(browser) {
  const { url, stop } = await serve(bundle);
  const page = await browser.newPage({ viewport: { width: 1920, height: 1080 }, reducedMotion: "reduce" });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(`${url}demo.html`);
  await until(page, 1);
  assert.deepEqual(await headings(page), ["For you"]);
  const popular = await row(page, 0);

  await press(page, "ArrowLeft", "ArrowRight", "ArrowRight"); // the left edge holds
  assert.equal((await focused(page)).text, popular[2]);
  await page.keyboard.press("Enter");
  await until(page, 2);
  assert.deepEqual(await headings(page), ["For you", `Because you watched ${popular[2]}`]);
  const own = await row(page, 0);
  assert.notDeepEqual(own, popular);
  assert.ok(!own.includes(popular[2]));
  assert.equal((await focused(page)).text, own[2]); // the focus stays where it was

  await press(page, "ArrowDown", ...Array(15).fill("ArrowRight"), "ArrowDown"); // to the end of the last shelf
  assert.equal((await focused(page)).text, (await row(page, 1)).pop());
  await press(page, "ArrowUp", "ArrowUp");
  assert.equal((await focused(page)).text, "query");
  await page.keyboard.type("red wine");
  await until(page, 3);
  assert.equal((await headings(page))[0], "“red wine”");
  await press(page, "Enter");
  assert.equal((await focused(page)).text, (await row(page, 0))[0]);

  await page.keyboard.press("Escape"); // takes the query back, then the title
  await until(page, 2);
  await page.keyboard.press("Backspace");
  await until(page, 1);
  assert.deepEqual(await row(page, 0), popular);
  assert.match(await page.textContent("#status"), /^onnxruntime-web · recommend [\d.]+ ms/);
  assert.ok(asked.every((address) => address.startsWith(url)), `asked for ${asked}`);
  await page.close();
  stop();
}

/** Open the page from a disk, and return its first line of status. */
async function opened(flags, act = async () => null) {
  const browser = await launch(flags);
  const page = await browser.newPage();
  await page.goto(pathToFileURL(join(folder, "demo.html")).href);
  await act(page);
  await until(page, 1);
  const status = await page.textContent("#status");
  await browser.close();
  return status;
}

async function fromDisk() {
  cpSync(DIST, folder, { recursive: true, filter: (path) => !path.endsWith(".edgerec.js") });
  const picked = await opened([], async (page) => {
    await page.waitForSelector("#open:not([hidden])");
    assert.match(await page.textContent("#status"), /demo\.edgerec cannot be read .* give the bytes as a File/);
    await page.setInputFiles("#file", bundle);
  });
  assert.match(picked, /^plain JS/); // the wasm cannot be read either
  execFileSync("node", [BUILD, bundle, folder]);
  assert.match(await opened([]), /^plain JS/);
  copyFileSync(bundle, join(folder, "demo.edgerec"));
  assert.match(await opened(["--allow-file-access-from-files"]), /^onnxruntime-web/); // as a packaged app may
}

const browser = await launch();
await keys(browser);
await browser.close();
await fromDisk();
