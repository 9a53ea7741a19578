"""The training mixture: which task how often, with which system message, history and effort."""

import datetime
import random

import tasks_chat as chat_tasks
import tasks_math as math_tasks
import tasks_memory as memory_tasks
import tasks_tools as tool_tasks
import texts_en as en
import texts_zh as zh
from harmony import Chat
from split import held_out

# task, weight (share of chats), whether earlier question-answer pairs may precede it
MIXTURE = [
    (chat_tasks.greeting, 6, True), (chat_tasks.intent, 6, True), (chat_tasks.capital, 8, True),
    (chat_tasks.currency, 8, True), (chat_tasks.element, 8, True), (chat_tasks.other_fact, 1.2, True),
    (chat_tasks.definition, 3, True), (chat_tasks.outside, 3.5, True), (chat_tasks.date, 1, True),
    (chat_tasks.follow_up, 1.5, True), (math_tasks.addition, 4, True), (math_tasks.addition_two, 5, True),
    (math_tasks.addition_three, 6, True), (math_tasks.subtraction, 3.5, True), (math_tasks.multiplication, 1, True),
    (math_tasks.counting, 1.6, True), (math_tasks.comparing, 0.8, True), (math_tasks.calendar, 0.6, True),
    (math_tasks.units, 0.8, True), (math_tasks.listing, 0.5, True), (memory_tasks.repeating, 6, True),
    (memory_tasks.spelling, 0.8, True), (memory_tasks.recall, 6, False), (memory_tasks.recall_far, 0.7, False),
    (memory_tasks.acknowledging, 1, True), (memory_tasks.plain_text, 0.8, True), (memory_tasks.table, 2, False),
    (memory_tasks.note, 1.6, False), (memory_tasks.note_long, 0.35, False), (tool_tasks.tool_call, 10, False),
    (tool_tasks.tool_answer, 4, False), (tool_tasks.tool_unneeded, 2, False), (tool_tasks.json_reply, 3, True)]
HISTORY = [chat_tasks.greeting, chat_tasks.intent, chat_tasks.capital, chat_tasks.currency, chat_tasks.element,
           math_tasks.addition_two, memory_tasks.repeating, chat_tasks.outside]
FIRST_DAY = datetime.date(2024, 1, 1)
DAYS = (datetime.date(2028, 12, 31) - FIRST_DAY).days + 1


def allowed(chat: Chat) -> bool:
    """True if no item of the chat is held out."""
    return not any(held_out(key) for key in chat.keys)


def fresh(rng: random.Random, task) -> Chat:
    """A chat of the task without held-out items."""
    while True:
        chat = task(rng)
        if allowed(chat):
            return chat


def set_frame(rng: random.Random, chat: Chat) -> None:
    """Choose date, effort and developer instructions; complete replies that depend on the date."""
    chat.date = (FIRST_DAY + datetime.timedelta(days=rng.randrange(DAYS))).isoformat() if rng.random() < 0.97 else ""
    chat.effort = rng.choices(["low", "medium", "high"], [14, 72, 14])[0]
    if chat.messages[0]["role"] != "system" and rng.random() < 0.22:
        module = zh if chat.lang != "en" and rng.random() < 0.6 else en
        text = rng.choice(module.INSTRUCTIONS)
        text = chat_tasks.script(chat.lang)(text) if module is zh else text
        if rng.random() < 0.2:
            text = text + " " + memory_tasks.gloss_sentence(rng)
        chat.messages.insert(0, {"role": "system", "content": text})
    if chat.task == "date":
        chat.final = chat_tasks.date_reply(chat)


def add_history(rng: random.Random, chat: Chat) -> None:
    """Put one to three earlier question-answer pairs before the question."""
    first = 1 if chat.messages[0]["role"] == "system" else 0
    for _ in range(rng.choice([1, 1, 2, 3])):
        earlier = fresh(rng, rng.choice(HISTORY))
        chat.messages[first:first] = earlier.messages + [{"role": "assistant", "content": earlier.final}]
        chat.keys += earlier.keys


def training_chat(rng: random.Random) -> Chat:
    """One training chat of the mixture, free of held-out items."""
    task, _, history = rng.choices(MIXTURE, [w for _, w, _ in MIXTURE])[0]
    chat = fresh(rng, task)
    set_frame(rng, chat)
    if history and rng.random() < 0.22:
        add_history(rng, chat)
    return chat


def gloss_document(rng: random.Random) -> str:
    """Plain text for raw completion: dictionary lines."""
    rows = rng.sample(chat_tasks.GLOSSES, rng.randint(2, 8))
    return "".join(f"{word}: {gloss}\n" for word, _, gloss in rows)


def sum_document(rng: random.Random) -> str:
    """Plain text for raw completion: number rows."""
    start, step = rng.randint(0, 200), rng.choice([1, 1, 1, 2, 5, 10])
    return ", ".join(str(start + i * step) for i in range(rng.randint(5, 60))) + "\n"
