import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Client, type ClientOptions, createClient } from "../src/index.js";
import { FakePage } from "./support/fake-page.js";
import { FakeServer } from "./support/fake-server.js";

let server: FakeServer;
let page: FakePage;
let client: Client;

/** A client of a server in the test's hand, without sharing. */
function connect(options: ClientOptions = {}): Client {
  client = createClient({ url: "http://events.test/", session: "s", share: false, platform: page.platform, ...options });
  client.connect();
  return client;
}
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const jitter = (value: number): unknown => vi.spyOn(Math, "random").mockReturnValue(value);
const bye = (reason: string, reconnect: boolean, retryMs: number): object => ({ reason, reconnect, retryMs });

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  page = new FakePage(server);
});
afterEach(() => {
  client.close();
  vi.useRealTimers();
});

describe("the request", () => {
  it("carries session, token and channels, and no position at first", async () => {
    connect({ channels: ["b", "a"], token: () => Promise.resolve("t") });
    await pass(0);
    const { url, headers, init } = server.last;
    expect(url).toBe("http://events.test/api/sse/stream?channels=a%2Cb");
    expect(Object.fromEntries(headers)).toEqual({ accept: "text/event-stream", authorization: "Bearer t", "x-session-token": "s" });
    expect(init.cache).toBe("no-store");
  });

  it("leaves `all` unsaid, because the server takes no channels for all", async () => {
    connect();
    await pass(0);
    expect(server.last.url).toBe("http://events.test/api/sse/stream");
  });

  it("is made once, for all that is subscribed in the same turn", async () => {
    connect({ channels: [] });
    client.subscribe("a");
    client.subscribe("b");
    await pass(1000);
    expect(server.requests.length).toBe(1);
    expect(server.last.params.get("channels")).toBe("a,b");
  });

  it("is not made while no channel is wanted", async () => {
    connect({ channels: [] });
    await pass(1000);
    expect(server.requests.length).toBe(0);
    expect(client.state).toBe("idle");
  });

  it("asks for the token anew before each attempt", async () => {
    const token = vi.fn(() => "t" + token.mock.calls.length);
    connect({ token });
    await pass(0);
    server.last.fail();
    await pass(2_000);
    expect(server.requests.map(({ headers }) => headers.get("authorization"))).toEqual(["Bearer t1", "Bearer t2"]);
  });

  it("is tried again when the token could not be had", async () => {
    const token = vi.fn().mockRejectedValueOnce(new Error("no")).mockResolvedValue("t");
    connect({ token });
    await pass(0);
    expect(client.status).toMatchObject({ state: "waiting", reason: "error" });
    await pass(2_000);
    expect(server.last.headers.get("authorization")).toBe("Bearer t");
  });
});

describe("opening", () => {
  it("is open with the first block, not with the head", async () => {
    connect();
    await pass(100);
    server.last.open(false);
    await pass(200);
    expect(client.state).toBe("connecting");
    server.last.send(": hi\n\ndata: x\n\n");
    await pass(0);
    expect(client.status).toEqual({ state: "open", latencyMs: 300, channels: "all" });
  });

  it("gives up an attempt without a first block after 15 s", async () => {
    connect();
    await pass(0);
    server.last.open(false);
    await pass(14_999);
    expect(client.state).toBe("connecting");
    await pass(1);
    expect(client.status).toMatchObject({ state: "waiting", reason: "timeout" });
    expect(server.last.ended).toBe(true);
  });

  it("takes a 200 that is no event stream for a failure", async () => {
    connect();
    await pass(0);
    server.last.refuse(200, "<html>", { "Content-Type": "text/html" });
    await pass(0);
    expect(client.status).toMatchObject({ state: "waiting", reason: "http_200" });
  });

});

