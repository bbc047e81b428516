/** The list of this session's studies. */

import { oneLine, stateWord } from "./answer.js";
import { byId, element } from "./dom.js";

/** States after which nothing changes any more. */
export const FINAL = new Set(["done", "failed"]);

/** @type {Record<string, string>} */
const STATES = {
  waiting: "waits for its turn",
  reading: "the images are being read",
  classifying: "the answer is being computed",
  outlining: "the heart is being outlined",
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
 * Say until when the studies are kept.
 * @param {number | null} left seconds, if nobody does anything
 */
export function showExpiry(left) {
  const place = byId("list-expiry");
  place.hidden = left === null;
  if (left === null) return;
  const time = new Date(Date.now() + 1000 * left).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  place.textContent = `All of them are removed at ${time} if nobody does anything here until then.`;
}

/**
 * One line about a study.
 * @param {import("./api.js").Study} study
 */
export function summary({ state, result, sent }) {
  if (state === "sending") return sent === undefined ? "is being sent by another tab" : `is being sent, ${Math.floor(100 * sent)} %`;
  if (!result || state === "failed") return stateText(state);
  return `${oneLine(result)}${FINAL.has(state) ? "" : `; ${stateText(state)}`}`;
}

/** @param {import("./api.js").Study} study @param {boolean} current @param {(id: string) => void} choose */
function row(study, current, choose) {
  return element("li", { "data-id": study.id },
    element("button", { type: "button", "aria-current": current ? "true" : null, click: () => choose(study.id) },
      element("span", { class: "name" }, study.name || "A study", study.short_id
        ? element("span", { class: "short-id" }, ` ${study.short_id}`) : null),
      element("span", { class: `state ${kind(study)}` }, summary(study))));
}

/** @param {import("./api.js").Study} study */
function kind({ state, result }) {
  if (state === "failed") return "bad";
  if (result && stateWord(result)) return "doubt";
  return state === "done" ? "" : "busy";
}
