/** The embedding map: every pin as a point, near where its meaning is. Pointer, touch and keyboard; the query's hits are ringed. */

import * as api from "./api.js";
import { look } from "./categories.js";
import { el, find, say, svg } from "./dom.js";
import { facts } from "./facts.js";
import { busy, empty, problemNotice } from "./notices.js";
import { Plane } from "./plane.js";
import { go } from "./router.js";
import { SHAPES } from "./shapes.js";
import { capital, dateTime, languageName, plural, titleOf } from "./words.js";

const HITS = 40;
const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const DARK = matchMedia("(prefers-color-scheme: dark)");
const WHEEL = 0.0016;

export class MapView {
  #root = find("#view-map");
  #frame = find(".map-frame", this.#root);
  #canvas = find("canvas", this.#root);
  #tip = find(".map-tip", this.#root);
  #plane = new Plane();
  #points = [];
  #hidden = new Set(); // categories switched off
  #hits = new Set();
  #query = "";
  #asking = null;
  #here = null; // the point that has the keyboard or the pointer
  #open = "";
  #drawing = 0;
  #fingers = new Map();
  #dragged = 0;
  #loaded = false;

  constructor() {
    new ResizeObserver(() => this.#resize()).observe(this.#frame);
    DARK.addEventListener("change", () => this.#draw());
    const frame = this.#frame;
    frame.addEventListener("pointerdown", (event) => this.#press(event));
    frame.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, (event) => this.#release(event));
    frame.addEventListener("pointerleave", () => this.#point(null));
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("keydown", (event) => this.#type(event));
    frame.addEventListener("blur", () => this.#point(null));
    for (const button of this.#root.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => this.#zoom(button.dataset.zoom));
  }

  show({ q, pin }) {
    this.#open = pin;
    if (!this.#loaded) this.#load();
    if (q !== this.#query) this.#ring(q);
    this.#draw();
  }

  /** After an edit: the pin may lie elsewhere. */
  async refresh() {
    if (this.#loaded) await this.#load();
    return null;
  }

  async #load() {
    this.#loaded = true;
    busy(true);
    try {
      const answer = await api.map();
      this.#points = answer.points;
      this.#legend();
      find(".meta", this.#root).replaceChildren(el("span", {}, plural(answer.points.length, "pin")), facts(answer, [["made", dateTime(answer.made_at)], ["directions", answer.projection]]));
      this.#notice(answer.points.length ? null : empty("An empty map", "As soon as pins are embedded, they are here."));
    } catch (problem) {
      this.#loaded = false;
      this.#notice(problemNotice(problem, () => this.#load()));
    } finally {
      busy(false);
    }
    this.#draw();
  }

  /** Ring the pins that a query finds. */
  async #ring(query) {
    this.#query = query;
    this.#asking?.abort();
    this.#hits = new Set();
    if (!query) return this.#draw();
    const asking = (this.#asking = new AbortController());
    try {
      const answer = await api.search({ query, limit: HITS }, asking.signal);
      this.#hits = new Set(answer.results.map((result) => result.pin_id));
      say(`${plural(this.#hits.size, "pin")} ringed for ${query}`);
    } catch (problem) {
      if (problem.name !== "AbortError") this.#notice(problemNotice(problem, () => this.#ring(query)));
    }
    this.#draw();
  }

  #visible() {
    return this.#points.filter((point) => !this.#hidden.has(point.category));
  }

  #legend() {
    const toggles = byCategory(this.#points).sort().map(([category, { length: count }]) => {
      const mark = svg("svg", { viewBox: "-1.6 -1.6 3.2 3.2", class: "legend-mark", "aria-hidden": "true" }, svg("path", { d: SHAPES[look(category).shape] }));
      mark.style.setProperty("--light", look(category).light);
      mark.style.setProperty("--dark", look(category).dark);
      const toggle = (event) => {
        this.#hidden[this.#hidden.has(category) ? "delete" : "add"](category);
        event.currentTarget.setAttribute("aria-pressed", String(!this.#hidden.has(category)));
        this.#draw();
      };
      return el("button", { class: "chip", type: "button", "aria-pressed": String(!this.#hidden.has(category)), on: { click: toggle } }, mark, capital(category || "no category"), el("span", { class: "chip-count" }, String(count)));
    });
    find(".legend", this.#root).replaceChildren(...toggles);
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.#frame;
    if (!width || !height) return;
    const dense = Math.min(2, devicePixelRatio);
    this.#plane.resize(width, height);
    Object.assign(this.#canvas, { width: width * dense, height: height * dense });
    this.#canvas.getContext("2d").setTransform(dense, 0, 0, dense, 0, 0);
    this.#paint();
  }

  #draw() {
    this.#drawing ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#drawing = 0;
    const { width, height, zoom } = this.#plane;
    const context = this.#canvas.getContext("2d");
    const styles = getComputedStyle(this.#frame);
    const ink = { text: styles.color, paper: styles.backgroundColor, serif: styles.getPropertyValue("--serif") };
    context.clearRect(0, 0, width, height);
    const radius = Math.min(9, (this.#points.length > 2000 ? 3 : 4.6) * zoom ** 0.32);
    const searching = this.#hits.size > 0;
    for (const point of this.#visible()) {
      const [x, y] = this.#plane.toPixels(point);
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
      context.globalAlpha = searching && !this.#hits.has(point.pin_id) ? 0.28 : 0.88;
      stamp(context, point, x, y, radius, ink.paper);
      if (this.#hits.has(point.pin_id)) circle(context, x, y, radius + 4, ink.text, 1.5);
    }
    context.globalAlpha = 1;
    this.#label(context, ink);
    for (const point of [this.#points.find((one) => one.pin_id === this.#open), this.#here].filter(Boolean)) {
      const [x, y] = this.#plane.toPixels(point);
      stamp(context, point, x, y, radius + 3, ink.paper);
      circle(context, x, y, radius + 8, ink.text, 2);
    }
  }

  /** Each category's name where most of it lies, largest first; a name that would lie on another is left out. */
  #label(context, { text, paper, serif }) {
    context.font = `italic 600 19px ${serif}`;
    Object.assign(context, { textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 5, strokeStyle: paper, fillStyle: text });
    const taken = [];
    for (const [category, points] of byCategory(this.#visible())) {
      const [x, y] = this.#plane.toPixels({ x: median(points.map((point) => point.x)), y: median(points.map((point) => point.y)) });
      const half = context.measureText(capital(category)).width / 2 + 8;
      if (taken.some((other) => Math.abs(other.y - y) < 26 && Math.abs(other.x - x) < other.half + half)) continue;
      taken.push({ x, y, half });
      context.strokeText(capital(category), x, y);
      context.fillText(capital(category), x, y);
    }
  }

  /** Take a point in hand (null: none) and say what it is beside it. */
  #point(point, spoken = false) {
    if (point !== this.#here) {
      this.#here = point;
      this.#draw();
    }
    this.#frame.classList.toggle("is-over", Boolean(point));
    this.#tip.hidden = !point;
    if (!point) return;
    const [x, y] = this.#plane.toPixels(point);
    const words = [capital(point.category), languageName(point.lang)].filter(Boolean).join(" · ");
    this.#tip.replaceChildren(el("strong", { lang: point.lang || null }, titleOf(point)), el("span", {}, words));
    const left = Math.min(Math.max(8, x + 14), this.#plane.width - this.#tip.offsetWidth - 8);
    const above = y > this.#plane.height - this.#tip.offsetHeight - 24;
    this.#tip.style.transform = `translate(${left}px, ${above ? y - this.#tip.offsetHeight - 14 : y + 14}px)`;
    if (spoken) say(`${titleOf(point)}, ${words}`);
  }

  #place(event) {
    const box = this.#frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #press(event) {
    if (event.target.closest("button")) return;
    this.#fingers.set(event.pointerId, this.#place(event));
    this.#dragged = this.#fingers.size > 1 ? Infinity : 0;
    this.#frame.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    const [px, py] = this.#place(event);
    const last = this.#fingers.get(event.pointerId);
    if (!last) return this.#point(this.#plane.nearest(this.#visible(), px, py));
    this.#dragged += Math.hypot(px - last[0], py - last[1]);
    const other = [...this.#fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const [before, after] = [Math.hypot(last[0] - other[0], last[1] - other[1]), Math.hypot(px - other[0], py - other[1])];
      this.#plane.zoomAt((px + other[0]) / 2, (py + other[1]) / 2, after / Math.max(1, before));
    } else if (this.#dragged > 4) this.#plane.pan(px - last[0], py - last[1]);
    this.#fingers.set(event.pointerId, [px, py]);
    if (this.#dragged > 4) this.#point(null);
    this.#draw();
  }

  #release(event) {
    const pressed = this.#fingers.delete(event.pointerId);
    if (!pressed || event.type === "pointercancel" || this.#dragged > 4) return;
    const point = this.#plane.nearest(this.#visible(), ...this.#place(event), event.pointerType === "touch" ? 22 : 14);
    if (point) go({ pin: point.pin_id });
  }

  #wheel(event) {
    event.preventDefault();
    this.#plane.zoomAt(...this.#place(event), Math.exp(-event.deltaY * WHEEL));
    this.#point(null);
    this.#draw();
  }

  #zoom(how) {
    const middle = this.#here ? this.#plane.toPixels(this.#here) : [this.#plane.width / 2, this.#plane.height / 2];
    if (how === "reset") this.#plane.reset();
    else this.#plane.zoomAt(...middle, how === "in" ? 1.6 : 1 / 1.6);
    this.#point(this.#here);
    this.#draw();
  }

  #type(event) {
    if (event.target !== this.#frame || event.altKey || event.ctrlKey || event.metaKey) return;
    const zoom = { "+": "in", "=": "in", "-": "out", 0: "reset" }[event.key];
    if (zoom) return this.#zoom(zoom);
    const direction = ARROWS[event.key];
    const opens = event.key === "Enter" && this.#here;
    if (!direction && !opens) return;
    event.preventDefault();
    if (opens) return go({ pin: this.#here.pin_id });
    const points = this.#visible();
    const middle = this.#plane.nearest(points, this.#plane.width / 2, this.#plane.height / 2, Infinity);
    const next = this.#here ? this.#plane.next(points, this.#here, direction) : middle;
    if (!next) return;
    this.#plane.reveal(next);
    this.#point(next, true);
    this.#draw();
  }

  #notice(content) {
    find(".notice-slot", this.#root).replaceChildren(...(content ? [content] : []));
    this.#frame.hidden = Boolean(content);
  }
}

const PATHS = new Map();

function stamp(context, { category }, x, y, radius, paper) {
  const { shape, light, dark } = look(category);
  if (!PATHS.has(shape)) PATHS.set(shape, new Path2D(SHAPES[shape]));
  context.save();
  context.translate(x, y);
  context.scale(radius, radius);
  context.fillStyle = DARK.matches ? dark : light;
  context.fill(PATHS.get(shape));
  context.lineWidth = 1 / radius;
  context.strokeStyle = paper;
  context.stroke(PATHS.get(shape));
  context.restore();
}

function circle(context, x, y, radius, colour, width) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  Object.assign(context, { strokeStyle: colour, lineWidth: width });
  context.stroke();
}

/** `[category, points]`, the most numerous first. */
function byCategory(points) {
  const groups = new Map();
  for (const point of points) {
    if (!groups.has(point.category)) groups.set(point.category, []);
    groups.get(point.category).push(point);
  }
  return [...groups].sort(([, a], [, b]) => b.length - a.length);
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
