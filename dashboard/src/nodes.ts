/** A row per node. */
import { sparkline } from "./chart.js";
import { openDialog, toast } from "./dialog.js";
import { byId, h, keyed, mark, say } from "./dom.js";
import { bytes, count, duration, latency, percent, words } from "./format.js";
import { ask, wordsOf } from "./session.js";
import type { History, NodeRow } from "./stats.js";

type View = (row: NodeRow) => void;

const COLUMNS = ["Node", "State", "Connections", "Last 5 min", "Redis lag", "Memory", "CPU", "Uptime", ""];

async function drain({ id, connections }: NodeRow): Promise<void> {
  const text = `Its ${count(connections)} connections are told to reconnect and end up on the other nodes. It takes no new ones, and it stays out until it is restarted.`;
  if (!(await openDialog(`Drain ${id}?`, [h("p", {}, text)], "Drain", true))) return;
  try {
    await ask(`api/sse/drain?node=${encodeURIComponent(id)}`, { method: "POST" });
    toast(`${id} is draining`);
  } catch (error) {
    toast(`${id} was not drained: ${wordsOf(error)}`, true);
  }
}

function row(history: History, first: NodeRow): { element: HTMLElement; view: View } {
  let latest = first;
  const cell = (label: string, ...content: (Node | string)[]): HTMLElement => h("td", { "data-label": label }, ...content);
  const address = h("small");
  const state = h("span", { class: "badge" });
  const reasons = h("small", { class: "reasons" });
  const number = (label: string): HTMLElement => h("td", { "data-label": label, class: "n" });
  const [connections, lag, memory] = [number("Connections"), number("Redis lag"), number("Memory")];
  const [cpu, uptime] = [number("CPU"), number("Uptime")];
  const spark = sparkline(`Connections of ${first.id} in the last five minutes`);
  const button = h("button", { class: "small", click: () => void drain(latest) }, "Drain", h("span", { class: "sr" }, ` ${first.id}`));
  const element = h(
    "tr",
    { "data-node": first.id },
    h("th", { scope: "row" }, h("span", { class: "mono" }, first.id), address),
    cell("State", state, reasons),
    connections,
    cell("Last 5 min", spark.element),
    lag,
    memory,
    cpu,
    uptime,
    h("td", { class: "act" }, button),
  );
  const view = (now: NodeRow): void => {
    latest = now;
    say(address, `${now.address} · ${now.version}`);
    say(state, words(now.state));
    mark(state, "data-state", now.state);
    say(reasons, now.reasons.map(words).join(", "));
    say(connections, count(now.connections));
    mark(connections, "title", `of ${count(now.maxConnections)}`);
    spark.draw(history.nodes.get(now.id) ?? []);
    say(lag, now.redis.connected ? latency(now.redis.lagMs) : "away");
    mark(lag, "class", now.redis.connected ? "n" : "n bad");
    say(memory, bytes(now.memoryBytes));
    if (now.memoryLimitBytes !== null) mark(memory, "title", `of ${bytes(now.memoryLimitBytes)}`);
    say(cpu, percent(now.cpuPercent));
    say(uptime, duration(now.uptimeMs));
    button.disabled = now.state === "draining";
  };
  return { element, view };
}

/** Fills the table; returns how to update it. */
export function nodes(history: History): (rows: readonly NodeRow[]) => void {
  const body = h("tbody");
  const heads = COLUMNS.map((name, place) =>
    h("th", { scope: "col", class: (place >= 4 || place === 2) && name ? "n" : undefined }, name || h("span", { class: "sr" }, "Actions")),
  );
  byId("nodes").append(h("table", { class: "cards nodes" }, h("thead", {}, h("tr", {}, ...heads)), body));
  const kept = new Map<string, { element: HTMLElement; view: View }>();
  let known: string[] | undefined;
  return (rows) => {
    const now = rows.map(({ id }) => id);
    for (const id of known ?? []) if (!now.includes(id)) toast(`${id} is gone`);
    for (const id of now) if (known && !known.includes(id)) toast(`${id} has joined`);
    known = now;
    keyed(body, kept, rows, ({ id }) => id, (first) => row(history, first), (view, latest) => view(latest));
  };
}
