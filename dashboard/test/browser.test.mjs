// The dashboard as a person sees it: three real nodes, a real redis-server, real Chromium.
//
// FANLIGHT_SCREENSHOTS=1 writes the pictures of the documentation to docs/images/; otherwise they go to a temporary directory.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Stage, until } from "../../client/test/browser/stage.mjs";

const KEY = "the-key-of-the-test";
const stage = new Stage();
const nodes = {};
let redis, browser, images;

before(async () => {
  redis = await stage.redis();
  const env = { FANLIGHT_REDIS_URL: redis.url, FANLIGHT_MAX_PER_IP: "0", FANLIGHT_CONNECT_RATE_PER_IP: "0", FANLIGHT_DRAIN: "1s" };
  const started = await Promise.all(["node-a", "node-b", "node-c"].map((id) => stage.node(id, env)));
  for (const node of started) nodes[node.id] = node;
  browser = await stage.browser();
  if (process.env.FANLIGHT_SCREENSHOTS) images = new URL("../../docs/images/", import.meta.url).pathname;
  else {
    images = await mkdtemp(join(tmpdir(), "fanlight-images-"));
    stage.onEnd(() => rm(images, { recursive: true }));
  }
});
after(() => stage.end());

/** A page whose every complaint is a failure. */
async function open(t, url, { allowed = /^$/, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  // Also when the test fails: what it leaves behind would be counted by the next one.
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const complaints = [];
  const complain = (text) => allowed.test(text) || complaints.push(text);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complain(message.text()));
  page.on("pageerror", (error) => complain(String(error)));
  const foreign = [];
  page.on("request", (request) => request.url().startsWith(url) || foreign.push(request.url()));
  await page.goto(url);
  const close = async () => {
    await context.close();
    assert.deepEqual(complaints, []);
    assert.deepEqual(foreign, [], "nothing is asked of anybody else");
  };
  return { page, close };
}

/** An open stream, until the test ends. */
function listen(t, node, path, session) {
  const stream = stage.stream(node.url, path, session);
  t.after(stream.close);
  return stream;
}

const publish = (node, data) =>
  fetch(`${node.url}/api/events`, { method: "POST", body: JSON.stringify({ channel: "jobs", event: "job_progress", data }) });

test("it shows three nodes and the cluster's numbers, and no complaint comes up", async (t) => {
  const streams = ["node-a", "node-b", "node-b", "node-c"].map((id, i) => listen(t, nodes[id], "/api/sse/stream", `s-${i}`));
  const { page, close } = await open(t, nodes["node-a"].url);
  for (const id of ["node-a", "node-b", "node-c"]) await page.waitForSelector(`[data-node=${id}] .badge[data-state=healthy]`);
  await until("four connections", async () => (await page.textContent("#tile-connections")) === "4");
  assert.equal(await page.textContent("#status"), "Live");
  await publish(nodes["node-c"], { id: "1" });
  await until("a message rate", async () => !["–", "0"].includes(await page.textContent("#tile-messages")));
  await page.waitForSelector("#chart-rate .line[d*=L]");
  await Promise.all(streams.map((stream) => stream.close()));
  await until("no connection", async () => (await page.textContent("#tile-connections")) === "0");
  await close();
});

test("what is published in the box reaches the tap, with a link to its trace", async (t) => {
  // The browser itself reports the refusal at the end.
  const { page, close } = await open(t, nodes["node-a"].url, { allowed: /status of 400/ });
  await page.click("#settings");
  await page.fill("#viewer", "javascript:{traceId}");
  await page.keyboard.press("Enter");
  assert.equal(await page.isVisible("dialog"), true, "what is no web address is not taken");
  await page.fill("#viewer", "https://traces.example/trace/{traceId}");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog", { state: "detached" });

  await page.fill("#tap-channel", "private:orders");
  await page.click("#tap button[type=submit]");
  await page.waitForSelector(".tap-note:text('Listening')");
  await page.fill("#pub-channel", "private:orders");
  await page.fill("#pub-type", "sold");
  await page.fill("#pub-data", '{"article":"<img src=x onerror=alert(1)>"}');
  const entry = page.locator("#tap .events li").first();
  // The event is here before the answer to its publishing.
  await page.route("**/api/events", async (route) => {
    const response = await route.fetch();
    await entry.waitFor();
    await route.fulfill({ response });
  });
  await page.press("#pub-data", "Control+Enter");
  assert.equal(await entry.locator("b").textContent(), "sold");
  assert.equal(await entry.locator("pre").textContent(), '{"article":"<img src=x onerror=alert(1)>"}');
  const [shown, told] = [await entry.locator("a").getAttribute("href"), await page.getAttribute("#publish .outcome a", "href")];
  assert.match(shown, /^https:\/\/traces\.example\/trace\/[\da-f]{32}$/);
  assert.equal(shown, told);
  await page.unroute("**/api/events");
  await page.press("#pub-data", "Control+Enter");
  await until("the second one is there too, with a link of its own", async () => {
    const links = await page.locator("#tap .events a").evaluateAll((all) => all.map(({ href }) => href));
    return links.length === 2 && links[0] !== links[1];
  });

  await page.fill("#pub-channel", "no channel");
  await page.click("#publish button[type=submit]");
  await page.waitForSelector("#publish .outcome.bad");
  await close();
});

