/** Where a client's events come from, seen from both sides: a link of its own, or one that tabs share. */
import type { RawEvent } from "./parser.js";
import type { StateChange } from "./types.js";

/** What a source has to say: an event (after a reconnect maybe a repetition), or a change of its state. */
export type Report = { event: RawEvent; change?: never } | { event?: never; change: StateChange };

/**
 * Something happened that may mean that waiting is over. `visible`: somebody looks at the page. `online`: the network is
 * another one. `due`: the time is up, but our timers are throttled.
 */
export type Wake = "visible" | "online" | "due";

/** A source of events. */
export interface Source {
  /** Sets what is wanted; the first call starts the source. Channels are sorted and joined by commas. */
  update(channels: string): void;
  /** See {@link Wake}. */
  wake(why: Wake): void;
  /** Ends it, in silence. */
  stop(): void;
}
