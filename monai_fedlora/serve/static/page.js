/** The page of `monai-fedlora serve`: what it knows, and who tells whom. */

import { showModel, size } from "./about.js";
import { ApiError, getModel, getStudy, removeSession, removeStudy, sendStudy } from "./api.js";
import { byId, message } from "./dom.js";
import { studiesOf } from "./grouping.js";
import { FINAL, showList, summary } from "./list.js";
import { watchLoading } from "./load.js";
import { StudyPanel } from "./study.js";

const KEPT = "monai-fedlora studies";  // so that a reload finds them again; only identifiers, no names
const PAUSE = 700;  // milliseconds between two questions

/** @type {import("./api.js").Model} */
let model;
/** @type {Map<string, import("./api.js").Study>} */
const studies = new Map();
/** @type {StudyPanel | null} */
let panel = null;
let asking = false;

start();

async function start() {
  try {
    model = await getModel();
  } catch (error) {
    byId("model-name").textContent = "No model";
    byId("page-error").replaceChildren(message(said(error)));
    return;
  }
  showModel(model);
  for (const id of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
    studies.set(id, { id, name: "", state: "waiting", error: null, result: null, files: {} });
  }
  watchLoading(receive);
  byId("remove-all").addEventListener("click", removeAll);
  if (studies.size) choose([...studies.keys()][studies.size - 1], false);
  void ask();
}

/** @param {import("./grouping.js").Item[]} items */
async function receive(items) {
  byId("load-error").replaceChildren();
  for (const group of studiesOf(items)) await send(group);
}

/** @param {{name: string, items: import("./grouping.js").Item[]}} group */
async function send({ name, items }) {
  const bytes = items.reduce((sum, { file }) => sum + file.size, 0);
  if (bytes > model.max_upload_bytes) {
    refuse(name, `It has ${size(bytes)}, and this server takes ${size(model.max_upload_bytes)}. Send one series only.`);
    return;
  }
  const provisional = `sending ${name}`;
  const outgoing = { id: provisional, name, state: "sending", sent: 0, error: null, result: null, files: {} };
  studies.set(provisional, outgoing);
  draw();
  try {
    const { id, name: given } = await sendStudy(items, (share) => {
      outgoing.sent = share;
      draw();
    });
    studies.set(id, { id, name: given, state: "waiting", error: null, result: null, files: {} });
    say(`${given} was sent.`);
    choose(id, false);
  } catch (error) {
    refuse(name, said(error));
  } finally {
    studies.delete(provisional);
    draw();
  }
  void ask();
}

/** Ask about every study that is not finished, until all are; a server that does not answer is asked again. */
async function ask() {
  if (asking) return;
  asking = true;
  for (;;) {
    const open = [...studies.values()].filter(({ state }) => !FINAL.has(state) && state !== "sending");
    if (!open.length) break;
    try {
      await Promise.all(open.map(({ id }) => askAbout(id)));
      byId("page-error").replaceChildren();
    } catch (error) {
      if (!byId("page-error").childElementCount) byId("page-error").append(message(said(error)));
    }
    draw();
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  asking = false;
}

/** @param {string} id */
async function askAbout(id) {
  try {
    const study = await getStudy(id);
    if (!studies.has(id)) return;
    studies.set(id, study);
    if (FINAL.has(study.state)) say(`${study.name}: ${summary(study)}.`);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    forget(id);
  }
}

/** @param {string} id @param {boolean} [focus] whether the reader asked for it, so that the focus follows */
function choose(id, focus = true) {
  const study = studies.get(id);
  if (!study || study.state === "sending") return;
  if (panel?.id !== id) {
    panel?.close();
    panel = new StudyPanel(byId("study"), model, id, () => void remove(id));
  }
  draw();
  if (focus) panel.heading.focus();
}

/** @param {string} id */
async function remove(id) {
  const study = studies.get(id);
  if (!study || !(await agreed(`Remove ${study.name} with its images and results from this server?`))) return;
  try {
    await removeStudy(id);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) {
      byId("page-error").replaceChildren(message(said(error)));
      return;
    }
  }
  forget(id);
  say(`${study.name} was removed.`);
  byId("choose-files").focus();
}

async function removeAll() {
  if (!(await agreed("Remove every study of this session with its images and results from this server?"))) return;
  try {
    await removeSession();
  } catch (error) {
    byId("page-error").replaceChildren(message(said(error)));
    return;
  }
  for (const id of [...studies.keys()]) forget(id);
  say("Everything was removed.");
  byId("choose-files").focus();
}

/** @param {string} id */
function forget(id) {
  studies.delete(id);
  if (panel?.id === id) {
    panel.close();
    panel = null;
    byId("study").replaceChildren();
    byId("study").hidden = true;
  }
  draw();
}

/** @param {string} question @returns {Promise<boolean>} */
function agreed(question) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = question;
  dialog.returnValue = "keep";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "remove"), { once: true });
  });
}

/** Bring the list and the chosen study up to date. */
function draw() {
  const known = [...studies.values()];
  showList(known, panel?.id ?? null, choose);
  const kept = known.filter(({ state }) => state !== "sending").map(({ id }) => id);
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const study = panel && studies.get(panel.id);
  if (panel && study) panel.update(study);
}

/** @param {string} name @param {string} why */
function refuse(name, why) {
  byId("load-error").append(message(why.includes(name) ? why : `${name}: ${why}`));
}

/** @param {string} text read out by screen readers */
function say(text) {
  byId("status").textContent = text;
}

/** @param {unknown} error */
function said(error) {
  return error instanceof Error ? error.message : String(error);
}
