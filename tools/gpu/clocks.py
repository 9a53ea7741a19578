"""The card's SM clock while something ran: a throttled card explains a slow figure.

  clocks.py sample FILE       writes samples to FILE until it is ended
  clocks.py since FILE LINE   what the samples after the first LINE say, in words
"""

import os
import pathlib
import subprocess
import sys

# nvidia-smi would keep lines back in its buffer.
QUERY = ["stdbuf", "-oL", "nvidia-smi",
         "--query-gpu=clocks.sm,utilization.gpu,clocks_event_reasons.active",
         "--format=csv,noheader,nounits", "-lms", "200"]
REASONS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal", 0x40: "hardware thermal",
           0x80: "power brake"}


def samples_of(text):
    """(clock in MHz, utilisation, reasons); without a card: none."""
    list_of = []
    for line in text.splitlines():
        try:
            clock, busy, reasons = line.split(",")
            list_of.append((int(clock), int(busy), int(reasons, 16)))
        except ValueError:
            continue
    return list_of


def words(samples):
    busy = [each for each in samples if each[1] > 0] or samples
    if not busy:
        return "SM clock unknown"
    clocks = sorted(clock for clock, _, _ in busy)
    active = 0
    for _, _, reasons in busy:
        active |= reasons
    middle, least = clocks[len(clocks) // 2], clocks[0]
    text = f"SM {middle} MHz" + (f", least {least}" if least < middle else "")
    names = [name for bit, name in REASONS.items() if active & bit]
    return text + (f" ({', '.join(names)})" if names else "")


class Clocks:
    """Samples until the block ends. since(mark()) tells of what ran between."""

    def __init__(self, file):
        self.file = pathlib.Path(file)

    def __enter__(self):
        self.process = None
        with open(self.file, "w") as out:
            try:
                self.process = subprocess.Popen(QUERY, stdout=out, stderr=subprocess.DEVNULL)
            except FileNotFoundError:
                pass
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def mark(self):
        return len(self.file.read_text().splitlines())

    def since(self, line):
        return words(samples_of("\n".join(self.file.read_text().splitlines()[line:])))


def main():
    if sys.argv[1] == "sample":
        os.dup2(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
        os.execvp(QUERY[0], QUERY)
    print(Clocks(sys.argv[2]).since(int(sys.argv[3])))


if __name__ == "__main__":
    main()
