"""What serve_load.sh runs; the variables are explained there. Standard library only."""

import json
import math
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from clocks import Clocks

E = os.environ
OUT = pathlib.Path(E["OUT"])
START_LIMIT_S = 240  # the 20b has to be read or made first
ENGINE_LIMIT_S = 290
# A request is good with its first token after at most so long and with its own gaps' p99 below.
TTFT_LIMIT_S = 1.0
GAP_LIMIT_S = 0.05
GOOD_SHARE = 0.5  # below it a higher rate tells nothing


def percentile(values, p):
    ordered = sorted(values)
    if not ordered:
        return math.nan
    rank = p / 100 * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def histogram(gaps):
    bounds = (10, 20, 30, 40, 50, 60, 80, 100, 150)
    return {str(bound): sum(gap <= bound / 1e3 for gap in gaps) / max(1, len(gaps))
            for bound in bounds}


class Engine:
    """A server as a child process, until the block ends."""

    def __init__(self, name, command):
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = OUT / f"serve_{name}.log"
        self.command = [*command, "--port", str(self.port)]
        self.clocks = Clocks(OUT / f"clocks_{name}.csv")
        self.clock = ""  # during the last load
        self.gaps = {}  # of each rate: share of inter-token gaps up to so many ms
        self.best_goodput = 0.0

    def __enter__(self):
        print(f"== {self.name}: {shlex.join(self.command)}", flush=True)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        self.clocks.__enter__()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        self.clocks.__exit__()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_ready(self):
        begin = time.monotonic()
        while time.monotonic() - begin < START_LIMIT_S:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            try:
                urllib.request.urlopen(self.url + "/health", timeout=2).close()
                print(f"ready after {time.monotonic() - begin:.1f} s", flush=True)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise SystemExit(f"{self.name} is not ready after {START_LIMIT_S} s, see {self.log}")

    def left(self):
        return ENGINE_LIMIT_S - (time.monotonic() - self.began)

    def load(self, name, limit_s, *arguments):
        """`strata bench serve` -> its JSON, or nothing when it failed or took too long."""
        file = OUT / f"serve_{self.name}_{name}.json"
        command = [E["STRATA"], "bench", "serve", "--base-url", self.url, "--save-result",
                   "--save-detailed", "--result-filename", str(file), *map(str, arguments)]
        mark = self.clocks.mark()
        with open(OUT / f"serve_{self.name}_{name}.log", "w") as log:
            try:
                code = subprocess.run(command, stdout=log, stderr=log,
                                      timeout=max(1.0, min(limit_s, self.left()))).returncode
            except subprocess.TimeoutExpired:
                print(f"{name}: took too long")
                return None
        self.clock = self.clocks.since(mark)
        if code != 0:
            print(f"{name}: exit {code}, see {log.name}")
            return None
        return json.loads(file.read_text())


def random_load(seed, count, tokens, output, ratio):
    # Every load has prompts of its own: nothing comes from a prefix cache.
    return ["--seed", seed, "--num-prompts", count, "--random-input-len", tokens,
            "--random-output-len", output, "--random-range-ratio", ratio, "--temperature", 0]


def good(ttft, gaps):
    return ttft <= TTFT_LIMIT_S and (not gaps or percentile(gaps, 99) <= GAP_LIMIT_S)


def single_prompts(engine):
    rows = []
    for seed, tokens in enumerate(map(int, E["PROMPTS"].split()), 100):
        result = engine.load(f"prompt{tokens}", 60, "--max-concurrency", 1, "--percentile-metrics",
                             "ttft,e2el", *random_load(seed, E["REPEATS"], tokens, E["OUTPUT"], 0))
        if result:
            rows.append(f"{tokens:>8} {result['mean_ttft_ms']:>10.1f} {result['std_ttft_ms']:>8.1f}"
                        f" {result['mean_e2el_ms']:>11.1f} {result['std_e2el_ms']:>8.1f}"
                        f" {result['completed']:>6}  {engine.clock}")
    return [f"prompt, one at a time, answers of {E['OUTPUT']} tokens",
            f"{'tokens':>8} {'TTFT mean':>10} {'sd':>8} {'end to end':>11} {'sd':>8} {'done':>6}",
            *rows]


