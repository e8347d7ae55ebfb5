/** A pin's own panel: picture, title to edit, freshness, why it matched, related pins, and what the model read. */

import * as api from "./api.js";
import { art } from "./art.js";
import { badge, categoryTag } from "./cards.js";
import { Editor } from "./edit.js";
import { el, find, say } from "./dom.js";
import { factList } from "./facts.js";
import { problemNotice } from "./notices.js";
import { Related } from "./related.js";
import { go } from "./router.js";
import { ago, capital, dateTime, languageName, percent, titleOf } from "./words.js";

const SHEET = matchMedia("(max-width: 1099px)"); // narrower than this the panel covers the page, and is modal

export class Panel {
  #dialog = find("#panel");
  #body = find("#panel-body");
  #pinId = "";
  #choice = ""; // of related pins
  #asking = null;
  #opener = null;
  #clock = 0;

  /** `resultOf(id)`: the search result of a pin; `query()`: of what; `onChanged(id)`: asks the list again; `onSave(card, button)`. */
  constructor({ resultOf, query, onChanged, onSave }) {
    Object.assign(this, { resultOf, query, onChanged, onSave });
    find("#panel-close").addEventListener("click", () => this.#leave());
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#leave();
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#leave());
    addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && this.#pinId && !SHEET.matches && this.#leave());
    SHEET.addEventListener("change", () => this.#pinId && this.#open(true));
  }

  /** Show a pin, with a choice of related pins (see related.js), or with an empty id close. */
  show(pinId, choice) {
    this.#choice = choice;
    if (pinId === this.#pinId) return this.related?.show(choice);
    const was = this.#pinId;
    this.#pinId = pinId;
    this.#asking?.abort();
    this.related?.leave();
    this.related = null;
    clearInterval(this.#clock);
    if (!pinId) return this.#close(was);
    if (!was) this.#opener = document.activeElement;
    this.#body.replaceChildren(el("div", { class: "panel-ghost" }));
    this.#open(false);
    this.#load();
  }

  #open(again) {
    if (again || !this.#dialog.open) {
      this.#dialog.close();
      this.#dialog[SHEET.matches ? "showModal" : "show"]();
    }
    document.body.classList.add("has-panel");
    this.#dialog.scrollTop = 0;
    find("#panel-close").focus({ preventScroll: true });
  }

  #leave() {
    go({ pin: "" }, { replace: true });
  }

  /** The focus goes back to what opened the panel, or to the pin's card where an edit drew that anew. */
  #close(was) {
    this.#dialog.close();
    document.body.classList.remove("has-panel");
    const card = find(`section:not([hidden]) .card[data-pin="${CSS.escape(was)}"] .card-open`);
    const back = this.#opener?.isConnected && this.#opener !== document.body ? this.#opener : (card ?? find("#query"));
    back.focus({ preventScroll: true });
  }

  async #load() {
    const pinId = this.#pinId;
    const asking = (this.#asking = new AbortController());
    try {
      const answer = await api.pin(pinId, asking.signal);
      this.#draw(answer);
      await this.related.show(this.#choice);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      const notice = problem.status === 404 ? gone(pinId) : problemNotice(problem, () => this.#load());
      this.#body.replaceChildren(el("h2", { id: "panel-title", class: "unseen" }, pinId), notice);
    }
  }

  #draw(answer) {
    const { pin } = answer;
    this.editor = new Editor(answer, {
      onEmbedded: (fresh) => this.#redraw(fresh),
      onSearchable: () => this.#listed(pin.pin_id),
    });
    this.related = new Related(pin);
    this.saving = el("button", { class: "button", type: "button", on: { click: (event) => this.onSave(pin, event.currentTarget) } }, "Save");
    this.#body.replaceChildren(
      art(pin, { ratio: 0.62 }),
      el("div", { class: "panel-head" }, el("div", { class: "tags" }, pin.category && categoryTag(pin.category), pin.lang && el("span", { class: "tag" }, languageName(pin.lang))), this.saving),
      this.editor.element,
      el("section", { class: "story" }),
      el("section", { class: "match" }),
      this.related.element,
      el("section", { class: "read" }),
    );
    this.#redraw(answer);
    say(titleOf(pin));
  }

