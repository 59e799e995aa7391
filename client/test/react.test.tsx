// @vitest-environment happy-dom
import { act, StrictMode, type ReactNode, createElement as h } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createClient } from "../src/index.js";
import type * as Hooks from "../src/react.js";
import { FakeServer } from "./support/fake-server.js";

let server: FakeServer;
let root: Root;
let host: HTMLElement;
let hooks: typeof Hooks;
/** Clients live as long as the page; each test is a page of its own. */
let page = 0;

const pass = (ms: number): Promise<void> => act(() => vi.advanceTimersByTimeAsync(ms).then(() => {}));
const text = (): string | null => host.textContent;

function render(node: ReactNode): void {
  act(() => {
    root.render(node);
  });
}
/** The tree under StrictMode and a provider of one client for all. */
function app(...children: ReactNode[]): ReactNode {
  const options = { session: `page ${page}`, share: false, platform: { fetch: server.fetch } };
  return h(StrictMode, null, h(hooks.FanlightProvider, { options }, ...children));
}

beforeEach(async () => {
  vi.useFakeTimers();
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });
  hooks = await import("../src/react.js");
  page++;
  server = new FakeServer();
  host = document.createElement("div");
  root = createRoot(host);
});
afterEach(async () => {
  act(() => root.unmount());
  await vi.advanceTimersByTimeAsync(2_000);
  vi.useRealTimers();
});

function List({ channel, types, limit }: { channel: string; types?: string[]; limit?: number }): ReactNode {
  const events = hooks.useEvents(channel, { types, limit });
  return h("p", null, events.map(({ type, data }) => `${type}=${String(data)}`).join(" "));
}
function State(): ReactNode {
  return h("i", null, hooks.useConnectionState());
}
function JobView({ id }: { id: string | null }): ReactNode {
  const job = hooks.useJob(id);
  return h("b", null, job ? job.status : "unknown");
}

describe("useEvents", () => {
  it("gives the last events of the wanted types; StrictMode makes one connection", async () => {
    render(app(h(List, { channel: "a", types: ["x", "y"], limit: 2 }), h(State)));
    await pass(0);
    expect(server.requests.length).toBe(1);
    expect(server.last.params.get("channels")).toBe("a");
    server.last.open();
    await pass(0);
    expect(text()).toBe("open");
    server.last.event("x", 1).event("other", 2).event("y", 3).event("x", 4);
    await pass(0);
    expect(text()).toBe("y=3 x=4open");
  });

  it("several components are one connection with all their channels", async () => {
    render(app(h(List, { channel: "a", key: 1 }), h(List, { channel: "b", key: 2 }), h(List, { channel: "a", key: 3 })));
    await pass(1_000);
    expect(server.requests.length).toBe(1);
    expect(server.last.params.get("channels")).toBe("a,b");
  });

  it("follows another channel, and forgets the events of the one before", async () => {
    render(app(h(List, { channel: "a", types: ["x"] })));
    await pass(0);
    server.last.open().event("x", 1);
    await pass(0);
    render(app(h(List, { channel: "b", types: ["x"] })));
    expect(text()).toBe("");
    await pass(200);
    expect(server.last.params.get("channels")).toBe("b");
    expect(server.live.length).toBe(1);
  });

  it("calls the latest onEvent without subscribing anew", async () => {
    const [first, second] = [vi.fn(), vi.fn()];
    const Each = ({ onEvent }: { onEvent: (event: MessageEvent) => void }): ReactNode => {
      hooks.useEvents("a", { types: ["x"], onEvent });
      return null;
    };
    render(app(h(Each, { onEvent: first })));
    await pass(0);
    server.last.open();
    render(app(h(Each, { onEvent: second })));
    server.last.event("x", 1);
    await pass(0);
    expect(first).not.toHaveBeenCalled();
    expect(second).toHaveBeenCalledOnce();
    expect(server.requests.length).toBe(1);
  });

  it("keeps the connection over a change of view, and closes it when nobody is left", async () => {
    render(app(h(List, { channel: "a", key: "one" })));
    await pass(0);
    server.last.open();
    render(app(h(List, { channel: "a", key: "two" })));
    await pass(500);
    expect(server.requests.length).toBe(1);
    expect(server.last.ended).toBe(false);
    render(app());
    await pass(2_000);
    expect(server.live.length).toBe(0);
  });
});

describe("useJob", () => {
  it("shows where the job stands, then its events", async () => {
    const Both = h(JobView, { id: "42" });
    server.onRequest = (request) => {
      if (request.path === "/api/jobs/42") request.refuse(200, { id: "42", status: "running" });
    };
    render(app(Both));
    expect(text()).toBe("unknown");
    await act(() => vi.waitFor(() => expect(text()).toBe("running")));
    const stream = server.requests.find(({ path }) => path === "/api/sse/stream")!;
    stream.open().event("job_completed", { id: "42", status: "completed" });
    await pass(0);
    expect(text()).toBe("completed");
  });

  it("watches nothing without an id", async () => {
    render(app(h(JobView, { id: null })));
    await pass(1_000);
    expect(server.requests.length).toBe(0);
  });
});

describe("hot reload", () => {
  it("twenty times: one connection", async () => {
    for (let i = 0; i < 20; i++) {
      vi.resetModules();
      hooks = await import("../src/react.js");
      // A new module means new components: React unmounts the old tree and mounts the new one.
      const View = (): ReactNode => h(List, { channel: "a" });
      render(app(h(View)));
      await pass(200);
      if (i === 0) server.last.open();
    }
    expect(server.requests.length).toBe(1);
    expect(server.live.length).toBe(1);
  });
});

describe("a client of one's own", () => {
  it("is connected when it is first used, and not closed by the hooks", async () => {
    const client = createClient({ channels: ["mine"], session: "s", share: false, platform: { fetch: server.fetch } });
    const tree = (...children: ReactNode[]): ReactNode => h(StrictMode, null, h(hooks.FanlightProvider, { client }, ...children));
    render(tree(h(State)));
    await pass(0);
    expect(server.requests.length).toBe(0);
    render(tree(h(List, { channel: "a" }), h(State)));
    await pass(0);
    expect(server.last.params.get("channels")).toBe("a,mine");
    server.last.open();
    await pass(0);
    render(tree(h(State)));
    await pass(200);
    expect(server.last.params.get("channels")).toBe("mine");
    server.last.open();
    await pass(5_000);
    expect(text()).toBe("open");
    client.close();
  });
});

it("renders on a server without connecting", () => {
  const html = renderToString(app(h(List, { channel: "a" }), h(State), h(JobView, { id: "42" })));
  expect(html).toBe("<p></p><i>idle</i><b>unknown</b>");
  expect(server.requests.length).toBe(0);
});
