"""The official OpenAI client for Node.js; needs `npm ci` in this folder."""

import pathlib
import subprocess
import sys

from harness import expect
from serving_checks import ANSWER

FOLDER = pathlib.Path(__file__).parent
CALL = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>" \
       "{\"city\":\"Taipei\"}<|call|>"
CHARACTERS = "<|channel|>final<|message|>\U0001f986 龘 café \U0001f1ea\U0001f1fa<|return|>"


def run_client(server, *command):
    url = f"http://127.0.0.1:{server.ready().port}/v1"
    program, script, *options = command
    result = subprocess.run([program, script, url, *options], capture_output=True, text=True,
                            cwd=FOLDER, timeout=120)
    expect(result.returncode == 0, result.stdout + result.stderr)


def check_official_client(context):
    with context.scripted(ANSWER, arguments=["--api-key", "secret"]) as server:
        run_client(server, "node", "official_client.mjs")


def check_official_client_with_split_characters(context):
    with context.scripted(CHARACTERS) as server:
        run_client(server, "node", "openai_client.mjs")


def check_official_client_with_tools(context):
    with context.scripted(CALL) as server:
        run_client(server, "node", "openai_client.mjs", "any-key", "--tools")


def check_standard_library_client(context):
    with context.scripted(CHARACTERS, arguments=["--api-key", "secret"]) as server:
        run_client(server, sys.executable, "stdlib_client.py", "secret")
