/** The cine in NiiVue: frames, slices and the overlay, shown in the plane in which they were acquired. */

import { inPlane, inverse, product } from "./affine.js";

const SAME = 1e-6;
/** Whether this browser can draw volumes. */
export function canDraw() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

export class CineViewer {
  /**
   * Load a cine into a canvas.
   * @param {HTMLCanvasElement} canvas in the page
   * @param {string} address of a 4D NIfTI file
   * @param {AbortSignal} signal that breaks off whatever is being loaded, the overlay too
   * @returns {Promise<CineViewer>}
   */
  static async open(canvas, address, signal) {
    const library = await import("./vendor/niivue.js");
    const view = new library.Niivue({
      backColor: [0, 0, 0, 1], crosshairWidth: 0, interactive: false, dragAndDropEnabled: false, isColorbar: false,
      isOrientationTextVisible: false, loadingText: "", logLevel: "error", centerMosaic: true, tileMargin: 2,
      sliceType: library.SLICE_TYPE.AXIAL,
    });
    await view.attachToCanvas(canvas, false);
    try {
      const url = await bytes(address, signal);
      const volume = await library.NVImage.loadFromUrl({ url, name: "cine.nii.gz", colormap: "gray" });
      signal.throwIfAborted();
      return new CineViewer(library, view, volume, signal);
    } catch (error) {
      free(view);
      throw error;
    }
  }

  /** @param {any} library @param {any} view @param {any} volume @param {AbortSignal} signal */
  constructor(library, view, volume, signal) {
    this.library = library;
    this.signal = signal;
    this.view = view;
    this.volume = volume;
    this.overlay = null;
    [, , , this.slices, this.frames] = volume.hdr.dims;
    this.frames = Math.max(this.frames, 1);
    this.acquired = volume.hdr.affine;
    this.plane = inPlane(volume.hdr.pixDims);
    place(volume, this.plane);
    view.addVolume(volume);
    this.zoom = 1;
    /** @type {[number, number]} */
    this.centre = [0, 0];
    this.showSlice(Math.floor(this.slices / 2));
  }

  /**
   * Load the overlay; it is drawn once {@link showOverlay} says so.
   * @param {string} address of a 3D NIfTI file of colours with opacity, drawn as they are
   */
  async addOverlay(address) {
    const url = await bytes(address, this.signal);
    const overlay = await this.library.NVImage.loadFromUrl({ url, name: "overlay.nii.gz", opacity: 0 });
    this.signal.throwIfAborted();
    place(overlay, product(product(this.plane, inverse(this.acquired)), overlay.hdr.affine));
    this.view.addVolume(overlay);
    this.overlay = overlay;
  }

  /** Take the overlay away. */
  removeOverlay() {
    if (this.overlay) this.view.removeVolume(this.overlay);
    this.overlay = null;
  }

  /** @param {number} opacity in [0, 1]; 0 hides the overlay */
  showOverlay(opacity) {
    if (this.overlay) this.view.setOpacity(1, opacity);
  }

  /** @param {number} frame from 0 */
  showFrame(frame) {
    this.view.setFrame4D(this.volume.id, frame);
  }

  /** @param {number} slice from 0, as stored */
  showSlice(slice) {
    this.view.setSliceMosaicString("");
    this.view.scene.crosshairPos = [0.5, 0.5, (slice + 0.5) / this.slices];
    this.view.drawScene();
  }

  /** Show every slice at once. */
  showAll() {
    const { width, height } = this.view.canvas;
    const columns = columnsFor(this.slices, width / height, this.extent());
    const rows = [];
    for (let first = 0; first < this.slices; first += columns) {
      const row = Array.from({ length: Math.min(columns, this.slices - first) }, (_, index) => first + index);
      rows.push(row.map((slice) => (slice * this.plane[2][2]).toFixed(3)).join(" "));
    }
    this.view.setSliceMosaicString(`A ${rows.join(" ; ")}`);
  }

  /**
   * Show a part of the slice.
   * @param {number} zoom from 1
   * @param {[number, number]} centre mm to the right of and above the middle
   */
  look(zoom, centre) {
    [this.zoom, this.centre] = [zoom, centre];
    const { mnMM, mxMM } = this.view.screenFieldOfViewExtendedVox(this.library.SLICE_TYPE.AXIAL);
    const pan = centre.map((offset, axis) => {
      const middle = (mnMM[axis] + mxMM[axis]) / 2;
      return middle - zoom * (middle + offset);
    });
    this.view.setPan2Dxyzmm([...pan, 0, zoom]);
  }

  /** Width and height of a slice in mm. */
  extent() {
    return [this.plane[0][0] * this.volume.hdr.dims[1], -this.plane[1][1] * this.volume.hdr.dims[2]];
  }

