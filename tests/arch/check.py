#!/usr/bin/env python3
"""Architecture as a test: who may include whom, size limits, laws on words.

Reads the sources below src/, web/, tests/, tools/ and bench/ of the checkout it lies in. Prints
each violation as file:line and exits 1 if there is one.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folder of src/ -> folders it may include besides its own; base and plan values as listed.
MAY_INCLUDE = {
    "base": set(),
    "plan": {"base"},
    "http": {"base"},
    "loadgen": {"base"},
    "api": {"base"},
    "guard": {"base"},
    "tokenizer": {"base"},
    "kv": {"base"},
    "weights": {"base"},
    "comm": {"base"},
    "metrics": {"base"},
    "harmony": {"base", "tokenizer"},
    "grammar": {"base", "tokenizer"},
    "kernels": {"base", "plan"},
    "experts": {"base", "kernels", "weights"},
    "model": {"base", "plan", "kernels", "experts", "comm", "weights", "engine"},
    "engine": {"base", "plan", "kv", "grammar", "metrics"},
    "serve": {"base", "plan", "http", "api", "guard", "harmony", "tokenizer", "grammar", "engine",
              "metrics"},
    "app": None,  # everything
}
# model/ implements the engine's Model seam and sees nothing else of the engine.
ONLY_HEADERS = {("model", "engine"): {"engine/model.h"},
                ("serve", "engine"): {"engine/engine.h", "engine/token_stream.h"}}
BACKENDS = ("ref", "cpu", "cuda")

# (pattern, folders of src/ where it is allowed, why)
WORD_LAWS = [
    (r"#include <cuda", {"kernels/cuda", "comm"}, "CUDA headers stay in kernels/cuda and comm"),
    (r"\bgetenv\b", {"app/options.cc"}, "the environment is read in app/options.cc only"),
    (r"#include <boost/", {"http", "loadgen/http_client.cc"}, "Boost stays in http/ and loadgen's client"),
    (r"#include <prometheus/", {"metrics"}, "prometheus-cpp stays in metrics/"),
    (r"#include <nlohmann/json\.hpp>", {"base", "api", "weights", "tokenizer", "grammar", "harmony",
                                        "loadgen", "app"}, "JSON is read at the edges, not on the token path"),
]

# Files and functions over the limits, each with its reason.
LONG_FILES = {
    "src/tokenizer/unicode_tables.cc": "generated table",
}
MAX_FILE_LINES = 500
MAX_HEADER_LINES = 150
LONG_HEADERS = {
    "src/kernels/stages.h": "the seam between model and hardware is read as one page",
}


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout
    return [ROOT / name for name in out.split("\0") if name and (ROOT / name).exists()]


def check_includes(path, text, problems):
    parts = path.relative_to(ROOT / "src").parts
    folder = parts[0]
    allowed = MAY_INCLUDE.get(folder, set())
    backend = parts[1] if folder == "kernels" and len(parts) > 2 and parts[1] in BACKENDS else None
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'#include "([a-z_]+)/([^"]+)"', line)
        if not match:
            continue
        target, rest = match.groups()
        where = f"{path.relative_to(ROOT)}:{number}"
        if target not in MAY_INCLUDE:
            problems.append(f"{where}: include of unknown folder {target}/")
        elif allowed is not None and target != folder and target not in allowed:
            problems.append(f"{where}: {folder}/ may not include {target}/")
        listed = ONLY_HEADERS.get((folder, target))
        if listed and f"{target}/{rest}" not in listed:
            problems.append(f"{where}: {folder}/ may include only {', '.join(sorted(listed))}")
        other = rest.split("/")[0]
        if target == "kernels" and backend and other in BACKENDS and other != backend:
            problems.append(f"{where}: kernels/{backend} may not include kernels/{other}")


def check_words(path, text, problems):
    relative = path.relative_to(ROOT / "src").as_posix()
    for pattern, folders, why in WORD_LAWS:
        if any(relative == f or relative.startswith(f + "/") for f in folders):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                problems.append(f"src/{relative}:{number}: {why}")


def check_sizes(path, text, problems):
    relative = path.relative_to(ROOT).as_posix()
    lines = text.count("\n")
    if lines > MAX_FILE_LINES and relative not in LONG_FILES:
        problems.append(f"{relative}: {lines} lines, the limit is {MAX_FILE_LINES}")
    # A backend's own headers are seen by nobody else; *.inc.h are source files in parts.
    private = re.match(r"src/kernels/(cpu|ref|cuda)/(?!.*_backend\.h)", relative)
    public = relative.startswith("src/") and relative.endswith(".h") and not private
    if public and lines > MAX_HEADER_LINES and relative not in LONG_HEADERS:
        problems.append(f"{relative}: {lines} lines, a header's limit is {MAX_HEADER_LINES}")


def check_acyclic(problems):
    """The table itself must describe layers: no folder reaches itself through others."""
    def reach(folder, seen):
        for target in MAY_INCLUDE.get(folder) or ():
            if (folder, target) in ONLY_HEADERS:
                continue
            if target in seen:
                problems.append(f"include table has a cycle through {target}")
                return
            reach(target, seen | {target})
    for folder in MAY_INCLUDE:
        reach(folder, {folder})


def main():
    problems = []
    check_acyclic(problems)
    for path in tracked("src/*.cc", "src/*.h", "src/*.cu", "src/*.cuh"):
        text = path.read_text(encoding="utf-8")
        check_includes(path, text, problems)
        check_words(path, text, problems)
    for path in tracked("src/*", "tests/*", "tools/*", "bench/*", "web/*"):
        if path.suffix in {".cc", ".h", ".cu", ".cuh", ".py", ".js", ".mjs", ".css", ".sh"}:
            check_sizes(path, path.read_text(encoding="utf-8"), problems)
    for problem in problems:
        print(problem)
    print(f"architecture: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
