"""Reads an event stream from a file and prints each event that `sseclient-py` makes of it as one line of JSON."""

import json
import sys

import sseclient

SLICE = 1009  # prime, so that the cuts wander through the blocks


def pieces():
    with open(sys.argv[1], "rb") as stream:
        while piece := stream.read(SLICE):
            yield piece


for event in sseclient.SSEClient(pieces()).events():
    print(json.dumps({"event": event.event, "data": event.data, "id": event.id}))
