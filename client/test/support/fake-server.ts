/** A server as `fetch` sees it, held in the test's hand: every request waits until the test answers it. */

/** One request. */
export class FakeRequest {
  readonly headers: Headers;
  readonly params: URLSearchParams;
  readonly path: string;
  /** Set when the client let go, or the test ended it. */
  ended = false;
  #answer!: (response: Response) => void;
  #fail!: (error: unknown) => void;
  readonly response: Promise<Response>;
  #chunks: Uint8Array[] = [];
  #over: "done" | "error" | undefined;
  #pull: { resolve(result: { done: boolean; value?: Uint8Array }): void; reject(error: unknown): void } | undefined;

  constructor(
    readonly url: string,
    readonly init: RequestInit,
  ) {
    const { pathname, searchParams } = new URL(url, "http://page");
    this.path = pathname;
    this.params = searchParams;
    this.headers = new Headers(init.headers);
    this.response = new Promise((resolve, reject) => {
      this.#answer = resolve;
      this.#fail = reject;
    });
    init.signal?.addEventListener("abort", () => {
      this.ended = true;
      this.#fail(init.signal!.reason);
      this.#pull?.reject(init.signal!.reason);
    });
  }

  /** Answers anything but a stream. */
  refuse(status: number, body?: unknown, headers: Record<string, string> = {}): void {
    this.ended = true;
    const text = body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body);
    this.#answer(new Response(status === 204 ? null : text, { status, headers }));
  }

  /** The connection breaks. */
  fail(): void {
    this.ended = true;
    this.#over = "error";
    this.#fail(new TypeError("network error"));
    this.#pull?.reject(new TypeError("network error"));
  }

  /** Answers with a stream and its first block, which may carry a position. */
  open(hello = true, id?: string): this {
    const body = { getReader: () => ({ read: () => this.#read() }) };
    const headers = new Headers({ "Content-Type": "text/event-stream" });
    this.#answer({ status: 200, headers, body } as unknown as Response);
    if (hello && id) this.send(`id: ${id}\n`);
    if (hello) this.send('retry: 3217\nevent: connected\ndata: {"type":"hello","connectionId":"c","node":"n","channels":[]}\n\n');
    return this;
  }

  /** Sends text as it stands. */
  send(text: string): this {
    this.#chunks.push(new TextEncoder().encode(text));
    this.#flush();
    return this;
  }

  /** Sends an event. */
  event(type: string, data: unknown, id?: string): this {
    return this.send(`${id === undefined ? "" : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Ends the stream cleanly. */
  end(): void {
    this.ended = true;
    this.#over = "done";
    this.#flush();
  }

  #read(): Promise<{ done: boolean; value?: Uint8Array }> {
    return new Promise((resolve, reject) => {
      this.#pull = { resolve, reject };
      if (this.#over === "error") reject(new TypeError("network error"));
      this.#flush();
    });
  }

  #flush(): void {
    const pull = this.#pull;
    const value = this.#chunks[0];
    if (!pull || (!value && this.#over !== "done")) return;
    this.#pull = undefined;
    this.#chunks.shift();
    pull.resolve(value ? { done: false, value } : { done: true });
  }
}

/** All requests, in order. */
export class FakeServer {
  readonly requests: FakeRequest[] = [];
  /** Answers at once, when set. */
  onRequest: ((request: FakeRequest) => void) | undefined;

  readonly fetch = (url: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const request = new FakeRequest(String(url), init);
    this.requests.push(request);
    this.onRequest?.(request);
    return request.response;
  };

  /** The last request. */
  get last(): FakeRequest {
    const request = this.requests.at(-1);
    if (!request) throw new Error("no request came");
    return request;
  }

  /** Requests that are neither answered finally nor given up. */
  get live(): FakeRequest[] {
    return this.requests.filter((request) => !request.ended);
  }
}
