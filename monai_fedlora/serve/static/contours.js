/** Outlines of the heart in every frame: drawn over a slice, and into pictures of one. */

import { labelled } from "./controls.js";
import { drawing, element } from "./dom.js";

/** Names for people, and the class that colours each outline. */
const NAMES = { LV: "left ventricle (LV)", MYO: "myocardium (MYO)", RV: "right ventricle (RV)" };
const COLOURS = { LV: "#ff5c5c", MYO: "#5cd65c", RV: "#5caaff" };
const OTHER = "#f0c83c";

/** @param {string} name of a structure */
function colour(name) {
  return COLOURS[name] ?? OTHER;
}

export class Contours {
  /** @param {() => void} changed the reader has switched them on or off */
  constructor(changed) {
    /** @type {{structures: string[], steps: number, frames: number[][][][][]} | null} */
    this.content = null;
    this.address = "";
    this.drawn = drawing("svg", { class: "contours", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.shown = element("input", { type: "checkbox", checked: true, change: changed });
    this.key = element("span", { class: "contour-key" });
    this.node = element("div", { class: "row contours-row", hidden: true },
      labelled("Show the outlines", this.shown, "after"), this.key);
  }

  /** @param {string} address of the outlines as JSON @param {AbortSignal} signal that breaks off */
  async take(address, signal) {
    if (this.address === address) return;
    this.address = address;
    const response = await fetch(address, { signal });
    if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
    const content = await response.json();
    if (this.address !== address) return;  // of an answer that is gone by now
    this.content = content;
    this.key.replaceChildren(...content.structures.map((/** @type {string} */ name) => {
      const line = element("span", { class: "stroke", "aria-hidden": "true" });
      line.style.backgroundColor = colour(name);
      return element("span", {}, line, NAMES[name] ?? name);
    }));
    this.node.hidden = false;
  }

  /** There are none (any more). */
  forget() {
    this.address = "";
    this.content = null;
    this.node.hidden = true;
  }

  /**
   * The lines of a slice, by structure, as paths of an SVG.
   * @param {number} frame @param {number} slice from 0
   * @param {(place: [number, number]) => [number, number]} toScreen
   * @returns {[string, string][]} colour and path
   */
  paths(frame, slice, toScreen) {
    const { content } = this;
    const lines = this.shown.checked ? content?.frames[frame]?.[slice] : undefined;
    if (!content || !lines) return [];
    return content.structures.map((name, index) => [colour(name), lines[index].map((numbers) => {
      let [x, y] = [0, 0];
      const points = [];
      for (let at = 0; at < numbers.length; at += 2) {
        [x, y] = [x + numbers[at], y + numbers[at + 1]];
        points.push(toScreen([x / content.steps, y / content.steps]).map((place) => place.toFixed(1)).join(" "));
      }
      return points.length ? `M${points.join("L")}Z` : "";
    }).join("")]);
  }

  /**
   * Draw over the stage.
   * @param {import("./viewer.js").CineViewer} viewer @param {number} frame
   * @param {[number, (place: [number, number]) => [number, number]][]} slices those that are shown, and where
   */
  draw(viewer, frame, slices) {
    const { clientWidth: width, clientHeight: height } = viewer.view.canvas;
    this.drawn.setAttribute("viewBox", `0 0 ${width || 1} ${height || 1}`);
    const paths = slices.flatMap(([slice, toScreen]) => this.paths(frame, slice, toScreen));
    this.drawn.replaceChildren(...paths.map(([stroke, d]) => drawing("path", { d, stroke })));
  }

  /**
   * Draw into a picture of the canvas.
   * @param {HTMLCanvasElement} picture @param {import("./viewer.js").CineViewer} viewer
   * @param {number} frame @param {number} slice
   */
  paint(picture, viewer, frame, slice) {
    const context = picture.getContext("2d");
    const scale = picture.width / (viewer.view.canvas.clientWidth || 1);
    if (!context) return;
    context.lineWidth = 2 * scale;
    for (const [stroke, d] of this.paths(frame, slice, (place) => /** @type {[number, number]} */ (
      viewer.toScreen(place).map((at) => at * scale)))) {
      context.strokeStyle = stroke;
      context.stroke(new Path2D(d));
    }
  }
}
