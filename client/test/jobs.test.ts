import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Client, type ClientOptions, createClient, type Job, watchJob, type WatchJobOptions } from "../src/index.js";
import { type FakeRequest, FakeServer } from "./support/fake-server.js";

let server: FakeServer;
let client: Client | undefined;
/** What `GET /api/jobs/42` answers: a job, a status, or nothing yet. */
let state: Job | number | undefined;
let heard: string[];
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const job = (status: string, more?: object): Job => ({ id: "42", status, ...more });

const streams = (): FakeRequest[] => server.requests.filter(({ path }) => path.endsWith("/stream"));
const questions = (): FakeRequest[] => server.requests.filter(({ path }) => path === "/api/jobs/42");
const stream = (): FakeRequest => streams().at(-1)!;

function watch(options: WatchJobOptions = {}): Promise<Job> {
  return watchJob("42", {
    platform: { fetch: server.fetch },
    onProgress: ({ status, progress }) => heard.push(`progress ${status} ${String(progress)}`),
    onCompleted: ({ status }) => heard.push(`completed ${status}`),
    onFailed: ({ status }) => heard.push(`failed ${status}`),
    ...options,
  });
}
function make(options: ClientOptions = {}): Client {
  client = createClient({ share: false, session: "s", platform: { fetch: server.fetch }, ...options });
  client.connect();
  return client;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  server = new FakeServer();
  heard = [];
  state = 404;
  server.onRequest = (request) => {
    if (request.path !== "/api/jobs/42") return;
    if (typeof state === "number") request.refuse(state, { error: "…", code: "c" });
    else if (state) request.refuse(200, state);
  };
});
afterEach(() => {
  client?.close();
  client = undefined;
  vi.useRealTimers();
});

describe("with a connection of its own", () => {
  it("gets the first state from the stream, then its events, and closes itself at the end", async () => {
    const result = watch({ token: "t" });
    await pass(0);
    expect(stream().url).toBe("/api/jobs/42/stream");
    expect(Object.fromEntries(stream().headers)).toEqual({ accept: "text/event-stream", authorization: "Bearer t" });
    stream().open(false).send('data: {"type":"hello","connectionId":"c","node":"n","channels":["jobs"]}\n\n');
    stream().event("progress", job("pending"), "p1").event("progress", { progress: 50 }, "p2").event("completed", job("completed"), "p3");
    expect(await result).toEqual({ id: "42", status: "completed", progress: 50 });
    expect(heard).toEqual(["progress pending undefined", "progress pending 50", "completed completed"]);
    expect(stream().ended).toBe(true);
    expect(questions().length).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each(["failed", "cancelled", "error"])("%s is a failure, told by its status", async (status) => {
    const result = watch();
    await pass(0);
    stream().open().event("failed", job(status));
    expect((await result).status).toBe(status);
    expect(heard).toEqual(["failed " + status]);
  });

  it("that ended while we were away (204) is asked for its last state", async () => {
    const result = watch();
    await pass(0);
    state = job("completed");
    stream().refuse(204);
    await vi.waitFor(() => expect(heard).toEqual(["completed completed"]));
    expect((await result).status).toBe("completed");
  });

  it("resumes when the stream breaks", async () => {
    void watch();
    await pass(0);
    stream().open().event("progress", job("running"), "p1");
    await pass(10_000);
    stream().end();
    await pass(3_217);
    expect(stream().headers.get("last-event-id")).toBe("p1");
  });
});

describe("while no stream gets through", () => {
  it("the state is asked for, again and again, until a stream is open", async () => {
    void watch({ pollMs: 1_000 });
    state = job("running", { progress: 1 });
    await pass(0);
    stream().refuse(502, "proxy");
    await vi.waitFor(() => expect(heard).toEqual(["progress running 1"]));
    state = job("running", { progress: 2 });
    await vi.waitFor(() => expect(heard).toEqual(["progress running 1", "progress running 2"]), { timeout: 60_000 });
    while (stream().ended) await pass(500);
    const before = questions().length;
    stream().open();
    await pass(60_000);
    expect(questions().length - before).toBeLessThanOrEqual(1);
  });

  it("a terminal answer ends it", async () => {
    const result = watch({ pollMs: 1_000 });
    await pass(0);
    stream().refuse(502, "proxy");
    await pass(3_000);
    state = job("cancelled");
    await vi.waitFor(() => expect(heard).toEqual(["failed cancelled"]), { timeout: 60_000 });
    expect((await result).status).toBe("cancelled");
    const { length } = server.requests;
    await pass(60_000);
    expect(server.requests.length).toBe(length);
  });

  it("being forbidden ends it", async () => {
    const result = watch();
    state = 403;
    await pass(0);
    stream().refuse(403, { error: "…", code: "forbidden" });
    await expect(result).rejects.toThrow("forbidden");
  });
});

describe("over a client's connection", () => {
  it("asks for the first state, hears only its own job, and leaves the connection open", async () => {
    state = job("running", { progress: 10 });
    make();
    await pass(0);
    const result = watch({ client });
    stream().open();
    await vi.waitFor(() => expect(heard.at(-1)).toBe("progress running 10"));
    stream().event("job_progress", { id: "41", status: "running" }).event("job_progress", { id: 42, status: "running", progress: 20 });
    stream().event("other", job("completed")).event("job_completed", job("completed"));
    await result;
    expect(heard.slice(-2)).toEqual(["progress running 20", "completed completed"]);
    expect(streams().length).toBe(1);
    expect(client!.state).toBe("open");
  });

  it("adds channel jobs where the client does not carry it, and takes it back", async () => {
    make({ channels: ["a"] });
    await pass(0);
    stream().open();
    await pass(0);
    const abort = new AbortController();
    const result = watch({ client, signal: abort.signal });
    await pass(200);
    expect(stream().params.get("channels")).toBe("a,jobs");
    abort.abort();
    await expect(result).rejects.toBe(abort.signal.reason);
    await pass(200);
    expect(stream().params.get("channels")).toBe("a");
  });

  it("an answer that was asked for before an event came is older than the event", async () => {
    make();
    await pass(0);
    stream().open();
    await pass(0);
    state = undefined;
    const result = watch({ client });
    await pass(0);
    stream().event("job_progress", job("running", { progress: 90 }));
    await pass(0);
    questions().at(-1)!.refuse(200, job("pending"));
    await pass(0);
    stream().event("job_completed", job("completed"));
    await result;
    expect(heard).toEqual(["progress running 90", "completed completed"]);
  });

  it("asks again after a gap, and after each reconnect", async () => {
    make();
    await pass(0);
    void watch({ client });
    stream().open();
    await pass(0);
    const before = questions().length;
    stream().event("gap", { channel: "jobs", reason: "broker_interrupted" });
    await pass(0);
    expect(questions().length).toBe(before + 1);
    await pass(10_000);
    stream().end();
    await pass(3_217);
    stream().open();
    await pass(0);
    expect(questions().length).toBeGreaterThan(before + 2);
  });

  it("ends when the client is closed", async () => {
    make();
    const result = watch({ client });
    await pass(0);
    client!.close();
    await expect(result).rejects.toThrow("client closed");
  });
});

it("a signal that is aborted already watches nothing", async () => {
  const reason = new Error("no");
  await expect(watch({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect(server.requests.length).toBe(0);
});

it("a result that nobody waits for is no unhandled rejection", async () => {
  const abort = new AbortController();
  void watch({ signal: abort.signal });
  abort.abort();
  await pass(0);
});
