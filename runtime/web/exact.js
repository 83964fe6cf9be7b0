/** Exact products over INT8 tables, as runtime/exact.py, and what is best of their results. */

const SMALLEST_NORM = 1e-12;

const LIMIT = 127; // of a table's codes
const LIMB = 63; // of a user vector's
const SMALLEST_SCALE = 1e-12;

/** Round to the nearest whole number, halves to the even one. */
export function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** Return a vector after a round trip through INT8 with one scale, Float32Array [d], as a bundle's tables hold it. */
export function rounded(vector) {
  const largest = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const scale = Math.fround(Math.max(Math.fround(largest / LIMIT), SMALLEST_SCALE));
  return Float32Array.from(vector, (value) => roundEven(Math.fround(value / scale)) * scale);
}

/** Return a user vector as the graph multiplies by it, in two limbs of 7 bits; see export/recommender_graph.py. */
export function asLimbs(user) {
  const delta = Math.max(Math.fround(user.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / LIMB), 1e-30);
  const fine = Math.fround(delta / (2 * LIMB));
  return Float32Array.from(user, (value) => {
    const high = roundEven(Math.fround(value / delta));
    const low = roundEven(Math.fround(Math.fround(value - Math.fround(high * delta)) / fine));
    return high * delta + low * fine;
  });
}

/** Return the products of dequantized rows [n, d] with a query [d], Float32Array [n]. */
export function rowProducts(codes, scale, query) {
  const d = query.length;
  return scale.map((step, row) => {
    let sum = 0;
    for (let j = 0, at = row * d; j < d; j++) sum += codes[at + j] * query[j];
    return sum * step;
  });
}

/** Return the products of columns [d, n] with a query [d], Float64Array [n]; the table is read in its own order. */
export function columnProducts(codes, query) {
  const n = codes.length / query.length;
  const sums = new Float64Array(n);
  query.forEach((weight, j) => {
    for (let i = 0, at = j * n; i < n; i++) sums[i] += weight * codes[at + i];
  });
  return sums;
}

/** Return the cosines of columns [d, n] with a query [d]; an item's scale would cancel out. */
export function columnCosines(codes, query) {
  const n = codes.length / query.length;
  const squares = new Float64Array(n);
  for (let j = 0, at = 0; j < query.length; j++) {
    for (let i = 0; i < n; i++, at++) squares[i] += codes[at] * codes[at];
  }
  const length = Math.max(norm(query), SMALLEST_NORM);
  return columnProducts(codes, query).map((sum, i) => sum / length / Math.max(Math.sqrt(squares[i]), SMALLEST_NORM));
}

/** Return the cosine of two vectors. */
export function cosine(a, b) {
  return dot(a, b) / Math.max(norm(a), SMALLEST_NORM) / Math.max(norm(b), SMALLEST_NORM);
}

export function dot(a, b) {
  return a.reduce((sum, value, j) => sum + value * b[j], 0);
}

export function norm(vector) {
  return Math.sqrt(dot(vector, vector));
}

/** Return the places of the k best scores above -Infinity, best first, ties by the lower place. */
export function best(scores, k) {
  const places = []; // few are kept, so the many that are no better than the last cost one comparison
  scores.forEach((score, place) => {
    if (score === -Infinity || (places.length === k && !(score > scores[places[k - 1]]))) return;
    let [low, high] = [0, places.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[places[middle]] >= score) low = middle + 1;
      else high = middle;
    }
    places.splice(low, 0, place);
    if (places.length > k) places.pop();
  });
  return places;
}
