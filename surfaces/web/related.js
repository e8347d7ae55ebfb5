/** The pins like a pin, each with its reason, and what they have to share with it. That choice lives in the address: `related=lang,varied`. */

import * as api from "./api.js";
import { row } from "./cards.js";
import { el, say } from "./dom.js";
import { go } from "./router.js";
import { capital, plural } from "./words.js";

const PAGE = 8;
const VARIED = 0.5; // diversity where variety is asked for
const CHOICES = { lang: "Same language", category: "Same category", varied: "More varied" };

export class Related {
  #pin;
  #chosen = null;
  #asking = null;

  /** Of a pin's card. Nothing is asked before `show`. */
  constructor(pin) {
    this.#pin = pin;
    const names = Object.keys(CHOICES).filter((name) => name === "varied" || pin[name]);
    this.choices = el("div", { class: "related-choices", role: "group", "aria-label": "Related pins have" }, names.map((name) => this.#choice(name)));
    this.rows = el("div", { class: "rows" });
    this.foot = el("div");
    this.element = el("section", { class: "related", "aria-labelledby": "related-title" }, el("h3", { id: "related-title" }, "Related pins"), this.choices, this.rows, this.foot);
  }

  /** Show the choice of the address; asks where it is another one than before. */
  async show(address) {
    const chosen = address.split(",").filter((name) => name in CHOICES);
    if (String(chosen) === String(this.#chosen)) return;
    const again = this.#chosen !== null;
    this.#chosen = chosen;
    for (const chip of this.choices.children) chip.setAttribute("aria-pressed", String(chosen.includes(chip.dataset.choice)));
    this.leave();
    this.#asking = new AbortController();
    await this.#load(this.#asking.signal);
    if (again) say(`${plural(this.rows.querySelectorAll(".row").length, "related pin")}`);
  }

  /** Wait for no answer any more. */
  leave() {
    this.#asking?.abort();
  }

  async #load(signal, cursor = null) {
    try {
      const answer = await api.related(this.#pin.pin_id, { limit: PAGE, ...this.#asked(), cursor }, signal);
      const found = answer.results.map((item) => row(item, capital(item.why)));
      if (cursor) this.rows.append(...found);
      else this.rows.replaceChildren(...(found.length ? found : [el("p", { class: "muted" }, this.#none())]));
      const more = () => this.#load(signal, answer.cursor);
      this.foot.replaceChildren(...(answer.cursor ? [el("button", { class: "button", type: "button", on: { click: more } }, "More like this")] : []));
      if (cursor) found[0]?.focus({ preventScroll: true });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      const words = problem.status === 404 ? "It has no vector, so nothing is near it." : `${problem.title}. ${problem.detail ?? ""}`;
      this.rows.replaceChildren(el("p", { class: "muted" }, words));
      this.foot.replaceChildren();
    }
  }

  #asked() {
    const { lang, category } = this.#pin;
    const has = (name) => this.#chosen.includes(name);
    return { lang: has("lang") ? lang : null, category: has("category") ? category : null, diversity: has("varied") ? VARIED : null };
  }

  #none() {
    return this.#chosen.some((name) => name !== "varied") ? "No pin that shares this is near enough." : "No pin is near enough to this one.";
  }

  #choice(name) {
    const toggle = () => {
      const chosen = this.#chosen ?? [];
      const next = Object.keys(CHOICES).filter((one) => (one === name ? !chosen.includes(one) : chosen.includes(one)));
      go({ related: next.join(",") }, { replace: true });
    };
    return el("button", { class: "chip is-small", type: "button", "data-choice": name, "aria-pressed": "false", on: { click: toggle } }, CHOICES[name]);
  }
}
