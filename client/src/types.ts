/** The vocabulary of the package: what goes in and what comes out. Types only, no code. */

/** A job as its events and `GET /api/jobs/{id}` describe it. */
export interface Job {
  /** The job's id. */
  id: string | number;
  /** `pending`, `in_progress`, `completed`, `cancelled`, `failed`, `error`, or what the publisher says. */
  status: string;
  /** Whatever else the publisher sends. */
  [field: string]: unknown;
}

/**
 * The events that are published on the channels that exist by default, by type. Add your own by declaration merging, or
 * give {@link createClient} a map of your own.
 */
export interface Events {
  job_started: Job;
  job_progress: Job;
  job_completed: Job;
  job_failed: Job;
  job_cancelled: Job;
  manifest_changed: { project_folder: string; timestamp: number | string };
}

/** The first block of a connection. */
export interface Hello {
  type: "hello";
  /** The connection's id, as the node's connection list shows it. */
  connectionId: string;
  /** The node that answered. */
  node: string;
  /** The channels that the stream carries. */
  channels: string[];
  /** Whether everything after our position follows; only when we came with one. */
  recovered?: boolean;
}

/** The last block of a connection. */
export interface Bye {
  reason:
    | "idle_timeout"
    | "max_age"
    | "server_shutdown"
    | "slow_consumer"
    | "replaced"
    | "kicked"
    | "token_expired"
    | "overloaded"
    | (string & {});
  /** Whether to come back. The client does by itself. */
  reconnect: boolean;
  /** When to come back, in milliseconds. */
  retryMs: number;
}

/** Events of `channel` may be missing: fetch your state again. */
export interface Gap {
  channel: string;
  reason: "history_trimmed" | "history_lost" | "broker_interrupted" | "unknown_position" | (string & {});
}

/** A refusal inside a 200 answer, for native `EventSource`. */
export interface Limit {
  code: string;
  /** When to come back, in milliseconds. */
  retryMs: number;
}

/** What the server itself says in a stream, by event type. */
export interface ControlEvents {
  /** From the leading tab, not from the server. */
  refused: Refused;
  connected: Hello;
  bye: Bye;
  gap: Gap;
  limit: Limit;
}

/** Where a connection stands. */
export type ConnectionState =
  /** Nothing to be connected to: not started, suspended with the page, or no channel is wanted. */
  | "idle"
  /** A request is under way. */
  | "connecting"
  /** Events come in. */
  | "open"
  /** It failed or was told to come back later; `retryMs` says when. */
  | "waiting"
  /** It ended for good; `connect()` starts again. */
  | "closed";

/** A change of the connection's state. */
export interface StateChange {
  state: ConnectionState;
  /**
   * Why: a `bye` reason, a refusal's code (`ip_limit`, `unauthorized`, …), `http_<status>`, `network`, `timeout`, `ended`
   * (the server says that nothing more comes), `hidden`, `suspended` or `client` (by `close()`).
   */
  reason?: string;
  /** `waiting`: milliseconds until the next attempt. */
  retryMs?: number;
  /** `open`: the channels that were asked for, joined by commas. */
  channels?: string;
  /** `open`: milliseconds from the request to the first block. */
  latencyMs?: number;
}

/** The connection's health as numbers. */
export interface Health {
  /** Events per second, averaged over about the last minute. */
  messageRate: number;
  /** Failed or cut connections per minute, averaged over about the last minute. */
  errorRate: number;
  /** Milliseconds from the last request to its first block; 0 before the first. */
  latencyMs: number;
  /** How often the stream was opened again. */
  reconnects: number;
  /** Why it is not well: `unreachable`, `unstable`, `slow`. Empty when it is. */
  degraded: string[];
}

/** Channels that were refused while others were open: a shared connection goes on without them. */
export interface Refused {
  channels: string[];
  reason: string;
}

/** What the client says itself, by event type. */
export interface LocalEvents {
  state: StateChange;
  /** With {@link watchHealth}: the numbers, whenever the reasons in `degraded` change; when there are none, it is well again. */
  degraded: Health;
  /** Every event from the server, the control events too; its data is the event. */
  "*": FanlightEvent;
}

/**
 * An event, as `EventSource` would give it, but with its `data` parsed when that is JSON. `lastEventId` is the event's own
 * position: empty when it is live only.
 */
export type FanlightEvent<T = unknown> = MessageEvent<T>;

/** A map from event type to the type of its data. */
export type EventMap = object;

/** What a listener for `K` is called with. */
export type Payload<E extends EventMap, K extends string> = FanlightEvent<
  K extends keyof LocalEvents ? LocalEvents[K] : K extends keyof ControlEvents ? ControlEvents[K] : K extends keyof E ? E[K] : unknown
>;

/** The names that `on` knows; any other string is taken too. `*` is every event from the server. */
export type EventName<E extends EventMap> =
  | (keyof E & string)
  | keyof ControlEvents
  | keyof LocalEvents
  | (string & {});
