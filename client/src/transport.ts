/** One connection, once: what to open, and who is told what comes and how it ended. */
import type { Config } from "./options.js";
import type { ParserSink } from "./parser.js";

/** What to open. */
export interface StreamRequest {
  /** Channels, joined by commas; `all` alone goes without saying. */
  channels: string;
  /** Position to resume from; empty for none. */
  position: string;
  /** Bearer token. */
  token: string | undefined;
}

/** How a connection ended. */
export interface Failure {
  /** See {@link StateChange.reason}. */
  reason: string;
  /** When the server wants us back, in milliseconds; nothing or NaN when it did not say. */
  retryMs?: number | undefined;
  /** Coming back the same way is pointless. */
  final?: boolean | undefined;
}

/** Who listens to a connection. Nothing is called after `close()`, and nothing after `end`. */
export interface StreamSink extends Omit<ParserSink, "position"> {
  /** Something came in, be it a comment. */
  activity(): void;
  /** It is over. */
  end(failure: Failure): void;
}

/** An open connection. */
export interface Stream {
  /** Ends it, in silence. */
  close(): void;
  /** Looks at `config.types` again; only where there is no wildcard. */
  listen?(): void;
}

/** Opens a connection. */
export type OpenStream = (config: Config, request: StreamRequest, sink: StreamSink) => Stream;
