/** Bytes from wherever a page has them. */

import { BundleError } from "./errors.js";

/**
 * Read a file whole.
 *
 * @param {string|URL|ArrayBuffer|ArrayBufferView|Blob} source A URL goes through XMLHttpRequest, which, unlike fetch,
 *   reads file: URLs where an app may (packaged apps of webOS and Tizen).
 * @returns {Promise<Uint8Array>} A view; buffers are not copied.
 */
export async function readBytes(source) {
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  if (typeof source === "string" || source instanceof URL) return new Uint8Array(await download(String(source)));
  throw new BundleError(`got ${typeof source}; expected a URL, an ArrayBuffer or a File`);
}

/** Name a source in messages. */
export function nameOf(source) {
  return typeof source === "string" || source instanceof URL ? String(source) : source.name || "the bundle";
}

function download(url) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const refuse = (got) => reject(new BundleError(`${url} cannot be read (${got}); expected a file that this page may ` +
      "read: serve both from one place, or give the bytes as a File or an ArrayBuffer"));
    request.open("GET", url);
    request.responseType = "arraybuffer";
    request.onload = () => { // a file: URL has no status
      const read = request.status === 200 || (request.status === 0 && request.response && request.response.byteLength);
      if (read) resolve(request.response);
      else refuse(`status ${request.status}`);
    };
    request.onerror = () => refuse("no answer");
    request.send();
  });
}
