/** Repeat purchases: what a user's events left of each item, decayed only when it is asked for (runtime/repeat.py). */

export class RepeatMemory {
  constructor(decays) {
    this.events = 0;
    this._decays = decays;
    this._left = new Map(); // row -> [Float32Array [R], the number of its last event]
  }

  observe(row) {
    this.events += 1;
    if (!this._decays.length) return;
    const [left, event] = this._left.get(row) || [new Float32Array(this._decays.length), this.events];
    this._left.set(row, [left.map((value, r) => value * this._decays[r] ** (this.events - event) + 1), this.events]);
  }

  /** Return [row, Float32Array [R]] of each item, as of `later` further events. */
  recall(later = 0) {
    return Array.from(this._left, ([row, [left, event]]) =>
      [row, left.map((value, r) => value * this._decays[r] ** (this.events + later - event))]);
  }
}

/** Return what an item's memories [R] add to its score. */
export function repeatScore(weights, memory) {
  return memory.reduce((sum, left, r) => sum + weights[r] * Math.log1p(left), 0);
}
