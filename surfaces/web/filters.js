/** The search's filters: categories as chips, the others behind "Filters", and a chip for each of those in use. They live in the address. */

import { glyph } from "./categories.js";
import { Diversity } from "./diversity.js";
import { el, find } from "./dom.js";
import { EARLIEST, LEVELS, MATCHES, NONE, inUse } from "./narrowing.js";
import { go } from "./router.js";
import { capital, languageName } from "./words.js";

const NO_LEVEL = { level: "", below: "" };

export class Filters {
  #root;
  #toggle = find("#filters-toggle");
  #fields = find("#filter-fields");
  #used = find("#filters-used");
  #known = { category: new Set(), lang: new Set(), board: new Set() };
  #drawn = {};

  constructor(root) {
    this.#root = root;
    this.diversity = new Diversity((diversity) => go({ diversity }, { replace: true }));
    this.#fields.append(this.diversity.element);
    find("#match").append(...MATCHES.map(([value, words]) => el("option", { value }, words)));
    const levels = LEVELS.map((words, i) => [String(i + 1), `${i + 1}: ${words}`]).slice(1);
    find("#level").append(...[["", "Any level"], ...levels].map(([value, words]) => el("option", { value }, words)));
    find("#since").min = EARLIEST;
    for (const name of ["lang", "match", "below"]) find(`#${name}`).addEventListener("change", ({ target }) => go({ [name]: target.value }));
    find("#level").addEventListener("change", ({ target }) => go(target.value ? { level: target.value } : NO_LEVEL));
    find("#board").addEventListener("change", ({ target }) => {
      target.value = this.#spelled(target.value.trim());
      go({ board: target.value });
    });
    find("#since").addEventListener("change", ({ target }) => target.checkValidity() && go({ since: target.value }, { replace: true }));
    this.#toggle.addEventListener("click", () => this.#open(this.#fields.hidden));
    this.#fields.addEventListener("submit", (event) => event.preventDefault());
    this.#fields.addEventListener("keydown", (event) => this.#escape(event));
  }

  /** Offer what these pins are labelled with. */
  know(cards) {
    for (const { category, lang, boards } of cards) {
      if (category) this.#known.category.add(category);
      if (lang) this.#known.lang.add(lang);
      for (const board of boards) this.#known.board.add(board);
    }
  }

  /** Show these filters (see narrowing.js). What a person is typing stays: a field is set only when its filter changed. */
  draw(filters) {
    this.#drawCategories(filters.category);
    this.#drawChoices(filters.lang);
    for (const name of ["lang", "match", "board", "since", "level", "below"]) {
      const field = find(`#${name}`);
      const chosen = field.tagName === "SELECT" || filters[name] !== this.#drawn[name];
      if (chosen && field.value !== filters[name]) field.value = filters[name];
    }
    find("#below").disabled = !filters.level;
    this.diversity.draw(filters.diversity);
    if (JSON.stringify(filters) !== JSON.stringify(this.#drawn)) this.#drawUsed(inUse(filters));
    this.#drawn = filters;
  }

  /** Take all filters back. */
  clear() {
    go(NONE);
    this.#toggle.focus({ preventScroll: true });
  }

  #open(wanted) {
    this.#fields.hidden = !wanted;
    this.#toggle.setAttribute("aria-expanded", String(wanted));
  }

  #escape(event) {
    if (event.key !== "Escape") return;
    event.preventDefault();
    this.#open(false);
    this.#toggle.focus();
  }

  /** A board's title as pins spell it: the index compares letter by letter. */
  #spelled(text) {
    const same = (title) => title.toLowerCase() === text.toLowerCase();
    return this.#known.board.has(text) ? text : ([...this.#known.board].find(same) ?? text);
  }

  #drawCategories(category) {
    const chips = ["", ...[...this.#known.category].sort()].map((name) => {
      const on = { click: () => go({ category: name }) };
      const face = name ? [glyph(name), capital(name)] : ["Everything"];
      return el("button", { class: "chip", type: "button", "data-category": name || null, "aria-pressed": String(name === category), on }, face);
    });
    const focused = document.activeElement?.closest?.(".category-chips") ? (document.activeElement.dataset.category ?? "") : null;
    const row = find(".category-chips", this.#root);
    row.replaceChildren(...chips);
    if (focused !== null) [...row.children].find((chip) => (chip.dataset.category ?? "") === focused)?.focus();
  }

  #drawChoices(lang) {
    const select = find("#lang");
    const codes = ["", ...new Set([...this.#known.lang, ...(lang ? [lang] : [])])].sort();
    const offered = [...select.options].map((option) => option.value);
    if (String(codes) !== String(offered)) select.replaceChildren(...codes.map((code) => el("option", { value: code }, code ? languageName(code) : "Any language")));
    const boards = find("#boards");
    if (boards.children.length === this.#known.board.size) return;
    boards.replaceChildren(...[...this.#known.board].sort((a, b) => a.localeCompare(b)).map((value) => el("option", { value })));
  }

  #drawUsed(used) {
    const count = find(".chip-count", this.#toggle);
    count.hidden = used.length === 0;
    count.replaceChildren(String(used.length), el("span", { class: "unseen" }, " in use"));
    const chips = used.map(([name, words], i) => el("li", {}, this.#usedChip(name, words, i)));
    const clear = el("button", { class: "button is-quiet", type: "button", on: { click: () => this.clear() } }, "Clear all");
    this.#used.hidden = used.length === 0;
    this.#used.replaceChildren(...(used.length ? [...chips, el("li", {}, clear)] : []));
  }

  /** A filter in use; pressed, it goes, and the focus to the chip that takes its place. */
  #usedChip(name, words, i) {
    const remove = () => {
      go(name === "level" ? NO_LEVEL : { [name]: "" });
      const left = [...this.#used.querySelectorAll(".used-chip")];
      (left[i] ?? left.at(-1) ?? this.#toggle).focus({ preventScroll: true });
    };
    const cross = el("span", { class: "cross", "aria-hidden": "true" });
    return el("button", { class: "chip used-chip", type: "button", "data-filter": name, on: { click: remove } }, el("span", { class: "unseen" }, "Remove filter: "), words, cross);
  }
}
