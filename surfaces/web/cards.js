/** What stands on a card: picture, title, and relevance or reason. */

import { art } from "./art.js";
import { el } from "./dom.js";
import { glyph } from "./categories.js";
import { href } from "./router.js";
import { capital, plural, titleOf } from "./words.js";

/** A relevance level as five bars and its words, so that no colour is needed to read it. */
export function badge({ level, level_label: words, relevance }) {
  const bars = Array.from({ length: 5 }, (_, i) => el("i", { class: i < level ? "on" : "" }));
  return el(
    "span",
    { class: `badge level-${level}`, title: `Expected relevance ${relevance.toFixed(2)} of 5` },
    el("span", { class: "bars", "aria-hidden": "true" }, bars),
    el("span", {}, capital(words)),
    el("span", { class: "unseen" }, `, level ${level} of 5`),
  );
}

/** A pin as a card. `note`: what to say below the title; `onSave`: called when the pin is saved. */
export function card(item, { note = null, onSave, rank }) {
  const title = titleOf(item);
  return [
    el(
      "a",
      { class: "card-open", href: href({ pin: item.pin_id }), "data-rank": rank },
      art(item),
      el("span", { class: "card-title", lang: item.lang || null }, title),
    ),
    note && el("div", { class: "card-note" }, note),
    item.duplicates?.length > 0 && el("p", { class: "card-more" }, `and ${plural(item.duplicates.length, "near-duplicate")}`),
    item.refused && el("p", { class: "card-warning", title: item.refused }, "Shown by its previous text"),
    el("button", { class: "save", type: "button", "aria-label": `Save ${title}`, on: { click: (event) => onSave(item, event.currentTarget) } }, "Save"),
  ].filter(Boolean);
}

/** A small picture, title and reason in a row. `onOpen` makes it a link's click. */
export function row(item, words) {
  return el(
    "a",
    { class: "row", href: href({ pin: item.pin_id }), "data-pin": item.pin_id },
    art(item, { ratio: 1, badge: false }),
    el("span", { class: "row-text" }, el("span", { class: "row-title", lang: item.lang || null }, titleOf(item)), el("span", { class: "row-why" }, words)),
  );
}

export const categoryTag = (category) => el("span", { class: "tag" }, glyph(category), capital(category));
