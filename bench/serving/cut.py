#!/usr/bin/env python3
"""Cuts streams at random points and looks for what they leave behind.

In rounds, a crowd of clients asks for streams; each goes away at a point of its own: with half of its
request sent, while it waits, during its prompt, or after some events. It goes by RST, by FIN, by
closing only its sending side, or by giving up on reading and closing later. After each round the time
is taken until every page and slot is free again, as /metrics tells it.
"""

import random
import selectors
import socket
import struct
import time

from common import Metrics, Program, answer_of, descriptors, percentile

CROWD = 50
CLOSE_S = 10  # a client that closed its sending side is let go within this
SEQS = 16
KINDS = ("rst", "fin", "half close", "time-out")
POINTS = ("request", "start", "events")
ARGUMENTS = ["--max-num-seqs", SEQS, "--max-num-batched-tokens", 64, "--script-delay-us", 500,
             "--max-num-queued-reqs", 1000, "--max-model-len", 2048, "--log-level", "warning"]


class Client:
    """One stream and the way it ends."""

    def __init__(self, port, draw, number):
        self.kind = draw.choice(KINDS)
        self.point = draw.choices(POINTS, weights=(1, 3, 6))[0]
        self.events_wanted = draw.randint(1, 60)
        self.deadline = time.monotonic() + draw.uniform(0.0, 0.05)
        self.events = 0
        self.cut_at = None
        self.ended = False  # the server was done first
        self.stuck = False  # the server did not react
        # Prompts differ from the first token on, so that none finds its pages in the cache.
        prompt = f"{number} " + "many words " * draw.randint(1, 150)
        body = ('{"prompt":"%s","max_tokens":500,"stream":true,"ignore_eos":true}' % prompt).encode()
        head = (f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        self.socket = socket.create_connection(("127.0.0.1", port))
        request = head + body
        if self.point == "request":
            request = request[:draw.randint(1, len(request) - 1)]
        self.socket.sendall(request)
        self.socket.setblocking(False)

    def read(self):
        """Takes what has come; True when the connection is over."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.events += data.count(b"data: ")
        if b"data: [DONE]" in data:
            self.ended = True
        return not data

    def due(self, now):
        if self.point == "events":
            return self.events >= self.events_wanted or now > self.deadline + 2
        return now >= self.deadline

    def cut(self):
        self.cut_at = time.monotonic()
        if self.kind == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
        elif self.kind == "fin":
            while not self.read() and self._readable():
                pass
            self.socket.close()
        elif self.kind == "half close":
            self.socket.shutdown(socket.SHUT_WR)

    def _readable(self):
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


def round_of(port, draw, number, crowd):
    """-> the clients, all gone."""
    clients = [Client(port, draw, number + i) for i in range(crowd)]
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    open_clients = set(clients)
    while open_clients:
        for key, _ in selector.select(0.001):
            client = key.data
            gave_up = client.kind == "time-out" and client.cut_at
            if gave_up or client not in open_clients:
                continue
            if client.read() or client.ended:  # answered in full, refused, or closed by the server
                selector.unregister(client.socket)
                client.socket.close()
                open_clients.discard(client)
        now = time.monotonic()
        for client in list(open_clients):
            if client.cut_at is None:
                if not client.due(now):
                    continue
                if client.kind in ("rst", "fin", "time-out"):
                    selector.unregister(client.socket)
                client.cut()
                if client.kind in ("rst", "fin"):
                    open_clients.discard(client)
            elif client.kind == "time-out" and now > client.cut_at + 0.02:
                client.socket.close()  # what has come and was not read makes it an RST
                open_clients.discard(client)
            elif now > client.cut_at + CLOSE_S:
                client.stuck = True
                selector.unregister(client.socket)
                client.socket.close()
                open_clients.discard(client)
    selector.close()
    return clients


def wait_descriptors(pid, start, timeout=10):
    deadline = time.monotonic() + timeout
    while descriptors(pid) > start and time.monotonic() < deadline:
        time.sleep(0.02)
    return descriptors(pid) - start


def slots_in_use(server, metrics):
    """How many of as many sequences as there are slots run at once."""
    streams = [server.stream("/v1/completions", {"prompt": f"{i} x", "max_tokens": 1500,
                                                  "stream": True, "ignore_eos": True})
               for i in range(SEQS)]
    most = 0
    for _ in range(200):
        most = max(most, metrics.read()["vllm:num_requests_running"])
        if most == SEQS:
            break
        time.sleep(0.005)
    for stream in streams:
        stream.answer.close()
        stream.close()
    return most


def main():
    program = Program(__doc__, streams=(10000, "streams to cut"), seed=(1, "of the random points"))
    wanted = 400 if program.options.small else program.options.streams
    draw = random.Random(program.options.seed)
    with program.scripted(answer_of(400), arguments=ARGUMENTS) as server:
        metrics = Metrics(server.ready())
        pid = server.process.pid
        round_of(server.port, draw, 0, CROWD)  # whatever is made once is made now
        metrics.wait_idle()
        wait_descriptors(pid, 0, timeout=3)
        fds = descriptors(pid)
        cut = {kind: 0 for kind in KINDS}
        back, busy, stuck, number = [], 0, [], CROWD
        while sum(cut.values()) < wanted:
            clients = round_of(server.port, draw, number, CROWD)
            number += CROWD
            last = max((c.cut_at for c in clients if c.cut_at), default=time.monotonic())
            idle = metrics.wait_idle()
            busy += idle is None
            stuck += [c for c in clients if c.stuck]
            back.append(time.monotonic() - last)
            for client in clients:
                if client.cut_at and not client.ended:
                    cut[client.kind] += 1
        usage = metrics.read()
        program.figure("streams", sum(cut.values()), "cut", is_count=True)
        for kind, count in cut.items():
            program.figure("by_" + kind.replace(" ", "_").replace("-", "_"), count, "cut",
                           is_count=True)
        for client in stuck[:5]:
            print(f"  not let go: {client.kind} at {client.point} after {client.events} events")
        program.figure("clients_not_let_go", len(stuck), "clients", 0, is_count=True)
        program.figure("rounds_never_idle", busy, "rounds", 0, is_count=True)
        program.figure("pages_back_p50", percentile(back, 50) * 1e3, "ms")
        program.figure("pages_back_p99", percentile(back, 99) * 1e3, "ms", 100)
        program.figure("leaked_pages", usage["vllm:kv_cache_usage_perc"] *
                       float(metrics.label("vllm:cache_config_info", "num_gpu_blocks")), "pages", 0,
                       is_count=True)
        program.figure("leaked_slots", SEQS - slots_in_use(server, metrics), "slots", 0,
                       is_count=True)
        metrics.wait_idle()
        program.figure("leaked_descriptors", max(0, wait_descriptors(pid, fds)), "fds", 0,
                       is_count=True)
    program.end()


if __name__ == "__main__":
    main()
