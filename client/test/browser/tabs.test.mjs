// One connection per browser: many tabs, hot reload, StrictMode. Real Chromium, real nodes, a real redis-server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { Publisher, assertExactlyOnce } from "./publisher.mjs";
import { site } from "./site.mjs";
import { Stage, until } from "./stage.mjs";
import { listen, logsOf, logOf, openTab, untilHeard, untilOpen } from "./tab.mjs";

const stage = new Stage();
let origin, browser;

before(async () => {
  [origin, browser] = await Promise.all([site(stage), stage.browser()]);
});
after(() => stage.end());

/** Two nodes with the limits that they have by default, and a browser that has never been there. */
async function setting(t) {
  const cluster = await stage.cluster(["node-a", "node-b"], { FANLIGHT_ALLOWED_ORIGINS: origin });
  const context = await browser.newContext();
  t.after(() => context.close());
  const connections = async () => (await cluster.stats()).activeConnections;
  const one = () => until("one connection in the statistics", async () => (await connections()) === 1);
  return { cluster, context, one };
}

/** The tab that asked for the stream last. */
async function leaderOf(tabs) {
  const last = await Promise.all(tabs.map(async (tab) => (await logsOf(tab)).attempts.at(-1)?.at ?? 0));
  return tabs[last.indexOf(Math.max(...last))];
}

/** When a tab first was open again after a time. */
const openAfter = async (tab, time) => (await logOf(tab)).states.find(({ state, at }) => state === "open" && at > time)?.at;

test("five tabs are one connection; each time the leader goes the next one leads, and nothing is lost or doubled", { timeout: 120_000 }, async (t) => {
  const { cluster, context, one } = await setting(t);
  const tabs = [];
  for (let i = 0; i < 5; i++) tabs.push(await openTab(context, origin, { url: cluster.url }));
  await Promise.all(tabs.map((tab) => untilOpen(tab)));
  await one();

  const publisher = new Publisher(cluster.nodes, 50);
  const goodbyes = [
    (tab) => tab.close(),
    (tab) => tab.goto("chrome://crash").catch(() => {}),
    (tab) => tab.goto("about:blank"),
  ];
  for (const leave of goodbyes) {
    await pause(1_000);
    const leader = await leaderOf(tabs);
    tabs.splice(tabs.indexOf(leader), 1);
    const left = Date.now();
    await leave(leader);
    const opened = await until("the next one leads", () => openAfter(tabs[0], left));
    // Within a second where the machine has time for it; a busy one has not.
    t.diagnostic(`the next one was connected after ${Math.round(opened - left)} ms`);
    await one();
  }
  await pause(500);
  const published = await publisher.stop();
  for (const tab of tabs) {
    await untilHeard(tab, published.at(-1));
    const { ids, gaps } = await logOf(tab);
    assertExactlyOnce(ids, published, "a tab that stayed");
    assert.deepEqual(gaps, []);
  }
  assert.ok(published.length > 100);
});

test("a tab that has heard nothing yet misses nothing when the leader goes", { timeout: 120_000 }, async (t) => {
  const { cluster, context } = await setting(t);
  const first = await openTab(context, origin, { url: cluster.url });
  await untilOpen(first);
  const second = await openTab(context, origin, { url: cluster.url });
  await untilOpen(second);
  const left = Date.now();
  await first.close();
  const publisher = new Publisher(cluster.nodes, 50);
  await until("the next one leads", () => openAfter(second, left));
  const published = await publisher.stop();
  await untilHeard(second, published.at(-1));
  assertExactlyOnce((await logOf(second)).ids, published);
});

test("hot reload twenty times under StrictMode: one connection, ever", { timeout: 120_000 }, async (t) => {
  const { cluster, context, one } = await setting(t);
  const page = await openTab(context, origin);
  const show = (version) =>
    page.evaluate(async ([version, options]) => (await import(`/v${version}/app.js`)).show(options), [version, { url: cluster.url }]);
  await show(0);
  await page.waitForSelector("i:text('open')");
  const publisher = new Publisher(cluster.nodes, 50);
  for (let version = 1; version <= 20; version++) {
    await show(version);
    await pause(100);
  }
  const published = await publisher.stop();
  await until("the last one is seen", () => page.evaluate((id) => window.seen.includes(id), published.at(-1)));
  await one();
  assert.equal((await cluster.stats()).metrics.totalConnections, 1, "there never was another one");
  // Two components listen; while one version is taken away and the next one comes nobody does.
  const seen = await page.evaluate(() => window.seen);
  assert.deepEqual(published.filter((id) => seen.filter((other) => other === id).length > 2), []);
});

test("a module that makes a client, run twenty times by hot reload: one connection, and each client hears everything once", { timeout: 120_000 }, async (t) => {
  const { cluster, context, one } = await setting(t);
  const page = await openTab(context, origin);
  for (let version = 0; version < 20; version++) await listen(page, { url: cluster.url }, version);
  await untilOpen(page);
  await one();
  const publisher = new Publisher(cluster.nodes, 50);
  await pause(1_000);
  const published = await publisher.stop();
  await untilHeard(page, published.at(-1));
  const { logs, attempts } = await logsOf(page);
  assert.equal(logs.length, 20);
  for (const { ids } of logs) assertExactlyOnce(ids, published);
  assert.equal(attempts.length, 1);
});

test("close() and connect() at once, or a reload, again and again: no refusal lasts, though the session is full of the connection before", { timeout: 120_000 }, async (t) => {
  for (const share of [true, false]) {
    const { cluster, context, one } = await setting(t);
    const options = { url: cluster.url, share };
    const page = await openTab(context, origin, options);
    await untilOpen(page);
    const publisher = new Publisher(cluster.nodes, 50);
    for (let i = 0; i < 10; i++) {
      await page.evaluate(() => {
        window.logs[0].client.close();
        window.logs[0].client.connect();
      });
      await untilOpen(page);
    }
    const published = await publisher.stop();
    await untilHeard(page, published.at(-1));
    assertExactlyOnce((await logOf(page)).ids, published, `share: ${share}`);

    const began = Date.now();
    for (let i = 0; i < 5; i++) {
      await page.reload();
      await listen(page, options);
      await untilOpen(page);
    }
    t.diagnostic(`share: ${share}: five reloads took ${Date.now() - began} ms`);
    await one();
  }
});
