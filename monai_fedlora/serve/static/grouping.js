/** Which files belong to one study: each is sent by itself. */

/**
 * @typedef {{file: File, path: string}} Item a file, and its path within what was dropped or chosen
 */

const ALONE = /\.(zip|jpe?g|png|tiff?)$/i;
const NIFTI = /\.nii(\.gz)?$/i;
const PAIR = /^(.+)_(ed|es)\.nii(\.gz)?$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/i;

/**
 * Divide files into studies. A zip archive, a photograph and a NIfTI file are a study each, two NIfTI files called
 * *_ed and *_es are one, and everything else in one folder that was dropped is the DICOM study of that folder.
 * @param {Item[]} items
 * @returns {{name: string, items: Item[]}[]} in the order in which they were given
 */
export function studiesOf(items) {
  /** @type {Map<string, {name: string, items: Item[]}>} */
  const groups = new Map();
  for (const item of items.filter(({ path }) => !HIDDEN.test(path))) {
    const { key, name } = place(item.path);
    const group = groups.get(key) ?? { name, items: [] };
    group.items.push(item);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** @param {string} path @returns {{key: string, name: string}} */
function place(path) {
  const pair = PAIR.exec(path);
  if (pair) return { key: `pair ${pair[1].toLowerCase()}`, name: last(pair[1]) };
  if (ALONE.test(path) || NIFTI.test(path)) return { key: `file ${path}`, name: last(path) };
  const folder = path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
  return { key: `folder ${folder}`, name: folder || last(path) };
}

/** @param {string} path */
function last(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}
