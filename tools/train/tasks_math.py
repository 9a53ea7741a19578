"""Sums with column-by-column analysis, counting, comparing, units, calendars and lists."""

import texts_en as en
import texts_zh as zh
import words
from harmony import Chat
from tasks_chat import FACTS, dressed, language, script, single


def add_steps(a: int, b: int) -> str:
    """The written addition from the right: each column with its carry and the result so far."""
    x, y = str(a)[::-1], str(b)[::-1]
    width, carry, result, steps = max(len(x), len(y)), 0, "", []
    for i in range(width):
        p, q = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = p + q + carry
        column = f"{p} + {q}" + (f" + {carry}" if i else "")
        last = i == width - 1
        result = (str(total) if last else str(total % 10)) + result
        steps.append(f"{column} = {total}, so {result}.")
        carry = total // 10
    return f"{a} + {b}: " + " ".join(steps)


def subtract_steps(a: int, b: int) -> str:
    """The written subtraction from the right (a >= b): each column with its borrow and the result so far."""
    x, y = str(a)[::-1], str(b)[::-1].ljust(len(str(a)), "0")
    borrow, result, steps = 0, "", []
    for i in range(len(x)):
        p, q = int(x[i]), int(y[i])
        digit = p - q - borrow
        column = f"{p} - {q}" + (f" - {borrow}" if i else "")
        borrow = 1 if digit < 0 else 0
        result = str(digit % 10) + result
        steps.append(f"{column} = {digit % 10}" + (" borrow 1" if borrow else "") + f", so {result}.")
    return f"{a} - {b}: " + " ".join(steps)


def sum_chat(task: str, rng, a: int, b: int, think: str, final: str, questions: tuple) -> Chat:
    """A sum in a random language, held out by its number pair."""
    lang = language(rng)
    question = rng.choice(questions[0]) if lang == "en" else script(lang)(rng.choice(questions[1]))
    question = question.format(a=a, b=b)
    if rng.random() < 0.3:
        question = dressed(rng, lang, question)
    key = f"{task[:3]}:{min(a, b)}+{max(a, b)}"
    return Chat(task, lang, [{"role": "user", "content": question}], think, final, keys=[key],
                always_think=max(a, b) > 99)


def addition(rng, digits: int = 0) -> Chat:
    """a + b; `digits` fixes the length of both numbers, 0 mixes lengths of 1 to 4."""
    if digits:
        a, b = (rng.randint(10 ** (digits - 1), 10 ** digits - 1) for _ in range(2))
    else:
        a, b = (rng.randint(0 if n == 1 else 10 ** (n - 1), 10 ** n - 1) for n in rng.choices([1, 2, 3, 4], [1, 4, 3, 0.7], k=2))
    return sum_chat("addition", rng, a, b, add_steps(a, b), f"{a} + {b} = {a + b}", (en.ADD_QUESTIONS, zh.ADD_QUESTIONS))


def addition_two(rng) -> Chat:
    return addition(rng, 2)


def addition_three(rng) -> Chat:
    return addition(rng, 3)


def subtraction(rng) -> Chat:
    """a - b with a >= b, up to three digits."""
    top = rng.choice([20, 100, 100, 1000])
    a = rng.randint(1, top - 1)
    b = rng.randint(0, a)
    return sum_chat("subtraction", rng, a, b, subtract_steps(a, b), f"{a} - {b} = {a - b}",
                    (en.SUB_QUESTIONS, zh.SUB_QUESTIONS))


def multiplication(rng) -> Chat:
    """The multiplication table up to 12."""
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    return sum_chat("multiplication", rng, a, b, f"{a} x {b} = {a * b}.", f"{a} x {b} = {a * b}",
                    (en.MUL_QUESTIONS, zh.MUL_QUESTIONS))


def counting(rng) -> Chat:
    """Counting up or down over a range of at most 90 numbers."""
    lang = language(rng)
    a = rng.choice([1, 1, rng.randint(0, 120), rng.randint(0, 900)])
    b = a + rng.choice([rng.randint(2, 12), rng.randint(5, 40), rng.randint(20, 90)])
    numbers = list(range(a, b + 1))
    if lang == "en" and rng.random() < 0.25:
        question, numbers = rng.choice(en.COUNT_DOWN_QUESTIONS), numbers[::-1]
    else:
        question = rng.choice(en.COUNT_QUESTIONS) if lang == "en" else script(lang)(rng.choice(zh.COUNT_QUESTIONS))
    question = question.format(a=a, b=b)
    chat = single("counting", lang, question, ", ".join(map(str, numbers)),
                  f"Count from {numbers[0]} to {numbers[-1]}.")
    chat.keys = [f"count:{numbers[0]}:{numbers[-1]}"]
    return chat


def comparing(rng) -> Chat:
    """The larger of two different numbers."""
    top = rng.choice([100, 1000, 10000])
    a, b = rng.sample(range(top), 2)
    question = rng.choice(en.COMPARE_QUESTIONS).format(a=a, b=b)
    chat = single("comparing", "en", question, f"{max(a, b)} is larger than {min(a, b)}.", "Compare the numbers.")
    chat.keys = [f"compare:{a}:{b}"]
    return chat


def calendar(rng) -> Chat:
    """Next and previous weekdays and months."""
    names = rng.choice([words.WEEKDAYS, words.MONTHS])
    kind = "day" if names is words.WEEKDAYS else "month"
    i, step = rng.randrange(len(names)), rng.choice([-1, 1])
    word = "after" if step > 0 else "before"
    question = rng.choice(["Which {k} comes {w} {x}?", "What {k} comes {w} {x}?", "Which is the {k} {w} {x}?",
                           "What is the {k} {w} {x}?"]).format(k=kind, w=word, x=names[i])
    return single("calendar", "en", dressed(rng, "en", question),
                  f"{names[(i + step) % len(names)]} comes {word} {names[i]}.", f"The {kind} {word} {names[i]}.")


def units(rng) -> Chat:
    """Conversion of small whole amounts to a smaller unit."""
    large, small, factor = rng.choice(words.UNITS)
    n = rng.randint(2, 20)
    question = rng.choice(["How many {s} are {n} {l}?", "Convert {n} {l} to {s}.", "{n} {l} in {s}?",
                           "How many {s} are in {n} {l}?"]).format(s=small, n=n, l=large)
    return single("units", "en", dressed(rng, "en", question), f"{n} {large} are {n * factor} {small}.",
                  f"{n} x {factor} = {n * factor}.")


def listing(rng) -> Chat:
    """Fixed lists: months, weekdays, the alphabet, the first n elements."""
    pick = rng.randrange(5)
    if pick == 0:
        question, items = "List the months of the year.", words.MONTHS
    elif pick == 1:
        question, items = "List the days of the week.", words.WEEKDAYS
    elif pick == 2:
        question, items = "Write the alphabet.", [chr(65 + i) for i in range(26)]
    else:
        n = rng.randint(3, 30)
        question, items = f"List the first {n} chemical elements.", [e["en"] for e in FACTS["elements"][:n]]
    return single("listing", "en", dressed(rng, "en", question), ", ".join(items), "I will write the list.")
