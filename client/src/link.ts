/**
 * A connection that comes back: backoff, the server's wishes, the watchdog.
 *
 * It does not know who listens, how far they are, nor other tabs: `client.ts` and `share.ts` do.
 */
import { openFetch } from "./fetch.js";
import type { Config } from "./options.js";
import type { RawEvent } from "./parser.js";
import type { Report, Source } from "./source.js";
import type { Failure, Stream } from "./transport.js";
import type { Bye, ConnectionState, Limit, StateChange } from "./types.js";

/** Shortest and longest wait of the backoff. */
const MIN_MS = 1_000;
const MAX_MS = 30_000;
/** A connection that lived shorter did not heal anything, and the backoff goes on. */
const STABLE_MS = 5_000;
/** After so many attempts in a row that did not open, only one every one or two minutes. */
const COOL_OFF_AFTER = 10;
const COOL_OFF_MS = 60_000;
/** Time for the first block: the server sends it at once, so something between us keeps it. */
const CONNECT_MS = 15_000;
/** Changes of the channels within this time are one change; and the server gets as long to notice the close before we are back. */
const REGROUP_MS = 50;
/**
 * So long after a connection of ours ended (or the page before this one, or the tab that led before) a full session may be full
 * of that one alone, because the server has not noticed yet: we try again soon, whatever the server said.
 */
const GHOST_MS = 2_000;
const GHOST_RETRY_MS = 250;
/** Beyond this a browser's timer fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The value of JSON text, or the text. */
export function parseData(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Full jitter between the shortest wait and a ceiling that doubles; `failures` from 1. */
function backoff(failures: number): number {
  return MIN_MS + Math.random() * (Math.min(MAX_MS, MIN_MS * 2 ** failures) - MIN_MS);
}

/**
 * Makes a link, which waits for its first `update`.
 *
 * @param say - is told what happens
 * @param position - says where to resume, when it connects; empty for now
 */
export function createLink(config: Config, say: (report: Report) => void, position: () => string): Source {
  let state: ConnectionState = "idle";
  let stream: Stream | undefined;
  /** What is wanted, and what is asked for. */
  let wanted = "";
  let channels = "";
  /** The one plan of the present state. Every attempt has another one. */
  let timer: ReturnType<typeof setTimeout> | undefined;
  let regroup: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let retryMs: number | undefined;
  /** The server named the time of the next attempt. */
  let told = false;
  let startedAt = 0;
  let openedAt = 0;
  let lastByteAt = 0;
  let endedAt = Date.now();
  let token: string | undefined;
  /** The token that was refused: another one is needed. NaN equals nothing. */
  let refused: unknown = NaN;

  const set = (next: ConnectionState, more?: Partial<StateChange>): void => {
    state = next;
    say({ change: { state, ...more } });
  };

  const after = (ms: number, run: () => void): void => {
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };

  /** Ends the present attempt, connection and plan. */
  const drop = (): void => {
    if (openedAt) endedAt = Date.now();
    clearTimeout(timer);
    stream?.close();
    timer = stream = undefined;
  };

  const connect = async (): Promise<void> => {
    drop();
    startedAt = lastByteAt = Date.now();
    openedAt = 0;
    after(CONNECT_MS, () => lost({ reason: "timeout" }));
    // While we wait for the token, a listener or a change of channels may overtake us.
    const attempt = timer;
    set("connecting");
    try {
      const source = config.token;
      const fresh = typeof source === "function" ? await source() : source;
      const open = config.native ? (await import("./eventsource.js")).openEventSource : openFetch;
      if (attempt !== timer) return;
      if (fresh === refused) return finish("unauthorized");
      token = fresh;
      stream = open(config, { channels, token, position: position() }, {
        activity: () => (lastByteAt = Date.now()),
        retry: (ms) => (retryMs = ms),
        event: receive,
        end: lost,
      });
    } catch {
      if (attempt === timer) lost({ reason: "error" });
    }
  };

  const receive = (event: RawEvent): void => {
    const { type } = event;
    const control = /^(bye|limit)$/.test(type);
    if (!control && !openedAt) {
      openedAt = Date.now();
      watch();
      set("open", { channels, latencyMs: openedAt - startedAt });
    }
    const current = stream;
    say({ event });
    // A listener may have stopped or changed us.
    if (!control || stream !== current) return;
    const data = Object(parseData(event.data)) as Partial<Bye & Limit>;
    lost({ reason: data.reason ?? data.code ?? type, retryMs: data.retryMs, final: data.reconnect === false });
  };

  /**
   * Looks whether the connection is silent for too long. Native `EventSource` does not see heartbeats: there the bound
   * lies past the server's idle time-out of five minutes, which says `bye`.
   */
  const watch = (): void => {
    const left = lastByteAt + (config.heartbeatMs ?? 25_000) * (config.native ? 15 : 2.5) - Date.now();
    if (left > 0) after(left, watch);
    else lost({ reason: "timeout" });
  };

  const lost = ({ reason, retryMs: wish, final }: Failure): void => {
    drop();
    if (reason === "unauthorized" || reason === "token_expired") {
      refused = token;
      final &&= typeof config.token !== "function";
    }
    if (final) return finish(reason);
    failures = openedAt && Date.now() - openedAt >= STABLE_MS ? 1 : failures + 1;
    const delay = wait(reason === "session_limit" && Date.now() - endedAt < GHOST_MS ? GHOST_RETRY_MS : wish);
    after(delay, connect);
    set("waiting", { reason, retryMs: delay });
  };

  /** How long to wait: as long as the server said, or the backoff. */
  const wait = (wish: number | undefined): number => {
    // The `retry:` of a stream is meant for its own end, not for the failures after that.
    if (openedAt && failures === 1) wish ??= retryMs;
    told = wish! >= 0;
    // Told to come back at once again and again, we would spin.
    if (told) return Math.min(Math.max(wish!, failures > 1 ? MIN_MS : 0), MAX_TIMER_MS);
    if (!openedAt && failures >= COOL_OFF_AFTER) return COOL_OFF_MS * (1 + Math.random());
    return backoff(failures);
  };

  const finish = (reason: string): void => {
    drop();
    set("closed", { reason });
  };

  /** Starts over with the wanted channels. */
  const apply = (): void => {
    regroup = undefined;
    if (wanted === channels) return;
    channels = wanted;
    // A wait goes on: changing the channels is no way around the backoff.
    if (state === "waiting" && channels) return;
    drop();
    if (!channels) return set("idle");
    if (state === "idle") void connect();
    else after(REGROUP_MS, connect);
  };

  return {
    update(next) {
      wanted = next;
      stream?.listen?.();
      regroup ??= setTimeout(apply, state === "idle" ? 0 : REGROUP_MS);
    },
    wake(why) {
      if (why === "online") failures = 0;
      if (state === "waiting" ? why === "due" || !told : why === "online" && stream) void connect();
      else if (stream && openedAt) watch();
    },
    stop() {
      clearTimeout(regroup);
      drop();
    },
  };
}
