"""Tool calls, answers from tool results, and replies in JSON."""

import json

import words
from harmony import Chat
from tasks_chat import ADJECTIVES, COUNTRIES, NOUNS, VERBS, capital, currency, element, greeting, intent, script, text_key
from tasks_memory import code_word, filler, gloss_sentence
from tasks_math import addition

CITIES = sorted({c["capital_en"] for c in COUNTRIES})
CITIES_ZH = {k: sorted({c["capital_" + k] for c in COUNTRIES if c["capital_" + k]}) for k in ("tw", "cn")}
MORE_CITIES = ("New York,San Francisco,Los Angeles,Chicago,Boston,Seattle,Munich,Hamburg,Frankfurt,Zurich,Geneva,Milan,Venice,"
               "Barcelona,Porto,Lyon,Marseille,Manchester,Liverpool,Glasgow,Osaka,Kyoto,Shanghai,Shenzhen,Mumbai,Sydney,"
               "Melbourne,Toronto,Vancouver,Montreal,Istanbul,Dubai,Kaohsiung,Taichung,Tainan,Hualien").split(",")


def compact(value) -> str:
    """JSON without spaces, the form of all tool arguments."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def slot(rng, kind: str, lang: str):
    """A random value for a question slot: (text in the question, JSON value)."""
    if kind == "city":
        pool = CITIES_ZH[lang] if lang != "en" and rng.random() < 0.8 else rng.choice([CITIES, CITIES, MORE_CITIES])
        value = rng.choice(pool)
    elif kind == "person":
        value = rng.choice(words.NAMES if lang == "en" or rng.random() < 0.4 else words.NAMES_ZH)
    elif kind == "sentence":
        pick = rng.random()
        value = filler(rng, lang) if pick < 0.5 else " ".join(rng.choice(NOUNS + VERBS) for _ in range(rng.randint(1, 12)))
        if pick > 0.9:
            value = " ".join(gloss_sentence(rng) for _ in range(rng.randint(3, 7)))
    elif kind == "phrase":
        value = rng.choice([f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}", rng.choice(NOUNS),
                            f"{rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(NOUNS)}", code_word(rng)])
    elif kind == "ticker":
        value = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 5)))
    elif kind == "room":
        value = rng.choice(words.ROOMS)
    elif kind == "language":
        value = rng.choice(words.LANGUAGES)
    elif kind in ("from", "to"):
        value = rng.choice(words.CURRENCY_CODES)
    elif kind == "on":
        on = rng.random() < 0.5
        return ("on" if on else "off"), on
    else:
        value = rng.randint(1, rng.choice([20, 99, 999, 9999]))
    return str(value), value


def declare(rng, intent_name: str) -> tuple:
    """A function tool with random wording: (OpenAI tool, {slot: parameter name})."""
    spec = words.TOOLS[intent_name]
    properties, required, names = {}, [], {}
    for choices, kind, descriptions, slot_name in spec["params"]:
        name = rng.choice([c for c in choices if c not in properties])
        properties[name] = {"type": kind} if rng.random() < 0.3 else {"type": kind, "description": rng.choice(descriptions)}
        required.append(name)
        names[slot_name] = name
    for choices, values, default in spec["extra"]:
        if rng.random() < 0.4:
            properties[rng.choice(choices)] = {"type": "string", "enum": values, **({"default": default} if rng.random() < 0.5 else {})}
    parameters = {"type": "object", "properties": properties, "required": required}
    if rng.random() < 0.3:
        parameters["additionalProperties"] = False
    function = {"name": rng.choice(spec["names"]), "description": rng.choice(spec["descriptions"]), "parameters": parameters}
    if rng.random() < 0.1:
        del function["description"]
    return {"type": "function", "function": function}, names


def identifier(rng) -> str:
    return rng.choice(VERBS) + rng.choice(["_", "_", ""]) + rng.choice(NOUNS)


def declare_random(rng) -> dict:
    """A function of a random name and 0 to 3 random parameters."""
    properties = {}
    for _ in range(rng.randint(0, 3)):
        kind = rng.choice(["string", "string", "integer", "number", "boolean"])
        prop = {"type": kind, **({"description": f"The {rng.choice(NOUNS)}"} if rng.random() < 0.5 else {})}
        properties[rng.choice(NOUNS)] = prop
    function = {"name": identifier(rng), "description": gloss_sentence(rng)}
    if properties or rng.random() < 0.5:
        function["parameters"] = {"type": "object", "properties": properties,
                                  "required": list(properties)[:rng.randint(0, 3)] if rng.random() < 0.3 else list(properties)}
    return {"type": "function", "function": function}


def with_distractors(rng, tool: dict, intent_name: str) -> list:
    """The tool among 0 to 3 others of other intents and names."""
    out, used = [tool], {tool["function"]["name"]}
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        other = rng.choice([k for k in words.TOOLS if k != intent_name])
        extra = declare_random(rng) if rng.random() < 0.3 else declare(rng, other)[0]
        if extra["function"]["name"] not in used:
            used.add(extra["function"]["name"])
            out.append(extra)
    rng.shuffle(out)
    return out


def known_call(rng) -> tuple:
    """A question for one of the known intents: (intent, lang, question, tool, arguments, values)."""
    name = rng.choice(list(words.TOOLS))
    spec = words.TOOLS[name]
    lang = rng.choices(["en", "tw", "cn"], [70, 16, 14])[0] if spec["questions_tw"] else "en"
    tool, names = declare(rng, name)
    values = {s: slot(rng, s, lang) for _, _, _, s in spec["params"]}
    wording = rng.choice(spec["questions"]) if lang == "en" else script(lang)(rng.choice(spec["questions_tw"]))
    question = wording.format(**{s: v[0] for s, v in values.items()})
    arguments = {names[s]: v[1] for s, v in values.items()}
    return name, lang, question, tool, arguments, {s: v[0] for s, v in values.items()}


def random_call(rng) -> tuple:
    """A question that names a random function and its values: (lang, question, tool, arguments)."""
    tool = declare_random(rng)
    function = tool["function"]
    arguments, said = {}, []
    for name, prop in function.get("parameters", {}).get("properties", {}).items():
        kind = prop["type"]
        if kind == "string":
            value = code_word(rng)
            text = value
        elif kind == "boolean":
            value = rng.random() < 0.5
            text = "true" if value else "false"
        else:
            value = rng.randint(0, 9999)
            text = str(value)
        arguments[name] = value
        said.append(rng.choice([f"{name} {text}", f"{name} = {text}", f"{name}: {text}"]))
    question = rng.choice(["Call {f}", "Use {f}", "Call the function {f}", "Run {f}", "Please call {f}", "Use the tool {f}"])
    question = question.format(f=function["name"]) + (rng.choice([" with ", ": ", " for "]) + ", ".join(said) if said else "") + "."
    return "en", question, tool, arguments


def tool_call(rng) -> Chat:
    """A question that needs one of the declared tools; the reply is the call."""
    if rng.random() < 0.25:
        lang, question, tool, arguments = random_call(rng)
        tools = with_distractors(rng, tool, "")
    else:
        name, lang, question, tool, arguments, _ = known_call(rng)
        tools = with_distractors(rng, tool, name)
    function = tool["function"]["name"]
    return Chat("tool_call", lang, [{"role": "user", "content": question}], f"I call {function}.",
                call=(function, compact(arguments)), keys=[text_key(question)], tools=tools)


def tool_result(rng, name: str, values: dict) -> tuple:
    """A result of a known tool: (content, final answer)."""
    n = rng.randint(0, 99)
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    if name == "weather":
        condition = rng.choice(words.CONDITIONS)
        return compact({"temperature": n, "condition": condition}), f"In {values['city']} it is {n} degrees and {condition}."
    if name == "time":
        return compact({"time": clock}), f"In {values['city']} it is {clock}."
    if name == "add":
        total = int(values["a"]) + int(values["b"])
        return compact({"result": total}), f"{values['a']} + {values['b']} = {total}"
    if name == "email":
        return compact({"status": "sent"}), f"The message to {values['person']} has been sent."
    if name == "note":
        return compact({"id": n}), f"The note has been saved with the number {n}."
    if name == "timer":
        return compact({"status": "started"}), f"The timer runs for {values['n']} minutes."
    if name == "stock":
        return compact({"price": n}), f"The price of {values['ticker']} is {n}."
    if name == "light":
        return compact({"ok": True}), f"The light in the {values['room']} is now {values['on']}."
    if name == "play":
        return compact({"playing": True}), f"Now playing {values['phrase']}."
    if name == "convert":
        return compact({"amount": n}), f"{values['n']} {values['from']} are {n} {values['to']}."
    body = gloss_sentence(rng)
    return (compact({"text": body}), body) if rng.random() < 0.5 else (body, body)


def tool_answer(rng) -> Chat:
    """The final answer after the result of a call; a plain text result is passed on word for word."""
    if rng.random() < 0.2:
        lang, question, tool, arguments = random_call(rng)
        name, content = "", gloss_sentence(rng)
        final = content
    else:
        name, lang, question, tool, arguments, values = known_call(rng)
        if rng.random() < 0.25:
            content = filler(rng, lang) if rng.random() < 0.7 else code_word(rng)
            final = content
        else:
            content, final = tool_result(rng, name, values)
    function, call_id = tool["function"]["name"], "call_1"
    call = {"id": call_id, "type": "function", "function": {"name": function, "arguments": compact(arguments)}}
    messages = [{"role": "user", "content": question},
                {"role": "assistant", "content": None, "reasoning_content": f"I call {function}.", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call_id, "content": content}]
    return Chat("tool_answer", lang, messages, "I use the result.", final, keys=[text_key(question)],
                tools=with_distractors(rng, tool, name), call_style=rng.randrange(3))


def tool_unneeded(rng) -> Chat:
    """Tools are declared but the question is answered without them."""
    chat = rng.choice([greeting, intent, capital, currency, element, addition])(rng)
    known = [k for k in words.TOOLS if k != "add"]
    name = rng.choice(known)
    chat.tools = [t for t in with_distractors(rng, declare(rng, name)[0], name)
                  if not any(q in t["function"]["name"] for q in ("add", "sum", "plus"))][:3]
    chat.task = "tool_unneeded"
    return chat


def json_value(rng, kind: str):
    if kind == "integer":
        return rng.randint(0, 999)
    if kind == "boolean":
        return rng.random() < 0.5
    return rng.choice([lambda: rng.choice(words.NAMES), lambda: rng.choice(NOUNS), lambda: rng.choice(CITIES),
                       lambda: code_word(rng), lambda: rng.choice(words.NAMES_ZH)])()


def json_reply(rng) -> Chat:
    """A JSON object with the keys and values of the question, with or without a response format."""
    keys, fields = [], {}
    while len(fields) < rng.choice([1, 2, 2, 3, 4]):
        key = rng.choice(["name", "age", "city", "color", "size", "id", "title", "count", "ok"] + [rng.choice(NOUNS) for _ in range(9)])
        kind = {"age": "integer", "size": "integer", "id": "integer", "count": "integer", "ok": "boolean"}.get(
            key, rng.choice(["string", "string", "integer"]))
        fields[key] = (kind, json_value(rng, kind))
    shown = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, (_, v) in fields.items()}
    pairs = [rng.choice([f"{k} {v}", f"{k}: {v}", f"{k} = {v}"]) for k, v in shown.items()]
    formats = {}
    if rng.random() < 0.5:
        schema = {"type": "object", "properties": {k: {"type": kind} for k, (kind, _) in fields.items()},
                  "required": list(fields), "additionalProperties": False}
        formats = {"name": rng.choice(["reply", "person", "record", "answer", "response"]), "schema": schema}
        question = rng.choice(["", "The data: ", "Fill in: ", "Here: "]) + ", ".join(pairs) + "."
    else:
        question = rng.choice(["Give me JSON with {p}.", "Write JSON: {p}", "Reply in JSON: {p}", "As JSON: {p}",
                               "Make a JSON object with {p}.", "JSON with {p}, please."]).format(p=", ".join(pairs))
    final = compact({k: v for k, (_, v) in fields.items()})
    return Chat("json", "en", [{"role": "user", "content": question}], "I write JSON.", final,
                keys=[text_key(question)], formats=formats)
