/** One job, from where it stands to its end. */
import { type AnyClient, createClient } from "./client.js";
import type { ClientOptions, TokenSource } from "./options.js";
import type { FanlightEvent, Job } from "./types.js";

/** Settings of {@link watchJob}. */
export interface WatchJobOptions extends Pick<ClientOptions, "url" | "token" | "credentials" | "heartbeatMs" | "platform"> {
  /**
   * A client whose connection carries channel `jobs` too. Best for a page that has one anyway. Without it the job gets a
   * connection of its own, `/api/jobs/{id}/stream`, which carries nothing but this job; the other settings are for that.
   */
  client?: AnyClient | undefined;
  /** Called with every state that is not the last; the first time with the state that the job is in already. */
  onProgress?: ((job: Job) => void) | undefined;
  /** Called once, when the job is completed. */
  onCompleted?: ((job: Job) => void) | undefined;
  /** Called once, when the job failed or was cancelled; `status` says which. */
  onFailed?: ((job: Job) => void) | undefined;
  /** Stops watching when aborted. */
  signal?: AbortSignal | undefined;
  /** While no stream gets through, the state is asked for this often, in milliseconds. Default 5000, jittered by a quarter. */
  pollMs?: number | undefined;
}

const CONTROL = /^(connected|bye|gap|limit|refused)$/;
const FAILED = /^(failed|cancelled|error)$/;

/** Asks for a path of the cluster, with a token. */
async function get(options: ClientOptions, path: string, signal: AbortSignal): Promise<Response> {
  const { url = "", credentials, platform = globalThis } = options;
  const source: TokenSource | undefined = options.token;
  const token = typeof source === "function" ? await source() : source;
  const headers: Record<string, string> = token ? { Authorization: "Bearer " + token } : {};
  return platform.fetch!(url.replace(/\/$/, "") + path, { headers, signal, cache: "no-store", ...(credentials && { credentials }) });
}

/**
 * Watches a job until its end: by stream, and by asking (`GET /api/jobs/{id}`) while no stream gets through.
 *
 * @returns the job's last state, completed or not. Rejects when `signal` is aborted, when the given client is closed, and
 *   when we may not know (`unauthorized`, `forbidden`). It may be ignored: a rejection that nobody waits for is silent.
 */
export function watchJob(id: string | number, options: WatchJobOptions = {}): Promise<Job> {
  const result = new Promise<Job>((resolve, reject) => new Watch(String(id), options, resolve, reject).start());
  result.catch(() => {});
  return result;
}

class Watch {
  readonly #client: AnyClient;
  readonly #own: boolean;
  readonly #path: string;
  readonly #over = new AbortController();
  #job: Job | undefined;
  /** Counts what came by stream: an answer that was asked for before is older. */
  #live = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly id: string,
    private readonly options: WatchJobOptions,
    private readonly resolve: (job: Job) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    const { client, url, token, credentials, heartbeatMs, platform } = options;
    this.#path = "/api/jobs/" + encodeURIComponent(id);
    this.#own = !client;
    // Without session and sharing: the page's own connection must not be refused because of this one.
    this.#client =
      client ??
      createClient({ url, token, credentials, heartbeatMs, platform, path: this.#path + "/stream", session: false, share: false });
  }

  start(): void {
    const client = this.#client;
    const { signal } = this.options;
    if (signal?.aborted) return this.#fail(signal.reason);
    const on = { signal: this.#over.signal };
    signal?.addEventListener("abort", () => this.#fail(signal.reason), on);
    client.on("*", ({ data }) => this.#hear(data), on);
    client.on("state", () => this.#stateChanged(), on);
    const carried = client.options.channels ?? ["all"];
    if (!carried.includes("all") && !carried.includes("jobs")) client.subscribe("jobs", on);
    client.connect();
    if (!this.#own) void this.#ask();
  }

  #hear({ type, data }: FanlightEvent): void {
    // What was missed can only be asked for.
    if (type === "gap") return void this.#ask();
    const job = Object(data) as Job;
    // The greeting of a job's stream has no type of its own.
    const greeting = (job as { type?: unknown }).type === "hello";
    const ours = this.#own ? !CONTROL.test(type) && !greeting : type.startsWith("job_") && String(job.id) === this.id;
    if (!ours) return;
    this.#live++;
    this.#take(job, type.replace("job_", ""));
  }

  #take(news: Job, kind?: string): void {
    const job = (this.#job = { ...this.#job, ...news });
    const { onProgress, onCompleted, onFailed } = this.options;
    const is = (pattern: RegExp): boolean => pattern.test(kind ?? "") || pattern.test(job.status);
    const failed = is(FAILED);
    if (!failed && !is(/^completed$/)) return onProgress?.(job);
    this.#end();
    this.resolve(job);
    (failed ? onFailed : onCompleted)?.(job);
  }

  #stateChanged(): void {
    const { state, reason } = this.#client.status;
    if (state === "closed" && reason === "client") return this.#fail(new Error("client closed"));
    // A shared stream starts anywhere: what was before must be asked for. One of our own begins with it.
    if (state === "open" ? !this.#own : state === "waiting" || state === "closed") void this.#ask();
  }

  /** Asks for the state, now, and again as long as no stream is open. */
  async #ask(): Promise<void> {
    clearTimeout(this.#timer);
    const { signal } = this.#over;
    const live = this.#live;
    let status = 0;
    let job: Job | undefined;
    try {
      const response = await get(this.#client.options, this.#path, signal);
      ({ status } = response);
      if (response.ok) job = (await response.json()) as Job;
    } catch {
      // Not reachable this way either; asked again below.
    }
    if (signal.aborted) return;
    // A token that expired is fetched anew with the next question; without a stream there is no hope in that.
    if (status === 403 || (status === 401 && this.#client.state === "closed"))
      return this.#fail(new Error(status === 403 ? "forbidden" : "unauthorized"));
    if (job && live === this.#live) this.#take(job);
    if (signal.aborted || this.#client.state === "open") return;
    this.#timer = setTimeout(() => void this.#ask(), (this.options.pollMs ?? 5_000) * (0.75 + Math.random() / 2));
  }

  #fail(reason: unknown): void {
    this.#end();
    this.reject(reason);
  }

  #end(): void {
    this.#over.abort();
    clearTimeout(this.#timer);
    if (this.#own) this.#client.close();
  }
}
