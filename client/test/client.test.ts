import { afterEach, beforeEach, describe, expect, expectTypeOf, it, vi } from "vitest";
import { type ClientOptions, createClient, events, type Gap, type Job } from "../src/index.js";
import { FakePage } from "./support/fake-page.js";
import { FakeServer } from "./support/fake-server.js";

let server: FakeServer;
let page: FakePage;
const closers: (() => void)[] = [];

function make<E extends object = import("../src/index.js").Events>(options: ClientOptions = {}) {
  const client = createClient<E>({ share: false, platform: page.platform, ...options });
  closers.push(() => client.close());
  return client;
}
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** A client that is open. */
async function opened(options?: ClientOptions) {
  const client = make(options);
  client.connect();
  await pass(0);
  server.last.open();
  await pass(0);
  return client;
}

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  page = new FakePage(server);
});
afterEach(() => {
  for (const close of closers.splice(0)) close();
  vi.useRealTimers();
});

describe("listeners", () => {
  it("get events of their type, parsed when it is JSON, with their own position", async () => {
    const client = await opened();
    const heard: unknown[] = [];
    client.on("job_progress", ({ type, data, lastEventId }) => heard.push([type, data.status, lastEventId]));
    client.on("text", ({ data, lastEventId }) => heard.push([data, lastEventId]));
    client.on("message", ({ data }) => heard.push(data));
    server.last.event("job_progress", { id: 1, status: "running" }, "p1");
    server.last.send("event: text\ndata: not json\n\ndata: 7\n\n").event("other", 1);
    await pass(0);
    expect(heard).toEqual([["job_progress", "running", "p1"], ["not json", ""], 7]);
    expect(client.lastEventId).toBe("p1");
  });

  it("`*` gets every event of the server, its own too", async () => {
    const client = make();
    const heard: string[] = [];
    client.on("*", ({ data }) => heard.push(data.type));
    client.connect();
    await pass(0);
    server.last.open().event("a", 1).event("gap", { channel: "c", reason: "history_lost" });
    await pass(0);
    expect(heard).toEqual(["connected", "a", "gap"]);
  });

  it("can be taken back in three ways, and `once` hears once", async () => {
    const client = await opened();
    const [off, signal, taken, once] = [vi.fn(), vi.fn(), vi.fn(), vi.fn()];
    client.on("e", off);
    const abort = new AbortController();
    client.on("e", signal, { signal: abort.signal });
    const take = client.on("e", taken);
    client.once("e", once);
    server.last.event("e", 1);
    await pass(0);
    client.off("e", off);
    abort.abort();
    take();
    server.last.event("e", 2);
    await pass(0);
    for (const listener of [off, signal, taken, once]) expect(listener).toHaveBeenCalledOnce();
  });

  it("a published event cannot pass for the client's own", async () => {
    const client = await opened();
    const [state, all] = [vi.fn(), vi.fn()];
    client.on("state", state);
    client.on("*", ({ data }) => all(data.type, data.data));
    server.last.event("state", { state: "closed" }).event("*", 1);
    await pass(0);
    expect(state).not.toHaveBeenCalled();
    expect(all.mock.calls).toEqual([
      ["state", { state: "closed" }],
      ["*", 1],
    ]);
  });

  it("do not suffer from an exception in another one, which is reported", async () => {
    const client = await opened();
    // The platform reports it: to `window.onerror` in a browser, as an uncaught exception here.
    const others = process.listeners("uncaughtException");
    const reported: Error[] = [];
    process.removeAllListeners("uncaughtException").on("uncaughtException", (error) => reported.push(error));
    const heard = vi.fn();
    client.on("e", () => {
      throw new Error("mine");
    });
    client.on("e", heard);
    server.last.event("e", 1).event("e", 2);
    await vi.waitFor(() => expect(reported.map(({ message }) => message)).toEqual(["mine", "mine"]));
    process.removeAllListeners("uncaughtException");
    for (const other of others) process.on("uncaughtException", other);
    expect(heard).toHaveBeenCalledTimes(2);
    expect(client.state).toBe("open");
  });

  it("are typed by event", () => {
    const client = make<{ price: { cents: number } }>();
    client.on("price", ({ data }) => expectTypeOf(data).toEqualTypeOf<{ cents: number }>());
    client.on("gap", ({ data }) => expectTypeOf(data).toEqualTypeOf<Gap>());
    client.on("unknown", ({ data }) => expectTypeOf(data).toEqualTypeOf<unknown>());
    client.on("*", ({ data }) => expectTypeOf(data.type).toEqualTypeOf<string>());
    make().on("job_failed", ({ data }) => expectTypeOf(data).toEqualTypeOf<Job>());
  });
});

