#!/usr/bin/env python3
"""Ten times the requests that the server can answer.

A paced scripted model fixes the capacity, which a short overload measures. Then open-loop runs of
`strata bench serve` follow each other: at capacity, at ten times that, and at half of it afterwards.
Rates are taken between the first seconds and the last arrival, when every place is taken.
"""

import time

from common import Program, answer_of, resident_bytes

SEQS = 32
TOKENS = 32
BURST_S = 10
WARM_S = 2
ARGUMENTS = ["--max-num-seqs", SEQS, "--script-delay-us", 5000, "--max-model-len", 2048,
             "--log-level", "warning"]
# Answers of one length would end in step with each other, and the queue would move in waves.
PROMPT = ["--random-input-len", 64, "--random-output-len", TOKENS, "--random-range-ratio", 0.5,
          "--percentile-metrics", "ttft,itl,e2el"]


class PeakMemory:
    """The kernel's own high-water mark of a process, from now on."""

    def __init__(self, pid):
        self.pid = pid
        with open(f"/proc/{pid}/clear_refs", "w") as reset:
            reset.write("5")

    def read(self):
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        return 0


def steady(result):
    """-> (requests, tokens) completed a second while arrivals went on, the first seconds left out."""
    begin, end = min(result["start_times"]) + WARM_S, max(result["start_times"])
    done = [tokens for start, latency, tokens in zip(
        result["start_times"], result["latencies"], result["output_lens"])
        if tokens and begin <= start + latency < end]
    return len(done) / (end - begin), sum(done) / (end - begin)


def first_token(server):
    """Seconds to the first event of a small request; None when it is refused."""
    begin = time.monotonic()
    stream = server.stream("/v1/completions", {"prompt": "hi", "max_tokens": 2, "stream": True})
    try:
        if stream.status != 200:
            return None
        next(iter(stream))
        return time.monotonic() - begin
    finally:
        stream.answer.close()
        stream.close()


def main():
    program = Program(__doc__, seconds=(60, "length of each run"),
                      queue=(SEQS // 2, "requests that may wait"))
    seconds = program.options.seconds
    arguments = [*ARGUMENTS, "--max-num-queued-reqs", program.options.queue]
    with program.scripted(answer_of(400), arguments=arguments) as server:
        server.ready()
        pid = server.process.pid
        idle = min(first_token(server) for _ in range(5))
        burst = program.load(server, *PROMPT, "--request-rate", 20 * SEQS, "--num-prompts",
                             20 * SEQS * BURST_S, "--save-detailed")
        capacity, full_rate = steady(burst)
        program.figure("capacity", capacity, "req/s")
        one = program.load(server, *PROMPT, "--request-rate", capacity, "--num-prompts",
                           int(capacity * seconds), "--save-detailed")
        before, peak = resident_bytes(pid), PeakMemory(pid)
        ten = program.load(server, *PROMPT, "--request-rate", 10 * capacity, "--num-prompts",
                           int(10 * capacity * seconds), "--save-detailed")
        over = time.monotonic()
        while (now := first_token(server)) is None or now > 2 * idle + 0.01:
            time.sleep(0.02)
        recovered = time.monotonic() - over
        grown = peak.read() - before
        after = program.load(server, *PROMPT, "--request-rate", capacity / 2, "--num-prompts",
                             int(capacity))
        program.figure("refused", ten["rejected"], "req")
        program.figure("failed_otherwise", one["failed"] - one["rejected"] + ten["failed"] -
                       ten["rejected"] + after["failed"], "req", 0)
        program.figure("refusal_server_p99", ten["p99_rejected_server_ms"], "ms", 10)
        program.figure("refusal_client_p99", ten["p99_rejected_latency_ms"], "ms")
        program.figure("ttft_p99_at_1x", one["p99_ttft_ms"], "ms")
        program.figure("ttft_p99_at_10x", ten["p99_ttft_ms"], "ms")
        program.figure("ttft_p99_ratio", ten["p99_ttft_ms"] / one["p99_ttft_ms"], "x", 1.25)
        program.figure("throughput_at_1x", steady(one)[1], "tok/s")
        program.figure("throughput_kept", 100 * steady(ten)[1] / max(steady(one)[1], full_rate), "%",
                       95, most=False)
        program.figure("memory_grown", grown / 2**20, "MiB", 50)
        program.figure("normal_again", recovered, "s", 5)
        program.figure("generator_late_p99", ten["p99_lag_ms"], "ms")
    program.end()


if __name__ == "__main__":
    main()
