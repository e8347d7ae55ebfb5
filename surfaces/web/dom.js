/** Elements in one call. Text is always set as text, never as markup, and styles only through classes and the CSSOM. */

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: attributes by name, `on` with listeners, `style` with CSSOM properties; null and false leave an attribute out. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG; numbers are rounded to a tenth. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, typeof value === "number" ? Math.round(value * 10) / 10 : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

export const find = (selector, root = document) => root.querySelector(selector);

/** True where the person asked for less motion. */
export const stillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const polite = () => find("#said");

/** Say something to people who listen to the page. */
export function say(words) {
  polite().textContent = words;
}

/** A short word at the bottom of the page that goes by itself. */
export function toast(words, kind = "") {
  const note = el("p", { class: `toast ${kind}` }, words);
  find("#toasts").append(note);
  setTimeout(() => note.remove(), 5000);
}
