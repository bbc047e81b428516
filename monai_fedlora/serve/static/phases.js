/** Choosing end-diastole and end-systole, so that the answer is computed again. Frames count from 1 here. */

import { button, labelled } from "./controls.js";
import { element } from "./dom.js";

export class PhaseChooser {
  /**
   * @param {{ed: number, es: number}} frames that the answer is of, from 0
   * @param {number} count of frames
   * @param {(ed: number, es: number) => Promise<string>} submit with numbers from 0; gives what went wrong, or ""
   */
  constructor(frames, count, submit) {
    this.frames = frames;
    this.count = count;
    this.isFinished = false;
    this.inputs = ["ed", "es"].map((name) => element("input", {
      type: "number", min: 1, max: count, step: 1, required: true, value: frames[name] + 1, input: () => this.check(),
    }));
    this.why = element("p", { class: "quiet", role: "status" });
    this.again = button("Compute again", () => {}, { type: "submit", class: "primary" });
    this.back = button("Undo", () => this.undo());
    this.node = element("form", { class: "phases", "aria-label": "Choose end-diastole and end-systole", submit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      const [ed, es] = this.chosen();
      const wrong = await submit(ed, es);
      if (wrong) this.why.textContent = wrong;
    } },
    element("div", { class: "row" }, labelled("ED frame", this.inputs[0]), labelled("ES frame", this.inputs[1]),
      this.again, this.back), this.why);
    this.check();
  }

  /** @param {"ed" | "es"} name @param {number} frame from 0 */
  set(name, frame) {
    this.inputs[name === "ed" ? 0 : 1].value = String(frame + 1);
    this.check();
  }

  /** @param {boolean} finished whether the answer of before is complete; another is not begun before */
  finished(finished) {
    if (finished !== this.isFinished) {
      this.isFinished = finished;
      this.check();
    }
  }

  undo() {
    this.set("ed", this.frames.ed);
    this.set("es", this.frames.es);
  }

  /** ED and ES from 0. */
  chosen() {
    return this.inputs.map((input) => Number(input.value) - 1);
  }

  check() {
    const [ed, es] = this.chosen();
    const there = [ed, es].every((frame) => Number.isInteger(frame) && frame >= 0 && frame < this.count);
    const same = ed === this.frames.ed && es === this.frames.es;
    this.again.disabled = !this.isFinished || !there || same || ed === es;
    this.back.disabled = same;
    this.why.textContent = !there ? `Frames count from 1 to ${this.count}.`
      : ed === es ? "ED and ES are two different frames."
        : same ? "Another frame is better? Choose it here, or with the buttons below the images."
          : !this.isFinished ? "The answer is still being computed; then it can be computed again."
            : "The answer above is still that of the frames before; compute again to replace it.";
  }
}
