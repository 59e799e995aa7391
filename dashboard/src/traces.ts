/** Links to traces. The viewer's address is a setting of this browser, with `{traceId}` where the id goes. */
import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { remembered } from "./session.js";

const template = remembered(() => localStorage, "fanlight.traces");
const EXAMPLE = "http://localhost:16686/trace/{traceId}";

/** A `traceparent` (W3C Trace Context, section 3.2) that begins a sampled trace. */
export function newTraceparent(): string {
  const hex = (bytes: number): string => [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `00-${hex(16)}-${hex(8)}-01`;
}

/** The trace id of a `traceparent`, or undefined when it is none. */
export function traceId(traceparent: unknown): string | undefined {
  const id = /^[\da-f]{2}-([\da-f]{32})-[\da-f]{16}-[\da-f]{2}/.exec(String(traceparent))?.[1];
  return id && /[^0]/.test(id) ? id : undefined;
}

/** The address of a trace; undefined without a viewer, or with one that is no web address. */
export function addressOf(id: string, of: string = template.get()): string | undefined {
  if (!of.includes("{traceId}")) return undefined;
  const address = of.replaceAll("{traceId}", id);
  return URL.canParse(address) && /^https?:$/.test(new URL(address).protocol) ? address : undefined;
}

/** A link to the trace, or its id alone where no viewer is set. */
export function traceLink(id: string): Node {
  const href = addressOf(id);
  const short = `trace ${id.slice(0, 8)}`;
  return href ? h("a", { href, target: "_blank", rel: "noopener noreferrer" }, short) : h("span", { class: "mono", title: id }, short);
}

/** Asks for the viewer's address. */
export async function settings(): Promise<void> {
  const input = h("input", { type: "text", inputmode: "url", value: template.get(), placeholder: EXAMPLE, spellcheck: "false", id: "viewer", "aria-describedby": "viewer-help" });
  const problem = "{traceId} must stand in an http or https address";
  input.addEventListener("input", () => input.setCustomValidity(!input.value || addressOf("0", input.value) ? "" : problem));
  const help = h("p", { class: "help", id: "viewer-help" }, "{traceId} stands for the id. Kept in this browser.");
  if (await openDialog("Settings", [h("label", { for: "viewer" }, "Trace viewer"), input, help], "Save")) template.set(input.value.trim());
}
