/** How a category looks: its motif, glyph, shape and colours. One that is not named here gets a stable look from its name. */

import { svg } from "./dom.js";
import { seeded } from "./seed.js";

const GLYPHS = {
  home: "M4 11.5 12 4.5l8 7M6.5 10v9h11v-9M10.2 19v-5h3.6v5",
  food: "M4.5 12.5h15a7.5 7.5 0 0 1-15 0ZM9 9.5c-1-1.5 1-2.5 0-4M13 9.5c-1-1.5 1-2.5 0-4",
  garden: "M12 20v-9M12 14c-4.5 0-6.5-2.5-6.5-6.5C10 7.5 12 10 12 14ZM12 11.5c0-4 2.2-6.5 6.5-6.5 0 4.3-2.5 6.5-6.5 6.5Z",
  fashion: "M12 8.5V8a2 2 0 1 0-2-2M12 8.5 4 15c-1 .8-.5 2.5.8 2.5h14.4c1.3 0 1.8-1.7.8-2.5Z",
  travel: "M3.5 18.5 9.5 7l4 7.5 2-3 5 7ZM16.8 7.2a1.6 1.6 0 1 0 0-.1",
  craft: "M8.5 8.5 19 19M15.5 8.5 5 19M8.8 6.5a2.3 2.3 0 1 1-4.6 0 2.3 2.3 0 0 1 4.6 0ZM19.8 6.5a2.3 2.3 0 1 1-4.6 0 2.3 2.3 0 0 1 4.6 0Z",
};
const OTHER = "M12 3.5c4 0 6.5 2.9 6.5 6.4C18.5 14.5 12 20.5 12 20.5S5.5 14.5 5.5 9.9c0-3.5 2.5-6.4 6.5-6.4ZM14.2 10a2.2 2.2 0 1 1-4.4 0 2.2 2.2 0 0 1 4.4 0Z";

// Points on the map: at least 3:1 against the paper, in light and in dark. Shapes tell them apart without colour.
const LOOKS = {
  home: { motif: "arches", shape: "square", light: "#3a5a8c", dark: "#8fb2ea" },
  food: { motif: "plates", shape: "circle", light: "#b8452f", dark: "#f08f78" },
  garden: { motif: "leaves", shape: "triangle", light: "#2f7350", dark: "#77c99a" },
  fashion: { motif: "drape", shape: "diamond", light: "#8a3f78", dark: "#dc9bcb" },
  travel: { motif: "hills", shape: "plus", light: "#0f7285", dark: "#6cc5d8" },
  craft: { motif: "quilt", shape: "star", light: "#8a6100", dark: "#e2b84f" },
};
const SPARE = [
  { motif: "quilt", shape: "hexagon", light: "#5a4fb0", dark: "#aaa2f2" },
  { motif: "hills", shape: "ring", light: "#a03a55", dark: "#f094aa" },
  { motif: "plates", shape: "bowtie", light: "#4c6b1f", dark: "#a9cc70" },
  { motif: "drape", shape: "bar", light: "#5c5f66", dark: "#b4b8c0" },
];

/** `{motif, shape, light, dark}` of a category. */
export function look(category) {
  return LOOKS[category] ?? SPARE[Math.floor(seeded(category)() * SPARE.length)];
}

/** A category's line drawing, 24 units wide. */
export function glyph(category, className = "glyph") {
  return svg("svg", { viewBox: "0 0 24 24", class: className, "aria-hidden": "true" }, svg("path", { d: GLYPHS[category] ?? OTHER }));
}
