/**
 * A bundle in headless Chromium: `node browser.mjs < job.json` replays calls, or times them, and prints the answers.
 *
 * A job: {bundle, engine, old, steps, time}. A step is [call, ...arguments] of the recommender, or of its one session
 * for "session.observe" and "session.recommend"; `old` takes away what a browser of 2020 does not have. `time` is
 * {rounds, histories, queries}. CHROMIUM names the browser, if it is not on the PATH under a usual name.
 */

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { delimiter, extname, join } from "node:path";
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

/** Serve dist/, an empty page as /, and further files by name; return the address and how to stop. */
export async function serve(files = {}) {
  const server = createServer(async (request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname.slice(1));
    try {
      const body = name ? await readFile(files[name] || join(DIST, name)) : PAGE;
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
async function replay({ engine, steps }) {
  const { Recommender } = globalThis.edgerec;
  const told = ({ name, message }) => ({ error: { name, message } });
  let recommender;
  try {
    recommender = await Recommender.load("bundle.edgerec", { engine });
  } catch (error) {
    return { load: told(error) };
  }
  const session = recommender.session();
  const answers = await Promise.all(steps.map(async ([call, ...args]) => { // at once: answers must not mix
    try {
      const own = call.startsWith("session.");
      return { value: await (own ? session : recommender)[call.replace("session.", "")](...args) };
    } catch (error) {
      return told(error);
    }
  }));
  return { engine: recommender.engine, reason: recommender.reason, answers };
}

/** Time kinds of request, interleaved; runs in the page. Returns milliseconds per call. */
async function time({ engine, time: { rounds, histories, queries } }) {
  const opened = performance.now();
  const recommender = await globalThis.edgerec.Recommender.load("bundle.edgerec", { engine });
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

/** Run a job in a fresh browser; the answer has the version of the browser and the addresses that were asked. */
export async function run(job) {
  const { url, stop } = await serve({ "bundle.edgerec": job.bundle });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    const asked = [];
    page.on("request", (request) => asked.push(request.url().replace(url, "")));
    if (job.old) await page.addInitScript(age);
    await page.goto(url);
    const answer = await page.evaluate(job.time ? time : replay, job);
    return { ...answer, browser: browser.version(), asked };
  } finally {
    await browser.close();
    stop();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const parts = [];
  for await (const part of process.stdin) parts.push(part);
  process.stdout.write(JSON.stringify(await run(JSON.parse(Buffer.concat(parts)))));
}