describe("durable events", () => {
  it("come once, though a reconnect repeats them", async () => {
    const client = await opened();
    const heard: unknown[] = [];
    client.on("e", ({ data }) => heard.push(data));
    server.last.event("e", 1, "p1").event("e", 2, "p2").event("e", "live");
    await pass(10_000);
    server.last.end();
    await pass(3_217);
    server.last.open().event("e", 1, "p1").event("e", 2, "p2").event("e", 3, "p3").event("e", "live");
    await pass(0);
    expect(heard).toEqual([1, 2, "live", 3, "live"]);
    expect(client.lastEventId).toBe("p3");
  });

  it("are not judged by order: a lower position may be new", async () => {
    const client = await opened();
    const heard: unknown[] = [];
    client.on("e", ({ data }) => heard.push(data));
    server.last.event("e", "b", "p5").event("e", "hole in another channel", "p3").event("e", "b", "p5");
    await pass(0);
    expect(heard).toEqual(["b", "hole in another channel"]);
  });

  it("an id on the greeting is a place to resume from, and may come again", async () => {
    const client = await opened();
    const hello = vi.fn();
    client.on("connected", hello);
    for (let i = 0; i < 2; i++) {
      server.last.end();
      await pass(0);
      await pass(client.status.retryMs!);
      expect(server.last.headers.get("last-event-id")).toBe(i ? "p1" : null);
      server.last.open(false).event("connected", { type: "hello" }, "p1");
      await pass(0);
    }
    expect(hello).toHaveBeenCalledTimes(2);
  });

  it("resume from a position of an earlier page", async () => {
    await opened({ lastEventId: "p7" });
    expect(server.last.headers.get("last-event-id")).toBe("p7");
  });
});

describe("the session token", () => {
  it("is made once per browser profile", async () => {
    await opened();
    const first = server.last.headers.get("x-session-token");
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    await opened();
    expect(server.last.headers.get("x-session-token")).toBe(first);
  });

  it("lives as long as the page where there is no storage", async () => {
    Object.defineProperty(page.platform, "localStorage", {
      get: () => {
        throw new DOMException("denied", "SecurityError");
      },
    });
    await opened();
    expect(server.last.headers.get("x-session-token")).toMatch(/^[0-9a-f-]{36}$/);
  });

  it("is made without randomUUID in an insecure context", async () => {
    vi.stubGlobal("crypto", { getRandomValues: crypto.getRandomValues.bind(crypto) });
    await opened();
    vi.unstubAllGlobals();
    expect(server.last.headers.get("x-session-token")).toMatch(/^\d+-\d+-\d+-\d+$/);
  });

  it("is not sent with session: false", async () => {
    await opened({ session: false });
    expect(server.last.headers.has("x-session-token")).toBe(false);
  });
});

describe("the client's life", () => {
  it("connect() and close() can be called as often as one likes", async () => {
    const client = make();
    client.close();
    client.connect();
    client.connect();
    await pass(0);
    server.last.open();
    await pass(0);
    client.connect();
    expect(server.requests.length).toBe(1);
    client.close();
    client.close();
    expect(server.last.ended).toBe(true);
    client.connect();
    await pass(0);
    expect(server.requests.length).toBe(2);
  });

  it("tells every change of state, in order, with its reason", async () => {
    const client = make();
    const states: string[] = [];
    client.on("state", ({ data: { state, reason } }) => states.push(reason ? `${state} ${reason}` : state));
    client.connect();
    await pass(0);
    server.last.open();
    await pass(0);
    server.last.end();
    await pass(3_217);
    server.last.open();
    await pass(0);
    client.close();
    expect(states).toEqual(["connecting", "open", "waiting network", "connecting", "open", "closed client"]);
  });

  it("ends with its signal, and does not begin after that", async () => {
    const abort = new AbortController();
    const client = await opened({ signal: abort.signal });
    abort.abort();
    expect(client.status).toEqual({ state: "closed", reason: "client" });
    client.connect();
    await pass(0);
    expect(server.requests.length).toBe(1);
  });

  it("leaves no timer and no listener at the page behind", async () => {
    const client = await opened();
    client.close();
    expect(vi.getTimerCount()).toBe(0);
    page.fire("online");
    page.hide(false);
    page.fire("pageshow");
    await pass(0);
    expect(server.requests.length).toBe(1);
  });

  it("subscriptions end with their signal, each once", async () => {
    const client = make({ channels: [] });
    const abort = new AbortController();
    client.subscribe("a", { signal: abort.signal });
    const off = client.subscribe("a");
    client.connect();
    await pass(0);
    server.last.open();
    abort.abort();
    abort.abort();
    await pass(100);
    expect(client.state).toBe("open");
    off();
    off();
    await pass(100);
    expect(client.state).toBe("idle");
    client.subscribe("a", { signal: abort.signal });
    await pass(100);
    expect(server.requests.length).toBe(1);
  });
});

