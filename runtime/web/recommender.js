/** `Recommender`: one bundle, opened, that answers from memory, as edgerec.runtime.Recommender does. */

import { Bundle } from "./bundle.js";
import { Contents } from "./contents.js";
import { choose, OrtRanker } from "./engine.js";
import { UnknownItemError, UsageError } from "./errors.js";
import { asLimbs, best, columnCosines, cosine, dot, rounded, rowProducts } from "./exact.js";
import { PlainRanker } from "./plain.js";
import { repeatScore } from "./repeat.js";
import { Session } from "./session.js";
import { TextEncoder } from "./text.js";
import { verify } from "./verify.js";

const NAMED = 5; // unknown items that an error names

/**
 * An item with its title and what it was ranked by; scores compare within one answer only.
 *
 * @typedef {{item: string, title: string, score: number}} Recommendation
 */

/** A bundle that recommends, searches and takes new items; made by `Recommender.load`. */
export class Recommender {
  constructor(bundle, contents, ranker, ort, reason) {
    this.bundle = bundle;
    this.contents = contents;
    this.ranker = ranker;
    this.encoder = new TextEncoder(bundle, contents, ort);
    this.engine = ort ? "onnxruntime" : "plain";
    this.reason = reason; // why this engine
    this._added = []; // {item, title, row, and the encoder's vectors}
    this._addedRows = new Map();
  }

  /**
   * Open a bundle.
   *
   * @param {string|URL|ArrayBuffer|ArrayBufferView|Blob} source A URL, a File, or the bytes, which stay in use.
   * @param {{engine?: "auto"|"onnxruntime"|"plain", ort?: object}} [options] `ort` is the onnxruntime-web module; by
   *   default the global of its script. Without it, or without WebAssembly SIMD, "auto" computes in plain JS.
   * @throws {BundleError} It is not a whole bundle, or its graphs cannot be opened.
   */
  static async load(source, options = {}) {
    const bundle = await Bundle.open(source);
    const contents = new Contents(bundle);
    const { ort, reason } = await choose(options.engine, options.ort);
    const ranker = ort ? await OrtRanker.open(ort, bundle, contents) : new PlainRanker(contents);
    return new Recommender(bundle, contents, ranker, ort, reason);
  }

  /**
   * Return the best items after a history, best first; fewer than k where no more can be returned.
   *
   * @param {string[]} history Item ids, oldest first. Without any, the answer is the stored popularity order.
   * @param {object} [options]
   * @param {number} [options.k] How many items, 10 if not said.
   * @param {boolean} [options.excludeSeen] Leave out the history's items; by default as the bundle was exported.
   * @param {string[]} [options.candidates] Rank these items only.
   * @param {boolean} [options.skipUnknown] Leave out unknown ids instead of throwing.
   * @returns {Promise<Recommendation[]>}
   * @throws {UnknownItemError} An id is not in the catalogue.
   */
  async recommend(history, options = {}) {
    let rows = this.rows(history, options.skipUnknown);
    const session = this.session();
    if (rows.some((row) => row > this.contents.nItems)) { // the graph knows no added items
      session.observeRows(rows);
      rows = [];
    }
    return this.answer(session, options, rows);
  }

  /** Start a session without events. */
  session() {
    return new Session(this);
  }

  /** Return the best items after a session and then `rows` of the bundle; what both ways to ask share. */
  async answer(session, { k = 10, excludeSeen, candidates, skipUnknown } = {}, rows = []) {
    positive(k);
    const n = this.contents.nItems;
    const masks = excludeSeen === undefined || excludeSeen === null ? this.contents.model.mask_seen : excludeSeen;
    const banned = new Set(masks ? [...session.seen, ...rows] : []);
    const allowed = candidates ? new Set(this.rows(candidates, skipUnknown)) : null;
    const may = (row) => !banned.has(row) && (!allowed || allowed.has(row));
    const memory = session.memory.recall();
    const added = this._added; // as they are now: the graph answers later
    const left = new Map(session.memory.recall(rows.length));
    const answer = await this.ranker.rank({
      history: rows,
      k: Math.min(k, n + 1),
      state: session.state,
      exclude: [...banned].filter((row) => row <= n),
      offset: allowed ? Float32Array.from({ length: n + 1 }, (_, row) => (allowed.has(row) ? 0 : -Infinity)) : undefined,
      memory: memory.filter(([row]) => row <= n),
    });
    const more = added.filter(({ row }) => may(row));
    const found = [...answer.items, ...more.map(({ row }) => row)];
    const scores = [...answer.scores, ...this._addedScores(answer, more, left)];
    return best(scores, k).map((place) => this._named(found[place], scores[place]));
  }