describe("reconnecting", () => {
  it("waits as long as the stream's `retry` says after its end, and resumes from the last position", async () => {
    connect();
    await pass(0);
    server.last.open().event("e", 1, "p1").event("e", 2, "p2").event("live", 3);
    await pass(60_000);
    server.last.end();
    await pass(3_216);
    expect(server.requests.length).toBe(1);
    await pass(1);
    expect(server.requests.length).toBe(2);
    expect(server.last.headers.get("last-event-id")).toBe("p2");
  });

  it("backs off with full jitter from 1 s to a ceiling that doubles up to 30 s", async () => {
    const ceilings = [2, 4, 8, 16, 30, 30];
    for (const share of [0, 0.5, 0.999]) {
      server.requests.length = 0;
      jitter(share);
      connect();
      await pass(0);
      for (const ceiling of ceilings) {
        server.last.fail();
        await pass(0);
        expect(client.status.retryMs).toBeCloseTo(1000 + share * (ceiling * 1000 - 1000));
        await pass(client.status.retryMs!);
      }
      expect(server.requests.length).toBe(7);
      client.close();
    }
  });

  it("forgets its failures only after a stable time", async () => {
    jitter(0.5);
    connect();
    await pass(0);
    for (let i = 0; i < 4; i++) {
      server.last.open();
      await pass(4_000);
      server.last.end();
      await pass(0);
      // The first end is the server's `retry`, the others are the backoff.
      expect(client.status.retryMs).toBe([3217, 2500, 4500, 8500][i]);
      await pass(client.status.retryMs!);
    }
    server.last.open();
    await pass(5_000);
    server.last.end();
    await pass(0);
    expect(client.status.retryMs).toBe(3217);
  });

  it("cools off after ten attempts in a row that did not open", async () => {
    jitter(0.5);
    connect();
    for (let i = 0; i < 10; i++) {
      await pass(client.status.retryMs ?? 0);
      server.last.fail();
      await pass(0);
    }
    expect(client.status.retryMs).toBe(90_000);
    await pass(90_000);
    server.last.open();
    await pass(5_000);
    server.last.fail();
    await pass(0);
    expect(client.status.retryMs).toBe(3217);
  });

  it("does not cool off while streams open, however short they live", async () => {
    jitter(1);
    connect();
    for (let i = 0; i < 20; i++) {
      await pass(client.status.retryMs ?? 0);
      server.last.open();
      await pass(1);
      server.last.end();
      await pass(0);
      expect(client.status.retryMs).toBeLessThanOrEqual(30_000);
    }
  });

  it.each([
    ["seconds, plus up to one that spreads clients", "7", 7_500],
    ["a date", "Thu, 01 Jan 2026 00:00:20 GMT", 20_500],
  ])("waits as Retry-After says: %s", async (_, value, wait) => {
    vi.setSystemTime(Date.UTC(2026, 0, 1));
    jitter(0.5);
    connect();
    for (const status of [429, 503]) {
      vi.setSystemTime(Date.UTC(2026, 0, 1));
      await pass(0);
      server.last.refuse(status, { error: "Too many", code: "ip_limit" }, { "Retry-After": value });
      await pass(0);
      expect(client.status).toEqual({ state: "waiting", reason: "ip_limit", retryMs: wait });
      await pass(wait);
    }
    expect(server.requests.length).toBe(3);
  });

  it.each(["soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])("backs off when Retry-After says %j", async (value) => {
    jitter(0);
    connect();
    await pass(0);
    server.last.refuse(503, "", { "Retry-After": value });
    await pass(0);
    expect(client.status).toEqual({ state: "waiting", reason: "http_503", retryMs: 1000 });
  });

  it("does not take a wait beyond a timer's reach for no wait", async () => {
    connect();
    await pass(0);
    server.last.refuse(503, "", { "Retry-After": "99999999" });
    await pass(3_600_000);
    expect(server.requests.length).toBe(1);
  });
});

