/** End-diastole beside end-systole: two pictures of one slice, drawn one after the other by the same viewer. */

import { element } from "./dom.js";

export class Pair {
  constructor() {
    this.pictures = ["ED", "ES"].map(() => element("canvas", { "aria-hidden": "true" }));
    this.names = ["left", "right"].map((side) => element("span", { class: `phase ${side}` }));
    this.node = element("div", { class: "pair", hidden: true }, ...this.pictures, ...this.names);
  }

  /**
   * Draw both.
   * @param {import("./viewer.js").CineViewer} viewer
   * @param {[string, number][]} frames name and number from 0
   * @param {(picture: HTMLCanvasElement, frame: number) => void} finish draws upon a picture
   */
  draw(viewer, frames, finish) {
    frames.forEach(([name, frame], index) => {
      const picture = this.pictures[index];
      viewer.showFrame(frame);
      viewer.view.drawScene();
      [picture.width, picture.height] = [viewer.view.canvas.width, viewer.view.canvas.height];
      picture.getContext("2d").drawImage(viewer.view.canvas, 0, 0);  // before the browser clears it
      finish(picture, frame);
      this.names[index].textContent = name;
    });
  }
}
