/** As much of the ONNX file format as is needed: taking a graph's defaults away, and reading a graph of plain nodes. */

import { EdgerecError } from "./errors.js";

// field numbers of onnx.proto
const MODEL_GRAPH = 7;
const GRAPH = { node: 1, initializer: 5, output: 12 };
const NODE = { input: 1, output: 2, op: 4, attribute: 5 };
const ATTRIBUTE = { name: 1, f: 2, i: 3, t: 5, ints: 8 };
const TENSOR = { dims: 1, type: 2, floats: 4, int32s: 5, int64s: 7, name: 8, raw: 9 };
const VALUE_NAME = 1;

export const [FLOAT, UINT8, INT8, INT32, INT64, BOOL] = [1, 2, 3, 6, 7, 9];
/** Element type -> array; int64 is held as doubles, which are exact for every shape and row. */
export const ARRAYS = {
  [FLOAT]: Float32Array, [UINT8]: Uint8Array, [INT8]: Int8Array, [INT32]: Int32Array, [INT64]: Float64Array,
  [BOOL]: Uint8Array,
};

const HALF = 10; // read as float32: JS has no arrays of it

/** Return the number that IEEE 754 binary16 means by 16 bits. */
function half(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : sign * fraction * 2 ** -24;
}

/** Yield the fields of a protobuf message; a value is a number, or a view of bytes. */
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  function varint() { // signed: 64 bits as two halves
    let [low, high] = [0, 0];
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = view.getUint8(at++);
      if (shift < 28) low |= (byte & 127) << shift;
      else if (shift === 28) { low |= (byte & 15) << 28; high = (byte & 127) >> 4; }
      else high |= (byte & 127) << (shift - 32);
      if (byte < 128) break;
    }
    return high * 2 ** 32 + (low >>> 0);
  }
  while (at < bytes.length) {
    const start = at;
    const tag = varint();
    const kind = tag & 7;
    let value;
    if (kind === 0) value = varint();
    else if (kind === 2) {
      const size = varint();
      value = bytes.subarray(at, at + size);
      at += size;
    } else { // fixed: a float, or eight bytes that no field here wants
      value = kind === 5 ? view.getFloat32(at, true) : NaN;
      at += kind === 5 ? 4 : 8;
    }
    yield { number: tag >>> 3, value, whole: bytes.subarray(start, at) };
  }
}

/** Return every value of a field. */
function all(bytes, number) {
  return Array.from(fields(bytes)).filter((field) => field.number === number).map((field) => field.value);
}

const text = (bytes) => new TextDecoder().decode(bytes);

/** Return a model whose graph has no initializers of these names, so that inputs of those names must be given. */
export function withoutDefaults(model, names) {
  return join(Array.from(fields(model), ({ number, value, whole }) => {
    if (number !== MODEL_GRAPH) return whole;
    const kept = join(Array.from(fields(value)).filter((field) => field.number !== GRAPH.initializer ||
      !names.includes(text(all(field.value, TENSOR.name)[0]))).map((field) => field.whole));
    return join([Uint8Array.from([(MODEL_GRAPH << 3) | 2, ...encodeVarint(kept.length)]), kept]);
  }));
}

function encodeVarint(value) {
  return value < 128 ? [value] : [(value % 128) | 128, ...encodeVarint(Math.floor(value / 128))];
}

function join(parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Return a model's nodes, in their order, its initializers by name, and the names of its outputs. */
export function readGraph(model) {
  const graph = all(model, MODEL_GRAPH)[0];
  const tensors = {};
  for (const value of all(graph, GRAPH.initializer)) tensors[text(all(value, TENSOR.name)[0])] = readTensor(value);
  return {
    nodes: all(graph, GRAPH.node).map(readNode),
    tensors,
    outputs: all(graph, GRAPH.output).map((value) => text(all(value, VALUE_NAME)[0])),
  };
}

function readNode(bytes) {
  const attributes = {};
  for (const attribute of all(bytes, NODE.attribute)) {
    const name = text(all(attribute, ATTRIBUTE.name)[0]);
    const [tensor] = all(attribute, ATTRIBUTE.t);
    const ints = numbers(attribute, ATTRIBUTE.ints);
    const [single] = [...all(attribute, ATTRIBUTE.i), ...all(attribute, ATTRIBUTE.f)];
    attributes[name] = tensor ? readTensor(tensor) : ints.length ? ints : single;
  }
  return {
    op: text(all(bytes, NODE.op)[0]),
    inputs: all(bytes, NODE.input).map(text),
    outputs: all(bytes, NODE.output).map(text),
    attributes,
  };
}

/** Return {type, dims, data}. */
function readTensor(bytes) {
  const [type] = all(bytes, TENSOR.type);
  const [raw] = all(bytes, TENSOR.raw);
  const dims = numbers(bytes, TENSOR.dims);
  if (type === HALF && raw) return { type: FLOAT, dims, data: Float32Array.from(new Uint16Array(raw.slice().buffer), half) };
  if (!ARRAYS[type]) throw new EdgerecError(`a tensor has ONNX type ${type}; expected one of ${Object.keys(ARRAYS)}`);
  if (!raw || !raw.length) {
    const field = { [FLOAT]: TENSOR.floats, [INT64]: TENSOR.int64s }[type] || TENSOR.int32s;
    return { type, dims, data: ARRAYS[type].from(numbers(bytes, field, type === FLOAT)) };
  }
  const { buffer, byteOffset, byteLength } = raw.slice();
  if (type === INT64) return { type, dims, data: Float64Array.from(new BigInt64Array(buffer), Number) };
  return { type, dims, data: new ARRAYS[type](buffer, byteOffset, byteLength / ARRAYS[type].BYTES_PER_ELEMENT) };
}

/** Return a repeated number, packed or not. */
function numbers(bytes, number, floats = false) {
  const found = [];
  for (const value of all(bytes, number)) {
    if (typeof value === "number") found.push(value);
    else if (floats) found.push(...new Float32Array(value.slice().buffer));
    else found.push(...unpack(value));
  }
  return found;
}

/** Return the varints of a packed field: each is read as if a tag of field 1 stood before it. */
function unpack(bytes) {
  const found = [];
  let start = 0;
  bytes.forEach((byte, at) => {
    if (byte & 128) return;
    found.push(...all(join([Uint8Array.of(8), bytes.subarray(start, at + 1)]), 1));
    start = at + 1;
  });
  return found;
}