  /** Return the scores of added items; `left` are the session's memories by row. */
  _addedScores(answer, more, left) {
    if (!more.length) return [];
    if (!answer.state.some(Boolean)) { // where nothing is known of the user, they come after all that are popular
      const least = this.contents.tables["popularity.f32"].subarray(1).reduce((a, b) => Math.min(a, b), Infinity);
      return more.map(() => least);
    }
    const user = this.ranker instanceof OrtRanker ? asLimbs(answer.user) : answer.user; // as its own items are scored
    return more.map(({ row, itemOut, bias }) => dot(user, itemOut) + bias +
      (left.has(row) ? repeatScore(this.contents.repeatWeights, left.get(row)) : 0));
  }

  /** Return the items nearest to one by the cosine of their vectors as candidates, without itself. */
  async similar(item, { k = 10 } = {}) {
    positive(k);
    const [row] = this.rows([item]);
    const query = this.vector(row, false);
    const cosines = [
      ...columnCosines(this.contents.tables["item_out.i8"], query),
      ...this._added.map(({ itemOut }) => cosine(itemOut, query)),
    ];
    cosines[0] = cosines[row] = -Infinity;
    return best(cosines, k).map((place) => this._named(place, cosines[place]));
  }

  /**
   * Return the items whose text is nearest to a query's, by cosine.
   *
   * @throws {UsageError} The query is empty.
   */
  async search(query, { k = 10 } = {}) {
    positive(k);
    if (typeof query !== "string" || !query.trim()) {
      throw new UsageError(`got the query ${JSON.stringify(query)}; expected some text`);
    }
    const vector = (await this.encoder.encode(query)).text;
    const scores = [
      ...rowProducts(this.contents.textCodes, this.contents.textScale, vector),
      ...this._added.map(({ text }) => dot(text, vector)),
    ];
    scores[0] = -Infinity;
    return best(scores, k).map((place) => this._named(place, scores[place]));
  }

  /**
   * Add items that the bundle does not know; they can then be observed, recommended and searched.
   *
   * @param {Object<string, string|[string, string]>} items Item id -> its text, or [its title, its text].
   * @throws {UsageError} An id is taken, or a text is empty. Nothing was added.
   */
  async addItems(items) {
    const pairs = Object.entries(items).map(([item, text]) => [item, ...(Array.isArray(text) ? text : [text, text])]);
    const taken = () => pairs.map(([item]) => item).filter((item) => this._row(item));
    refuseAny(taken(), (names) => `${names} are in the catalogue already; expected new ids`);
    refuseAny(pairs.filter(([, , text]) => !text.trim()).map(([item]) => item),
      (names) => `the text of ${names} is empty; expected some text to tell an item by`);
    const made = [];
    for (const [item, title, text] of pairs) {
      const { bias, ...vectors } = await this.encoder.encode(text); // rounded as the bundle's tables are
      for (const name in vectors) vectors[name] = rounded(vectors[name]);
      made.push({ item, title, bias, ...vectors });
    }
    refuseAny(taken(), (names) => `${names} were added meanwhile; expected new ids`);
    const first = this.contents.nItems + 1 + this._added.length;
    this._added = [...this._added, ...made.map((one, index) => ({ ...one, row: first + index }))];
    made.forEach(({ item }, index) => this._addedRows.set(item, first + index));
  }

  /**
   * Answer the bundle's golden requests and texts here; see verify.js.
   *
   * @throws {ParityError} An answer differs.
   */
  async verify() {
    return verify(this);
  }

  /** Return the rows of item ids; rows above the bundle's items are added items. */
  rows(items, skipUnknown = false) {
    if (!Array.isArray(items)) {
      throw new UsageError(`got ${JSON.stringify(items)}; expected an array of item ids, such as ["${items}"]`);
    }
    const rows = items.map((item) => this._row(item));
    const unknown = items.filter((_, index) => !rows[index]);
    if (unknown.length && !skipUnknown) {
      throw new UnknownItemError(`${unknown.length} of ${rows.length} items are not in the catalogue: ` +
        `${listing(unknown)}; expected known ids: add them, or ask to skip unknown ones`);
    }
    return rows.filter(Boolean);
  }

  /** Return an item's vector [d], as history or as candidate. */
  vector(row, asHistory) {
    const added = this._added[row - this.contents.nItems - 1];
    if (added) return asHistory ? added.itemIn : added.itemOut;
    return this.contents.column(row, asHistory);
  }

  _row(item) {
    return this.contents.rows.get(item) || this._addedRows.get(item) || 0;
  }

  _named(row, score) {
    const added = this._added[row - this.contents.nItems - 1];
    const { ids, titles } = this.contents;
    return added ? { item: added.item, title: added.title, score }
      : { item: ids.get(row - 1), title: titles.get(row - 1), score };
  }
}

function positive(k) {
  if (!Number.isInteger(k) || k < 1) {
    throw new UsageError(`got k = ${JSON.stringify(k)}; expected a whole number of at least 1`);
  }
}

function refuseAny(items, message) {
  if (items.length) throw new UsageError(message(listing(items)));
}

/** Return the first few ids, and how many more there are. */
function listing(items) {
  const more = items.length > NAMED ? ` and ${items.length - NAMED} more` : "";
  return items.slice(0, NAMED).map((item) => `'${item}'`).join(", ") + more;
}
