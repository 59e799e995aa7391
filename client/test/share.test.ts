import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ClientOptions } from "../src/index.js";
import { FakeBrowser, type FakeTab } from "./support/fake-browser.js";
import { FakeCluster } from "./support/fake-cluster.js";
import { random } from "./support/random.js";

let cluster: FakeCluster;
let browser: FakeBrowser;
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** Opens tabs; each remembers the events that it hears. */
function open(count: number, options?: ClientOptions): (FakeTab & { heard: number[] })[] {
  return Array.from({ length: count }, () => {
    const tab = Object.assign(browser.tab(options), { heard: [] as number[] });
    tab.client.on("e" as string, ({ data }) => {
      if (!tab.killed) tab.heard.push(data as number);
    });
    return tab;
  });
}
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
/** The import of the sharing part is real, and takes real time. */
const settle = async (): Promise<void> => {
  await vi.dynamicImportSettled();
  await pass(400);
};

beforeEach(() => {
  vi.useFakeTimers();
  cluster = new FakeCluster();
  browser = new FakeBrowser(cluster);
});
afterEach(() => {
  for (const tab of browser.tabs) tab.client.close();
  vi.useRealTimers();
});

describe("five tabs", () => {
  it("are one connection, and all hear everything once", async () => {
    const tabs = open(5);
    await settle();
    expect(cluster.live.length).toBe(1);
    for (const _ of upTo(20)) cluster.publish();
    await pass(10);
    for (const tab of tabs) expect(tab.heard).toEqual(upTo(20));
    expect(tabs.map(({ client }) => client.state)).toEqual(Array(5).fill("open"));
    expect(cluster.most).toBe(1);
  });

  it("one tab connects without waiting for others", async () => {
    open(1);
    await vi.dynamicImportSettled();
    await pass(5);
    expect(cluster.live.length).toBe(1);
  });

  it("share what all of them want, and drop what no one wants any more", async () => {
    const [a, b] = open(2, { channels: [] });
    const [c] = open(1, { channels: ["c"] });
    a!.client.subscribe("a");
    const off = b!.client.subscribe("b");
    await settle();
    expect(cluster.live.map(({ params }) => params.get("channels"))).toEqual(["a,b,c"]);
    off();
    await pass(200);
    expect(cluster.live.map(({ params }) => params.get("channels"))).toEqual(["a,c"]);
    c!.kill();
    await pass(200);
    expect(cluster.live.map(({ params }) => params.get("channels"))).toEqual(["a"]);
  });

  it("do not share with another session, another cluster, or another group", async () => {
    open(2);
    open(2, { session: "other" });
    open(2, { url: "http://other.test" });
    open(2, { share: "user-7" });
    open(2, { share: false });
    open(1, { share: true });
    await settle();
    expect(cluster.live.length).toBe(6);
  });

  it("all learn the state of the connection, also late", async () => {
    const tabs = open(2);
    await settle();
    cluster.intercept = (request) => {
      request.refuse(503, { code: "draining" }, { "Retry-After": "10" });
      return true;
    };
    cluster.live[0]!.end();
    await pass(5_000);
    tabs.push(...open(1));
    await settle();
    for (const { client } of tabs) expect(client.status).toMatchObject({ state: "waiting", reason: "draining" });
  });
});

describe("when the leading tab goes", () => {
  it.each(["close", "kill"] as const)("(%s) the next one is connected within a second; nothing is lost or doubled", async (how) => {
    const tabs = open(5);
    await settle();
    const publish = setInterval(() => cluster.publish(), 20);
    await pass(2_000);
    for (const tab of tabs.slice(0, 4)) {
      tab[how]();
      expect(cluster.live.length).toBe(0);
      const waited = Date.now();
      while (cluster.live.length === 0) await pass(10);
      expect(Date.now() - waited).toBeLessThan(1_000);
      await pass(2_000);
    }
    clearInterval(publish);
    await pass(100);
    expect(cluster.history.length).toBeGreaterThan(300);
    expect(tabs[4]!.heard).toEqual(upTo(cluster.history.length));
    expect(cluster.most).toBe(1);
  });

  it("is connected within a second also where the server counts the old connection a little longer", async () => {
    const tabs = open(3);
    await settle();
    cluster.intercept = (request) => {
      if (Date.now() > gone + 150) return false;
      request.refuse(429, { error: "…", code: "session_limit" }, { "Retry-After": "5" });
      return true;
    };
    const gone = Date.now();
    tabs[0]!.kill();
    cluster.publish();
    await pass(1_000);
    expect(cluster.live.length).toBe(1);
  });

  it("by client.close(), the others go on", async () => {
    const tabs = open(3);
    await settle();
    tabs[0]!.client.close();
    await settle();
    cluster.publish();
    await pass(10);
    expect(tabs.map(({ heard }) => heard)).toEqual([[], [0], [0]]);
  });

  it("a follower that goes is not noticed by the others", async () => {
    const tabs = open(3);
    await settle();
    tabs[1]!.kill();
    await settle();
    cluster.publish();
    await pass(10);
    expect(cluster.requests.length).toBe(1);
    expect(tabs[2]!.heard).toEqual([0]);
  });

  it("resumes from the oldest position: a tab that was behind misses nothing", async () => {
    // The leader dies with messages under way that never arrive.
    let latency = 1;
    browser = new FakeBrowser(cluster, () => latency);
    const [leader, next, last] = open(3);
    await settle();
    cluster.publish();
    await pass(10);
    const channels = [...last!.channels];
    last!.channels.clear();
    cluster.publish();
    cluster.publish();
    await pass(10);
    for (const channel of channels) last!.channels.add(channel);
    expect(last!.heard).toEqual([0]);
    latency = 20;
    leader!.kill();
    await settle();
    cluster.publish();
    await pass(50);
    expect(last!.heard).toEqual(upTo(4));
    expect(next!.heard).toEqual(upTo(4));
  });
});

