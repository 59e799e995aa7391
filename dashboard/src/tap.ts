/** Listens to a channel as it is: the last events, newest first. */
import { type AnyClient, type Client, createClient } from "../../client/src/index.js";
import { byId, h, say } from "./dom.js";
import { clock, count, words } from "./format.js";
import { key } from "./session.js";
import { traceId, traceLink } from "./traces.js";

const MAX_SHOWN = 100;
/** Beyond this the data of an event is cut: it is for a look, not for keeping. */
const MAX_TEXT = 2_000;
/** Traces of what was published here, by position; the oldest is forgotten. */
const published = new Map<string, string>();

/** Remembers the trace of an event that was published from this page. */
export function remember(position: string, trace: string): void {
  published.set(position, trace);
  if (published.size > MAX_SHOWN) published.delete(published.keys().next().value!);
  // The event may be here before the answer to its publishing was.
  document.querySelector(`#tap [data-untraced="${CSS.escape(position)}"] .about`)?.append(traceLink(trace));
}

function traceOf(data: unknown, position: string): string | undefined {
  const { traceparent } = Object(data) as { traceparent?: unknown };
  return traceId(traceparent) ?? published.get(position);
}

function entry({ type, data, lastEventId }: MessageEvent): HTMLElement {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  const cut = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)} …` : text;
  const trace = traceOf(data, lastEventId);
  const control = ["gap", "bye", "limit"].includes(type);
  return h(
    "li",
    { class: control ? "control" : undefined, "data-untraced": trace ? undefined : lastEventId },
    h("div", { class: "about" }, h("time", {}, clock(new Date())), h("b", {}, type), h("span", { class: "mono id", title: lastEventId }, lastEventId || "live only"), trace && traceLink(trace)),
    h("pre", {}, cut),
  );
}

const REFUSALS: Record<string, string> = {
  ip_limit: "This address has all its streams already (FANLIGHT_MAX_PER_IP); a tap is one, too.",
  bad_channel: "That is no channel's name.",
  forbidden: "This key may not listen.",
  unauthorized: "The key was refused.",
  kicked: "The tap was kicked.",
};

/** Fills the section. */
export function tap(): void {
  const channel = h("input", { id: "tap-channel", list: "known-channels", required: true, autocomplete: "off", spellcheck: "false", value: "jobs" });
  const button = h("button", { type: "submit", class: "primary" }, "Listen");
  const clear = h("button", { type: "button", class: "quiet", click: () => clearAll() }, "Clear");
  const form = h("form", { class: "search" }, h("label", { for: "tap-channel" }, "Channel"), channel, button, clear);
  const note = h("p", { class: "tap-note", role: "status" }, "Not listening.");
  const list = h("ol", { class: "events", tabindex: 0, "aria-label": "Events" });
  byId("tap").append(form, note, list);

  let client: (Client<object> & AnyClient) | undefined;
  let heard = 0;
  let waiting: MessageEvent[] = [];
  let frame = 0;

  const clearAll = (): void => {
    heard = 0;
    waiting = [];
    list.replaceChildren();
  };

  /** Once per frame, whatever the number of events. */
  const draw = (): void => {
    frame = 0;
    list.prepend(...waiting.map(entry).reverse());
    waiting = [];
    while (list.children.length > MAX_SHOWN) list.lastElementChild!.remove();
    if (client?.state === "open") say(note, `Listening · ${count(heard)} ${heard === 1 ? "event" : "events"}`);
  };

  const stop = (): void => {
    client?.close();
    client = undefined;
    say(button, "Listen");
    say(note, "Not listening.");
  };

  const start = (name: string): void => {
    clearAll();
    const token = key.get() || undefined;
    const opened = (client = createClient({ path: `api/sse/tap?channels=${encodeURIComponent(name)}`, share: false, session: false, token }));
    opened.on("*", ({ data }) => {
      if (client !== opened || data.type === "connected") return;
      heard++;
      waiting.push(data);
      if (waiting.length > MAX_SHOWN) waiting.shift();
      frame ||= requestAnimationFrame(draw);
    });
    opened.on("state", ({ data: { state, reason = "", retryMs = 0 } }) => {
      if (client !== opened) return;
      const why = REFUSALS[reason] ?? words(reason);
      if (state === "open") say(note, `Listening · ${count(heard)} ${heard === 1 ? "event" : "events"}`);
      else if (state === "waiting") say(note, `${why} Trying again in ${Math.ceil(retryMs / 1000)} s.`);
      else if (state === "closed") {
        stop();
        say(note, why);
      } else say(note, "Connecting …");
    });
    opened.connect();
    say(button, "Stop");
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (client) stop();
    else start(channel.value.trim());
  });
  channel.addEventListener("input", () => client && stop());
}
