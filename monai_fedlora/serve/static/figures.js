/** Pictures that the server has drawn of a study, and what can be downloaded of it. */

import { element } from "./dom.js";
import { FINAL } from "./list.js";

const DOWNLOADS = [
  ["figure", "Figure (PNG)"], ["outlines", "Figure of the outlines (PNG)"], ["mask", "Mask on the photograph's pixels (PNG)"],
  ["json", "Result (JSON)"], ["dicom", "DICOM (zip: reports, figure, masks and their images)"],
];
const OF_CLASS = "Figure: what the network saw, its answer, and below the places the answer hangs on, an aid and not "
  + "evidence. Its numbers are also in the text of this page.";
const OF_NUMBERS = "Figure: what was measured, with its outlines where it has some, and the numbers, which are also in the "
  + "text of this page.";

export function imagesHeading() {
  return element("h3", { id: "images-heading" }, "Images");
}

/** @param {Record<string, string>} files @param {string} state @param {import("./api.js").Result} result @param {string} why */
export function figure(files, state, result, why) {
  return [imagesHeading(), why ? element("p", { class: "message" }, `${why} The figure shows what the network saw.`) : null,
    onPaper(files, result) ?? missing(state)];
}

/** @param {string} state */
export function missing(state) {
  return element("p", { class: "quiet" }, FINAL.has(state) ? "There is no figure of this study." : "The figure is being drawn.");
}

/** @param {Record<string, string>} files @param {string} state @param {import("./api.js").Result} result */
export function photograph(files, state, result) {
  const shown = onPaper(files, result);
  return shown ? element("figure", {}, shown, result.numbers ? null : element("figcaption", { class: "quiet" },
    "The places the answer hangs on are an aid, not evidence: they show what the network reacted to, not whether that "
    + "is a sign of disease.")) : missing(state);
}

/** The figure, or null. @param {Record<string, string>} files @param {import("./api.js").Result} result */
export function onPaper(files, result) {
  return files.figure ? element("a", { href: files.figure, target: "_blank", rel: "noopener", class: "picture" },
    element("img", { src: files.figure, alt: result.numbers ? OF_NUMBERS : OF_CLASS })) : null;
}

/** @param {Record<string, string>} files */
export function downloads(files) {
  const there = DOWNLOADS.filter(([name]) => files[name]);
  if (!there.length) return null;
  return element("section", { "aria-labelledby": "downloads-heading" },
    element("h3", { id: "downloads-heading" }, "Downloads"),
    element("ul", { class: "downloads" }, ...there.map(([name, label]) =>
      element("li", {}, element("a", { href: files[name], download: "", id: `download-${name}` }, label)))));
}
