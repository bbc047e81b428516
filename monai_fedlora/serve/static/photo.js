/** A photograph with contrast and distances; it has no scale, so these are in pixels. */

import { Caliper } from "./caliper.js";
import { Contrast } from "./contrast.js";
import { choice, labelled } from "./controls.js";
import { drawing, element } from "./dom.js";

const BRIGHTEST = 255;
const FILTER = "photo-window";

export class PhotoPanel {
  /** @param {string} address of the photograph */
  constructor(address) {
    this.drags = "measure";
    this.image = element("img", { src: address, alt: "The photograph as it was sent", draggable: "false",
      load: () => this.caliper.draw() });
    this.functions = ["feFuncR", "feFuncG", "feFuncB"].map((name) => drawing(name, { type: "linear" }));
    this.contrast = new Contrast((low, high) => this.window(low, high));
    this.contrast.begin(0, BRIGHTEST, 0, BRIGHTEST);
    this.stage = element("div", {
      class: "stage", tabindex: 0, role: "application", "aria-label": "Photograph. The arrow keys move a cross, and Enter "
        + "sets an end of a distance in pixels.",
      keydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
      pointerdown: (/** @type {PointerEvent} */ event) => this.stage.setPointerCapture(event.pointerId),
      pointermove: (/** @type {PointerEvent} */ event) => this.drag(event),
    }, this.image);
    this.caliper = new Caliper(this.stage, {
      size: () => [this.image.naturalWidth || 1, this.image.naturalHeight || 1], where: () => "",
      toScreen: ([column, row]) => {
        const { scale, left, top } = this.fit();
        return [left + (column + 0.5) * scale, top + (row + 0.5) * scale];
      },
      toImage: ([across, down]) => {
        const { scale, left, top } = this.fit();
        return [(across - left) / scale - 0.5, (down - top) / scale - 0.5];
      },
      distance: (one, other) => `${Math.hypot(other[0] - one[0], other[1] - one[1]).toFixed(1)} pixels`,
    });
    this.stage.append(this.caliper.drawn);
    new ResizeObserver(() => this.caliper.draw()).observe(this.stage);
    const modes = choice("Dragging", [["measure", "Measure"], ["contrast", "Contrast"]], (value) => this.dragFor(value));
    this.dragFor("measure");
    this.node = element("div", { class: "viewer photo" },
      drawing("svg", { width: 0, height: 0, class: "unseen", "aria-hidden": "true" },
        drawing("filter", { id: FILTER, "color-interpolation-filters": "sRGB" },
          drawing("feComponentTransfer", {}, ...this.functions))),
      element("div", { class: "screen" }, this.stage),
      element("div", { class: "controls" }, element("div", { class: "row" }, element("span", {}, "Dragging"), modes.node),
        this.contrast.node, this.caliper.node),
      element("p", { class: "quiet" }, "A photograph has no scale: distances are in pixels of the picture that is shown. ",
        element("a", { href: address, target: "_blank", rel: "noopener" }, "Open it alone")));
  }

  /** Lay outlines over the photograph. @param {string} address of a picture of its size that is clear elsewhere */
  outline(address) {
    if (this.over?.getAttribute("src") === address) return;
    this.over?.remove();
    this.row?.remove();
    this.over = element("img", { src: address, class: "over", alt: "Outlines that the model drew", draggable: "false" });
    const shown = element("input", { type: "checkbox", checked: true, change: () => { this.over.hidden = !shown.checked; } });
    this.row = element("div", { class: "row" }, labelled("Show the outlines", shown, "after"));
    this.image.after(this.over);
    this.node.querySelector(".controls").append(this.row);
  }

  /** How the image lies in its place: pixels of the page for one of the image, and the corner. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const { naturalWidth: across, naturalHeight: down } = this.image;
    const scale = across && down && width && height ? Math.min(width / across, height / down) : 1;
    return { scale, left: (width - across * scale) / 2, top: (height - down * scale) / 2 };
  }

  /** @param {string} what dragging does: "measure" or "contrast" */
  dragFor(what) {
    this.drags = what;
    this.caliper.use(what === "measure");
  }

  /** @param {number} low @param {number} high levels that are drawn from black to white */
  window(low, high) {
    for (const one of this.functions) {
      one.setAttribute("slope", String(BRIGHTEST / (high - low)));
      one.setAttribute("intercept", String(-low / (high - low)));
    }
    this.image.style.filter = low === 0 && high === BRIGHTEST ? "" : `url(#${FILTER})`;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!event.ctrlKey && !event.altKey && !event.metaKey && this.caliper.key(event)) event.preventDefault();
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (this.drags === "contrast" && this.stage.hasPointerCapture(event.pointerId)) {
      this.contrast.drag(event.movementX, event.movementY);
    }
  }
}
