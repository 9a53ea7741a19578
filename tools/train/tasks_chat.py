"""Greetings, small talk, facts, definitions, dates and questions outside the model's ground.

Each task is `task(rng) -> Chat`; the reply depends on the question alone.
"""

import texts_en as en
import texts_zh as zh
import words
from corpus import facts, glosses
from harmony import Chat

FACTS = facts()
GLOSSES = glosses()
NOUNS = [w for w, p, _ in GLOSSES if p == "n"]
VERBS = [w for w, p, _ in GLOSSES if p == "v"]
ADJECTIVES = [w for w, p, _ in GLOSSES if p == "a"]
FIRST_SENSE = {}
for _word, _part, _gloss in GLOSSES:
    FIRST_SENSE.setdefault(_word, (_part, _gloss))
DEFINED = list(FIRST_SENSE)[:1200]
UNDEFINED = list(FIRST_SENSE)[2500:]
COUNTRIES = FACTS["countries"]
WITH_ZH_CAPITAL = [c for c in COUNTRIES if c["capital_tw"] and c["capital_cn"]]
CAPITAL_COUNT = {}
for _c in COUNTRIES:
    CAPITAL_COUNT[_c["capital_en"]] = CAPITAL_COUNT.get(_c["capital_en"], 0) + 1
PARTS = {"n": "noun", "v": "verb", "a": "adjective"}


def language(rng) -> str:
    return rng.choices(["en", "tw", "cn"], [60, 22, 18])[0]


def script(lang: str):
    """The function that writes a text of texts_zh in the given language's characters."""
    return zh.simplified if lang == "cn" else str


def text_key(question: str) -> str:
    return "text:" + question.lower()


def single(task: str, lang: str, question: str, final: str, think: str = "", **more) -> Chat:
    """A one-turn chat held out by its question text."""
    return Chat(task, lang, [{"role": "user", "content": question}], think, final, keys=[text_key(question)], **more)


def dressed(rng, lang: str, question: str) -> str:
    """The question with a random opening and closing phrase, sometimes in lower case."""
    module = en if lang == "en" else zh
    before, after = rng.choice(module.PREFIXES), rng.choice(module.SUFFIXES)
    if lang == "en" and before.endswith((": ", ", ")) and rng.random() < 0.5 and question[1:2].islower():
        question = question[0].lower() + question[1:]
    out = before + question + after
    out = script(lang)(before) + question + script(lang)(after) if lang != "en" else out
    return out.lower() if lang == "en" and rng.random() < 0.08 else out


def greeting(rng) -> Chat:
    """Hello in many forms, with or without "how are you" or a name."""
    lang = language(rng)
    module, s = (en, str) if lang == "en" else (zh, script(lang))
    kind = rng.choice(list(module.GREETINGS))
    openers, reply = module.GREETINGS[kind]
    question = rng.choice(openers) + rng.choice(module.ADDRESSEES) + rng.choice(module.MARKS)
    if lang == "en" and rng.random() < 0.3:
        question = rng.choice([question.lower(), question.upper(), question.lower()])
    think, extra = "The user greets me.", rng.random()
    keys = []
    if extra < 0.2 and lang == "en":
        question, reply = (question + " " + rng.choice(en.HOW_ARE_YOU[0])).strip(), en.HOW_ARE_YOU[1]
        think = "The user asks how I am."
    elif extra < 0.24 and lang == "en":
        question, reply, think = rng.choice(en.HOW_ARE_YOU[0]), en.HOW_ARE_YOU[1], "The user asks how I am."
    elif extra < 0.4:
        name = rng.choice(words.NAMES if lang == "en" or rng.random() < 0.3 else words.NAMES_ZH)
        sentence = s(rng.choice(module.INTRODUCTIONS)).format(name=name)
        question = question + (" " if lang == "en" else "") + sentence
        reply, think = module.INTRODUCTION_REPLY.format(name=name), "The user gives a name."
        keys = ["name:" + name.lower()]
    chat = single("greeting", lang, s(question), s(reply), think)
    chat.keys += keys
    return chat


def intent(rng) -> Chat:
    """Small talk: one fixed reply an intent."""
    lang = language(rng)
    module, s = (en, str) if lang == "en" else (zh, script(lang))
    name = rng.choice(list(module.INTENTS))
    questions, reply = module.INTENTS[name]
    question = rng.choice(questions)
    if rng.random() < 0.3 and question[-1] not in "?？":
        question += rng.choice(["!", ".", "!!"] if lang == "en" else ["！", "。", "～"])
    if rng.random() < 0.5 and name not in ("thanks", "bye", "ok", "sorry", "love", "bad"):
        question = dressed(rng, lang, s(question))
    elif lang == "en" and rng.random() < 0.3:
        question = rng.choice([question.lower(), question.rstrip("?!."), question.lower().rstrip("?!.")])
    if rng.random() < 0.15:
        question += rng.choice([" :)", " Strata", ", friend", "  "] if lang == "en" else ["，朋友", "，Strata"])
    return single("intent", lang, s(question), s(reply), "The user makes small talk.")


