/** Which uploads this tab began and has not seen the end of, so that a reload in between is noticed. */

const KEPT = "monai-fedlora uploads";  // only random numbers, no names

/** @type {Set<string>} */
const running = new Set();
/** @type {string[]} those of the page before a reload */
let open = kept();

window.addEventListener("beforeunload", (event) => {
  if (running.size) event.preventDefault();  // the browser asks whether the page shall go
});

/** @param {string} upload */
export function began(upload) {
  running.add(upload);
  keep();
}

/** @param {string} upload */
export function ended(upload) {
  running.delete(upload);
  keep();
}

/** @param {string} upload whether this page sends it */
export function isRunning(upload) {
  return running.has(upload);
}

/**
 * A study as long as this page sends it.
 * @param {string} name @param {string} upload
 * @returns {import("./api.js").Study}
 */
export function outgoing(name, upload) {
  return {
    id: `sending ${upload}`, short_id: "", upload_id: upload, name, is_pseudonym: false, state: "sending", sent: 0,
    error: null, result: null, files: {},
  };
}

/**
 * Says that a reload, or the end of the page, cut uploads off; each is told once, and "" if there is none.
 * @param {import("./api.js").Study[]} studies all that the server has
 */
export function cutOff(studies) {
  const states = new Map(studies.map(({ upload_id: upload, state }) => [upload, state]));
  const lost = open.filter((upload) => !states.has(upload));
  open = open.filter((upload) => states.get(upload) === "sending");
  keep();
  if (!lost.length) return "";
  return `${lost.length === 1 ? "A study was" : `${lost.length} studies were`} still being sent when this page was left or `
    + "loaded again. Nothing of that was kept; send it again.";
}

/** @returns {string[]} */
function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  } catch {
    return [];
  }
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify([...open, ...running]));
  } catch {  // storage is switched off: a reload is not noticed
  }
}
