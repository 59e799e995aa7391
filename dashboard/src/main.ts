/** The page: the stream of statistics and who is shown what. */
import { createClient } from "../../client/src/index.js";
import { bars } from "./bars.js";
import { chart } from "./chart.js";
import { connections } from "./connections.js";
import { openDialog } from "./dialog.js";
import { byId, h, say } from "./dom.js";
import { latency, rate, words } from "./format.js";
import { nodes } from "./nodes.js";
import { publish } from "./publish.js";
import { key } from "./session.js";
import { History, type Sample, type Stats } from "./stats.js";
import { tap } from "./tap.js";
import { theme } from "./theme.js";
import { tiles } from "./tiles.js";
import { settings } from "./traces.js";

/** The statistics come every second: after so many of these without a byte the connection is dead. */
const HEARTBEAT_MS = 3_000;

const history = new History();
let client: ReturnType<typeof createClient> | undefined;

function status(state: string, text: string): void {
  const element = byId("status");
  element.dataset["state"] = state;
  say(element, text);
}

function banner(text: string, action?: HTMLElement): void {
  const element = byId("banner");
  element.hidden = !text;
  if (element.dataset["text"] === text) return;
  element.dataset["text"] = text;
  element.replaceChildren(text, ...(action ? [" ", action] : []));
}

/** Fills the charts; returns how to draw them. */
function charts(): (sample: Sample) => void {
  const messages = chart("rate-title", rate, 10);
  const lag = chart("lag-title", latency, 10);
  byId("chart-rate").append(messages.element);
  byId("chart-lag").append(lag.element);
  return ({ at, messages: now, lag: slowest }) => {
    const of = (name: "messages" | "lag") => history.samples.map((sample) => ({ at: sample.at, n: sample[name] }));
    messages.draw(of("messages"), at, `${Number.isNaN(now) ? "–" : rate(now)} messages per second now`);
    lag.draw(of("lag"), at, `${Number.isNaN(slowest) ? "–" : latency(slowest)} now`);
  };
}

function channelNames(channels: Record<string, number>): void {
  const list = byId("known-channels");
  const names = Object.keys(channels);
  if (list.dataset["names"] === names.join()) return;
  list.dataset["names"] = names.join();
  list.replaceChildren(...names.map((value) => h("option", { value })));
}

function panels(): (stats: Stats) => void {
  const [drawTiles, drawCharts, drawNodes, look] = [tiles(), charts(), nodes(history), connections()];
  const drawChannels = bars("channels", "No channels.", (name) => name, true);
  const drawRejected = bars("rejected", "Nothing was rejected.", words);
  const drawClosed = bars("closed", "No connection has ended yet.", words);
  tap();
  publish();
  return (stats) => {
    const sample = history.add(stats);
    drawTiles(stats, sample);
    drawCharts(sample);
    drawNodes(stats.nodes);
    drawChannels(stats.channels);
    drawRejected(stats.metrics.totalRejected);
    drawClosed(stats.metrics.closedBy);
    channelNames(stats.channels);
    banner(stats.stale ? "Redis does not answer: of the other nodes this is what was known last." : "");
    look();
  };
}

/** Asks for the key until there is one that is taken, or nobody wants to give one. */
async function askForKey(problem: string): Promise<void> {
  if (document.querySelector("dialog[open]")) return;
  const input = h("input", { type: "password", id: "key", required: true, autocomplete: "off", spellcheck: "false" });
  const content = [
    problem && h("p", { class: "bad", role: "alert" }, problem),
    h("label", { for: "key" }, "API key, or a token for administration"),
    input,
    h("p", { class: "help" }, "Kept in this tab until it is closed."),
  ].filter((node) => node !== "");
  const given = openDialog("This node asks for a key", content, "Connect");
  input.focus();
  if (!(await given)) return banner("Without a key there is nothing to see.", h("button", { class: "small", click: () => void askForKey("") }, "Give a key"));
  key.set(input.value.trim());
  connect();
}

function refused(reason: string): void {
  const had = key.get() !== "";
  key.set("");
  byId("forget").hidden = true;
  status("closed", "No access");
  const problem =
    reason === "forbidden" ? "That token is not for administration." : had ? "The node refused that key." : "";
  if (problem) banner(problem);
  void askForKey(problem);
}

/** Begins to listen with the present key. */
function connect(): void {
  client?.close();
  banner("");
  byId("forget").hidden = !key.get();
  const token = key.get() || undefined;
  const opened = (client = createClient({ path: "api/sse/stats?stream=1", share: false, session: false, heartbeatMs: HEARTBEAT_MS, token }));
  opened.on("message", ({ data }) => client === opened && show(data as Stats));
  opened.on("state", ({ data: { state, reason = "", retryMs = 0 } }) => {
    if (client !== opened) return;
    if (state === "open") status("open", "Live");
    else if (state === "connecting") status("connecting", "Connecting");
    else if (state === "waiting") status("waiting", `Reconnecting in ${Math.ceil(retryMs / 1000)} s`);
    else if (reason === "unauthorized" || reason === "forbidden" || reason === "token_expired") refused(reason);
    else if (state === "closed") {
      status("closed", "Ended");
      banner(`The node refused: ${words(reason)}.`, h("button", { class: "small", click: connect }, "Try again"));
    }
  });
  opened.connect();
}

theme();
const show = panels();
byId("settings").addEventListener("click", () => void settings());
byId("forget").addEventListener("click", () => {
  key.set("");
  location.reload();
});
connect();
