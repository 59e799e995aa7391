/** The numbers on top. */
import { byId, h, say } from "./dom.js";
import { count, duration, latency, rate } from "./format.js";
import { type Sample, type Stats, sum } from "./stats.js";

/** Fills the tiles; returns how to update them. */
export function tiles(): (stats: Stats, sample: Sample) => void {
  const list = h("dl");
  byId("tiles").append(list);
  const tile = (name: string, id: string): ((value: string, note: string) => void) => {
    const [value, note] = [h("dd", { class: "value", id }, "–"), h("dd", { class: "note" })];
    list.append(h("div", {}, h("dt", {}, name), value, note));
    return (text, more) => {
      say(value, text);
      say(note, more);
    };
  };
  const connections = tile("Connections", "tile-connections");
  const addresses = tile("Addresses", "tile-addresses");
  const messages = tile("Messages/s", "tile-messages");
  const lag = tile("Delivery lag", "tile-lag");
  const rejections = tile("Rejections/s", "tile-rejections");
  const uptime = tile("Uptime", "tile-uptime");
  const shown = (n: number, format: (n: number) => string): string => (Number.isNaN(n) ? "–" : format(n));

  return ({ activeConnections, uniqueIps, uniqueSessions, metrics, nodes }, sample) => {
    const room = nodes.reduce((all, node) => all + node.maxConnections, 0);
    connections(count(activeConnections), `of ${count(room)}`);
    addresses(count(uniqueIps), `${count(uniqueSessions)} ${uniqueSessions === 1 ? "session" : "sessions"}`);
    messages(shown(sample.messages, rate), `${shown(sample.broadcasts, rate)} events/s`);
    lag(shown(sample.lag, latency), "through Redis");
    rejections(shown(sample.rejections, rate), `${count(sum(metrics.totalRejected))} in all`);
    uptime(duration(metrics.uptimeMs), `${nodes.length} ${nodes.length === 1 ? "node" : "nodes"}`);
  };
}
