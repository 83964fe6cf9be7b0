/** The recommender in plain JS, over the same INT8 tables: for sets whose browser has no WebAssembly SIMD. */

import { best, columnProducts, norm } from "./exact.js";
import { repeatScore } from "./repeat.js";

const MASKED = -1e38; // scores below are "never return this"
const SMALLEST_NORM = 1e-6;

/** What `recommender.onnx` computes, from the manifest's model; the same `rank` as OrtRanker's. */
export class PlainRanker {
  constructor(contents) {
    this._contents = contents;
  }

  async rank({ history, k, state, exclude = [], offset = Float32Array.of(0), memory = [] }) {
    const events = history.filter(Boolean);
    const after = this._fold(events, state);
    const user = this._user(after);
    const scores = after.some(Boolean) ? this._scores(user, events, memory)
      : Float64Array.from(this._contents.tables["popularity.f32"]);
    for (let row = 0; row < scores.length; row++) scores[row] += offset[offset.length === 1 ? 0 : row];
    for (const row of [0, ...exclude]) scores[row] = -Infinity;
    const items = best(scores, k).filter((row) => scores[row] > MASKED);
    return { items, scores: items.map((row) => scores[row]), state: after, user };
  }

  _fold(events, state) {
    const { size, decays } = this._contents;
    const after = Float64Array.from(state);
    for (const row of events) {
      const vector = this._contents.column(row, true);
      decays.forEach((decay, k) => {
        for (let j = 0, at = k * size; j < size; j++, at++) after[at] = decay * after[at] + vector[j];
      });
    }
    return Float32Array.from(after);
  }

  /** Mix the states and bring them to the length `scale`. */
  _user(state) {
    const { model, size } = this._contents;
    const mixed = Float64Array.from({ length: size }, (_, j) =>
      model.mix.reduce((sum, weight, at) => sum + weight * state[at * size + j], 0));
    const factor = model.scale / Math.max(norm(mixed), SMALLEST_NORM);
    return Float32Array.from(mixed, (value) => value * factor);
  }

  _scores(user, events, memory) {
    const { tables, repeatDecays, repeatWeights } = this._contents;
    const scores = columnProducts(tables["item_out.i8"], user);
    const [scale, bias] = [tables["item_out.scale"], tables["bias.f32"]];
    for (let row = 0; row < scores.length; row++) scores[row] = scores[row] * scale[row] + bias[row];
    if (repeatDecays.length) {
      const left = this._memories(events, memory);
      left.forEach((values, row) => { scores[row] += repeatScore(repeatWeights, values); });
    }
    return scores;
  }

  /** Return row -> what the session's memories and then the events leave of it. */
  _memories(events, memory) {
    const decays = this._contents.repeatDecays;
    const left = new Map(memory.map(([row, values]) =>
      [row, Float64Array.from(values, (value, r) => value * decays[r] ** events.length)]));
    events.forEach((row, at) => {
      const values = left.get(row) || new Float64Array(decays.length);
      left.set(row, values.map((value, r) => value + decays[r] ** (events.length - 1 - at)));
    });
    return left;
  }
}
