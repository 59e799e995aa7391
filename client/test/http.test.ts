/** Both transports against real sockets. Waits are for conditions; the times in here are the server's own `retry`. */
import { EventSource } from "eventsource";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Client, type ClientOptions, createClient } from "../src/index.js";
import { SseServer } from "./support/sse-server.js";

let server: SseServer;
let client: Client;

function connect(options: ClientOptions): Client {
  client = createClient({ url: server.url, session: "s", share: false, ...options });
  client.connect();
  return client;
}
const until = (condition: () => boolean): Promise<void> =>
  vi.waitFor(() => expect(condition()).toBe(true), { timeout: 60_000, interval: 5 });

beforeEach(async () => {
  server = await new SseServer().start();
});
afterEach(async () => {
  client.close();
  await server.stop();
});

describe.each(["fetch", "eventsource"] as const)("%s", (transport) => {
  const options: ClientOptions = { transport, platform: { fetch, EventSource: EventSource as unknown as typeof globalThis.EventSource } };

  it("hears every durable event once, in order, though connections are cut again and again", async () => {
    // The shortest backoff: cut connections that live for less than 5 s are no reason to hurry.
    vi.spyOn(Math, "random").mockReturnValue(0);
    const heard: number[] = [];
    connect(options).on("job_progress", ({ data }) => heard.push(Number(data.id)));
    await until(() => client.state === "open");
    for (let n = 0; n < 200; n++) {
      server.publish("job_progress", { id: n, status: "running" });
      if (n % 80 === 20) {
        await until(() => heard.length > 0);
        server.cut();
        await until(() => server.streams.size === 1);
      }
    }
    await until(() => heard.length >= 200);
    expect(heard).toEqual(Array.from({ length: 200 }, (_, n) => n));
    expect(server.requests.length).toBe(4);
  });

  it("hears live events without a position, also right behind durable ones", async () => {
    const heard: unknown[] = [];
    connect(options).on("message", ({ data, lastEventId }) => heard.push([data, lastEventId]));
    await until(() => client.state === "open");
    server.write("id: p1\ndata: 1\n\ndata: 2\n\ndata: 3\n\nid: p2\ndata: 4\n\n");
    await until(() => heard.length === 4);
    expect(heard).toEqual([
      [1, "p1"],
      [2, ""],
      [3, ""],
      [4, "p2"],
    ]);
    expect(client.lastEventId).toBe("p2");
  });

  it("obeys bye, and closes its connection", async () => {
    connect(options);
    await until(() => client.state === "open");
    server.write('event: bye\ndata: {"reason":"kicked","reconnect":false,"retryMs":1}\n\n');
    await until(() => client.state === "closed");
    expect(client.status.reason).toBe("kicked");
    await until(() => server.streams.size === 0);
    expect(server.requests.length).toBe(1);
  });

  it("carries channels, session, token and position where the transport can", async () => {
    connect({ ...options, channels: ["b:1", "a/2"], token: "t", lastEventId: "p9" });
    await until(() => client.state === "open");
    const [{ url, headers }] = server.requests as [(typeof server.requests)[0]];
    expect(url.searchParams.get("channels")).toBe("a/2,b:1");
    if (transport === "fetch") {
      expect([...url.searchParams.keys()]).toEqual(["channels"]);
      expect(headers).toMatchObject({ authorization: "Bearer t", "x-session-token": "s", "last-event-id": "p9", accept: "text/event-stream" });
    } else
      expect(Object.fromEntries(url.searchParams)).toEqual({ onLimit: "soft", channels: "a/2,b:1", session: "s", token: "t", lastEventId: "p9" });
  });

  it("comes back to a server that was away", async () => {
    connect(options);
    await until(() => client.state === "open");
    const { port } = server;
    await server.stop();
    await until(() => client.state === "waiting");
    server = await new SseServer().start(port);
    await until(() => client.state === "open");
  });

  it("a full house (limit in a 200) is told and waited for", async () => {
    server.intercept = (_, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.end('retry: 60000\nevent: limit\ndata: {"code":"ip_limit","retryMs":60000}\n\n');
      return true;
    };
    connect(options);
    await until(() => client.state === "waiting");
    expect(client.status).toMatchObject({ reason: "ip_limit", retryMs: 60_000 });
  });
});

describe("fetch", () => {
  it("sees the status and waits as Retry-After says", async () => {
    server.intercept = (_, response) => {
      response.writeHead(429, { "Content-Type": "application/json", "Retry-After": "7" });
      response.end('{"error":"Too many SSE connections from this IP","code":"ip_limit","limit":2}');
      return true;
    };
    connect({ transport: "fetch" });
    await until(() => client.state === "waiting");
    expect(client.status.reason).toBe("ip_limit");
    expect(client.status.retryMs).toBeGreaterThanOrEqual(7_000);
    expect(client.status.retryMs).toBeLessThan(8_000);
  });

  it("frees its connection at the server when an attempt is given up", async () => {
    let closed = 0;
    server.intercept = (request) => {
      request.socket.on("close", () => closed++);
      return true;
    };
    connect({ transport: "fetch" });
    await until(() => server.requests.length === 1);
    client.close();
    await until(() => closed === 1);
  });
});

describe("native EventSource", () => {
  const options: ClientOptions = {
    transport: "eventsource",
    platform: { EventSource: EventSource as unknown as typeof globalThis.EventSource },
  };

  it("is chosen by itself where there is no fetch", async () => {
    connect({ ...options, transport: "auto" });
    await until(() => client.state === "open");
    expect(server.requests[0]!.url.searchParams.get("onLimit")).toBe("soft");
  });

  it("hears types that get a listener while it is open, and those in `types`", async () => {
    connect({ ...options, types: ["declared"] });
    await until(() => client.state === "open");
    const heard: string[] = [];
    client.on("*", ({ data }) => heard.push(data.type));
    client.on("late", () => {});
    server.write("event: late\ndata: 1\n\nevent: declared\ndata: 1\n\nevent: unknown\ndata: 1\n\nevent: job_started\ndata: 1\n\n");
    await until(() => heard.length === 3);
    expect(heard).toEqual(["late", "declared", "job_started"]);
  });

  it("does not take a published event of type error for its own", async () => {
    const heard: unknown[] = [];
    connect(options).on("error" as string, ({ data }) => heard.push(data));
    await until(() => client.state === "open");
    server.write('event: error\ndata: "e"\n\nevent: open\ndata: 1\n\n');
    await until(() => heard.length === 1);
    expect(client.state).toBe("open");
    expect(server.requests.length).toBe(1);
  });
});
