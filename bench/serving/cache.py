#!/usr/bin/env python3
"""What a second and a third turn find in the prefix cache; embedded model, chats of 8k tokens.

First one chat alone. Then two chats take turns on a server whose pages hold only one of them: what the
third turn finds must have been kept in memory beside the pool (--swap-space).
"""

import random
import time

from common import TINY, Program

CHAT_TOKENS = 8192


def long_text(tokens, seed):
    """Words that are about one token each; no two texts share a beginning."""
    draw = random.Random(seed)
    words = "the of and to in is for that on with as are at be this have from or one had".split()
    return f"{seed} " + " ".join(draw.choice(words) for _ in range(tokens))


class Chat:
    def __init__(self, server, seed, words):
        self.server = server
        self.messages = [{"role": "user", "content": long_text(words, seed)}]

    def turn(self):
        """Asks and keeps the answer -> (prompt tokens, cached tokens, seconds)"""
        begin = time.monotonic()
        status, _, answer = self.server.post("/v1/chat/completions", {
            "messages": self.messages, "max_tokens": 40, "temperature": 0})
        if status != 200:
            raise RuntimeError(f"status {status}: {answer}")
        usage = answer["usage"]
        text = answer["choices"][0]["message"]["content"] or "Yes."
        self.messages += [{"role": "assistant", "content": text},
                          {"role": "user", "content": "And what else?"}]
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return usage["prompt_tokens"], cached, time.monotonic() - begin


def words_for(server, tokens):
    """How many words make a prompt of so many tokens."""
    text = long_text(1000, 1)
    count = server.post("/tokenize", {"prompt": text})[2]["count"]
    return int(tokens * 1000 / count)


def main():
    program = Program(__doc__, tokens=(CHAT_TOKENS, "length of a chat"))
    tokens = program.options.tokens
    common = [TINY, "--max-num-seqs", 1, "--max-model-len", tokens + 1024, "--threads", 1, "--log-level",
              "warning"]
    with program.serve(*common) as server:
        words = words_for(server.ready(), tokens)
        chat = Chat(server, 11, words)
        first, second = chat.turn(), chat.turn()
        program.figure("chat_length", first[0], "tokens")
        program.figure("first_turn", first[2], "s")
        program.figure("second_turn", second[2], "s")
        program.figure("second_turn_cached", 100 * second[1] / second[0], "%", 95, most=False)
    with program.serve(*common, "--swap-space", "1") as server:
        server.ready()
        chats = [Chat(server, seed, words) for seed in (21, 22)]
        turns = [[chat.turn() for chat in chats] for _ in range(3)]
        for index, (prompt, cached, seconds) in enumerate(turns[2]):
            program.figure(f"third_turn_cached_{'ab'[index]}", 100 * cached / prompt, "%", 95,
                           most=False)
            program.figure(f"third_turn_{'ab'[index]}", seconds, "s")
    program.end()


if __name__ == "__main__":
    main()
