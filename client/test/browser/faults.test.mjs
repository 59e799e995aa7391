// What must not cost an event: dead nodes, deploys, proxies, no network, sleep. Real Chromium, real nodes, real redis-servers.
//
// The scenarios mostly wait, so they run side by side, each on a cluster and in a browser profile of its own.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { Publisher, assertExactlyOnce } from "./publisher.mjs";
import { site } from "./site.mjs";
import { Stage, until } from "./stage.mjs";
import { logOf, logsOf, openTab, untilHeard, untilOpen, waitsOf } from "./tab.mjs";

/** Events per second. */
const RATE = 20;
/** By so much a measured wait may be shorter than it was; the shortest that is asserted is 1 s. */
const SLACK_MS = 300;
const stage = new Stage();
let origin, browser, profile;

before(async () => {
  [origin, browser, profile] = await Promise.all([site(stage), stage.browser(), stage.profile()]);
});
after(() => stage.end());

/** A cluster with an open page in front of it, and events on their way. */
async function setting(t, { names = ["node-a", "node-b"], env, clients = [{}], person, ...how } = {}) {
  const cluster = await stage.cluster(names, { FANLIGHT_ALLOWED_ORIGINS: origin, FANLIGHT_MAX_PER_IP: "0", ...env }, how);
  const context = person ?? (await browser.newContext());
  if (!person) t.after(() => context.close());
  const tab = (...settings) => openTab(context, origin, ...settings.map((options) => ({ url: cluster.url, ...options })));
  const page = await tab(...clients);
  await untilOpen(page);
  const publisher = new Publisher(cluster.nodes, RATE);
  t.after(() => publisher.stop());
  return { cluster, context, tab, page, publisher };
}

/**
 * Ends the publishing, and asserts that every client of every page has heard all of it once, from its first event on, which
 * is one of the first `from` that were published; and that none was told of a gap.
 */
async function settle(publisher, pages, from = 1) {
  const published = await publisher.stop();
  for (const page of pages) {
    await untilHeard(page, published.at(-1));
    for (const [i, { ids, gaps, states }] of (await logsOf(page)).logs.entries()) {
      const first = published.indexOf(ids[0]);
      assert.ok(first < from, `client ${i} began with event ${first} of the first ${from}`);
      assertExactlyOnce(ids, published.slice(first), `client ${i}`);
      // Of a channel on which nothing ever was published a node cannot say that nothing is missing.
      assert.deepEqual(gaps.filter(({ channel }) => channel === "jobs"), [], JSON.stringify(states));
    }
  }
}

/** How many of the items are this one. */
const count = (items, wanted) => items.filter((item) => item === wanted).length;

/** No attempt came before its time, as far as a busy page can tell: the timer runs already when the wait is logged. */
function assertPatient(waits) {
  assert.deepEqual(waits.filter(({ retryMs, tookMs, next }) => next === "connecting" && tookMs < retryMs - SLACK_MS), []);
}

/** Waits that somebody else named, within a span, and not all the same. */
function assertSpread(waits, from, to) {
  assert.ok(waits.length > 1, "there are waits");
  assert.deepEqual(waits.filter(({ retryMs }) => retryMs < from || retryMs > to), []);
  assert.ok(new Set(waits.map(({ retryMs }) => retryMs)).size > 1, "they differ");
}

/** Freezes a tab, as a browser does to save power, or before the machine sleeps. */
async function freeze(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  return () => devtools.send("Page.setWebLifecycleState", { state: "active" });
}

