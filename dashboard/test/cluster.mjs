// Real nodes, a real redis-server and a real Chromium for the tests, on free ports, each ended by whoever started it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";

const ROOT = new URL("../../", import.meta.url).pathname;
export const EXAMPLES = `${ROOT}examples`;
const TARGET = process.env.CARGO_TARGET_DIR ?? `${ROOT}target`;
const FANLIGHT = process.env.FANLIGHT_BIN ?? `${TARGET}/debug/fanlight`;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** A port that nobody has. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
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

/** A process and how to end it. */
export function run(program, args, env = {}) {
  // Nothing of the machine's own settings: only what the test says.
  const child = spawn(program, args, { env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (text) => (said += text));
  const ended = once(child, "exit");
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

  async redis() {
    const port = await freePort();
    const dir = await mkdtemp(join(tmpdir(), "fanlight-dashboard-"));
    const redis = run("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", dir]);
    this.onEnd(async () => {
      await redis.kill();
      await rm(dir, { recursive: true });
    });
    return `redis://127.0.0.1:${port}`;
  }

  async node(id, env) {
    const listen = env.FANLIGHT_LISTEN ?? `127.0.0.1:${await freePort()}`;
    const node = run(FANLIGHT, ["serve"], { FANLIGHT_NODE_ID: id, ...env, FANLIGHT_LISTEN: listen });
    this.onEnd(() => node.kill());
    const url = `http://${listen}`;
    await until(`${id} is ready\n${node.said()}`, () => fetch(`${url}/readyz`).then((r) => r.ok, () => false));
    return { id, url, ...node };
  }

  async browser() {
    // Root has no sandbox of Chromium's; it only ever sees pages of ours.
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    this.onEnd(() => browser.close());
    return browser;
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