describe("bye", () => {
  it.each(["idle_timeout", "max_age", "server_shutdown", "slow_consumer", "overloaded"])("%s: comes back after retryMs", async (reason) => {
    const heard = vi.fn();
    connect().on("bye", ({ data }) => heard(data.reason));
    await pass(0);
    server.last.open();
    await pass(10_000);
    server.last.send("retry: 9\n").event("bye", bye(reason, true, 1234));
    await pass(0);
    expect(heard).toHaveBeenCalledWith(reason);
    expect(client.status).toEqual({ state: "waiting", reason, retryMs: 1234 });
    expect(server.last.ended).toBe(true);
    await pass(1234);
    expect(server.requests.length).toBe(2);
  });

  it.each(["kicked", "replaced", "token_expired"])("%s: does not come back by itself, but by connect()", async (reason) => {
    connect();
    await pass(0);
    server.last.open().event("bye", bye(reason, false, 1000));
    await pass(3_600_000);
    expect(client.status).toEqual({ state: "closed", reason });
    expect(server.requests.length).toBe(1);
    client.connect();
    await pass(0);
    expect(server.requests.length).toBe(2);
  });

  it("token_expired: comes back with another token, when there is a function that gives one", async () => {
    let token = "old";
    connect({ token: () => token });
    await pass(0);
    server.last.open().event("bye", bye("token_expired", false, 500));
    token = "new";
    await pass(500);
    expect(server.last.headers.get("authorization")).toBe("Bearer new");
    server.last.open().event("bye", bye("token_expired", false, 500));
    await pass(1_000);
    // The same one again would be refused again.
    expect(client.status).toEqual({ state: "closed", reason: "unauthorized" });
    expect(server.requests.length).toBe(2);
  });

  it("does not spin when it is told to come back at once again and again", async () => {
    connect();
    await pass(0);
    for (let i = 0; i < 50; i++) {
      if (!server.last.ended) server.last.open().event("bye", bye("overloaded", true, 0));
      await pass(100);
    }
    expect(server.requests.length).toBeLessThanOrEqual(7);
  });

  it.each(["null", "7", '"x"', "{", "{}"])("with data %s is an end like any other", async (data) => {
    jitter(0);
    connect();
    await pass(0);
    server.last.open(false).send(`event: bye\ndata: ${data}\n\n`);
    await pass(0);
    expect(client.status).toEqual({ state: "waiting", reason: "bye", retryMs: 1000 });
  });

  it("lets a listener close the client", async () => {
    connect().on("bye", () => client.close());
    await pass(0);
    server.last.open().event("bye", bye("max_age", true, 1));
    await pass(60_000);
    expect(client.status).toEqual({ state: "closed", reason: "client" });
    expect(server.requests.length).toBe(1);
  });
});

describe("refusals", () => {
  it.each([
    [401, "unauthorized"],
    [403, "forbidden"],
    [400, "bad_channel"],
    [404, "not_found"],
    [406, "not_acceptable"],
  ])("%i %s in the server's own words is final", async (status, code) => {
    connect();
    await pass(0);
    server.last.refuse(status, { error: "…", code });
    await pass(3_600_000);
    expect(client.status).toEqual({ state: "closed", reason: code });
    expect(server.requests.length).toBe(1);
  });

  it.each([401, 403, 404, 502])("%i in somebody else's words is not: it may be a proxy in the middle of a deploy", async (status) => {
    connect();
    await pass(0);
    server.last.refuse(status, "<html>");
    await pass(0);
    expect(client.status).toMatchObject({ state: "waiting", reason: "http_" + status });
  });

  it("204 ends it: nothing more will come", async () => {
    connect();
    await pass(0);
    server.last.refuse(204);
    await pass(3_600_000);
    expect(client.status).toEqual({ state: "closed", reason: "ended" });
  });

  it("`limit` in a 200 (onLimit=soft) never was open, and waits", async () => {
    const states = vi.fn();
    const limits = vi.fn();
    connect().on("state", ({ data }) => states(data.state));
    client.on("limit", ({ data }) => limits(data.code));
    await pass(0);
    server.last.open(false).send("retry: 15000\n").event("limit", { code: "ip_limit", retryMs: 15000 }).end();
    await pass(0);
    expect(limits).toHaveBeenCalledWith("ip_limit");
    expect(client.status).toEqual({ state: "waiting", reason: "ip_limit", retryMs: 15000 });
    expect(states.mock.calls.flat()).not.toContain("open");
  });
});

describe("the watchdog", () => {
  it("reconnects after 2.5 heartbeats without a byte", async () => {
    connect({ heartbeatMs: 10_000 });
    await pass(0);
    server.last.open();
    await pass(24_999);
    expect(client.state).toBe("open");
    await pass(1);
    expect(client.status).toMatchObject({ state: "waiting", reason: "timeout" });
    expect(server.last.ended).toBe(true);
  });

  it("takes a comment for a sign of life", async () => {
    connect({ heartbeatMs: 10_000 });
    await pass(0);
    server.last.open();
    for (let i = 0; i < 20; i++) {
      await pass(10_000);
      server.last.send(": ping\n\n");
    }
    await pass(0);
    expect(server.requests.length).toBe(1);
    expect(client.state).toBe("open");
  });
});

