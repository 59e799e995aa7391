// examples/jobs/ as its README starts it, on free ports. Needs client/dist, which the client's own tests build.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EXAMPLES, Stage, freePort, run, until } from "../../client/test/browser/stage.mjs";

const stage = new Stage();
after(() => stage.end());

test("the example shows jobs and changes over one connection for all tabs, and comes back after a restart", async () => {
  const port = await freePort();
  const page = `http://127.0.0.1:${port}`;
  const settings = { FANLIGHT_ALLOWED_ORIGINS: page, FANLIGHT_DRAIN: "1s" };
  const node = await stage.node("node-a", settings);
  for (const [script, env] of [["server.mjs", { PORT: String(port) }], ["publish.mjs", {}]]) {
    const process = run("node", [`${EXAMPLES}/jobs/${script}`], { FANLIGHT_URL: node.url, ...env });
    stage.onEnd(() => process.kill());
  }
  await until("the page is served", () => fetch(page).then((r) => r.ok, () => false));
  const browser = await stage.browser();
  const context = await browser.newContext({ viewport: { width: 1000, height: 720 }, colorScheme: "light" });
  const complaints = [];
  const tabs = [];
  for (let i = 0; i < 2; i++) {
    const tab = await context.newPage();
    tab.on("pageerror", (error) => complaints.push(String(error)));
    await tab.goto(page);
    await tab.waitForSelector("#state[data-state=open]");
    await tab.waitForSelector("#jobs li");
    tabs.push(tab);
  }
  await tabs[1].waitForSelector("#changes li");
  const connections = () => fetch(`${node.url}/api/sse/stats`).then((r) => r.json()).then((stats) => stats.activeConnections);
  assert.equal(await connections(), 1);
  if (process.env.FANLIGHT_SCREENSHOTS) await new Promise((resolve) => setTimeout(resolve, 25_000));
  const shown = process.env.FANLIGHT_SCREENSHOTS
    ? new URL("../../docs/images/", import.meta.url).pathname
    : await mkdtemp(join(tmpdir(), "fanlight-images-"));
  if (!process.env.FANLIGHT_SCREENSHOTS) stage.onEnd(() => rm(shown, { recursive: true }));
  await tabs[1].screenshot({ path: join(shown, "example-jobs.png") });

  await node.kill("SIGTERM");
  await tabs[1].waitForSelector("#state:not([data-state=open])");
  await stage.node("node-a", { ...settings, FANLIGHT_LISTEN: new URL(node.url).host });
  for (const tab of tabs) await tab.waitForSelector("#state[data-state=open]");
  assert.deepEqual(complaints, []);
});
