/** What the model says of a study: doubts first, then the probabilities. */

import { element, percent, sentence } from "./dom.js";

/**
 * The doubts, or null if there are none.
 * @param {string[]} doubts
 */
export function doubtsBox(doubts) {
  if (!doubts.length) return null;
  return element("section", { class: "doubts", "aria-labelledby": "doubts-heading" },
    element("h3", { id: "doubts-heading" }, doubts.length === 1 ? "One doubt" : `${doubts.length} doubts`),
    element("ul", {}, ...doubts.map((doubt) => element("li", {}, sentence(doubt)))),
    element("p", {}, "The image may not be of the kind the model was trained on. Then its answer means nothing."));
}

/**
 * The probabilities, the highest first.
 * @param {import("./api.js").Result} result
 */
export function answerBox(result) {
  const doubtful = result.doubts.length > 0;
  const rows = Object.entries(result.probabilities).sort((one, other) => other[1] - one[1]);
  const best = `${result.prediction}, ${percent(result.probabilities[result.prediction])}`;
  return element("section", { class: doubtful ? "answer doubtful" : "answer", "aria-labelledby": "answer-heading" },
    element("h3", { id: "answer-heading" }, doubtful ? "Doubtful answer" : "Answer of the model"),
    element("p", { class: "best" }, doubtful ? `Doubtful: ${best}` : best),
    element("table", { class: "bars" },
      element("caption", {}, "Probability the model gives to each class"),
      element("tbody", {}, ...rows.map(([name, share]) => element("tr", {},
        element("th", { scope: "row" }, name), element("td", { class: "track" }, bar(share)),
        element("td", { class: "number" }, percent(share)))))));
}

/**
 * What was decided on the way, or null.
 * @param {string[]} notes
 */
export function notesBox(notes) {
  if (!notes.length) return null;
  return element("section", { "aria-labelledby": "notes-heading" },
    element("h3", { id: "notes-heading" }, "Notes on the images"),
    element("ul", {}, ...notes.map((note) => element("li", {}, sentence(note)))));
}

/** @param {number} share */
function bar(share) {
  const inner = element("span", { class: "bar", "aria-hidden": "true" });
  inner.style.width = `${100 * share}%`;
  return inner;
}