describe("a full session", () => {
  const full = (): void => server.last.refuse(429, { code: "session_limit" }, { "Retry-After": "30" });

  it("may be full of our own last connection: tried again soon for two seconds, then as the server says", async () => {
    jitter(0.5);
    connect();
    await pass(0);
    server.last.open();
    await pass(60_000);
    page.fire("online");
    const waits: number[] = [];
    for (let i = 0; i < 4; i++) {
      await pass(client.status.retryMs ?? 0);
      full();
      await pass(0);
      waits.push(client.status.retryMs!);
    }
    expect(waits).toEqual([250, 1_000, 1_000, 30_500]);
  });

  it("also when the page is young: the one before it was ours", async () => {
    connect();
    await pass(0);
    full();
    await pass(0);
    expect(client.status).toEqual({ state: "waiting", reason: "session_limit", retryMs: 250 });
  });

  it("of others is waited for as the server says", async () => {
    jitter(0.5);
    connect();
    await pass(0);
    server.last.fail();
    await pass(2_500);
    await pass(0);
    full();
    await pass(0);
    expect(client.status.retryMs).toBe(30_500);
  });
});

describe("changing the channels while connected", () => {
  it("is one reconnect for all changes within 50 ms, and resumes", async () => {
    connect({ channels: ["a"] });
    await pass(0);
    server.last.open().event("e", 1, "p1");
    await pass(1_000);
    const first = server.last;
    client.subscribe("b");
    await pass(30);
    client.subscribe("c");
    client.unsubscribe("a");
    expect(first.ended).toBe(false);
    await pass(20);
    expect(first.ended).toBe(true);
    expect(server.requests.length).toBe(1);
    await pass(50);
    expect(server.requests.length).toBe(2);
    expect(server.last.params.get("channels")).toBe("b,c");
    expect(server.last.headers.get("last-event-id")).toBe("p1");
  });

  it("is nothing when it comes out the same", async () => {
    connect({ channels: ["a"] });
    await pass(0);
    server.last.open();
    client.subscribe("b")();
    client.subscribe("a");
    client.unsubscribe("a");
    await pass(1_000);
    expect(server.requests.length).toBe(1);
    expect(server.last.ended).toBe(false);
  });

  it("does not shorten a wait", async () => {
    jitter(0.5);
    connect({ channels: ["a"] });
    await pass(0);
    server.last.refuse(429, { code: "rate_limit" }, { "Retry-After": "10" });
    await pass(0);
    client.subscribe("b");
    await pass(10_000);
    expect(server.requests.length).toBe(1);
    await pass(500);
    expect(server.last.params.get("channels")).toBe("a,b");
  });

  it("closes the connection when nobody wants anything, and opens it again", async () => {
    connect({ channels: [] });
    const off = client.subscribe("a");
    await pass(0);
    server.last.open();
    await pass(0);
    off();
    await pass(50);
    expect(client.state).toBe("idle");
    expect(server.last.ended).toBe(true);
    client.subscribe("a");
    await pass(0);
    expect(server.requests.length).toBe(2);
  });
});

describe("overtaken attempts", () => {
  it("a token that comes after close() opens nothing", async () => {
    let give!: (token: string) => void;
    connect({ token: () => new Promise((resolve) => (give = resolve)) });
    await pass(0);
    client.close();
    give("t");
    await pass(60_000);
    expect(server.requests.length).toBe(0);
  });

  it("a token that comes after the channels changed opens nothing a second time", async () => {
    const gives: ((token: string) => void)[] = [];
    connect({ channels: ["a"], token: () => new Promise((resolve) => gives.push(resolve)) });
    await pass(0);
    client.subscribe("b");
    await pass(200);
    for (const give of gives) give("t");
    await pass(0);
    expect(server.requests.length).toBe(1);
    expect(server.last.params.get("channels")).toBe("a,b");
  });

  it("close() within a state listener is the end, in whatever state", async () => {
    for (const at of ["connecting", "open", "waiting"]) {
      server = new FakeServer();
      page = new FakePage(server);
      connect().on("state", ({ data }) => data.state === at && client.close());
      await pass(0);
      if (server.requests.length && !server.last.ended) server.last.open();
      await pass(0);
      if (server.requests.length && !server.last.ended) server.last.fail();
      await pass(3_600_000);
      expect(client.status).toEqual({ state: "closed", reason: "client" });
      expect(server.requests.length).toBeLessThanOrEqual(1);
      expect(vi.getTimerCount()).toBe(0);
    }
  });

  it("events behind the one at which a listener closes are not delivered", async () => {
    const heard = vi.fn();
    connect().on("e", ({ data }) => {
      heard(data);
      client.close();
    });
    await pass(0);
    server.last.open().send("event: e\ndata: 1\n\nevent: e\ndata: 2\n\n");
    await pass(0);
    expect(heard.mock.calls).toEqual([[1]]);
  });
});
