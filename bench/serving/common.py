"""What the programs of this folder share: a pinned server, its figures in /proc and /metrics, and the
lines that are printed. Standard library only; the server's handling is that of tests/e2e."""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "e2e"))

from harness import TINY, Context, clean_environment  # noqa: E402  (the path is set above)

SERVER_CORE = 0
CLIENT_CORE = 1


def answer_of(words):
    """A scripted chat answer of about so many tokens."""
    return "<|channel|>final<|message|>" + "word " * words + "<|return|>"


def percentile(values, p):
    """Linear interpolation between the closest ranks."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    rank = p / 100 * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def median(values):
    return percentile(values, 50)


def slope(points):
    """Least squares slope of (x, y) points."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else 0.0


class Program:
    """Flags, pinning and output of one program; collects what was met."""

    def __init__(self, description, **extra):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--binary", default=SOURCE / "build/dev/strata", help="path of strata")
        parser.add_argument("--small", action="store_true",
                            help="small counts, and only figures that are counts: for ./test --full")
        parser.add_argument("--history", help="append each figure to this file as a line of JSON")
        for name, (default, text) in extra.items():
            parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default,
                                help=f"{text} (default {default})")
        self.options = parser.parse_args()
        self.name = pathlib.Path(sys.argv[0]).stem
        self.missed = 0
        self.context = Context(self.options.binary)
        self.cores = sorted(os.sched_getaffinity(0))
        if CLIENT_CORE in self.cores and SERVER_CORE in self.cores:
            os.sched_setaffinity(0, {CLIENT_CORE})

    def serve(self, *arguments):
        """A server on its own core; the child inherits the affinity of the moment it is started."""
        own = os.sched_getaffinity(0)
        if SERVER_CORE in self.cores:
            os.sched_setaffinity(0, {SERVER_CORE})
        try:
            return self.context.serve("--port", "0", *arguments)
        finally:
            os.sched_setaffinity(0, own)

    def scripted(self, *lines, arguments=()):
        return self.serve("--load-format", "scripted", "--script", self.context.script(*lines), TINY,
                          *arguments)

    def load(self, server, *arguments):
        """Runs `strata bench serve` against the server -> its result."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [self.context.binary, "bench", "serve", "--base-url",
                       f"http://127.0.0.1:{server.port}", "--save-result", "--result-filename",
                       file.name, *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True,
                                  env=clean_environment(HOME=str(self.context.folder)))
            if done.returncode != 0:
                raise RuntimeError(f"bench serve: {done.stdout[-2000:]} {done.stderr}")
            return json.load(open(file.name))

    def figure(self, name, value, unit, bound=None, most=True, is_count=False):
        """Prints one line. `bound` is the most (or least) the value may be; without one it is only
        told. Small runs tell counts only, the others depend on the machine."""
        if self.options.small and not is_count:
            return
        met = bound is None or (value <= bound if most else value >= bound)
        self.missed += 0 if met else 1
        limit = "" if bound is None else f"{'<=' if most else '>='} {bound:g}"
        verdict = "" if bound is None else "met" if met else "MISSED"
        print(f"{self.name + '.' + name:<44} {value:>12.3f} {unit:<10} {limit:<12} {verdict}",
              flush=True)
        if not self.options.history:
            return
        row = {"date": time.strftime("%Y-%m-%d"), "program": self.name, "figure": name,
               "value": round(value, 6), "unit": unit, "bound": bound, "met": met,
               "commit": commit(), "processor": processor(), "machine": platform.machine()}
        with open(self.options.history, "a") as out:
            out.write(json.dumps(row) + "\n")

    def end(self):
        self.context.close()
        sys.exit(1 if self.missed else 0)


def commit():
    done = subprocess.run(["git", "-C", str(SOURCE), "describe", "--always", "--dirty"],
                          capture_output=True, text=True)
    return done.stdout.strip()


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(": ", 1)[1].strip()
    return "unknown"


class Metrics:
    """Scrapes /metrics over one connection that is kept while the server keeps it."""

    LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")

    def __init__(self, server):
        self.connection = server.connect()

    def read(self):
        """-> name or name{labels} -> value; a name without its labels holds the sum."""
        try:
            self.connection.request("GET", "/metrics")
            text = self.connection.getresponse().read().decode()
        except (ConnectionResetError, BrokenPipeError):  # it was idle for too long
            self.connection.close()
            return self.read()
        values = {}
        for line in text.splitlines():
            match = self.LINE.match(line)
            if match:
                name, labels, value = match.groups()
                values[name] = values.get(name, 0.0) + float(value)
                if labels:
                    values[f"{name}{{{labels}}}"] = float(value)
        return values

    def idle(self):
        """Nothing runs, nothing waits, every page is free."""
        now = self.read()
        return (now["vllm:num_requests_running"] == 0 and now["vllm:num_requests_waiting"] == 0
                and now["vllm:kv_cache_usage_perc"] == 0)

    def wait_idle(self, timeout=20):
        """-> seconds until idle, or None."""
        begin = time.monotonic()
        while time.monotonic() - begin < timeout:
            if self.idle():
                return time.monotonic() - begin
            time.sleep(0.001)
        return None

    def label(self, name, label):
        """The value of a label of the one series `name`."""
        for key in self.read():
            if key.startswith(name + "{"):
                return re.search(label + r'="([^"]*)"', key).group(1)
        return None

    def close(self):
        self.connection.close()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
