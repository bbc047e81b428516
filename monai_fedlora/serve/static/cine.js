/** The viewer of a cine with its controls. */

import { Caliper } from "./caliper.js";
import { Contours } from "./contours.js";
import { Contrast } from "./contrast.js";
import { button, choice, labelled, slider } from "./controls.js";
import { Letters } from "./directions.js";
import { element } from "./dom.js";
import { frameText, jumpsTo, phaseAt } from "./frames.js";
import { gestures } from "./gestures.js";
import { Overlay } from "./overlay.js";
import { Pair } from "./pair.js";
import { Player } from "./player.js";
import { CineViewer } from "./viewer.js";
import { Zoom } from "./zoom.js";

const OF_VOLUMES = " of the volumes";
const KEYS = "Left and right change the frame, up and down the slice, with Shift they move an enlarged image. While "
  + "measuring, the arrow keys move a cross, and Enter sets an end of the distance.";

export class CinePanel {
  /**
   * @param {import("./api.js").Frames} frames ED and ES from 0, times in ms if they are known
   * @param {import("./api.js").Scale} scale of the overlay's colours
   * @param {{moved: (frame: number) => void, suggest: ((name: "ed" | "es", frame: number) => void) | null}} told
   *   of the frame that is shown, and of one that a reader takes for ED or ES; null where they cannot be chosen
   */
  constructor(frames, scale, { moved, suggest }) {
    this.moved = moved;
    /** @type {CineViewer | null} */
    this.viewer = null;
    this.view = "one";
    this.drags = "move";
    /** @type {boolean | null} */
    this.isDirected = null;  // whether the file says how the patient lay; null until that is known
    this.canvas = element("canvas", {
      tabindex: 0, role: "application", "aria-label": `Short-axis cine. ${KEYS}`,
      ...gestures(this),
    });
    this.player = new Player(() => this.show(this.frame + 1));
    this.frameSlider = slider(1, 1, 1, () => this.go(Number(this.frameSlider.value) - 1));
    this.frameText = element("span", { class: "value" });
    this.sliceSlider = slider(0, 1, 1, () => this.showSlice(Number(this.sliceSlider.value)));
    this.sliceText = element("span", { class: "value" });
    this.views = choice("View", [["one", "One slice"], ["all", "All slices"], ["pair", "ED beside ES"]],
      (value) => this.layOut(value));
    this.dragging = choice("Dragging and arrow keys", [["move", "Move"], ["contrast", "Contrast"], ["measure", "Measure"]],
      (value) => this.dragFor(value));
    this.contrast = new Contrast((low, high) => {
      this.viewer?.window(low, high);
      this.drawn();
    });
    this.zoom = new Zoom(this.canvas, () => this.viewer, () => this.drawn());
    this.caliper = new Caliper(this.canvas, {
      size: () => this.viewer?.size() ?? [1, 1], toScreen: (place) => this.viewer?.toScreen(place) ?? [0, 0],
      toImage: (at) => this.viewer?.toImage(at) ?? [0, 0], where: () => (this.view === "one" ? `slice ${Number(this.sliceSlider.value) + 1}` : ""),
      distance: (one, other) => this.viewer?.distance(one, other) ?? "",
    });
    this.pair = new Pair();
    this.letters = new Letters();
    this.contours = new Contours(() => this.drawn());
    this.overlay = new Overlay(scale, (opacity) => {
      this.viewer?.showOverlay(opacity);
      this.drawn();
    });
    this.jumps = element("span", { class: "jumps" });
    /** @type {{ed: number, es: number} | null} */
    this.measured = null;  // frames of the volumes, where they are not those of the class
    this.measuredJumps = element("span", { class: "jumps" });
    this.stage = element("div", { class: "stage" }, this.canvas, this.contours.drawn, this.caliper.drawn);
    this.setFrames(frames);
    this.node = element("div", { class: "viewer" },
      element("div", { class: "screen" }, this.stage, this.pair.node, ...this.letters.nodes),
      element("div", { class: "controls" },
        element("div", { class: "row" }, this.player.play, this.player.speedLabel, this.jumps, this.measuredJumps, this.views.node),
        element("div", { class: "row frames" }, labelled("Frame", this.frameSlider), this.frameText),
        suggest ? element("div", { class: "row" }, ...[["ed", "ED"], ["es", "ES"]].map(([name, label]) => button(
          `Take this frame as ${label}`, () => suggest(/** @type {"ed" | "es"} */ (name), this.frame)))) : null,
        element("div", { class: "row" }, labelled("Slice", this.sliceSlider), this.sliceText,
          labelled("Zoom", this.zoom.slider)),
        element("div", { class: "row" }, element("span", {}, "Dragging"), this.dragging.node),
        this.contours.node, this.contrast.node, this.caliper.node, this.overlay.node));
  }

