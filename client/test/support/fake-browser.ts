/**
 * A browser with tabs: Web Locks, BroadcastChannel and storage that tabs of one origin share. A tab can be killed (nothing
 * of it runs any more, the browser takes its locks) and frozen (it keeps its locks, and nothing runs until it thaws).
 *
 * Messages and lock grants take their time: `latency` says how long, in milliseconds, for each. Messages from one tab to
 * another stay in order, as in a browser.
 */
import type { Client, ClientOptions, Platform } from "../../src/index.js";
import { createClient } from "../../src/index.js";
import { FakePage } from "./fake-page.js";
import type { FakeServer } from "./fake-server.js";

interface Request {
  tab: FakeTab;
  name: string;
  run: () => unknown;
  resolve: (value: unknown) => void;
  reject: (reason: unknown) => void;
}

export class FakeBrowser {
  readonly held = new Map<string, Request>();
  readonly queue: Request[] = [];
  readonly tabs: FakeTab[] = [];
  readonly storage = {} as Storage;

  constructor(
    readonly server: FakeServer,
    readonly latency: () => number = () => 1,
  ) {}

  /** Opens a tab with a client. */
  tab(options?: ClientOptions): FakeTab {
    const tab = new FakeTab(this, options);
    this.tabs.push(tab);
    tab.client.connect();
    return tab;
  }

  /** Gives free locks to whoever waits longest. */
  grant(): void {
    for (const request of [...this.queue]) {
      if (this.held.has(request.name)) continue;
      this.queue.splice(this.queue.indexOf(request), 1);
      this.#give(request);
    }
  }

  request(tab: FakeTab, name: string, options: LockOptions, run: () => unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const request: Request = { tab, name, run, resolve, reject };
      if (options.signal?.aborted) return reject(options.signal.reason);
      options.signal?.addEventListener("abort", () => {
        if (!this.queue.includes(request)) return;
        this.queue.splice(this.queue.indexOf(request), 1);
        reject(options.signal!.reason);
      });
      if (options.steal) {
        const robbed = this.held.get(name);
        if (robbed) robbed.tab.later(() => robbed.reject(new DOMException("stolen", "AbortError")));
        this.#give(request);
      } else {
        this.queue.push(request);
        setTimeout(() => this.grant(), this.latency());
      }
    });
  }

  /** What a browser does with the locks of a tab that is gone. */
  takeLocks(tab: FakeTab): void {
    for (const [name, request] of this.held) if (request.tab === tab) this.held.delete(name);
    for (const request of [...this.queue]) if (request.tab === tab) this.queue.splice(this.queue.indexOf(request), 1);
    setTimeout(() => this.grant(), this.latency());
  }

  #give(request: Request): void {
    this.held.set(request.name, request);
    request.tab.later(() => {
      void Promise.resolve(request.run()).then((value) => {
        if (this.held.get(request.name) === request) this.held.delete(request.name);
        request.resolve(value);
        setTimeout(() => this.grant(), this.latency());
      });
    });
  }
}

export class FakeTab extends FakePage {
  readonly client: Client;
  readonly channels = new Set<{ name: string; onmessage: ((event: MessageEvent) => void) | null }>();
  killed = false;
  #frozen: (() => void)[] | undefined;
  /** What is under way to each receiver, in order, with the time when it is due. */
  readonly #wires = new Map<FakeTab, { due: number; deliver: () => void }[]>();

  constructor(
    readonly browser: FakeBrowser,
    options: ClientOptions = {},
  ) {
    super(browser.server);
    const tab = this;
    class FakeChannel {
      onmessage: ((event: MessageEvent) => void) | null = null;
      constructor(readonly name: string) {
        tab.channels.add(this);
      }
      postMessage(data: unknown): void {
        if (tab.killed) return;
        if (!tab.channels.has(this)) throw new DOMException("closed", "InvalidStateError");
        tab.#post(this.name, structuredClone(data));
      }
      close(): void {
        tab.channels.delete(this);
      }
    }
    Object.assign(this.platform, {
      fetch: ((url: string, init: RequestInit) => this.#fetch(url, init)) as typeof fetch,
      BroadcastChannel: FakeChannel as unknown as typeof BroadcastChannel,
      navigator: {
        locks: {
          request: (name: string, lock: LockOptions, run: () => unknown) =>
            this.killed ? new Promise(() => {}) : browser.request(this, name, lock, run),
          query: () => Promise.resolve({ held: [...browser.held.keys()].map((name) => ({ name })) }),
        } as unknown as LockManager,
      },
      localStorage: browser.storage,
    } satisfies Platform);
    this.client = createClient({ platform: this.platform, ...options });
  }

  /** Runs in this tab: not when it is killed, and not yet when it is frozen. */
  later(run: () => void): void {
    if (this.killed) return;
    if (this.#frozen) this.#frozen.push(run);
    else run();
  }

  /** The tab crashes: it does not run one more line. */
  kill(): void {
    this.killed = true;
    this.channels.clear();
    for (const request of this.browser.server.requests) if ((request.init as { tab?: FakeTab }).tab === this) request.ended = true;
    this.browser.takeLocks(this);
  }

  /** The tab is closed by its user. */
  close(): void {
    this.fire("pagehide");
    this.kill();
  }

  /** The tab stops, with its locks, and without a word. Its timers go on here, but the client asks for nothing while hidden. */
  freeze(): void {
    this.#frozen = [];
    this.document.hidden = true;
  }

  thaw(): void {
    this.document.hidden = false;
    const missed = this.#frozen ?? [];
    this.#frozen = undefined;
    for (const run of missed) this.later(run);
  }

  #post(name: string, data: unknown): void {
    if (this.killed || this.#frozen) return;
    for (const tab of this.browser.tabs)
      for (const channel of tab.channels) {
        if (channel.name !== name || tab === this) continue;
        this.#send(tab, () => tab.later(() => tab.channels.has(channel) && channel.onmessage?.({ data } as MessageEvent)));
      }
  }

  /** One timer per wire, however much is under way: the fake clock is slow with many. */
  #send(to: FakeTab, deliver: () => void): void {
    const wire = this.#wires.get(to) ?? [];
    this.#wires.set(to, wire);
    wire.push({ due: Math.max(wire.at(-1)?.due ?? 0, Date.now() + this.browser.latency()), deliver });
    const run = (): void => {
      while (wire[0] && wire[0].due <= Date.now()) wire.shift()!.deliver();
      if (wire[0]) setTimeout(run, wire[0].due - Date.now());
    };
    if (wire.length === 1) setTimeout(run, wire[0]!.due - Date.now());
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    if (this.killed) return new Promise(() => {});
    const response = await this.browser.server.fetch(url, Object.assign({}, init, { tab: this }));
    if (response.status !== 200) return response;
    const reader = response.body!.getReader();
    // What arrives while the tab is frozen, it reads when it thaws; a killed tab reads nothing.
    const read = async (): Promise<unknown> => {
      const result = await reader.read();
      return new Promise((resolve) => this.later(() => resolve(result)));
    };
    return { status: response.status, headers: response.headers, body: { getReader: () => ({ read }) } } as unknown as Response;
  }
}