  /** Ask the list again, and say of the pin what the list now says; gives the list's changes. */
  async #listed(pinId) {
    const changes = await this.onChanged(pinId);
    if (pinId === this.#pinId) this.#drawMatch(pinId);
    return changes;
  }

  /** What an update changes: the story, the match, and what the model read. */
  #redraw(answer) {
    this.#drawStory(answer);
    this.#drawMatch(answer.pin.pin_id);
    this.#drawRead(answer);
  }

  #drawStory(answer) {
    const { pin, state: condition } = answer;
    const words = el("p", { class: "age" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("span", { class: "age-words" }));
    const received = performance.now();
    const tick = () => {
      find(".age-words", words).textContent = freshness(answer, (performance.now() - received) / 1000);
    };
    clearInterval(this.#clock);
    this.#clock = setInterval(tick, 1000);
    tick();
    const link = /^https?:/.test(pin.link_url) && el("a", { class: "link", href: pin.link_url, target: "_blank", rel: "noopener noreferrer" }, new URL(pin.link_url).hostname);
    const boards = pin.boards.length ? el("p", { class: "boards" }, el("span", { class: "muted" }, "Saved to "), [...new Set(pin.boards)].slice(0, 4).join(", ")) : null;
    const refused = pin.refused && el("p", { class: "card-warning" }, `Its newest text could not be embedded, so it is found by the one before: ${pin.refused}`);
    const stateNote = condition === "live" ? null : el("p", { class: "card-warning" }, condition === "deleted" ? "This pin is deleted." : "There is nothing to embed in this pin, so search does not find it.");
    find(".story", this.#body).replaceChildren(...[words, stateNote, refused, boards, link].filter(Boolean));
  }

  /** Why the last search found it: the level probabilities, and the ranks by meaning and by words. */
  #drawMatch(pinId) {
    const result = this.resultOf(pinId);
    const section = find(".match", this.#body);
    if (!result?.explain) return section.replaceChildren();
    const { level_probabilities: shares, dense_rank: dense, sparse_rank: sparse, matched_terms: terms, cosine } = result.explain;
    const bars = shares.map((share, i) => {
      const bar = el("span", { class: "share-bar" });
      bar.style.setProperty("--share", String(share));
      return el("li", { class: i + 1 === result.level ? "is-likely" : "" }, el("span", {}, `Level ${i + 1}`), bar, el("span", {}, percent(share)));
    });
    const found = [dense && `by meaning at ${dense}${cosine === null ? "" : ` (cosine ${cosine.toFixed(2)})`}`, sparse && `by words at ${sparse}`].filter(Boolean);
    section.replaceChildren(
      el("h3", {}, `Why “${this.query()}” found it`),
      badge(result),
      bars.length ? el("ol", { class: "shares" }, bars) : "",
      found.length ? el("p", { class: "muted" }, `Found ${found.join(" and ")}.`) : "",
      terms.length ? el("p", { class: "muted" }, `Shared words: ${terms.join(", ")}`) : "",
    );
  }

  #drawRead(answer) {
    const rows = [
      ["pin", answer.pin.pin_id],
      ["model", answer.model_id],
      ["version v", String(answer.v)],
      ["embedded", answer.embedded_at ? dateTime(answer.embedded_at) : "never"],
      ...Object.entries(answer.features_as_of).map(([view, time]) => [view, dateTime(time)]),
      ["collection", answer.collection],
      ["request", answer.request_id],
    ];
    const open = find(".read details", this.#body)?.open ?? false;
    const text = el("p", { class: "embedded-text", lang: answer.pin.lang || null }, answer.text || "(no text)");
    const content = el("details", { open }, el("summary", {}, "What the model read"), text, factList(rows));
    find(".read", this.#body).replaceChildren(content);
  }
}

/** `Embedded 3 s ago because its text changed in meaning`. */
function freshness({ age_s: age, reason_meaning: because }, since) {
  if (age === null) return `Not embedded: ${because}`;
  return `Embedded ${ago(age + since)} because ${because}`;
}

function gone(pinId) {
  return el("div", { class: "notice" }, el("h2", {}, "No such pin"), el("p", {}, `The index has no pin ${pinId}. It may have been deleted.`));
}