def rates(engine):
    rows = []
    best = 0.0
    seconds = float(E["SECONDS_EACH"])
    for seed, rate in enumerate(map(float, E["RATES"].split()), 200):
        if engine.left() < seconds + 10:
            rows.append(f"{rate:>6g}  no time left")
            break
        count = max(2, round(rate * seconds))
        result = engine.load(f"rate{rate:g}", 2.5 * seconds, "--request-rate", rate,
                             *random_load(seed, count, E["INPUT"], E["OUTPUT"], 0.95))
        if result is None:
            rows.append(f"{rate:>6g}  not done after {2.5 * seconds:.0f} s")
            break
        done = [(ttft, gaps) for ttft, gaps, error in
                zip(result["ttfts"], result["itls"], result["errors"]) if not error]
        gaps = [gap for _, of_one in done for gap in of_one]
        engine.gaps[rate] = histogram(gaps)
        firsts = [ttft for ttft, _ in done]
        num_good = sum(good(*one) for one in done)
        goodput = num_good / result["duration"]
        best = max(best, goodput)
        rows.append(f"{rate:>6g} {len(done):>5}/{count:<5}"
                    + "".join(f" {1e3 * percentile(values, p):>9.1f}"
                              for values in (firsts, gaps) for p in (50, 99))
                    + f" {result['output_throughput']:>9.1f} {num_good / count:>6.0%}"
                    + f" {goodput:>8.2f}  {engine.clock}")
        if num_good < GOOD_SHARE * count:
            break
    engine.best_goodput = best
    return ["open loop, mixed prompts",
            f"{'rate':>6} {'done':>11} {'TTFT p50':>9} {'p99':>9} {'ITL p50':>9} {'p99':>9}"
            f" {'tok/s':>9} {'good':>6} {'goodput':>8}", *rows,
            f"best goodput {best:.2f} requests/s"]


def five_users(engine):
    # Random weights do not answer chats.
    result = engine.load("five_users", 90, "--preset", "five-users", "--backend", "openai",
                         "--temperature", 0)
    if result is None:
        return ["five users: failed"]
    f = result["five_users"]

    def line(name, key):
        return f"{name:>20}" + "".join(f" {f[f'{part}_{key}']:>9.2f}"
                                       for part in ("mean", "std", "p50", "p99"))

    return ["five users, answers of 100 tokens", f"{'':>20} {'mean':>9} {'sd':>9} {'p50':>9} {'p99':>9}",
            line("TTFT, ms", "ttft_ms"), line("end to end, s", "e2e_s"),
            line("256 tokens, tok/s", "tokens_per_s"), f"{f['failed']} failed; {engine.clock}"]


def measure(name, command, only_rates):
    """Tables of a server, and its best goodput."""
    with Engine(name, command) as engine:
        engine.load("warm", 60, *random_load(1, 4, E["INPUT"], 8, 0))
        loads = [] if only_rates else [*single_prompts(engine), *five_users(engine)]
        loads += rates(engine)
        tables = [f"== {name} (ms; good: TTFT <= {TTFT_LIMIT_S:g} s, own ITL p99 <= "
                  f"{1e3 * GAP_LIMIT_S:g} ms)", *loads, f"{ENGINE_LIMIT_S - engine.left():.0f} s in all"]
        with open(OUT / "serve_load.jsonl", "a") as out:
            json.dump({"name": name, "command": command, "tables": tables, "gaps": engine.gaps}, out)
            out.write("\n")
        return tables, engine.best_goodput


def main():
    places, context = int(E["PLACES"]), int(E["CONTEXT"])
    strata = [E["STRATA"], "serve", E["MODEL"], "--load-format", E["LOAD_FORMAT"], "--backend",
              E["BACKEND"], "--max-num-seqs", str(places), "--max-model-len", str(context),
              "--log-level", "warning", *shlex.split(E["STRATA_ARGS"])]
    llama = [E["LLAMA"], "-m", E["GGUF"], "-ngl", "99", "-fa", "on", "-np", str(places),
             "-c", str(places * context), "--no-webui", *shlex.split(E["LLAMA_ARGS"])]
    engines = {"strata": (strata, "--max-num-batched-tokens")}
    if E["GGUF"]:
        engines["llama"] = (llama, "-ub")
    tables, failed, best = [], 0, {}
    for name, (command, chunk_flag) in engines.items():
        for turn, chunk in enumerate(E["CHUNKS"].split()):
            try:
                of_one, goodput = measure(f"{name}_{chunk}", [*command, chunk_flag, chunk], turn > 0)
                tables += ["", *of_one]
                best[name] = max(best.get(name, 0.0), goodput)
            except SystemExit as failure:
                failed = 1
                tables += ["", f"== {name}", str(failure)]
    print("\n".join(tables))
    ratio = f"; {best['strata'] / best['llama']:.1f} times" if all(
        best.get(name) for name in ("strata", "llama")) else ""
    print("best goodput, requests/s: " + ", ".join(f"{n} {g:.2f}" for n, g in best.items()) + ratio)
    sys.exit(failed)


if __name__ == "__main__":
    main()
