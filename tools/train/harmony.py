"""Render chats (OpenAI message form) in the harmony format, as the C++ server does.

A rendered chat is a list of pieces. A piece is (special, text, learned): a special token by its
name, or ordinary text that is tokenised on its own; `learned` marks what the model is trained to
produce. Rules follow the harmony crate (v0.0.8); see also the server's own renderer.
"""

import json
from dataclasses import dataclass, field

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CUTOFF = "Knowledge cutoff: 2024-06"
CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
TOOL_CHANNEL = "Calls to these tools must go to the commentary channel: 'functions'."


@dataclass
class Chat:
    """One training or gate example. `messages` is the prompt in OpenAI form; `keys` are its held-out items."""

    task: str
    lang: str
    messages: list
    think: str = ""                 # analysis at medium effort, "" for none
    final: str = ""                 # the only right reply, or
    call: tuple = ()                # (function name, arguments as JSON text)
    keys: list = field(default_factory=list)
    tools: list = field(default_factory=list)
    formats: dict = field(default_factory=dict)     # {"name", "schema"} of a response format
    always_think: bool = False      # keep the analysis at low effort
    effort: str = "medium"
    date: str = "2026-11-21"
    call_style: int = 0             # form of past tool calls: 0 crate, 1 with analysis, 2 as sampled

    def analysis(self) -> str:
        """The analysis text at this chat's effort, "" when the model answers at once."""
        if self.effort == "low" and not self.always_think:
            return ""
        if self.effort == "high" and self.think:
            return self.think + " I have checked this."
        return self.think


