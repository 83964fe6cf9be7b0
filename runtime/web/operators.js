/**
 * The ONNX operators that text encoders are made of, in plain JS: enough for the static student and for small BERTs,
 * in fp32 and in INT8. A tensor is {type, dims, data}; float results are float32, sums are doubles.
 */

import { EdgerecError } from "./errors.js";
import { roundEven } from "./exact.js";
import { ARRAYS, BOOL, FLOAT, INT32, INT64, UINT8, readGraph } from "./onnx.js";

const count = (dims) => dims.reduce((product, size) => product * size, 1);
const tensor = (type, dims, data = new ARRAYS[type](count(dims))) => ({ type, dims, data });
const axisOf = (axis, rank) => (axis < 0 ? axis + rank : axis);
const values = (given) => Array.from(given.data);

/** Run one operator, and put its results among the known tensors. */
function compute(op, given, attributes, names, known) {
  const made = OPERATORS[op](given, attributes);
  (Array.isArray(made) ? made : [made]).forEach((one, place) => { known[names[place]] = one; });
}

/** A graph that runs here. */
export class PlainGraph {
  /** @throws {EdgerecError} It has an operator that is not known here. */
  constructor(model) {
    const { nodes, tensors, outputs } = readGraph(model);
    const unknown = [...new Set(nodes.map(({ op }) => op))].filter((op) => !OPERATORS[op]);
    if (unknown.length) {
      throw new EdgerecError(`plain JS does not know the operators ${unknown.join(", ")}; expected some of ` +
        `${Object.keys(OPERATORS).join(", ")}: use onnxruntime-web, or a static student`);
    }
    // what constants alone decide, such as weights that are stored in INT8, is computed once
    this._nodes = nodes.filter(({ op, inputs, outputs: names, attributes }) => {
      if (!inputs.every((name) => name in tensors)) return true;
      compute(op, inputs.map((name) => tensors[name]), attributes, names, tensors);
      return false;
    });
    [this._tensors, this.outputs] = [tensors, outputs];
  }

  /** Run once; feeds and results are as OrtGraph's. */
  async run(feeds) {
    const known = { ...this._tensors };
    for (const name of Object.keys(feeds)) {
      const [data, dims] = feeds[name];
      known[name] = data instanceof Float32Array ? tensor(FLOAT, dims, data)
        : tensor(INT64, dims, Float64Array.from(data));
    }
    for (const { op, inputs, outputs, attributes } of this._nodes) {
      compute(op, inputs.map((name) => known[name]), attributes, outputs, known);
    }
    const results = {};
    for (const name of this.outputs) results[name] = known[name];
    return results;
  }
}

/** Return the step in `given.data` of each of the dimensions `dims` that it is spread over; 0 where it repeats. */
function steps(given, dims) {
  const found = new Array(dims.length).fill(0);
  let step = 1;
  for (let at = given.dims.length - 1; at >= 0; at--) {
    if (given.dims[at] > 1) found[at + dims.length - given.dims.length] = step;
    step *= given.dims[at];
  }
  return found;
}

function spread(...dimsOfEach) {
  const rank = Math.max(...dimsOfEach.map((dims) => dims.length));
  return Array.from({ length: rank }, (_, at) => dimsOfEach.reduce((size, dims) => {
    const own = dims[dims.length - rank + at];
    return own === undefined || own === 1 ? size : own;
  }, 1));
}

/** Call `visit(place in dims, offset in each)` for every element of `dims`, offsets going by steps per dimension. */
function walk(dims, stepsOfEach, visit) {
  const index = new Array(dims.length).fill(0);
  const offsets = stepsOfEach.map(() => 0);
  for (let place = 0, total = count(dims); place < total; place++) {
    visit(place, offsets);
    for (let at = dims.length - 1; at >= 0; at--) {
      index[at]++;
      stepsOfEach.forEach((own, each) => { offsets[each] += own[at]; });
      if (index[at] < dims[at]) break;
      stepsOfEach.forEach((own, each) => { offsets[each] -= own[at] * dims[at]; });
      index[at] = 0;
    }
  }
}

/** Return what a function makes of each number, as a tensor of a type. */
function mapped(type, dims, data, change) {
  const made = tensor(type, dims);
  for (let at = 0; at < data.length; at++) made.data[at] = change(data[at], at); // TypedArray.from is ten times slower
  return made;
}

