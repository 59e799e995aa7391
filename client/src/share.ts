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

/** What a tab wants. `join`: it does not hear this term yet. */
interface Wish {
  want: Want;
  join: boolean;
  wake: Wake | undefined;
}

/**
 * What a leader says in its term: first that it leads, then what its link reports. With `to` only that tab is meant, and without
 * a report it only learns that its leader lives. Terms are numbered upwards, so that what a leader before said last, and
 * comes late, is known for old.
 */
interface Word {
  term: number;
  lead?: boolean;
  report?: Report | undefined;
  to?: string | undefined;
}

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
  #listeners = -1;
  /** Number of the term that we follow, or know of, and whether we hear all of it. */
  #era = 0;
  #joined = false;
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
    this.#name = ["fanlight", address, session, share === true ? "" : share].join(" ");
    this.#bus = new platform.BroadcastChannel!(this.#name);
    this.#bus.onmessage = ({ data: [from, message] }: MessageEvent<[string, Wish | Word]>) => {
      if ("want" in message) this.#term?.hear(from, message.want, message.join, message.wake);
      else this.#hear(message);
    };
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
    const listeners = this.config.types.size;
    if (channels === this.#channels && listeners === this.#listeners) return;
    this.#channels = channels;
    this.#listeners = listeners;
    this.#tell();
    if (!this.#bid) this.#bidForLead(false);
  }

  wake(why: Wake): void {
    if (this.#term) this.#term.wake(why);
    // That the network is another one, the leader notices itself.
    else if (why === "visible") this.#tell(why);
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

  #post(message: Wish | Word): void {
    // After `stop` the channel is closed and would throw.
    if (!this.#stopped.signal.aborted) this.#bus.postMessage([this.#id, message]);
  }

  /** Tells the leader, be it ourselves, what this tab wants. */
  #tell(wake?: Wake): void {
    const want: Want = { channels: this.#channels, types: [...this.config.types], position: this.position() };
    if (this.#term) this.#term.hear(this.#id, want);
    else this.#post({ want, wake, join: !this.#joined });
  }

  #hear({ term, lead, report, to }: Word): void {
    if (term < this.#era || (to && to !== this.#id)) return;
    // While we hold the lock, a newer term can only mean that it was stolen from us, and the lock itself will tell.
    if (this.#term) return;
    // To a term that begins, and to one whose beginning we missed, we are new: who comes late to it (we were frozen) must not
    // hear its present before what it missed.
    const fresh = lead || (to && this.#joined && term > this.#era);
    if (fresh || to) {
      this.#era = term;
      this.#joined = !fresh;
    }
    if (fresh) return this.#tell();
    // A newcomer joins with the answer, which brings what it missed, and not before.
    if (!this.#joined || term > this.#era) return;
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
      this.#joined = false;
      this.#tell();
      this.#bidForLead(false);
    });
  }

  #lead(): void {
    const term = (this.#era = Math.max(this.#era + 1, Date.now()));
    this.#joined = true;
    const tell = (report?: Report, to?: string): void => {
      if (report?.change?.state === "closed") this.#final = true;
      this.#post({ term, report, to });
      if (report && !to) this.say(report);
    };
    this.#term = new Term(this.config, this.#name, this.#id, tell);
    this.#post({ term, lead: true });
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
