/** What the colours of the overlay mean: one scale in percentage points, the same as in the figure. */

import { element } from "./dom.js";

/**
 * Draw the scale on a grey level, as the colours lie on an image.
 * @param {import("./api.js").Scale} scale
 */
export function legend({ colours, threshold, full, unit }) {
  const stops = colours.map(({ points, rgba: [red, green, blue, opacity] }) => {
    const at = (50 + (50 * points) / full).toFixed(1);
    return [points, `rgb(${red} ${green} ${blue} / ${(opacity / 255).toFixed(3)}) ${at}%`, at];
  });
  const below = stops.filter(([points]) => points < 0);
  const above = stops.filter(([points]) => points > 0);
  const gap = `transparent ${below[below.length - 1][2]}%, transparent ${above[0][2]}%`;
  const bar = element("span", { class: "scale", "aria-hidden": "true" });
  bar.style.backgroundImage = `linear-gradient(to right, ${[...below.map(([, stop]) => stop), gap,
    ...above.map(([, stop]) => stop)].join(", ")})`;
  return element("div", { class: "legend" }, bar,
    element("span", {}, `against: ${full} ${unit} and more`),
    element("span", { class: "middle" }, `less than ${threshold}: no colour`),
    element("span", { class: "end" }, `for: ${full} and more`));
}
