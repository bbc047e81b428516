/** The server's interface. Every failure is an ApiError whose message is a sentence for the reader. */

/**
 * @typedef {{unit: string, threshold: number, full: number, colours: {points: number, rgba: number[]}[]}} Scale
 * @typedef {{name: string, version: string, sha256: string, modality: string, classes: string[], notice: string,
 *   limits: string[], intended_use: string, accepts: string[], max_upload_bytes: number, viewer: boolean,
 *   overlay: Scale, card: Record<string, string>}} Model
 * @typedef {{ed?: number, es?: number, how: string, areas?: number[]}} Frames
 * @typedef {{notice: string, study: string, prediction: string, probabilities: Record<string, number>,
 *   doubts: string[], notes: string[], frames: Frames | null, overlay?: string | null}} Result `overlay` says what its
 *   colours mean
 * @typedef {{id: string, name: string, state: string, error: string | null, result: Result | null,
 *   files: Record<string, string>, sent?: number}} Study `sent` is the share while this page sends it
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

/** @param {string} id @returns {Promise<Study>} */
export function getStudy(id) {
  return call("GET", `api/studies/${encodeURIComponent(id)}`);
}

/** @param {string} id @returns {Promise<null>} */
export function removeStudy(id) {
  return call("DELETE", `api/studies/${encodeURIComponent(id)}`);
}

/** @returns {Promise<null>} */
export function removeSession() {
  return call("DELETE", "api/session");
}

/**
 * Send one study.
 * @param {import("./grouping.js").Item[]} items
 * @param {(share: number) => void} progress called with the share sent, in [0, 1]
 * @returns {Promise<{id: string, name: string}>}
 */
export function sendStudy(items, progress) {
  const form = new FormData();
  for (const { file, path } of items) form.append("files", file, path);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "api/studies");
    request.setRequestHeader("X-Page-Key", key);
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

/** @param {string} method @param {string} address @returns {Promise<any>} */
async function call(method, address) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(address, { method, cache: "no-store", headers: { "X-Page-Key": key } });
  } catch {
    throw new ApiError(SILENT, 0);
  }
  const answer = parsed(await response.text());
  if (!response.ok) throw failure(response.status, answer);
  return answer;
}

/** What this page shows beside the cookie: other servers of this machine can set cookies, and not read what is kept here. */
function ownKey() {
  const drawn = [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
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
