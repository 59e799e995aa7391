/** Which durable events came already. */

/** Ids that are remembered: the replays of several full channel histories (1000 events each by default). */
const REMEMBERED = 4096;

/**
 * Remembers the last ids. A set, and no comparison with the last position: a node fills a hole in one channel while
 * another goes on, so a lower id may be new.
 *
 * @returns takes an id and says whether it is new
 */
export function createSeen(): (id: string) => boolean {
  const ids = new Set<string>();
  return (id) => {
    if (ids.has(id)) return false;
    ids.add(id);
    if (ids.size > REMEMBERED) ids.delete(ids.values().next().value!);
    return true;
  };
}
