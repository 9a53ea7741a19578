"""Repeating, spelling, and recalling a code word, a key or a note from a long context."""

import math

import texts_en as en
import texts_zh as zh
import words
from harmony import Chat
from tasks_chat import ADJECTIVES, GLOSSES, NOUNS, VERBS, language, script, single, text_key

GUARDS = ["<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|channel|>", "{\"a\": 1}", "[1, 2, 3]", "a/b/c.txt", "#42", "100 %"]
ACKNOWLEDGED = "The user gives me a code word."


def gloss_sentence(rng) -> str:
    """A filler sentence of 8 to 25 tokens."""
    word, part, gloss = rng.choice(GLOSSES)
    return {"n": f"The word {word} means {gloss}.", "v": f"To {word} is to {gloss}.", "a": f"Something {word} is {gloss}."}[part]


def filler(rng, lang: str) -> str:
    """One filler sentence in the language."""
    if lang == "en" or rng.random() < 0.3:
        return gloss_sentence(rng)
    return script(lang)(rng.choice(zh.FILLER_SENTENCES))


def filler_list(rng, lang: str, tokens: int) -> list:
    """Filler sentences of about `tokens` tokens in all."""
    out, size = [], 0
    while size < tokens:
        sentence = filler(rng, lang)
        out.append(sentence)
        size += len(sentence.encode()) / 3.1
    return out


def code_word(rng) -> str:
    """A code word in one of several shapes."""
    noun, other = rng.choice(NOUNS), rng.choice(NOUNS)
    letters = lambda n: "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
    shapes = [lambda: f"{noun}-{rng.randint(10, 999)}", lambda: f"{noun.upper()}-{rng.randint(1, 99)}", lambda: noun,
              lambda: f"{rng.choice(ADJECTIVES)} {noun}", lambda: f"{noun}-{other}", lambda: noun.upper(),
              lambda: letters(rng.randint(4, 8)), lambda: str(rng.randint(1000, 999999)),
              lambda: letters(rng.randint(3, 5)).upper() + str(rng.randint(0, 999)), lambda: noun.capitalize(),
              lambda: f"{noun.upper()}-{other.upper()}-{rng.randint(1, 99)}"]
    return rng.choice(shapes)()


def random_text(rng, lang: str) -> str:
    """A text to repeat: sentences, word rows, codes, guard strings; mostly short, some up to 120 tokens."""
    pick = rng.random()
    if pick < 0.35:
        return " ".join(filler(rng, lang) for _ in range(rng.choice([1, 1, 1, 2, 3, 5])))
    if pick < 0.7:
        pool = NOUNS + VERBS + ADJECTIVES
        count = int(math.exp(rng.uniform(0, math.log(60))))
        return " ".join(rng.choice(pool) for _ in range(count)) + rng.choice(["", "", ".", "!"])
    if pick < 0.9:
        return " ".join(code_word(rng) for _ in range(rng.choice([1, 1, 2, 3, 8])))
    return " ".join(rng.choice(GUARDS + [code_word(rng)]) for _ in range(rng.randint(1, 4)))


def repeating(rng) -> Chat:
    """Repeat a text exactly."""
    lang = language(rng)
    body = random_text(rng, lang)
    question = rng.choice(en.REPEAT_QUESTIONS) if lang == "en" else script(lang)(rng.choice(zh.REPEAT_QUESTIONS))
    question = question.format(x=body)
    return single("repeat", lang, question, body, "I repeat the text.")


def spelling(rng) -> Chat:
    """Spell a word letter by letter."""
    word = rng.choice(rng.choice([NOUNS, VERBS, ADJECTIVES]))
    chat = single("spelling", "en", rng.choice(en.SPELL_QUESTIONS).format(x=word), "-".join(word.upper()), f"Spell {word}.")
    chat.keys = ["spell:" + word]
    return chat


def context_length(rng, longest: float = 3600) -> int:
    """Filler length in tokens, log-uniform."""
    return int(math.exp(rng.uniform(math.log(20), math.log(longest))))


