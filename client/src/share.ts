/**
 * One connection for all tabs of a browser: this tab's side of it.
 *
 * Who holds the Web Lock of the group leads (see `term.ts`) and passes everything on over a BroadcastChannel. The browser
 * gives the lock to the next tab the moment the leader is gone, however it went. Loaded apart from the core.
 *
 * Nothing is lost when the lead passes: every tab tells the new leader how far it is, the leader resumes from the
 * oldest position, and every tab drops what it has seen (`Seen`).
 */
import { type Config, randomId } from "./options.js";
import type { Report, Source, Wake } from "./source.js";
import { Term, type Want } from "./term.js";

/** A tab that is seen asks after its leader this often, */
const PING_MS = 3_000;
/** and takes the lead when so many questions stay unanswered: the leader is frozen, lock and all. */
const MISSES = 2;
/** After a final end the lock stays so long, or the next tab could lead before it hears that it is over for all. */
const LINGER_MS = 1_000;

/** What tabs say to each other. */
type Message =
  /** What the sender wants. `join`: it is new here. */
  | { want: Want; join?: boolean; wake?: Wake }
  /** The sender leads. */
  | { lead: true }
  /** The leader's link reports; with `to`, only that tab is meant, and without a report it only learns that its leader lives. */
  | { report?: Report; to?: string | undefined };

/** A source whose link may live in another tab. */
class SharedSource implements Source {
  readonly #id = randomId();
  readonly #name: string;
  readonly #bus: BroadcastChannel;
  readonly #locks: LockManager;
  readonly #stopped = new AbortController();
  /** Ends both locks of this tab. */
  #release = (): void => {};
  readonly #held = new Promise<void>((resolve) => (this.#release = resolve));
  readonly #ping: ReturnType<typeof setInterval>;
  #channels = "";
  #leader = "";
  #misses = 0;
  /** The present request for the lead. */
  #bid: AbortController | undefined;
  /** Present while this tab leads. */
  #term: Term | undefined;
  /** It is over for all tabs. */
  #final = false;

  constructor(
    private readonly config: Config,
    private readonly say: (report: Report) => void,
    private readonly position: () => string,
  ) {
    const { platform, address, session, share } = config;
    this.#locks = platform.navigator!.locks!;
    this.#name = ["fanlight", address, session, share].join(" ");
    this.#bus = new platform.BroadcastChannel!(this.#name);
    this.#bus.onmessage = ({ data: [from, message] }: MessageEvent<[string, Message]>) => this.#hear(from, message);
    this.#ping = setInterval(() => this.#askAfterLeader(), PING_MS);
  }

  /**
   * Takes the lock by which others see that this tab lives.
   *
   * @throws when there are no locks here (a sandboxed frame)
   */
  enter(): Promise<void> {
    return new Promise((resolve, reject) => {
      const hold = (): Promise<void> => {
        resolve();
        return this.#held;
      };
      this.#locks.request(this.#name + "#" + this.#id, { signal: this.#stopped.signal }, hold).catch(reject);
    });
  }

  update(channels: string): void {
    this.#channels = channels;
    this.#tell({ join: !this.#bid });
    if (!this.#bid) this.#bidForLead(false);
  }

  wake(why: Wake): void {
    if (this.#term) this.#term.wake(why);
    else this.#tell({ wake: why });
  }

  stop(): void {
    const bid = this.#bid;
    this.#bid = undefined;
    this.#stopped.abort();
    clearInterval(this.#ping);
    this.#depose();
    this.#bus.close();
    bid?.abort();
    if (this.#final) setTimeout(this.#release, LINGER_MS);
    else this.#release();
  }

  #post(message: Message): void {
    // After `stop` the channel is closed and would throw.
    if (!this.#stopped.signal.aborted) this.#bus.postMessage([this.#id, message]);
  }

  /** Tells the leader, be it ourselves, what this tab wants. */
  #tell(more?: { join?: boolean; wake?: Wake }): void {
    const want: Want = { channels: this.#channels, types: [...this.config.types], position: this.position() };
    if (this.#term) this.#term.hear(this.#id, want);
    else this.#post({ want, ...more });
  }

  #hear(from: string, message: Message): void {
    if ("want" in message) return this.#term?.hear(from, message.want, message.join, message.wake);
    if ("lead" in message) {
      // While we hold the lock this is either old news from a leader that is gone, or the lock was stolen from us,
      // which the lock itself will tell.
      if (this.#term) return;
      this.#leader = from;
      this.#misses = 0;
      return this.#tell();
    }
    const { report, to = this.#id } = message;
    if (to !== this.#id) return;
    // A newcomer follows whoever answers it; everybody else whom they were told to.
    this.#leader ||= from;
    if (from !== this.#leader) return;
    this.#misses = 0;
    if (report) this.say(report);
  }

  #bidForLead(steal: boolean): void {
    this.#bid?.abort();
    const bid = (this.#bid = new AbortController());
    const lead = (): Promise<void> | undefined => {
      if (bid !== this.#bid) return undefined;
      this.#lead();
      return this.#held;
    };
    // `steal` and `signal` exclude each other.
    this.#locks.request(this.#name, steal ? { steal } : { signal: bid.signal }, lead).catch(() => {
      if (bid !== this.#bid) return;
      // Another tab took the lock from us while we could not run: to its term we are new.
      this.#depose();
      this.#leader = "";
      this.#tell({ join: true });
      this.#bidForLead(false);
    });
  }

  #lead(): void {
    const tell = (report?: Report, to?: string): void => {
      if (report?.change?.state === "closed") this.#final = true;
      this.#post({ report, to } as Message);
      if (report && !to) this.say(report);
    };
    this.#leader = this.#id;
    this.#term = new Term(this.config, this.#name, this.#id, tell);
    this.#post({ lead: true });
    this.#tell();
  }

  #depose(): void {
    this.#term?.end();
    this.#term = undefined;
  }

  /** Only a tab that is seen has timers to rely on, and somebody who would miss something. */
  #askAfterLeader(): void {
    if (this.#term || !this.#bid || this.config.platform.document?.hidden) return;
    if (++this.#misses <= MISSES) return this.#tell();
    this.#misses = 0;
    this.#bidForLead(true);
  }
}

/**
 * Joins the tabs of the group that `config` names.
 *
 * @param say - is told what happens
 * @param position - says how far this tab is
 * @throws when Web Locks do not work here
 */
export async function share(config: Config, say: (report: Report) => void, position: () => string): Promise<Source> {
  const source = new SharedSource(config, say, position);
  try {
    await source.enter();
  } catch (error) {
    source.stop();
    throw error;
  }
  return source;
}
