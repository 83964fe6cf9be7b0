/**
 * Bundles in headless Chromium: `node browser.mjs` takes jobs, a line each, and prints the answers, a line each.
 *
 * A job replays calls, or times them: {bundle, engine, old, steps, together, time}. A step is [call, ...arguments] of the recommender, or of its one
 * session for "session.observe" and "session.recommend"; ["load", name] opens another file of the bundle's folder, and
 * ["encode", text] answers with the numbers of its text vector.
 * `together` asks all steps at once. `old` takes away what a browser of 2020 does not have. `time` is {rounds, histories,
 * queries}. CHROMIUM names the browser, if it is not on the PATH under a usual name.
 */

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, delimiter, dirname, extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

export const DIST = fileURLToPath(new URL("dist", import.meta.url));
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
// isolated, a page has a clock of 5 us; otherwise one of 100 us
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const PAGE = "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><script src=ort-web.js></script>" +
  "<script src=edgerec-web.js></script>";

/** Return the browser's path, or undefined. */
export function browserPath() {
  const folders = (process.env.PATH || "").split(delimiter);
  const paths = BROWSERS.flatMap((name) => folders.map((folder) => join(folder, name)));
  return [process.env.CHROMIUM, ...paths].find((path) => path && existsSync(path));
}

/** Start a browser with a profile of its own. */
export async function launch(flags = []) {
  return chromium.launch({ executablePath: browserPath(), headless: true, args: [...FLAGS, ...flags] });
}

/** Serve dist/, an empty page as /, the file `bundle` and what lies beside it; return the address and how to stop. */
export async function serve(bundle) {
  const server = createServer(async (request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname.slice(1));
    try {
      const own = join(dirname(bundle), name === "demo.edgerec" ? basename(bundle) : name);
      const body = name ? await readFile(name.endsWith(".edgerec") ? own : join(DIST, name)) : PAGE;
      response.writeHead(200, { "Content-Type": TYPES[name ? extname(name) : ".html"] || "application/octet-stream", ...ISOLATED });
      response.end(body);
    } catch (error) {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
}

/** Take away what Chromium 87 does not have; runs in the page, before its scripts. */
export function age() {
  delete Array.prototype.at;
  delete String.prototype.at;
  delete Object.hasOwn;
  delete globalThis.structuredClone;
  Object.defineProperty(globalThis.crypto, "subtle", { value: undefined }); // a page from http: in a home
  WebAssembly.validate = () => false;
}

/** Answer the steps of a job; runs in the page. */
async function replay({ engine, steps, together }) {
  const { Recommender } = globalThis.edgerec;
  const told = ({ name, message }) => ({ error: { name, message } });
  let recommender;
  try {
    recommender = await Recommender.load("demo.edgerec", { engine });
  } catch (error) {
    return { load: told(error) };
  }
  const session = recommender.session();
  async function answer([call, ...args]) {
    try {
      if (call === "load") return { value: (await Recommender.load(...args)).engine };
      if (call === "encode") return { value: Array.from((await recommender.encoder.encode(...args)).text) };
      const own = call.startsWith("session.");
      return { value: await (own ? session : recommender)[call.replace("session.", "")](...args) };
    } catch (error) {
      return told(error);
    }
  }
  const answers = together ? await Promise.all(steps.map(answer)) : [];
  if (!together) for (const step of steps) answers.push(await answer(step));
  return { engine: recommender.engine, reason: recommender.reason, answers };
}

/** Time kinds of request, interleaved; runs in the page. Returns milliseconds per call. */
async function time({ engine, time: { rounds, histories, queries } }) {
  const opened = performance.now();
  const recommender = await globalThis.edgerec.Recommender.load("demo.edgerec", { engine });
  const load = performance.now() - opened;
  const session = recommender.session();
  session.observe(...histories[0]);
  const of = (list, number) => list[number % list.length];
  const subjects = {
    "recommend, whole history": (number) => recommender.recommend(of(histories, number)),
    "session, observe + recommend": (number) => {
      session.observe(of(of(histories, number), -1 + of(histories, number).length));
      return session.recommend();
    },
    "search, one query": (number) => recommender.search(of(queries, number)),
  };
  const samples = {};
  const names = Object.keys(subjects);
  for (const name of names) samples[name] = [];
  for (let number = -20; number < rounds; number++) { // the first 20 warm up
    for (let turn = 0; turn < names.length; turn++) {
      const name = of(names, number + 20 + turn);
      const start = performance.now();
      await subjects[name](Math.abs(number));
      if (number >= 0) samples[name].push(performance.now() - start);
    }
  }
  return { engine: recommender.engine, load, isolated: globalThis.crossOriginIsolated, samples };
}

/** Run a job in a page of its own; the answer has the version of the browser and the addresses that were asked. */
async function run(browser, job) {
  const { url, stop } = await serve(job.bundle);
  const page = await browser.newPage(); // with a context of its own
  try {
    const asked = [];
    page.on("request", (request) => asked.push(request.url().replace(url, "")));
    if (job.old) await page.addInitScript(age);
    await page.goto(url);
    const answer = await page.evaluate(job.time ? time : replay, job);
    return { ...answer, browser: browser.version(), asked };
  } finally {
    await page.close();
    stop();
  }
}

async function main() {
  const browser = await launch();
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await run(browser, JSON.parse(line)))}\n`);
  }
  await browser.close();
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