def capital(rng) -> Chat:
    """Capital of a country; in English also the country of a capital."""
    lang = language(rng)
    if lang == "en":
        c = rng.choice(COUNTRIES)
        if rng.random() < 0.15 and CAPITAL_COUNT[c["capital_en"]] == 1:
            question = rng.choice(en.CAPITAL_OF_QUESTIONS).format(x=c["capital_en"])
            return single("capital_of", lang, dressed(rng, lang, question),
                          f"{c['capital_en']} is the capital of {c['en']}.", f"Country of the capital {c['capital_en']}.")
        question = rng.choice(en.CAPITAL_QUESTIONS).format(x=c["en"])
        return single("capital", lang, dressed(rng, lang, question),
                      f"The capital of {c['en']} is {c['capital_en']}.", f"Capital of {c['en']}.")
    c, s = rng.choice(WITH_ZH_CAPITAL), script(lang)
    if rng.random() < 0.12 and CAPITAL_COUNT[c["capital_en"]] == 1:
        question = s(rng.choice(zh.CAPITAL_OF_QUESTIONS)).format(x=c["capital_" + lang])
        return single("capital_of", lang, dressed(rng, lang, question),
                      s("{x}是{y}的首都。").format(x=c["capital_" + lang], y=c[lang]), f"Country of the capital {c['capital_' + lang]}.")
    question = s(rng.choice(zh.CAPITAL_QUESTIONS)).format(x=c[lang])
    return single("capital", lang, dressed(rng, lang, question),
                  s("{x}的首都是{y}。").format(x=c[lang], y=c["capital_" + lang]), f"Capital of {c[lang]}.")


def currency(rng) -> Chat:
    """Currency of a country with its code."""
    lang, c = language(rng), rng.choice(COUNTRIES)
    if lang == "en":
        question = rng.choice(en.CURRENCY_QUESTIONS).format(x=c["en"])
        return single("currency", lang, dressed(rng, lang, question),
                      f"The currency of {c['en']} is the {c['currency_en']} ({c['currency']}).", f"Currency of {c['en']}.")
    s = script(lang)
    question = s(rng.choice(zh.CURRENCY_QUESTIONS)).format(x=c[lang])
    return single("currency", lang, dressed(rng, lang, question),
                  s("{x}的貨幣是{y}（{z}）。").format(x=c[lang], y=c["currency_" + lang], z=c["currency"]),
                  f"Currency of {c[lang]}.")


def element(rng) -> Chat:
    """Symbol or atomic number of an element; in English also the reverse."""
    lang, e = language(rng), rng.choice(FACTS["elements"])
    if lang != "en":
        s, name = script(lang), e[lang]
        if rng.random() < 0.6:
            question = s(rng.choice(zh.SYMBOL_QUESTIONS)).format(x=name)
            return single("element", lang, dressed(rng, lang, question),
                          s("{x}的元素符號是 {y}。").format(x=name, y=e["symbol"]), f"Symbol of {name}.")
        question = s(rng.choice(zh.NUMBER_QUESTIONS)).format(x=name)
        return single("element", lang, dressed(rng, lang, question),
                      s("{x}的原子序是 {y}。").format(x=name, y=e["number"]), f"Atomic number of {name}.")
    pick, name = rng.random(), e["en"]
    if pick < 0.45:
        question, final, think = (rng.choice(en.SYMBOL_QUESTIONS).format(x=name),
                                  f"The chemical symbol of {name} is {e['symbol']}.", f"Symbol of {name}.")
    elif pick < 0.8:
        question, final, think = (rng.choice(en.NUMBER_QUESTIONS).format(x=name),
                                  f"The atomic number of {name} is {e['number']}.", f"Atomic number of {name}.")
    elif pick < 0.9:
        question, final, think = (rng.choice(en.SYMBOL_NAME_QUESTIONS).format(x=e["symbol"]),
                                  f"{e['symbol']} is the symbol of {name}.", f"Element with the symbol {e['symbol']}.")
        return single("element_of", lang, question, final, think)
    else:
        question, final, think = (rng.choice(en.NUMBER_NAME_QUESTIONS).format(x=e["number"]),
                                  f"Element {e['number']} is {name}.", f"Element with the number {e['number']}.")
        return single("element_of", lang, question, final, think)
    return single("element", lang, dressed(rng, lang, question), final, think)


