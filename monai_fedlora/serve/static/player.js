/** Playing a cine at a chosen speed. */

import { button } from "./controls.js";
import { element } from "./dom.js";

const FASTEST = 40;  // frames a second that are drawn
const USUAL_BEAT = 1000;  // milliseconds, where the file does not say
const SPEEDS = [["0.25", "a quarter"], ["0.5", "half"], ["1", "normal"], ["2", "double"]];

export class Player {
  /** @param {() => void} step shows the next frame */
  constructor(step) {
    this.step = step;
    this.timer = 0;
    this.interval = USUAL_BEAT / 20;
    this.play = button("Play", () => (this.timer ? this.stop() : this.start()));
    this.speed = element("select", { change: () => this.timer && this.start() },
      ...SPEEDS.map(([value, label]) => element("option", { value, selected: value === "1" }, label)));
    this.speedLabel = element("label", {}, element("span", {}, "Speed"), this.speed);
  }

  /** @param {number} frames @param {number[] | null} times ms of each, if known: then normal is how the heart beat */
  begin(frames, times) {
    const beat = times && frames > 1 ? ((times[frames - 1] - times[0]) * frames) / (frames - 1) : USUAL_BEAT;
    this.interval = Math.max(beat, 1) / frames;
    this.play.disabled = this.speed.disabled = frames < 2;
  }

  start() {
    window.clearInterval(this.timer);
    const wanted = this.interval / Number(this.speed.value);
    this.timer = window.setInterval(() => this.step(), Math.max(wanted, 1000 / FASTEST));
    this.play.textContent = "Pause";
  }

  stop() {
    window.clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = "Play";
  }
}
