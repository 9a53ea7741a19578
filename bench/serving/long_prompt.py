#!/usr/bin/env python3
"""A prompt of 32k tokens beside ten short streams, and short prompts behind it; embedded model.

Ten streams run for a while alone, then the long prompt arrives, then short ones at random moments. Told
is by how much the streams' time between tokens rises (p99) and how long the short prompts wait, both
against the time of one prompt chunk. A short prompt is computed in one step, which holds a chunk of the
long one too: its wait is the time to its first token less one chunk. The last and longest chunk's time is
measured by itself: the long prompt again, its last chunk changed, so that only that one is computed.
What a chunk took at the moment of a short prompt is told by the streams: a step holds one chunk.
"""

import random
import threading
import time

from common import TINY, Program, median, percentile

LONG = 32 * 1024
CHUNK = 256
STREAMS = 10
ALONE_S = 5


def token_ids(count, seed):
    """Ids that repeat nowhere soon; below 4000 and above the bytes."""
    ids, state = [], seed
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        ids.append(256 + state % 3700)
    return ids


class Stream(threading.Thread):
    """Takes the time of each event until it is stopped."""

    def __init__(self, server, body):
        super().__init__(daemon=True)
        self.stream = server.stream("/v1/completions", body)
        self.times = []
        self.stopped = False

    def run(self):
        for data in self.stream:
            if data == "[DONE]" or self.stopped:
                break
            self.times.append(time.monotonic())

    def gaps(self, begin, end):
        return [b - a for a, b in zip(self.times, self.times[1:]) if begin <= a and b <= end]


def body_of(ids, tokens):
    return {"prompt": ids, "max_tokens": tokens, "stream": True, "ignore_eos": True,
            "temperature": 0}


def first_token(server, ids):
    """-> (sent, first event)"""
    sent = time.monotonic()
    stream = server.stream("/v1/completions", body_of(ids, 1))
    for data in stream:
        if data != "[DONE]":
            first = time.monotonic()
            break
    stream.chunks()
    return sent, first


def main():
    program = Program(__doc__, tokens=(LONG, "length of the long prompt"))
    length = program.options.tokens
    with program.serve(TINY, "--max-num-seqs", STREAMS + 2, "--max-model-len", length + 2048,
                       "--max-num-batched-tokens", CHUNK, "--threads", 1, "--log-level",
                       "warning") as server:
        server.ready()
        streams = [Stream(server, body_of(token_ids(20, i + 1), 8000)) for i in range(STREAMS)]
        for stream in streams:
            stream.start()
        time.sleep(1)
        alone = time.monotonic()
        time.sleep(ALONE_S)
        sent = time.monotonic()
        base = [gap for s in streams for gap in s.gaps(alone, sent)]
        ids = token_ids(length, 99)
        times = {}
        long_one = threading.Thread(target=lambda: times.update(long=first_token(server, ids)))
        long_one.start()
        short, draw = [], random.Random(1)
        while long_one.is_alive():
            long_one.join(draw.uniform(0.5, 1.5))
            if long_one.is_alive():
                short.append(first_token(server, token_ids(20, draw.randint(100, 10**6))))
        long_one.join()
        beside = [gap for s in streams for gap in s.gaps(*times["long"])]
        waits = [in_chunks(streams, sent, first) for sent, first in short if first < times["long"][1]]
        for stream in streams:
            stream.stopped = True
        for stream in streams:
            stream.join()
            stream.stream.answer.close()
            stream.stream.close()
        chunk = last_chunk(server, ids)
        report(program, base, beside, waits, times["long"], chunk)
    program.end()


def last_chunk(server, ids):
    """Seconds of the longest chunk, the last: all before it is in the prefix cache."""
    taken = []
    for seed in (5, 6, 7):
        sent, first = first_token(server, ids[:-CHUNK] + token_ids(CHUNK, seed))
        taken.append(first - sent)
    return min(taken)


def in_chunks(streams, sent, first):
    """A short prompt's wait, in units of what a step took just then."""
    then = [b - a for s in streams for a, b in zip(s.times, s.times[1:]) if b > sent and a < first]
    return (first - sent) / median(then)


def report(program, base, beside, waits, long_times, chunk):
    sent, first = long_times
    chunks = program.options.tokens / CHUNK
    rise = percentile(beside, 99) - percentile(base, 99)
    program.figure("long_prompt", first - sent, "s")
    program.figure("chunk_mean", (first - sent) / chunks * 1e3, "ms")
    program.figure("chunk_last", chunk * 1e3, "ms")
    program.figure("gap_p99_alone", percentile(base, 99) * 1e3, "ms")
    program.figure("gap_p99_beside", percentile(beside, 99) * 1e3, "ms")
    program.figure("gap_p99_rise", rise / chunk, "chunks", 1)
    program.figure("short_prompts", len(waits), "prompts")
    program.figure("short_prompt_first_token_p50", median(waits), "chunks")
    program.figure("short_prompt_first_token_most", max(waits), "chunks")
    program.figure("short_prompt_wait_most", max(waits) - 1, "chunks", 2)


if __name__ == "__main__":
    main()
