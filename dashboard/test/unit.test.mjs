// What is computed before it is shown.
import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

/** A module of the sources. */
async function load(name) {
  const entry = new URL(`../src/${name}.ts`, import.meta.url).pathname;
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, write: false, format: "esm" });
  return import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
}

test("numbers keep to a width that a column has room for", async () => {
  const { bytes, count, duration, latency, niceCeiling, percent, rate } = await load("format");
  assert.deepEqual([0, 1234567, 12345678, 123456789012].map(count), ["0", "1,234,567", "12.3M", "123.5G"]);
  assert.deepEqual([0, 0.01, 0.5, 9.94, 1234.5].map(rate), ["0", "<0.1", "0.5", "9.9", "1,235"]);
  assert.deepEqual([null, 0, 0.44, 12.3, 1500].map(latency), ["–", "0 ms", "0.4 ms", "12 ms", "1.5 s"]);
  assert.deepEqual([59e3, 61e3, 3_660e3, 90_000e3].map(duration), ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
  assert.deepEqual([0, 1023, 1536, 512 * 2 ** 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "512 MiB"]);
  assert.deepEqual([0.04, 99.6].map(percent), ["0.0 %", "100 %"]);
  assert.deepEqual([0.3, 1, 11, 49, 50, 51, 999].map(niceCeiling), [0.5, 1, 20, 50, 50, 100, 1000]);
});

/** The statistics of second `second`. */
function word(second, messages, nodes = [["a", 0.5]], rejected = {}) {
  return {
    activeConnections: 1,
    metrics: { totalMessagesSent: messages, totalBroadcasts: 0, totalRejected: rejected },
    nodes: nodes.map(([id, lagMs]) => ({ id, connections: 1, redis: { connected: true, lagMs } })),
    generatedAt: new Date(1e12 + second * 1000).toISOString(),
  };
}

test("rates are per second of the nodes' clock, over some seconds, and never negative", async () => {
  const { History } = await load("stats");
  const history = new History();
  assert.ok(Number.isNaN(history.add(word(0, 1000)).messages), "of one word there is no rate");
  assert.equal(history.add(word(1, 1100)).messages, 100);
  assert.equal(history.add(word(2, 1100)).messages, 50);
  assert.equal(history.add(word(3, 1400, undefined, { ip_limit: 3, capacity: 3 })).rejections, 2);
  assert.equal(history.add(word(4, 0)).messages, 0, "totals that were lost");
  assert.ok(Number.isNaN(history.add(word(600, 9e6)).messages), "after a sleep the past says nothing");
});

test("the window is five minutes, and a node that is gone is forgotten", async () => {
  const { History } = await load("stats");
  const history = new History();
  for (let second = 0; second < 400; second++) history.add(word(second, second, [["a", 1], ["b", second < 399 ? 7 : null]]));
  assert.equal(history.samples.length, 301);
  assert.equal(history.samples.at(-2).lag, 7, "the slowest counts");
  assert.equal(history.samples.at(-1).lag, 1);
  assert.equal(history.nodes.get("b").length, 301);
  history.add(word(400, 400, [["a", null]]));
  assert.deepEqual([...history.nodes.keys()], ["a"]);
  assert.ok(Number.isNaN(history.samples.at(-1).lag));
});

test("a line stops where nothing is known and goes on behind it", async () => {
  const { path } = await load("chart");
  const points = [[0, 1], [1, 2], [2, NaN], [3, 4], [4, 5]].map(([at, n]) => ({ at, n }));
  const same = (n) => n;
  assert.equal(path(points, same, same), "M0.0 1.0L1.0 2.0M3.0 4.0L4.0 5.0");
});

test("only web addresses become links, and only trace ids are put into them", async () => {
  const { addressOf, newTraceparent, traceId } = await load("traces");
  const id = traceId(newTraceparent());
  assert.match(id, /^[\da-f]{32}$/);
  assert.equal(addressOf(id, "http://localhost:16686/trace/{traceId}"), `http://localhost:16686/trace/${id}`);
  for (const wrong of ["", "http://localhost/trace", "javascript:alert('{traceId}')", "/trace/{traceId}", "data:text/html,{traceId}"])
    assert.equal(addressOf(id, wrong), undefined, wrong);
  for (const wrong of [undefined, {}, "00-x-y-01", `00-${"0".repeat(32)}-${"1".repeat(16)}-01`]) assert.equal(traceId(wrong), undefined);
});
