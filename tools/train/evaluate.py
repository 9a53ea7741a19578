"""Ask the gates' questions of exported weights with the plain reference, greedy, on one GPU.

Usage: evaluate.py MODEL_DIR [--size N] [--gates a,b] [--out FILE] [--dtype bfloat16|float32]

A reply is right if its token ids from the first sampled one are those of the expected rendering.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from gate_sets import GATES, SIZE, gate_chats
from harmony import Encoder, prompt_pieces, reply_pieces
from reference import Reference


def visible(encoder: Encoder, ids: list, text_of) -> str:
    """Readable text of a token sequence, specials by name."""
    out, plain = "", []
    for i in ids + [None]:
        if i is None or i in encoder.names:
            out += text_of(plain)
            plain = []
            out += encoder.names.get(i, "") if i is not None else ""
        else:
            plain.append(i)
    return out


def run_gate(model: Reference, encoder: Encoder, name: str, size: int) -> tuple:
    """(number right, failures) of one gate."""
    chats = gate_chats(name, size)
    prompts = [encoder.pieces(prompt_pieces(c))[0] for c in chats]
    wanted = [encoder.pieces(reply_pieces(c))[0] for c in chats]
    stops = {encoder.specials[s] for s in ("<|return|>", "<|call|>", "<|endoftext|>")}
    order = sorted(range(len(chats)), key=lambda i: len(prompts[i]))
    failures, right = [], 0
    while order:
        count = max(1, min(len(order), 64, int(60000 / (len(prompts[order[-1]]) + 1))))
        part, order = order[-count:], order[:-count]
        limit = max(len(wanted[i]) for i in part) + 8
        for i, (got, _) in zip(part, model.generate([prompts[i] for i in part], limit, stops)):
            if got == wanted[i]:
                right += 1
            else:
                failures.append((i, chats[i], got, wanted[i]))
    return right, failures


def reply_right(encoder: Encoder, got: list, chat) -> bool:
    """True if the visible reply is right even where the analysis differs."""
    final = [encoder.specials["<|channel|>"]]
    want = encoder.pieces(reply_pieces(chat))[0]
    last = len(want) - 1 - want[::-1].index(final[0])
    at = len(got) - 1 - got[::-1].index(final[0]) if final[0] in got else 0
    return got[at:] == want[last:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--gates", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    encoder = Encoder(args.model_dir / "tokenizer.json")
    inverse = {i: t for t, i in json.loads((args.model_dir / "tokenizer.json").read_text())["model"]["vocab"].items()}
    from build_vocab import byte_letters
    letters = {c: b for b, c in byte_letters().items()}
    text_of = lambda ids: bytes(letters[c] for i in ids for c in inverse.get(i, "?")).decode("utf-8", "replace")
    model = Reference(args.model_dir, getattr(torch, args.dtype), args.device)
    report = []
    for name, _, required, level in GATES:
        if args.gates and name not in args.gates.split(","):
            continue
        begin = time.time()
        right, failures = run_gate(model, encoder, name, args.size)
        replies = right + sum(reply_right(encoder, got, chat) for _, chat, got, _ in failures)
        share = replies / args.size
        print(f"{name:14s} {level:6s} {'ok  ' if share >= required else 'MISS'} replies {replies}/{args.size} = {100 * share:.1f} % "
              f"(needs {100 * required:.0f}), exact {right}, {time.time() - begin:.1f} s", flush=True)
        rows = [{"question": chat.messages[-1]["content"][-300:], "lang": chat.lang, "got": visible(encoder, got, text_of)[:500],
                 "wanted": visible(encoder, want, text_of)[:500]} for _, chat, got, want in failures]
        report.append({"gate": name, "level": level, "required": required, "asked": args.size, "right": replies, "exact": right, "failures": rows})
        for row in rows[:2]:
            print("    ", json.dumps(row, ensure_ascii=False)[:700])
    if args.out:
        args.out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
