/** A user's state that follows events in O(d) each, without keeping the history (runtime/session.py). */

import { RepeatMemory } from "./repeat.js";

/** One user's running state; made by `Recommender.session`. */
export class Session {
  constructor(recommender) {
    const { decays, size, repeatDecays } = recommender.contents;
    this._recommender = recommender;
    this.state = new Float32Array(decays.length * size); // [K, d], what the observed events left
    this.seen = new Set(); // rows
    this.memory = new RepeatMemory(repeatDecays);
  }

  /**
   * Take note of events, oldest first; either all of them or, after an error, none.
   *
   * @param {...string} items
   * @throws {UnknownItemError} An item is not in the catalogue.
   */
  observe(...items) {
    this.observeRows(this._recommender.rows(items));
  }

  observeRows(rows) {
    const { decays, size } = this._recommender.contents;
    for (const row of rows) {
      const vector = this._recommender.vector(row, true);
      this.state = this.state.map((left, at) => decays[Math.floor(at / size)] * left + vector[at % size]);
      this.memory.observe(row);
      this.seen.add(row);
    }
  }

  /** Return the best items for the state; the options are those of `Recommender.recommend`. */
  async recommend(options = {}) {
    return this._recommender.answer(this, options);
  }
}
