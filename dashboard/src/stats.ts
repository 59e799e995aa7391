/** What a node says about the cluster, and what follows from two such words: rates. */

export interface NodeRow {
  id: string;
  address: string;
  version: string;
  uptimeMs: number;
  connections: number;
  maxConnections: number;
  state: "starting" | "healthy" | "degraded" | "draining" | "unknown";
  reasons: string[];
  redis: { connected: boolean; lagMs: number | null };
  memoryBytes: number;
  memoryLimitBytes: number | null;
  cpuPercent: number;
}

export interface Stats {
  activeConnections: number;
  uniqueIps: number;
  uniqueSessions: number;
  metrics: {
    totalConnections: number;
    totalDisconnections: number;
    totalReconnects: number;
    totalBroadcasts: number;
    totalMessagesSent: number;
    totalErrors: number;
    totalRejected: Record<string, number>;
    closedBy: Record<string, number>;
    uptimeMs: number;
  };
  channels: Record<string, number>;
  nodes: NodeRow[];
  stale: boolean;
  generatedAt: string;
}

/** One moment of the charts. A number that is not known is NaN. */
export interface Sample {
  at: number;
  messages: number;
  broadcasts: number;
  rejections: number;
  connections: number;
  lag: number;
}

/** How far the charts reach back, in milliseconds. */
export const WINDOW_MS = 5 * 60_000;
/** Rates are of this time, so that a total that is renewed every second does not flicker between 0 and twice. */
const RATE_MS = 3_000;

interface Total {
  at: number;
  messages: number;
  broadcasts: number;
  rejections: number;
}

/** All values of a map together. */
export function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((all, n) => all + n, 0);
}

/** The slowest node's way through Redis and back. NaN when no node knows it. */
export function slowest(nodes: readonly NodeRow[]): number {
  const lags = nodes.map((node) => node.redis.lagMs).filter((lag) => lag !== null);
  return lags.length ? Math.max(...lags) : NaN;
}

/** The last five minutes. */
export class History {
  readonly samples: Sample[] = [];
  /** Connections of each node, by its name. */
  readonly nodes = new Map<string, { at: number; n: number }[]>();
  #totals: Total[] = [];

  /** Takes a word in; returns the sample that it makes. */
  add(stats: Stats): Sample {
    const at = Date.parse(stats.generatedAt);
    const { totalMessagesSent: messages, totalBroadcasts: broadcasts, totalRejected } = stats.metrics;
    const total = { at, messages, broadcasts, rejections: sum(totalRejected) };
    const old = this.#before(total);
    const per = (now: number, then: number | undefined): number =>
      old && then !== undefined && at > old.at ? (Math.max(0, now - then) * 1000) / (at - old.at) : NaN;
    const sample = {
      at,
      messages: per(messages, old?.messages),
      broadcasts: per(broadcasts, old?.broadcasts),
      rejections: per(total.rejections, old?.rejections),
      connections: stats.activeConnections,
      lag: slowest(stats.nodes),
    };
    this.samples.push(sample);
    while (this.samples[0] && this.samples[0].at < at - WINDOW_MS) this.samples.shift();
    this.#addNodes(stats.nodes, at);
    return sample;
  }

  /** The total of some seconds ago, or undefined for the first. */
  #before(total: Total): Total | undefined {
    // Another node's clock may be behind, and what was long ago says nothing about now.
    this.#totals = this.#totals.filter(({ at }) => at < total.at && at >= total.at - 5 * RATE_MS);
    this.#totals.push(total);
    while (this.#totals.length > 2 && this.#totals[1]!.at <= total.at - RATE_MS) this.#totals.shift();
    return this.#totals.length > 1 ? this.#totals[0] : undefined;
  }

  #addNodes(rows: readonly NodeRow[], at: number): void {
    for (const id of this.nodes.keys()) if (!rows.some((row) => row.id === id)) this.nodes.delete(id);
    for (const { id, connections: n } of rows) {
      const line = this.nodes.get(id) ?? [];
      this.nodes.set(id, line);
      line.push({ at, n });
      while (line[0] && line[0].at < at - WINDOW_MS) line.shift();
    }
  }
}
