/** Numbers, times and codes in words. */

const LANGUAGES = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });

/** A language code's English name; the code itself where it is no language. */
export function languageName(code) {
  try {
    return LANGUAGES.of(code);
  } catch {
    return code;
  }
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** `840 ms`, `2.4 s`. */
export const milliseconds = (ms) => (ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** `3 s ago`, `4 min ago`, `2 h ago`, `5 days ago`. */
export function ago(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** A title to show: the pin's own, else its first board, else its id. */
export const titleOf = (card) => card.title || card.boards?.[0] || card.pin_id;

export const dateTime = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** A day such as `2026-10-01` in words. */
export const day = (text) => new Date(text).toLocaleDateString("en-GB", { dateStyle: "medium", timeZone: "UTC" });