  /** @param {import("./api.js").Frames} frames */
  setFrames(frames) {
    const { ed = 0, es = 1, trigger_ms: times } = frames;
    if (this.frames?.ed === ed && this.frames.es === es) return;
    this.frames = { ed, es };
    this.times = times ?? null;
    this.frame ??= ed;
    this.jumps.replaceChildren(...jumpsTo({ ed, es }, "", (frame) => this.go(frame)));
    if (this.viewer) this.show(this.frame);
  }

  /**
   * The frames of the volumes, which may be others than those of the class.
   * @param {{ed: number, es: number} | null} frames from 0
   */
  setMeasured(frames) {
    const { ed, es } = this.frames;
    const others = frames && (frames.ed !== ed || frames.es !== es) ? { ed: frames.ed, es: frames.es } : null;
    if (others?.ed === this.measured?.ed && others?.es === this.measured?.es) return;
    this.measured = others;
    this.measuredJumps.replaceChildren(...(others ? [element("span", {}, "Volumes"), ...jumpsTo(others, OF_VOLUMES, (frame) => this.go(frame))] : []));
    if (this.viewer) this.show(this.frame);
  }

  /** @param {string} address of the cine; the panel has to be in the page @param {AbortSignal} signal that breaks off */
  async open(address, signal) {
    this.viewer = await CineViewer.open(this.canvas, address, signal);
    this.frameSlider.max = String(this.viewer.frames);
    this.sliceSlider.max = String(this.viewer.slices - 1);
    this.frameSlider.disabled = this.viewer.frames < 2;
    this.player.begin(this.viewer.frames, this.times);
    const [darkest, brightest, low, high] = this.viewer.levels();
    this.contrast.begin(darkest, brightest, low, high);
    this.showSlice(Math.floor(this.viewer.slices / 2));
    this.layOut("one");
    this.show(this.frame);
    new ResizeObserver(() => this.drawn()).observe(this.stage);
    if (this.isDirected !== null) this.showDirections(this.isDirected);
    if (this.overlay.address) await this.addOverlay(this.overlay.address, this.overlay.means);
    this.node.dataset.ready = "true";
  }

  /** @param {string} address @param {string} means what its colours say, in words */
  addOverlay(address, means) {
    return this.overlay.take(address, means, this.viewer);
  }

  /** @param {string} address of the outlines @param {AbortSignal} signal that breaks off */
  async addContours(address, signal) {
    await this.contours.take(address, signal);
    this.drawn();
  }

  /** Take away what belongs to an answer that is computed again. */
  forgetAnswer() {
    this.viewer?.removeOverlay();
    this.overlay.forget();
    this.contours.forget();
    this.setMeasured(null);
    this.drawn();
  }

  /** @param {boolean} known whether the file says how the patient lay, so that the edges can be named */
  showDirections(known) {
    this.isDirected = known;
    if (this.viewer) this.letters.write(this.viewer.acquired, known);
  }

  /** Say that there will be no overlay. @param {string} why */
  withoutOverlay(why) {
    if (!this.overlay.address) this.overlay.forget(why);
  }

