/** What the model says of a study: how far it can be relied on first, then the probabilities. */

import { element, sentence } from "./dom.js";

/** Heading of each state, and what it means. */
const STATES = {
  doubtful: ["Doubtful because", "The image may not be of the kind the model was trained on. Then its answer means nothing."],
  cannot_tell: ["Cannot tell", "Whether this image is of the kind the model was trained on was not fully looked at. That no "
    + "doubt is listed means nothing."],
  no_doubt_found: ["No doubt found", "That does not mean that the image is fit, or the answer right: the bounds are wide."],
};
const TOO_NEAR = "The model does not choose: its probabilities are too near an even split, or its answer changes when nearly "
  + "the same is shown.";

/**
 * What a state is called in one line; empty where there was no doubt.
 * @param {import("./api.js").Result} result
 */
export function stateWord({ state }) {
  return state === "doubtful" ? "doubtful" : state === "cannot_tell" ? "cannot tell" : "";
}

/**
 * The classes that an undecided answer is between, as "NOR 52 % or ABN 48 %".
 * @param {string} answer
 */
function between(answer) {
  return answer.replace(/^undecided: /, "");
}

/**
 * The one number that stands for a study without a class.
 * @param {import("./api.js").Result} result
 */
function ejection({ heart }) {
  const share = heart?.function?.lv_ef;
  return typeof share === "number" ? `LV ejection fraction ${share.toFixed(0)} %` : heart ? "no volumes" : "outlines follow";
}

/**
 * State and answer in one line, with one colon at most.
 * @param {import("./api.js").Result} result
 */
export function oneLine(result) {
  const words = [stateWord(result), result.undecided ? "undecided" : ""].filter(Boolean).join(", ");
  return `${words ? `${words}: ` : ""}${result.probabilities || result.numbers ? between(result.answer) : ejection(result)}`;
}

/**
 * The state with its reasons.
 * @param {import("./api.js").Result} result @param {import("./api.js").Model} model
 */
export function stateBox({ state, doubts, stability }, { blind, origin_doubts: origin }) {
  const [heading, meaning] = STATES[state] ?? STATES.cannot_tell;
  const reasons = state === "doubtful" ? doubts : state === "no_doubt_found" ? [] : blind;
  const ofTheImage = doubts.filter((doubt) => !origin.includes(doubt)).length > (stability?.moved.length ? 1 : 0);
  return element("section", { class: `state-box ${state}`, "aria-labelledby": "state-heading" },
    element("h3", { id: "state-heading" }, heading),
    reasons.length ? element("ul", {}, ...reasons.map((reason) => element("li", {}, sentence(reason)))) : null,
    state === "doubtful" && !ofTheImage ? null : element("p", {}, meaning));
}

/**
 * The probabilities, the highest first, with what they become under small changes.
 * @param {import("./api.js").Result} result
 */
export function answerBox(result) {
  const { state, undecided, shown, answer, stability } = result;
  const doubtful = state === "doubtful";
  const rows = Object.entries(result.probabilities).sort((one, other) => other[1] - one[1]);
  const heading = undecided ? "Undecided" : "Answer of the model";
  const best = undecided ? between(answer) : answer;
  const kind = `answer${doubtful ? " doubtful" : ""}${undecided ? " undecided" : ""}`;
  return element("section", { class: kind, "aria-labelledby": "answer-heading" },
    element("h3", { id: "answer-heading" }, heading),
    element("p", { class: "best" }, doubtful ? `Doubtful: ${best}` : best),
    undecided ? element("p", { class: "quiet" }, TOO_NEAR) : null,
    element("table", { class: "bars" },
      element("caption", {}, "Probability the model gives to each class"),
      element("tbody", {}, ...rows.map(([name, share]) => element("tr", {},
        element("th", { scope: "row" }, name), element("td", { class: "track" }, bar(share, stability?.range[name])),
        element("td", { class: "number" }, shown[name]))))),
    stability ? rangeText(result, rows[0][0]) : null);
}

/**
 * What was decided on the way and is not said above, or null.
 * @param {import("./api.js").Result} result @param {import("./api.js").Model} model
 */
export function notesBox({ notes, state }, { blind, warnings }) {
  const above = (/** @type {string} */ note) => (state === "cannot_tell" && blind.includes(note))
    || warnings.some((warning) => warning.startsWith(note));
  const others = notes.filter((note) => !above(note));
  if (!others.length) return null;
  return element("section", { "aria-labelledby": "notes-heading" },
    element("h3", { id: "notes-heading" }, "Notes"),
    element("ul", {}, ...others.map((note) => element("li", {}, sentence(note)))));
}

/** @param {import("./api.js").Result} result @param {string} name of the most probable class */
function rangeText({ stability, calibration, frames }, name) {
  const changes = frames?.areas ? "ED and ES a frame earlier or later, the window shifted a little" : "the window shifted a little";
  const digits = calibration?.fitted ? 1 : 0;
  const [low, high] = (stability?.range[name] ?? []).map((share) => (100 * share).toFixed(digits));
  const span = low === high ? `stays at ${low}` : `goes from ${low} to ${high}`;
  const moved = stability?.moved.length
    ? ` The most probable class is another one with: ${stability.moved.join("; ")}.` : " The class stays the same.";
  return element("p", { class: "range" }, `Shown nearly the same ${stability?.answers} times (${changes}), `
    + `the probability of ${name} ${span}\u00a0%.${moved}`);
}

/** @param {number} share @param {number[]} [range] lowest and highest */
function bar(share, range) {
  const inner = element("span", { class: "bar", "aria-hidden": "true" });
  inner.style.width = `${100 * share}%`;
  if (!range) return inner;
  const whisker = element("span", { class: "whisker", "aria-hidden": "true" });
  whisker.style.left = `${100 * range[0]}%`;
  whisker.style.width = `${100 * (range[1] - range[0])}%`;
  return element("span", { class: "scale" }, inner, whisker);
}
