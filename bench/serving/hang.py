#!/usr/bin/env python3
"""A step that hangs: how long until the server says so, and until it serves again.

The fault point model.wait hangs once, in the middle of streams. Watched are the streams (each must be
told), /health/ready, and a small request that is tried until it succeeds.
"""

import json
import threading
import time

from common import Program, answer_of, median

ARGUMENTS = ["--max-num-seqs", 8, "--script-delay-us", 2000, "--fault-inject", "model.wait=hang:200",
             "--log-level", "warning"]
STREAMS = 4


class Watched(threading.Thread):
    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.last_token = self.error_at = None

    def run(self):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        for data in self.server.stream("/v1/chat/completions", body):
            if data != "[DONE]" and "error" in json.loads(data):
                self.error_at = time.monotonic()
            else:
                self.last_token = time.monotonic()


def first_time(condition, timeout=90):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return time.monotonic()
        time.sleep(0.005)
    raise RuntimeError("it never came")


def hang_once(program):
    """-> (seconds to red, of streams untold, seconds from red to ready, to the first answer)"""
    with program.scripted(answer_of(3000), arguments=ARGUMENTS) as server:
        server.ready()
        streams = [Watched(server) for _ in range(STREAMS)]
        for stream in streams:
            stream.start()
        ready = lambda: server.get("/health/ready")[0] == 200
        red = lambda: not ready() or all(s.error_at for s in streams)
        red_at = first_time(red)
        hung_at = max(s.last_token for s in streams)
        ready_at = first_time(ready)
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        served_at = first_time(lambda: server.post("/v1/chat/completions", body)[0] == 200)
        for stream in streams:
            stream.join(5)
        untold = sum(s.error_at is None for s in streams)
        return red_at - hung_at, untold, ready_at - red_at, served_at - hung_at


def main():
    program = Program(__doc__, rounds=(3, "rounds"))
    rows = [hang_once(program) for _ in range(program.options.rounds)]
    program.figure("until_noticed", median([row[0] for row in rows]), "s")
    program.figure("streams_untold", sum(row[1] for row in rows), "streams", 0)
    program.figure("ready_after_noticed", max(row[2] for row in rows), "s", 5)
    program.figure("ready_after_the_hang", max(row[0] + row[2] for row in rows), "s", 5)
    program.figure("served_after_the_hang", max(row[3] for row in rows), "s")
    program.end()


if __name__ == "__main__":
    main()
