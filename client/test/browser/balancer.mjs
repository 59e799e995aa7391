// A TCP load balancer in front of nodes, and the network before it: what a connection of a browser's goes through.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/**
 * Takes connections on a free port and leads each to the next node that takes it.
 *
 * @param cutAfterMs - when given, every connection is cut so long after it began, as some proxies do
 * @returns its address; `cut` ends all connections; `silence` lets nothing through, neither a byte nor an end, until the
 *   function that it returns is called
 */
export async function balancer(stage, nodes, cutAfterMs) {
  const open = new Set();
  let turn = 0;
  let silence;
  const heard = () => silence?.over;
  const server = createServer(async (socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket)).on("error", () => {});
    if (cutAfterMs) setTimeout(() => socket.destroy(), cutAfterMs).unref();
    const from = turn++;
    await heard();
    lead(socket, nodes.map((_, i) => nodes[(from + i) % nodes.length]), heard);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => open.forEach((socket) => socket.destroy());
  stage.onEnd(() => {
    server.close();
    cut();
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut,
    silence() {
      let end;
      silence = { over: new Promise((resolve) => (end = resolve)) };
      return () => {
        silence = undefined;
        end();
      };
    },
  };
}

/** Joins `socket` to the first of the nodes that takes a connection. */
function lead(socket, [node, ...others], heard) {
  if (!node || socket.destroyed) return socket.destroy();
  const { hostname, port } = new URL(node.url);
  const upstream = connect(Number(port), hostname);
  // A node that is away refuses at once; one that dies later cuts both.
  const refused = () => lead(socket, others, heard);
  upstream.once("error", refused);
  upstream.once("connect", () => {
    upstream.off("error", refused).on("error", () => {});
    pass(socket, upstream, heard);
    pass(upstream, socket, heard);
  });
}

/** Hands on what comes, and the end. */
function pass(from, to, heard) {
  from.on("data", async (piece) => {
    from.pause();
    await heard();
    if (!to.write(piece)) await Promise.race([once(to, "drain"), once(to, "close")]).catch(() => {});
    from.resume();
  });
  from.on("close", async () => {
    await heard();
    to.destroy();
  });
}
