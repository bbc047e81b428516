/** Window and level: which grey levels are drawn from black to white. By sliders, by dragging, and back again. */

import { button, labelled, slider } from "./controls.js";
import { element } from "./dom.js";

const STEPS = 200;  // of a slider
const DRAG = 400;  // pixels of the page that drag over the whole range

export class Contrast {
  /** @param {(low: number, high: number) => void} apply draws these levels from black to white */
  constructor(apply) {
    this.apply = apply;
    this.begin(0, 1, 0, 1);
    this.windowSlider = slider(1, STEPS, 1, () => this.slid());
    this.levelSlider = slider(0, STEPS, 1, () => this.slid());
    this.node = element("div", { class: "row contrast" }, labelled("Window", this.windowSlider),
      labelled("Level", this.levelSlider), button("Reset contrast", () => this.reset()));
  }

  /**
   * Say what there is.
   * @param {number} darkest @param {number} brightest levels of the image
   * @param {number} low @param {number} high what is drawn from black to white at first
   */
  begin(darkest, brightest, low, high) {
    this.darkest = darkest;
    this.range = Math.max(brightest - darkest, 1e-6);
    this.first = [low, high];
    [this.low, this.high] = this.first;
    if (this.windowSlider) this.show();
  }

  reset() {
    this.set(this.first[1] - this.first[0], (this.first[0] + this.first[1]) / 2);
  }

  /** @param {number} across @param {number} down pixels: to the right widens, upwards brightens */
  drag(across, down) {
    this.set(this.high - this.low + (across * this.range) / DRAG, (this.low + this.high) / 2 + (down * this.range) / DRAG);
  }

  slid() {
    this.set((Number(this.windowSlider.value) * this.range) / STEPS,
      this.darkest + (Number(this.levelSlider.value) * this.range) / STEPS);
  }

  /** @param {number} width @param {number} level */
  set(width, level) {
    const wide = Math.min(Math.max(width, this.range / STEPS), this.range);
    const middle = Math.min(Math.max(level, this.darkest), this.darkest + this.range);
    [this.low, this.high] = [middle - wide / 2, middle + wide / 2];
    this.show();
    this.apply(this.low, this.high);
  }

  show() {
    const [wide, level] = [this.high - this.low, (this.low + this.high) / 2];
    this.windowSlider.value = String(Math.round((STEPS * wide) / this.range));
    this.levelSlider.value = String(Math.round((STEPS * (level - this.darkest)) / this.range));
    this.windowSlider.setAttribute("aria-valuetext", rounded(wide));
    this.levelSlider.setAttribute("aria-valuetext", rounded(level));
  }
}

/** @param {number} value */
function rounded(value) {
  return Number(value.toPrecision(3)).toString();
}
