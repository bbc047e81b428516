/** The viewer of a cine with its controls. */

import { edgeLetters } from "./directions.js";
import { element } from "./dom.js";
import { legend } from "./legend.js";
import { CineViewer } from "./viewer.js";
import { Zoom } from "./zoom.js";

const FRAMES_PER_SECOND = 20;  // at most; a beat takes about a second
const NOT_EVIDENCE = "It does not show whether that is a sign of disease.";

export class CinePanel {
  /**
   * @param {{ed: number, es: number}} frames numbers from 0
   * @param {import("./api.js").Scale} scale of the overlay's colours
   * @param {(frame: number) => void} moved told the frame that is shown
   */
  constructor(frames, scale, moved) {
    this.frames = frames;
    this.legend = legend(scale);
    this.legend.hidden = true;
    this.moved = moved;
    /** @type {CineViewer | null} */
    this.viewer = null;
    this.frame = frames.ed;
    this.timer = 0;
    this.overlayAddress = this.overlayMeans = "";
    /** @type {boolean | null} */
    this.isDirected = null;  // whether the file says how the patient lay; null until that is known
    this.canvas = element("canvas", {
      tabindex: 0, role: "application", "aria-label": "Short-axis cine. Left and right change "
        + "the frame, up and down the slice, with Shift they move an enlarged image.",
      keydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
      wheel: (/** @type {WheelEvent} */ event) => this.wheel(event),
    });
    this.play = button("Play", () => (this.timer ? this.stop() : this.start()));
    this.frameSlider = slider(0, 1, 1, () => this.show(Number(this.frameSlider.value)));
    this.frameText = element("span", { class: "value" });
    this.sliceSlider = slider(0, 1, 1, () => this.showSlice(Number(this.sliceSlider.value)));
    this.sliceText = element("span", { class: "value" });
    this.views = ["One slice", "All slices"].map((label) => button(label, () => this.layOut(label === "All slices")));
    this.brightness = slider(-1, 1, 0.05, () => this.viewer?.brighten(Number(this.brightness.value)));
    this.brightness.value = "0";
    this.zoom = new Zoom(this.canvas, () => this.viewer);
    this.letters = Object.fromEntries(["left", "right", "top", "bottom"].map((edge) =>
      [edge, element("span", { class: `edge ${edge}`, "aria-hidden": "true" })]));
    this.overlay = element("input", { type: "checkbox", disabled: true, change: () => this.blend() });
    this.opacity = slider(0.1, 1, 0.05, () => this.blend());
    this.opacity.value = "1";
    this.opacity.disabled = true;
    this.overlayText = element("p", { class: "quiet" }, "The overlay is not there yet.");
    this.node = element("div", { class: "viewer" },
      element("div", { class: "screen" }, this.canvas, ...Object.values(this.letters)),
      element("div", { class: "controls" },
        element("div", { class: "row" }, this.play, ...[["ED", "end-diastole", frames.ed], ["ES", "end-systole", frames.es]]
          .map(([name, phase, frame]) => element("button", {
            type: "button", click: () => this.go(Number(frame)), "aria-label": `${name} ${frame}, show ${phase}`,
          }, `${name} ${frame}`)),
          element("div", { class: "views", role: "group", "aria-label": "View" }, ...this.views)),
        element("div", { class: "row frames" }, labelled("Frame", this.frameSlider), this.frameText),
        element("div", { class: "row" }, labelled("Slice", this.sliceSlider), this.sliceText,
          labelled("Zoom", this.zoom.slider), labelled("Brightness", this.brightness)),
        element("div", { class: "row" }, labelled("Show the places the answer hangs on", this.overlay, "after"),
          labelled("Opacity", this.opacity)),
        this.legend, this.overlayText));
  }

  /** @param {string} address of the cine; the panel has to be in the page */
  async open(address) {
    this.viewer = await CineViewer.open(this.canvas, address);
    this.frameSlider.max = String(this.viewer.frames - 1);
    this.sliceSlider.max = String(this.viewer.slices - 1);
    this.play.disabled = this.frameSlider.disabled = this.viewer.frames < 2;
    this.showSlice(Math.floor(this.viewer.slices / 2));
    this.layOut(false);
    this.show(this.frame);
    if (this.isDirected !== null) this.showDirections(this.isDirected);
    if (this.overlayAddress) await this.addOverlay(this.overlayAddress, this.overlayMeans);
    this.node.dataset.ready = "true";
  }

