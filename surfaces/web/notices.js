/** What a view shows when there is nothing to show: loading, empty, and every kind of problem with its way out. */

import { key } from "./api.js";
import { el, find, say } from "./dom.js";
import { ratioOf } from "./art.js";
import { plural } from "./words.js";

const RETRY_BY_ITSELF = new Set([429, 503]);
let forms = 0;

/** Cards without content, for a first load. */
export function skeleton(count = 12) {
  const cards = Array.from({ length: count }, (_, i) => el("div", { class: "ghost", style: { "--ratio": String(1 / ratioOf(`ghost ${i}`)) } }));
  return el("div", { class: "ghosts", "aria-hidden": "true" }, cards);
}

export function empty(title, detail, ...actions) {
  return el("div", { class: "notice" }, el("h2", {}, title), el("p", {}, detail), actions.length ? el("div", { class: "notice-actions" }, actions) : null);
}

/** A problem and what to do about it; `retry` is called by a button, by a countdown (429, 503), or once a key is given (401, 403). */
export function problemNotice(problem, retry) {
  say(`${problem.title}. ${problem.detail ?? ""}`);
  const notice = el("div", { class: "notice is-problem" }, el("h2", {}, headline(problem)), problem.detail && el("p", {}, problem.detail));
  if (problem.status === 401 || problem.status === 403) notice.append(keyForm(retry));
  else notice.append(retryButton(problem, retry));
  return notice;
}

function headline({ status, title }) {
  return { 401: "This Everpin asks for an API key", 403: "This key may not do that", 429: "A little slower, please", 503: "Everpin is busy" }[status] ?? title;
}

function retryButton({ status, retryAfterS }, retry) {
  const words = el("span", { class: "muted" });
  let left = Math.ceil(retryAfterS ?? 2);
  let timer = 0;
  const again = () => {
    clearInterval(timer);
    retry();
  };
  const button = el("button", { class: "button", type: "button", on: { click: again } }, "Try again");
  const actions = el("div", { class: "notice-actions" }, button, words);
  const tick = () => {
    if (left <= 0) return actions.isConnected ? again() : clearInterval(timer);
    words.textContent = `Tries again in ${plural(left, "second")}`;
    left -= 1;
  };
  if (RETRY_BY_ITSELF.has(status)) {
    tick();
    timer = setInterval(tick, 1000);
  }
  return actions;
}

/** Asks for an API key, which stays in this tab's session only. */
export function keyForm(done) {
  const id = `api-key-${(forms += 1)}`;
  const input = el("input", { class: "field", id, type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const send = (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    done();
  };
  return el(
    "form",
    { class: "key-form", on: { submit: send } },
    el("label", { for: id }, "API key"),
    el("div", { class: "key-row" }, input, el("button", { class: "button is-primary", type: "submit" }, "Use key")),
    el("p", { class: "muted" }, "Kept in this tab only, until you close it."),
  );
}

/** Show that a view waits for an answer. */
export function busy(on) {
  find("#progress").classList.toggle("is-on", on);
}
