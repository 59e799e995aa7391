// Simulates jobs: some run at any time, most complete, some fail or are cancelled; and now and then a file changes.
const NODE = process.env.FANLIGHT_URL ?? "http://127.0.0.1:8080";
const KEY = process.env.FANLIGHT_API_KEY;
const STEP_MS = 400;
const AT_ONCE = 5;

const titles = ["Import catalogue", "Render video", "Send invoices", "Rebuild index", "Resize pictures", "Export report"];
const folders = ["/srv/shop", "/srv/blog", "/srv/docs", "/srv/billing"];
const any = (list) => list[Math.floor(Math.random() * list.length)];

const running = new Map();
// Ids go on where the last run of this script stopped.
let next = Math.floor(Date.now() / 1000) % 100_000;

/** What happens in one step, as events. */
function step() {
  const events = [];
  const job = (type, data) => events.push({ channel: "jobs", event: `job_${type}`, data });
  if (running.size < AT_ONCE && Math.random() < 0.6) {
    const id = String(next++);
    const title = any(titles);
    running.set(id, { title, progress: 0 });
    job("started", { id, title, status: "running", progress: 0 });
  }
  for (const [id, it] of running) {
    if (Math.random() < 0.5) continue;
    it.progress = Math.min(100, it.progress + Math.ceil(Math.random() * 15));
    const luck = Math.random();
    const status = it.progress === 100 ? "completed" : luck < 0.01 ? "failed" : luck < 0.015 ? "cancelled" : "running";
    job(status === "running" ? "progress" : status, { id, title: it.title, status, progress: it.progress });
    if (status !== "running") running.delete(id);
  }
  if (Math.random() < 0.15)
    events.push({ channel: "pending-changes", event: "manifest_changed", data: { project_folder: any(folders), timestamp: Math.floor(Date.now() / 1000) } });
  return events;
}

async function publish(events) {
  const headers = { "Content-Type": "application/json", ...(KEY && { Authorization: `Bearer ${KEY}` }) };
  const response = await fetch(`${NODE}/api/events`, { method: "POST", headers, body: JSON.stringify(events), signal: AbortSignal.timeout(5_000) });
  if (!response.ok) throw new Error(await response.text());
}

console.log(`publishing to ${NODE} until Ctrl+C`);
for (;;) {
  const events = step();
  if (events.length) await publish(events).catch((error) => console.error(`not published: ${error.message}`));
  await new Promise((resolve) => setTimeout(resolve, STEP_MS));
}
