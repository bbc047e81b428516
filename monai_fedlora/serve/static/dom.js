/** Small helpers for building the page. Text from data only ever becomes text nodes, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * The element of index.html with this id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] functions become listeners of that event, false and null are left out,
 *   true gives an empty attribute
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Make an SVG element; arguments as of {@link element}.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * A sentence that says what went wrong, for a place with role="alert".
 * @param {string} text
 */
export function message(text) {
  return element("p", { class: "message" }, sentence(text));
}

/**
 * A share as people read it, in per cent with one decimal, never broken over lines.
 * @param {number} share in [0, 1]
 */
export function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

/**
 * A text with a full stop, and a capital letter if it begins with a word and not with the name of a file.
 * @param {string} text
 */
export function sentence(text) {
  const whole = /^[a-z]+[ ,]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** @param {any} made @param {Record<string, any>} attributes @param {(Node | string | null)[]} children */
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
