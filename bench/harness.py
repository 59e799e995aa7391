"""The processes of a benchmark: pinned to a core, waited for, and gone afterwards."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FANLIGHT = ROOT / "target/release/fanlight"
RIVALS = ROOT / "target/bench-servers/release"
SERVER_CORE, CLIENT_CORE = "0", "1"
# Of an event published in Redis; `fanlight bench` puts its data in.
PAYLOAD = '{"event":"bench","data":{data}}'

# Without this a SIGTERM would end us with the processes still there.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def raise_file_limit(connections):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + 200:
        sys.exit(f"{connections} connections need {connections + 200} open files; the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    """A port below the range for outgoing connections, so that no client takes it."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    sys.exit("no free port")


@contextlib.contextmanager
def process(core, command, port, **options):
    """A process pinned to `core`, once it listens on `port`; killed at the end."""
    command = ["taskset", "-c", core, *map(str, command)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
    try:
        await_port(child, port)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def await_port(child, port):
    deadline = time.monotonic() + 20
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    sys.exit(f"does not listen: {child.args}")


@contextlib.contextmanager
def redis():
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with process(CLIENT_CORE, command, port):
            yield port


@contextlib.contextmanager
def server(name, redis_port, wrapper=(), variables=None, payload=PAYLOAD):
    """Runs a server (Fanlight under `wrapper`, like valgrind, with more `variables` and for events of `payload`); yields its
    process id, its stream's URL, and how `fanlight bench` publishes to it."""
    port, redis_url = free_port(), f"redis://127.0.0.1:{redis_port}"
    listen = f"127.0.0.1:{port}"
    base = f"http://{listen}"
    by_redis = ["--publish-redis", redis_url, "--publish-channel", "bench"]
    if name == "floor":
        with process(SERVER_CORE, [RIVALS / "floor", listen, f"127.0.0.1:{redis_port}", "bench"], port) as child:
            yield child.pid, f"{base}/stream", by_redis
    elif name == "axum":
        with process(SERVER_CORE, [RIVALS / "axum-sse", listen, redis_url, "bench"], port) as child:
            yield child.pid, f"{base}/stream", by_redis
    elif name == "fanlight":
        environment = settings(listen, redis_url) | (variables or {})
        with process(SERVER_CORE, [*wrapper, FANLIGHT, "serve"], port, env=environment) as child:
            await_ready(base)
            publish = ["--publish-redis", redis_url, "--publish-channel", "fanlight:bench", "--publish-body", payload]
            yield child.pid, f"{base}/api/sse/stream?channels=bench", publish
    elif name == "durable":
        # Published through another node, so that the measured one only delivers.
        with process(SERVER_CORE, [FANLIGHT, "serve"], port, env=settings(listen, redis_url)) as child:
            other = f"127.0.0.1:{free_port()}"
            other_port = int(other.split(":")[1])
            with process(CLIENT_CORE, [FANLIGHT, "serve"], other_port, env=settings(other, redis_url)):
                await_ready(base)
                await_ready(f"http://{other}")
                body = '{"channel":"bench","event":"bench","data":{data}}'
                publish = ["--publish-http", f"http://{other}/api/events", "--publish-body", body]
                yield child.pid, f"{base}/api/sse/stream?channels=bench", publish
    elif name == "nchan":
        with tempfile.TemporaryDirectory() as folder, nginx(folder, listen, port) as worker:
            header = ["--publish-header", "X-EventSource-Event: bench"]
            yield worker, f"{base}/stream", ["--publish-http", f"{base}/publish", *header]


def settings(listen, redis_url):
    kept = {name: value for name, value in os.environ.items() if not re.match("FANLIGHT_|SSE_|OTEL_|PORT$|REDIS_URL$", name)}
    ours = {"listen": listen, "redis-url": redis_url, "channels": "bench,own:*", "log": "warn"}
    # One machine is a crowd here: limits per address would only test themselves.
    ours |= {"max-per-ip": "0", "max-per-session": "0", "connect-rate-per-ip": "0"}
    known = subprocess.run([FANLIGHT, "serve", "--help"], capture_output=True, text=True).stdout
    ours = {name: value for name, value in ours.items() if f"--{name} " in known}
    # What the program sets by starting itself again (src/app/memory.rs), which valgrind would not follow.
    kept |= {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ALLOW_THP": "0"}
    return kept | {"FANLIGHT_" + name.replace("-", "_").upper(): value for name, value in ours.items()}


def await_ready(base):
    for _ in range(500):
        ready = subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{base}/readyz"])
        if ready.returncode == 0:
            return
        time.sleep(0.02)
    sys.exit("fanlight is not ready")


@contextlib.contextmanager
def nginx(folder, listen, port):
    """Yields the process id of nginx's one worker."""
    files = str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    text = (ROOT / "bench/nchan.conf").read_text()
    for word, value in [("LISTEN", listen), ("DIR", folder), ("NOFILE", files)]:
        text = text.replace(word, value)
    path = pathlib.Path(folder) / "nginx.conf"
    path.write_text(text)
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-e", "stderr", "-c", path]
    with process(SERVER_CORE, command, port) as master:
        children = pathlib.Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield int(children[0])