it("a tab that came later and has heard nothing yet misses nothing when the leader goes", async () => {
  cluster.publish();
  const [leader] = open(1);
  await settle();
  const [later] = open(1);
  const greeted = vi.fn();
  later!.client.on("connected", greeted);
  await settle();
  expect(greeted).toHaveBeenCalledOnce();
  leader!.kill();
  cluster.publish();
  await settle();
  expect(later!.heard).toEqual([1]);
});

describe("a frozen leader", () => {
  it("that is told before (freeze) passes the lead on", async () => {
    const tabs = open(2);
    await settle();
    tabs[0]!.fire("freeze");
    tabs[0]!.freeze();
    await settle();
    cluster.publish();
    await pass(10);
    expect(tabs[1]!.heard).toEqual([0]);
    tabs[0]!.thaw();
    tabs[0]!.fire("resume");
    await settle();
    expect(tabs[0]!.heard).toEqual([]);
    cluster.publish();
    await pass(10);
    expect(tabs[0]!.heard).toEqual([1]);
    expect(cluster.live.length).toBe(1);
  });

  it("with lock and all loses the lead to a tab that is seen, and follows when it thaws", async () => {
    const tabs = open(3);
    await settle();
    cluster.publish();
    await pass(10);
    tabs[0]!.freeze();
    tabs[1]!.document.hidden = true;
    cluster.publish();
    await pass(15_000);
    expect(tabs[1]!.heard).toEqual([0, 1]);
    expect(tabs[2]!.heard).toEqual([0, 1]);
    tabs[0]!.thaw();
    await settle();
    cluster.publish();
    await pass(10);
    for (const { heard } of tabs) expect(heard).toEqual([0, 1, 2]);
    expect(cluster.live.length).toBe(1);
  });

  it("is not robbed while it answers, however long nothing is published", async () => {
    open(3);
    await settle();
    for (const _ of upTo(40)) {
      await pass(25_000);
      cluster.live[0]!.send(": ping\n\n");
    }
    expect(cluster.requests.length).toBe(1);
  });
});

describe("a tab that was away", () => {
  it("gets from the leader what it missed, without a request", async () => {
    const [, away] = open(2, { whenHidden: "pause" });
    await settle();
    cluster.publish();
    await pass(10);
    away!.hide(true);
    for (const _ of upTo(50)) cluster.publish();
    await pass(60_000);
    away!.hide(false);
    await settle();
    expect(away!.heard).toEqual(upTo(51));
    // The watchdog has reconnected within that minute; nothing else has.
    expect(cluster.live.length).toBe(1);
  });

  it("for long gets it from the server, and the others hear nothing twice", async () => {
    const [stays, away] = open(2, { whenHidden: "pause" });
    await settle();
    cluster.publish();
    await pass(10);
    away!.hide(true);
    for (const _ of upTo(600)) cluster.publish();
    await pass(100);
    const requests = cluster.requests.length;
    away!.hide(false);
    await settle();
    expect(away!.heard).toEqual(upTo(601));
    expect(stays!.heard).toEqual(upTo(601));
    expect(cluster.requests.length).toBe(requests + 1);
  });
});

