/** The server's interface. Every failure is an ApiError whose message is a sentence for the reader. */

/**
 * @typedef {{unit: string, threshold: number, full: number, colours: {points: number, rgba: number[]}[]}} Scale
 * @typedef {{name: string, version: string, sha256: string, modality: string, classes: string[], notice: string, gives: string,
 *   limits: string[], intended_use: string, accepts: string[], max_upload_bytes: number, viewer: boolean,
 *   overlay: Scale, card: Record<string, string>, keeps_feedback: boolean,
 *   trained_on: {kind: string, summary: string}, outlines?: Model | null, blind: string[], origin_doubts: string[], warnings: string[]}} Model
 *   `blind` says what of any image it cannot tell, `gives` what it answers where that is no class, `origin_doubts` what its training images make doubtful in any answer
 * @typedef {{ed?: number, es?: number, how: string, areas?: number[], trigger_ms?: number[] | null,
 *   by_person?: boolean, found?: number[] | null}} Frames counted from 0; `found` are the program's ED and ES where a
 *   person chose others
 * @typedef {{answers: number, range: Record<string, number[]>, classes: string[], moved: string[]}} Stability
 * @typedef {{notice: string, study: string, prediction: string, answer: string, undecided: boolean, state: string,
 *   probabilities: Record<string, number>, shown: Record<string, string>, stability: Stability | null,
 *   heart?: Heart | null, doubts: string[], notes: string[], orientation: string | null, calibration: {fitted: boolean} | null, frames: Frames | null,
 *   overlay?: string | null, numbers?: Measured[]}} Result `shown` are the probabilities for people; `overlay` says what its colours mean
 * @typedef {{function: Record<string, number> | null, units: Record<string, string>, no_volume_because: string[],
 *   beat: {ed: number, es: number, lv_volumes_ml: number[] | null} | null, failed_frames: Record<string, string>,
 *   frames: {ed: number, es: number, how: string} | null, disagreements: string[], doubts: string[], notes: string[],
 *   model: {name: string, version: string}}} Heart what the outlines say; `function` are its numbers by name
 * @typedef {{name: string, value: number | null, unit: string, shown: string, usually: string}} Measured `value` is null
 *   for a structure that was not found
 * @typedef {{opinion: string, instead: string, because: string}} Opinion
 * @typedef {{id: string, short_id: string, upload_id: string, name: string, is_pseudonym: boolean, state: string,
 *   error: string | null, result: Result | null, files: Record<string, string>, opinion?: Opinion | null, answer: number,
 *   can_choose_frames?: boolean, chosen?: {ed: number, es: number} | null, sent?: number}} Study `answer` is the number
 *   of its answer, from 1; `sent` is the share while this page sends it
 * @typedef {{studies: Study[], seconds_left: number | null}} Session
 */

export class ApiError extends Error {
  /** @param {string} text @param {number} status HTTP status, 0 if the server did not answer */
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

const KEY = "monai-fedlora key";
const key = ownKey();

const SILENT = "The server does not answer. Look whether monai-fedlora serve is still running, then try again.";

/** @returns {Promise<Model>} */
export function getModel() {
  return call("GET", "api/model");
}

/** @param {string} id @param {AbortSignal} signal that breaks off @returns {Promise<Study>} */
export function getStudy(id, signal) {
  return call("GET", `api/studies/${encodeURIComponent(id)}`, undefined, signal);
}

/** @param {string} id @returns {Promise<null>} */
export function removeStudy(id) {
  return call("DELETE", `api/studies/${encodeURIComponent(id)}`);
}

/**
 * All studies of this browser, whichever of its tabs sent them.
 * @param {boolean} used whether a reader asks, which keeps the studies for longer, and not the page by itself
 * @returns {Promise<Session>}
 */
export function getSession(used) {
  return call("GET", used ? "api/session?used" : "api/session");
}

/** @param {string} id @param {string} name @returns {Promise<Study>} */
export function renameStudy(id, name) {
  return call("PUT", `api/studies/${encodeURIComponent(id)}/name`, { name });
}

/** @param {string} id @param {Opinion & {answer: number}} opinion @returns {Promise<Study>} */
export function sendOpinion(id, opinion) {
  return call("POST", `api/studies/${encodeURIComponent(id)}/feedback`, opinion);
}

/** @param {string} id @param {number} ed @param {number} es frames from 0 @returns {Promise<Study>} */
export function chooseFrames(id, ed, es) {
  return call("PUT", `api/studies/${encodeURIComponent(id)}/frames`, { ed, es });
}

/** @returns {Promise<null>} */
export function removeSession() {
  return call("DELETE", "api/session");
}

/**
 * Send one study.
 * @param {import("./grouping.js").Item[]} items
 * @param {string} upload by which the study is known again, see {@link randomKey}
 * @param {(share: number) => void} progress called with the share sent, in [0, 1]
 * @returns {Promise<Study>}
 */
export function sendStudy(items, upload, progress) {
  const form = new FormData();
  for (const { file, path } of items) form.append("files", file, path);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "api/studies");
    request.setRequestHeader("X-Page-Key", key);
    request.setRequestHeader("X-Upload-Id", upload);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status === 202 && answer) resolve(answer);
      else reject(failure(request.status, answer));
    });
    request.addEventListener("error", () => reject(new ApiError(SILENT, 0)));
    request.send(form);
  });
}

/** 256 random bits, as the server takes them. */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} method @param {string} address @param {any} [content] @param {AbortSignal} [signal] @returns {Promise<any>} */
async function call(method, address, content, signal) {
  /** @type {Response} */
  let response;
  try {
    const body = content === undefined ? null : JSON.stringify(content);
    response = await fetch(address, { method, body, cache: "no-store", signal, headers: { "X-Page-Key": key } });
  } catch {
    throw new ApiError(SILENT, 0);
  }
  const answer = parsed(await response.text());
  if (!response.ok) throw failure(response.status, answer);
  return answer;
}

/** What this page shows beside the cookie: other servers of this machine can set cookies, and not read what is kept here. */
function ownKey() {
  const drawn = randomKey();
  try {
    const kept = localStorage.getItem(KEY);
    if (/^[0-9a-f]{64}$/.test(kept ?? "")) return kept;
    localStorage.setItem(KEY, drawn);
  } catch {  // storage is switched off: the key lasts as long as this page
  }
  return drawn;
}

/** @param {string} text @returns {any} null if it is no JSON */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {number} status @param {any} answer */
function failure(status, answer) {
  const said = answer && typeof answer.error === "string" ? answer.error : "";
  return new ApiError(said || `The server refused this (status ${status}). Try again, or read its log.`, status);
}
