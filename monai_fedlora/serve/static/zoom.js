/** Looking closer at one slice: a slider, dragging, and Shift with the arrow keys. */

import { element } from "./dom.js";

const CLOSEST = 4;
const STEP = 10;  // mm that one key press moves
/** @type {Record<string, [number, number]>} */
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Zoom {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => import("./viewer.js").CineViewer | null} viewer gives the viewer once it is there
   * @param {() => void} moved
   */
  constructor(canvas, viewer, moved) {
    this.moved = moved;
    this.canvas = canvas;
    this.viewer = viewer;
    /** @type {[number, number]} */
    this.centre = [0, 0];  // mm to the right of and above the middle
    this.slider = element("input", { type: "range", min: 1, max: CLOSEST, step: 0.1, input: () => this.move(0, 0) });
    this.slider.value = "1";
  }

  /** @param {number} across @param {number} down pixels of the page */
  drag(across, down) {
    const scale = (this.viewer()?.millimetres() ?? 0) / Number(this.slider.value);
    this.move(-scale * across, scale * down);
  }

  /**
   * Handle a key.
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was one of these
   */
  key(event) {
    const way = event.shiftKey && KEYS[event.key];
    if (way) this.move(STEP * way[0], STEP * way[1]);
    return Boolean(way);
  }

  /** @param {number} right mm @param {number} up mm */
  move(right, up) {
    const viewer = this.viewer();
    const zoom = Number(this.slider.value);
    const [width, height] = viewer?.extent() ?? [0, 0];
    const [x, y] = [this.centre[0] + right, this.centre[1] + up];
    this.centre = [within(x, (width / 2) * (1 - 1 / zoom)), within(y, (height / 2) * (1 - 1 / zoom))];
    viewer?.look(zoom, this.centre);
    this.moved();
  }
}

/** @param {number} value @param {number} bound */
function within(value, bound) {
  return Math.min(Math.max(value, -bound), bound);
}
