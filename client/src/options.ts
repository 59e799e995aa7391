/** What a client can be told, and what is filled in when it is not. */

/** The parts of a browser that the client touches. Timers, `Date`, `Math.random` and `crypto` come from the global scope. */
export type Platform = Partial<
  Pick<typeof globalThis, "fetch" | "EventSource" | "BroadcastChannel" | "localStorage" | "document" | "addEventListener">
> & { navigator?: { locks?: LockManager; onLine?: boolean } };

/** A token, or how to get a fresh one; asked before every attempt. */
export type TokenSource = string | (() => string | undefined | Promise<string | undefined>);

/** Settings of {@link createClient}; all of them may be left out. */
export interface ClientOptions {
  /** Address of the cluster, for example `https://events.example.com`. Default: the page's own origin. */
  url?: string | undefined;
  /** Path of the stream. Default `/api/sse/stream`. */
  path?: string | undefined;
  /** Channels from the start. Default `["all"]`: every one that may be read. `[]`: only what is subscribed to. */
  channels?: readonly string[] | undefined;
  /** Session token. Default: one per browser profile, made once and kept in localStorage. `false`: none. */
  session?: string | false | undefined;
  /** Bearer token, or a function that gets one. With a function, a token that expired or was refused is fetched again. */
  token?: TokenSource | undefined;
  /**
   * Share one connection between all tabs of this browser. Default `true`, where Web Locks and BroadcastChannel exist
   * (locks need a secure context); elsewhere each tab has its own. A string names a group apart, for example a user's id.
   */
  share?: boolean | string | undefined;
  /** `pause` closes the connection while the page is hidden and resumes when it is seen again. Default `keep`. */
  whenHidden?: "keep" | "pause" | undefined;
  /** Default `auto`: `fetch` where there is one, else native `EventSource`. */
  transport?: "auto" | "fetch" | "eventsource" | undefined;
  /** Event types beyond those with listeners; only native `EventSource` needs them, it has no wildcard. */
  types?: readonly string[] | undefined;
  /** Position to resume from, for example one that the page was rendered with. */
  lastEventId?: string | undefined;
  /** As in `fetch`; `include` sends cookies to another origin. Default `same-origin`. */
  credentials?: RequestCredentials | undefined;
  /** The nodes' heartbeat in milliseconds: 2.5 of them without a byte mean a dead connection. Default 25000. */
  heartbeatMs?: number | undefined;
  /** Closes the client when aborted. */
  signal?: AbortSignal | undefined;
  /** Stands in for the browser, in tests. Default `globalThis`. */
  platform?: Platform | undefined;
}

/** Settings with what several rooms need filled in. */
export interface Config extends Omit<ClientOptions, "types"> {
  readonly platform: Platform;
  readonly session: string | false;
  /** The stream's address, without its query. */
  readonly address: string;
  /** Event types with listeners, kept up to date. */
  readonly types: Set<string>;
  /** Whether to use native `EventSource`. */
  readonly native: boolean;
}

const SESSION_KEY = "fanlight.session";

/** `crypto.randomUUID` exists in secure contexts only. */
export function randomId(): string {
  return crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** The browser profile's session token: from localStorage, or new. */
function storedSession(platform: Platform): string {
  try {
    return (platform.localStorage![SESSION_KEY] ||= randomId()) as string;
  } catch {
    // Storage is switched off, full, or absent (a server): this token lives as long as the client.
    return randomId();
  }
}

/** Fills in. */
export function configure(options: ClientOptions): Config {
  const { url = "", path = "/api/sse/stream", session, platform = globalThis } = options;
  return {
    ...options,
    platform,
    types: new Set(options.types),
    session: session ?? storedSession(platform),
    address: url.replace(/\/$/, "") + path,
    // Whatever runs this syntax and has `fetch` can stream with it.
    native: options.transport === "eventsource" || !platform.fetch,
  };
}
