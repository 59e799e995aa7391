/**
 * Server-Sent Events from a Fanlight cluster: one connection per browser, resumed without loss.
 *
 * @packageDocumentation
 */
export { type AnyClient, type Client, createClient, type Listener, type SignalOption } from "./client.js";
export { events, type EventsOptions } from "./events.js";
export { type HealthMonitor, watchHealth } from "./health.js";
export { watchJob, type WatchJobOptions } from "./jobs.js";
export type { ClientOptions, Platform, TokenSource } from "./options.js";
export { createParser, MAX_LENGTH, type ParserSink, type RawEvent } from "./parser.js";
export type * from "./types.js";
