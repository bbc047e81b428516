/** What the outlines of a study say: disagreements first, then numbers, or why there are none. */

import { areaCurve } from "./curve.js";
import { element, message, sentence } from "./dom.js";

/** @type {[string, string, number][]} name in the result, for people, decimals */
const NUMBERS = [
  ["lv_ef", "LV ejection fraction", 0], ["lv_edv", "LV end-diastolic volume", 0], ["lv_esv", "LV end-systolic volume", 0],
  ["lv_sv", "LV stroke volume", 0], ["lv_mass", "LV mass", 0], ["rv_ef", "RV ejection fraction", 0],
  ["rv_edv", "RV end-diastolic volume", 0], ["rv_esv", "RV end-systolic volume", 0], ["rv_sv", "RV stroke volume", 0],
];
const LIMITS = "Measured in outlines that a model drew and nobody corrected: look at them in every slice before you "
  + "believe a number. Not for diagnosis.";

/**
 * Draw them.
 * @param {import("./api.js").Heart} heart @param {number[] | null} times ms of the frames
 * @returns {{node: HTMLElement, mark: (frame: number) => void}} `mark` moves the line of the curve to a frame
 */
export function heartBox(heart, times) {
  const { function: numbers, units, beat, frames, disagreements, doubts, notes } = heart;
  const curve = beat?.lv_volumes_ml && frames ? areaCurve({ ed: frames.ed, es: frames.es, areas: beat.lv_volumes_ml, trigger_ms: times },
    { what: "Volume of the left ventricle", fromZero: true }) : null;
  const rows = numbers ? NUMBERS.filter(([name]) => typeof numbers[name] === "number") : [];
  const failed = Object.entries(heart.failed_frames).map(([frame, why]) => `No outlines in frame ${Number(frame) + 1}: ${why}`);
  const node = element("section", { class: "heart", "aria-labelledby": "heart-heading" },
    element("h3", { id: "heart-heading" }, "Outlines and volumes"),
    ...disagreements.map((text) => message(text)),
    doubts.length ? element("ul", { class: "doubts" }, ...doubts.map((doubt) =>
      element("li", {}, sentence(`the outlines are doubtful because ${doubt}`)))) : null,
    ...heart.no_volume_because.map((reason) => message(`No volume is given: ${reason}`)),
    rows.length ? element("table", { class: "numbers" }, element("tbody", {}, ...rows.map(([name, label, digits]) =>
      element("tr", {}, element("th", { scope: "row" }, label),
        element("td", { class: "number" }, `${numbers[name].toFixed(digits)}\u00a0${units[name]}`))))) : null,
    curve && element("figure", {}, curve.svg, element("figcaption", { class: "quiet" }, "Volume of the left ventricle over "
      + `the frames, up to ${Math.round(Math.max(...(beat?.lv_volumes_ml ?? [0])))}\u00a0mL. ED and ES are outlined once more, as a `
      + "pair, and their points can lie beside the curve of the others.")),
    frames ? element("p", { class: "quiet" }, sentence(frames.how)) : null,
    ...failed.map((text) => message(text)),
    element("p", { class: "reminder" }, LIMITS),
    notes.length ? element("ul", { class: "quiet" }, ...notes.map((note) => element("li", {}, sentence(note)))) : null,
    element("p", { class: "quiet" }, `Outlined by ${heart.model.name} ${heart.model.version}.`));
  return { node, mark: curve ? curve.mark : () => {} };
}
