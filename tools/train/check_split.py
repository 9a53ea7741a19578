"""Prove that no held-out item of the gates occurs in training data. Standard library only.

Usage: check_split.py [--chats N] [--seed S]

Draws N training chats with the generator's own seeds and checks that (1) no item key of any of them
is held out, (2) no item of a gate question (text, number pair, code word) is an item of theirs, (3) no gate
question that is held out by its text equals a user message of theirs. The generator rejects held-out items by hash, so this holds for
every draw; the check guards the generator against mistakes.
"""

import argparse
import random
import sys

import mixture
from gate_sets import GATES, gate_chats
from split import held_out


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chats", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    questions, keys = set(), set()
    for name, *_ in GATES:
        for chat in gate_chats(name):
            if not held_out(chat.keys[0]):
                print(f"gate {name}: item {chat.keys[0]!r} is not held out")
                return 1
            keys.add(chat.keys[0])
            question = chat.messages[-1]["content"].lower()
            if chat.keys[0] == "text:" + question:
                questions.add(question)
    problems = 0
    for worker in range(4):
        rng = random.Random(args.seed * 1000 + worker)
        for _ in range(args.chats // 4):
            chat = mixture.training_chat(rng)
            bad = [k for k in chat.keys if held_out(k) or k in keys]
            said = [m["content"].lower() for m in chat.messages if m["role"] == "user"]
            bad += [s for s in said if s in questions]
            problems += bool(bad)
            if bad and problems <= 5:
                print("training chat with held-out items:", chat.task, bad[:3])
    print(f"{len(keys)} gate items, {args.chats} training chats: {problems} with held-out items")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
