/** A tab's time as leader: the link, what all tabs want from it, and what newcomers missed. */
import { createLink } from "./link.js";
import type { Config } from "./options.js";
import type { RawEvent } from "./parser.js";
import { createSeen } from "./seen.js";
import type { Report, Source, Wake } from "./source.js";
import type { Refused, StateChange } from "./types.js";

/** What one tab wants, and how far it is. */
export interface Want {
  /** Joined by commas. */
  channels: string;
  /** Event types with listeners. */
  types: readonly string[];
  /** Its last durable event; empty for none. */
  position: string;
}

/** A new leader waits so long for the other tabs' answers. A frozen tab does not give one. */
const ROLL_CALL_MS = 300;
/** So many of the last events are kept for tabs that come back, so that they need no replay from the server. */
const RECENT = 256;
/** Refusals that are about the channels. */
const REFUSAL = /^(forbidden|bad_)/;

/** Whether `position` is older than another; positions sort as their texts do. */
function behind(position: string, than: string): boolean {
  return !!position && (!than || position < than);
}

/** The oldest of the positions that there are. */
function oldest(positions: string[]): string {
  return positions.filter((position) => position).sort()[0] ?? "";
}

/** One time of leading. */
export class Term {
  readonly #tabs = new Map<string, Want>();
  /** Tabs that live and have not answered yet. */
  #awaited: Set<string> | undefined;
  #rollCall: ReturnType<typeof setTimeout> | undefined;
  #link: Source | undefined;
  /** Where this term started, how far everybody is told, and where the link resumes: not the same while it repeats something. */
  #base = "";
  #newest = "";
  #position = "";
  /** What everybody was told in this term: whether an id is new, and the last events. */
  readonly #isNew = createSeen();
  readonly #recent: RawEvent[] = [];
  /** The link's last greeting, for tabs that come later. */
  #hello: RawEvent | undefined;
  /** Tabs for which the server repeats what the others know, and where each of them was. */
  readonly #late = new Map<string, string>();
  #change: StateChange | undefined;
  /** When a wait is over. */
  #due = 0;
  /** What the server last agreed to, what was last asked for, and what it refused. */
  #agreed = "";
  #asked = "";
  readonly #refused = new Set<string>();
  readonly #over = new AbortController();

  /**
   * @param name - of the group
   * @param self - the leading tab
   * @param tell - tells all tabs, or one; without a report, that we live
   */
  constructor(
    private readonly config: Config,
    private readonly name: string,
    private readonly self: string,
    private readonly tell: (report?: Report, to?: string) => void,
  ) {
    void this.#callRoll();
  }

