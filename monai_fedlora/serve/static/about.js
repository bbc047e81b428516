/** Who the model is, and what it cannot do: shown before any answer. */

import { byId, element, message, sentence } from "./dom.js";

/** @param {import("./api.js").Model} model */
export function showModel(model) {
  byId("model-name").textContent = `Model ${model.name}`;
  byId("model-version").textContent = `version ${model.version}, SHA-256 ${model.sha256.slice(0, 12)}…`;
  byId("notice").textContent = model.notice;
  const { kind, summary } = model.trained_on;
  const synthetic = ["synthetic", "mixed"].includes(kind);
  byId("origin").textContent = `${synthetic ? "Not for real patients: this" : "This"} model was ${summary}.`;
  byId("origin").className = synthetic ? "origin notice" : kind === "real" ? "origin" : "origin warned";
  byId("warnings").replaceChildren(...model.warnings.map((warning) => message(warning)));
  document.title = `${model.name}: research only`;
  byId("drop-text").textContent = model.modality === "cine"
    ? "Drop a short-axis cine here: a DICOM folder, a zip archive or NIfTI files."
    : "Drop photographs here: JPEG, PNG or TIFF files.";
  byId("choose-folder").hidden = model.modality !== "cine";
  byId("accepts").textContent = `${model.accepts.join(", ")}; up to ${size(model.max_upload_bytes)} each.`;
  byId("files").accept = model.modality === "cine" ? "" : model.accepts.join(",");
  byId("about").append(
    element("p", { class: "lead" }, model.intended_use),
    element("p", {}, model.classes.length ? onlyClasses(model.classes) : model.gives),
    element("h3", {}, "Limits"),
    element("ul", { class: "limits" }, ...model.limits.map((limit) => element("li", {}, sentence(limit)))),
    element("h3", {}, "Model card"),
    card(model),
    ...(model.outlines && model.classes.length ? outlining(model.outlines) : []),
  );
}

/** @param {import("./api.js").Model} model the second one, which outlines the heart */
function outlining(model) {
  return [element("h3", {}, `The model of the outlines: ${model.name}`),
    element("p", {}, sentence(`It was ${model.trained_on.summary}`)),
    element("ul", { class: "limits" }, ...model.limits.map((limit) => element("li", {}, sentence(limit)))), card(model)];
}

/**
 * The limit that every answer has.
 * @param {string[]} classes
 */
export function onlyClasses(classes) {
  return `This model knows only ${listed(classes)}, and gives one of them to every image, also to one that is none of them.`;
}

/**
 * A number of bytes as people read it.
 * @param {number} bytes
 */
export function size(bytes) {
  return bytes >= 2 ** 30 ? `${+(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

/** @param {import("./api.js").Model} model */
function card(model) {
  const rows = Object.entries({ ...model.card, "SHA-256 of the model": model.sha256 });
  return element("dl", { class: "card" }, ...rows.map(([label, text]) =>
    element("div", { class: text.length > 60 ? "wide" : null }, element("dt", {}, label), element("dd", {}, text))));
}

/** @param {string[]} names */
function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
