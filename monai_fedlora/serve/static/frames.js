/** Frames as people count them: from 1, with the time after the R wave where the file says it; end-diastole and end-systole. */

import { button } from "./controls.js";

/**
 * The number of a frame, such as "8 (254 ms)".
 * @param {number} frame from 0
 * @param {number[] | null | undefined} times ms
 */
export function frameText(frame, times) {
  return times ? `${frame + 1} (${Math.round(times[frame])}\u00a0ms)` : String(frame + 1);
}

/**
 * The phase that a frame is, after a comma; empty if none.
 * @param {number} frame from 0
 * @param {{ed: number, es: number} | null} phases from 0
 * @param {string} whose they are
 */
export function phaseAt(frame, phases, whose) {
  return frame === phases?.ed ? `, end-diastole${whose}` : frame === phases?.es ? `, end-systole${whose}` : "";
}

/**
 * Buttons that show end-diastole and end-systole.
 * @param {{ed: number, es: number}} phases from 0
 * @param {string} whose they are, for people who cannot see the page
 * @param {(frame: number) => void} go shows a frame, from 0
 */
export function jumpsTo({ ed, es }, whose, go) {
  return [["ED", "end-diastole", ed], ["ES", "end-systole", es]].map(([name, phase, frame]) =>
    button(`${name} ${Number(frame) + 1}`, () => go(Number(frame)),
      { "aria-label": `${name} ${Number(frame) + 1}, show ${phase}${whose}` }));
}