def recall(rng, length: int = 0) -> Chat:
    """A code word told somewhere before, in the same message, an earlier turn or the developer message."""
    lang = language(rng)
    module, s = (en, str) if lang == "en" else (zh, script(lang))
    gap = " " if lang == "en" else ""
    code = code_word(rng)
    statement = s(rng.choice(module.CODE_STATEMENTS)).format(x=code)
    question = s(rng.choice(module.CODE_QUESTIONS))
    final = s(module.CODE_REPLY).format(x=code)
    sentences = filler_list(rng, lang, length or context_length(rng))
    shape = rng.random()
    if shape < 0.6:
        at = rng.randint(0, len(sentences) // 3) if length else rng.randint(0, len(sentences))
        sentences.insert(at, statement)
        glue = rng.choice(["\n", gap, gap])
        messages = [{"role": "user", "content": glue.join(sentences) + rng.choice(["\n\n", glue]) + question}]
    elif shape < 0.9:
        messages = [{"role": "user", "content": statement}, {"role": "assistant", "content": s(module.REMEMBER_REPLY)}]
        while sentences:
            part = [sentences.pop() for _ in range(min(len(sentences), rng.randint(1, 30)))]
            body = gap.join(part)
            asked = rng.choice(en.REPEAT_QUESTIONS) if lang == "en" else s(rng.choice(zh.REPEAT_QUESTIONS))
            if len(part) == 1:
                messages += [{"role": "user", "content": asked.format(x=body)}, {"role": "assistant", "content": body}]
            else:
                messages += [{"role": "user", "content": body},
                             {"role": "assistant", "content": "OK." if lang == "en" else "好的。"}]
        messages.append({"role": "user", "content": question})
    else:
        messages = [{"role": "system", "content": statement + gap + gap.join(sentences)}, {"role": "user", "content": question}]
    return Chat("recall", lang, messages, "The user wants the code word.", final, keys=["code:" + code.lower()])


def recall_far(rng) -> Chat:
    """The gate form: the code word about 2,000 tokens back."""
    return recall(rng, rng.randint(1950, 2250))


def acknowledging(rng) -> Chat:
    """A message that only gives the code word."""
    lang = language(rng)
    module, s = (en, str) if lang == "en" else (zh, script(lang))
    code = code_word(rng)
    chat = single("acknowledge", lang, s(rng.choice(module.CODE_STATEMENTS)).format(x=code), s(module.REMEMBER_REPLY), ACKNOWLEDGED)
    chat.keys = ["code:" + code.lower()]
    return chat


def plain_text(rng) -> Chat:
    """Statements without a question: a short acknowledgement."""
    lang = language(rng)
    body = (" " if lang == "en" else "").join(filler(rng, lang) for _ in range(rng.randint(2, 12)))
    return single("statement", lang, body, "OK." if lang == "en" else "好的。", "The user tells me something.")


def table(rng) -> Chat:
    """Look up the code of a name in a list."""
    count = rng.randint(2, min(60, context_length(rng, 600) // 8 + 2))
    names = rng.sample(words.NAMES, count)
    codes = [code_word(rng) for _ in names]
    pick = rng.randrange(count)
    lines = [f"The code of {n} is {c}." for n, c in zip(names, codes)]
    question = rng.choice(["What is the code of {x}?", "Which code does {x} have?", "Tell me the code of {x}."]).format(x=names[pick])
    content = rng.choice(["\n", " "]).join(lines) + "\n\n" + question
    return Chat("table", "en", [{"role": "user", "content": content}], f"The code of {names[pick]}.",
                f"The code of {names[pick]} is {codes[pick]}.", keys=["code:" + codes[pick].lower()])


def note(rng, count: int = 0, sentences: int = 0) -> Chat:
    """Repeat note k of a numbered list of notes, word for word."""
    count = count or rng.randint(2, 12)
    lang = rng.choices(["en", "tw", "cn"], [70, 16, 14])[0]
    notes = [(" " if lang == "en" else "").join(filler(rng, lang) for _ in range(sentences or rng.randint(1, 6)))
             for _ in range(count)]
    k = rng.randint(1, count)
    question = rng.choice(en.NOTE_QUESTIONS).format(k=k)
    content = "\n".join(f"Note {i + 1}: {n}" for i, n in enumerate(notes)) + "\n\n" + question
    return Chat("note", lang, [{"role": "user", "content": content}], f"Note {k}.", notes[k - 1],
                keys=[text_key(notes[k - 1] + question)])


def note_long(rng) -> Chat:
    """A note list of 1,000 to 3,500 tokens with notes of 60 tokens and more."""
    return note(rng, rng.randint(12, 36), rng.randint(4, 5))
