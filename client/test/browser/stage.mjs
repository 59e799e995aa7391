// Real nodes, a real redis-server and a real Chromium for the tests of client/ and dashboard/, on free ports, each ended by
// whoever started it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";
import { balancer } from "./balancer.mjs";

const ROOT = new URL("../../../", import.meta.url).pathname;
export const EXAMPLES = `${ROOT}examples`;
const TARGET = process.env.CARGO_TARGET_DIR ?? `${ROOT}target`;
const FANLIGHT = process.env.FANLIGHT_BIN ?? `${TARGET}/debug/fanlight`;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Root has no sandbox of Chromium's; it only ever sees pages of ours. */
const FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"];

const given = new Set();

/**
 * A port that nobody has. It lies below those that the kernel gives to outgoing connections: one of these could otherwise take
 * the place of a server that is away for a moment.
 */
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer().listen(port, "127.0.0.1");
    const free = await once(server, "listening").then(() => true, () => false);
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Waits until `holds` gives something; fails loudly. */
export async function until(what, holds, limitMs = 30_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await pause(50);
  }
}

/** What still runs when the tests end in some other way than by ending it. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/** A process and how to end it. */
export function run(program, args, env = {}) {
  // Nothing of the machine's own settings: only what the test says.
  const child = spawn(program, args, { env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (text) => (said += text));
  running.add(child);
  const ended = once(child, "exit").finally(() => running.delete(child));
  const kill = async (signal = "SIGKILL") => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await ended;
  };
  return { kill, ended: () => ended, said: () => said };
}

/** Everything that a test has started. */
export class Stage {
  #ends = [];

  onEnd(end) {
    this.#ends.push(end);
  }

  async end() {
    for (const end of this.#ends.reverse()) await end();
  }

  /** What it acknowledges survives `restart()`: every write is in the file first. */
  async redis() {
    const port = await freePort();
    const dir = await mkdtemp(join(tmpdir(), "fanlight-redis-"));
    const durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    const start = () => run("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--dir", dir, ...durable]);
    let redis = start();
    this.onEnd(async () => {
      await redis.kill();
      await rm(dir, { recursive: true });
    });
    const restart = async () => {
      await redis.kill();
      redis = start();
    };
    return { url: `redis://127.0.0.1:${port}`, restart };
  }

  async node(id, env) {
    const listen = env.FANLIGHT_LISTEN ?? `127.0.0.1:${await freePort()}`;
    const node = run(FANLIGHT, ["serve"], { FANLIGHT_NODE_ID: id, ...env, FANLIGHT_LISTEN: listen });
    this.onEnd(() => node.kill());
    const url = `http://${listen}`;
    await until(`${id} is ready\n${node.said()}`, () => fetch(`${url}/readyz`).then((r) => r.ok, () => false));
    return { id, url, ...node };
  }

  /** Several nodes on one Redis, and a balancer in front of them. */
  async cluster(names, env, { cutAfterMs } = {}) {
    const redis = await this.redis();
    const settings = { FANLIGHT_REDIS_URL: redis.url, FANLIGHT_CONNECT_RATE_PER_IP: "0", FANLIGHT_DRAIN: "1s", ...env };
    const nodes = await Promise.all(names.map((name) => this.node(name, settings)));
    const { url, ...network } = await balancer(this, nodes, cutAfterMs);
    const stats = () => fetch(`${nodes[0].url}/api/sse/stats`).then((r) => r.json());
    /** Ends a node as a deploy does, and starts it again at its place. */
    const restart = async (node) => {
      await node.kill("SIGTERM");
      await this.node(node.id, { ...settings, FANLIGHT_LISTEN: new URL(node.url).host });
    };
    return { redis, nodes, url, network, stats, restart };
  }

  async browser() {
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
    this.onEnd(() => browser.close());
    return browser;
  }

  /**
   * The one profile of a browser that nobody pretends to look at. Playwright keeps its own pages visible, and a visible page
   * is never frozen.
   */
  async profile() {
    const port = await freePort();
    const dir = await mkdtemp(join(tmpdir(), "fanlight-profile-"));
    const chrome = run(CHROMIUM, [...FLAGS, "--headless", `--user-data-dir=${dir}`, `--remote-debugging-port=${port}`, "about:blank"]);
    this.onEnd(async () => {
      await chrome.kill();
      // Its own processes end a little later, and write until then.
      await rm(dir, { recursive: true, maxRetries: 20 });
    });
    const url = `http://127.0.0.1:${port}`;
    await until("the browser can be driven", () => fetch(`${url}/json/version`).then((r) => r.ok, () => false));
    const browser = await chromium.connectOverCDP(url, { noDefaults: true });
    this.onEnd(() => browser.close());
    return browser.contexts()[0];
  }

  /** An open stream; what has come is in `text()`. */
  stream(url, path, session) {
    const abort = new AbortController();
    let text = "";
    let over = false;
    const reading = (async () => {
      const response = await fetch(url + path, { headers: session ? { "X-Session-Token": session } : {}, signal: abort.signal });
      const decoder = new TextDecoder();
      for await (const piece of response.body) text += decoder.decode(piece, { stream: true });
    })().catch(() => {}).finally(() => (over = true));
    const close = () => {
      abort.abort();
      return reading;
    };
    this.onEnd(close);
    return { text: () => text, over: () => over, close };
  }
}
