/** Publishes an event, as `POST /api/events` takes it. */
import { byId, h } from "./dom.js";
import { ask, wordsOf } from "./session.js";
import { remember } from "./tap.js";
import { newTraceparent, traceId, traceLink } from "./traces.js";

const EXAMPLE = '{"id": "42", "status": "running", "progress": 50}';

/** What goes into the body: JSON as it is, anything else as a string. */
export function dataOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Fills the section. */
export function publish(): void {
  const field = (id: string, name: string, attributes: Record<string, string | boolean>): [HTMLElement, HTMLInputElement] => {
    const input = h("input", { id, autocomplete: "off", spellcheck: "false", ...attributes });
    return [h("div", {}, h("label", { for: id }, name), input), input];
  };
  const [channelField, channel] = field("pub-channel", "Channel", { list: "known-channels", required: true, value: "jobs" });
  const [typeField, type] = field("pub-type", "Event", { placeholder: "message", value: "job_progress" });
  const [keyField, eventKey] = field("pub-key", "Key", { placeholder: "optional" });
  const data = h("textarea", { id: "pub-data", rows: 8, spellcheck: "false", required: true });
  data.value = EXAMPLE;
  const outcome = h("p", { class: "outcome", role: "status" });
  const kind = h("span", { class: "help" });
  const button = h("button", { type: "submit", class: "primary" }, "Publish");
  const form = h(
    "form",
    { class: "publish" },
    h("div", { class: "row" }, channelField, typeField, keyField),
    h("div", {}, h("label", { for: "pub-data" }, "Data"), data),
    h("div", { class: "row end" }, kind, button),
    outcome,
  );
  byId("publish").append(form);

  const describe = (): void => {
    kind.textContent = typeof dataOf(data.value) === "string" ? "Not JSON: published as a string" : "JSON · Ctrl+Enter publishes";
  };
  describe();
  data.addEventListener("input", describe);
  data.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  const send = async (): Promise<void> => {
    const traceparent = newTraceparent();
    const body = {
      channel: channel.value.trim(),
      data: dataOf(data.value),
      ...(type.value.trim() && { event: type.value.trim() }),
      ...(eventKey.value.trim() && { key: eventKey.value.trim() }),
    };
    button.disabled = true;
    try {
      const { id } = (await ask("api/events", { method: "POST", body, headers: { traceparent } })) as { id: string };
      const trace = traceId(traceparent)!;
      remember(id, trace);
      outcome.className = "outcome good";
      outcome.replaceChildren("Published as ", h("span", { class: "mono" }, id), " · ", traceLink(trace));
    } catch (error) {
      outcome.className = "outcome bad";
      outcome.replaceChildren(`Not published: ${wordsOf(error)}`);
    } finally {
      button.disabled = false;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
}
