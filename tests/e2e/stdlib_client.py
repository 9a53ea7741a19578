#!/usr/bin/env python3
"""A client of nothing but the Python standard library: lists models, chats, streams.

    stdlib_client.py http://127.0.0.1:8000/v1 [API_KEY]

Exits with 1 when something is wrong. The stream is read byte by byte, so that a character split
between two pieces of the connection would show.
"""

import codecs
import http.client
import json
import sys
import urllib.parse


class Client:
    def __init__(self, base_url, key):
        parts = urllib.parse.urlsplit(base_url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
        self.prefix = parts.path.rstrip("/")
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def open(self, method, path, body=None):
        data = json.dumps(body) if body is not None else None
        self.connection.request(method, self.prefix + path, data, self.headers)
        return self.connection.getresponse()

    def call(self, method, path, body=None):
        response = self.open(method, path, body)
        return response.status, json.loads(response.read())

    def events(self, path, body):
        """The data of each server-sent event; fails on bytes that are not UTF-8."""
        response = self.open("POST", path, body)
        expect(response.status == 200, f"streaming answered {response.status}")
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        text = ""
        while True:
            byte = response.read(1)
            text += decoder.decode(byte, final=not byte)
            while "\n\n" in text:
                event, text = text.split("\n\n", 1)
                if event.startswith("data: "):
                    yield event[6:]
            if not byte:
                expect(text == "", f"the stream ends inside an event: {text!r}")
                return


def expect(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def check_models(client):
    status, models = client.call("GET", "/models")
    expect(status == 200 and models["data"], f"models: {status} {models}")
    return models["data"][0]["id"]


def check_chat(client, request):
    status, answer = client.call("POST", "/chat/completions", request)
    expect(status == 200, f"chat: {status} {answer}")
    choice, usage = answer["choices"][0], answer["usage"]
    expect(choice["finish_reason"] in ("stop", "length"), f"finish reason: {choice}")
    expect(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"],
           f"usage: {usage}")
    return answer


def check_stream(client, request, whole):
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    content, finish, usage, ended = "", None, None, False
    for data in client.events("/chat/completions", body):
        expect(not ended, f"an event after the end: {data}")
        if data == "[DONE]":
            ended = True
            continue
        chunk = json.loads(data)
        expect("error" not in chunk, f"the stream holds an error: {chunk}")
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            content += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
    expect(ended, "the stream has no [DONE]")
    expect(finish is not None, "the stream has no finish reason")
    expect("\ufffd" not in content, "a character was cut")
    expect(content == (whole["choices"][0]["message"]["content"] or ""),
           "stream and whole answer differ")
    expect(usage["completion_tokens"] == whole["usage"]["completion_tokens"],
           f"usage: {usage} and {whole['usage']}")


def check_errors(client, request):
    status, answer = client.call("POST", "/chat/completions", {**request, "temperature": "hot"})
    expect(status == 400 and answer["error"]["param"] == "temperature", f"{status} {answer}")
    status, answer = client.call("GET", "/no/such/route")
    expect(status == 404 and "message" in answer["error"], f"{status} {answer}")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    client = Client(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "any-key")
    model = check_models(client)
    request = {"model": model, "messages": [{"role": "user", "content": "Say hello."}],
               "max_tokens": 64, "temperature": 0, "seed": 7}
    whole = check_chat(client, request)
    check_stream(client, request, whole)
    check_errors(client, request)
    check_models(client)
    print("ok")


if __name__ == "__main__":
    main()
