/**
 * The transport for browsers whose `fetch` cannot stream: native `EventSource`. It sees no headers, status codes or
 * comments, so everything goes into the address, and a full house is told in the stream (`onLimit=soft`). Loaded apart.
 */
import type { OpenStream } from "./transport.js";

/** What the server sends by itself; a native `EventSource` must be told each type. */
const KNOWN_TYPES = [
  "message",
  ...["connected", "bye", "gap", "limit"],
  ...["job_started", "job_progress", "job_completed", "job_failed", "job_cancelled", "manifest_changed"],
  ...["progress", "completed", "failed"],
];

/** Opens a stream with native `EventSource`. */
export const openEventSource: OpenStream = (config, request, sink) => {
  const query = new URLSearchParams({ onLimit: "soft" });
  const set = (name: string, value: string | false | undefined): void => {
    if (value) query.set(name, value);
  };
  if (request.channels !== "all") set("channels", request.channels);
  set("session", config.session);
  set("token", request.token);
  set("lastEventId", request.position);
  const source = new config.platform.EventSource!(config.address + "?" + query, {
    withCredentials: config.credentials === "include",
  });
  const known = new Set<string>();
  let last = "";
  const receive = (message: Event): void => {
    // A published event may be of type `error` or `open`, which the browser's own events are too: those have no data.
    if (source.readyState === 2 || !("data" in message)) return;
    const { type, data, lastEventId } = message as MessageEvent<string>;
    sink.activity();
    // The browser repeats the last id on events without one; only a new id is the event's own.
    if (lastEventId === last) return sink.event({ type, data });
    last = lastEventId;
    sink.event({ type, data, id: last });
  };
  const listen = (): void => {
    for (const type of [...KNOWN_TYPES, ...config.types])
      if (!known.has(type)) {
        known.add(type);
        source.addEventListener(type, receive);
      }
  };
  listen();
  source.onerror = (error) => {
    if ("data" in error) return;
    // Its own reconnecting knows no backoff and gives up after any status but 200; ours does not.
    source.close();
    sink.end({ reason: "network" });
  };
  return { listen, close: () => source.close() };
};
