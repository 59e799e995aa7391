"""Durable publishing in batches of 100 by one client over HTTP, against redis-benchmark with the very script call that the
node makes of such a batch: captured from MONITOR, and repeated on the same Redis right after.

In both, the client and Redis share a core; the node has the other.
"""

import codecs
import concurrent.futures
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

from harness import CLIENT_CORE, server

BATCH = 100


def measure(redis_port, batches, repetitions):
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    try:
        with server("fanlight", redis_port) as (_, url, _):
            address = re.match(r"http://([^:]+):(\d+)", url).groups()
            call = capture(redis_port, address)
            runs = [run(redis_port, address, call, batches) for _ in range(repetitions)]
    finally:
        os.sched_setaffinity(0, set(range(os.cpu_count())))
    return {"batch": BATCH, "batches": batches, "runs": runs}


def run(redis_port, address, call, batches):
    return {
        "http": BATCH * over_http(address, batches),
        "http4": BATCH * over_four(address, batches),
        "redis": BATCH * redis_benchmark(redis_port, call, batches, 1),
        "redis50": BATCH * redis_benchmark(redis_port, call, batches, 50),
    }


def request():
    event = {"channel": "bench", "event": "bench", "data": {"pad": "x" * 180}}
    body = json.dumps([event] * BATCH)
    head = f"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def over_http(address, batches):
    """Batches per second over one connection, one after the other."""
    with socket.create_connection(address, 20) as client:
        bytes_out = request()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        publish(client, bytes_out)
        began = time.monotonic()
        for _ in range(batches):
            publish(client, bytes_out)
        return batches / (time.monotonic() - began)


def over_four(address, batches):
    """The same over four connections at a time: how much of the above is waiting for each other."""
    with concurrent.futures.ThreadPoolExecutor(4) as four:
        return sum(four.map(lambda _: over_http(address, batches // 4), range(4)))


def publish(client, bytes_out):
    client.sendall(bytes_out)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536) or sys.exit("the node closed the connection")
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        sys.exit(answer.decode())
    length = int(re.search(rb"content-length: (\d+)", head, re.I).group(1))
    while len(body) < length:
        body += client.recv(65536) or sys.exit("the node closed the connection")


def capture(redis_port, address):
    """The command that the node sends for a batch."""
    with socket.create_connection(("127.0.0.1", redis_port), 20) as monitor, socket.create_connection(address, 20) as client:
        monitor.sendall(b"MONITOR\r\n")
        lines = monitor.makefile("rb")
        lines.readline()
        publish(client, request())
        for line in lines:
            words = re.findall(rb'"((?:[^"\\]|\\.)*)"', line)
            if words[:1] == [b"EVALSHA"] and len(words) > 3 * BATCH:
                return [codecs.escape_decode(word)[0] for word in words]
    sys.exit("no script call was seen")


def redis_benchmark(redis_port, call, batches, clients):
    """Calls per second of so many clients, each with one call at a time."""
    command = ["redis-benchmark", "-p", str(redis_port), "-c", str(clients), "-n", str(batches), "--csv", *call]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Its first column repeats the call as it is, quotes and all; behind it come calls per second and six latencies.
    figures = re.search(r'"([\d.]+)"(?:,"[\d.]+"){6}\s*$', done.stdout)
    if not figures:
        sys.exit(done.stdout + done.stderr)
    return float(figures.group(1))


def against(measured, base):
    return statistics.median(one["http"] / one[base] for one in measured["runs"])


def render(measured):
    names = {
        "http": "one client over HTTP, through a node",
        "http4": "the same, four connections at a time",
        "redis": "`redis-benchmark` with the node's script call, one client",
        "redis50": "the same, 50 clients",
    }
    lines = ["| batches of 100 | events per second | of each run |", "| --- | --- | --- |"]
    for key, name in names.items():
        values = [one[key] for one in measured["runs"]]
        lines.append(f"| {name} | {statistics.median(values):,.0f} | {', '.join(f'{value:,.0f}' for value in values)} |")
    return "\n".join(lines)
