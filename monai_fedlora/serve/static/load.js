/** The place where studies come in: dropped, or chosen with a button. */

import { byId } from "./dom.js";

/**
 * Watch the drop zone and the file choosers.
 * @param {(items: import("./grouping.js").Item[]) => void} receive
 */
export function watchLoading(receive) {
  for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
    const chooser = byId(input);
    byId(button).addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      receive([...chooser.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      chooser.value = "";
    });
  }
  const zone = byId("drop");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault());
  }
  document.addEventListener("dragover", () => zone.classList.add("over"));
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    zone.classList.remove("over");
    if (event.dataTransfer) receive(await dropped(event.dataTransfer));
  });
}

/** @param {DataTransfer} transfer @returns {Promise<import("./grouping.js").Item[]>} */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  return (await Promise.all(entries.map((entry) => walked(entry)))).flat();
}

/** @param {any} entry a FileSystemEntry @returns {Promise<import("./grouping.js").Item[]>} */
async function walked(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {  // a reader gives about a hundred entries at a time
    /** @type {any[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map((inner) => walked(inner)))).flat();
}