/** Tell whether a tensor of dimensions `few` repeats over one of `dims` as a whole. */
function repeats(few, dims) {
  const own = few.slice(few.findIndex((size) => size > 1));
  return count(few) === 1 || own.every((size, at) => size === dims[dims.length - own.length + at]);
}

/** Return an operator that combines two tensors element by element. */
function binary(combine, type = null) {
  return ([a, b]) => {
    const made = tensor(type || a.type, spread(a.dims, b.dims));
    if (a.data.length === made.data.length && repeats(b.dims, made.dims)) {
      return mapped(made.type, made.dims, a.data, (value, at) => combine(value, b.data[at % b.data.length]));
    }
    walk(made.dims, [steps(a, made.dims), steps(b, made.dims)], (place, [i, j]) => {
      made.data[place] = combine(a.data[i], b.data[j]);
    });
    return made;
  };
}

function unary(change) {
  return ([a]) => tensor(a.type, a.dims, a.data.map((value) => change(value)));
}

/** Return how a dimension cuts a tensor: [outer, size of the dimension, inner]. */
function cut(dims, axis) {
  return [count(dims.slice(0, axis)), dims[axis], count(dims.slice(axis + 1))];
}

/** Return a reduction over axes that come as a second input (opset 13) or as an attribute. */
function reduction(collect) {
  return ([a, given], { axes, keepdims = 1 }) => {
    const asked = (given ? values(given) : axes || a.dims.map((_, at) => at)).map((axis) => axisOf(axis, a.dims.length));
    const kept = a.dims.map((size, at) => (asked.includes(at) ? 1 : size));
    const lists = Array.from({ length: count(kept) }, () => []);
    walk(a.dims, [steps({ dims: kept }, a.dims)], (place, [to]) => lists[to].push(a.data[place]));
    const dims = keepdims ? kept : kept.filter((_, at) => !asked.includes(at));
    return tensor(a.type, dims, ARRAYS[a.type].from(lists, collect));
  };
}

const total = (list) => list.reduce((sum, value) => sum + value, 0);
const sumOfSquares = (list) => list.reduce((sum, value) => sum + value * value, 0);

/** Return what one function makes of every line along the last axis. */
function byLine(a, make) {
  const made = tensor(a.type, a.dims);
  const length = a.dims[a.dims.length - 1];
  for (let at = 0; at < a.data.length; at += length) made.data.set(make(a.data.subarray(at, at + length)), at);
  return made;
}

/** Return numbers as doubles, less their zero points: so the inner loop of a product meets one kind of array only. */
function doubles(data, zeros) {
  const made = new Float64Array(data);
  if (zeros && zeros.data.some(Boolean)) made.forEach((value, at) => { made[at] -= zeros.data[at % zeros.data.length]; });
  return made;
}

/** Multiply [..., m, k] by [..., k, n], after taking zero points, one for `a` and one or n for `b`. */
function product(type, a, b, zeroA = null, zeroB = null) {
  const [m, k] = a.dims.slice(-2);
  const n = b.dims[b.dims.length - 1];
  const outer = spread(a.dims.slice(0, -2), b.dims.slice(0, -2));
  const made = tensor(type, [...outer, m, n]);
  const [left, right] = [doubles(a.data, zeroA), doubles(b.data, zeroB)];
  const line = new Float64Array(n);
  const sides = [a, b].map((one) => steps({ dims: one.dims.slice(0, -2) }, outer));
  walk(outer, sides, (place, [i, j]) => {
    for (let row = 0; row < m; row++) {
      line.fill(0);
      for (let inner = 0; inner < k; inner++) addTimes(line, left[(i * m + row) * k + inner], right, (j * k + inner) * n);
      made.data.set(line, (place * m + row) * n);
    }
  });
  return made;
}

function addTimes(line, factor, numbers, start) {
  for (let at = 0; at < line.length; at++) line[at] += factor * numbers[start + at];
}

function transpose([a], { perm = a.dims.map((_, at) => a.dims.length - 1 - at) }) {
  const own = a.dims.map((_, at) => count(a.dims.slice(at + 1)));
  const made = tensor(a.type, perm.map((at) => a.dims[at]));
  walk(made.dims, [perm.map((at) => own[at])], (place, [from]) => { made.data[place] = a.data[from]; });
  return made;
}

