/** The search view: live results with their relevance, filters, further pages. Without a query, the newest pins. */

import * as api from "./api.js";
import { badge, card } from "./cards.js";
import { el, find, say } from "./dom.js";
import { facts } from "./facts.js";
import { Filters } from "./filters.js";
import { Masonry } from "./masonry.js";
import { asked, narrowing, narrows } from "./narrowing.js";
import { busy, empty, problemNotice, skeleton } from "./notices.js";
import { go } from "./router.js";
import { languageName, plural } from "./words.js";

const PAGE = 24;
const MOST = 100; // the API's limit for one page
const VISITOR = "visitor"; // has no history, so the feed is the newest pins
const SUGGESTIONS = ["balcony herb garden", "small bathroom storage", "cosy reading nook", "pain au levain", "kleiner Balkon", "viaje en tren", "刺し子"];

export class SearchView {
  #root = find("#view-search");
  #filters = new Filters(this.#root);
  #shown = null; // what the list is of
  #asking = null;
  #cursor = null;
  #results = [];

  /** `onSave(card, button)` is called when a pin is saved. */
  constructor(onSave) {
    const weak = () => el("span", { class: "is-below" }, "Below the level you chose");
    const note = (item) => (item.level ? [badge(item), item.below_level && weak()] : null);
    this.masonry = new Masonry(find(".cards", this.#root), (item, rank) => card(item, { note: note(item), onSave, rank }));
    find(".more", this.#root).addEventListener("click", () => this.#more());
    find(".suggestions", this.#root).append(
      ...SUGGESTIONS.map((words) => el("button", { class: "chip", type: "button", on: { click: () => go({ q: words }) } }, words)),
    );
    this.#learnFilters();
  }

  /** The result of a pin, with its explanation; undefined where it is not in the list. */
  resultOf(pinId) {
    return this.#results.find((result) => result.pin_id === pinId);
  }

  get query() {
    return this.#shown?.q ?? "";
  }

  show(state) {
    const { q } = state;
    const wanted = { q, ...narrowing(q ? state : {}) };
    if (JSON.stringify(wanted) === JSON.stringify(this.#shown)) return;
    this.#shown = wanted;
    this.#drawFilters();
    this.#load();
  }

  /** Ask again and mark what changed; gives `{came, went, from, to, shown}` with the edited pin's ranks (0: not in the list). */
  async refresh(edited) {
    const shown = this.#shown;
    if (!shown) return null;
    const from = this.masonry.rankOf(edited);
    const answer = await this.#ask(null, Math.min(MOST, Math.max(PAGE, this.masonry.size)));
    if (shown !== this.#shown) return null;
    this.#take(answer);
    const changes = this.masonry.render(answer.results, { mark: true, edited });
    this.#drawMeta(answer);
    return { ...changes, from, to: this.masonry.rankOf(edited), shown: answer.results.length };
  }

  async #load() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    const first = this.masonry.size === 0;
    if (first) {
      this.#notice(skeleton());
      this.#drawTitle(this.#shown.q);
    }
    busy(true);
    this.#root.setAttribute("aria-busy", "true");
    try {
      const answer = await this.#ask(asking.signal, PAGE);
      if (asking.signal.aborted) return;
      this.#take(answer);
      this.masonry.render(answer.results);
      this.#drawMeta(answer);
      this.#drawFilters();
      this.#notice(answer.results.length ? null : this.#nothing());
      say(`${plural(answer.results.length, "result")}`);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.masonry.render([]);
      this.#drawTitle(this.#shown.q);
      this.#notice(problemNotice(problem, () => this.#load()));
    } finally {
      if (asking === this.#asking) {
        busy(false);
        this.#root.removeAttribute("aria-busy");
      }
    }
  }

  #ask(signal, limit, cursor = null) {
    const { q } = this.#shown;
    if (!q) return api.feed(VISITOR, { limit, cursor }, signal);
    return api.search({ query: q, limit, explain: true, ...asked(this.#shown), ...(cursor ? { cursor } : {}) }, signal);
  }

  #take(answer) {
    this.#results = answer.results;
    this.#learn(answer);
  }

  /** The categories, languages and boards of the newest pins, so that there is a choice before there are results. */
  async #learnFilters() {
    const answer = await api.feed(VISITOR, { limit: MOST }).catch(() => null); // a problem shows in the view itself
    if (!answer) return;
    this.#filters.know(answer.results);
    if (this.#shown) this.#drawFilters();
  }

  #learn(answer) {
    this.#cursor = answer.cursor;
    find(".more", this.#root).hidden = !answer.cursor;
    this.#filters.know(answer.results);
  }

  async #more() {
    const button = find(".more", this.#root);
    button.disabled = true;
    try {
      const answer = await this.#ask(this.#asking?.signal, PAGE, this.#cursor);
      this.#learn(answer);
      this.#results.push(...answer.results);
      const added = this.masonry.append(answer.results);
      find(".card-open", added[0])?.focus({ preventScroll: true });
      say(`${plural(added.length, "more pin")}`);
    } catch (problem) {
      if (problem.status === 410) this.#load(); // the model that the pages were of is gone: begin again
      else if (problem.name !== "AbortError") this.#notice(problemNotice(problem, () => this.#more()));
    } finally {
      button.disabled = false;
    }
  }

  #drawTitle(query) {
    find("#search-title").replaceChildren(query ? el("span", { class: "quoted" }, query) : "Newest pins");
  }

  #drawMeta(answer) {
    this.#drawTitle(answer.query ?? "");
    const guess = answer.lang_guess ? `${languageName(answer.lang_guess)} query` : "";
    const count = `${plural(this.masonry.size, "pin")}${answer.cursor ? ", more below" : ""}`;
    find(".meta", this.#root).replaceChildren(el("span", {}, [count, guess].filter(Boolean).join(" · ")), facts(answer));
  }

  #drawFilters() {
    const { q } = this.#shown;
    find(".filters", this.#root).hidden = !q;
    find(".hero", this.#root).hidden = Boolean(q);
    this.#filters.draw(this.#shown);
  }

  #nothing() {
    const { q } = this.#shown;
    if (!q) return empty("No pins yet", "As soon as the first pin is embedded, it is here.");
    if (!narrows(this.#shown)) return empty("Nothing fits that", `No pin comes near “${q}”. Fewer or other words may find one.`);
    const clear = el("button", { class: "button", type: "button", on: { click: () => this.#filters.clear() } }, "Remove filters");
    return empty("Nothing fits that here", `No pin comes near “${q}” with these filters.`, clear);
  }

  #notice(content) {
    find(".notice-slot", this.#root).replaceChildren(...(content ? [content] : []));
    if (content) find(".more", this.#root).hidden = true;
    if (content) find(".meta", this.#root).replaceChildren();
  }
}
