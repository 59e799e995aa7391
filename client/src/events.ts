/** Events as an async iterator. */
import type { AnyClient } from "./client.js";
import type { FanlightEvent } from "./types.js";

/** Settings of {@link events}. */
export interface EventsOptions {
  /** Only these types; default all, the server's own (`connected`, `gap`, …) too. */
  types?: readonly string[] | undefined;
  /** Ends the iteration when aborted. */
  signal?: AbortSignal | undefined;
  /** How many events may wait for the reader. Default 1000; past it the iteration ends with an error rather than in silence. */
  limit?: number | undefined;
}

/**
 * The events of a client from the first `next()` on, until the client is closed.
 *
 * @throws RangeError when the reader falls behind by more than `limit` events
 */
export async function* events(
  client: AnyClient,
  { types, signal, limit = 1000 }: EventsOptions = {},
): AsyncGenerator<FanlightEvent, void, void> {
  const queue: FanlightEvent[] = [];
  let ended = !!signal?.aborted || client.state === "closed";
  let overflow = false;
  let wake = (): void => {};
  const end = (): void => {
    ended = true;
    wake();
  };
  const offs = [
    client.on("*", ({ data: event }) => {
      if (ended || (types && !types.includes(event.type))) return;
      if (queue.length < limit) queue.push(event);
      else overflow = true;
      wake();
    }),
    client.on("state", () => client.state === "closed" && end()),
  ];
  signal?.addEventListener("abort", end);
  try {
    while (!signal?.aborted) {
      const event = queue.shift();
      if (event) yield event;
      else if (overflow) throw new RangeError(`the reader fell behind by ${limit} events`);
      else if (ended) return;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    signal?.removeEventListener("abort", end);
    for (const off of offs) off();
  }
}
