/** A list of cards laid out in columns of even height. Order in the document is rank; a change of place is a movement to see. */

import { el, stillness } from "./dom.js";
import { plural } from "./words.js";

const MARK_MS = 9000;
const MARKED_SHIFT = 2;
const BAR_PX = 100; // about what the bar at the top takes

export class Masonry {
  #list;
  #create;
  #cards = new Map(); // pin_id -> {node, shown, column, top}
  #order = [];
  #fade = 0;

  /** `create(item, rank)` gives the children of an item's card. */
  constructor(list, create) {
    this.#list = list;
    this.#create = create;
    new ResizeObserver(() => this.layout()).observe(list);
    list.addEventListener("keydown", (event) => this.#walk(event));
  }

  get size() {
    return this.#order.length;
  }

  rankOf(pinId) {
    return this.#order.indexOf(pinId) + 1;
  }

  /** Show these items and no others. With `mark`, what is new or moved is marked; gives the ids that came and went. */
  render(items, { mark = false, edited = "" } = {}) {
    const before = this.#order;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.closest(".card")?.dataset.pin : "";
    this.#order = items.map((item) => item.pin_id);
    const wanted = new Set(this.#order);
    for (const [id, card] of this.#cards) {
      if (wanted.has(id)) continue;
      card.node.remove();
      this.#cards.delete(id);
    }
    items.forEach((item, i) => this.#place(item, i));
    if (focused) this.#cards.get(focused)?.node.querySelector(".card-open").focus({ preventScroll: true });
    this.layout();
    this.#clearMarks();
    if (mark) this.#mark(before, edited);
    if (edited) this.reveal(edited);
    return { came: this.#order.filter((id) => !before.includes(id)), went: before.filter((id) => !wanted.has(id)) };
  }

  /** Add a further page. */
  append(items) {
    const fresh = items.filter((item) => !this.#cards.has(item.pin_id));
    const from = this.#order.length;
    this.#order.push(...fresh.map((item) => item.pin_id));
    fresh.forEach((item, i) => this.#place(item, from + i));
    this.layout();
    return fresh.map((item) => this.#cards.get(item.pin_id).node);
  }

  node(pinId) {
    return this.#cards.get(pinId)?.node;
  }

  /** Scroll so far that a card's place is in sight; it may still be moving there. */
  reveal(pinId) {
    const card = this.#cards.get(pinId);
    if (!card) return;
    const top = this.#list.getBoundingClientRect().top + card.top;
    if (top < BAR_PX || top > innerHeight - BAR_PX) scrollBy({ top: top - 2 * BAR_PX, behavior: stillness() ? "auto" : "smooth" });
  }

  #place(item, i) {
    const shown = JSON.stringify(item);
    let card = this.#cards.get(item.pin_id);
    if (!card) {
      const node = el("li", { class: "card is-entering", "data-pin": item.pin_id });
      node.addEventListener("animationend", () => node.classList.remove("is-entering"));
      card = { node, shown: "" };
      this.#cards.set(item.pin_id, card);
    }
    if (card.shown !== shown) card.node.replaceChildren(...this.#create(item, i + 1));
    card.shown = shown;
    if (this.#list.children[i] !== card.node) this.#list.insertBefore(card.node, this.#list.children[i] ?? null);
  }

  /** Put every card under the shortest column. A card's first place is taken without movement. */
  layout() {
    const style = getComputedStyle(this.#list);
    const gap = Number.parseFloat(style.getPropertyValue("--gap"));
    const width = this.#list.clientWidth;
    if (!width) return;
    const columns = Math.max(2, Math.floor((width + gap) / (Number.parseFloat(style.getPropertyValue("--column")) + gap)));
    const each = (width - gap * (columns - 1)) / columns;
    const cards = this.#order.map((id) => this.#cards.get(id));
    const nodes = cards.map((card) => card.node);
    for (const node of nodes) node.style.width = `${each}px`;
    const heights = nodes.map((node) => node.offsetHeight);
    const ends = new Array(columns).fill(0);
    cards.forEach((card, i) => {
      const column = ends.indexOf(Math.min(...ends));
      Object.assign(card, { column, top: ends[column] });
      card.node.style.transform = `translate(${(each + gap) * column}px, ${card.top}px)`;
      ends[column] += heights[i] + gap;
    });
    this.#list.style.height = `${Math.max(0, ...ends)}px`;
    requestAnimationFrame(() => nodes.forEach((node) => node.classList.add("is-placed")));
  }

  #mark(before, edited) {
    for (const [i, id] of this.#order.entries()) {
      const was = before.indexOf(id);
      const shift = was - i;
      const words = moveWords(was, shift, id === edited);
      if (!words) continue;
      const { node } = this.#cards.get(id);
      node.classList.add("is-marked");
      node.classList.toggle("is-new", was < 0);
      node.classList.toggle("is-edited", id === edited);
      node.querySelector(".art").append(el("span", { class: "card-move" }, words));
    }
    this.#fade = setTimeout(() => this.#clearMarks(), MARK_MS);
  }

  #clearMarks() {
    clearTimeout(this.#fade);
    for (const { node } of this.#cards.values()) {
      node.classList.remove("is-marked", "is-new", "is-edited");
      node.querySelector(".card-move")?.remove();
    }
  }

  /** Arrow keys go from card to card; up from the first row is left to the page. */
  #walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const vertical = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const id = event.target.closest(".card")?.dataset.pin;
    if (!id || !(step || vertical) || event.altKey || event.ctrlKey || event.metaKey) return;
    const cards = this.#order.map((one) => this.#cards.get(one));
    const here = this.#cards.get(id);
    const next = step ? cards[cards.indexOf(here) + step] : inColumn(cards, here, vertical);
    if (!next) return;
    event.preventDefault();
    next.node.querySelector(".card-open").focus({ preventScroll: true });
    next.node.scrollIntoView({ block: "nearest", behavior: stillness() ? "auto" : "smooth" });
  }
}

function moveWords(was, shift, edited) {
  if (was < 0) return edited ? "Edited, now here" : "New here";
  if (edited) return shift ? `Edited, ${shift > 0 ? "up" : "down"} ${Math.abs(shift)}` : "Edited";
  return Math.abs(shift) >= MARKED_SHIFT ? `${shift > 0 ? "Up" : "Down"} ${plural(Math.abs(shift), "place")}` : "";
}

/** The nearest card above (-1) or below (1) in the same column. */
function inColumn(cards, here, direction) {
  const beyond = cards.filter((card) => card.column === here.column && (card.top - here.top) * direction > 0);
  return beyond.sort((a, b) => (a.top - b.top) * direction)[0];
}
