/** The connection's health, computed from nothing but the events and state changes that pass by. */
import type { AnyClient } from "./client.js";
import type { Health } from "./types.js";

/** Failures in a row; failures per minute; milliseconds to the first block. Past these the connection is not well. */
const UNREACHABLE = 3;
const UNSTABLE = 5;
const SLOW_MS = 5_000;
/** While it is not well it is judged again this often, because rates fall with time alone. */
const JUDGE_MS = 10_000;

/** Counts per minute, decaying exponentially: two numbers instead of a list of times. */
function createRate(): { add(): void; now(): number } {
  let value = 0;
  let at = 0;
  const now = (): number => value * Math.exp((at - Date.now()) / 60_000);
  return {
    now,
    add() {
      value = now() + 1;
      at = Date.now();
    },
  };
}

/** Made by {@link watchHealth}. */
export interface HealthMonitor {
  /** The numbers, now. */
  now(): Health;
  /** Stops watching. */
  stop(): void;
}

/**
 * Watches a client's connection, and makes the client's event `degraded` of it: the numbers, whenever the reasons in them
 * change; when there are none, it is well again. In a tab that shares another tab's connection, the numbers are of that
 * connection since the watch began.
 */
export function watchHealth(client: AnyClient): HealthMonitor {
  const messages = createRate();
  const errors = createRate();
  let latencyMs = 0;
  let opens = 0;
  let failures = 0;
  let verdict = "";
  let timer: ReturnType<typeof setTimeout> | undefined;

  const now = (): Health => {
    const errorRate = errors.now();
    const degraded: string[] = [];
    if (failures >= UNREACHABLE) degraded.push("unreachable");
    // Well again only at half of it, or the judgement would flutter.
    if (errorRate >= (verdict.includes("unstable") ? UNSTABLE / 2 : UNSTABLE)) degraded.push("unstable");
    if (latencyMs >= SLOW_MS) degraded.push("slow");
    return { messageRate: messages.now() / 60, errorRate, latencyMs, reconnects: Math.max(0, opens - 1), degraded };
  };

  const judge = (): void => {
    clearTimeout(timer);
    const health = now();
    if (health.degraded.length) timer = setTimeout(judge, JUDGE_MS);
    if (verdict === health.degraded.join()) return;
    verdict = health.degraded.join();
    client.emit("degraded", health);
  };

  const offs = [
    client.on("*", () => messages.add()),
    client.on("state", () => {
      const { state, latencyMs: latency } = client.status;
      if (state === "open") {
        opens++;
        failures = 0;
        latencyMs = latency ?? 0;
      } else if (state === "waiting") {
        failures++;
        errors.add();
      }
      judge();
    }),
  ];

  return {
    now,
    stop() {
      clearTimeout(timer);
      for (const off of offs) off();
    },
  };
}
