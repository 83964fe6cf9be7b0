/** What the tokenizer calls and Chromium 87 (webOS 22) does not have. */

if (!Array.prototype.at) {
  Object.defineProperty(Array.prototype, "at", {
    value(index) {
      return this[index < 0 ? this.length + index : index];
    },
  });
}
if (!Object.hasOwn) Object.hasOwn = (object, key) => Object.prototype.hasOwnProperty.call(object, key);
