// Durable events at a steady rate, whatever happens to the nodes and to Redis, and the check of who heard them.
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

/** So long one attempt may take, and one event with all its attempts. */
const ATTEMPT_MS = 2_000;
const EVENT_MS = 30_000;
const RETRY_MS = 100;

/** Publishes one event after the other, each until it is acknowledged, to any of the nodes. */
export class Publisher {
  /** The positions of what was acknowledged, in order. */
  ids = [];
  #nodes;
  #stopped = false;
  #done;

  constructor(nodes, perSecond) {
    this.#nodes = nodes;
    this.#done = this.#run(1000 / perSecond);
    // Told by `stop()`.
    this.#done.catch(() => {});
  }

  /** How many of its first events somebody who listens by now may have missed: one is on its way, the next one is heard. */
  begun() {
    return this.ids.length + 2;
  }

  /** Ends it. What is under way is acknowledged first. */
  async stop() {
    this.#stopped = true;
    await this.#done;
    return this.ids;
  }

  async #run(everyMs) {
    const run = Math.random().toString(36).slice(2);
    const start = Date.now();
    for (let n = 0; !this.#stopped; n++) {
      this.ids.push(await this.#publish({ channel: "jobs", event: "tick", data: { n }, idempotencyKey: `${run}-${n}` }, n));
      await pause(Math.max(0, start + (n + 1) * everyMs - Date.now()));
    }
  }

  /** An answer that was lost is asked for again: the key makes that the same event. */
  async #publish(event, n) {
    const end = Date.now() + EVENT_MS;
    for (let turn = n; Date.now() < end; turn++) {
      const url = `${this.#nodes[turn % this.#nodes.length].url}/api/events`;
      const signal = AbortSignal.timeout(ATTEMPT_MS);
      const answer = await fetch(url, { method: "POST", body: JSON.stringify(event), signal }).catch(() => {});
      if (answer?.status === 202) return (await answer.json()).id;
      await answer?.body?.cancel();
      await pause(RETRY_MS);
    }
    throw new Error(`no node took event ${n} within ${EVENT_MS} ms`);
  }
}

/** Asserts that `heard` is `published`: nothing lost, nothing twice, nothing else, in order. */
export function assertExactlyOnce(heard, published, who = "") {
  const known = new Set(heard);
  const lost = published.filter((id) => !known.has(id));
  const doubled = heard.filter((id, at) => heard.indexOf(id) !== at);
  const foreign = heard.filter((id) => !published.includes(id));
  assert.deepEqual({ lost, doubled, foreign }, { lost: [], doubled: [], foreign: [] }, `${who}: of ${published.length}`);
  assert.deepEqual(heard, published, `${who}: in order`);
}
