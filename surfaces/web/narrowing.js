/** The filters of a search as the address holds them, and what they ask of the API. Values that the API would refuse count as not set. */

import { capital, day, languageName, percent } from "./words.js";

export const MATCHES = [["", "Any match"], ["dense", "By meaning"], ["sparse", "By words"]];
export const LEVELS = ["Highly irrelevant", "Irrelevant", "Marginally relevant", "Relevant", "Highly relevant"];
export const EARLIEST = "1970-01-01";
const LABEL_CHARS = 200;

const isDay = (text) => /^\d{4}-\d\d-\d\d$/.test(text) && text >= EARLIEST && !Number.isNaN(Date.parse(text));
const isLabel = (text) => text.length <= LABEL_CHARS;
const isLevel = (text) => /^[2-5]$/.test(text);

/** A diversity that the API takes: more than 0, at most 1. */
export const isDiversity = (text) => /^(0?\.\d+|1(\.0+)?)$/.test(text) && Number(text) > 0;

const FITS = {
  category: isLabel,
  lang: isLabel,
  match: (text) => MATCHES.some(([value]) => value === text),
  board: isLabel,
  since: isDay,
  level: isLevel,
  below: (text, { level }) => text === "mark" && isLevel(level),
  diversity: isDiversity,
};

/** The address without any filter: for `go`. */
export const NONE = Object.fromEntries(Object.keys(FITS).map((name) => [name, ""]));

/** The filters of a state of the address, a string each; empty: not set. */
export function narrowing(state) {
  return Object.fromEntries(Object.entries(FITS).map(([name, fits]) => [name, state[name] && fits(state[name], state) ? state[name] : ""]));
}

/** Whether they can leave a pin out, rather than only choose its place. */
export const narrows = ({ lang, category, board, since, level, below }) => Boolean(lang || category || board || since || (level && !below));

/** Their part of a search's body. A day begins at midnight UTC, so that a shared address finds the same pins everywhere. */
export function asked({ lang, category, match, board, since, level, below, diversity }) {
  const filters = given({ lang, category, board, created_since: since && `${since}T00:00:00Z` });
  return { filters, ...given({ retrieval: match, min_level: Number(level), below, diversity: Number(diversity) }) };
}

/** `[name, words]` of each filter in use that has its place behind "Filters"; `below` belongs to its level, categories have chips of their own. */
export function inUse({ lang, match, board, since, level, below, diversity }) {
  const words = {
    lang: lang && capital(languageName(lang)),
    match: match && MATCHES.find(([value]) => value === match)[1],
    board: board && `On “${board}”`,
    since: since && `Since ${day(since)}`,
    level: level && `Level ${level} up${below ? ", weaker marked" : ""}`,
    diversity: diversity && `Diversity ${percent(diversity)}`,
  };
  return Object.entries(given(words));
}

const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value));
