/** The area of blood or a volume over the beat, with end-diastole, end-systole and the frame that is shown. */

import { drawing } from "./dom.js";
import { frameText } from "./frames.js";

const WIDTH = 320;
const HEIGHT = 130;
const EDGE = { left: 12, right: 12, top: 26, bottom: 24 };

/**
 * Draw the curve.
 * @param {{ed: number, es: number, areas: number[], trigger_ms?: number[] | null}} frames from 0
 * @param {{what?: string, fromZero?: boolean}} [options] what the curve shows, and whether it starts at 0
 * @returns {{svg: SVGElement, mark: (frame: number) => void}} the drawing, and how to move its line to a frame
 */
export function areaCurve({ ed, es, areas, trigger_ms: times }, { what = "Area of blood", fromZero = false } = {}) {
  const [low, high] = [fromZero ? 0 : Math.min(...areas), Math.max(...areas)];
  const across = (WIDTH - EDGE.left - EDGE.right) / Math.max(areas.length - 1, 1);
  const base = HEIGHT - EDGE.bottom;
  const x = (/** @type {number} */ frame) => EDGE.left + across * frame;
  const y = (/** @type {number} */ frame) =>
    base - (base - EDGE.top) * (high > low ? (areas[frame] - low) / (high - low) : 0.5);
  const points = areas.map((_, frame) => `${x(frame).toFixed(1)},${y(frame).toFixed(1)}`).join(" ");
  const line = drawing("line", { class: "now", x1: x(0), x2: x(0), y1: EDGE.top - 8, y2: base });
  const svg = drawing("svg", {
    class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${what} over ${areas.length} frames: end-diastole at frame ${frameText(ed, times)}, `
      + `end-systole at frame ${frameText(es, times)}.`,
  },
  drawing("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: base, y2: base }),
  line,
  drawing("polyline", { class: "area", points }),
  ...marked("ED", ed), ...marked("ES", es),
  text(frameText(0, times), x(0), base + 16, "start"),
  text(frameText(areas.length - 1, times), x(areas.length - 1), base + 16, "end"),
  text("frame", WIDTH / 2, base + 16, "middle"));
  return {
    svg,
    mark: (frame) => {
      for (const name of ["x1", "x2"]) line.setAttribute(name, String(x(frame)));
    },
  };

  /** @param {string} name @param {number} frame */
  function marked(name, frame) {
    const shape = name === "ED"
      ? drawing("circle", { class: "mark", cx: x(frame), cy: y(frame), r: 5 })
      : drawing("rect", { class: "mark", x: x(frame) - 4.5, y: y(frame) - 4.5, width: 9, height: 9 });
    const anchor = frame < areas.length / 8 ? "start" : frame > (7 * areas.length) / 8 ? "end" : "middle";
    return [shape, text(`${name} ${frame + 1}`, x(frame), y(frame) - 10, anchor)];
  }
}

/** @param {string} written @param {number} x @param {number} y @param {string} anchor */
function text(written, x, y, anchor) {
  return drawing("text", { x, y, "text-anchor": anchor }, written);
}