  /** A tab says what it wants: in answer to our call, because that changed, to ask whether we live, or as a newcomer (`join`). */
  hear(from: string, want: Want, join?: boolean, wake?: Wake): void {
    const known = this.#tabs.has(from);
    this.#tabs.set(from, want);
    const awaited = this.#awaited?.delete(from);
    for (const type of want.types) this.config.types.add(type);
    if (!known && !awaited && from !== this.self) this.#watch(from);
    if (!this.#link) return this.#answered();
    if (from !== this.self) this.tell(join && this.#change ? { change: this.#change } : undefined, from);
    // It heard nothing of this term yet: a newcomer, or one that answers our call too late.
    if (join) this.#catchUp(from, want.position);
    this.#update();
    if (wake) this.wake(wake);
    // Our timers may be throttled because nobody sees us; somebody sees the one who asks.
    else if (this.#change?.state === "waiting" && Date.now() >= this.#due) this.wake("due");
  }

  /** See {@link Source.wake}. */
  wake(why: Wake): void {
    this.#link?.wake(why);
  }

  /** Ends it, in silence. */
  end(): void {
    clearTimeout(this.#rollCall);
    this.#over.abort();
    this.#link?.stop();
  }

  /** Waits until every tab that holds its lock has answered: the link starts with what all of them want, from the oldest position. */
  async #callRoll(): Promise<void> {
    const { held = [] } = await this.config.platform.navigator!.locks!.query();
    if (this.#over.signal.aborted) return;
    const tabs = held.map(({ name = "" }) => name.split(this.name + "#")[1] ?? "");
    this.#awaited = new Set(tabs.filter((tab) => tab && tab !== this.self && !this.#tabs.has(tab)));
    // The leader before us may still be among them for a moment.
    for (const tab of this.#awaited) this.#watch(tab);
    this.#rollCall = setTimeout(() => this.#start(), ROLL_CALL_MS);
    this.#answered();
  }

  #answered(): void {
    if (this.#awaited?.size === 0) this.#start();
  }

  #start(): void {
    clearTimeout(this.#rollCall);
    this.#base = this.#newest = this.#position = oldest([...this.#tabs.values()].map(({ position }) => position));
    for (const tab of this.#tabs.keys()) if (tab !== this.self) this.tell(undefined, tab);
    this.#open();
  }

  #open(): void {
    const hear = ({ event, change }: Report): void => (event ? this.#event(event) : this.#changed(change));
    this.#link = createLink(this.config, hear, () => this.#position);
    this.#update();
  }

  #event(event: RawEvent): void {
    const { id, type } = event;
    if (type === "connected") this.#hello = event;
    if (id) {
      this.#position = id;
      // Repeated for a tab that was behind: the others know it, or it is from before their time.
      if (!this.#isNew(id) || id <= this.#base)
        return this.#late.forEach((position, tab) => id > position && this.tell({ event }, tab));
      this.#late.clear();
      this.#newest = id;
      // Nobody had a position: our time begins here, and what a newcomer has the server repeat from before is for it alone.
      this.#base ||= id;
    }
    this.#recent.push(event);
    if (this.#recent.length > RECENT) this.#recent.shift();
    this.tell({ event });
  }

  #changed(change: StateChange): void {
    if (change.state === "closed" && REFUSAL.test(change.reason!) && this.#agreed && this.#agreed !== this.#asked)
      return this.#goWithout(change.reason!);
    this.#change = change;
    this.#due = Date.now() + (change.retryMs ?? 0);
    this.#agreed = change.channels ?? this.#agreed;
    this.tell({ change });
  }

  /** One tab's wish must not end the connection of all: goes back to the channels before. */
  #goWithout(reason: string): void {
    const agreed = this.#agreed.split(",");
    const refused: Refused = { reason, channels: this.#asked.split(",").filter((channel) => !agreed.includes(channel)) };
    for (const channel of refused.channels) this.#refused.add(channel);
    this.#link!.stop();
    this.#open();
    this.tell({ event: { type: "refused", data: JSON.stringify(refused) } });
  }

  /** A tab that was away gets what it missed: from here, or from the server. */
  #catchUp(tab: string, position: string): void {
    // One without a position begins here: should we go before it has heard anything, the next leader resumes from here for it.
    if (!position && this.#hello) return this.tell({ event: { ...this.#hello, id: this.#newest } }, tab);
    if (!behind(position, this.#newest)) return;
    const from = this.#recent.findIndex(({ id }) => id === position);
    // Who is where we began needs all of this term: that is there until the oldest of it is dropped.
    if (from < 0 && (position !== this.#base || this.#recent.length === RECENT)) return this.#rewind(tab, position);
    for (const event of this.#recent.slice(from + 1)) this.tell({ event }, tab);
  }

  #rewind(tab: string, position: string): void {
    this.#late.set(tab, position);
    this.#position = oldest([...this.#late.values()]);
    this.wake("online");
  }

  /** Forgets a tab once its lock is free, which is when it is gone. */
  #watch(tab: string): void {
    const gone = (): void => {
      this.#tabs.delete(tab);
      this.#awaited?.delete(tab);
      if (this.#link) this.#update();
      else this.#answered();
    };
    const { signal } = this.#over;
    this.config.platform.navigator!.locks!.request(this.name + "#" + tab, { signal }, gone).catch(() => {});
  }

  /** Asks for what any tab wants. */
  #update(): void {
    const wanted = [...this.#tabs.values()].flatMap(({ channels }) => channels.split(","));
    const channels = new Set(wanted.filter((channel) => channel && !this.#refused.has(channel)));
    this.#asked = [...channels].sort().join();
    this.#link?.update(this.#asked);
  }
}
