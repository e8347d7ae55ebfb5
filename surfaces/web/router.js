/** What the page shows, kept in the address: `#/search?q=herbs&pin=garden-012`. A link can be shared, and Back works. */

export const VIEWS = ["search", "feed", "map"];
const FIELDS = ["q", "lang", "category", "match", "board", "since", "level", "below", "diversity", "user", "pin", "related"];
const USER = "everpin.user";
const listeners = [];

/** The state: `view`, and a string (empty: not set) for each field. */
export function state() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const params = new URLSearchParams(query);
  const fields = Object.fromEntries(FIELDS.map((name) => [name, params.get(name) ?? ""]));
  return { view: VIEWS.includes(path) ? path : "search", ...fields, user: fields.user || sessionStorage.getItem(USER) || "user-01" };
}

/** The address of the present state with changes. The user belongs to the feed's address only, the choice of related pins to a pin's. */
export function href(changes) {
  const next = { ...state(), ...changes };
  const wanted = FIELDS.filter((name) => next[name] && (name !== "user" || next.view === "feed") && (name !== "related" || next.pin));
  const query = new URLSearchParams(wanted.map((name) => [name, next[name]]));
  return `#/${next.view}${wanted.length ? `?${query}` : ""}`;
}

/** Go to a changed state; `replace` leaves no step for Back. */
export function go(changes, { replace = false } = {}) {
  if (changes.user) sessionStorage.setItem(USER, changes.user);
  const address = href(changes);
  if (address === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  tell();
}

export function onChange(listener) {
  listeners.push(listener);
}

export function tell() {
  for (const listener of listeners) listener(state());
}

addEventListener("popstate", tell);
