/** Which engine answers, onnxruntime-web behind one call, and `recommender.onnx` with its tables. */

import { BundleError, UsageError } from "./errors.js";
import { GRAPH } from "./contents.js";
import { withoutDefaults } from "./onnx.js";
import { readBytes } from "./source.js";

const ENGINES = ["auto", "onnxruntime", "plain"];
const DEFAULTS = ["exclude", "k", "score_offset"]; // inputs that a graph answers without
const REPEAT_DEFAULTS = ["repeat_memory", "repeat_rows"]; // of a graph with repeat recencies
const OUTPUTS = ["items", "scores", "state_out", "user"];
// (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt): no WebAssembly without SIMD takes it
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98,
  11];

/**
 * Decide what computes.
 *
 * @param {"auto"|"onnxruntime"|"plain"} engine
 * @param {object|undefined} ort The onnxruntime-web module, or the global of its script.
 * @returns {Promise<{ort: object|null, reason: string}>} `ort` is null where plain JS does.
 * @throws {UsageError} "onnxruntime" was asked for and cannot run here.
 */
export async function choose(engine = "auto", ort = globalThis.ort) {
  if (!ENGINES.includes(engine)) {
    throw new UsageError(`got the engine ${JSON.stringify(engine)}; expected one of ${ENGINES.join(", ")}`);
  }
  if (engine === "plain") return { ort: null, reason: "it was asked for" };
  const lacking = await whatLacks(ort);
  if (lacking && engine === "onnxruntime") {
    throw new UsageError(`onnxruntime-web cannot run here: ${lacking}; expected both: use the engine plain`);
  }
  return lacking ? { ort: null, reason: lacking } : { ort, reason: "WebAssembly SIMD is here" };
}

async function whatLacks(ort) {
  if (!ort) return "onnxruntime-web is not loaded";
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(Uint8Array.from(SIMD))) return "no WebAssembly SIMD";
  const { wasm } = ort.env;
  wasm.numThreads = 1; // more want a page that is cross-origin isolated, and small catalogues gain nothing
  const url = wasm.wasmPaths && wasm.wasmPaths.wasm;
  try { // here and not by onnxruntime-web, which could not read it in a packaged app
    if (url && !wasm.wasmBinary) wasm.wasmBinary = await readBytes(url);
  } catch (error) {
    return error.message;
  }
  return null;
}

let last = Promise.resolve(); // onnxruntime-web's calls share a stack: they must not overlap

/** A graph in onnxruntime-web, on one thread. */
export class OrtGraph {
  constructor(ort, session) {
    this._ort = ort;
    this._session = session;
    [this.inputs, this.outputs] = [[...session.inputNames].sort(), [...session.outputNames].sort()];
  }

  /**
   * @param {object} ort
   * @param {import("./bundle.js").Bundle} bundle
   * @param {string} name The member that the graph came from.
   * @param {Uint8Array} graph
   * @param {Object<string, ArrayBufferView>} tables What its external initializers stand for, by name.
   * @throws {BundleError} onnxruntime-web cannot open it.
   */
  static async open(ort, bundle, name, graph, tables = {}) {
    const externalData = Object.keys(tables).map((path) => {
      const { buffer, byteOffset, byteLength } = tables[path];
      return { path, data: new Uint8Array(buffer, byteOffset, byteLength) };
    });
    try {
      const options = { executionProviders: ["wasm"], externalData, logSeverityLevel: 4 };
      return new OrtGraph(ort, await ort.InferenceSession.create(graph, options));
    } catch (error) {
      throw new BundleError(`${bundle.name}: ${name} cannot be opened by onnxruntime-web ${ort.env.versions.web} ` +
        `(${error.message}); expected a graph that it knows: update it, or export the bundle again`);
    }
  }

  /**
   * Run once, after every call before.
   *
   * @param {Object<string, [number[]|Float32Array, number[]]>} feeds Name -> values and shape; plain arrays are int64.
   * @returns {Promise<Object<string, {data: ArrayLike<number>}>>}
   */
  run(feeds) {
    const tensors = {};
    for (const name of Object.keys(feeds)) {
      const [values, dims] = feeds[name];
      tensors[name] = values instanceof Float32Array ? new this._ort.Tensor("float32", values, dims)
        : new this._ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
    }
    const answer = last.then(() => this._session.run(tensors));
    last = answer.catch(() => null);
    return answer;
  }
}

/** `recommender.onnx` with its tables. */
export class OrtRanker {
  static async open(ort, bundle, contents) {
    const defaults = [...DEFAULTS, ...(contents.repeatDecays.length ? REPEAT_DEFAULTS : [])];
    const graph = withoutDefaults(bundle.get(GRAPH), defaults); // onnxruntime-web lets no default be overridden
    const ranker = new OrtRanker(contents, await OrtGraph.open(ort, bundle, GRAPH, graph, contents.tables));
    const { inputs, outputs } = ranker._graph;
    const expected = [...defaults, "history", "state"].sort();
    if (String(inputs) !== String(expected) || String(outputs) !== String(OUTPUTS)) {
      throw new BundleError(`${bundle.name}: ${GRAPH} takes ${inputs} and gives ${outputs}; expected ${expected} and ` +
        `${OUTPUTS}: export the bundle again`);
    }
    return ranker;
  }

  constructor(contents, graph) {
    this._contents = contents;
    this._graph = graph;
  }

  /**
   * Answer one request.
   *
   * @param {object} request
   * @param {number[]} request.history Rows, oldest first; 0 is padding.
   * @param {number} request.k
   * @param {Float32Array} request.state [K, d], from before the history.
   * @param {number[]} [request.exclude] Rows never to return.
   * @param {Float32Array} [request.offset] [n], added to the scores; -Infinity never returns a row.
   * @param {Array} [request.memory] [row, Float32Array [R]] before the history, as `RepeatMemory` recalls it.
   * @returns {Promise<{items: number[], scores: number[], state: Float32Array, user: Float32Array}>}
   */
  async rank({ history, k, state, exclude = [], offset = Float32Array.of(0), memory = [] }) {
    const { decays, size, repeatDecays } = this._contents;
    const rows = history.length ? history : [0];
    const excluded = exclude.length ? exclude : [0];
    const feeds = {
      history: [rows, [1, rows.length]],
      state: [state, [1, decays.length, size]],
      exclude: [excluded, [1, excluded.length]],
      score_offset: [offset, [1, offset.length]],
      k: [[k], [1]],
    };
    if (repeatDecays.length) {
      const known = memory.length ? memory : [[0, new Float32Array(repeatDecays.length)]];
      const left = Float32Array.from({ length: known.length * repeatDecays.length }, (_, at) =>
        known[at % known.length][1][Math.floor(at / known.length)]);
      feeds.repeat_rows = [known.map(([row]) => row), [1, known.length]];
      feeds.repeat_memory = [left, [1, repeatDecays.length, known.length]];
    }
    const { items, scores, state_out: after, user } = await this._graph.run(feeds);
    const places = Array.from(items.data, Number); // -1 where nothing is left to return
    const kept = places.map((_, place) => place).filter((place) => places[place] >= 0);
    return {
      items: kept.map((place) => places[place]),
      scores: kept.map((place) => scores.data[place]),
      state: after.data,
      user: user.data,
    };
  }
}
