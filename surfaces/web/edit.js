/** Edit a title in place and watch it arrive: event accepted, pin embedded anew, results asked again, each with its time. */

import * as api from "./api.js";
import { el, find, say } from "./dom.js";
import { keyForm } from "./notices.js";
import { milliseconds, titleOf } from "./words.js";

const POLL_MS = 120;
const PATIENCE_MS = 30_000;
const STEPS = [
  ["sent", "Event accepted"],
  ["embedded", "Embedded anew"],
  ["searchable", "Results asked again"],
];

export class Editor {
  #pin;
  #v;
  #hooks;
  #run = 0;

  /** `onEmbedded(answer)`: the pin's new story; `onSearchable()`: ask the list again, gives its changes or null. */
  constructor(answer, hooks) {
    this.#pin = answer.pin;
    this.#v = answer.v;
    this.#hooks = hooks;
    this.element = el("div", { class: "editor" });
    this.trail = el("div", { class: "trail", hidden: true });
    this.#read();
  }

  #read(focus = false) {
    const edit = el("button", { class: "button is-quiet edit", type: "button", on: { click: () => this.#write() } }, "Edit title");
    const heading = el("h2", { id: "panel-title", lang: this.#pin.lang || null }, titleOf(this.#pin));
    this.element.replaceChildren(el("div", { class: "title-row" }, heading, edit), this.trail);
    if (focus) edit.focus({ preventScroll: true });
  }

  #write() {
    const input = el("textarea", { class: "field", id: "title", rows: 2, maxlength: 500, lang: this.#pin.lang || null });
    input.value = this.#pin.title;
    const cancel = el("button", { class: "button is-quiet", type: "button", on: { click: () => this.#read(true) } }, "Cancel");
    const save = el("button", { class: "button is-primary", type: "submit" }, "Save title");
    const onKey = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        this.#read(true);
      }
    };
    const onSubmit = (event) => {
      event.preventDefault();
      this.#send(input.value.trim());
    };
    const label = el("label", { for: "title", class: "label" }, "Title");
    const heading = el("h2", { id: "panel-title", class: "unseen" }, titleOf(this.#pin));
    const form = el("form", { class: "title-form", on: { submit: onSubmit } }, label, input, el("div", { class: "form-actions" }, save, cancel));
    input.addEventListener("keydown", onKey);
    this.element.replaceChildren(heading, form, this.trail);
    input.focus();
    input.select();
  }

  async #send(title) {
    if (title === this.#pin.title) return this.#read(true);
    const run = (this.#run += 1);
    const started = performance.now();
    const passed = () => performance.now() - started;
    const was = this.#pin;
    this.#pin = { ...was, title };
    this.#read(true);
    this.#startTrail();
    try {
      await api.edit(was.pin_id, { title });
      this.#step("sent", passed());
      const fresh = await this.#embedded(title, () => run === this.#run && this.element.isConnected, passed);
      if (!fresh) return;
      this.#step("embedded", passed());
      this.#v = fresh.v;
      this.#pin = fresh.pin;
      this.#hooks.onEmbedded(fresh);
      const changes = await this.#hooks.onSearchable();
      this.#step("searchable", passed());
      this.#end(outcome(changes), "is-done");
    } catch (problem) {
      this.#pin = was;
      this.#failed(problem, title);
    }
  }

  /** The pin's story once its version or title is new; null when another edit took over or nothing came in time. */
  async #embedded(title, wanted, passed) {
    while (wanted()) {
      const answer = await api.pin(this.#pin.pin_id).catch((problem) => waitOut(problem));
      if (answer && (answer.v !== this.#v || answer.pin.title === title)) return answer;
      if (passed() > PATIENCE_MS) {
        this.#end("No new vector came within 30 s. The change may be too small to matter to the model, or the worker is behind.", "is-late");
        return null;
      }
      await pause(POLL_MS);
    }
    return null;
  }

  #startTrail() {
    const steps = STEPS.map(([name, words]) => el("li", { "data-step": name }, el("span", { class: "step-mark", "aria-hidden": "true" }), el("span", {}, words), el("span", { class: "step-time" })));
    this.trail.className = "trail";
    this.trail.hidden = false;
    this.trail.replaceChildren(el("ol", {}, steps), el("p", { class: "outcome" }, "The edit is on its way."));
    steps[0].classList.add("is-now");
    this.trail.scrollIntoView({ block: "nearest" });
  }

  #step(name, ms) {
    const step = find(`[data-step="${name}"]`, this.trail);
    step.classList.remove("is-now");
    step.classList.add("is-done");
    find(".step-time", step).textContent = milliseconds(ms);
    step.nextElementSibling?.classList.add("is-now");
  }

  #end(words, className) {
    this.trail.classList.add(className);
    for (const step of this.trail.querySelectorAll(".is-now")) step.classList.remove("is-now");
    find(".outcome", this.trail).textContent = words;
    say(words);
  }

  #failed(problem, title) {
    this.#read();
    this.trail.hidden = false;
    this.trail.className = "trail is-late";
    const asksKey = problem.status === 401 || problem.status === 403;
    const again = () => this.#send(title);
    const way = asksKey ? keyForm(again) : el("button", { class: "button", type: "button", on: { click: again } }, "Try again");
    const words = `The edit did not arrive: ${problem.detail || problem.title || problem.message}`;
    this.trail.replaceChildren(el("p", { class: "outcome" }, words), way);
    say(words);
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A busy server is waited for; every other problem goes on up. */
async function waitOut(problem) {
  if (problem.status !== 429 && problem.status !== 503) throw problem;
  await pause(1000 * (problem.retryAfterS ?? 1));
  return null;
}

function outcome(changes) {
  if (!changes) return "Every search from now on finds it by its new title.";
  const { from, to, shown } = changes;
  if (from && to) return from === to ? `It keeps its place: ${to} of ${shown}.` : `It went from place ${from} to ${to}.`;
  if (to) return `It came into the list, at place ${to}.`;
  return from ? `It left the first ${shown}: its new title is about something else.` : "It is not among the pins listed here.";
}
