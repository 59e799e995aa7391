/** The page's life, told to a client: seen, hidden, frozen, put away, back, online again. */
import type { Config } from "./options.js";
import type { Wake } from "./source.js";

/**
 * Looks at the page, and listens to it until `signal` is aborted. Outside a browser it is as if always seen.
 *
 * @param suspend - nothing can run until `resume`: let go of connection, locks and channel, so that another tab can take over
 * @param resume - the page runs, or is seen again; called at once unless it sleeps already
 */
export function watchPage(
  config: Config,
  suspend: (reason: string) => void,
  resume: () => void,
  wake: (why: Wake) => void,
  signal: AbortSignal,
): void {
  // Some of these fire at the document: capturing, the window hears them all.
  const listen = (type: string, listener: () => void): void =>
    config.platform.addEventListener?.(type, listener, { signal, capture: true });
  const freeze = (): void => suspend("suspended");
  const look = (): void => {
    if (config.whenHidden === "pause" && config.platform.document?.hidden) return suspend("hidden");
    resume();
    wake("visible");
  };
  listen("freeze", freeze);
  listen("resume", look);
  // `pagehide` comes also when the tab closes: the next one takes over at once, not when the browser has cleaned up.
  listen("pagehide", freeze);
  listen("pageshow", look);
  listen("online", () => wake("online"));
  listen("visibilitychange", look);
  look();
}
