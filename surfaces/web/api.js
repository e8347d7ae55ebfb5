/** The HTTP API, one function a route. Raises Problem for every answer that is not a success, and for no answer at all. */

const KEY = "everpin.key";

/** An error to show: RFC 9457's title and detail, the status (0: no answer came), and when to try again. */
export class Problem extends Error {
  constructor(status, title, detail, retryAfterS = null) {
    super(detail || title);
    Object.assign(this, { status, title, detail, retryAfterS });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export const search = (body, signal) => shown(call("POST", "/v1/search", { body, signal }));
export const pin = (id, signal) => call("GET", `/v1/pins/${part(id)}`, { signal });
export const related = (id, params, signal) => call("GET", `/v1/pins/${part(id)}/related`, { params, signal });
export const feed = (user, params, signal) => shown(call("GET", `/v1/users/${part(user)}/feed`, { params, signal }));
export const map = (signal) => call("GET", "/v1/map", { signal });
export const edit = (id, body) => call("PATCH", `/v1/pins/${part(id)}`, { body });
/** `shownBy`: request id of the answer that showed the pin, by which a running experiment counts the action. */
export const act = (user, pinId, action, shownBy) => call("POST", `/v1/users/${part(user)}/actions`, { body: { actions: [{ pin_id: pinId, action, request_id: shownBy }] } });

const part = (id) => encodeURIComponent(id);

/** An answer whose results say which answer they are of. */
async function shown(asked) {
  const answer = await asked;
  return { ...answer, results: answer.results.map((result) => ({ ...result, shownBy: answer.request_id })) };
}

async function call(method, path, { body, params, signal } = {}) {
  const wanted = Object.entries(params ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = wanted.length ? `?${new URLSearchParams(wanted)}` : "";
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const started = performance.now();
  const response = await answerOf(() => fetch(path + query, { method, headers, signal, body: body && JSON.stringify(body) }));
  const answer = await answerOf(() => response.json(), response);
  if (!response.ok) throw problemOf(response, answer);
  return { ...answer, roundTripMs: performance.now() - started };
}

/** What a step gives, with a failure of the network or of the format told as a Problem; an abort stays an abort. */
async function answerOf(step, response = null) {
  try {
    return await step();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response && !response.ok) return {};
    const status = response?.status ?? 0;
    throw new Problem(status, "Everpin does not answer", status ? "The answer was cut short or is not JSON." : "Check that the server is running and reachable.");
  }
}

function problemOf(response, answer) {
  const after = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const title = answer.title ?? `The server answered ${response.status}`;
  return new Problem(response.status, title, typeof answer.detail === "string" ? answer.detail : "", Number.isFinite(after) ? after : null);
}
