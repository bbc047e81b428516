/** What a model that measures says of a study: each number with how far such numbers of the model are usually off. */

import { element, sentence } from "./dom.js";

const LIMITS = "A number has no probability, and no range of its own: how far it is off in this study is not known. "
  + "Look at the images before you believe it. Not for diagnosis.";

/** @param {import("./api.js").Measured[]} numbers */
export function numbersBox(numbers) {
  return element("section", { class: "measured", "aria-labelledby": "measured-heading" },
    element("h3", { id: "measured-heading" }, "Measured by the model"),
    element("table", { class: "numbers" }, element("tbody", {}, ...numbers.map(({ name, shown }) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "number" }, shown))))),
    ...numbers.map(({ name, usually }) => element("p", {}, sentence(`${name}: ${usually}`))),
    element("p", { class: "reminder" }, LIMITS));
}
