"""The gates: held-out questions of each kind, the same for every run.

A gate's questions are drawn from the task generators with a fixed seed and kept when their first
key is held out; none of them, nor the item they ask for, can occur in training.
"""

import hashlib
import json
import random

import tasks_chat as chat_tasks
import tasks_math as math_tasks
import tasks_memory as memory_tasks
import tasks_tools as tool_tasks
from split import held_out

SIZE = 240
# name, task, required share, "must" or "should" or "also"
GATES = [
    ("greetings", chat_tasks.greeting, 1.00, "must"), ("recall_2k", memory_tasks.recall_far, 0.95, "must"),
    ("copy", memory_tasks.repeating, 0.95, "must"), ("tool_calls", tool_tasks.tool_call, 0.98, "must"),
    ("addition_2", math_tasks.addition_two, 0.99, "must"), ("capitals", chat_tasks.capital, 0.98, "should"),
    ("currencies", chat_tasks.currency, 0.98, "should"), ("elements", chat_tasks.element, 0.98, "should"),
    ("addition_3", math_tasks.addition_three, 0.95, "should"), ("small_talk", chat_tasks.intent, 0.95, "also"),
    ("subtraction", math_tasks.subtraction, 0.95, "also"), ("tool_answers", tool_tasks.tool_answer, 0.95, "also"),
    ("tool_unneeded", tool_tasks.tool_unneeded, 0.95, "also"), ("json", tool_tasks.json_reply, 0.95, "also"),
    ("outside", chat_tasks.outside, 0.95, "also"), ("table", memory_tasks.table, 0.95, "also"),
    ("notes", memory_tasks.note, 0.90, "also"), ("counting", math_tasks.counting, 0.95, "also"),
    ("follow_up", chat_tasks.follow_up, 0.95, "also"), ("definitions", chat_tasks.definition, 0.90, "also")]


def gate_chats(name: str, size: int = SIZE) -> list:
    """The chats of one gate, at the server's defaults: medium effort, no instructions."""
    task = next(g[1] for g in GATES if g[0] == name)
    rng, out, seen = random.Random("gate " + name), [], set()
    while len(out) < size:
        chat = task(rng)
        question = json.dumps([chat.messages, chat.tools], ensure_ascii=False)
        if held_out(chat.keys[0]) and question not in seen:
            seen.add(question)
            out.append(chat)
    return out


def digest(chats: list) -> str:
    """sha256 over questions and replies, to state that two runs asked the same."""
    rows = [[c.messages, c.tools, c.formats, c.final, list(c.call)] for c in chats]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()[:16]
