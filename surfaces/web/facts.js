/** The discreet line of an answer: how long it took, of which model, and its request id. */

import { el } from "./dom.js";
import { milliseconds } from "./words.js";

/** Total time as the summary; stages, model, collection, request id and `more` rows behind it. */
export function facts(answer, more = []) {
  const { total, ...stages } = answer.timings_ms;
  const rows = [
    ...Object.entries(stages).map(([name, ms]) => [name.replaceAll("_", " "), milliseconds(ms)]),
    ["server", milliseconds(total ?? 0)],
    ["to this page", milliseconds(answer.roundTripMs)],
    ["model", answer.model_id],
    ["collection", answer.collection],
    ["request", answer.request_id],
    ...more,
  ];
  return el("details", { class: "facts" }, el("summary", {}, `${milliseconds(total ?? 0)} · ${answer.model_id}`), factList(rows));
}

/** Names and values in two columns. */
export function factList(rows) {
  return el("dl", { class: "fact-list" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
