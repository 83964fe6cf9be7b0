/**
 * The bundle, read as edgerec/bundle.py reads it: a zip of stored members whose names, places, sizes and hashes are
 * checked before any of them is used.
 */

import { BundleError } from "./errors.js";
import { nameOf, readBytes } from "./source.js";
import { sha256 } from "./sha256.js";

const FORMAT_VERSION = 1;
const MANIFEST = "manifest.json";
const SIGNATURE = "signature.ed25519"; // of the manifest, which does not list it; a page trusts where it came from
const [LOCAL, CENTRAL, END] = [0x04034b50, 0x02014b50, 0x06054b50]; // PKWARE APPNOTE 4.3
const LONGEST_COMMENT = 0xffff;

/** An open, checked bundle. */
export class Bundle {
  constructor(name, bytes) {
    this.name = name;
    this.bytes = bytes;
    this.members = new Map();
  }

  /**
   * @param {string|URL|ArrayBuffer|ArrayBufferView|Blob} source
   * @throws {BundleError} It is missing, truncated, tampered with, of a newer format, or not a bundle.
   */
  static async open(source) {
    const bundle = new Bundle(nameOf(source), await readBytes(source));
    try {
      bundle._locate();
      bundle.manifest = JSON.parse(bundle.text(MANIFEST));
    } catch (error) {
      throw bundle._refusal(`cannot be read (${error.message})`, "copy or export it again");
    }
    await bundle._check();
    return bundle;
  }

  /** Return a member's bytes, a view of the file. */
  get(name) {
    const member = this.members.get(name);
    if (!member) throw this._refusal(`has no member '${name}'`, `it has ${[...this.members.keys()].join(", ")}`);
    return member;
  }

  /** Return a member as text. */
  text(name) {
    return new TextDecoder("utf-8", { fatal: true }).decode(this.get(name));
  }

  /** Return a member as an array of a type: a view where it is aligned, as edgerec writes it, else a copy. */
  array(name, Type) {
    const member = this.get(name);
    const aligned = member.byteOffset % Type.BYTES_PER_ELEMENT === 0;
    const { buffer, byteOffset, byteLength } = aligned ? member : member.slice();
    return new Type(buffer, byteOffset, byteLength / Type.BYTES_PER_ELEMENT);
  }

  _refusal(got, advice) {
    return new BundleError(`${this.name} ${got}; expected a whole .edgerec bundle: ${advice}`);
  }

  /** Fill `members` from the zip's central directory. */
  _locate() {
    const view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    const end = findEnd(view);
    let at = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left; left--) {
      if (view.getUint32(at, true) !== CENTRAL) throw new Error("its central directory is damaged");
      const lengths = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const name = new TextDecoder("utf-8", { fatal: true }).decode(this._part(at + 46, lengths[0]));
      const stored = view.getUint16(at + 10, true) === 0 && !(view.getUint16(at + 8, true) & 1);
      if (!stored || !isPlain(name)) throw new Error(`member '${name}' is compressed, encrypted or not a plain path`);
      if (this.members.has(name)) throw new Error("one name twice");
      this.members.set(name, this._member(view, name, view.getUint32(at + 42, true), view.getUint32(at + 24, true)));
      at += 46 + lengths[0] + lengths[1] + lengths[2];
    }
    if (!this.members.has(MANIFEST)) throw new Error("no manifest");
  }

  _member(view, name, header, size) {
    if (header + 30 <= view.byteLength && view.getUint32(header, true) === LOCAL) {
      const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
      if (start + size <= view.byteLength) return this._part(start, size);
    }
    throw new Error(`member '${name}' does not lie inside the file`);
  }

  _part(start, size) {
    return this.bytes.subarray(start, start + size);
  }

  /** Compare every member with the manifest. */
  async _check() {
    const { format_version: version, members: listed } = Object(this.manifest);
    if (!Number.isInteger(version) || version > FORMAT_VERSION) {
      throw this._refusal(`has format version ${version}, this edgerec reads up to ${FORMAT_VERSION}`, "update it");
    }
    const names = [...this.members.keys()].filter((name) => name !== MANIFEST && name !== SIGNATURE);
    const own = (name) => Object.prototype.hasOwnProperty.call(Object(listed), name);
    if (names.length !== Object.keys(Object(listed)).length || !names.every(own)) {
      throw this._refusal("has members that its manifest does not list, or lacks some", "export it again");
    }
    for (const name of names) {
      const { size, sha256: digest } = Object(listed[name]);
      if (size !== this.get(name).length || digest !== await sha256(this.get(name))) {
        throw this._refusal(`was changed: '${name}' differs from its size or sha256`, "copy or export it again");
      }
    }
  }
}

function findEnd(view) {
  for (let at = view.byteLength - 22; at >= Math.max(0, view.byteLength - 22 - LONGEST_COMMENT); at--) {
    if (view.getUint32(at, true) === END) return at;
  }
  throw new Error("it is no zip file, or was cut off");
}

/** Tell whether a member's name stays inside the folder that it would be extracted to. */
export function isPlain(name) {
  const parts = name.split("/").filter((part) => part && part !== ".");
  return parts.length > 0 && !/[\\:]/.test(name) && !name.startsWith("/") && !parts.includes("..");
}
