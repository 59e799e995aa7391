// A tab of a browser with clients in it, seen from the test.
import { until } from "./stage.mjs";

/** Opens a tab and makes clients in it, one for each of the settings. */
export async function openTab(context, origin, ...settings) {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(origin);
  for (const options of settings) await listen(page, options);
  return page;
}

/** Makes a client in a tab. Of another `version` all modules are other ones. */
export function listen(page, options, version = 0) {
  const run = async ([options, version]) => void (await import(`/v${version}/listen.js`)).listen(options);
  return page.evaluate(run, [options, version]);
}

/** What each client of the tab has logged so far, and the attempts of all of them. */
export function logsOf(page) {
  return page.evaluate(() => ({ attempts: window.attempts, logs: window.logs.map(({ client, ...log }) => log) }));
}

/** What the tab's only client has logged. */
export const logOf = async (page) => (await logsOf(page)).logs[0];

/** Waits until all clients of the tab are open. */
export function untilOpen(page, limitMs) {
  const all = () => page.evaluate(() => window.logs.every(({ states }) => states.at(-1)?.state === "open"));
  return until("every client is open", all, limitMs);
}

/** Waits until all clients of the tab have heard the event with this position. */
export function untilHeard(page, id, limitMs) {
  const all = () => page.evaluate((id) => window.logs.every(({ ids }) => ids.includes(id)), id);
  return until(`every client has heard ${id}`, all, limitMs);
}

/** The waits of a client that the test let end: why, how long it said, and how long it took until the next attempt. */
export function waitsOf({ states }) {
  return states.flatMap(({ state, reason, retryMs, at }, i) => {
    const next = states[i + 1];
    return state === "waiting" && next ? [{ reason, retryMs, tookMs: next.at - at, next: next.state }] : [];
  });
}
