/** The picture of a pin: its image where it has one, else a drawing made from its id and category, the same every time. */

import { glyph, look } from "./categories.js";
import { el, svg } from "./dom.js";
import { MOTIFS } from "./motifs.js";
import { pick, seeded } from "./seed.js";

const WIDTH = 300;
const RATIOS = [0.78, 0.95, 1.12, 1.3, 1.45];

// Ground, dark, accent, accent, light.
const PALETTES = {
  leaves: [
    ["#e3ead6", "#2f5d46", "#7ea172", "#dcb44f", "#f5f0e1"],
    ["#dbe7e0", "#1f4d3a", "#5f8f6b", "#e8a598", "#f7f3e8"],
    ["#f3e7d0", "#486b3c", "#a3b46c", "#cf7650", "#fffaf0"],
    ["#23443a", "#0f2a22", "#6f9d7c", "#e0b565", "#efe7d0"],
  ],
  plates: [
    ["#f8e1c8", "#c8553d", "#e9a23b", "#5f8a5a", "#fff8ec"],
    ["#f0d5bd", "#8f2d2d", "#df7e4a", "#f2c879", "#fffaf2"],
    ["#e8e3cc", "#5f4630", "#c98f43", "#9aae84", "#fdf8ee"],
    ["#e06b4b", "#7d2b23", "#f3b65f", "#f6d9b8", "#fff6e9"],
  ],
  arches: [
    ["#ece2d6", "#3d405b", "#e07a5f", "#81b29a", "#faf4ea"],
    ["#e2dbd0", "#5b4b43", "#b98b6b", "#d8c3a5", "#faf6f0"],
    ["#d8e0e4", "#2b3a4a", "#7b9aa8", "#e3b587", "#f7f5f0"],
    ["#d99b7c", "#4a2f2c", "#f0cfa8", "#b5654b", "#fbefe0"],
  ],
  drape: [
    ["#f0dfe2", "#6d3b4f", "#c47c8c", "#e4b7a8", "#fbf2f0"],
    ["#e6e0ec", "#3f3463", "#9a86bf", "#e2a76f", "#faf6fb"],
    ["#efe7e0", "#2b2b45", "#9a8c98", "#c9ada7", "#f4ebe4"],
    ["#dfe5e4", "#2c4a52", "#7da3a1", "#d9a58b", "#f3efe8"],
  ],
  hills: [
    ["#d9e9ef", "#1d4e68", "#5fa3b8", "#f2b56b", "#f3ece0"],
    ["#f8dfcd", "#8a3b4c", "#d9776a", "#f4bd7a", "#fbe9d6"],
    ["#dce4ee", "#26456e", "#6f93bd", "#e9cf9a", "#eef0f0"],
    ["#f4d58d", "#3a4d39", "#7f9268", "#e88d4f", "#f8edcf"],
  ],
  quilt: [
    ["#f4e8c9", "#2a4b6b", "#d1603d", "#e3a72f", "#fdf8ea"],
    ["#e5e9e4", "#34495a", "#c06c5b", "#8fae9b", "#f8f6ef"],
    ["#efe0e6", "#52315f", "#bf5f82", "#e9b44c", "#fcf5f2"],
    ["#e9e2d0", "#22503f", "#cf8a3a", "#b9c6a4", "#fbf7ea"],
  ],
};

/** Height over width of a pin's picture. */
export const ratioOf = (pinId) => pick(seeded(`ratio ${pinId}`), RATIOS);

/** A figure that fills its box; `ratio` sets the box, `badge` adds the category's glyph. Decorative: the title stands beside it. */
export function art(card, { ratio = ratioOf(card.pin_id), badge = true } = {}) {
  const figure = el("div", { class: "art", style: { "--ratio": String(1 / ratio) } }, drawing(card, ratio), badge && el("span", { class: "art-glyph" }, glyph(card.category)));
  if (card.image_url) figure.append(image(card.image_url));
  return figure;
}

function drawing(card, ratio) {
  const { motif } = look(card.category);
  const random = seeded(card.pin_id);
  const [ground, ...colours] = pick(random, PALETTES[motif]);
  const height = WIDTH * ratio;
  const ink = pick(random, MOTIFS[motif])(random, WIDTH, height, colours);
  const size = { viewBox: `0 0 ${WIDTH} ${height.toFixed(0)}`, preserveAspectRatio: "xMidYMid slice" };
  return svg("svg", { ...size, class: "drawing", "aria-hidden": "true" }, svg("rect", { width: WIDTH, height, fill: ground }), ink);
}

/** A picture over the drawing; one that does not load leaves the drawing in sight. */
function image(url) {
  const picture = el("img", { class: "photo", alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
  picture.addEventListener("error", () => picture.remove());
  picture.addEventListener("load", () => picture.classList.add("is-loaded"));
  picture.src = url;
  return picture;
}