  /** @param {string} address @param {string} means what its colours say, in words */
  async addOverlay(address, means) {
    [this.overlayAddress, this.overlayMeans] = [address, means];
    if (!this.viewer || this.viewer.overlay) return;
    await this.viewer.addOverlay(address);
    this.overlayText.textContent = `${means} ${NOT_EVIDENCE}`;
    this.legend.hidden = false;
    this.overlay.disabled = false;
    this.blend();
  }

  /** @param {boolean} known whether the file says how the patient lay, so that the edges can be named */
  showDirections(known) {
    this.isDirected = known;
    if (!this.viewer || this.letters.bottom.textContent) return;
    const letters = edgeLetters(this.viewer.acquired, known);
    for (const [edge, text] of Object.entries(letters)) this.letters[edge].textContent = text;
  }

  /** Say that there will be no overlay. @param {string} why */
  withoutOverlay(why) {
    if (!this.overlayAddress) this.overlayText.textContent = why;
  }

  /** Draw again what is shown; gives where, so that it can be copied before the browser takes it away. */
  repaint() {
    this.viewer?.view.drawScene();
    return this.viewer ? [this.canvas] : [];
  }

  /** What is shown, in words. */
  caption() {
    const slice = this.sliceSlider.disabled ? "All slices" : `Slice ${this.sliceText.textContent}`;
    return `${slice}, frame ${this.frameText.textContent}.${this.overlay.checked ? " With the places the answer hangs on." : ""}`;
  }

  /** Stop, and free what the graphics card holds. */
  close() {
    this.stop();
    this.viewer?.close();
  }

  /** @param {number} frame from 0, wrapped around */
  show(frame) {
    if (!this.viewer) return;
    this.frame = (frame + this.viewer.frames) % this.viewer.frames;
    this.viewer.showFrame(this.frame);
    const { ed, es } = this.frames;
    const phase = this.frame === ed ? ", end-diastole" : this.frame === es ? ", end-systole" : "";
    this.frameSlider.value = String(this.frame);
    this.frameText.textContent = `${this.frame} of 0 to ${this.viewer.frames - 1}${phase}`;
    this.frameSlider.setAttribute("aria-valuetext", this.frameText.textContent);
    this.moved(this.frame);
  }

  /** @param {number} frame */
  go(frame) {
    this.stop();
    this.show(frame);
  }

  start() {
    const rate = Math.min(FRAMES_PER_SECOND, this.viewer?.frames ?? 1);
    this.timer = window.setInterval(() => this.show(this.frame + 1), 1000 / rate);
    this.play.textContent = "Pause";
  }

  stop() {
    window.clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = "Play";
  }

  /** @param {number} slice from 0 */
  showSlice(slice) {
    if (!this.viewer) return;
    const shown = Math.min(Math.max(slice, 0), this.viewer.slices - 1);
    this.sliceSlider.value = String(shown);
    this.sliceText.textContent = `${shown + 1} of ${this.viewer.slices}`;
    this.sliceSlider.setAttribute("aria-valuetext", this.sliceText.textContent);
    this.viewer.showSlice(shown);
  }

  /** @param {boolean} all whether all slices are shown at once */
  layOut(all) {
    if (all) this.viewer?.showAll();
    else this.showSlice(Number(this.sliceSlider.value));
    this.sliceSlider.disabled = this.zoom.slider.disabled = all;
    for (const letter of Object.values(this.letters)) letter.hidden = all;
    this.views.forEach((view, index) => view.setAttribute("aria-pressed", String(all === (index === 1))));
  }

  /** Draw the overlay as its switch and slider say. */
  blend() {
    this.opacity.disabled = !this.overlay.checked;
    this.viewer?.showOverlay(this.overlay.checked ? Number(this.opacity.value) : 0);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (this.zoom.key(event)) {
      event.preventDefault();
      return;
    }
    const frames = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const slices = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (frames) this.go(this.frame + frames);
    if (slices && !this.sliceSlider.disabled) this.showSlice(Number(this.sliceSlider.value) + slices);
    if (frames || slices) event.preventDefault();
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    if (this.sliceSlider.disabled || event.ctrlKey) return;  // Ctrl and the wheel enlarge the page
    event.preventDefault();
    this.showSlice(Number(this.sliceSlider.value) + Math.sign(event.deltaY));
  }
}

/** @param {string} label @param {() => void} click */
function button(label, click) {
  return element("button", { type: "button", click }, label);
}

/** @param {number} min @param {number} max @param {number} step @param {() => void} input */
function slider(min, max, step, input) {
  return element("input", { type: "range", min, max, step, input });
}

/** @param {string} label @param {any} control @param {"before" | "after"} [where] of the control */
function labelled(label, control, where = "before") {
  const text = element("span", {}, label);
  return element("label", {}, ...(where === "before" ? [text, control] : [control, text]));
}
