/** The second motif of each category; the same signature as in motifs.js. */

import { svg } from "./dom.js";
import { at, circle, line, path, rect } from "./pen.js";
import { between, pick, shuffled, whole } from "./seed.js";

/** Garden: flowers from above. */
export function blooms(random, width, height, [dark, ...accents]) {
  const across = whole(random, 2, 3);
  const size = width / across;
  const parts = [];
  for (let row = 0; row * size < height; row += 1) {
    for (let column = 0; column < across; column += 1) {
      const [x, y] = [(column + between(random, 0.4, 0.6)) * size, (row + between(random, 0.4, 0.6)) * size];
      const [petal, middle] = shuffled(random, [dark, ...accents]);
      parts.push(flower(x, y, size * between(random, 0.34, 0.5), whole(random, 5, 9), petal, middle, between(random, 0, 60)));
    }
  }
  return parts;
}

function flower(x, y, r, petals, colour, middle, turn) {
  const leaf = `M0 0C${at(r * 0.5, -r * 0.35, r * 0.34, -r, 0, -r)}C${at(-r * 0.34, -r, -r * 0.5, -r * 0.35, 0, 0)}Z`;
  const ring = Array.from({ length: petals }, (_, i) => path(leaf, colour, { transform: `rotate(${at(turn + (360 * i) / petals)})` }));
  return svg("g", { transform: `translate(${at(x, y)})` }, ring, circle(0, 0, r * 0.2, middle));
}

/** Food: fruit cut in half, in rows. */
export function fruits(random, width, height, [dark, ...accents]) {
  const light = accents.at(-1);
  const across = whole(random, 2, 3);
  const size = width / across;
  const parts = [];
  for (let row = 0; (row - 0.5) * size < height; row += 1) {
    for (let column = 0; column <= across; column += 1) {
      const [x, y] = [(column + (row % 2 ? 0 : 0.5)) * size, (row + 0.5) * size];
      const r = size * 0.4;
      const flesh = pick(random, [accents[0], accents[1], dark]);
      const uncut = random() < 0.35;
      parts.push(circle(x, y, r, flesh));
      if (uncut) parts.push(path(`M${at(x, y - r)}q${at(r * 0.1, -r * 0.4, r * 0.5, -r * 0.35)}q${at(-r * 0.1, r * 0.35, -r * 0.5, r * 0.35)}Z`, flesh === dark ? accents[1] : dark));
      else parts.push(circle(x, y, r * 0.82, light), segments(x, y, r * 0.72, whole(random, 6, 9), flesh, between(random, 0, 60)));
    }
  }
  return parts;
}

function segments(x, y, r, count, colour, turn) {
  const wide = Math.sin(Math.PI / count) * r * 0.84;
  const wedge = `M0 ${at(-r * 0.12)}L${at(wide, -r * 0.86)}Q${at(0, -r * 1.12, -wide, -r * 0.86)}Z`;
  const ring = Array.from({ length: count }, (_, i) => path(wedge, colour, { transform: `rotate(${at(turn + (360 * i) / count)})` }));
  return svg("g", { transform: `translate(${at(x, y)})` }, ring);
}

/** Home: shelves with books, bowls and vases. */
export function shelves(random, width, height, [dark, ...accents]) {
  const boards = Math.max(2, Math.round(height / 130));
  const step = height / boards;
  const parts = [];
  for (let i = 1; i <= boards; i += 1) {
    const floor = i * step - 12;
    const clear = step - 34;
    for (let x = between(random, 10, 26); x < width - 22; ) x += thing(random, parts, x, floor, clear, pick(random, [dark, ...accents]), accents);
    parts.push(rect(0, floor, width, 9, dark));
  }
  return parts;
}