function gather([a, rows], { axis = 0 }) {
  const at = axisOf(axis, a.dims.length);
  const [outer, size, inner] = cut(a.dims, at);
  const made = tensor(a.type, [...a.dims.slice(0, at), ...rows.dims, ...a.dims.slice(at + 1)]);
  for (let o = 0, to = 0; o < outer; o++) {
    for (const row of rows.data) {
      const from = (o * size + axisOf(row, size)) * inner;
      made.data.set(a.data.subarray(from, from + inner), to);
      to += inner;
    }
  }
  return made;
}

function slice([a, starts, ends, axes, strides]) {
  const own = a.dims.map((_, at) => count(a.dims.slice(at + 1)));
  const [dims, by] = [[...a.dims], [...own]];
  let offset = 0;
  values(starts).forEach((start, place) => {
    const at = axes ? axisOf(axes.data[place], dims.length) : place;
    const stride = strides ? strides.data[place] : 1;
    const bound = (edge) => Math.min(Math.max(edge < 0 ? edge + a.dims[at] : edge, 0), a.dims[at]);
    const first = bound(start);
    offset += first * own[at];
    [dims[at], by[at]] = [Math.max(0, Math.ceil((bound(ends.data[place]) - first) / stride)), own[at] * stride];
  });
  const made = tensor(a.type, dims);
  walk(dims, [by], (place, [from]) => { made.data[place] = a.data[offset + from]; });
  return made;
}

function concat(parts, { axis }) {
  const at = axisOf(axis, parts[0].dims.length);
  const dims = [...parts[0].dims];
  dims[at] = total(parts.map((part) => part.dims[at]));
  const made = tensor(parts[0].type, dims);
  const [outer] = cut(dims, at);
  for (let o = 0, to = 0; o < outer; o++) {
    for (const part of parts) {
      const length = part.data.length / outer;
      made.data.set(part.data.subarray(o * length, (o + 1) * length), to);
      to += length;
    }
  }
  return made;
}

function reshape([a, shape]) {
  const dims = values(shape).map((size, at) => size || a.dims[at]);
  const open = dims.indexOf(-1);
  if (open >= 0) dims[open] = a.data.length / -count(dims);
  return tensor(a.type, dims, a.data);
}

function unsqueeze([a, axes]) {
  const places = values(axes).map((axis) => axisOf(axis, a.dims.length + axes.data.length)).sort((x, y) => x - y);
  const dims = [...a.dims];
  places.forEach((at) => dims.splice(at, 0, 1));
  return tensor(a.type, dims, a.data);
}

function squeeze([a, axes]) {
  const gone = axes ? values(axes).map((axis) => axisOf(axis, a.dims.length)) : a.dims.map((size, at) => size === 1 && at);
  return tensor(a.type, a.dims.filter((_, at) => !gone.includes(at)), a.data);
}

function gemm([a, b, c], { alpha = 1, beta = 1, transA = 0, transB = 0 }) {
  const made = product(FLOAT, transA ? transpose([a], {}) : a, transB ? transpose([b], {}) : b);
  const more = c ? steps(c, made.dims) : null;
  walk(made.dims, [more || [0, 0]], (place, [from]) => {
    made.data[place] = alpha * made.data[place] + (more ? beta * c.data[from] : 0);
  });
  return made;
}

function dynamicQuantize([a]) {
  const low = a.data.reduce((least, value) => Math.min(least, value), 0);
  const high = a.data.reduce((most, value) => Math.max(most, value), 0);
  const scale = Math.fround((high - low) / 255) || 1;
  const within = (value) => Math.min(Math.max(value, 0), 255);
  const zero = within(roundEven(-low / scale));
  const codes = mapped(UINT8, a.dims, a.data, (value) => within(roundEven(Math.fround(value / scale)) + zero));
  return [codes, tensor(FLOAT, [], Float32Array.of(scale)), tensor(UINT8, [], Uint8Array.of(zero))];
}

