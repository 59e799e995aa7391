/**
 * Clients that outlive the module that made them: with hot reload the module runs again, the page's connection stays.
 * One per set of options, kept at the global object.
 */
import { type AnyClient, createClient } from "./client.js";
import type { ClientOptions } from "./options.js";

/** After the last user is gone the connection stays so long: a page that changes its view comes back within it. */
const LINGER_MS = 1_000;

/** A client, and how it is used by components. */
export interface Held {
  readonly client: AnyClient;
  /** Keeps it connected until the returned function is called. */
  retain(): () => void;
}

const REGISTRY = Symbol.for("fanlight.clients");

function registry(): Map<string, Held> {
  const scope = globalThis as { [REGISTRY]?: Map<string, Held> };
  return (scope[REGISTRY] ??= new Map());
}

/** A client that nobody else connects: it is connected while it is used, and somewhat longer. */
function hold(client: AnyClient): Held {
  let users = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    client,
    retain() {
      let held = true;
      clearTimeout(timer);
      users++;
      client.connect();
      return () => {
        if (!held) return;
        held = false;
        if (--users === 0) timer = setTimeout(() => client.close(), LINGER_MS);
      };
    },
  };
}

/** The client with these options; the first time it is made. Functions and signals among them are those of the first time. */
export function heldClient(options: ClientOptions): Held {
  const { platform: _platform, signal: _signal, ...rest } = options;
  const key = JSON.stringify(rest, (_name, value: unknown) => (typeof value === "function" ? "function" : value));
  const clients = registry();
  const held = clients.get(key) ?? hold(createClient(options));
  clients.set(key, held);
  return held;
}

/** A client that the application made: it is connected on first use, and closed by the application. */
export function borrowedClient(client: AnyClient): Held {
  return {
    client,
    retain() {
      if (client.state === "idle") client.connect();
      return () => {};
    },
  };
}
