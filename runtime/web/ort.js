/** What ort-web.js is made of: onnxruntime-web as a script with the global `ort`, its wasm beside it. */

import * as ort from "onnxruntime-web/wasm";

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", document.currentScript.src).href };
globalThis.ort = ort;
