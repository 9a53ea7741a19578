#!/usr/bin/env python3
"""How much of the allocated KV pages holds keys and values that are needed, with every slot taken.

Streams of different lengths run on the scripted model. At moments when none has ended, the tokens that
each sequence must keep (all of them for the full layers, the last WINDOW for the others) are compared
with the tokens that the pages in use have room for.
"""

import random
import time

from common import Metrics, Program

SEQS = 32
WINDOW = 128
ANSWER = 900
ARGUMENTS = ["--max-num-seqs", SEQS, "--script-delay-us", 2000, "--max-num-batched-tokens", 512,
             "--max-model-len", 4096, "--no-enable-prefix-caching", "--log-level", "warning"]


def main():
    program = Program(__doc__, seed=(1, "of the lengths"))
    draw = random.Random(program.options.seed)
    lengths = [draw.randint(100, 2000) for _ in range(SEQS)]
    with program.scripted("word " * (ANSWER + 100), arguments=ARGUMENTS) as server:
        metrics = Metrics(server.ready())
        page = int(metrics.label("vllm:cache_config_info", "block_size"))
        pages = int(metrics.label("vllm:cache_config_info", "num_gpu_blocks"))
        streams = [server.stream("/v1/completions",
                                 {"prompt": [300 + draw.randint(0, 3000) for _ in range(length)],
                                  "max_tokens": ANSWER, "stream": True, "ignore_eos": True})
                   for length in lengths]
        shares = []
        while len(shares) < 200:
            now = metrics.read()
            made = now["vllm:generation_tokens_total"]
            if made >= SEQS * (ANSWER - 20):
                break
            if now["vllm:num_requests_running"] == SEQS and made >= 2 * SEQS:
                # Each has made the same number, within the one or two steps in flight.
                live = sum(length + made / SEQS + min(length + made / SEQS, WINDOW)
                           for length in lengths)
                shares.append(live / (now["vllm:kv_cache_usage_perc"] * pages * page))
            time.sleep(0.01)
        for stream in streams:
            stream.answer.close()
            stream.close()
        program.figure("samples", len(shares), "reads")
        program.figure("live_share_mean", 100 * sum(shares) / len(shares), "%", 92, most=False)
        program.figure("live_share_least", 100 * min(shares), "%")
    program.end()


if __name__ == "__main__":
    main()
