"""Whether generating takes card memory: what run.sh's part `flat` runs. A server with random weights
in the 20b's shape; its card's memory.used from ready to after two loads must not move. Nothing else
may use the card. The variables are those of serve_load.sh, which OUT and STRATA must be in."""

import shlex
import subprocess
import sys
import threading
import time

from serve_load import E, Engine, random_load

QUERY = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]


def used_mib():
    return int(subprocess.run(QUERY, check=True, capture_output=True,
                              text=True).stdout.splitlines()[0])


class Sampler(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.values, self.ended = [], False

    def run(self):
        while not self.ended:
            self.values.append(used_mib())
            time.sleep(0.2)


def main():
    command = [E["STRATA"], "serve", E.get("MODEL", "models/strata-tiny"), "--load-format",
               E.get("LOAD_FORMAT", "dummy:20b"), "--backend", E.get("BACKEND", "cuda"),
               "--max-num-seqs", "32", "--max-model-len", E.get("CONTEXT", "33024"),
               "--log-level", "warning", *shlex.split(E.get("STRATA_ARGS", ""))]
    scale = float(E.get("SCALE", "1"))  # of the prompts
    before = used_mib()
    with Engine("flat", command) as engine:
        ready = used_mib()
        sampler = Sampler()
        sampler.start()
        # Long prompts alone, then more sequences than places with prompts of all lengths.
        loads = [engine.load("long", 60, "--max-concurrency", 1,
                             *random_load(1, 4, int(16000 * scale), 64, 0)),
                 engine.load("many", 90, *random_load(2, 64, int(2000 * scale), 200, 0.9))]
        time.sleep(1)
        after = used_mib()
        sampler.ended = True
        sampler.join()
    values = [ready, *sampler.values, after]
    print(f"card memory, MiB: {before} before the server, {ready} when ready, {after} after; "
          f"{len(values)} samples since ready, least {min(values)}, most {max(values)}")
    if None in loads:
        print("a load failed")
    sys.exit(None in loads or min(values) != max(values))


if __name__ == "__main__":
    main()
