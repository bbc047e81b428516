/**
 * Put the viewer, and the licences of what is in it, where the page looks for them.
 *
 * node build.mjs MODULES TARGET: MODULES is the node_modules folder of an `npm ci` here.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [modules, target] = process.argv.slice(2);
const VIEWER = join("@niivue", "niivue");
const OWN_LICENCE = new URL("niivue.licence.txt", import.meta.url);  // the package itself comes without its text
const RULE = `\n\n${"-".repeat(80)}\n\n`;

/** Write a file so that nobody reads half of one. */
function write(name, text) {
  writeFileSync(join(target, `.${name}`), text);
  renameSync(join(target, `.${name}`), join(target, name));
}

/** @param {string} name of a package @returns {any} its package.json */
function described(name) {
  return JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8"));
}

/** A package's name, version and licence. */
function licence(name) {
  const { version, license } = described(name);
  const texts = readdirSync(join(modules, name)).filter((file) => /^licen[cs]e/i.test(file));
  const sources = texts.length ? texts.map((file) => join(modules, name, file)) : name === VIEWER ? [OWN_LICENCE] : [];
  return [`${name} ${version}, ${license}`, ...sources.map((source) => readFileSync(source, "utf8").trim())].join("\n\n");
}

const installed = JSON.parse(readFileSync(join(modules, ".package-lock.json"), "utf8")).packages;
const names = Object.keys(installed).map((path) => path.replace(/^node_modules\//, ""));
mkdirSync(target, { recursive: true });
write("niivue.licences.txt", names.filter((name) => existsSync(join(modules, name))).map(licence).join(RULE));
const library = readFileSync(join(modules, VIEWER, "dist", "index.js"), "utf8");
write("niivue.js", library.replace(/^\/\/# sourceMappingURL=.*$/m, ""));
console.log(`${join(target, "niivue.js")}: NiiVue ${described(VIEWER).version}`);
