// Serves the page of the tests, and in it the package as it is built, on an origin of its own.
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:http";
import { build } from "esbuild";

const here = new URL("./page/", import.meta.url);
const dist = new URL("../../dist/", import.meta.url);

/** React for development, which is what mounts twice under StrictMode, as one module. */
async function react() {
  const { outputFiles } = await build({
    entryPoints: [new URL("react.js", here).pathname],
    bundle: true,
    write: false,
    format: "esm",
    define: { "process.env.NODE_ENV": '"development"' },
  });
  return outputFiles[0].text;
}

/**
 * Starts it on a free port.
 *
 * `/v1/…`, `/v2/…` are the same files: other addresses are other modules to a browser, and so a changed module of a page under
 * development, with everything that it imports.
 *
 * @returns its origin
 */
export async function site(stage) {
  const hooks = await react();
  const find = async (path) => {
    if (path === "/") return readFile(new URL("index.html", here));
    if (path === "/react.js") return hooks;
    const [, folder, name] = /^\/v\d+\/(fanlight\/)?([\w-]+\.js)$/.exec(path) ?? [];
    return readFile(new URL(name, folder ? dist : here));
  };
  const server = createServer((request, response) => {
    const type = request.url === "/" ? "text/html" : "text/javascript";
    find(request.url).then(
      (text) => response.writeHead(200, { "Content-Type": `${type}; charset=utf-8` }).end(text),
      () => response.writeHead(404).end(),
    );
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  stage.onEnd(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}`;
}
