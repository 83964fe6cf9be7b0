/** Exact products over INT8 tables, as runtime/exact.py, and what is best of their results. */

const SMALLEST_NORM = 1e-12;

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
