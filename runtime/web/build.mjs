/**
 * Build dist/: scripts for pages that cannot load modules, onnxruntime-web's wasm, and the demo; a folder to serve or to
 * package. `npm run build`, and `npm run embed -- FILE.edgerec [FOLDER]` for a page opened from a disk.
 */

import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const OLDEST = "chrome87"; // webOS 22
const SCRIPT_URL = "edgerecScriptUrl"; // a script has no import.meta

const common = {
  bundle: true, minify: true, format: "iife", charset: "utf8", legalComments: "eof", logLevel: "warning",
};

async function embed(bundle, folder = here("dist")) {
  const text = (await readFile(bundle)).toString("base64");
  await writeFile(join(folder, "demo.edgerec.js"), `globalThis.EDGEREC_BUNDLE = "${text}";\n`);
}

async function main() {
  await mkdir(here("dist"), { recursive: true });
  await build({
    ...common, entryPoints: [here("script.js")], outfile: here("dist/edgerec-web.js"), globalName: "edgerec", target: OLDEST,
  });
  await build({
    ...common,
    entryPoints: [here("ort.js")],
    outfile: here("dist/ort-web.js"),
    banner: { js: `var ${SCRIPT_URL} = document.currentScript.src;` },
    define: { "import.meta.url": SCRIPT_URL },
    target: "chrome91", // the first with WebAssembly SIMD
  });
  const wasm = "ort-wasm-simd-threaded.wasm";
  await copyFile(here(`node_modules/onnxruntime-web/dist/${wasm}`), here(`dist/${wasm}`));
  for (const name of ["demo.html", "demo.css"]) await copyFile(here(name), here(`dist/${name}`));
  await build({ ...common, entryPoints: [here("demo.js")], outfile: here("dist/demo.js"), target: OLDEST });
}

const [bundle, folder] = process.argv.slice(2);
await (bundle ? embed(bundle, folder) : main());