describe("every durable event reaches the page once", { concurrency: true }, () => {
  test("though a node is killed, all nodes are restarted one after the other, and Redis is restarted", { timeout: 180_000 }, async (t) => {
    // A browser opens six connections to a host; each of these clients has a host name, and a session, of its own.
    const alone = [...Array(9).keys()].map((i) => ({ share: false, session: `s${i}`, host: `c${i}.localhost` }));
    const { cluster, tab, page, publisher } = await setting(t, { names: ["node-a", "node-b", "node-c"], env: { FANLIGHT_LEASE_TTL: "5s" } });
    const { port } = new URL(cluster.url);
    const crowd = await tab(...alone.map(({ host, ...options }) => ({ ...options, url: `http://${host}:${port}` })));
    await untilOpen(crowd);
    const started = publisher.begun();

    await pause(1_000);
    const nodes = (await logsOf(crowd)).logs.map(({ node }) => node);
    const busiest = nodes.toSorted((a, b) => count(nodes, b) - count(nodes, a))[0];
    const victim = cluster.nodes.find(({ id }) => id === busiest);
    await victim.kill();
    const broken = ({ logs }) => logs.filter(({ states }) => states.some(({ reason }) => reason === "network"));
    await until("its clients have noticed", async () => broken(await logsOf(crowd)).length >= count(nodes, busiest));
    // The dead node's places are taken until its lease ends.
    await Promise.all([page, crowd].map((each) => untilOpen(each, 40_000)));
    const killed = broken(await logsOf(crowd)).map(waitsOf);
    assertSpread(killed.map(([first]) => first), 2_000, 4_000);
    assertPatient(killed.flat());

    await cluster.restart(victim);
    for (const node of cluster.nodes) if (node !== victim) await cluster.restart(node);
    await Promise.all([page, crowd].map((each) => untilOpen(each, 40_000)));
    const restarted = (await logsOf(crowd)).logs.flatMap(waitsOf);
    assertSpread(restarted.filter(({ reason }) => reason === "server_shutdown"), 500, 30_000);
    assertPatient(restarted);

    // A node that has heard no event of a channel yet cannot know that all of them are durable.
    await pause(1_000);
    await Promise.all([page, crowd].map((each) => untilHeard(each, publisher.ids.at(-1))));
    const attempts = (await logsOf(crowd)).attempts.length;
    await cluster.redis.restart();
    await pause(3_000);
    assert.equal((await logsOf(crowd)).attempts.length, attempts, "streams outlive Redis");
    await settle(publisher, [page, crowd], started);
  });

  test("though a proxy cuts every 10 s", { timeout: 180_000 }, async (t) => {
    const { page, publisher } = await setting(t, {
      cutAfterMs: 10_000,
      clients: [{ share: false, session: "by-fetch" }, { share: false, session: "natively", transport: "eventsource" }],
    });
    await pause(33_000);
    await settle(publisher, [page]);
    for (const log of (await logsOf(page)).logs) {
      const cuts = waitsOf(log);
      assert.ok(cuts.length >= 2, `${cuts.length} cuts`);
      assert.deepEqual(new Set(cuts.map(({ reason }) => reason)), new Set(["network"]));
      assertPatient(cuts);
    }
  });

  test("though the browser is offline for 20 s and has noticed that its connection is gone", { timeout: 180_000 }, async (t) => {
    const { cluster, context, page, publisher } = await setting(t);
    await pause(1_000);
    await context.setOffline(true);
    cluster.network.cut();
    await until("the page has noticed", async () => (await logOf(page)).states.at(-1).state !== "open");
    const heard = (await logOf(page)).ids.length;
    await pause(20_000);
    const log = await logOf(page);
    assert.equal(log.ids.length, heard, "nothing comes through");
    const tried = waitsOf(log).filter(({ next }) => next === "connecting");
    await context.setOffline(false);
    await untilOpen(page);
    await settle(publisher, [page]);
    assertPatient(tried);
    assert.ok(tried.length >= 2, "it has tried");
    tried.forEach(({ retryMs }, i) => {
      const most = Math.max(4_000, Math.min(30_000, 1_000 * 2 ** (i + 1)));
      assert.ok(retryMs >= 1_000 && retryMs <= most, `wait ${i} was ${retryMs}`);
    });
  });

  test("though the browser is offline for 20 s and its connection only falls silent", { timeout: 180_000 }, async (t) => {
    const { cluster, context, page, publisher } = await setting(t);
    await pause(1_000);
    await context.setOffline(true);
    const end = cluster.network.silence();
    // What was under way has arrived by then.
    await pause(2_000);
    const heard = (await logOf(page)).ids.length;
    await pause(18_000);
    const { ids, states } = await logOf(page);
    assert.equal(ids.length, heard, "nothing comes through");
    assert.equal(states.at(-1).state, "open", "nobody has noticed");
    end();
    await context.setOffline(false);
    await until("it has connected anew", async () => (await logsOf(page)).attempts.length > 1);
    await untilOpen(page);
    await settle(publisher, [page]);
  });

  test("though the leading tab is frozen: the next one leads, and the first one follows when it thaws", { timeout: 180_000 }, async (t) => {
    const { tab, page, publisher } = await setting(t, { person: profile });
    const other = await tab({});
    await untilOpen(other);
    const started = publisher.begun();
    const before = (await logsOf(page)).attempts.length;
    const thaw = await freeze(page);
    await until("the other leads", async () => (await logsOf(other)).attempts.length > 0);
    await pause(5_000);
    await untilHeard(other, publisher.ids.at(-1));
    await thaw();
    await settle(publisher, [page, other], started);
    const { attempts, logs } = await logsOf(page);
    assert.equal(attempts.length, before, `it asked the leader, not the server: ${JSON.stringify(logs[0].states)}`);
  });

  test("though the only tab is frozen: it lets go, and resumes when it thaws", { timeout: 180_000 }, async (t) => {
    const { cluster, page, publisher } = await setting(t, { person: profile });
    const connections = async () => (await cluster.stats()).activeConnections;
    await until("its connection is counted", async () => (await connections()) === 1);
    const thaw = await freeze(page);
    await until("its connection is gone", async () => (await connections()) === 0);
    await pause(5_000);
    await thaw();
    await untilOpen(page);
    await settle(publisher, [page]);
    assert.ok((await logOf(page)).states.some(({ reason }) => reason === "suspended"));
  });

  test("and over the limit each comes in by itself once a place is free, and not before it was told to try", { timeout: 180_000 }, async (t) => {
    const cluster = await stage.cluster(["node-a", "node-b"], { FANLIGHT_ALLOWED_ORIGINS: origin, FANLIGHT_MAX_PER_IP: "3" });
    const holders = [0, 1, 2].map((i) => stage.stream(cluster.nodes[i % 2].url, "/api/sse/stream", `holder-${i}`));
    await until("the address is full", () => holders.every((holder) => holder.text().includes("hello")));
    const context = await browser.newContext();
    t.after(() => context.close());
    const [byFetch, natively] = [{ session: "by-fetch" }, { session: "natively", transport: "eventsource" }];
    const page = await openTab(context, origin, ...[byFetch, natively].map((each) => ({ ...each, url: cluster.url, share: false })));
    await page.evaluate(async (url) => (await import("/v0/listen.js")).listenNatively(url), `${cluster.url}/api/sse/stream?onLimit=soft`);

    const refusals = ({ states }) => states.filter(({ state }) => state === "waiting");
    await until("each was refused twice", async () => (await logsOf(page)).logs.every((log) => refusals(log).length >= 2));
    const { logs, attempts } = await logsOf(page);
    for (const log of logs) {
      assert.deepEqual(new Set(refusals(log).map(({ reason, code }) => reason ?? code)), new Set(["ip_limit"]));
      assert.ok(log.states.every(({ state }) => state !== "open"));
    }
    assertPatient(logs.slice(0, 2).flatMap(waitsOf));
    attempts.slice(1).forEach(({ at }, i) => {
      const { status, retryAfter, answeredAt } = attempts[i];
      assert.equal(status, 429);
      assert.ok(retryAfter >= 3 && retryAfter <= 8, `Retry-After: ${retryAfter}`);
      assert.ok(at - answeredAt >= retryAfter * 1000 - SLACK_MS, `back after ${at - answeredAt} ms, told ${retryAfter} s`);
    });

    for (const holder of holders) await holder.close();
    await untilOpen(page);
    const publisher = new Publisher(cluster.nodes, RATE);
    await pause(500);
    await settle(publisher, [page]);
  });
});
