/** The chosen study: limits, doubts, answer, images, downloads. */

import { onlyClasses } from "./about.js";
import { answerBox, notesBox, stateBox } from "./answer.js";
import { CinePanel } from "./cine.js";
import { areaCurve } from "./curve.js";
import { element, message, sentence } from "./dom.js";
import { downloads, figure, imagesHeading, missing, onPaper, photograph } from "./figures.js";
import { frameText } from "./frames.js";
import { heartBox } from "./heart.js";
import { FINAL, stateText } from "./list.js";
import { NamePlate } from "./naming.js";
import { numbersBox } from "./numbers.js";
import { OpinionBox } from "./opinion.js";
import { PhaseChooser } from "./phases.js";
import { PhotoPanel } from "./photo.js";
import { canDraw } from "./viewer.js";

export class StudyPanel {
  /**
   * @param {HTMLElement} place where it is shown
   * @param {import("./api.js").Model} model
   * @param {string} id
   * @param {{remove: () => void, rename: (name: string) => Promise<string>,
   *   give: (opinion: import("./api.js").Opinion & {answer: number}) => Promise<string>,
   *   again: (ed: number, es: number) => Promise<string>}} actions the last three give what went wrong, or ""
   */
  constructor(place, model, id, { remove, rename, give, again }) {
    this.again = again;
    this.model = model;
    this.id = id;
    this.place = place;
    this.loading = new AbortController();  // broken off once the panel is closed
    this.name = new NamePlate(rename);
    this.heading = this.name.heading;
    this.state = element("div", {});
    this.said = element("div", {});
    this.frames = element("div", {});
    this.images = element("section", { class: "images", "aria-labelledby": "images-heading" });
    this.opinion = new OpinionBox(model.keeps_feedback, give);
    this.rest = element("div", {});
    this.answer = element("div", {});
    this.heart = element("div", {});
    this.columns = element("div", { class: "columns", hidden: true },
      this.images, element("div", { class: "column" }, this.answer, this.heart, this.frames, this.rest, this.opinion.node));
    this.paper = element("div", { class: "on-paper" });
    /** @type {CinePanel | null} */
    this.cine = null;
    /** @type {PhotoPanel | null} */
    this.photo = null;
    /** @type {(frame: number) => void} */
    this.mark = this.markVolume = () => {};
    /** @type {PhaseChooser | null} */
    this.phases = null;
    this.trouble = this.opened = "";
    this.written = new Map();
    place.setAttribute("aria-labelledby", "study-heading");
    place.replaceChildren(
      element("div", { class: "study-head" }, this.name.node,
        element("button", { type: "button", id: "remove", class: "danger", click: remove }, "Remove this study")),
      this.state, this.said, this.columns, this.paper);
    place.hidden = false;
  }

  /**
   * Show what is known by now; parts that did not change stay untouched.
   * @param {import("./api.js").Study} study
   */
  update(study) {
    const { state, error, result, files } = study;
    this.latest = study;
    this.name.show(study);
    this.phases?.finished(FINAL.has(state));
    this.put(this.state, [state, error], () => [
      state === "failed" ? message(error ?? "This study could not be classified.") : null,
      FINAL.has(state) ? null : element("p", { class: "quiet" }, sentence(stateText(state)))]);
    if (!result) {
      if (!this.columns.hidden) this.withoutAnswer(study);
      return;
    }
    this.columns.hidden = false;
    this.put(this.said, [result.state, result.doubts], () => [stateBox(result, this.model), this.model.classes.length ? this.limits() : null]);
    this.put(this.answer, [result.probabilities, result.stability, result.numbers], () => [
      result.probabilities ? answerBox(result) : null, result.numbers ? numbersBox(result.numbers) : null]);
    this.put(this.heart, result.heart, () => this.heartOf(result));
    this.opinion.show(study);
    this.put(this.frames, [result.frames, study.can_choose_frames], () => this.framesOf(result.frames));
    this.put(this.rest, [result.notes, files], () => [notesBox(result, this.model), downloads(files)]);
    if (this.model.modality === "cine") this.showCine(state, result, files);
    else this.showPhotograph(state, result, files);
  }

  /**
   * Take away all that the answer of before has left, while another is computed or when it could not be.
   * @param {import("./api.js").Study} study
   */
  withoutAnswer(study) {
    const { state, chosen } = study;
    this.opinion.show(study);
    this.put(this.paper, null, () => []);
    for (const place of [this.said, this.answer, this.heart, this.rest]) this.put(place, null, () => []);
    if (chosen) {
      this.put(this.frames, [chosen, FINAL.has(state)], () => [framesHeading(),
        element("p", {}, `ED frame ${chosen.ed + 1} and ES frame ${chosen.es + 1} were chosen. The answer of before is gone.`),
        state === "failed" && this.phases ? this.phases.node : null]);
    }
    if (this.cine) this.cine.forgetAnswer();
    else this.put(this.images, [], () => [imagesHeading(), missing(state)]);
  }