/** Put one thing on a shelf; gives the room it takes. */
function thing(random, parts, x, floor, clear, colour, accents) {
  const kind = random();
  if (kind < 0.55) {
    const wide = between(random, 11, 22);
    const tall = clear * between(random, 0.6, 0.98);
    parts.push(rect(x, floor - tall, wide, tall, colour, { rx: 1.5 }));
    return wide + 2;
  }
  if (kind < 0.78) {
    const r = between(random, 18, 30);
    parts.push(path(`M${at(x, floor - r)}h${at(2 * r)}a${at(r, r)} 0 0 1 ${at(-2 * r)} 0Z`, colour));
    return 2 * r + between(random, 8, 22);
  }
  const [wide, tall] = [between(random, 26, 38), clear * between(random, 0.4, 0.6)];
  const middle = x + wide / 2;
  for (const lean of [-16, 0, 16]) parts.push(line(`M${at(middle, floor - tall)}q${at(lean / 3, -clear * 0.2, lean, -clear * 0.36)}`, accents[1], 2.5), circle(middle + lean, floor - tall - clear * 0.36, 5, accents[0]));
  parts.push(path(`M${at(middle - wide * 0.2, floor - tall)}h${at(wide * 0.4)}q${at(wide * 0.5, tall * 0.5, wide * 0.1, tall)}h${at(-wide * 0.6)}q${at(-wide * 0.4, -tall * 0.5, wide * 0.1, -tall)}Z`, colour));
  return wide + between(random, 8, 22);
}

/** Fashion: tiers of scalloped cloth. */
export function tiers(random, width, height, [dark, ...accents]) {
  const tones = shuffled(random, [dark, ...accents]);
  const across = whole(random, 3, 6);
  const size = width / across;
  const rows = Math.ceil(height / (size * 0.62)) + 1;
  const parts = [];
  for (let row = rows; row >= 0; row -= 1) {
    const y = (row - 0.6) * size * 0.62;
    for (let column = -1; column <= across; column += 1) {
      const x = (column + (row % 2 ? 0.5 : 0)) * size;
      const scallop = (inset) => `M${at(x + inset, y - 2)}v${at(size * 0.5)}a${at(size / 2 - inset, size / 2 - inset)} 0 0 0 ${at(size - 2 * inset)} 0v${at(-size * 0.5)}Z`;
      parts.push(path(scallop(0), tones[row % tones.length]), path(scallop(size * 0.16), "none", { stroke: tones[(row + 2) % tones.length], "stroke-width": 2 }));
    }
  }
  return parts;
}

/** Travel: a boat on long waves. */
export function sea(random, width, height, [dark, ...accents]) {
  const horizon = height * between(random, 0.36, 0.5);
  const [sun, boat] = [between(random, 0.2, 0.8) * width, between(random, 0.25, 0.7) * width];
  const parts = [circle(sun, horizon - between(random, 0, 40), between(random, 38, 60), accents[1])];
  const tones = [accents[0], dark, accents[0], dark];
  const rows = whole(random, 4, 6);
  for (let row = 0; row < rows; row += 1) {
    const y = horizon + ((height - horizon) * row) / rows;
    const long = between(random, 44, 76);
    let d = `M${at(-between(random, 0, long), y)}`;
    for (let x = 0; x < width + 2 * long; x += long) d += `q${at(long / 2, -13, long, 0)}`;
    parts.push(path(`${d}V${at(height + 4)}H-90Z`, tones[row % 4]));
    if (row === 0) parts.push(...sail(boat, y + 10, between(random, 0.8, 1.2), dark, accents.at(-1)));
  }
  return parts;
}

function sail(x, y, size, hull, cloth) {
  const place = { transform: `translate(${at(x, y)}) scale(${size.toFixed(2)})` };
  return [path("M-34 -12H34L22 6H-22Z", hull, place), path("M2 -18V-84Q34 -46 36 -18Z", cloth, place), path("M-4 -18V-70Q-26 -42 -28 -18Z", cloth, place)];
}

/** Craft: sashiko, arcs in running stitch. */
export function stitches(random, width, height, [dark, ...accents]) {
  const thread = { stroke: accents.at(-1), "stroke-width": 2.4, "stroke-dasharray": "9 5", "stroke-linecap": "round" };
  const size = width / whole(random, 3, 4);
  const rings = whole(random, 2, 3);
  const parts = [rect(0, 0, width, height, random() < 0.6 ? dark : accents[0])];
  const patch = [whole(random, 0, 2), whole(random, 0, 2)];
  parts.push(rect(patch[0] * size, patch[1] * size, size, size, accents[1]));
  for (let row = 0; (row - 1) * size * 0.5 < height; row += 1) {
    for (let column = -1; column * size < width; column += 1) {
      const [x, y] = [(column + (row % 2 ? 0.5 : 0)) * size, row * size * 0.5];
      for (let ring = 1; ring <= rings; ring += 1) {
        const r = (size / 2) * (ring / rings);
        parts.push(path(`M${at(x + size / 2 - r, y)}a${at(r, r)} 0 0 1 ${at(2 * r)} 0`, "none", thread));
      }
    }
  }
  return parts;
}
