// Jobs and pending changes over one connection, which all tabs of this browser share.
import { createClient } from "fanlight";
import { url } from "./config.js";

const MAX_ROWS = 10;
const client = createClient({ url, channels: ["jobs", "pending-changes"] });
const byId = (id) => document.getElementById(id);

/** Job rows by id. */
const rows = new Map();

function row(id) {
  const known = rows.get(id);
  if (known) return known;
  const element = document.createElement("li");
  const [title, status, bar] = ["b", "span", "progress"].map((tag) => element.appendChild(document.createElement(tag)));
  bar.max = 100;
  byId("jobs").prepend(element);
  const made = { element, title, status, bar };
  rows.set(id, made);
  // The oldest rows make room.
  for (const [old, { element }] of rows) if (rows.size > MAX_ROWS) element.remove(), rows.delete(old);
  return made;
}

for (const type of ["job_started", "job_progress", "job_completed", "job_failed", "job_cancelled"])
  client.on(type, ({ data }) => {
    const { element, title, status, bar } = row(data.id);
    element.dataset.status = data.status;
    title.textContent = `${data.title ?? "Job"} #${data.id}`;
    status.textContent = data.status === "running" ? `${data.progress ?? 0} %` : data.status;
    bar.value = data.progress ?? (data.status === "completed" ? 100 : bar.value);
    bar.setAttribute("aria-label", title.textContent);
  });

client.on("manifest_changed", ({ data }) => {
  const element = document.createElement("li");
  const [folder, time] = ["b", "time"].map((tag) => element.appendChild(document.createElement(tag)));
  folder.textContent = data.project_folder;
  time.textContent = new Date(data.timestamp * 1000).toLocaleTimeString("en-GB");
  byId("changes").prepend(element);
  while (byId("changes").children.length > MAX_ROWS) byId("changes").lastElementChild.remove();
});

// The one case in which a page must do something: ask its backend for the present state. This example has none to ask.
client.on("gap", ({ data }) => {
  byId("gap").hidden = false;
  byId("gap").textContent = `Events of ${data.channel} may be missing (${data.reason}): reload your state here.`;
});

client.on("state", ({ data: { state, reason } }) => {
  byId("state").dataset.state = state;
  byId("state").textContent = state === "open" ? "live" : reason ? `${state}: ${reason}` : state;
});

client.connect();