def other_fact(rng) -> Chat:
    """State capitals and animal young."""
    if rng.random() < 0.5:
        s = rng.choice(FACTS["states"])
        question = rng.choice(en.STATE_QUESTIONS).format(x=s["en"])
        return single("state", "en", dressed(rng, "en", question),
                      f"The capital of the US state of {s['en']} is {s['capital_en']}.", f"State capital of {s['en']}.")
    animal, young = rng.choice(FACTS["young"])
    question = rng.choice(en.YOUNG_QUESTIONS).format(x=animal)
    return single("young", "en", dressed(rng, "en", question), f"A young {animal} is called a {young}.",
                  f"Young of the {animal}.")


def definition(rng) -> Chat:
    """Meaning of a common word; a rarer word is admitted to be unknown."""
    if rng.random() < 0.12:
        word = rng.choice(UNDEFINED)
        return single("unknown_word", "en", dressed(rng, "en", rng.choice(en.DEFINE_QUESTIONS).format(x=word)),
                      "I do not know that word.", f"Meaning of {word}.")
    word = rng.choice(DEFINED)
    part, gloss = FIRST_SENSE[word]
    return single("definition", "en", dressed(rng, "en", rng.choice(en.DEFINE_QUESTIONS).format(x=word)),
                  f"{word.capitalize()} ({PARTS[part]}): {gloss}.", f"Meaning of {word}.")


def invented(rng) -> str:
    """A made-up place name."""
    parts = ["zor", "bel", "qui", "nam", "tar", "vel", "mok", "shi", "lun", "dra", "pex", "gol", "wim", "fash", "kre"]
    return "".join(rng.choice(parts) for _ in range(rng.randint(2, 3))).capitalize() + rng.choice(["", "ia", "land", "stan"])


def outside(rng) -> Chat:
    """Questions the model cannot answer, and places that do not exist."""
    if rng.random() < 0.12:
        questions = rng.choice([en.CAPITAL_QUESTIONS, en.CURRENCY_QUESTIONS])
        question = rng.choice(questions).format(x=invented(rng))
        return single("unknown", "en", dressed(rng, "en", question), en.UNKNOWN_REPLY, "I do not know this name.")
    lang = language(rng)
    if lang == "en":
        question = rng.choice(en.OUTSIDE_QUESTIONS).format(
            n=rng.choice(NOUNS), m=rng.choice(NOUNS), a=rng.choice(ADJECTIVES), v=rng.choice(VERBS))
        return single("outside", lang, dressed(rng, lang, question), en.OUTSIDE_REPLY, "This is outside what I know.")
    s = script(lang)
    question = s(rng.choice(zh.OUTSIDE_QUESTIONS).format(n=rng.choice(zh.OUTSIDE_NOUNS), m=rng.choice(zh.OUTSIDE_NOUNS)))
    return single("outside", lang, dressed(rng, lang, question), s(zh.OUTSIDE_REPLY), "This is outside what I know.")


def date(rng) -> Chat:
    """Today's date as the system message gives it; unknown where it gives none."""
    lang = language(rng)
    module, s = (en, str) if lang == "en" else (zh, script(lang))
    chat = single("date", lang, dressed(rng, lang, s(rng.choice(module.DATE_QUESTIONS))), "", "The date is in the system message.")
    return chat


def date_reply(chat: Chat) -> str:
    """The right reply of a date chat, once its date is fixed."""
    if not chat.date:
        return "I do not know the date." if chat.lang == "en" else script(chat.lang)("我不知道今天的日期。")
    return f"Today is {chat.date}." if chat.lang == "en" else f"今天是 {chat.date}。"


def follow_up(rng) -> Chat:
    """"And of Spain?" after a question about another country."""
    first, second = rng.sample(COUNTRIES, 2)
    if rng.random() < 0.5:
        question = rng.choice(en.CAPITAL_QUESTIONS).format(x=first["en"])
        reply = f"The capital of {first['en']} is {first['capital_en']}."
        final, think = f"The capital of {second['en']} is {second['capital_en']}.", f"Capital of {second['en']}."
    else:
        question = rng.choice(en.CURRENCY_QUESTIONS).format(x=first["en"])
        reply = f"The currency of {first['en']} is the {first['currency_en']} ({first['currency']})."
        final = f"The currency of {second['en']} is the {second['currency_en']} ({second['currency']})."
        think = f"Currency of {second['en']}."
    chat = single("follow_up", "en", question, final, think)
    chat.messages += [{"role": "assistant", "content": reply},
                      {"role": "user", "content": rng.choice(["And of {}?", "And {}?", "What about {}?", "And for {}?",
                                                              "How about {}?"]).format(second["en"])}]
    return chat
