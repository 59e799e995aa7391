/** Who is connected: search by exact address, session or channel, page by page, and kick. */
import { openDialog, toast } from "./dialog.js";
import { byId, h, keyed, say } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { ask, wordsOf } from "./session.js";

interface Connection {
  id: string;
  node: string;
  ip: string;
  session: string | null;
  userAgent: string | null;
  channels: string[];
  durationMs: number;
  messagesSent: number;
  bytesSent: number;
  queued: number;
}

interface Page {
  connections: Connection[];
  nextCursor: string | null;
  partial: boolean;
}

type View = (row: Connection) => void;

const COLUMNS = ["Address", "Session", "Channels", "Node", "Open for", "Events", "Sent", ""];
const PAGE = 20;
/** How often the first page is looked at again while the page is seen. */
const REFRESH_MS = 5_000;

function row(first: Connection, kick: (row: Connection) => void): { element: HTMLElement; view: View } {
  const { id, ip, session, userAgent, channels, node } = first;
  const number = (label: string): HTMLElement => h("td", { "data-label": label, class: "n" });
  const [age, events, sent] = [number("Open for"), number("Events"), number("Sent")];
  const element = h(
    "tr",
    { "data-connection": id },
    h("th", { scope: "row" }, h("span", { class: "mono" }, ip), h("small", { title: userAgent ?? "" }, userAgent ?? "no user agent")),
    h("td", { "data-label": "Session" }, h("span", { class: "mono cut", title: session ?? "" }, session ?? "–")),
    h("td", { "data-label": "Channels" }, h("span", { class: "cut", title: channels.join(", ") }, channels.join(", "))),
    h("td", { "data-label": "Node" }, h("span", { class: "mono cut", title: node }, node)),
    age,
    events,
    sent,
    h("td", { class: "act" }, h("button", { class: "small", click: () => kick(first) }, "Kick", h("span", { class: "sr" }, ` ${ip} ${session ?? id}`))),
  );
  const view = ({ durationMs, messagesSent, bytesSent, queued }: Connection): void => {
    say(age, duration(durationMs));
    say(events, count(messagesSent) + (queued ? ` (+${count(queued)})` : ""));
    say(sent, bytes(bytesSent));
  };
  return { element, view };
}

/** Fills the section; returns how to look again. */
export function connections(): () => void {
  const by = h("select", { "aria-label": "Search by", id: "by" }, ...["ip", "session", "channel"].map((name) => h("option", { value: name }, name)));
  const wanted = h("input", { type: "search", "aria-label": "Search for", placeholder: "all connections", autocomplete: "off", spellcheck: "false", id: "wanted" });
  const all = h("button", { type: "button", class: "small", hidden: true, click: () => void kickAll() }, "Kick all of these");
  const form = h("form", { class: "search", role: "search" }, by, wanted, h("button", { type: "submit" }, "Search"), all);
  const note = h("p", { class: "empty" }, "Looking …");
  const body = h("tbody");
  const heads = COLUMNS.map((name) => h("th", { scope: "col", class: ["Open for", "Events", "Sent"].includes(name) ? "n" : undefined }, name || h("span", { class: "sr" }, "Actions")));
  const table = h("table", { class: "cards connections" }, h("thead", {}, h("tr", {}, ...heads)), body);
  const more = h("button", { class: "more", hidden: true, click: () => void load(cursor) }, "Show more");
  byId("connections").append(form, table, note, more);

  const kept = new Map<string, { element: HTMLElement; view: View }>();
  let rows: Connection[] = [];
  let filter = "";
  let cursor = "";
  /** Answers to earlier questions are not shown. */
  let question = 0;
  let pages = 1;

  const show = (partial: boolean): void => {
    keyed(body, kept, rows, ({ id }) => id, (first) => row(first, (it) => void kick(it)), (view, latest) => view(latest));
    table.hidden = rows.length === 0;
    more.hidden = !cursor;
    all.hidden = !filter || rows.length === 0;
    const none = filter ? "Nobody like that is connected." : "Nobody is connected.";
    note.hidden = rows.length > 0 && !partial;
    say(note, partial ? "Not every node has answered; there may be more." : none);
  };

  const load = async (after = ""): Promise<void> => {
    const mine = ++question;
    try {
      const page = (await ask(`api/sse/connections?limit=${PAGE}${filter}${after && `&cursor=${encodeURIComponent(after)}`}`)) as Page;
      if (mine !== question) return;
      rows = after ? [...rows, ...page.connections] : page.connections;
      pages = after ? pages + 1 : 1;
      cursor = page.nextCursor ?? "";
      show(page.partial);
    } catch (error) {
      if (mine !== question) return;
      note.hidden = false;
      say(note, wordsOf(error));
    }
  };

  const kick = async ({ id, ip, session, node }: Connection): Promise<void> => {
    const facts = h("dl", { class: "facts" });
    for (const [name, value] of [["Address", ip], ["Session", session ?? "–"], ["Node", node]] as const)
      facts.append(h("dt", {}, name), h("dd", { class: "mono" }, value));
    const text = h("p", {}, "Its stream ends with the word not to come back by itself.");
    if (await openDialog("Kick this connection?", [facts, text], "Kick", true)) await remove(`/${encodeURIComponent(id)}`);
  };

  const kickAll = async (): Promise<void> => {
    const of = filter;
    const text = `Every connection with ${by.value} ${wanted.value} is closed, wherever it is.`;
    if (await openDialog("Kick all of these?", [h("p", {}, text)], "Kick all", true)) await remove(`?${of.slice(1)}`);
  };

  const remove = async (which: string): Promise<void> => {
    try {
      const { kicked } = (await ask(`api/sse/connections${which}`, { method: "DELETE" })) as { kicked: number };
      toast(`${count(kicked)} ${kicked === 1 ? "connection" : "connections"} closed`);
    } catch (error) {
      toast(`Not kicked: ${wordsOf(error)}`, true);
    }
    await load();
  };

  const search = (): void => {
    const text = wanted.value.trim();
    filter = text && `&${by.value}=${encodeURIComponent(text)}`;
    void load();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  wanted.addEventListener("input", () => wanted.value || search());
  by.addEventListener("change", () => {
    if (by.value === "channel") wanted.setAttribute("list", "known-channels");
    else wanted.removeAttribute("list");
  });

  let looked = 0;
  return () => {
    const now = Date.now();
    // Further pages stay as they were asked for.
    if (document.hidden || pages > 1 || now - looked < REFRESH_MS) return;
    looked = now;
    void load();
  };
}
