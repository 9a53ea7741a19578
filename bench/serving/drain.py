#!/usr/bin/env python3
"""Drains a loaded server again and again: no stream may end without its finish or an error event.

In each round a fresh server answers some short and some long streams, some requests still wait; then
comes SIGTERM at a random moment. Streams that fit into --drain-timeout must finish, the others must be
told. What is asked for after the signal must be refused with an answer, or not be accepted at all.
"""

import json
import random
import signal
import threading
import time

from common import Program, answer_of

CLIENTS = 12
ARGUMENTS = ["--max-num-seqs", 8, "--script-delay-us", 2000, "--drain-timeout", 1, "--max-model-len",
             8192, "--log-level", "warning"]
LENGTHS = (5, 50, 200, 400, 900, 2000)  # words, at 2 ms each


class Stream(threading.Thread):
    """One streaming client. `end` says how it ended."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.end = "no answer"
        self.begun = threading.Event()

    def run(self):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        try:
            stream = self.server.stream("/v1/chat/completions", body)
            self.end = f"status {stream.status}"
            if stream.status != 200:
                stream.answer.read()
                return
            self.end = "cut without a word"
            finished = False
            for data in stream:
                self.begun.set()
                if data == "[DONE]":
                    self.end = "finished" if finished else "done without a finish"
                    return
                event = json.loads(data)
                if "error" in event:
                    self.end = "error event"
                    return
                finished = finished or any(c.get("finish_reason") for c in event["choices"])
        except (OSError, ValueError) as failure:
            if not self.end.startswith(("cut", "done")):
                self.end = f"no answer: {type(failure).__name__}"
        finally:
            self.begun.set()


def drain_round(program, draw):
    """-> (ends of the streams, ends of what came after the signal, exit code, seconds)"""
    lines = [answer_of(draw.choice(LENGTHS)) for _ in range(CLIENTS)]
    with program.scripted(*lines, arguments=ARGUMENTS) as server:
        server.ready()
        streams = [Stream(server) for _ in range(CLIENTS)]
        for stream in streams:
            stream.start()
        for stream in streams[:4]:
            stream.begun.wait(5)
        time.sleep(draw.uniform(0, 0.4))
        server.signal(signal.SIGTERM)
        begin = time.monotonic()
        time.sleep(0.05)
        late = [Stream(server) for _ in range(2)]
        for stream in late:
            stream.start()
        for stream in streams + late:
            stream.join(30)
        code = server.wait_exit(30)
        return [s.end for s in streams], [s.end for s in late], code, time.monotonic() - begin


def main():
    program = Program(__doc__, rounds=(100, "rounds"), seed=(1, "of lengths and moments"))
    draw = random.Random(program.options.seed)
    rounds = 5 if program.options.small else program.options.rounds
    ends, late_ends, codes, longest = {}, {}, 0, 0.0
    for _ in range(rounds):
        streams, late, code, seconds = drain_round(program, draw)
        for end in streams:
            ends[end] = ends.get(end, 0) + 1
        for end in late:
            late_ends[end] = late_ends.get(end, 0) + 1
        codes += code != 0
        longest = max(longest, seconds)
    print(f"  ends of {rounds * CLIENTS} streams: {ends}; of requests after the signal: {late_ends}")
    told = {"finished", "error event"}
    started = {end: n for end, n in ends.items() if not end.startswith(("status", "no answer"))}
    program.figure("streams", sum(started.values()), "streams", is_count=True)
    program.figure("finished", ends.get("finished", 0), "streams", is_count=True)
    program.figure("ended_without_a_word", sum(n for e, n in started.items() if e not in told),
                   "streams", 0, is_count=True)
    program.figure("requests_without_an_answer",
                   sum(n for e, n in ends.items() if e.startswith("no answer")), "requests", 0,
                   is_count=True)
    program.figure("bad_exit_codes", codes, "rounds", 0, is_count=True)
    program.figure("longest_drain", longest, "s", 3)
    program.end()


if __name__ == "__main__":
    main()
