/** Frames as people count them: from 1, with the time after the R wave where the file says it. */

/**
 * The number of a frame, such as "8 (254 ms)".
 * @param {number} frame from 0
 * @param {number[] | null | undefined} times ms
 */
export function frameText(frame, times) {
  return times ? `${frame + 1} (${Math.round(times[frame])}\u00a0ms)` : String(frame + 1);
}
