/** The page: its three views, the search box above them, the pin panel beside them. What is shown is in the address (router.js). */

import * as api from "./api.js";
import { find, toast } from "./dom.js";
import { FeedView } from "./feed.js";
import { MapView } from "./map.js";
import { Panel } from "./panel.js";
import { VIEWS, go, href, onChange, state, tell } from "./router.js";
import { SearchView } from "./search.js";
import { titleOf } from "./words.js";

const PAUSE_MS = 180; // in typing, before a search

const views = { search: new SearchView(save), feed: new FeedView(save), map: new MapView() };
const panel = new Panel({
  resultOf: (id) => (state().view === "search" ? views.search.resultOf(id) : undefined),
  query: () => views.search.query,
  onChanged: changed,
  onSave: save,
});
const query = find("#query");

/** A pin was embedded anew: every view that was opened asks again; gives the changes in the one that is shown. */
function changed(pinId) {
  const shown = state().view;
  for (const name of VIEWS) if (name !== shown) views[name].refresh(pinId).catch(() => {}); // a problem shows when the view is opened
  return views[shown].refresh(pinId);
}

/** A save is an action of the present user; the feed follows it. */
async function save(card, button) {
  const { user } = state();
  button.disabled = true;
  try {
    await api.act(user, card.pin_id, "save", card.shownBy ?? views[state().view].resultOf?.(card.pin_id)?.shownBy);
    button.textContent = "Saved";
    button.classList.add("is-saved");
    toast(`Saved “${titleOf(card)}” for ${user}`);
    views.feed.follow(user);
  } catch (problem) {
    toast(`Not saved: ${problem.detail || problem.title}`, "is-bad");
    if (problem.status === 401) go({ pin: card.pin_id });
  } finally {
    button.disabled = false;
  }
}

/** Opening a pin of the feed is a click of its user. */
function clicked(event) {
  const link = event.target.closest(".card-open");
  if (!link) return;
  const { user } = state();
  const pinId = link.closest(".card").dataset.pin;
  api.act(user, pinId, "click", views.feed.resultOf(pinId)?.shownBy).then(() => views.feed.follow(user), (problem) => toast(`The click was not taken: ${problem.detail || problem.title}`, "is-bad"));
}

function render(now) {
  for (const name of VIEWS) {
    find(`#view-${name}`).hidden = name !== now.view;
    const link = find(`[data-view="${name}"]`);
    link.href = href({ view: name, pin: "" });
    if (name === now.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (document.activeElement !== query || !typing) query.value = now.q;
  find("#clear").hidden = !query.value;
  document.title = { search: now.q ? `${now.q} · Everpin` : "Everpin", feed: `Home feed of ${now.user} · Everpin`, map: "Map · Everpin" }[now.view];
  for (const link of document.querySelectorAll("a[data-pin], .card-open")) link.href = href({ pin: link.dataset.pin ?? link.closest(".card").dataset.pin });
  views[now.view].show(now);
  panel.show(now.pin, now.related);
}

let typing = 0;

/** Search for what is typed: in the map by ringing, else in the search view. */
function ask() {
  clearTimeout(typing);
  typing = 0;
  const { view, q } = state();
  const wanted = query.value.trim();
  if (wanted === q) return;
  scrollTo({ top: 0 });
  go({ view: view === "map" ? "map" : "search", q: wanted, pin: "" }, { replace: Boolean(q) && Boolean(wanted) });
}

query.addEventListener("input", (event) => {
  find("#clear").hidden = !query.value;
  clearTimeout(typing);
  if (!event.isComposing) typing = setTimeout(ask, PAUSE_MS);
});
query.addEventListener("compositionend", () => {
  typing = setTimeout(ask, PAUSE_MS);
});
query.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && find(`#view-${state().view} .card-open`)) {
    event.preventDefault();
    find(`#view-${state().view} .card-open`).focus();
  } else if (event.key === "Escape" && query.value) {
    event.preventDefault();
    query.value = "";
    ask();
  }
});
find("#search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("#clear").addEventListener("click", () => {
  query.value = "";
  query.focus();
  ask();
});
find("#view-feed").addEventListener("click", clicked);
addEventListener("keydown", (event) => {
  const busyTyping = event.target.closest?.("input, textarea, select, dialog:modal");
  if (event.key !== "/" || busyTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  query.focus();
  query.select();
});

onChange(render);
tell();
