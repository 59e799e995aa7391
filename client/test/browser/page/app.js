// An application with hooks, as a bundler runs it again after each change of its source: its modules are new, the page and React
// are the same.
import { createElement as h, createRoot, StrictMode } from "react";
import { FanlightProvider, useConnectionState, useEvents } from "./fanlight/react.js";

window.seen ??= [];
window.view ??= createRoot(document.getElementById("root"));

function Ticks() {
  const events = useEvents("jobs", { types: ["tick"], limit: 10_000, onEvent: ({ lastEventId }) => window.seen.push(lastEventId) });
  return h("b", null, events.length);
}

function State() {
  return h("i", null, useConnectionState());
}

export function show(options) {
  window.view.render(h(StrictMode, null, h(FanlightProvider, { options }, h(State), h(Ticks), h(Ticks))));
}