describe("the end for all", () => {
  it("kicked: no tab comes back, and the next in line does not try", async () => {
    const tabs = open(5);
    await settle();
    cluster.live[0]!.event("bye", { reason: "kicked", reconnect: false, retryMs: 1 });
    await pass(10_000);
    for (const { client } of tabs) expect(client.status).toEqual({ state: "closed", reason: "kicked" });
    expect(cluster.requests.length).toBe(1);
    expect(browser.held.size).toBe(0);
    tabs[3]!.client.connect();
    await settle();
    expect(tabs[3]!.client.state).toBe("open");
  });

  it("refused channels of one tab do not end the connection of all", async () => {
    const tabs = open(3, { channels: ["a"] });
    const refused = vi.fn();
    tabs[0]!.client.on("refused", ({ data }) => refused(data));
    await settle();
    cluster.intercept = (request) => {
      const forbidden = request.params.get("channels")!.includes("secret");
      if (forbidden) request.refuse(403, { error: "…", code: "forbidden" });
      return forbidden;
    };
    tabs[2]!.client.subscribe("secret");
    await settle();
    expect(refused).toHaveBeenCalledWith({ reason: "forbidden", channels: ["secret"] });
    tabs[1]!.client.subscribe("b");
    await settle();
    expect(cluster.live.map(({ params }) => params.get("channels"))).toEqual(["a,b"]);
    expect(tabs.map(({ client }) => client.state)).toEqual(Array(3).fill("open"));
  });

  it("leaves no lock, no channel and no timer behind", async () => {
    const tabs = open(3);
    await settle();
    for (const { client } of tabs) client.close();
    await pass(2_000);
    expect(browser.held.size).toBe(0);
    expect(browser.queue.length).toBe(0);
    expect(tabs.flatMap(({ channels }) => [...channels])).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("where sharing cannot be", () => {
  it("no locks (an insecure context): a connection per tab", async () => {
    const [tab] = open(1, { share: false });
    await pass(0);
    expect(tab!.client.state).toBe("open");
    const page = browser.tab({ platform: { fetch: cluster.fetch, navigator: {} } });
    await pass(0);
    expect(page.client.state).toBe("open");
  });

  it("locks that refuse (a sandboxed frame): a connection per tab", async () => {
    const tab = new FakeBrowser(cluster).tab();
    Object.assign(tab.platform.navigator!.locks!, { request: () => Promise.reject(new DOMException("no", "SecurityError")) });
    await settle();
    expect(tab.client.state).toBe("open");
    expect(tab.channels.size).toBe(0);
  });
});

describe("hidden leader, seen follower", () => {
  it("a follower that is seen ends a wait of the leader", async () => {
    const tabs = open(2);
    await settle();
    vi.spyOn(Math, "random").mockReturnValue(0.999);
    cluster.intercept = (request) => {
      request.fail();
      return true;
    };
    cluster.live[0]!.fail();
    await pass(20_000);
    expect(tabs[1]!.client.state).toBe("waiting");
    cluster.intercept = undefined;
    tabs[1]!.hide(false);
    await pass(10);
    expect(tabs[1]!.client.state).toBe("open");
  });
});

describe("whatever happens", () => {
  /** Lets tabs come, go, crash, freeze and come back, and the connection break, while 50 events a second are published. */
  async function ordeal(seed: number, latency: number): Promise<{ heard: number[]; killed: boolean }[]> {
    const { int, next, pick } = random(seed + 1);
    browser = new FakeBrowser(cluster, () => int(latency));
    vi.spyOn(Math, "random").mockImplementation(next);
    const tabs = open(3);
    await settle();
    const publish = setInterval(() => cluster.publish(), 20);
    await pass(500);
    for (let step = 0; step < 20; step++) {
      const alive = tabs.filter(({ killed }) => !killed);
      const tab = pick(alive);
      const act = int(7);
      if (act === 0 && alive.length > 1) tab.kill();
      else if (act === 1 && alive.length > 1) tab.close();
      else if (act === 2 && alive.length < 6) tabs.push(...open(1));
      else if (act === 3) for (const request of cluster.live) request.fail();
      else if (act === 4) for (const request of cluster.live) request.end();
      else if (act === 5) {
        tab.freeze();
        await pass(int(20_000));
        tab.thaw();
      } else {
        tab.fire("freeze");
        await pass(int(500));
        tab.fire("resume");
      }
      await vi.dynamicImportSettled();
      await pass(int(1_500));
    }
    await pass(40_000);
    clearInterval(publish);
    await pass(2_000);
    expect(cluster.live.length).toBe(1);
    return tabs;
  }

  // In 67 a tab answers a new leader too late: it must not hear the present before what it missed.
  it.each([...upTo(25), 67])("every tab hears a row without holes or repetitions (seed %i)", async (seed) => {
    for (const { heard, killed } of await ordeal(seed, 40)) {
      expect(heard).toEqual(heard.length ? upTo(heard.at(-1)! + 1).slice(heard[0]) : []);
      if (!killed) expect(heard.at(-1)).toBe(cluster.history.length - 1);
    }
  });

  it.each(upTo(8))("and loses and doubles nothing, though maybe out of order, where messages take up to 0.4 s and overtake each other (seed %i)", async (seed) => {
    for (const { heard, killed } of await ordeal(seed, 400)) {
      const sorted = [...heard].sort((a, b) => a - b);
      expect(sorted).toEqual(sorted.length ? upTo(sorted.at(-1)! + 1).slice(sorted[0]) : []);
      if (!killed) expect(sorted.at(-1)).toBe(cluster.history.length - 1);
    }
  });
});
