"""The texts whose token counts choose the vocabulary, with weights."""

import gzip
import json
from pathlib import Path

import texts_en
import texts_zh
import words

HERE = Path(__file__).resolve().parent
SYSTEM = ("You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: 2026-11-21\n\n"
          "Reasoning: {}\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message."
          "\nCalls to these tools must go to the commentary channel: 'functions'.")
DEVELOPER = ("# Instructions\n\nYou are a helpful assistant.\n\n# Tools\n\n## functions\n\nnamespace functions {\n\n"
             "// Gets the current weather in the provided location.\ntype get_current_weather = (_: {\n// The city\n"
             "location: string,\nformat?: \"celsius\" | \"fahrenheit\", // default: celsius\n}) => any;\n\n"
             "type get_time = () => any;\n\n} // namespace functions\n\n# Response Formats\n\n## reply\n\n"
             '{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"ok":{"type":"boolean"}},'
             '"required":["name","age"],"additionalProperties":false}')
PIECES = ["system", "developer", "user", "assistant", "analysis", "commentary", "final", " to=functions.get_weather",
          " ", "json", "functions.get_weather", " to=assistant", '{"location":"Paris"}', '{"temperature":21,"condition":"sunny"}',
          "ones tens hundreds thousands write carry borrow result sum digits", " yes no true false null"]


def facts() -> dict:
    """The facts bundle: countries, elements, states, young."""
    return json.loads((HERE / "facts.json").read_text())


def glosses() -> list:
    """[(word, part of speech, gloss)], commonest first."""
    rows = gzip.decompress((HERE / "glosses.tsv.gz").read_bytes()).decode().splitlines()
    return [(w, p, g) for w, p, _, g in (row.split("\t") for row in rows)]


def strings_of(value) -> list:
    """All strings inside nested dicts, lists and tuples."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in strings_of(k) + strings_of(v)]
    if isinstance(value, (list, tuple)):
        return [s for v in value for s in strings_of(v)]
    return []


def vocabulary_corpus() -> list:
    """[(text, weight)] from the chat texts, facts, glosses and prompt frames."""
    out = [(SYSTEM.format(effort), 300) for effort in ("low", "medium", "high")] + [(DEVELOPER, 100)]
    out += [(p, 100) for p in PIECES]
    for module in (texts_en, words):
        texts = [s for name, value in vars(module).items() if name.isupper() for s in strings_of(value)]
        out += [(s, 4) for s in texts] + [(" " + s, 2) for s in texts]
    for name, value in vars(texts_zh).items():
        if name.isupper() and name not in ("TRADITIONAL", "SIMPLIFIED"):
            out += [(f(s), 4) for s in strings_of(value) for f in (str, texts_zh.simplified)]
    for kind in facts().values():
        for record in kind:
            values = record.values() if isinstance(record, dict) else record
            for value in values:
                if isinstance(value, str):
                    out.append((value if value >= "\u3000" else " " + value, 3))
    for word, _, gloss in glosses():
        out.append((f" {word}: {gloss}.", 1))
    return out
