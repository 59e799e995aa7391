"""Ten thousand clients of one channel come back at once, a hundred events late: what is it to those who are live?

Three runs: nobody comes; so many come without a position, which is the cost of the handshakes alone; so many come with one.
The live streams are of another channel, on the same node. The newcomers' load generator works only where nobody else wants
to, so that the live streams' one measures the node and not itself.

On a virtual machine the first touch of each page of memory, in the kernel too, costs many times the work that it is for, and
what is free goes back to the host after two seconds. So the node has seen such a crowd once before, and before each run, the
calm ones too, as much memory is touched as a crowd takes.
"""

import collections
import json
import mmap
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

from harness import CLIENT_CORE, FANLIGHT, server

MISSED = 100
LIVE, RATE = 500, 100
WARM_UP = 0.5
# What a load generator takes from its start to its first connection; others would come from other machines.
START_UP = 0.01
# The kernel's buffers of a crowd hold half of it.
TOUCHED_BYTES = 512 << 20
KINDS = {"calm": "nobody comes", "new": "as many without a position", "resume": "with a position 100 events old"}


def measure(redis_port, newcomers, repetitions):
    with server("fanlight", redis_port) as (_, url, publish):
        run = lambda kind, **options: run_once(redis_port, url, publish, kind, newcomers, **options)
        # Counted apart from the others: asking the node so often is work of its own.
        reads = run("resume", counts_reads=True)["readsPer100Millis"]
        runs = [{kind: run(kind) for kind in KINDS} for _ in range(repetitions)]
        live_p99 = {kind: percentile([one[kind].pop("steps") for one in runs], 0.99) for kind in KINDS}
        return {"newcomers": newcomers, "readsPer100Millis": reads, "p99": live_p99, "runs": runs}


def percentile(runs, share):
    """Of the deliveries of all runs together, in milliseconds."""
    counts = collections.Counter()
    for steps in runs:
        counts.update(dict(steps))
    left = share * counts.total()
    for micros, count in sorted(counts.items()):
        left -= count
        if left <= 0:
            return micros / 1000


def run_once(redis_port, url, publish, kind, newcomers, counts_reads=False):
    with redis_client(redis_port, "fanlight:bench") as events:
        position = publish_missed(redis_port)
        touch_memory()
        live = bench(["--url", url, "--connections", LIVE, "--rate", RATE, "--warmup", f"{WARM_UP}s", "--duration", "1s", *publish])
        events.recv(1024)  # the first event: warming up begins
        time.sleep(WARM_UP - START_UP)
        stream = url.replace("channels=bench", "channels=own:returning")
        stream += f"&lastEventId={position}" if kind == "resume" else ""
        arguments = ["--url", stream, "--connections", newcomers, "--idle", "--warmup", "0s", "--duration", "500ms"]
        coming = bench(arguments, ["chrt", "--idle", "0"]) if kind != "calm" else None
        base = url.split("/api/")[0]
        reads = {"readsPer100Millis": read_rate(base, coming)} if counts_reads else {}
        measured = finish(live)
        result = {"p99": measured["latencyMillis"]["p99"], "steps": measured["latencySteps"]}
        if coming:
            came = finish(coming)
            if came["open"] != newcomers:
                sys.exit(f"{came['open']} of {newcomers} came: {came['refused']}")
            result |= {"seconds": came["connectSeconds"], "bytes": came["bytes"]} | reads
        await_empty(base)
        return result


def bench(arguments, wrapper=()):
    command = [*wrapper, "taskset", "-c", CLIENT_CORE, FANLIGHT, "bench", "--json", *arguments]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client):
    out, err = client.communicate(timeout=120)
    if not out:
        sys.exit(err)
    return json.loads(out)


def redis_client(port, channel):
    """A subscriber, once it is subscribed."""
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.sendall(f"SUBSCRIBE {channel}\r\n".encode())
    connection.recv(1024)
    return connection


def cli(port, *arguments):
    command = ["redis-cli", "-p", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def publish_missed(port):
    """The position before the events that are missed."""
    publish = lambda n: cli(port, "FCALL", "fanlight_publish", "1", "own:returning", "missed", json.dumps({"n": n, "pad": "x" * 170}))
    return [publish(n) for n in range(MISSED + 1)][0]


def touch_memory():
    """Has the host give what the kernel then hands out first."""
    mmap.mmap(-1, TOUCHED_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def metric(base, name):
    """The answer may have to wait, and says how it is at its end."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=20) as page:
        return float(re.search(rf"^{name} (\S+)", page.read().decode(), re.M).group(1))


def await_empty(base):
    """Until all of them have gone, for the node too."""
    deadline = time.monotonic() + 20
    while metric(base, "fanlight_connections"):
        if time.monotonic() > deadline:
            sys.exit("streams are still open")
        time.sleep(0.1)


def sample(base):
    """When the node had asked Redis how often for histories of clients that came back."""
    count = metric(base, "fanlight_history_reads_total")
    return time.monotonic(), count


def read_rate(base, coming):
    """History reads per 100 ms: the pauses between the first and the last of them, while clients come."""
    samples = [sample(base)]
    while coming.poll() is None and time.monotonic() < samples[0][0] + 60:
        time.sleep(0.05)
        samples.append(sample(base))
    first, last = samples[0][1], samples[-1][1]
    if last - first < 2:
        return 0  # no pace to speak of
    began = max(at for at, count in samples if count == first)
    ended = min(at for at, count in samples if count == last)
    return (last - first - 1) / (ended - began) / 10


def slowdown(measured):
    """The live p99 of all runs while they resume, against that of all calm ones."""
    return measured["p99"]["resume"] / measured["p99"]["calm"]


def render(measured):
    lines = [
        f"| {measured['newcomers']:,} come | live p99 ms, all runs together | of each run | all are there after | read by them |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, name in KINDS.items():
        runs = [one[kind] for one in measured["runs"]]
        median = lambda figure: statistics.median(one.get(figure, 0) for one in runs)
        came = ["–", "–"] if kind == "calm" else [f"{median('seconds'):.2f} s", f"{median('bytes') / 1e6:,.0f} MB"]
        each = ", ".join(f"{one['p99']:.1f}" for one in runs)
        lines.append(f"| {name} | {measured['p99'][kind]:.1f} | {each} | {came[0]} | {came[1]} |")
    return "\n".join(lines)