  /** Draw again what is shown; gives where, so that it can be copied before the browser takes it away. */
  repaint() {
    this.viewer?.view.drawScene();
    this.drawn();
    return this.viewer && this.view !== "pair" ? [this.canvas] : [];
  }

  /** What is shown, in words. */
  caption() {
    const slice = this.view === "all" ? "All slices" : `Slice ${this.sliceText.textContent}`;
    const frame = this.view === "pair" ? "ED beside ES" : `frame ${this.frameText.textContent}`;
    return `${slice}, ${frame}.${this.overlay.shown.checked ? " With the places the answer hangs on." : ""}`;
  }

  /** Stop, and free what the graphics card holds. */
  close() {
    this.player.stop();
    this.viewer?.close();
  }

  /** @param {number} frame from 0, wrapped around */
  show(frame) {
    if (!this.viewer) return;
    this.frame = (frame + this.viewer.frames) % this.viewer.frames;
    this.viewer.showFrame(this.frame);
    const phase = phaseAt(this.frame, this.frames, "") || phaseAt(this.frame, this.measured, OF_VOLUMES);
    this.frameSlider.value = String(this.frame + 1);
    this.frameText.textContent = `${frameText(this.frame, this.times)} of ${this.viewer.frames}${phase}`;
    this.frameSlider.setAttribute("aria-valuetext", this.frameText.textContent);
    this.moved(this.frame);
    this.drawn();
  }

  /** @param {number} frame */
  go(frame) {
    this.player.stop();
    this.show(frame);
  }

  /** @param {number} slice from 0 */
  showSlice(slice) {
    if (!this.viewer) return;
    const shown = Math.min(Math.max(slice, 0), this.viewer.slices - 1);
    this.sliceSlider.value = String(shown);
    this.sliceText.textContent = `${shown + 1} of ${this.viewer.slices}`;
    this.sliceSlider.setAttribute("aria-valuetext", this.sliceText.textContent);
    this.viewer.showSlice(shown);
    this.drawn();
  }

  /** @param {string} view "one", "all" slices, or the "pair" of ED and ES */
  layOut(view) {
    this.view = view;
    this.views.press(view);
    if (view === "pair") this.player.stop();
    this.stage.classList.toggle("half", view === "pair");
    this.pair.node.hidden = view !== "pair";
    this.viewer?.fit();
    if (view === "all") this.viewer?.showAll();
    else this.showSlice(Number(this.sliceSlider.value));
    this.sliceSlider.disabled = this.zoom.slider.disabled = view === "all";
    this.player.play.disabled = this.frameSlider.disabled = view === "pair" || (this.viewer?.frames ?? 0) < 2;
    this.letters.hide(view !== "one");
    if (view !== "one" && this.drags === "measure") this.dragFor("move");
    this.drawn();
  }

  /** After the viewer has drawn something: bring what lies upon it up to date. */
  drawn() {
    const { viewer } = this;
    if (!viewer) return;
    const slice = Number(this.sliceSlider.value);
    if (this.view === "pair") {
      const { ed, es } = this.contours.shown.checked && this.measured ? this.measured : this.frames;
      const named = [["ED", ed], ["ES", es]].map(([name, frame]) => [`${name}, frame ${frameText(Number(frame), this.times)}`, frame]);
      this.pair.draw(viewer, /** @type {[string, number][]} */ (named),
        (picture, frame) => this.contours.paint(picture, viewer, frame, slice));
    }
    this.contours.draw(viewer, this.frame, this.view === "all" ? viewer.tiles().map((toScreen, index) => [index, toScreen])
      : this.view === "one" ? [[slice, (place) => viewer.toScreen(place)]] : []);
    this.caliper.draw();
  }

  /** @param {string} what dragging and arrow keys do: "move", "contrast" or "measure" */
  dragFor(what) {
    if (what === "measure" && this.view !== "one") this.layOut("one");
    this.drags = what;
    this.dragging.press(what);
    this.caliper.use(what === "measure");
  }
}
