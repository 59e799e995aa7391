// Clients in a page, and a log of all that happens to them. Times are Unix milliseconds, to be compared with the test's.
import { createClient } from "./fanlight/index.js";

const now = () => performance.timeOrigin + performance.now();

/** Every stream that the page has asked for by `fetch`: when, and what was answered. */
if (!window.attempts) {
  window.attempts = [];
  window.logs = [];
  const { fetch } = window;
  window.fetch = async (input, init) => {
    const attempt = { at: now() };
    window.attempts.push(attempt);
    const response = await fetch(input, init);
    return Object.assign(attempt, { answeredAt: now(), status: response.status, retryAfter: response.headers.get("Retry-After") }), response;
  };
}

/** Makes a client, connects it, and logs. */
export function listen(options) {
  const log = { ids: [], gaps: [], states: [], client: createClient({ types: ["tick"], ...options }) };
  window.logs.push(log);
  log.client.on("tick", ({ lastEventId }) => log.ids.push(lastEventId));
  log.client.on("connected", ({ data }) => (log.node = data.node));
  log.client.on("gap", ({ data }) => log.gaps.push({ at: now(), ...data }));
  log.client.on("state", ({ data }) => log.states.push({ at: now(), ...data }));
  log.client.connect();
  return log;
}

/** The browser's own `EventSource`, without the package. */
export function listenNatively(url) {
  const log = { ids: [], gaps: [], states: [] };
  window.logs.push(log);
  const source = new EventSource(url);
  source.addEventListener("connected", () => log.states.push({ at: now(), state: "open" }));
  source.addEventListener("limit", ({ data }) => log.states.push({ at: now(), state: "waiting", ...JSON.parse(data) }));
  source.addEventListener("tick", ({ lastEventId }) => log.ids.push(lastEventId));
}
