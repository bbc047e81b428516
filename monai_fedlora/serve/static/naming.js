/** What the chosen study is called, and how its reader calls it otherwise. */

import { element, message } from "./dom.js";

const LONGEST = 60;  // characters, as the server takes them

export class NamePlate {
  /** @param {(name: string) => Promise<string>} rename gives what went wrong, or "" */
  constructor(rename) {
    this.rename = rename;
    this.heading = element("h2", { tabindex: -1, id: "study-heading" });
    this.shortId = element("span", { class: "short-id" });
    this.field = element("input", {
      type: "text", id: "study-name", maxlength: LONGEST, autocomplete: "off", spellcheck: "false", required: true,
    });
    this.trouble = element("div", { role: "alert" });
    this.form = element("form", { class: "naming", hidden: true, submit: (/** @type {Event} */ event) => this.save(event) },
      element("label", { for: "study-name" }, "Name, or a pseudonym"), this.field,
      element("div", { class: "buttons" }, element("button", { class: "primary" }, "Use this name"),
        element("button", { type: "button", click: () => this.toggle(false) }, "Cancel")),
      element("p", { class: "quiet" }, "It stands on the page, on figures, on print and in the names of all files that are "
        + "taken away, DICOM files too. Where those may leave the hospital, choose one that names nobody."),
      this.trouble);
    this.button = element("button", { type: "button", id: "rename", class: "small", click: () => this.toggle(true) }, "Rename");
    this.node = element("div", { class: "name-plate" },
      element("div", { class: "row" }, this.heading, this.shortId, this.button), this.form);
  }

  /** @param {import("./api.js").Study} study */
  show({ name, short_id: shortId }) {
    this.heading.textContent = name;
    this.shortId.textContent = shortId;
    if (this.form.hidden) this.field.value = name;
  }

  /** @param {boolean} open */
  toggle(open) {
    this.form.hidden = !open;
    this.button.hidden = open;
    this.trouble.replaceChildren();
    if (open) this.field.select();
    else this.button.focus();
  }

  /** @param {Event} event */
  async save(event) {
    event.preventDefault();
    const trouble = await this.rename(this.field.value);
    if (trouble) this.trouble.replaceChildren(message(trouble));
    else this.toggle(false);
  }
}
