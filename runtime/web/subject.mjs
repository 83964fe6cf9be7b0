/**
 * One bundle in headless Chromium, asked a request at a time: `node subject.mjs BUNDLE ENGINE`. Lines on stdin are JSON
 * arrays [call, argument] of the recommender; each answer is {items, ms}, the milliseconds counted in the page, or
 * {error}; ["verify"] answers {verified}. The first line that it prints says {browser}, once that has started; the second
 * {engine}, once the bundle is open, or {error}.
 */

import { createInterface } from "node:readline";

import { launch, serve } from "./browser.mjs";

/** Open the bundle; runs in the page. */
async function open(engine) {
  try {
    globalThis.recommender = await globalThis.edgerec.Recommender.load("demo.edgerec", { engine });
    return { engine: globalThis.recommender.engine };
  } catch ({ message }) {
    return { error: message };
  }
}

/** Answer once; runs in the page. */
async function ask([call, argument]) {
  const start = performance.now();
  try {
    const found = await globalThis.recommender[call](argument);
    const ms = performance.now() - start;
    if (call === "verify") return { verified: found };
    return { items: found.map(({ item }) => item), ms };
  } catch ({ message }) {
    return { error: message };
  }
}

const [bundle, engine] = process.argv.slice(2);
const browser = await launch();
const { url, stop } = await serve(bundle);
try {
  const page = await browser.newPage();
  await page.goto(url);
  process.stdout.write(`${JSON.stringify({ browser: browser.version() })}\n`);
  process.stdout.write(`${JSON.stringify(await page.evaluate(open, engine))}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await page.evaluate(ask, JSON.parse(line)))}\n`);
  }
} finally {
  await browser.close();
  stop();
}
