/** The home feed of a user: their interests, the pins that follow from them, and how both follow what the user does. */

import * as api from "./api.js";
import { art } from "./art.js";
import { card } from "./cards.js";
import { Diversity } from "./diversity.js";
import { el, find, say, toast } from "./dom.js";
import { facts } from "./facts.js";
import { Masonry } from "./masonry.js";
import { isDiversity } from "./narrowing.js";
import { busy, empty, problemNotice, skeleton } from "./notices.js";
import { go } from "./router.js";
import { capital, milliseconds, percent, plural } from "./words.js";

const PAGE = 24;
const MOST = 100;
const MOST_INTERESTS = 12; // shown
const USERS = 40; // of the sample
const FOLLOW_MS = 15_000;
const POLL_MS = 250;

export class FeedView {
  #root = find("#view-feed");
  #shown = { user: "", diversity: "" }; // what the list is of
  #asking = null;
  #cursor = null;
  #interests = [];
  #results = [];
  #only = ""; // the interest that is looked at
  #medoids = new Map(); // pin_id -> promise of its card

  constructor(onSave) {
    this.masonry = new Masonry(find(".cards", this.#root), (item, rank) => card(item, { note: this.#why(item), onSave, rank }));
    find(".more", this.#root).addEventListener("click", () => this.#more());
    const ids = Array.from({ length: USERS }, (_, i) => `user-${String(i + 1).padStart(2, "0")}`);
    find("#users").append(...ids.map((id) => el("option", { value: id })));
    this.slider = new Diversity((diversity) => go({ diversity }, { replace: true }));
    find(".feed-head", this.#root).append(this.slider.element);
    find("#user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#switch();
    });
    find("#user").addEventListener("change", () => this.#switch());
    find("#user").addEventListener("focus", (event) => event.target.select());
  }

  /** The result of a pin; undefined where it is not in the list. */
  resultOf(pinId) {
    return this.#results.find((result) => result.pin_id === pinId);
  }

  show({ user, diversity: wanted }) {
    const diversity = isDiversity(wanted) ? wanted : "";
    find("#user").value = user;
    this.slider.draw(diversity);
    const before = this.#shown;
    if (user === before.user && diversity === before.diversity) return;
    if (user !== before.user) this.#only = "";
    this.#shown = { user, diversity };
    this.#load();
  }

  /** After an edit: ask again and mark what changed. */
  async refresh(edited) {
    const shown = this.#shown;
    if (!shown.user) return null;
    const from = this.masonry.rankOf(edited);
    const answer = await this.#ask({ limit: this.#limit() });
    if (shown !== this.#shown) return null;
    const changes = this.#render(answer, { mark: true, edited });
    return { ...changes, from, to: this.masonry.rankOf(edited), shown: answer.results.length };
  }

  /** After an action: ask until the interests have taken it in, then mark what changed in the list. */
  async follow(user) {
    const started = performance.now();
    const passed = () => performance.now() - started;
    const before = signature(this.#interests);
    while (user === this.#shown.user && passed() < FOLLOW_MS) {
      const shown = this.#shown;
      const answer = await this.#ask({ limit: this.#limit() }).catch((problem) => pause(1000 * (problem.retryAfterS ?? 0)));
      if (answer && shown === this.#shown && signature(answer.interests) !== before) {
        const { came } = this.#render(answer, { mark: true });
        toast(`Feed followed after ${milliseconds(passed())}: ${plural(came.length, "new pin")}`, "is-good");
        return;
      }
      await pause(POLL_MS);
    }
  }

  #ask(params, signal) {
    const { user, diversity } = this.#shown;
    return api.feed(user, { ...params, diversity }, signal);
  }

  #limit() {
    return Math.min(MOST, Math.max(PAGE, this.masonry.size));
  }

  #switch() {
    const user = find("#user").value.trim();
    if (user) go({ view: "feed", user, pin: "" });
  }

  async #load() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    if (this.masonry.size === 0) this.#notice(skeleton());
    busy(true);
    try {
      const answer = await this.#ask({ limit: PAGE }, asking.signal);
      this.#render(answer);
      const nobody = () => empty("Nothing to show yet", "No pins are in the index.");
      this.#notice(answer.results.length ? null : nobody());
      say(`Home feed of ${this.#shown.user}: ${plural(answer.results.length, "pin")}`);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.masonry.render([]);
      find(".interests", this.#root).replaceChildren();
      this.#notice(problemNotice(problem, () => this.#load()));
    } finally {
      if (asking === this.#asking) busy(false);
    }
  }

  #render(answer, marks) {
    this.#interests = answer.interests;
    this.#results = answer.results;
    this.#cursor = answer.cursor;
    find(".more", this.#root).hidden = !answer.cursor;
    const changes = this.masonry.render(answer.results, marks);
    this.#drawInterests(answer);
    this.#dim();
    const words = answer.kind === "newest" ? "No history yet, so the newest pins" : plural(answer.interests.length, "interest");
    find(".meta", this.#root).replaceChildren(el("span", {}, `${words} · ${plural(answer.results.length, "pin")}`), facts(answer));
    return changes;
  }

  async #more() {
    try {
      const answer = await this.#ask({ limit: PAGE, cursor: this.#cursor }, this.#asking?.signal);
      this.#cursor = answer.cursor;
      this.#results.push(...answer.results);
      find(".more", this.#root).hidden = !answer.cursor;
      const added = this.masonry.append(answer.results);
      find(".card-open", added[0])?.focus({ preventScroll: true });
      this.#dim();
    } catch (problem) {
      if (problem.status === 410) this.#load();
      else if (problem.name !== "AbortError") this.#notice(problemNotice(problem, () => this.#more()));
    }
  }

  #drawInterests({ interests, kind }) {
    const list = find(".interests", this.#root);
    list.hidden = kind === "newest";
    const first = [...interests].sort((a, b) => b.sampled - a.sampled || b.importance - a.importance).slice(0, MOST_INTERESTS);
    const rest = interests.length - first.length;
    const more = rest > 0 && el("li", { class: "interests-more muted" }, `and ${rest} more`);
    list.replaceChildren(...first.map((interest) => el("li", {}, this.#interest(interest))), ...(more ? [more] : []));
  }

  /** An interest: its medoid, its share, and whether this answer drew on it. Pressed, it leaves its own pins in sight. */
  #interest({ medoid, title, importance, pins, sampled }) {
    const look = () => {
      this.#only = this.#only === medoid ? "" : medoid;
      this.#dim();
    };
    const picture = el("span", { class: "interest-picture" });
    this.#card(medoid).then((card) => picture.append(art(card, { ratio: 1, badge: false })));
    return el(
      "button",
      { class: `interest${sampled ? " is-sampled" : ""}`, type: "button", "data-medoid": medoid, "aria-pressed": "false", disabled: !sampled, on: { click: look } },
      picture,
      el("span", { class: "interest-text" }, el("span", { class: "interest-title" }, title || medoid), el("span", { class: "interest-facts" }, `${percent(importance)} · ${plural(pins, "pin")}`)),
      el("span", { class: "interest-state" }, sampled ? "In this feed" : "Resting"),
    );
  }

  /** A medoid's card, asked for once; a bare one where it cannot be read. */
  #card(medoid) {
    if (!this.#medoids.has(medoid)) {
      const bare = { pin_id: medoid, category: "", image_url: "" };
      this.#medoids.set(medoid, api.pin(medoid).then((answer) => answer.pin, () => bare));
    }
    return this.#medoids.get(medoid);
  }

  #dim() {
    for (const button of this.#root.querySelectorAll(".interest")) button.setAttribute("aria-pressed", String(button.dataset.medoid === this.#only));
    for (const node of this.#root.querySelectorAll(".card")) {
      const note = find("[data-interest]", node);
      node.classList.toggle("is-dim", Boolean(this.#only) && note?.dataset.interest !== this.#only);
    }
  }

  #why({ why, interest }) {
    return el("span", { class: "why", "data-interest": interest ?? "" }, capital(why));
  }

  #notice(content) {
    find(".notice-slot", this.#root).replaceChildren(...(content ? [content] : []));
    if (content) find(".more", this.#root).hidden = true;
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What of the interests an action changes; importance alone drifts with time. */
const signature = (interests) => JSON.stringify(interests.map(({ medoid, pins }) => [medoid, pins]).sort());
