"""Starts the program, waits for its ready lines and talks to it. Standard library only."""

import http.client
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TINY = SOURCE / "models" / "strata-tiny"
START_TIMEOUT_S = 60  # generous: machines under test are often busy
READY = [
    re.compile(r"^INFO:     Application startup complete\.$"),
    re.compile(r"^Strata ready at (http://\S+:(\d+))$"),
]


class CheckFailed(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise CheckFailed(message)


def expect_equal(got, wanted, what):
    expect(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def expect_in(part, text, what):
    expect(part in text, f"{what}: {part!r} is not in {text!r}")


def clean_environment(**extra):
    """No key, no hub cache and no colour of the person who runs the tests."""
    dropped = ("STRATA_", "VLLM_", "HF_", "HUGGINGFACE_", "XDG_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    env.update(extra)
    return env


class Context:
    """The binary under test and a folder of its own for each check."""

    def __init__(self, binary):
        self.binary = str(pathlib.Path(binary).resolve())
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="strata-e2e-"))

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def copy_tiny(self, name):
        """A directory with the embedded model's configuration and tokenizer, without weights."""
        target = self.folder / name
        target.mkdir()
        for part in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / part, target / part)
        return target

    def script(self, *lines):
        """A script file of answers: texts, or lists of token ids."""
        rows = [{"tokens": l} if isinstance(l, list) else {"text": l} for l in lines]
        return self.write("script.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *arguments, stdin="", timeout=START_TIMEOUT_S, env=None):
        """Runs the program to its end."""
        return subprocess.run(
            [self.binary, *map(str, arguments)], input=stdin, capture_output=True, text=True,
            timeout=timeout, env=env or clean_environment(HOME=str(self.folder)))

    def serve(self, *arguments, env=None):
        return Server(self, arguments, env)

    def scripted(self, *lines, arguments=()):
        return self.serve("--load-format", "scripted", "--script", self.script(*lines), TINY,
                          "--served-model-name", "scripted", "--port", "0", *arguments)


class Server:
    """`strata serve` as a child process; a context manager that ends it."""

    def __init__(self, context, arguments, env=None):
        self.lines = []
        self.errors = []
        self.port = None
        self._news = queue.Queue()
        self.process = subprocess.Popen(
            [context.binary, "serve", *map(str, arguments)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            env=env or clean_environment(HOME=str(context.folder)))
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, lines):
        for line in pipe:
            lines.append(line.rstrip("\n"))
            self._news.put(None)
        self._news.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    @property
    def log(self):
        return "\n".join(self.errors)

    def wait_until(self, condition, what, timeout=START_TIMEOUT_S):
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            expect(left > 0, f"{what} did not come; log:\n{self.log}")
            expect(self.process.poll() is None or condition(),
                   f"{what}: the program ended with {self.process.returncode}; log:\n{self.log}")
            try:
                self._news.get(timeout=min(left, 0.05))
            except queue.Empty:
                pass
        return self

    def logged(self, text):
        """Waits until the log holds `text`: it comes by another pipe than the ready lines."""
        return self.wait_until(lambda: text in self.log, f"{text!r} in the log")

    def ready(self):
        """Waits for the two ready lines, which must be the first on standard output."""
        self.wait_until(lambda: len(self.lines) >= len(READY), "the ready lines")
        for pattern, line in zip(READY, self.lines):
            expect(pattern.match(line), f"ready line {line!r} does not match {pattern.pattern!r}")
        self.port = int(READY[1].match(self.lines[1]).group(2))
        return self

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait_exit(self, timeout=START_TIMEOUT_S):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"the program did not end within {timeout} s; log:\n{self.log}")
        for reader in self._readers:  # the log is whole now
            reader.join()
        return code

    def connect(self, timeout=START_TIMEOUT_S):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """-> (status, headers, body as JSON when it is JSON)."""
        connection = self.connect()
        try:
            payload = json.dumps(body) if isinstance(body, (dict, list)) else body
            head = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, payload, head if payload is not None else headers or {})
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.getheader("Content-Type") or ""
            parsed = json.loads(data) if kind.startswith("application/json") else data
            return answer.status, dict(answer.getheaders()), parsed
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def stream(self, path, body, headers=None):
        return EventStream(self.connect(), path, body, headers)


class EventStream:
    """A POST answered with server-sent events; iterates over the data of each."""

    def __init__(self, connection, path, body, headers=None):
        self.connection = connection
        connection.request("POST", path, json.dumps(body),
                           {"Content-Type": "application/json", **(headers or {})})
        self.answer = connection.getresponse()
        self.status = self.answer.status

    def __iter__(self):
        for raw in self.answer:
            line = raw.decode("utf-8").rstrip("\r\n")
            if line.startswith("data: "):
                yield line[len("data: "):]

    def chunks(self):
        """All remaining events as JSON; the last line of the stream must be [DONE]."""
        events = list(self)
        self.connection.close()
        expect(events and events[-1] == "[DONE]", f"the stream ended with {events[-1:]}")
        return [json.loads(event) for event in events[:-1]]

    def close(self):
        self.connection.close()
