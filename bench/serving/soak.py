#!/usr/bin/env python3
"""Mixed traffic for a long time: does memory, or anything else, grow?

Two servers, the scripted model and the embedded one, get chats and completions, streamed and whole,
some with tools, some broken on purpose, some cut. Resident memory is read every few seconds; its slope
is fitted by least squares to what comes after the warm-up. At the end everything must be idle again:
no page, slot, descriptor or thread more than before.
"""

import json
import random
import threading
import time

from common import TINY, Metrics, Program, answer_of, descriptors, resident_bytes, slope, threads

SCRIPT = [
    answer_of(20),
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Grüße 你好 🌍"
    "<|return|>",
    '<|channel|>commentary to=functions.look<|constrain|>json<|message|>{"at":"sky"}<|call|>',
    answer_of(300),
]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"at": {"type": "string"}}}}}
ARGUMENTS = ["--max-num-seqs", 8, "--max-model-len", 2048, "--log-level", "error"]


def chat(draw, **more):
    words = "word " * draw.randint(1, 200)
    return {"messages": [{"role": "user", "content": f"{draw.randint(0, 10**9)} {words}"}],
            "max_tokens": draw.randint(1, 64), **more}


def whole_chat(server, draw):
    server.post("/v1/chat/completions", chat(draw, tools=[TOOL]))


def streamed_chat(server, draw):
    for _ in server.stream("/v1/chat/completions", chat(draw, stream=True)):
        pass


def logprobs(server, draw):
    server.post("/v1/completions", {"prompt": [300 + draw.randint(0, 3000) for _ in range(50)],
                                    "max_tokens": 8, "logprobs": 3, "echo": True})


def several(server, draw):
    server.post("/v1/chat/completions", chat(draw, n=3, seed=draw.randint(0, 99)))


def broken(server, draw):
    server.post("/v1/chat/completions", draw.choice(("{", "[]", '{"messages": 5}')))


def looked_up(server, draw):
    server.get(draw.choice(("/v1/models", "/metrics", "/health", "/v1/nothing", "/")))


def cut(server, draw):
    stream = server.stream("/v1/completions", {"prompt": f"{draw.random()} again " * 20,
                                               "max_tokens": 300, "stream": True,
                                               "ignore_eos": True})
    wanted = draw.randint(0, 20)
    for seen, _ in enumerate(stream):
        if seen >= wanted:
            break
    stream.answer.close()
    stream.close()


KINDS = (whole_chat, streamed_chat, logprobs, several, broken, looked_up, cut)


class Traffic(threading.Thread):
    """Requests at a steady rate, one after the other."""

    def __init__(self, server, rate, seed):
        super().__init__(daemon=True)
        self.server, self.rate = server, rate
        self.draw = random.Random(seed)
        self.stopped = threading.Event()
        self.sent = {kind.__name__: 0 for kind in KINDS}
        self.failures = []

    def run(self):
        due = time.monotonic()
        while not self.stopped.is_set():
            kind = self.draw.choice(KINDS)
            try:
                kind(self.server, self.draw)
            except (OSError, ValueError, json.JSONDecodeError) as failure:
                self.failures.append(f"{kind.__name__}: {failure!r}")
            self.sent[kind.__name__] += 1
            due += self.draw.expovariate(self.rate)
            self.stopped.wait(max(0.0, due - time.monotonic()))


class Watch:
    """Memory, descriptors and threads of one server."""

    def __init__(self, server):
        self.server = server
        self.pid = server.process.pid
        self.metrics = Metrics(server)
        self.points = []

    def settle(self):
        self.metrics.wait_idle()
        time.sleep(3)
        self.start = descriptors(self.pid), threads(self.pid)

    def read(self, now):
        self.points.append((now, resident_bytes(self.pid)))

    def leaks(self):
        idle = self.metrics.wait_idle(30) is not None
        deadline = time.monotonic() + 10
        while descriptors(self.pid) > self.start[0] and time.monotonic() < deadline:
            time.sleep(0.1)
        return (0 if idle else 1, max(0, descriptors(self.pid) - self.start[0]),
                max(0, threads(self.pid) - self.start[1]))


def warm(server):
    draw = random.Random(0)
    for _ in range(3):
        for kind in KINDS:
            kind(server, draw)


def main():
    program = Program(__doc__, seconds=(120, "length"), rate=(5.0, "requests/s, scripted model"),
                      embedded_rate=(1.0, "requests/s, embedded model"), every=(5.0, "s between reads"))
    options = program.options
    with program.scripted(*SCRIPT, arguments=ARGUMENTS) as scripted, \
            program.serve(TINY, "--threads", 1, *ARGUMENTS) as embedded:
        servers = {"scripted": scripted.ready(), "embedded": embedded.ready()}
        for server in servers.values():
            warm(server)
        watches = {name: Watch(server) for name, server in servers.items()}
        for watch in watches.values():
            watch.settle()
        rates = {"scripted": options.rate, "embedded": options.embedded_rate}
        traffic = [Traffic(servers[name], rates[name] / 2, seed)
                   for name in servers for seed in (1, 2)]
        for one in traffic:
            one.start()
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < options.seconds:
            for watch in watches.values():
                watch.read(now)
            time.sleep(options.every)
        for one in traffic:
            one.stopped.set()
        for one in traffic:
            one.join()
        report(program, watches, traffic)
    program.end()


def report(program, watches, traffic):
    failures = [text for one in traffic for text in one.failures]
    for text in failures[:5]:
        print("  " + text)
    program.figure("requests", sum(sum(one.sent.values()) for one in traffic), "req", is_count=True)
    program.figure("failures", len(failures), "req", 0, is_count=True)
    for name, watch in watches.items():
        busy, fds, tasks = watch.leaks()
        program.figure(f"{name}_not_idle", busy, "", 0, is_count=True)
        program.figure(f"{name}_leaked_descriptors", fds, "fds", 0, is_count=True)
        program.figure(f"{name}_leaked_threads", tasks, "threads", 0, is_count=True)
        warm_up = 0.25 * program.options.seconds
        late = [(x / 3600, y / 2**20) for x, y in watch.points if x >= warm_up]
        program.figure(f"{name}_memory", watch.points[-1][1] / 2**20, "MiB")
        # Over two minutes single pages decide; the bound is for an hour.
        bound = 1 if program.options.seconds >= 3600 else None
        program.figure(f"{name}_memory_slope", slope(late), "MiB/h", bound)


if __name__ == "__main__":
    main()
