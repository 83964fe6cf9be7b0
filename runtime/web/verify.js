/**
 * Replaying a bundle's golden requests in the browser that it will run in, by the rules of runtime/verify.py: two items
 * may change places only where the reference scored them closer than the tolerance; at the end of a list, an item may be
 * replaced by another that scores as much as the last, within the tolerance.
 */

import { BundleError, ParityError, UnsupportedError } from "./errors.js";
import { cosine } from "./exact.js";
import { GOLDENS } from "./contents.js";

/**
 * Answer every golden request and text.
 *
 * @param {import("./recommender.js").Recommender} recommender
 * @returns {Promise<object>} What was replayed, the largest differences, and why no text was, if none could be.
 * @throws {ParityError} An answer differs; the message names the first and says how many do.
 * @throws {BundleError} There are no usable goldens, or onnxruntime-web cannot open the text encoder.
 */
export async function verify(recommender) {
  const goldens = readGoldens(recommender);
  const failed = [];
  let [difference, distance] = [0, null];
  for (const [number, request] of goldens.requests.entries()) {
    const { items, scores } = await replay(recommender, request);
    const fault = disagreement(request, items, scores, goldens.tolerance);
    if (fault) failed.push(`golden request ${number} (history ${request.history.slice(0, 10)}): ${fault}`);
    else scores.forEach((score, at) => { difference = Math.max(difference, Math.abs(score - request.scores[at])); });
  }
  const texts = goldens.texts || [];
  let skipped = null;
  try {
    for (const entry of texts) {
      const own = 1 - cosine((await recommender.encoder.encode(entry.text)).text, entry.text_vector);
      distance = Math.max(distance || 0, own);
      if (!(own <= goldens.text_tolerance)) {
        failed.push(`golden text '${entry.text.slice(0, 40)}': cosine distance ${own.toPrecision(2)}, expected at most ` +
          goldens.text_tolerance);
      }
    }
  } catch (error) { // a device that only recommends needs no text encoder
    if (!(error instanceof UnsupportedError)) throw error;
    skipped = error.message;
  }
  if (failed.length) {
    throw new ParityError(`${recommender.bundle.name}: ${failed.length} of ${goldens.requests.length + texts.length} ` +
      `goldens fail here; first: ${failed[0]}; do not use it on this device: export for this target`);
  }
  return {
    bundle: recommender.bundle.name,
    engine: recommender.engine,
    requests: goldens.requests.length,
    texts: skipped ? 0 : texts.length,
    largestScoreDifference: difference,
    largestTextDistance: distance,
    skipped,
  };
}

function readGoldens({ bundle, contents }) {
  const known = (rows) => rows.every((row) => Number.isInteger(row) && row >= 0 && row <= contents.nItems);
  try {
    const goldens = JSON.parse(bundle.text(GOLDENS));
    const { requests, texts = [] } = goldens;
    const usable = requests.every(({ history, items, scores, k }) =>
      known(history) && known(items) && items.length === scores.length && k > 0);
    const spoken = texts.every(({ text, text_vector: vector }) => typeof text === "string" && vector.length === contents.size);
    if (requests.length && usable && goldens.tolerance >= 0 && spoken && (!texts.length || goldens.text_tolerance >= 0)) {
      return goldens;
    }
  } catch (error) { // what is wrong with them does not help: they come from the exporter
  }
  throw new BundleError(`${bundle.name}: ${GOLDENS} holds no usable golden requests; expected a tolerance and at least ` +
    "one request with rows of this catalogue: export the bundle again");
}

function replay(recommender, { history, k, exclude_seen: excludeSeen }) {
  const state = recommender.session().state;
  return recommender.ranker.rank({ history, k, state, exclude: excludeSeen ? [...new Set(history)] : [] });
}

/** Return how an answer differs from a golden request, or null. */
export function disagreement(request, rows, scores, tolerance) {
  const wanted = new Map(request.items.map((row, place) => [row, request.scores[place]]));
  if (rows.length !== wanted.size || new Set(rows).size !== rows.length) {
    return `got items ${rows}, expected ${wanted.size} different ones`;
  }
  const last = wanted.size ? request.scores[wanted.size - 1] : 0;
  for (let place = 0; place < rows.length; place++) {
    const own = wanted.has(rows[place]) ? wanted.get(rows[place]) : last; // from outside, for the last only
    const expected = request.scores[place];
    if (!(Math.abs(scores[place] - own) <= tolerance) || !(Math.abs(own - expected) <= tolerance)) {
      return `place ${place + 1} has row ${rows[place]} with score ${scores[place]}, expected ${request.items[place]} ` +
        `with ${expected} within ${tolerance}`;
    }
  }
  const missing = request.items.find((row, place) => !rows.includes(row) && request.scores[place] - last > tolerance);
  return missing === undefined ? null : `row ${missing} with score ${wanted.get(missing)} is missing`;
}
