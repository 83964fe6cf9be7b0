/** Text on the device: the bundle's tokenizer and `item_encoder.onnx`, both opened at the first text. */

import { Tokenizer } from "@huggingface/tokenizers";

import { BundleError, UnsupportedError } from "./errors.js";
import { ENCODER, TOKENIZER } from "./contents.js";
import { OrtGraph } from "./engine.js";
import { PlainGraph } from "./operators.js";

export class TextEncoder {
  /** `ort` null computes in plain JS. */
  constructor(bundle, contents, ort) {
    this._bundle = bundle;
    this._contents = contents;
    this._ort = ort;
    this._opened = null;
  }

  /**
   * @param {string} text
   * @returns {Promise<{text: Float32Array, itemIn: Float32Array, itemOut: Float32Array, bias: number}>} Vectors [d].
   * @throws {UnsupportedError} The tokenizer, or the graph in plain JS, is of a kind that is not known here.
   * @throws {BundleError} onnxruntime-web cannot open the graph.
   */
  async encode(text) {
    if (!this._opened) this._opened = this._open();
    const { tokenizer, graph } = await this._opened;
    const ids = truncated(tokenizer, text, this._contents.model.max_tokens);
    const tokens = ids.length ? ids : [0]; // where nothing is known of a text, one token that is masked
    const mask = tokens.map(() => (ids.length ? 1 : 0));
    const shape = [1, tokens.length];
    const made = await graph.run({ input_ids: [tokens, shape], attention_mask: [mask, shape] });
    const vectors = ["text_vector", "item_in", "item_out", "bias"].map((name) => Object(made[name]).data || []);
    const [sizes, expected] = [vectors.map((vector) => vector.length), [...Array(3).fill(this._contents.size), 1]];
    if (String(sizes) !== String(expected)) {
      throw new BundleError(`${this._bundle.name}: ${ENCODER} gives ${sizes} numbers for a text, expected ${expected}: ` +
        "export the bundle again");
    }
    const [vector, itemIn, itemOut, [bias]] = vectors;
    return { text: vector, itemIn, itemOut, bias };
  }

  async _open() {
    const graph = this._bundle.get(ENCODER);
    let [tokenizer, plain] = [null, null];
    try {
      tokenizer = new Tokenizer(JSON.parse(this._bundle.text(TOKENIZER)), {});
      plain = this._ort ? null : new PlainGraph(graph);
    } catch (error) {
      throw new UnsupportedError(`${this._bundle.name}: ${tokenizer ? ENCODER : TOKENIZER} cannot be used here ` +
        `(${error.message}); search and new items are not available on this device, recommendations are`);
    }
    return { tokenizer, graph: plain || await OrtGraph.open(this._ort, this._bundle, ENCODER, graph) };
  }
}

/** Return the token ids of a text, cut to `most` with the special tokens kept, as the Rust tokenizers cut. */
export function truncated(tokenizer, text, most) {
  const whole = tokenizer.encode(text).ids;
  if (whole.length <= most) return whole;
  const content = tokenizer.encode(text, { add_special_tokens: false }).ids;
  const special = whole.length - content.length;
  let before = 0; // special tokens before the text: where the text starts within the whole
  while (before < special && content.some((id, at) => whole[before + at] !== id)) before += 1;
  return [
    ...whole.slice(0, before),
    ...content.slice(0, Math.max(0, most - special)),
    ...whole.slice(before + content.length),
  ];
}
