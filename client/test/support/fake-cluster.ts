/** A server that behaves: greets, replays what is after the client's position, and streams what is published. */
import { type FakeRequest, FakeServer } from "./fake-server.js";

export class FakeCluster extends FakeServer {
  readonly history: { id: string; n: number }[] = [];
  /** The most connections that were open at once. */
  most = 0;
  /** Answers a request in some other way when it returns true. */
  intercept: ((request: FakeRequest) => boolean) | undefined;

  constructor() {
    super();
    this.onRequest = (request) => {
      if (this.intercept?.(request)) return;
      this.most = Math.max(this.most, this.live.length);
      const after = request.headers.get("last-event-id");
      // Who has no position yet is told the present one.
      request.open(true, after === null ? this.history.at(-1)?.id : undefined);
      if (after === null) return;
      for (const { id, n } of this.history) if (id > after) request.event("e", n, id);
    };
  }

  /** Publishes the next durable event. */
  publish(): void {
    const n = this.history.length;
    const id = "p" + String(n).padStart(8, "0");
    this.history.push({ id, n });
    for (const request of this.live) request.event("e", n, id);
  }
}
