/** What a drawn card can show. Each motif: (random, width, height, colours: four of them, dark first, then accents, light last) -> SVG elements. */

import { svg } from "./dom.js";
import { blooms, fruits, sea, shelves, stitches, tiers } from "./patterns.js";
import { at, circle, line, path, rect } from "./pen.js";
import { between, pick, shuffled, whole } from "./seed.js";

/** Garden: stems with paired leaves before a low sun. */
function leaves(random, width, height, [dark, ...accents]) {
  const light = accents.at(-1);
  const sun = circle(between(random, 0.2, 0.8) * width, between(random, 0.2, 0.42) * height, between(random, 44, 78), accents[1]);
  const stems = whole(random, 3, 4);
  const plants = Array.from({ length: stems }, (_, i) => {
    const foot = ((i + between(random, 0.3, 0.7)) / stems) * width;
    const colour = [dark, accents[0], dark, light][(i + 1) % 4];
    return plant(random, foot, height, between(random, 0.5, 0.92) * height, between(random, -40, 40), colour);
  });
  return [sun, ...plants];
}

function plant(random, foot, ground, tall, lean, colour) {
  const pairs = whole(random, 4, 7);
  const size = between(random, 34, 54);
  const parts = [line(`M${at(foot, ground + 6)}Q${at(foot, ground - tall / 2, foot + lean, ground - tall)}`, colour, 3)];
  for (let i = 1; i <= pairs; i += 1) {
    const t = i / pairs;
    const x = (1 - t) ** 2 * foot + 2 * t * (1 - t) * foot + t * t * (foot + lean);
    const y = ground - tall * t;
    const long = size * (1.15 - 0.55 * t);
    const leaf = `M0 0Q${at(long * 0.42, -long * 0.5)} 0 ${at(-long)}Q${at(-long * 0.42, -long * 0.5)} 0 0Z`;
    const turn = 58 - 26 * t + lean / 4;
    for (const side of t === 1 ? [lean / turn] : [1, -1]) parts.push(path(leaf, colour, { transform: `translate(${at(x, y)}) rotate(${at(side * turn)})` }));
  }
  return svg("g", {}, parts);
}

/** Food: plates from above, one of them cut into. */
function plates(random, width, height, [dark, ...accents]) {
  const light = accents.at(-1);
  const big = Math.min(width, height) * between(random, 0.36, 0.44);
  const [x, y] = [width * between(random, 0.4, 0.6), height * between(random, 0.42, 0.58)];
  const side = random() < 0.5 ? -1 : 1;
  const parts = [
    circle(x - side * big * 1.15, y - big * 0.95, big * 0.62, accents[0]),
    circle(x - side * big * 1.15, y - big * 0.95, big * 0.4, dark),
    circle(x + side * big * 1.05, y + big * 1.1, big * 0.7, dark),
    circle(x + side * big * 1.05, y + big * 1.1, big * 0.52, accents[1]),
    circle(x, y, big, light),
    circle(x, y, big * 0.76, "none", { stroke: accents[1], "stroke-width": 2 }),
  ];
  const slices = whole(random, 3, 6);
  const gap = whole(random, 0, slices - 1);
  for (let i = 0; i < slices; i += 1) if (i !== gap || slices < 4) parts.push(slice(x, y, big * 0.62, (i / slices) * 2 * Math.PI, ((i + 0.86) / slices) * 2 * Math.PI, [accents[0], dark, accents[1]][i % 3]));
  for (let i = 0; i < 9; i += 1) parts.push(circle(between(random, 0, width), between(random, 0, height), between(random, 2, 4.5), pick(random, [dark, accents[0], light])));
  return parts;
}

function slice(x, y, r, from, to, colour) {
  const wide = to - from > Math.PI ? 1 : 0;
  return path(`M${at(x, y)}L${at(x + r * Math.cos(from), y + r * Math.sin(from))}A${at(r, r)} 0 ${wide} 1 ${at(x + r * Math.cos(to), y + r * Math.sin(to))}Z`, colour);
}

/** Home: doorways and windows under a hanging lamp. */
function arches(random, width, height, [dark, ...accents]) {
  const floor = height * between(random, 0.8, 0.88);
  const parts = [rect(0, floor, width, height - floor, accents[1])];
  const colours = shuffled(random, [dark, accents[0], accents[1], accents.at(-1)]);
  let x = between(random, -30, 16);
  for (let i = 0; x < width; i += 1) {
    const wide = between(random, 58, 104);
    const tall = between(random, 0.34, 0.72) * height;
    parts.push(arch(x, floor, wide, tall, colours[i % 4]));
    if (random() < 0.6) parts.push(arch(x + wide * 0.22, floor, wide * 0.56, tall * 0.68, colours[(i + 2) % 4]));
    x += wide + between(random, 6, 18);
  }
  const [lamp, hang] = [between(random, 0.2, 0.8) * width, between(random, 0.16, 0.26) * height];
  return [...parts, line(`M${at(lamp, 0)}V${at(hang)}`, dark, 2), path(`M${at(lamp - 30, hang + 24)}a30 30 0 0 1 60 0Z`, dark), circle(lamp, hang + 26, 7, accents.at(-1))];
}

function arch(x, floor, wide, tall, colour) {
  const r = wide / 2;
  return path(`M${at(x, floor)}V${at(floor - tall + r)}a${at(r, r)} 0 0 1 ${at(wide, 0)}V${at(floor)}Z`, colour);
}

