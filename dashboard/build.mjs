// Builds dist/, which is committed and compiled into the node: a fresh machine needs no Node.js to run one.
//
//   node build.mjs           writes it
//   node build.mjs --check   fails when what is committed is not what the sources make, or is too large
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MAX_GZIPPED = 40 * 1024;
const here = (path) => new URL(path, import.meta.url);

const { outputFiles } = await build({
  entryPoints: { app: here("src/main.ts").pathname, style: here("src/style.css").pathname },
  outdir: here("dist").pathname,
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  // The page has one tab's connections and always fetches: the client's other ways are never loaded.
  external: ["./share.js", "./eventsource.js"],
});
const files = new Map(outputFiles.map(({ path, text }) => [path.split("/").pop(), text]));
for (const name of ["index.html", "icon.svg"]) files.set(name, await readFile(here(`src/${name}`), "utf8"));

let gzipped = 0;
for (const text of files.values()) gzipped += gzipSync(text, { level: 9 }).length;
console.log(`dashboard: ${gzipped} B gzipped of ${MAX_GZIPPED}`);
if (gzipped > MAX_GZIPPED) process.exitCode = 1;

if (process.argv.includes("--check")) {
  for (const [name, text] of files)
    if ((await readFile(here(`dist/${name}`), "utf8").catch(() => "")) !== text) {
      console.error(`dashboard/dist/${name} is not what dashboard/src makes: run npm run build in dashboard/ and commit it`);
      process.exitCode = 1;
    }
} else {
  await mkdir(here("dist"), { recursive: true });
  for (const [name, text] of files) await writeFile(here(`dist/${name}`), text);
}
