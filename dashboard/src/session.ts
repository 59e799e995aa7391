/** The key, and asking the node with it. The key is kept for this tab only, and never stands in an address. */

const STORE = "fanlight.key";

/** A refusal, with the node's own words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Storage may be switched off; then a setting lives as long as the page. */
export function remembered(storage: () => Storage, name: string): { get(): string; set(value: string): void } {
  let value = "";
  try {
    value = storage().getItem(name) ?? "";
  } catch {}
  return {
    get: () => value,
    set(next) {
      value = next;
      try {
        if (next) storage().setItem(name, next);
        else storage().removeItem(name);
      } catch {}
    },
  };
}

export const key = remembered(() => sessionStorage, STORE);

/** Asks the node. Throws {@link Refused}, or an error with words for people. */
export async function ask(path: string, { method = "GET", body, headers = {} }: { method?: string; body?: unknown; headers?: Record<string, string> } = {}): Promise<unknown> {
  const all: Record<string, string> = { ...headers };
  if (key.get()) all["Authorization"] = "Bearer " + key.get();
  if (body !== undefined) all["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers: all,
    cache: "no-store",
    credentials: "same-origin",
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(15_000),
  }).catch(() => {
    throw new Error("The node does not answer");
  });
  const answer = (await response.json().catch(() => ({}))) as { error?: string; code?: string };
  if (!response.ok) throw new Refused(response.status, answer.code ?? "", answer.error ?? `The node answered ${response.status}`);
  return answer;
}

/** What went wrong, for people. */
export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
