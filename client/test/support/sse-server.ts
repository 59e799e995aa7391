/** A small SSE server on node:http: real sockets for the transports. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export class SseServer {
  readonly requests: { url: URL; headers: IncomingMessage["headers"] }[] = [];
  readonly streams = new Set<ServerResponse>();
  readonly history: { id: string; block: string }[] = [];
  /** Answers in some other way when it returns true. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
  #server: Server;
  url = "";

  constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  async start(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Publishes a durable event. */
  publish(type: string, data: unknown): void {
    const id = "p" + String(this.history.length + 1).padStart(6, "0");
    const block = `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
    this.history.push({ id, block });
    for (const stream of this.streams) stream.write(block);
  }

  /** Writes to all streams as it stands. */
  write(text: string): void {
    for (const stream of this.streams) stream.write(text);
  }

  /** Cuts every connection, in the middle of whatever it is. */
  cut(): void {
    for (const stream of this.streams) stream.socket?.destroy();
    this.streams.clear();
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, "http://server");
    this.requests.push({ url, headers: request.headers });
    if (this.intercept?.(request, response)) return;
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform" });
    response.write('retry: 20\nevent: connected\ndata: {"type":"hello","connectionId":"c","node":"n","channels":[]}\n\n');
    const after = (request.headers["last-event-id"] as string | undefined) ?? url.searchParams.get("lastEventId");
    if (after) for (const { id, block } of this.history) if (id > after) response.write(block);
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
  }
}
