"""Reads an event stream from a file and prints each event that `httpx-sse` makes of it as one line of JSON."""

import json
import sys

import httpx
import httpx_sse

SLICE = 1009  # prime, so that the cuts wander through the blocks


class File(httpx.SyncByteStream):
    def __iter__(self):
        with open(sys.argv[1], "rb") as stream:
            while piece := stream.read(SLICE):
                yield piece


response = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=File())
for event in httpx_sse.EventSource(response).iter_sse():
    print(json.dumps({"event": event.event, "data": event.data, "id": event.id or None}))
