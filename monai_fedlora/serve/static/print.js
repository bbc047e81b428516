/** What paper needs: the pictures of the viewer, which a browser does not print by itself, and when and by which model. */

import { byId, element } from "./dom.js";

let written = -1;  // place of the rule with the heading

/**
 * Get ready whenever the page is printed.
 * @param {() => import("./study.js").StudyPanel | null} shown the study that is shown
 */
export function watchPrinting(shown) {
  window.addEventListener("beforeprint", () => {
    byId("printed").textContent = `Printed ${new Date().toLocaleString([], { dateStyle: "long", timeStyle: "short" })}`;
    const panel = shown();
    document.body.classList.toggle("has-study", panel !== null);
    heading(panel ? `${panel.latest.name} (${panel.latest.short_id})` : "");
    for (const canvas of panel?.cine?.repaint() ?? []) copy(canvas);
    const viewer = document.querySelector(".viewer");
    if (panel?.cine && viewer) viewer.append(element("p", { class: "still caption" }, panel.cine.caption()));
  });
  window.addEventListener("afterprint", () => {
    for (const still of document.querySelectorAll(".still")) still.remove();
  });
}

/**
 * Write above every page what the sheet is of.
 * @param {string} text
 */
function heading(text) {
  const sheet = [...document.styleSheets].find(({ href }) => href?.endsWith("print.css"));
  if (!sheet) return;
  if (written >= 0) sheet.deleteRule(written);
  const quoted = [...text].map((sign) => `\\${sign.codePointAt(0)?.toString(16)} `).join("");
  written = sheet.insertRule(`@page { @top-left { content: "${quoted}"; font: 600 9pt sans-serif; } }`, sheet.cssRules.length);
}

/**
 * Lay a still picture over a canvas whose content is gone once it is on the screen.
 * @param {HTMLCanvasElement} canvas drawn just now
 */
function copy(canvas) {
  const still = element("canvas", { class: "still", width: canvas.width, height: canvas.height, "aria-hidden": "true" });
  still.getContext("2d").drawImage(canvas, 0, 0);
  canvas.after(still);
}
