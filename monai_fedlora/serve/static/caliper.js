/** One distance on an image: dragged with the pointer, or set with arrow keys and Enter. */

import { button } from "./controls.js";
import { drawing, element } from "./dom.js";

const FAR = 10;  // pixels of the image that an arrow key moves with Shift
/** @type {Record<string, [number, number]>} */
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @typedef {[number, number]} Place column and row of an image, centres of pixels at whole numbers
 * @typedef {{size: () => Place, toScreen: (place: Place) => [number, number], toImage: (at: [number, number]) => Place,
 *   where: () => string, distance: (one: Place, other: Place) => string}} Stage an image on the page: `where` changes
 *   with what is shown (a slice), positions on the screen are pixels of the page from its corner
 */

export class Caliper {
  /**
   * @param {HTMLElement} target takes pointer and keys
   * @param {Stage} stage
   */
  constructor(target, stage) {
    this.target = target;
    this.stage = stage;
    this.active = false;
    /** @type {Place[]} */
    this.ends = [];
    this.where = "";
    /** @type {Place | null} */
    this.cursor = null;
    this.dragged = false;
    this.drawn = drawing("svg", { class: "calipers", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.text = element("p", { class: "quiet", role: "status" });
    this.remove = button("Remove the distance", () => this.clear(), { hidden: true });
    this.node = element("div", { class: "row", hidden: true }, this.text, this.remove);
    target.addEventListener("pointerdown", (event) => this.down(event));
    target.addEventListener("pointermove", (event) => this.move(event));
    target.addEventListener("pointerup", () => { this.dragged = false; });
  }

  /** @param {boolean} active whether pointer and keys measure */
  use(active) {
    this.active = active;
    if (!active) this.cursor = null;
    this.draw();
  }

  clear() {
    this.ends = [];
    this.cursor = null;
    this.draw();
    this.target.focus();
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (!this.active || event.button !== 0) return;
    this.cursor = null;
    this.dragged = true;
    this.ends = [this.at(event)];
    this.where = this.stage.where();
    this.draw();
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.active || !this.dragged) return;
    this.ends = [this.ends[0], this.at(event)];
    this.draw();
  }

  /**
   * Handle a key.
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was one of these
   */
  key(event) {
    if (!this.active) return false;
    const way = KEYS[event.key];
    if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      return true;
    }
    if (!way && event.key !== "Enter") return false;
    this.cursor ??= this.ends[1] ?? this.middle();
    if (way) {
      const step = event.shiftKey ? FAR : 1;
      this.cursor = this.inside([this.cursor[0] + step * way[0], this.cursor[1] + step * way[1]]);
      if (this.ends.length === 1) this.text.textContent = this.said(this.ends[0], this.cursor);
    } else if (this.ends.length === 1 && this.where === this.stage.where()) {
      this.ends = [this.ends[0], this.cursor];
    } else {
      this.ends = [this.cursor];
      this.where = this.stage.where();
    }
    this.draw();
    return true;
  }

  /** Draw what belongs to what is shown now. */
  draw() {
    const here = this.where === this.stage.where() ? this.ends : [];
    const shown = here.length === 1 && this.cursor ? [here[0], this.cursor] : here;
    const points = shown.map((place) => this.stage.toScreen(place));
    const marks = this.cursor && this.active ? [...points, this.stage.toScreen(this.cursor)] : points;
    const lines = points.length === 2 ? ["outline", "line"].map((kind) => drawing("line", {
      class: kind, x1: points[0][0], y1: points[0][1], x2: points[1][0], y2: points[1][1] })) : [];
    const label = points.length === 2 ? drawing("text", { x: (points[0][0] + points[1][0]) / 2 + 8,
      y: (points[0][1] + points[1][1]) / 2 - 8 }, this.stage.distance(shown[0], shown[1])) : null;
    this.drawn.setAttribute("viewBox", `0 0 ${this.target.clientWidth || 1} ${this.target.clientHeight || 1}`);  // also on paper
    this.drawn.replaceChildren(...lines, ...marks.map(cross), ...(label ? [label] : []));
    this.node.hidden = !this.active && here.length < 2;
    this.remove.hidden = here.length === 0;
    if (shown.length === 2) this.text.textContent = this.said(shown[0], shown[1]);
    else if (here.length === 1) this.text.textContent = "One end is set; go to the other and press Enter, or drag.";
    else this.text.textContent = "Drag over the image, or move with the arrow keys and press Enter at both ends.";
  }

  /** @param {Place} one @param {Place} other */
  said(one, other) {
    return `Distance: ${this.stage.distance(one, other)}${this.where ? `, ${this.where}` : ""}.`;
  }

  /** @param {PointerEvent} event @returns {Place} */
  at(event) {
    const { left, top } = this.target.getBoundingClientRect();
    return this.inside(this.stage.toImage([event.clientX - left, event.clientY - top]));
  }

  /** @param {Place} place @returns {Place} */
  inside(place) {
    return /** @type {Place} */ (this.stage.size().map((length, axis) =>
      Math.min(Math.max(place[axis], -0.5), length - 0.5)));
  }

  /** @returns {Place} */
  middle() {
    return /** @type {Place} */ (this.stage.size().map((length) => Math.floor(length / 2)));
  }
}

/** @param {[number, number]} at */
function cross([x, y]) {
  return drawing("path", { class: "line", d: `M${x - 6} ${y}h12M${x} ${y - 6}v12` });
}
