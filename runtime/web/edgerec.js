/** edgerec in a browser: `Recommender.load(source)` opens an `.edgerec` bundle as it is. */

export { BundleError, EdgerecError, ParityError, UnknownItemError, UnsupportedError, UsageError } from "./errors.js";
export { Recommender } from "./recommender.js";
