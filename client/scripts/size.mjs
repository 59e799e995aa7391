// Holds the package to its size: what a bundler makes of `import { createClient } from "fanlight"`, minified and gzipped.
//
// core: what is loaded at once. The tab sharing is a part of its own, loaded when the browser has Web Locks; so is native
// EventSource, for browsers without fetch. All other exports (watchJob, events, watchHealth, createParser) are left out by
// tree shaking when they are not imported.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const KIB = 1024;

/** The size of a bundle of `code`, without what is `external`. */
async function size(code, external) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: new URL("..", import.meta.url).pathname, loader: "ts" },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const createClient = 'export { createClient } from "./src/index.ts";';
const rows = [
  ["core", await size(createClient, ["./share.js", "./eventsource.js"]), 3 * KIB],
  ["with tab sharing", await size(`${createClient} export { share } from "./src/share.ts";`, ["./eventsource.js"]), 6 * KIB],
  ["everything but React", await size('export * from "./src/index.ts";', []), undefined],
  ["with React hooks", await size('export * from "./src/react.ts";', ["react", "./share.js", "./eventsource.js"]), undefined],
];
for (const [name, bytes, limit] of rows)
  console.log(`${name.padEnd(22)} ${String(bytes).padStart(6)} B${limit ? ` of ${limit}` : ""}${limit && bytes > limit ? "  TOO LARGE" : ""}`);
if (rows.some(([, bytes, limit]) => limit && bytes > limit)) process.exitCode = 1;
