/** The transport that sees bytes, headers and status codes. */
import { createParser } from "./parser.js";
import type { Failure, OpenStream } from "./transport.js";

/** Reads an answer that is no stream. */
async function refusal(response: Response): Promise<Failure> {
  const { status } = response;
  if (status === 204) return { reason: "ended", final: true };
  const { code } = Object(await response.json().catch(() => {})) as { code?: string };
  // RFC 9110, 10.2.3: seconds or a date. Seconds are whole, so up to one more spreads clients that were told the same.
  const after = response.headers.get("Retry-After")!;
  return {
    reason: code ?? "http_" + status,
    retryMs: (+after * 1000 || Date.parse(after) - Date.now()) + Math.random() * 1000,
    // Only the server's own words are final: a bare 404 may be a load balancer in the middle of a deploy.
    final: !!code && status < 500 && status !== 429,
  };
}

/** Opens a stream with `fetch`. */
export const openFetch: OpenStream = (config, { token, position, channels }, sink) => {
  const abort = new AbortController();
  const { signal } = abort;
  /** One piece of bytes can hold several events, and the listener of the first may close the connection. */
  const live =
    <T>(tell: (value: T) => void) =>
    (value: T): void => {
      if (!signal.aborted) tell(value);
    };
  const end = live(sink.end);
  const run = async (): Promise<void> => {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (token) headers.Authorization = "Bearer " + token;
    if (config.session) headers["X-Session-Token"] = config.session;
    if (position) headers["Last-Event-ID"] = position;
    const query = channels === "all" ? "" : "?channels=" + encodeURIComponent(channels);
    const response = await config.platform.fetch!(config.address + query, {
      headers,
      signal,
      credentials: config.credentials!,
      cache: "no-store",
    });
    if (response.status !== 200 || !response.headers.get("Content-Type")?.startsWith("text/event-stream"))
      return end(await refusal(response));
    const parse = createParser({ event: live(sink.event), retry: sink.retry });
    const reader = response.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return end({ reason: "network" });
      sink.activity();
      parse(value);
    }
  };
  run().catch(() => end({ reason: "network" }));
  return { close: () => abort.abort() };
};
