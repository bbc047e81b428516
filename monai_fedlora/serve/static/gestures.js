/** What keys, wheel and pointer do to a cine. */

/**
 * Listeners for the canvas of a panel.
 * @param {import("./cine.js").CinePanel} panel
 * @returns {Record<string, (event: any) => void>} by event
 */
export function gestures(panel) {
  return {
    keydown: (event) => key(panel, event),
    wheel: (event) => wheel(panel, event),
    pointerdown: (event) => panel.canvas.setPointerCapture(event.pointerId),
    pointermove: (event) => drag(panel, event),
  };
}

/** @param {import("./cine.js").CinePanel} panel @param {KeyboardEvent} event */
function key(panel, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (panel.caliper.key(event) || panel.zoom.key(event)) {
    event.preventDefault();
    return;
  }
  const frames = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const slices = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (frames && !panel.frameSlider.disabled) panel.go((panel.frame ?? 0) + frames);
  if (slices && !panel.sliceSlider.disabled) panel.showSlice(Number(panel.sliceSlider.value) + slices);
  if (frames || slices) event.preventDefault();
}

/** @param {import("./cine.js").CinePanel} panel @param {PointerEvent} event */
function drag(panel, event) {
  if (!panel.canvas.hasPointerCapture(event.pointerId)) return;
  if (panel.drags === "contrast") panel.contrast.drag(event.movementX, event.movementY);
  else if (panel.drags === "move" && !panel.zoom.slider.disabled) panel.zoom.drag(event.movementX, event.movementY);
}

/** @param {import("./cine.js").CinePanel} panel @param {WheelEvent} event */
function wheel(panel, event) {
  if (panel.sliceSlider.disabled || event.ctrlKey) return;  // Ctrl and the wheel enlarge the page
  event.preventDefault();
  panel.showSlice(Number(panel.sliceSlider.value) + Math.sign(event.deltaY));
}