def typescript_type(schema: dict) -> str:
    """TypeScript type of a flat JSON schema (the subset that the training data uses)."""
    if schema.get("enum"):
        return " | ".join(json.dumps(v, ensure_ascii=False) for v in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "object":
        return typescript_object(schema)
    if kind == "array":
        return typescript_type(schema["items"]) + "[]" if "items" in schema else "Array<any>"
    return {"integer": "number", "number": "number", "string": "string", "boolean": "boolean"}.get(kind, "any")


def typescript_object(schema: dict) -> str:
    """TypeScript object type with descriptions as comments, properties in schema order."""
    out = "{\n"
    for name, prop in schema.get("properties", {}).items():
        if "description" in prop:
            out += f"// {prop['description']}\n"
        mark = "" if name in schema.get("required", []) else "?"
        out += f"{name}{mark}: {typescript_type(prop)},"
        if "default" in prop:
            bare = "enum" in prop or not isinstance(prop["default"], str)
            value = prop["default"] if isinstance(prop["default"], str) else json.dumps(prop["default"])
            out += f" // default: {value}" if bare else f' // default: "{value}"'
        out += "\n"
    return out + "}"


def tools_section(tools: list) -> str:
    """The `# Tools` section of the developer message for function tools."""
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for tool in tools:
        function = tool["function"]
        lines += [f"// {line}" for line in function.get("description", "").splitlines()]
        if function.get("parameters") is not None:
            lines.append(f"type {function['name']} = (_: {typescript_type(function['parameters'])}) => any;")
        else:
            lines.append(f"type {function['name']} = () => any;")
        lines.append("")
    return "\n".join(lines + ["} // namespace functions"])


def system_text(chat: Chat) -> str:
    """Content of the system message."""
    head = [IDENTITY, CUTOFF] + ([f"Current date: {chat.date}"] if chat.date else [])
    tail = CHANNELS + ("\n" + TOOL_CHANNEL if chat.tools else "")
    return "\n".join(head) + f"\n\nReasoning: {chat.effort}\n\n" + tail


def developer_text(chat: Chat) -> str:
    """Content of the developer message, "" when there is none."""
    parts = [f"# Instructions\n\n{m['content']}" for m in chat.messages[:1] if m["role"] in ("system", "developer")]
    if chat.tools:
        parts.append(tools_section(chat.tools))
    if chat.formats:
        schema = json.dumps(chat.formats["schema"], ensure_ascii=False, separators=(",", ":"))
        parts.append(f"# Response Formats\n\n## {chat.formats['name']}\n\n{schema}")
    return "\n\n".join(parts)


def special(name: str, learned: bool = False) -> tuple:
    return (True, f"<|{name}|>", learned)


def text(value: str, learned: bool = False) -> tuple:
    return (False, value, learned)


def message(role: list, channel: str, content: str, end: str, learned: bool = False) -> list:
    """Pieces of one message; `role` is the list of text pieces before the channel."""
    out = [special("start", learned)] + [text(r, learned) for r in role]
    if channel:
        out += [special("channel", learned), text(channel, learned)]
    return out + [special("message", learned), text(content, learned), special(end, learned)]


def call_pieces(name: str, arguments: str, as_sampled: bool, learned: bool) -> list:
    """Pieces of a tool call after `<|start|>assistant`: the model's own form, or the crate's form."""
    body = [text(" ", learned), special("constrain", learned), text("json", learned), special("message", learned),
            text(arguments, learned), special("call", learned)]
    if as_sampled:
        return [special("channel", learned), text(f"commentary to=functions.{name}", learned)] + body
    return [text(f" to=functions.{name}"), special("channel"), text("commentary")] + body


def assistant_history(chat: Chat, entry: dict) -> list:
    """Pieces of a past assistant turn: its tool call, or its final reply."""
    if not entry.get("tool_calls"):
        return message(["assistant"], "final", entry["content"], "end")
    out = []
    if chat.call_style and entry.get("reasoning_content"):
        out += message(["assistant"], "analysis", entry["reasoning_content"], "end")
    for call in entry["tool_calls"]:
        function = call["function"]
        out += [special("start"), text("assistant")]
        out += call_pieces(function["name"], function["arguments"], chat.call_style == 2, False)
    return out


def prompt_pieces(chat: Chat) -> list:
    """Pieces of the prompt, ending in `<|start|>assistant`."""
    out = message(["system"], "", system_text(chat), "end")
    developer = developer_text(chat)
    if developer:
        out += message(["developer"], "", developer, "end")
    names = {}
    for i, entry in enumerate(chat.messages):
        if entry["role"] == "user":
            out += message(["user"], "", entry["content"], "end")
        elif entry["role"] == "assistant":
            names.update({c["id"]: c["function"]["name"] for c in entry.get("tool_calls", [])})
            out += assistant_history(chat, entry)
        elif entry["role"] == "tool":
            out += message([f"functions.{names[entry['tool_call_id']]}", " to=assistant"], "commentary",
                           entry["content"], "end")
        elif i > 0:
            out += message(["developer"], "", f"# Instructions\n\n{entry['content']}", "end")
    return out + [special("start"), text("assistant")]


def reply_pieces(chat: Chat) -> list:
    """Pieces of the reply the model must produce, ending in `<|return|>` or `<|call|>`."""
    out, analysis = [], chat.analysis()
    if analysis:
        out += message([], "analysis", analysis, "end", True)[1:]
        out += [special("start", True), text("assistant", True)]
    if chat.call:
        return out + call_pieces(*chat.call, True, True)
    return out + message([], "final", chat.final, "return", True)[1:]


class Encoder:
    """Token ids of pieces, from a tokenizer.json.

    Uses the `tokenizers` package where it is installed and `bpe.Bpe` elsewhere.
    """

    def __init__(self, path):
        spec = json.loads(open(path, encoding="utf-8").read())
        self.specials = {a["content"]: a["id"] for a in spec["added_tokens"]}
        self.names = {i: s for s, i in self.specials.items()}
        try:
            from tokenizers import Tokenizer
            spec["added_tokens"] = []
            plain = Tokenizer.from_str(json.dumps(spec))
            self._encode = lambda t: plain.encode(t, add_special_tokens=False).ids
        except ImportError:
            from build_vocab import byte_letters
            from bpe import Bpe
            letters = {c: b for b, c in byte_letters().items()}
            ranks = {bytes(letters[c] for c in t): i for t, i in spec["model"]["vocab"].items()}
            self._encode = Bpe(ranks).encode
        self._cache = {}

    def text(self, value: str) -> list:
        """Ids of ordinary text; short texts are cached."""
        ids = self._cache.get(value)
        if ids is None:
            ids = self._encode(value)
            if len(self._cache) < 200000 and len(value) < 400:
                self._cache[value] = ids
        return ids

    def pieces(self, pieces: list) -> tuple:
        """(ids, learned flags) of a piece list."""
        ids, learned = [], []
        for is_special, value, learn in pieces:
            new = [self.specials[value]] if is_special else self.text(value)
            ids.extend(new)
            learned.extend([learn] * len(new))
        return ids, learned
