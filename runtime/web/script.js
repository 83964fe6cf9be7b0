/** What edgerec-web.js is made of: the module as a script with the global `edgerec`, for pages without modules. */

import "./compat.js";

export * from "./edgerec.js";
