/** The page of `monai-fedlora serve`: what it knows, and who tells whom. */

import { showModel, size } from "./about.js";
import {
  ApiError, chooseFrames, getModel, getSession, randomKey, removeSession, removeStudy, renameStudy, sendOpinion, sendStudy,
} from "./api.js";
import { Asker } from "./asking.js";
import { byId, message } from "./dom.js";
import { studiesOf } from "./grouping.js";
import { FINAL, showExpiry, showList, summary } from "./list.js";
import { watchLoading } from "./load.js";
import { watchPrinting } from "./print.js";
import { began, cutOff, ended, isRunning, outgoing } from "./sending.js";
import { StudyPanel } from "./study.js";
import { agreed, refuse, said, say } from "./talk.js";

const [SOON, LATER] = [2000, 15000];  // milliseconds until the next look at what other tabs send, and at what they did

/** @type {import("./api.js").Model} */
let model;
/** @type {Map<string, import("./api.js").Study>} */
const studies = new Map();
/** @type {StudyPanel | null} */
let panel = null;
let isUsed = true;  // whether a reader did something since the last look
let picked = 0;  // how often the reader chose a study, so that one that was sent meanwhile does not take its place
let changes = 0;  // what this page did to its studies, so that an older list of them is not taken for a newer
let removing = 0;  // how many removals the server has not answered, so that a list from before them brings nothing back
let timer = 0;
const asker = new Asker(studies, {
  answered: announce, gone: forget,
  round: (error) => {
    if (error === null) byId("page-error").replaceChildren();
    else if (!byId("page-error").childElementCount) byId("page-error").append(message(said(error)));
    draw();
  },
});

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
  watchLoading(receive);
  watchPrinting(() => panel);
  byId("remove-all").addEventListener("click", removeAll);
  for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, () => { isUsed = true; });
  window.addEventListener("focus", look);
  await look();
  const last = [...studies.values()].filter(({ state }) => state !== "sending").pop();
  if (last && !panel) choose(last.id, false);
}

/** Bring the studies up to date with the server's: other tabs send and remove some, and time does. */
async function look() {
  window.clearTimeout(timer);
  const before = changes;
  let foreign = false;
  try {
    const used = isUsed;
    isUsed = false;
    const { studies: found, seconds_left: left } = await getSession(used);
    if (before === changes && !removing) {
      foreign = take(found);
      showExpiry(left);
    }
  } catch {  // whoever asks about a study says so; this is tried again
  }
  window.clearTimeout(timer);
  timer = window.setTimeout(look, foreign ? SOON : LATER);
}

/** @param {import("./api.js").Study[]} found @returns {boolean} whether another tab is sending one of them */
function take(found) {
  const own = [...studies.values()].filter(({ upload_id: upload }) => isRunning(upload));
  const others = found.filter(({ upload_id: upload }) => !isRunning(upload));
  for (const id of [...studies.keys()]) {
    if (!own.concat(others).some((study) => study.id === id)) forget(id);
  }
  others.filter(({ id }) => !FINAL.has(studies.get(id)?.state ?? "done")).forEach(announce);
  studies.clear();
  for (const study of [...others, ...own]) studies.set(study.id, study);
  const lost = cutOff(found);
  if (lost) byId("load-error").append(message(lost));
  draw();
  void asker.ask();
  return others.some(({ state }) => state === "sending");
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
  const upload = randomKey();
  const before = picked;
  const sending = outgoing(name, upload);
  studies.set(sending.id, sending);
  began(upload);
  draw();
  try {
    const study = await sendStudy(items, upload, (share) => {
      sending.sent = share;
      draw();
    });
    inPlaceOf(sending.id, study);
    say(`${study.name} was sent.`);
    if (!panel || before === picked) choose(study.id, false);
  } catch (error) {
    refuse(name, said(error));
  } finally {
    changes += 1;
    studies.delete(sending.id);
    ended(upload);
    draw();
  }
  void asker.ask();
}

/**
 * Put a study where another stands in the list.
 * @param {string} id @param {import("./api.js").Study} study
 */
function inPlaceOf(id, study) {
  const known = [...studies.values()].filter((other) => other.id !== study.id);
  studies.clear();
  for (const other of known) {
    const one = other.id === id ? study : other;
    studies.set(one.id, one);
  }
  if (!studies.has(study.id)) studies.set(study.id, study);
}

/** @param {string} id @param {boolean} [focus] whether the reader asked for it, so that the focus follows */
function choose(id, focus = true) {
  const study = studies.get(id);
  if (!study || study.state === "sending") return;
  if (focus) picked += 1;
  if (panel?.id !== id) {
    panel?.close();
    panel = new StudyPanel(byId("study"), model, id, {
      remove: () => void remove(id),
      rename: (name) => change(id, renameStudy(id, name), ({ name: given }) => `The study is called ${given} now.`),
      give: (opinion) => change(id, sendOpinion(id, opinion), () => "Your opinion was kept."),
      again: (ed, es) => change(id, chooseFrames(id, ed, es), () => "The answer is being computed again."),
    });
  }
  draw();
  if (focus) panel.heading.focus();
}

/** @param {string} id */
async function remove(id) {
  const study = studies.get(id);
  if (!study || !(await agreed(`Remove ${study.name} with its images and results from this server?`))) return;
  await leave([id], () => removeStudy(id).catch(unlessGone), `${study.name} was removed.`);
}

async function removeAll() {
  const question = "Remove every study that this browser has sent, in this tab and in others, with its images and "
    + "results from this server?";
  if (!(await agreed(question))) return;
  await leave([...studies.keys()], removeSession, "Everything was removed.");
}

/** @param {unknown} error */
function unlessGone(error) {
  if (!(error instanceof ApiError) || error.status !== 404) throw error;
}

/**
 * Ask and show nothing more of studies, then remove them; a look at the server brings back what it kept.
 * @param {string[]} ids @param {() => Promise<any>} removal @param {string} done what is said then
 */
async function leave(ids, removal, done) {
  removing += 1;
  asker.breakOff();
  for (const id of ids) forget(id);
  const failure = await removal().then(() => "", said);
  removing -= 1;
  changes += 1;
  byId("choose-files").focus();
  if (!failure) {
    say(done);
    return;
  }
  byId("page-error").replaceChildren(message(failure));
  await look();
}

/**
 * Take in a study that the server has changed.
 * @param {string} id @param {Promise<import("./api.js").Study>} asked @param {(study: import("./api.js").Study) => string} told
 * @returns {Promise<string>} what went wrong, or ""
 */
async function change(id, asked, told) {
  try {
    const study = await asked;
    changes += 1;
    if (studies.has(id)) studies.set(id, study);
    draw();
    say(told(study));
    void asker.ask();
    return "";
  } catch (error) {
    if (error instanceof ApiError && error.status === 409) await asker.askAbout(id).then(draw, () => {});
    void asker.ask();
    return said(error);
  }
}

function announce(/** @type {import("./api.js").Study} */ study) {
  if (FINAL.has(study.state)) say(`${study.name}: ${summary(study)}.`);
}

/** @param {string} id */
function forget(id) {
  changes += 1;
  studies.delete(id);
  if (panel?.id === id) {
    panel.close();
    panel = null;
    byId("study").replaceChildren();
    byId("study").hidden = true;
  }
  draw();
}

/** Bring the list and the chosen study up to date. */
function draw() {
  const known = [...studies.values()];
  showList(known, panel?.id ?? null, choose);
  const study = panel && studies.get(panel.id);
  if (panel && study) panel.update(study);
}
