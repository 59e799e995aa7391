// Serves the page and the client package, and nothing else: the page talks to the node itself.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname } from "node:path";

const PORT = Number(process.env.PORT ?? 3000);
const NODE = process.env.FANLIGHT_URL ?? "http://127.0.0.1:8080";

const here = new URL("./", import.meta.url);
const client = new URL("../../client/dist/", import.meta.url);
if (!existsSync(new URL("index.js", client))) {
  console.error("The client package is not built yet: (cd client && npm ci && npm run build)");
  process.exit(1);
}

const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8" };
const pages = { "/": "index.html", "/app.js": "app.js", "/style.css": "style.css" };

/** The file behind a path: one of the page's three, or a module of the client. */
function file(path) {
  if (Object.hasOwn(pages, path)) return new URL(pages[path], here);
  const [, module] = /^\/fanlight\/([\w-]+\.js)$/.exec(path) ?? [];
  return module && new URL(module, client);
}

createServer((request, response) => {
  const path = request.url.split("?")[0];
  // Where the node is, is all that the page has to be told.
  if (path === "/config.js") {
    response.writeHead(200, { "Content-Type": types[".js"] });
    return response.end(`export const url = ${JSON.stringify(NODE)};\n`);
  }
  const found = file(path);
  if (!found || !existsSync(found)) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": types[extname(found.pathname)], "Cache-Control": "no-cache" });
  createReadStream(found).pipe(response);
}).listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}/ (events from ${NODE})`));
