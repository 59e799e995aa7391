/**
 * React hooks. Nothing connects while rendering, so they are safe on a server, under StrictMode and with hot reload.
 *
 * @packageDocumentation
 */
import {
  createContext,
  createElement,
  type FunctionComponent,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from "react";
import type { AnyClient } from "./client.js";
import { watchJob } from "./jobs.js";
import type { ClientOptions } from "./options.js";
import { borrowedClient, type Held, heldClient } from "./registry.js";
import type { ConnectionState, EventName, Events, Job, Payload } from "./types.js";

const Context = createContext<Held | undefined>(undefined);

/** Properties of {@link FanlightProvider}: either a client of your own, or the settings of one. */
export interface FanlightProviderProps {
  /** A client that the application makes, and closes. It is connected when it is first used. */
  client?: AnyClient | undefined;
  /**
   * Settings of a client that is made once per page for equal settings, also under hot reload, and is connected while
   * components use it. `channels` is empty by default: hooks say what they want.
   */
  options?: ClientOptions | undefined;
  children?: ReactNode;
}

/** The client of hooks without a provider: the page's own origin, and the channels that the hooks want. */
const DEFAULTS: ClientOptions = { channels: [] };

/** Gives a client to the hooks below it. */
export const FanlightProvider: FunctionComponent<FanlightProviderProps> = ({ client, options, children }) => {
  const borrowed = useMemo(() => client && borrowedClient(client), [client]);
  const value = borrowed ?? heldClient({ ...DEFAULTS, ...options });
  return createElement(Context.Provider, { value }, children);
};

function useHeld(): Held {
  return useContext(Context) ?? heldClient(DEFAULTS);
}

/** The client that the hooks here use. It is not connected because of this. */
export function useClient(): AnyClient {
  return useHeld().client;
}

/** Settings of {@link useEvents}. */
export interface UseEventsOptions<K extends string> {
  /** Only these types. A stream does not say which channel an event came from: types tell them apart. Default all. */
  types?: readonly K[] | undefined;
  /** How many of the last events are kept. Default 100. */
  limit?: number | undefined;
  /** Called with every event as it comes. */
  onEvent?: ((event: Payload<Events, K>) => void) | undefined;
}

const NOTHING: readonly never[] = [];

/**
 * Subscribes to a channel while the component is there.
 *
 * @returns the last events since the component appeared, oldest first; another array after each event
 */
export function useEvents<K extends EventName<Events>>(
  channel: string,
  { types, limit = 100, onEvent }: UseEventsOptions<K> = {},
): readonly Payload<Events, K>[] {
  const held = useHeld();
  const latest = useRef(onEvent);
  useEffect(() => {
    latest.current = onEvent;
  });
  const wanted = types?.join("\n");
  const store = useMemo(() => {
    let events: readonly Payload<Events, K>[] = NOTHING;
    const subscribe = (changed: () => void): (() => void) => {
      const take = (event: Payload<Events, K>): void => {
        events = [...events, event].slice(-limit);
        latest.current?.(event);
        changed();
      };
      const { client } = held;
      const offs = [
        client.subscribe(channel),
        ...(wanted === undefined
          ? [client.on("*", ({ data }) => take(data as Payload<Events, K>))]
          : wanted.split("\n").map((type) => client.on(type, take as (event: MessageEvent) => void))),
        held.retain(),
      ];
      return () => {
        for (const off of offs) off();
      };
    };
    return { subscribe, snapshot: () => events };
  }, [held, channel, wanted, limit]);
  return useSyncExternalStore(store.subscribe, store.snapshot, () => NOTHING);
}

/**
 * Watches a job while the component is there.
 *
 * @param id - the job's id; nothing is watched while there is none
 * @returns its state; `undefined` before it is known
 */
export function useJob(id: string | number | null | undefined): Job | undefined {
  const held = useHeld();
  const store = useMemo(() => {
    let job: Job | undefined;
    const subscribe = (changed: () => void): (() => void) => {
      if (id === null || id === undefined) return () => {};
      const abort = new AbortController();
      const take = (news: Job): void => {
        job = news;
        changed();
      };
      const release = held.retain();
      void watchJob(id, { client: held.client, onProgress: take, onCompleted: take, onFailed: take, signal: abort.signal });
      return () => {
        abort.abort();
        release();
      };
    };
    return { subscribe, snapshot: () => job };
  }, [held, id]);
  return useSyncExternalStore(store.subscribe, store.snapshot, () => undefined);
}

/** Where the connection stands. Does not connect by itself. */
export function useConnectionState(): ConnectionState {
  const { client } = useHeld();
  const store = useMemo(
    () => ({ subscribe: (changed: () => void) => client.on("state", changed), snapshot: () => client.state }),
    [client],
  );
  return useSyncExternalStore(store.subscribe, store.snapshot, () => "idle");
}