/** Fashion: cloth falling in folds. */
function drape(random, width, height, [dark, ...accents]) {
  const tones = shuffled(random, [dark, ...accents]);
  const folds = whole(random, 6, 9);
  const swing = between(random, 18, 46);
  const turn = between(random, 0, 6.28);
  const edge = (i) => {
    const x = ((i - 0.6) / (folds - 1.2)) * width;
    const wave = swing * Math.sin(turn + i * 0.7);
    return [x, x + wave, x - wave * 0.8, x + swing * 0.5 * Math.cos(turn + i)];
  };
  const parts = [];
  for (let i = 0; i < folds; i += 1) {
    const [a, b] = [edge(i), edge(i + 1)];
    const d = `M${at(a[0], -4)}C${at(a[1], height / 3, a[2], (2 * height) / 3, a[3], height + 4)}L${at(b[3], height + 4)}C${at(b[2], (2 * height) / 3, b[1], height / 3, b[0], -4)}Z`;
    parts.push(path(d, tones[i % tones.length]));
    if (i % 2 === 0) parts.push(line(`M${at(b[0], -4)}C${at(b[1], height / 3, b[2], (2 * height) / 3, b[3], height + 4)}`, tones[(i + 2) % tones.length], 1.5));
  }
  return [...parts, ...Array.from({ length: whole(random, 2, 3) }, (_, i) => circle(width * 0.5, height * (0.3 + 0.2 * i), 7, tones[(i + 1) % 4], { stroke: dark, "stroke-width": 1.5 }))];
}

/** Travel: ranges of hills, the nearest darkest, and a sun. */
function hills(random, width, height, [dark, ...accents]) {
  const tones = [accents.at(-1), accents[1], accents[0], dark];
  const sunY = between(random, 0.2, 0.4) * height;
  const sunX = between(random, 0.2, 0.8) * width;
  const parts = [circle(sunX, sunY, between(random, 34, 62), accents[random() < 0.7 ? 1 : 0])];
  for (let i = 0; i < 3; i += 1) parts.push(line(`M${at(sunX - 130 + 40 * i, sunY + 8 + 13 * i)}h${at(between(random, 60, 150))}`, tones[0], 4));
  tones.forEach((tone, i) => parts.push(path(ridge(random, width, height, height * (0.46 + 0.14 * i)), tone)));
  return parts;
}

/** A range that rises and falls around `base`, closed at the bottom. */
function ridge(random, width, height, base) {
  const tops = whole(random, 2, 4);
  const step = width / tops;
  let y = base + between(random, -0.06, 0.06) * height;
  let d = `M-4 ${at(height + 4)}V${at(y)}H0`;
  for (let i = 0; i < tops; i += 1) {
    const next = base + between(random, 0.02, 0.1) * height * (i % 2 ? 1 : -1);
    d += `C${at((i + 0.5) * step, y, (i + 0.5) * step, next, (i + 1) * step, next)}`;
    y = next;
  }
  return `${d}H${at(width + 4)}V${at(height + 4)}Z`;
}

/** Craft: a quilt of simple tiles. */
function quilt(random, width, height, colours) {
  const across = pick(random, [3, 4]);
  const size = width / across;
  const mirror = random() < 0.4;
  const parts = [];
  for (let row = 0; row * size < height; row += 1) {
    const tiles = Array.from({ length: across }, () => [pick(random, TILES), whole(random, 0, 3), shuffled(random, colours)]);
    for (let column = 0; column < across; column += 1) {
      const [tile, turns, tones] = tiles[mirror ? Math.min(column, across - 1 - column) : column];
      const flip = mirror && column >= across / 2 ? "translate(1 0) scale(-1 1)" : "";
      const place = `translate(${at(column * size, row * size)}) scale(${size.toFixed(3)}) ${flip} rotate(${turns * 90} .5 .5)`;
      parts.push(svg("g", { transform: place }, tile(tones)));
    }
  }
  return parts;
}

const shape = (d, colour) => svg("path", { d, fill: colour });
const TILES = [
  ([a, b]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M0 0h1A1 1 0 0 1 0 1Z", b)],
  ([a, b]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M0 0h1L0 1Z", b)],
  ([a, b, c]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M0 .5a.5 .5 0 0 1 1 0Z", b), shape("M0 1a.5 .5 0 0 1 1 0Z", c)],
  ([a, b, c]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M.5 .1a.4 .4 0 1 1 0 .8a.4 .4 0 1 1 0-.8Z", b), shape("M.5 .32a.18 .18 0 1 1 0 .36a.18 .18 0 1 1 0-.36Z", c)],
  ([a, b]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M0 .12h1v.2H0ZM0 .44h1v.2H0ZM0 .76h1v.2H0Z", b)],
  ([a, b, c]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M.5 0 1 .5.5 1 0 .5Z", b), shape("M.5 .25.75.5.5.75.25.5Z", c)],
  ([a, b]) => [shape("M0 0h1.01v1.01H0Z", a), shape("M0 0A1 1 0 0 1 1 1A1 1 0 0 1 0 0Z", b)],
];

/** By a category's look, what its cards are drawn as. */
export const MOTIFS = {
  leaves: [leaves, leaves, blooms],
  plates: [plates, fruits],
  arches: [arches, shelves],
  drape: [drape, tiers],
  hills: [hills, sea],
  quilt: [quilt, stitches],
};
