/** Every error a user can meet: what was got, what was expected and what to do, in one line, as edgerec/errors.py. */

export class EdgerecError extends Error {
  constructor(message) {
    super(message);
    this.name = "EdgerecError";
  }
}

/** An argument has a value that cannot work. */
export class UsageError extends EdgerecError {
  constructor(message) {
    super(message);
    this.name = "UsageError";
  }
}

/** A bundle cannot be read, is truncated, tampered with, of a newer format, or not a bundle at all. */
export class BundleError extends UsageError {
  constructor(message) {
    super(message);
    this.name = "BundleError";
  }
}

/** An item id is not in the catalogue. */
export class UnknownItemError extends UsageError {
  constructor(message) {
    super(message);
    this.name = "UnknownItemError";
  }
}

/** The bundle is right, but its tokenizer or text encoder is of a kind that cannot run here; the rest can. */
export class UnsupportedError extends UsageError {
  constructor(message) {
    super(message);
    this.name = "UnsupportedError";
  }
}

/** The shipped graphs answer differently here than where the bundle was made. */
export class ParityError extends EdgerecError {
  constructor(message) {
    super(message);
    this.name = "ParityError";
  }
}
