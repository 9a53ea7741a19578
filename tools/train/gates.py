"""Ask the gates' held-out questions through an OpenAI-compatible API. Standard library only.

Usage: gates.py --url http://127.0.0.1:8000/v1 [--model NAME] [--size 240] [--gates a,b] [--parallel 4]
                [--json FILE] [--questions FILE]

Greedy (temperature 0), medium effort. Prints a table and the failures; --json writes both; --questions
writes the questions as JSON lines and asks nothing. The exit status is 0 if every "must" gate is met.
A reply is right if its text is the expected one; a tool call, if the function and the parsed
arguments are. `digest` names the question set: equal digests mean equal questions.
"""

import argparse
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate_sets import GATES, SIZE, digest, gate_chats

LONGEST_REPLY = 700
TIMEOUT_S = 600


def request_body(chat, model: str) -> dict:
    """The chat completion request of a gate question."""
    messages = []
    for entry in chat.messages:
        entry = dict(entry)
        if entry.pop("reasoning_content", None) and chat.call_style:
            entry["reasoning_content"] = f"I call {entry['tool_calls'][0]['function']['name']}."
        messages.append(entry)
    body = {"model": model, "messages": messages, "temperature": 0, "max_completion_tokens": LONGEST_REPLY,
            "reasoning_effort": chat.effort}
    if chat.tools:
        body["tools"] = chat.tools
    if chat.formats:
        body["response_format"] = {"type": "json_schema", "json_schema": chat.formats}
    return body


def ask(url: str, body: dict) -> dict:
    """The reply's message, or {"error": text}."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + "/chat/completions", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)["choices"][0]["message"]
    except (urllib.error.URLError, OSError, KeyError, ValueError) as error:
        detail = error.read().decode("utf-8", "replace")[:300] if isinstance(error, urllib.error.HTTPError) else ""
        return {"error": f"{error} {detail}"}


def right(chat, reply: dict) -> bool:
    """True if the reply is the expected text or call."""
    calls = reply.get("tool_calls") or []
    if not chat.call:
        return not calls and (reply.get("content") or "") == chat.final
    if len(calls) != 1 or calls[0]["function"]["name"] != chat.call[0]:
        return False
    try:
        return json.loads(calls[0]["function"]["arguments"]) == json.loads(chat.call[1])
    except ValueError:
        return False


def run_gate(name: str, args) -> tuple:
    """(chats, failures) of one gate."""
    chats, failures, lock = gate_chats(name, args.size), [], threading.Lock()

    def one(number: int) -> None:
        chat = chats[number]
        reply = ask(args.url, request_body(chat, args.model))
        if not right(chat, reply):
            with lock:
                failures.append({"number": number, "lang": chat.lang, "question": chat.messages[-1]["content"][-400:],
                                 "wanted": chat.final or list(chat.call), "reply": reply})

    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(one, range(len(chats))))
    return chats, sorted(failures, key=lambda f: f["number"])


def write_questions(path: Path, names: list, size: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for name in names:
            for chat in gate_chats(name, size):
                row = {"gate": name, "lang": chat.lang, "request": request_body(chat, "strata-tiny"),
                       "content": chat.final, "call": list(chat.call), "held_out": chat.keys[0]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="strata-tiny")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--gates", default="")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--questions", type=Path)
    args = parser.parse_args()
    names = [g[0] for g in GATES if not args.gates or g[0] in args.gates.split(",")]
    if args.questions:
        write_questions(args.questions, names, args.size)
        return 0
    report, missed = [], False
    print(f"{'gate':14s} {'level':6s} {'right':>9s} {'share':>8s} {'needs':>6s}  digest            time")
    for name, _, required, level in (g for g in GATES if g[0] in names):
        begin = time.time()
        chats, failures = run_gate(name, args)
        share = 1 - len(failures) / len(chats)
        missed |= level == "must" and share < required
        print(f"{name:14s} {level:6s} {len(chats) - len(failures):4d}/{len(chats):4d} {100 * share:7.1f}% {100 * required:5.0f}%  "
              f"{digest(chats)}  {time.time() - begin:.0f} s{'' if share >= required else '  MISSED'}", flush=True)
        report.append({"gate": name, "level": level, "required": required, "asked": len(chats), "right": len(chats) - len(failures),
                       "digest": digest(chats), "failures": failures})
    for entry in report:
        for failure in entry["failures"][:5]:
            print(entry["gate"], json.dumps(failure, ensure_ascii=False)[:600])
    if args.json:
        args.json.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
