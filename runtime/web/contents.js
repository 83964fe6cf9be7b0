/** What a bundle's members hold, as views of its bytes; every mismatch with the manifest is named at once. */

import { BundleError } from "./errors.js";

export const [GRAPH, ENCODER, TOKENIZER, GOLDENS] = [
  "recommender.onnx", "item_encoder.onnx", "tokenizer.json", "goldens.json"];

const isCount = (value) => Number.isInteger(value) && value > 0;
const isBoolean = (value) => typeof value === "boolean";
const areNumbers = (value) => Array.isArray(value) && value.length > 0 && value.every(Number.isFinite);
const areDecays = (value) => areNumbers(value) && value.every((element) => element > 0 && element < 1);
const noOr = (holds) => (value) => (Array.isArray(value) && !value.length) || holds(value);

const MODEL = {
  n_items: [isCount, "a count"],
  embedding_size: [isCount, "a count"],
  decays: [areDecays, "numbers between 0 and 1"],
  mix: [areNumbers, "numbers"],
  scale: [Number.isFinite, "a number"],
  shared: [isBoolean, "true or false"],
  mask_seen: [isBoolean, "true or false"],
  max_tokens: [isCount, "a count"],
  repeat_decays: [noOr(areDecays), "numbers between 0 and 1, or none"],
  repeat_weights: [noOr(areNumbers), "numbers, or none"],
};
const SINCE = { repeat_decays: [], repeat_weights: [] }; // what bundles of an earlier release do not have
const PAIRS = { mix: "decays", repeat_weights: "repeat_decays" }; // one number for each of the other

/** Strings that are decoded one by one, from one UTF-8 text and the offsets that cut it. */
class Strings {
  constructor(offsets, text) {
    this._offsets = offsets;
    this._text = text;
    this._decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  }

  get(index) {
    return this._decoder.decode(this._text.subarray(this._offsets[index], this._offsets[index + 1]));
  }

  /** Return why some string could not be read, or null. */
  fault() {
    const [offsets, text] = [this._offsets, this._text];
    const falls = offsets.some((offset, index) => index > 0 && offset < offsets[index - 1]);
    if (offsets[0] || offsets[offsets.length - 1] !== text.length || falls) {
      return "offsets do not rise from 0 to the size of the text";
    }
    try {
      this._decoder.decode(text);
    } catch (error) {
      return "text is not UTF-8";
    }
    return offsets.some((offset) => (text[offset] & 0xc0) === 0x80) ? "offsets cut a character" : null;
  }
}

/** An exported tower; n below is `nItems` + 1, because row 0 of every table is the padding item. */
export class Contents {
  /** @throws {BundleError} Anything is missing or disagrees; the message names all of it. */
  constructor(bundle) {
    const given = bundle.manifest.model;
    if (given === null || typeof given !== "object") throw refusal(bundle, ["the manifest has no model"]);
    this.model = { ...SINCE, ...given };
    refuseIf(bundle, modelFaults(this.model));
    refuseIf(bundle, memberFaults(bundle, this.model));
    this.nItems = this.model.n_items;
    this.size = this.model.embedding_size; // d
    this.decays = Float32Array.from(this.model.decays);
    this.repeatDecays = Float32Array.from(this.model.repeat_decays);
    this.repeatWeights = Float32Array.from(this.model.repeat_weights);
    this.itemIn = this.model.shared ? "item_out" : "item_in"; // the table of items as history
    this.tables = {}; // what the graph's external initializers stand for, by name
    for (const name of new Set(["item_out", this.itemIn])) {
      this.tables[`${name}.i8`] = bundle.array(`${name}.i8`, Int8Array); // [d, n]
      this.tables[`${name}.scale`] = bundle.array(`${name}.scale`, Float32Array);
    }
    for (const name of ["bias.f32", "popularity.f32"]) this.tables[name] = bundle.array(name, Float32Array);
    this.textCodes = bundle.array("text.i8", Int8Array); // [n, d]
    this.textScale = bundle.array("text.scale", Float32Array);
    const strings = (name) => new Strings(bundle.array(`${name}.offsets`, Uint32Array), bundle.get(`${name}.utf8`));
    [this.ids, this.titles] = [strings("ids"), strings("titles")]; // element j belongs to row j + 1
    refuseIf(bundle, contentFaults(this));
    this._rows = null;
  }

  /** Item id -> row, made at the first look-up by id. */
  get rows() {
    if (!this._rows) {
      this._rows = new Map();
      for (let row = 1; row <= this.nItems; row++) this._rows.set(this.ids.get(row - 1), row);
    }
    return this._rows;
  }

  /** Return an item's dequantized vector, Float32Array [d], as history or as candidate. */
  column(row, asHistory) {
    const name = asHistory ? this.itemIn : "item_out";
    const [codes, scale] = [this.tables[`${name}.i8`], this.tables[`${name}.scale`][row]];
    return new Float32Array(this.size).map((_, j) => codes[j * (this.nItems + 1) + row] * scale);
  }
}

function refusal(bundle, found) {
  return new BundleError(`${bundle.name} holds no usable recommender: ${found.join("; ")}; export it again`);
}

function refuseIf(bundle, found) {
  if (found.length) throw refusal(bundle, found);
}

function modelFaults(model) {
  const found = Object.keys(MODEL).filter((name) => !MODEL[name][0](model[name]))
    .map((name) => `model.${name} is ${JSON.stringify(model[name])}, expected ${MODEL[name][1]}`);
  return found.length ? found : Object.keys(PAIRS).filter((name) => model[name].length !== model[PAIRS[name]].length)
    .map((name) => `model.${name} has ${model[name].length} values for ${model[PAIRS[name]].length} ${PAIRS[name]}`);
}

/** Return the members that a bundle of such a model has, with their size in bytes, or null where any will do. */
function membersOf(model) {
  const [n, d] = [model.n_items + 1, model.embedding_size];
  const tables = model.shared ? ["item_out"] : ["item_out", "item_in"];
  const sizes = {};
  for (const name of ["bias.f32", "popularity.f32", "text.scale", "ids.offsets", "titles.offsets"]) sizes[name] = 4 * n;
  for (const name of tables) Object.assign(sizes, { [`${name}.scale`]: 4 * n, [`${name}.i8`]: n * d });
  for (const name of ["ids.utf8", "titles.utf8", GRAPH, ENCODER, TOKENIZER, GOLDENS]) sizes[name] = null;
  return { ...sizes, "text.i8": n * d };
}

function memberFaults(bundle, model) {
  const sizes = membersOf(model);
  return Object.keys(sizes).map((name) => {
    if (!bundle.members.has(name)) return `member ${name} is missing`;
    const size = bundle.get(name).length;
    return sizes[name] === null || sizes[name] === size ? null
      : `member ${name} has ${size} bytes, expected ${sizes[name]}`;
  }).filter(Boolean);
}

function contentFaults(contents) {
  const found = [];
  for (const name of ["ids", "titles"]) {
    const fault = contents[name].fault();
    if (fault) found.push(`${name}.utf8: ${fault}`);
  }
  const numbers = { ...contents.tables, "text.scale": contents.textScale };
  for (const name of Object.keys(numbers).filter((key) => !key.endsWith(".i8"))) {
    if (!numbers[name].subarray(1).every(Number.isFinite)) found.push(`${name} is not finite`);
  }
  for (const name of ["bias.f32", "popularity.f32"]) {
    if (!(contents.tables[name][0] <= -1e38)) found.push(`${name} would return the padding item`);
  }
  return found;
}
