/**
 * What an application holds: listeners, channels, life cycle. Where the events come from is a {@link Source}.
 */
import { createLink, parseData } from "./link.js";
import { type ClientOptions, configure } from "./options.js";
import { watchPage } from "./page.js";
import type { RawEvent } from "./parser.js";
import { createSeen } from "./seen.js";
import type { Report, Source } from "./source.js";
import type { ConnectionState, EventMap, EventName, Events, Payload, StateChange } from "./types.js";

/** Called with what {@link Payload} says. */
export type Listener<E extends EventMap, K extends string> = (payload: Payload<E, K>) => void;

/** For {@link Client.on}, {@link Client.once} and {@link Client.subscribe}. */
export interface SignalOption {
  /** Takes it back when aborted. */
  signal?: AbortSignal | undefined;
}

/** One live connection and whoever listens to it. Made by {@link createClient}. */
export interface Client<E extends EventMap = Events> {
  /** What it was made with. */
  readonly options: ClientOptions;
  /** Where the connection stands. */
  readonly state: ConnectionState;
  /** The last change of state, with its reason. The same object until the next change. */
  readonly status: StateChange;
  /** Position of the last durable event; give it as `lastEventId` to resume elsewhere. Empty before the first. */
  readonly lastEventId: string;
  /**
   * Calls `listener` for every event of a type.
   *
   * @param type - an event type; `*` for all that come; or one of the client's own: `state`, for changes of the connection's
   *   state, and `degraded` (a published event of such a name reaches `*` only)
   * @returns takes it back
   */
  on<K extends EventName<E>>(type: K, listener: Listener<E, K>, options?: SignalOption): () => void;
  /** Calls `listener` for the next event of a type only. Otherwise as {@link Client.on}. */
  once<K extends EventName<E>>(type: K, listener: Listener<E, K>, options?: SignalOption): () => void;
  /** Takes a listener back. */
  off<K extends EventName<E>>(type: K, listener: Listener<E, K>): void;
  /**
   * Adds a channel to the connection. Changes within 50 ms become one reconnect, which resumes from the last position;
   * what is published without a position meanwhile is missed.
   *
   * @returns takes it back. A channel stays as long as anybody wants it.
   */
  subscribe(channel: string, options?: SignalOption): () => void;
  /** Takes one {@link Client.subscribe} of this channel back. */
  unsubscribe(channel: string): void;
  /** Tells the listeners on this page, as {@link watchHealth} does with `degraded`. Nothing is sent. */
  emit(type: string, data: unknown): void;
  /** Connects, and stays connected until {@link Client.close}. Does nothing when it is already so. */
  connect(): void;
  /** Ends the connection; `connect()` starts again from the last position. */
  close(): void;
}

/** A client with any map of events, for functions that work with every client. (`any`: the map stands in argument positions.) */
export type AnyClient = Client<any>;

/** What the client says itself: see {@link LocalEvents}. */
const OWN = /^(state|degraded|\*)$/;

/**
 * Makes a client. It connects when {@link Client.connect} is called.
 */
export function createClient<E extends EventMap = Events>(options: ClientOptions = {}): Client<E> {
  const config = configure(options);
  const target = new EventTarget();
  /** Every subscription by itself: a channel stays as long as anybody wants it. */
  const wants = new Set<{ channel: string }>();
  const seen = createSeen();
  let position = options.lastEventId ?? "";
  let status: StateChange = { state: "idle" };
  let source: Source | undefined;
  /** Present from `connect()` to `close()`: takes the page's listeners away. */
  let page: AbortController | undefined;
  /** Present while there is a source, or one is being loaded: silences it. Absent while the page is suspended. */
  let running: AbortController | undefined;

  /** An exception in one listener is reported by the platform and does not keep the event from the others. */
  const emit = (type: string, data: unknown): void => void target.dispatchEvent(new MessageEvent(type, { data }));

  const update = (): void => {
    const channels = new Set([...wants].map(({ channel }) => channel));
    source?.update([...channels].sort().join());
  };

  const changed = (change: StateChange): void => {
    status = change;
    emit("state", change);
  };

  const receive = ({ type, data, id = "" }: RawEvent): void => {
    if (id) {
      // An id on the greeting is a place to resume from, not an event that could come twice.
      if (type !== "connected" && !seen(id)) return;
      position = id;
    }
    const event = new MessageEvent(type, { data: parseData(data), lastEventId: id });
    // A published event cannot pass for one of the client's own.
    if (!OWN.test(type)) target.dispatchEvent(event);
    emit("*", event);
  };

  /** Lets go of the source: for now (`idle`) or for good (`closed`). */
  const end = (state: "idle" | "closed", reason: string): void => {
    running?.abort();
    source?.stop();
    running = source = undefined;
    if (state === "closed") {
      page?.abort();
      page = undefined;
    }
    if (state !== status.state) changed({ state, reason });
  };

  const start = (): void => {
    if (running) return;
    const { signal } = (running = new AbortController());
    const say = ({ event, change }: Report): void => {
      if (signal.aborted) return;
      if (event) receive(event);
      else if (change.state === "closed") end("closed", change.reason!);
      else changed(change);
    };
    const use = (opened: Source): void => {
      source = opened;
      update();
    };
    const at = (): string => position;
    const alone = (): void => use(createLink(config, say, at));
    if (config.share === false || !config.platform.navigator?.locks) return alone();
    // Loaded apart, so that a page that does not share does not pay for it.
    import("./share.js")
      .then((room) => room.share(config, say, at))
      .then(
        (shared) => (signal.aborted ? shared.stop() : use(shared)),
        () => signal.aborted || alone(),
      );
  };

  const client: Client<E> = {
    options,
    emit,
    get state() {
      return status.state;
    },
    get status() {
      return status;
    },
    get lastEventId() {
      return position;
    },
    on(type, listener, settings) {
      config.types.add(type);
      update();
      target.addEventListener(type, listener as EventListener, settings as AddEventListenerOptions);
      return () => client.off(type, listener);
    },
    once: (type, listener, settings) => client.on(type, listener, { ...settings, once: true } as SignalOption),
    off: (type, listener) => target.removeEventListener(type, listener as EventListener),
    subscribe(channel, { signal } = {}) {
      const want = { channel };
      const off = (): void => {
        wants.delete(want);
        update();
      };
      if (signal?.aborted) return off;
      wants.add(want);
      update();
      signal?.addEventListener("abort", off);
      return off;
    },
    unsubscribe(channel) {
      for (const want of wants)
        if (want.channel === channel) {
          wants.delete(want);
          return update();
        }
    },
    connect() {
      if (page || options.signal?.aborted) return;
      page = new AbortController();
      const suspend = (reason: string): void => end("idle", reason);
      watchPage(config, suspend, start, (why) => source?.wake(why), page.signal);
    },
    close: () => end("closed", "client"),
  };
  for (const channel of options.channels ?? ["all"]) client.subscribe(channel);
  options.signal?.addEventListener("abort", client.close);
  return client;
}
