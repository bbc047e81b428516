/** The places that an answer hangs on: a switch, how opaque they are, and what their colours mean. */

import { labelled, slider } from "./controls.js";
import { element } from "./dom.js";
import { legend } from "./legend.js";

const NO_DISEASE = "It does not show whether that is a sign of disease.";
const WAITS = "The overlay is not there yet.";

export class Overlay {
  /**
   * @param {import("./api.js").Scale} scale of the colours
   * @param {(opacity: number) => void} show draws it; 0 hides it, 1 is as in the figure
   */
  constructor(scale, show) {
    this.show = show;
    this.address = this.means = this.begun = "";
    this.legend = legend(scale);
    this.shown = element("input", { type: "checkbox", change: () => this.blend() });
    this.opacity = slider(0.1, 1, 0.05, () => this.blend());
    this.opacity.value = "1";
    this.text = element("p", { class: "quiet" });
    this.node = element("div", { class: "overlay" },
      element("div", { class: "row" }, labelled("Show the places the answer hangs on", this.shown, "after"),
        labelled("Opacity", this.opacity)),
      this.legend, this.text);
    this.forget(WAITS);
  }

  /**
   * Take over what an answer has.
   * @param {string} address @param {string} means what its colours say, in words
   * @param {{addOverlay: (address: string) => Promise<void>, removeOverlay: () => void} | null} viewer null before it is
   *   there
   */
  async take(address, means, viewer) {
    [this.address, this.means] = [address, means];
    if (!viewer || this.begun === address) return;
    this.begun = address;
    await viewer.addOverlay(address);
    if (this.address !== address) {  // of an answer that is gone by now
      viewer.removeOverlay();
      return;
    }
    this.text.textContent = `${means} ${NO_DISEASE}`;
    this.legend.hidden = this.shown.disabled = false;
    this.blend();
  }

  /** There is none (any more). @param {string} [why] */
  forget(why = WAITS) {
    this.address = this.means = this.begun = "";
    this.text.textContent = why;
    this.legend.hidden = this.shown.disabled = true;
    this.shown.checked = false;
    this.blend();
  }

  /** Draw it as switch and slider say. */
  blend() {
    this.opacity.disabled = !this.shown.checked;
    this.show(this.shown.checked ? Number(this.opacity.value) : 0);
  }
}
