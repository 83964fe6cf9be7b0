/** Print the bytes of what build.mjs made, as it lies and as a server sends it (brotli 11), as JSON. */

import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

const dist = fileURLToPath(new URL("dist", import.meta.url));
const sizes = {};
for (const name of (await readdir(dist)).sort()) {
  if (!/^[^.].*\.(js|wasm|html|css)$/.test(name) || name === "demo.edgerec.js") continue;
  const bytes = await readFile(join(dist, name));
  sizes[name] = { bytes: bytes.length, brotli: brotliCompressSync(bytes).length };
}
process.stdout.write(`${JSON.stringify(sizes)}\n`);