  /** How many mm of a whole slice one pixel of the page shows. */
  millimetres() {
    const [width, height] = this.extent();
    return Math.max(width / this.view.canvas.clientWidth, height / this.view.canvas.clientHeight);
  }

  /** Columns and rows of a slice. */
  size() {
    return [this.volume.hdr.dims[1], this.volume.hdr.dims[2]];
  }

  /**
   * Where a place of the slice is drawn, in pixels of the page from the canvas's corner.
   * @param {[number, number]} place column and row
   * @returns {[number, number]}
   */
  toScreen([column, row]) {
    const [x, y] = this.steps();
    const [width, height] = this.extent();
    const scale = this.zoom / this.millimetres();
    const right = (column + 0.5) * x - width / 2 - this.centre[0];
    const up = height / 2 - (row + 0.5) * y - this.centre[1];
    return [this.view.canvas.clientWidth / 2 + right * scale, this.view.canvas.clientHeight / 2 - up * scale];
  }

  /**
   * While all slices are shown, for each of them where its places are drawn, as {@link toScreen} says of one slice.
   * @returns {((place: [number, number]) => [number, number])[]}
   */
  tiles() {
    const scale = this.view.canvas.clientWidth / this.view.canvas.width;
    const [columns, rows] = this.size();
    return this.view.screenSlices.map((/** @type {{leftTopWidthHeight: number[]}} */ { leftTopWidthHeight }) => {
      const [left, top, width, height] = leftTopWidthHeight.map((edge) => edge * scale);
      return (/** @type {[number, number]} */ [column, row]) =>
        [left + (width * (column + 0.5)) / columns, top + (height * (row + 0.5)) / rows];
    });
  }

  /**
   * The opposite of {@link toScreen}.
   * @param {[number, number]} at
   * @returns {[number, number]}
   */
  toImage([across, down]) {
    const [x, y] = this.steps();
    const [width, height] = this.extent();
    const scale = this.zoom / this.millimetres();
    const right = (across - this.view.canvas.clientWidth / 2) / scale + this.centre[0] + width / 2;
    const below = (down - this.view.canvas.clientHeight / 2) / scale - this.centre[1] + height / 2;
    return [right / x - 0.5, below / y - 0.5];
  }

  /**
   * The distance of two places of a slice in the patient, in words; in pixels where every voxel is said to be 1 mm wide
   * in all directions, as files say that do not know.
   * @param {[number, number]} one @param {[number, number]} other
   */
  distance(one, other) {
    const [columns, rows] = [other[0] - one[0], other[1] - one[1]];
    if (this.volume.hdr.pixDims.slice(1, 4).every((/** @type {number} */ step) => Math.abs(step - 1) < SAME)) {
      return `${Math.hypot(columns, rows).toFixed(1)} pixels (the file knows no size)`;
    }
    return `${Math.hypot(...this.acquired.slice(0, 3).map(([x, y]) => x * columns + y * rows)).toFixed(1)} mm`;
  }

  /** Width and height of a pixel of the slice as drawn, in mm. */
  steps() {
    return [this.plane[0][0], -this.plane[1][1]];
  }

  /** Darkest and brightest level there is, and those that are drawn from black to white at first. */
  levels() {
    const { global_min: darkest, global_max: brightest, cal_min: low, cal_max: high } = this.volume;
    return [darkest, brightest, low, high];
  }

  /** @param {number} low @param {number} high levels that are drawn from black to white */
  window(low, high) {
    [this.volume.cal_min, this.volume.cal_max] = [low, high];
    this.view.updateGLVolume();
  }

  /** Fit into a place whose size changed. */
  fit() {
    this.view.resizeListener();
  }

  /** Free what the graphics card holds. */
  close() {
    free(this.view);
  }
}

/** @param {string} address @param {AbortSignal} signal that breaks off @returns {Promise<ArrayBuffer>} the file there */
async function bytes(address, signal) {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
  return response.arrayBuffer();
}

/** @param {any} view whose place on the graphics card is given back */
function free(view) {
  view.cleanup();
  view.gl.getExtension("WEBGL_lose_context")?.loseContext();
}

/**
 * How many tiles side by side show a number of slices largest.
 * @param {number} slices @param {number} aspect width over height of the place
 * @param {number[]} extent width and height of a slice
 */
export function columnsFor(slices, aspect, [width, height]) {
  const scale = (/** @type {number} */ columns) =>
    Math.min(aspect / (columns * width), 1 / (Math.ceil(slices / columns) * height));
  let best = 1;
  for (let columns = 2; columns <= slices; columns += 1) if (scale(columns) > scale(best)) best = columns;
  return best;
}

/** @param {any} image @param {number[][]} affine */
function place(image, affine) {
  image.hdr.affine = affine;
  image.calculateRAS();
}
