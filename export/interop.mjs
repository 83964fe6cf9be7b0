// transformers.js reads the folder that `edgerec export --target hugging-face` writes: see interop.py.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(resolve('package.json')); // the folder it is run from has the package installed
const { env, pipeline } = await import(pathToFileURL(require.resolve('@huggingface/transformers')).href);
const [folder, asked, out] = process.argv.slice(2).map((path) => resolve(path));
const task = JSON.parse(readFileSync(asked, 'utf8'));

env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const extract = await pipeline('feature-extraction', basename(folder), { dtype: 'fp32' });
const vectors = [];
for (const text of task.texts) {
  const state = await extract(text, { pooling: 'mean', normalize: task.normalised });
  vectors.push(Array.from(state.data));
}
writeFileSync(out, JSON.stringify({ tool: 'transformers.js', version: env.version, vectors }));
