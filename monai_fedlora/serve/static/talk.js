/** What the page tells its reader, and asks. */

import { byId, message } from "./dom.js";

/** @param {string} question @returns {Promise<boolean>} */
export function agreed(question) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = question;
  dialog.returnValue = "keep";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "remove"), { once: true });
  });
}

/** @param {string} name @param {string} why */
export function refuse(name, why) {
  byId("load-error").append(message(why.includes(name) ? why : `${name}: ${why}`));
}

/** @param {string} text read out by screen readers */
export function say(text) {
  byId("status").textContent = text;
}

/** @param {unknown} error */
export function said(error) {
  return error instanceof Error ? error.message : String(error);
}
