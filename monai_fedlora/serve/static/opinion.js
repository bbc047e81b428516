/** Whether the reader agrees with the answer; kept where whoever runs the server wants it. */

import { element, message } from "./dom.js";

const LONGEST = 500;  // characters, as the server takes them

export class OpinionBox {
  /**
   * @param {boolean} isKept whether the server keeps opinions
   * @param {(content: import("./api.js").Opinion & {answer: number}) => Promise<string>} give gives what went wrong
   */
  constructor(isKept, give) {
    this.isKept = isKept;
    this.give = give;
    this.trouble = element("div", { role: "alert" });
    this.node = element("section", { class: "opinion", "aria-labelledby": "opinion-heading", hidden: true });
  }

  /** @param {import("./api.js").Study} study */
  show({ result, opinion, answer, state }) {
    this.node.hidden = !result?.probabilities || state !== "done";
    const now = JSON.stringify([answer, result?.prediction, result?.undecided, opinion]);
    if (this.node.hidden || this.shown === now) return;
    this.shown = now;
    this.node.replaceChildren(
      element("h3", { id: "opinion-heading" }, "Do you agree?"),
      ...(this.isKept ? this.asked(/** @type {any} */ (result), answer, opinion) : [element("p", { class: "quiet" },
        "This server keeps no opinions. Started with --feedback FOLDER it does, so that a site can measure how often its "
        + "readers agree.")]));
  }

  /** @param {import("./api.js").Result} result @param {number} answer @param {import("./api.js").Opinion | null} opinion */
  asked({ prediction, probabilities, undecided }, answer, opinion) {
    const others = Object.keys(probabilities).filter((name) => name !== prediction);
    const reason = element("textarea", { id: "opinion-reason", rows: 2, maxlength: LONGEST, required: true });
    const instead = element("select", { id: "opinion-instead" }, element("option", { value: "" }, "not said"),
      ...others.map((name) => element("option", { value: name }, name)));
    const send = async (/** @type {{opinion: string, because: string, instead: string}} */ content) => {
      const wrong = await this.give({ ...content, answer });
      this.trouble.replaceChildren(...(wrong ? [message(wrong)] : []));
    };
    const form = element("form", { class: "naming", hidden: true, submit: (/** @type {Event} */ event) => {
      event.preventDefault();
      void send({ opinion: "disagree", because: reason.value, instead: instead.value });
    } },
    element("label", { for: "opinion-reason" }, "I disagree, because … (write nothing that names somebody)"), reason,
    element("label", { for: "opinion-instead" }, "The class would be"), instead,
    element("div", { class: "buttons" }, element("button", { class: "primary" }, "Keep that I disagree")));
    const disagree = element("button", { type: "button", id: "disagree", "aria-expanded": "false", click: () => {
      form.hidden = !form.hidden;
      disagree.setAttribute("aria-expanded", String(!form.hidden));
      if (!form.hidden) reason.focus();
    } }, "Disagree, because …");
    return [
      element("p", {}, `${undecided ? `The model does not choose. Would its most probable class, ${prediction}, be right?`
        : `Is ${prediction} right?`} What you say stays on this server, under the study's pseudonym, or else `
        + "under its sign."),
      opinion ? element("p", { class: "kept" }, kept(opinion, prediction)) : null,
      element("div", { class: "buttons" }, element("button", { type: "button", id: "agree", click: () =>
        send({ opinion: "agree", because: "", instead: "" }) }, "Agree"), disagree),
      form, this.trouble,
    ].filter((node) => node !== null);
  }
}

/** @param {import("./api.js").Opinion} opinion @param {string} prediction */
function kept({ opinion, instead, because }, prediction) {
  if (opinion === "agree") return `Kept: you agree with ${prediction}.`;
  return `Kept: you disagree with ${prediction}${instead ? ` (${instead} instead)` : ""}, because ${because}`;
}
