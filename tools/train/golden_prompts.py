"""The prompts of the goldens: chats with long replies, in three languages, with tools, and 1k-4k tokens long."""

import random

import tasks_chat as chat_tasks
import tasks_math as math_tasks
import tasks_memory as memory_tasks
import tasks_tools as tool_tasks
import texts_en as en
import texts_zh as zh
import words
from harmony import Chat, Encoder, prompt_pieces, reply_pieces

LEAST_REPLY = 64


def multi_sum(rng) -> Chat:
    """Three- and four-digit sums: the analysis makes the reply long."""
    chat = math_tasks.addition(rng, rng.choice([3, 3, 4]))
    chat.effort = "high"
    return chat


def long_count(rng) -> Chat:
    return math_tasks.counting(rng)


def long_copy(rng) -> Chat:
    """Repeat three to six sentences."""
    lang = chat_tasks.language(rng)
    body = (" " if lang == "en" else "").join(memory_tasks.filler(rng, lang) for _ in range(rng.randint(4, 8)))
    question = rng.choice(en.REPEAT_QUESTIONS) if lang == "en" else chat_tasks.script(lang)(rng.choice(zh.REPEAT_QUESTIONS))
    return chat_tasks.single("repeat", lang, question.format(x=body), body, "I repeat the text.")


def long_call(rng) -> Chat:
    """A message or note of several sentences passed to a tool."""
    name = rng.choice(["email", "note", "translate"])
    spec = words.TOOLS[name]
    tool, names = tool_tasks.declare(rng, name)
    lang = rng.choice(["en", "tw", "cn"]) if spec["questions_tw"] else "en"
    values = {s: tool_tasks.slot(rng, s, lang) for _, _, _, s in spec["params"]}
    body = (" " if lang == "en" else "").join(memory_tasks.filler(rng, lang) for _ in range(rng.randint(4, 7)))
    values["sentence"] = (body, body)
    wording = rng.choice(spec["questions"]) if lang == "en" else chat_tasks.script(lang)(rng.choice(spec["questions_tw"]))
    question = wording.format(**{s: v[0] for s, v in values.items()})
    function = tool["function"]["name"]
    return Chat("tool_call", lang, [{"role": "user", "content": question}], f"I call {function}.",
                call=(function, tool_tasks.compact({names[s]: v[1] for s, v in values.items()})),
                keys=[chat_tasks.text_key(question)], tools=tool_tasks.with_distractors(rng, tool, name))


def sum_with_tools(rng) -> Chat:
    """A long sum although a tool of another kind is declared."""
    chat = multi_sum(rng)
    name = rng.choice([k for k in words.TOOLS if k != "add"])
    chat.tools = [tool_tasks.declare(rng, name)[0]]
    return chat


def list_or_tell(rng) -> Chat:
    """Lists of elements, the story, and the long fixed replies."""
    if rng.random() < 0.5:
        return math_tasks.listing(rng)
    return chat_tasks.intent(rng)


KINDS = [(multi_sum, 60), (long_count, 60), (long_copy, 40), (long_call, 35), (sum_with_tools, 15), (memory_tasks.note_long, 34),
         (list_or_tell, 30)]


def golden_chats(encoder: Encoder, seed: int) -> list:
    """[(chat, prompt ids)] whose expected reply has at least LEAST_REPLY tokens."""
    out = []
    for task, count in KINDS:
        rng, kept = random.Random(f"golden {seed} {task.__name__}"), 0
        while kept < count:
            chat = task(rng)
            prompt = encoder.pieces(prompt_pieces(chat))[0]
            if len(encoder.pieces(reply_pieces(chat))[0]) >= LEAST_REPLY and len(prompt) <= 4000:
                out.append((chat, prompt))
                kept += 1
    return out
