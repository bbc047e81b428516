/** Controls that several parts of the page are made of. */

import { element } from "./dom.js";

/** @param {string} label @param {() => void} click @param {Record<string, any>} [attributes] */
export function button(label, click, attributes = {}) {
  return element("button", { type: "button", click, ...attributes }, label);
}

/** @param {number} min @param {number} max @param {number} step @param {() => void} input */
export function slider(min, max, step, input) {
  return element("input", { type: "range", min, max, step, input });
}

/** @param {string} label @param {any} control @param {"before" | "after"} [where] of the control */
export function labelled(label, control, where = "before") {
  const text = element("span", {}, label);
  return element("label", {}, ...(where === "before" ? [text, control] : [control, text]));
}

/**
 * Buttons of which one is pressed.
 * @param {string} name of them all
 * @param {[string, string][]} options value and label, the first is pressed
 * @param {(value: string) => void} chosen
 * @returns {{node: HTMLElement, press: (value: string) => void}} `press` tells nobody
 */
export function choice(name, options, chosen) {
  const buttons = new Map(options.map(([value, label]) => [value, button(label, () => {
    press(value);
    chosen(value);
  })]));
  press(options[0][0]);
  return { node: element("div", { class: "views", role: "group", "aria-label": name }, ...buttons.values()), press };

  /** @param {string} value */
  function press(value) {
    for (const [other, one] of buttons) one.setAttribute("aria-pressed", String(other === value));
  }
}
