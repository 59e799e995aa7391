import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type Client, createClient, type HealthMonitor, watchHealth } from "../src/index.js";
import { FakeServer } from "./support/fake-server.js";

let server: FakeServer;
let client: Client;
let health: HealthMonitor;
let verdicts: string[];
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  server = new FakeServer();
  client = createClient({ share: false, session: "s", platform: { fetch: server.fetch } });
  verdicts = [];
  client.on("degraded", ({ data }) => verdicts.push(data.degraded.join()));
  health = watchHealth(client);
  client.connect();
});
afterEach(() => {
  health.stop();
  client.close();
  vi.useRealTimers();
});

it("counts events per second over about the last minute", async () => {
  await pass(0);
  server.last.open();
  for (let i = 0; i < 300; i++) {
    server.last.event("e", i);
    server.last.event("e", i);
    await pass(1_000);
  }
  expect(health.now().messageRate).toBeGreaterThan(1.9);
  expect(health.now().messageRate).toBeLessThan(2.1);
  vi.setSystemTime(Date.now() + 300_000);
  expect(health.now().messageRate).toBeLessThan(0.02);
});

it("counts reconnects, and the time to the first block", async () => {
  await pass(120);
  server.last.open();
  await pass(0);
  expect(health.now()).toMatchObject({ latencyMs: 120, reconnects: 0, errorRate: 0, degraded: [] });
  server.last.end();
  await pass(3_217);
  await pass(40);
  server.last.open();
  await pass(0);
  expect(health.now()).toMatchObject({ latencyMs: 40, reconnects: 1 });
  expect(health.now().errorRate).toBeCloseTo(1, 0);
});

it("is unreachable after three failures in a row, and well again once open", async () => {
  for (let i = 0; i < 3; i++) {
    await pass(client.status.retryMs ?? 0);
    expect(verdicts).toEqual([]);
    server.last.fail();
    await pass(0);
  }
  expect(verdicts).toEqual(["unreachable"]);
  await pass(client.status.retryMs!);
  server.last.open();
  await pass(0);
  expect(verdicts).toEqual(["unreachable", ""]);
});

it("is unstable while it breaks more than five times a minute, and says so when that is over, though nothing happens", async () => {
  for (let i = 0; i < 9; i++) {
    await pass(0);
    server.last.open();
    await pass(5_000);
    server.last.end();
    await pass(0);
    await pass(client.status.retryMs!);
  }
  server.last.open();
  expect(verdicts).toEqual(["unstable"]);
  await pass(60_000);
  expect(verdicts).toEqual(["unstable", ""]);
  expect(health.now().degraded).toEqual([]);
});

it("is slow when the first block takes more than 5 s", async () => {
  await pass(6_000);
  server.last.open();
  await pass(0);
  expect(verdicts).toEqual(["slow"]);
});

it("leaves no timer behind", async () => {
  await pass(6_000);
  server.last.open();
  await pass(0);
  health.stop();
  client.close();
  expect(vi.getTimerCount()).toBe(0);
});