  /** Stop what runs and what is still loaded, before another study is shown or this one is removed. */
  close() {
    this.loading.abort();
    this.cine?.close();
    for (const picture of this.place.querySelectorAll("img")) picture.removeAttribute("src");
  }

  /** @param {Element} place @param {any} content @param {() => (Node | null)[]} build */
  put(place, content, build) {
    const now = JSON.stringify(content ?? null);
    if (this.written.get(place) === now) return;
    this.written.set(place, now);
    place.replaceChildren(...build().filter((node) => node !== null));
  }

  limits() {
    return element("p", { class: "reminder" }, `${onlyClasses(this.model.classes)} `,
      element("a", { href: "#about-heading" }, "All limits of this model"));
  }

  /** @param {import("./api.js").Result} result */
  heartOf({ heart, frames }) {
    if (!heart) return [];
    const { node, mark } = heartBox(heart, frames?.trigger_ms ?? null);
    this.markVolume = mark;
    return [node];
  }

  /** @param {import("./api.js").Frames | null} frames */
  framesOf(frames) {
    if (!frames) return [];
    const heading = framesHeading();
    if (frames.ed === undefined || frames.es === undefined || !frames.areas) {
      return [heading, element("p", {}, "The two frames were given as two files; nothing was searched.")];
    }
    const { ed, es, areas, trigger_ms: times } = frames;
    const curve = areaCurve({ ed, es, areas, trigger_ms: times });
    this.mark = curve.mark;
    this.phases = this.latest.can_choose_frames
      ? new PhaseChooser({ ed, es }, areas.length, (one, other) => this.again(one, other)) : null;
    this.phases?.finished(FINAL.has(this.latest.state));
    return [heading,
      element("p", {}, `End-diastole (ED) is frame ${frameText(ed, times)}, end-systole (ES) frame `
        + `${frameText(es, times)}, of ${areas.length} frames.`),
      element("figure", {}, curve.svg, element("figcaption", { class: "quiet" }, "Area of blood over the frames, found "
        + `without a mask. ${frames.found ? `The program had found frame ${frameText(frames.found[0], times)} for ED and frame `
        + `${frameText(frames.found[1], times)} for ES. ` : ""}Look at both frames: a wrong one makes the answer wrong.`)),
      element("p", { class: frames.by_person ? "reminder" : "quiet" }, sentence(frames.how)), this.phases && this.phases.node];
  }

  /** @param {string} state @param {import("./api.js").Result} result @param {Record<string, string>} files */
  showCine(state, result, files) {
    const why = this.trouble || (this.model.viewer ? (canDraw() ? "" : "This browser cannot draw volumes (it has no WebGL 2).")
      : "The viewer is not installed on this server (make web fetches it).");
    if (why || !files.volume) {
      this.put(this.images, [why, state, files.figure], () => figure(files, state, result, why));
      return;
    }
    if (!this.cine) {
      this.cine = new CinePanel(result.frames ?? { how: "" }, this.model.overlay, {
        moved: (frame) => { this.mark(frame); this.markVolume(frame); },
        suggest: this.phases && ((name, frame) => this.phases?.set(name, frame)),
      });
    } else if (result.frames) this.cine.setFrames(result.frames);
    this.cine.setMeasured(result.heart?.frames ?? null);
    if (this.opened !== files.volume) {
      this.opened = files.volume;
      this.images.replaceChildren(imagesHeading(), this.cine.node);
      this.cine.open(files.volume, this.loading.signal).catch((reason) => this.failed(reason));
    }
    if (files.contours) this.cine.addContours(files.contours, this.loading.signal).catch((reason) => this.failed(reason));
    if (files.overlay && result.overlay) {
      this.cine.addOverlay(files.overlay, result.overlay).catch((reason) => this.failed(reason));
    } else if (state === "done") this.cine.withoutOverlay(result.overlay || (result.probabilities ? "There is no overlay for this study." : "Without a class there is no overlay."));
    this.cine.showDirections(result.orientation === "known");
    this.put(this.paper, files.figure, () => [onPaper(files, result)]);
  }

  /** @param {string} state @param {import("./api.js").Result} result @param {Record<string, string>} files */
  showPhotograph(state, result, files) {
    if (files.image) this.photo ??= new PhotoPanel(files.image);
    if (files.outline) this.photo?.outline(files.outline);
    this.put(this.images, [state, files.image, files.figure], () => [imagesHeading(), this.photo?.node ?? null, photograph(files, state, result)]);
  }

  /** @param {any} reason */
  failed(reason) {
    if (this.loading.signal.aborted) return;
    this.cine?.close();
    this.trouble = `The viewer could not show the images (${reason?.message ?? reason}).`;
    this.update(this.latest);
  }
}

function framesHeading() {
  return element("h3", {}, "End-diastole and end-systole");
}