test("kick closes the one that was meant, and Escape closes none", async (t) => {
  const [meant, other] = ["meant", "other"].map((session, i) => listen(t, nodes[`node-${"bc"[i]}`], "/api/sse/stream", session));
  const { page, close } = await open(t, nodes["node-a"].url);
  await until("both are open", () => [meant, other].every((stream) => stream.text().includes("hello")));
  await page.selectOption("#by", "session");
  await page.fill("#wanted", "meant");
  await page.keyboard.press("Enter");
  const row = page.locator("[data-connection]");
  await until("one row", async () => (await row.count()) === 1 && (await row.textContent()).includes("meant"));
  await row.locator("button").click();
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog", { state: "detached" });
  assert.equal(meant.over(), false);
  await row.locator("button").click();
  assert.match(await page.textContent("dialog"), /meant/);
  await page.click("dialog button.danger");
  await until("it is closed", () => meant.over());
  assert.match(meant.text(), /"reason":"kicked"/);
  assert.equal(other.over(), false);
  await page.waitForSelector("#connections .empty:text('Nobody like that')");
  await other.close();
  await close();
});

test("it asks for the key, says that one is refused, and keeps the right one out of the address and for this tab only", async (t) => {
  const node = await stage.node("locked", { FANLIGHT_API_KEYS: KEY });
  const { page, close } = await open(t, node.url, { allowed: /401/ });
  await page.fill("#key", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog [role=alert]:text('refused that key')");
  await page.fill("#key", KEY);
  await page.keyboard.press("Enter");
  await page.waitForSelector("[data-node=locked]");
  assert.equal(page.url(), `${node.url}/`);
  await page.reload();
  await page.waitForSelector("[data-node=locked]");
  assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie), "{}");
  await page.click("#forget");
  await page.waitForSelector("#key");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#banner:text('Without a key') button");
  await close();
  await node.kill();
});

test("everything is reached with the keyboard, the focus is seen, and every field has a name", async (t) => {
  const { page, close } = await open(t, nodes["node-a"].url);
  await page.waitForSelector("[data-node=node-c]");
  const stops = [];
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const { activeElement: at } = document;
      if (!at || at === document.body) return "";
      const name = at.getAttribute("aria-label") || at.labels?.[0]?.textContent || at.textContent;
      const seen = getComputedStyle(at).outlineStyle !== "none" || at.matches(".skip");
      return `${at.tagName} ${at.id} ${name} ${seen && name.trim() ? "" : "NOT SEEN OR NAMELESS"}`;
    });
    if (!stop) break;
    stops.push(stop);
  }
  for (const wanted of ["Skip to", "settings", "theme", "node-b", "tap-channel", "pub-data", "Publish", "wanted"])
    assert.ok(stops.some((stop) => stop.includes(wanted)), `${wanted} in ${stops.join("\n")}`);
  assert.deepEqual(stops.filter((stop) => stop.includes("NOT SEEN")), []);
  await close();
});

test("light, dark and a phone: pictures, and nothing is wider than the screen", async (t) => {
  const streams = [...Array(12).keys()].map((i) => listen(t, nodes[`node-${"abc"[i % 3]}`], `/api/sse/stream?channels=${["jobs", "pending-changes", "jobs,pending-changes"][i % 3]}`, `browser-${i}`));
  let progress = 0;
  const busy = setInterval(() => {
    if (Math.random() < 0.3) return;
    progress = (progress + 1) % 100;
    publish(nodes["node-b"], { id: String(40 + (progress % 7)), status: "running", progress }).catch(() => {});
  }, 100);
  const { page, close } = await open(t, nodes["node-a"].url, { colorScheme: "light" });
  try {
    await until("twelve connections", async () => (await page.textContent("#tile-connections")) === "12");
    await page.click("#tap button[type=submit]");
    await page.locator("#tap .events li").nth(5).waitFor();
    if (process.env.FANLIGHT_SCREENSHOTS) await new Promise((resolve) => setTimeout(resolve, 100_000));
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    // Down to the tap and the publish box; the list of connections goes on below.
    const clip = { x: 0, y: 0, width: 1280, height: 1290 };
    await page.screenshot({ path: join(images, "dashboard-light.png"), fullPage: true, clip });
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await ground(), light);
    await page.screenshot({ path: join(images, "dashboard-dark.png"), fullPage: true, clip });
    await page.click("#theme");
    assert.equal(await ground(), light, "the choice wins over the system");
    await page.setViewportSize({ width: 360, height: 740 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: join(images, "dashboard-phone.png") });
  } finally {
    clearInterval(busy);
  }
  await Promise.all(streams.map((stream) => stream.close()));
  await close();
});

test("a killed node disappears", async (t) => {
  const { page, close } = await open(t, nodes["node-a"].url);
  await page.waitForSelector("[data-node=node-c]");
  await nodes["node-c"].kill();
  await page.waitForSelector("[data-node=node-c]", { state: "detached" });
  await page.waitForSelector(".toast:text('node-c is gone')");
  assert.equal(await page.locator("[data-node]").count(), 2);
  await close();
});

test("the drain button drains the node of its row, and only after a confirmation", async (t) => {
  const { page, close } = await open(t, nodes["node-a"].url);
  const row = page.locator("[data-node=node-b]");
  await row.locator("button").click();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel", "Enter by accident drains nothing");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog", { state: "detached" });
  assert.equal(await fetch(`${nodes["node-b"].url}/readyz`).then((r) => r.status), 200);
  await row.locator("button").click();
  await page.click("dialog button.danger");
  await row.waitFor({ state: "detached" });
  assert.equal(await page.locator("[data-node]").count(), 1);
  assert.equal(await nodes["node-b"].ended().then(([code]) => code), 0, nodes["node-b"].said());
  await close();
});
