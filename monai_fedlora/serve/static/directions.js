/** Which way of the patient the edges of an image point. */

import { element } from "./dom.js";

const NAMES = [["R", "L"], ["A", "P"], ["H", "F"]];  // towards a positive and a negative end of the world's axes
const LEAST = 0.3;  // share of a direction that is named
const UNKNOWN = "right and left are not marked: the file does not say how the patient lay";

/**
 * Letters for the edges of a slice whose columns run to the right and rows downwards.
 * @param {number[][]} affine (4, 4) voxel to world in mm: right, anterior, superior
 * @param {boolean} known whether the file says how the patient lay; without, there are no letters, and that is said
 * @returns {{left: string, right: string, top: string, bottom: string}} such as "AL", the larger share first
 */
export function edgeLetters(affine, known) {
  if (!known) return { left: "", right: "", top: "", bottom: UNKNOWN };
  const [across, down] = [0, 1].map((column) => [0, 1, 2].map((axis) => affine[axis][column]));
  return { left: letters(reverse(across)), right: letters(across), top: letters(reverse(down)), bottom: letters(down) };
}

/** The letters at the four edges of an image. */
export class Letters {
  constructor() {
    this.edges = Object.fromEntries(["left", "right", "top", "bottom"].map((edge) =>
      [edge, element("span", { class: `edge ${edge}`, "aria-hidden": "true" })]));
    this.nodes = Object.values(this.edges);
  }

  /** @param {number[][]} affine @param {boolean} known as of {@link edgeLetters} */
  write(affine, known) {
    if (this.edges.bottom.textContent) return;
    for (const [edge, text] of Object.entries(edgeLetters(affine, known))) this.edges[edge].textContent = text;
  }

  /** @param {boolean} hidden */
  hide(hidden) {
    for (const node of this.nodes) node.hidden = hidden;
  }
}

/** @param {number[]} direction */
function reverse(direction) {
  return direction.map((part) => -part);
}

/** @param {number[]} direction */
function letters(direction) {
  const length = Math.hypot(...direction);
  return direction.map((part, axis) => ({ share: part / length, axis }))
    .filter(({ share }) => Math.abs(share) >= LEAST)
    .sort((one, other) => Math.abs(other.share) - Math.abs(one.share))
    .map(({ share, axis }) => NAMES[axis][share > 0 ? 0 : 1]).join("");
}
