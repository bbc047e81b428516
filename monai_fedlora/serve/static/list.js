/** The list of this session's studies. */

import { byId, element, percent } from "./dom.js";

/** States after which nothing changes any more. */
export const FINAL = new Set(["done", "failed"]);

/** @type {Record<string, string>} */
const STATES = {
  waiting: "waits for its turn",
  reading: "the images are being read",
  classifying: "the answer is being computed",
  explaining: "the overlay is being computed",
};

/**
 * What a state is called.
 * @param {string} state
 */
export function stateText(state) {
  return STATES[state] ?? state;
}

/**
 * Draw the list again; the focus stays where it was.
 * @param {import("./api.js").Study[]} studies
 * @param {string | null} chosen
 * @param {(id: string) => void} choose
 */
export function showList(studies, chosen, choose) {
  const list = byId("list");
  const focused = document.activeElement?.closest("li")?.getAttribute("data-id");
  list.replaceChildren(...studies.map((study) => row(study, study.id === chosen, choose)));
  if (focused) list.querySelector(`li[data-id="${CSS.escape(focused)}"] button`)?.focus();
  byId("list-empty").hidden = studies.length > 0;
  byId("remove-all").hidden = studies.length === 0;
}

/**
 * One line about a study.
 * @param {import("./api.js").Study} study
 */
export function summary({ state, result, sent }) {
  if (state === "sending") return `is being sent, ${Math.floor(100 * (sent ?? 0))} %`;
  if (!result || state === "failed") return stateText(state);
  const answer = `${result.prediction} ${percent(result.probabilities[result.prediction])}`;
  return `${result.doubts.length ? "doubtful: " : ""}${answer}${FINAL.has(state) ? "" : `; ${stateText(state)}`}`;
}

/** @param {import("./api.js").Study} study @param {boolean} current @param {(id: string) => void} choose */
function row(study, current, choose) {
  return element("li", { "data-id": study.id },
    element("button", { type: "button", "aria-current": current ? "true" : null, click: () => choose(study.id) },
      element("span", { class: "name" }, study.name),
      element("span", { class: `state ${kind(study)}` }, summary(study))));
}

/** @param {import("./api.js").Study} study */
function kind({ state, result }) {
  if (state === "failed") return "bad";
  if (result?.doubts.length) return "doubt";
  return state === "done" ? "" : "busy";
}
