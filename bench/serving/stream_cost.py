#!/usr/bin/env python3
"""Processor time of the server for each streamed token, at 256 streams of a paced scripted model.

All threads of the server count, so that the figure is HTTP, JSON, harmony, metrics and the engine
together. Chat and text completions alternate; medians are told.
"""

import time

from common import Metrics, Program, cpu_seconds, median

STREAMS = 256
TOKENS = 400


def arguments(delay_us):
    return ["--max-num-seqs", STREAMS, "--max-num-batched-tokens", 1024, "--script-delay-us", delay_us,
            "--max-model-len", 2048, "--log-level", "warning"]


def run_once(program, server, metrics, backend):
    """-> (microseconds a token, tokens a second)"""
    before, tokens = cpu_seconds(server.process.pid), metrics.read()["vllm:generation_tokens_total"]
    begin = time.monotonic()
    result = program.load(server, "--backend", backend, "--num-prompts", STREAMS,
                          "--random-input-len", 16, "--random-output-len", TOKENS)
    if result["failed"]:
        raise RuntimeError(f"{result['failed']} requests failed: {result['errors_by_kind']}")
    seconds = time.monotonic() - begin
    tokens = metrics.read()["vllm:generation_tokens_total"] - tokens
    return (cpu_seconds(server.process.pid) - before) / tokens * 1e6, tokens / seconds


def main():
    program = Program(__doc__, rounds=(5, "pairs of runs"), delay_us=(10000, "pace of a step"))
    # A script that never stops by itself: the request's own limit ends it.
    line = "<|channel|>final<|message|>" + " word" * (TOKENS + 100)
    cost = {"openai-chat": [], "openai": []}
    rate = []
    with program.scripted(line, arguments=arguments(program.options.delay_us)) as server:
        metrics = Metrics(server.ready())
        for backend in cost:
            run_once(program, server, metrics, backend)  # warm
        for _ in range(program.options.rounds):
            for backend, values in cost.items():
                micros, tokens = run_once(program, server, metrics, backend)
                values.append(micros)
                rate.append(tokens)
    program.figure("chat", median(cost["openai-chat"]), "us/token", 8)
    program.figure("completions", median(cost["openai"]), "us/token", 8)
    program.figure("tokens_a_second", median(rate), "tok/s")
    program.end()


if __name__ == "__main__":
    main()