/** Quantize by one scale; what QDQ graphs do to activations. */
function quantize([a, scale, zero]) {
  const [type, start] = zero ? [zero.type, zero.data[0]] : [UINT8, 0];
  const [least, most] = type === UINT8 ? [0, 255] : [-128, 127];
  return mapped(type, a.dims, a.data, (value) =>
    Math.min(Math.max(roundEven(Math.fround(value / scale.data[0])) + start, least), most));
}

function dequantize([a, scale, zero], { axis = 1 }) {
  const [, size, inner] = scale.data.length > 1 ? cut(a.dims, axisOf(axis, a.dims.length)) : [1, 1, 1];
  return mapped(FLOAT, a.dims, a.data, (code, place) => {
    const at = Math.floor(place / inner) % size;
    return (code - (zero ? zero.data[at] : 0)) * scale.data[at];
  });
}

function layerNormalization([a, scale, bias], { epsilon = 1e-5 }) {
  return byLine(a, (line) => {
    const mean = total(line) / line.length;
    const factor = 1 / Math.sqrt(sumOfSquares(line.map((value) => value - mean)) / line.length + epsilon);
    return line.map((value, at) => (value - mean) * factor * scale.data[at] + (bias ? bias.data[at] : 0));
  });
}

function softmax([a]) {
  return byLine(a, (line) => {
    const largest = Math.max(...line);
    const powers = line.map((value) => Math.exp(value - largest));
    const whole = total(powers);
    return powers.map((value) => value / whole);
  });
}

/** Abramowitz and Stegun, 7.1.26: within 1.5e-7. */
function erf(value) {
  const t = 1 / (1 + 0.3275911 * Math.abs(value));
  const rest = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(value) * (1 - rest * Math.exp(-value * value));
}

const OPERATORS = {
  Add: binary((a, b) => a + b),
  Cast: ([a], { to }) => mapped(to, a.dims, a.data, (value) => (to === BOOL ? Number(value !== 0) : value)),
  Clip: ([a, low, high]) => unary((value) =>
    Math.min(Math.max(value, low ? low.data[0] : -Infinity), high ? high.data[0] : Infinity))([a]),
  Concat: concat,
  Constant: (_, { value }) => value,
  ConstantOfShape: ([shape], { value = { type: FLOAT, data: [0] } }) =>
    tensor(value.type, values(shape), new ARRAYS[value.type](count(values(shape))).fill(value.data[0])),
  DequantizeLinear: dequantize,
  Div: binary((a, b) => a / b),
  DynamicQuantizeLinear: dynamicQuantize,
  Equal: binary((a, b) => Number(a === b), BOOL),
  Erf: unary(erf),
  Exp: unary(Math.exp),
  Expand: ([a, shape]) => binary((value) => value)([a, { dims: values(shape), data: [] }]),
  Gather: gather,
  Gemm: gemm,
  Identity: ([a]) => a,
  LayerNormalization: layerNormalization,
  LpNormalization: ([a]) => byLine(a, (line) => {
    const length = Math.sqrt(sumOfSquares(line)) || 1;
    return line.map((value) => value / length);
  }),
  MatMul: ([a, b]) => product(FLOAT, a, b),
  MatMulInteger: ([a, b, zeroA, zeroB]) => product(INT32, a, b, zeroA, zeroB),
  Mul: binary((a, b) => a * b),
  Pow: binary((a, b) => a ** b),
  QuantizeLinear: quantize,
  ReduceL2: reduction((list) => Math.sqrt(sumOfSquares(list))),
  ReduceMean: reduction((list) => total(list) / list.length),
  ReduceSum: reduction(total),
  Reshape: reshape,
  Shape: ([a]) => tensor(INT64, [a.dims.length], Float64Array.from(a.dims)),
  Slice: slice,
  Softmax: softmax,
  Sqrt: unary(Math.sqrt),
  Squeeze: squeeze,
  Sub: binary((a, b) => a - b),
  Tanh: unary(Math.tanh),
  Transpose: transpose,
  Unsqueeze: unsqueeze,
  Where: ([condition, a, b]) => {
    const made = tensor(a.type, spread(condition.dims, a.dims, b.dims));
    walk(made.dims, [condition, a, b].map((one) => steps(one, made.dims)), (place, [c, i, j]) => {
      made.data[place] = condition.data[c] ? a.data[i] : b.data[j];
    });
    return made;
  },
};