describe("the page", () => {
  it("hidden: stays connected by default", async () => {
    const client = await opened();
    page.hide(true);
    await pass(60_000);
    expect(client.state).toBe("open");
    expect(server.requests.length).toBe(1);
  });

  it("hidden with whenHidden: pause: lets go, and resumes when seen", async () => {
    const client = await opened({ whenHidden: "pause" });
    server.last.event("e", 1, "p1");
    await pass(0);
    page.hide(true);
    expect(client.status).toEqual({ state: "idle", reason: "hidden" });
    expect(server.last.ended).toBe(true);
    await pass(600_000);
    page.hide(false);
    await pass(0);
    expect(server.requests.length).toBe(2);
    expect(server.last.headers.get("last-event-id")).toBe("p1");
  });

  it("opened in the background with whenHidden: pause: connects when seen", async () => {
    page.document.hidden = true;
    make({ whenHidden: "pause" }).connect();
    await pass(1000);
    expect(server.requests.length).toBe(0);
    page.hide(false);
    await pass(0);
    expect(server.requests.length).toBe(1);
  });

  it.each([
    ["freeze", "resume"],
    ["pagehide", "pageshow"],
  ])("%s lets go, %s resumes", async (away, back) => {
    const client = await opened();
    server.last.event("e", 1, "p1");
    await pass(0);
    page.fire(away);
    expect(client.status).toEqual({ state: "idle", reason: "suspended" });
    expect(server.last.ended).toBe(true);
    page.fire(back);
    await pass(0);
    expect(server.last.headers.get("last-event-id")).toBe("p1");
    expect(server.requests.length).toBe(2);
  });

  it("pageshow of the first load does not connect twice", async () => {
    await opened();
    page.fire("pageshow");
    await pass(0);
    expect(server.requests.length).toBe(1);
  });

  it("seen: a wait of our own ends, one that the server asked for does not", async () => {
    make().connect();
    await pass(0);
    server.last.fail();
    await pass(0);
    page.hide(false);
    await pass(0);
    expect(server.requests.length).toBe(2);
    server.last.refuse(503, "", { "Retry-After": "20" });
    await pass(0);
    page.hide(false);
    await pass(10_000);
    expect(server.requests.length).toBe(2);
    await pass(11_000);
    expect(server.requests.length).toBe(3);
  });

  it("seen after a sleep: a connection that was silent for too long is given up, though timers stood still", async () => {
    const client = await opened();
    vi.setSystemTime(Date.now() + 3_600_000);
    page.hide(false);
    await pass(0);
    expect(client.status).toMatchObject({ state: "waiting", reason: "timeout" });
  });

  it("seen again and again: a living connection is left alone", async () => {
    await opened();
    for (let i = 0; i < 10; i++) {
      page.hide(true);
      page.hide(false);
      await pass(100);
    }
    expect(server.requests.length).toBe(1);
  });

  it("online: the old connection is not trusted, and the backoff starts over", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    await opened();
    page.fire("online");
    await pass(0);
    expect(server.requests.length).toBe(2);
    for (let i = 0; i < 5; i++) {
      server.last.fail();
      await pass(40_000);
    }
    server.last.fail();
    await pass(0);
    const before = server.requests.length;
    page.fire("online");
    await pass(0);
    expect(server.requests.length).toBe(before + 1);
    server.last.fail();
    await pass(1_500);
    expect(server.requests.length).toBe(before + 2);
  });
});

describe("events()", () => {
  it("yields what comes, of the types that are wanted, until the client is closed", async () => {
    const client = await opened();
    const heard: unknown[] = [];
    const reading = (async () => {
      for await (const { type, data } of events(client, { types: ["a", "b"] })) heard.push([type, data]);
    })();
    await pass(0);
    server.last.event("a", 1).event("x", 2).event("b", 3);
    await pass(0);
    server.last.event("a", 4);
    await pass(0);
    client.close();
    await reading;
    expect(heard).toEqual([
      ["a", 1],
      ["b", 3],
      ["a", 4],
    ]);
  });

  it("ends with its signal, and takes its listeners back when left", async () => {
    const client = await opened();
    const abort = new AbortController();
    const reading = events(client, { signal: abort.signal }).next();
    abort.abort();
    expect(await reading).toEqual({ done: true, value: undefined });
    expect((await events(client, { signal: abort.signal }).next()).done).toBe(true);

    const iterator = events(client);
    const first = iterator.next();
    server.last.event("a", 1);
    await pass(0);
    expect((await first).value!.data).toBe(1);
    await iterator.return();
    expect((await iterator.next()).done).toBe(true);
  });

  it("says when the reader falls behind, after it has read what was kept", async () => {
    const client = await opened();
    const iterator = events(client, { limit: 2, types: ["a"] });
    const first = iterator.next();
    server.last.event("a", 1);
    await pass(0);
    await first;
    server.last.event("a", 2).event("a", 3).event("a", 4);
    await pass(0);
    expect((await iterator.next()).value!.data).toBe(2);
    expect((await iterator.next()).value!.data).toBe(3);
    await expect(iterator.next()).rejects.toThrow(RangeError);
  });

  it("of a closed client is empty", async () => {
    const client = make();
    client.close();
    expect((await events(client).next()).done).toBe(true);
  });
});
